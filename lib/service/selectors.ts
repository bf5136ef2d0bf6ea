/** The filters and strategies by their public names. What is behind them is loaded with the first one that is made. */

import type { ConsistentHashOptions } from './pick/consistent-hash.js';
import type { MetadataPredicate, ZoneFilterOptions } from './pick/filters.js';
import type { LeastLoadedOptions } from './pick/least-loaded.js';
import type { Filter, Strategy } from './pick/types.js';

const pick = () => require('./pick/index.js') as typeof import('./pick/index.js');

/** A filter: instances whose version is in a range as npm writes them, such as `^1.2`. @throws `ERR_INVALID_ARGUMENT` */
export const version = (range: string): Filter => pick().version(range);

/** A filter: instances whose metadata have these values, or that a function takes. @throws `ERR_INVALID_ARGUMENT` */
export const metadata = (wanted: Readonly<Record<string, string>> | MetadataPredicate): Filter =>
  pick().metadata(wanted);

/** A filter: endpoints with one of these schemes. @throws `ERR_INVALID_ARGUMENT` */
export const scheme = (...schemes: readonly string[]): Filter => pick().scheme(...schemes);

/** A filter: endpoints that speak TLS; with `false` those that don't. @throws `ERR_INVALID_ARGUMENT` */
export const secure = (wanted?: boolean): Filter => pick().secure(wanted);

/** A filter: the own zone while it has enough instances, else all. @throws `ERR_INVALID_ARGUMENT` */
export const zone = (own: string, options?: ZoneFilterOptions): Filter => pick().zone(own, options);

/** A strategy: any, each with the same chance. */
export const random = (): Strategy => pick().random();

/** A strategy: one after the other. */
export const roundRobin = (): Strategy => pick().roundRobin();

/** A strategy: each as often as its weight says, evenly spread. */
export const weighted = (): Strategy => pick().weighted();

/** A strategy: each with the chance that its weight says. */
export const weightedRandom = (): Strategy => pick().weightedRandom();

/** A strategy, the default: of two by chance the one with less to do. @throws `ERR_INVALID_ARGUMENT` */
export const leastLoaded = (options?: LeastLoadedOptions): Strategy => pick().leastLoaded(options);

/** A strategy: the same key to the same instance, unless that one has too much to do. @throws `ERR_INVALID_ARGUMENT` */
export const consistentHash = (options?: ConsistentHashOptions): Strategy => pick().consistentHash(options);
