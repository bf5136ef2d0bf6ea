/** The options of `registry.service()`, checked and completed. */

import { integer, invalid, isRecord, kindOf, onlyKnown, optional, text } from '../common/shape.js';
import { OUTLIER_DEFAULTS, type OutlierOptions, type OutlierSettings } from './ejector.js';
import type { HttpOptions } from './http.js';
import { scheme, schemeOf, share, type ZoneFilterOptions, zone } from './pick/filters.js';
import { leastLoaded } from './pick/least-loaded.js';
import { type SubsetOptions, subset } from './pick/subset.js';
import type { Filter, Strategy } from './pick/types.js';
import type { PickOptions, ViewSettings } from './view.js';

/** The option `zone`, with more than the name. */
export interface ZoneOptions extends ZoneFilterOptions {
  /** The zone of this caller. */
  own: string;
}

/** Checks options of HTTP. Known by its type alone: lib/http stands above this folder, and is loaded at use. */
const httpSettings = (value: unknown): unknown =>
  (require('../http/options.js') as { httpSettings(path: string, value: unknown): unknown }).httpSettings(
    'options.http',
    value,
  );

/** Options of `registry.service()`. Without any, a user of the service picks as the others without any do. */
export interface ServiceOptions {
  /** Which instances fit, all of them in this order: `version()`, `metadata()`, … Default: all. */
  filters?: readonly Filter[] | undefined;
  /** Which of those that fit is picked. Default `leastLoaded()`. */
  strategy?: Strategy | undefined;
  /** The zone of this caller: its own instances first, as the filter `zone()` does it. Default: none. */
  zone?: string | ZoneOptions | undefined;
  /** Which endpoints fit, such as `grpc`, or several. Default: all. An instance is called at its first that fits. */
  scheme?: string | readonly string[] | undefined;
  /** Only so many instances. Default: all. */
  subset?: SubsetOptions | undefined;
  /** How `fetch()` is tried. */
  http?: HttpOptions | undefined;
  /** Shared. Who fails is set aside for a while; `false`: nobody is. Default: see `OutlierOptions`. */
  outlier?: OutlierOptions | false | undefined;
  /** Shared. For how long a new instance gets less than its share, in milliseconds. Default 0: off. */
  warmUpMs?: number | undefined;
  /** Shared. For how long the service is followed after its last user let go, in milliseconds. Default 300,000. */
  lingerMs?: number | undefined;
  /**
   * Shared. Whether endpoints may be called that are another place for each caller: loopback and link-local addresses, Unix
   * sockets. Default false; true in the memory registry, all of whose users are in one process.
   */
  allowLocal?: boolean | undefined;
}

/** What all users of a service share. */
export interface SharedSettings {
  readonly outlier: OutlierSettings | false;
  readonly warmUpMs: number;
  readonly lingerMs: number;
  readonly allowLocal: boolean;
}

/** Options that were checked. */
export interface CheckedOptions {
  /** Those that were given. */
  readonly shared: Partial<SharedSettings>;
  /** Of this user alone; missing when nothing of it was given. */
  readonly view: ViewSettings | undefined;
  /** Of this user's calls over HTTP. */
  readonly http: unknown;
}

const DEFAULT_STRATEGY = leastLoaded();

/** Of users without options of their own. */
export const DEFAULT_VIEW: ViewSettings = Object.freeze({ filters: [], strategy: DEFAULT_STRATEGY });

export const sharedDefaults = (allowLocal: boolean): SharedSettings => ({
  outlier: OUTLIER_DEFAULTS,
  warmUpMs: 0,
  lingerMs: 300_000,
  allowLocal,
});

const VIEW = ['filters', 'strategy', 'zone', 'scheme', 'subset'];
const SHARED = ['outlier', 'warmUpMs', 'lingerMs', 'allowLocal'];

/** Checks the options of `registry.service()`. `ownKey` is the key of subsets that have none. */
export function checkOptions(options: unknown, ownKey: () => string): CheckedOptions {
  const given = optional('options', options);
  onlyKnown('options', given, [...VIEW, ...SHARED, 'http']);
  const http = given.http === undefined ? undefined : httpSettings(given.http);
  const shared: { -readonly [Key in keyof SharedSettings]?: SharedSettings[Key] } = {};
  if (given.outlier !== undefined) shared.outlier = outlier(given.outlier);
  if (given.warmUpMs !== undefined) shared.warmUpMs = integer('options.warmUpMs', given.warmUpMs, 0, { min: 0 });
  if (given.lingerMs !== undefined) shared.lingerMs = integer('options.lingerMs', given.lingerMs, 0, { min: 0 });
  if (given.allowLocal !== undefined) {
    if (typeof given.allowLocal !== 'boolean') {
      throw invalid('options.allowLocal', `expected true or false, got ${kindOf(given.allowLocal)}`);
    }
    shared.allowLocal = given.allowLocal;
  }
  if (VIEW.every((key) => given[key] === undefined)) return { shared, view: undefined, http };

  const filters = [...schemes(given.scheme), ...filtersOf(given.filters), ...zones(given.zone)];
  if (given.subset !== undefined) filters.push(within('options.', () => subset(given.subset as SubsetOptions, ownKey)));
  const strategy = given.strategy === undefined ? DEFAULT_STRATEGY : strategyOf('options.strategy', given.strategy);
  return { shared, view: { filters, strategy }, http };
}

/** Checks the options of a pick. */
export function checkPick(options: unknown, more: readonly string[] = []): PickOptions | undefined {
  if (options === undefined) return undefined;
  const given = optional('options', options);
  onlyKnown('options', given, ['key', 'exclude', 'scheme', 'filter', 'strategy', ...more]);
  const { key, exclude, scheme, filter, strategy } = given;
  if (key !== undefined && typeof key !== 'string')
    throw invalid('options.key', `expected a string, got ${kindOf(key)}`);
  if (exclude !== undefined && typeof (exclude as Partial<Set<string>> | null)?.has !== 'function') {
    throw invalid('options.exclude', `expected a Set of ids, got ${kindOf(exclude)}`);
  }
  return {
    key,
    exclude: exclude as ReadonlySet<string> | undefined,
    scheme: scheme === undefined ? undefined : schemeOf('options.scheme', scheme),
    filter: filter === undefined ? undefined : filterOf('options.filter', filter),
    strategy: strategy === undefined ? undefined : strategyOf('options.strategy', strategy),
  };
}

function filtersOf(value: unknown): Filter[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw invalid('options.filters', `expected an array of filters, got ${kindOf(value)}`);
  return value.map((filter, place) => filterOf(`options.filters[${place}]`, filter));
}

function filterOf(path: string, value: unknown): Filter {
  if (typeof value !== 'function') throw invalid(path, `expected a filter such as version("^1"), got ${kindOf(value)}`);
  return value as unknown as Filter;
}

function strategyOf(path: string, value: unknown): Strategy {
  if (typeof value === 'function') throw invalid(path, 'expected a strategy: call the function, as in weighted()');
  if (!isRecord(value) || typeof value.bind !== 'function' || typeof value.name !== 'string') {
    throw invalid(path, `expected a strategy such as weighted(), got ${kindOf(value)}`);
  }
  return value as unknown as Strategy;
}

function zones(value: unknown): Filter[] {
  if (value === undefined) return [];
  if (typeof value === 'string') return [within('options.', () => zone(value))];
  if (!isRecord(value)) throw invalid('options.zone', `expected a string or an object with own, got ${kindOf(value)}`);
  onlyKnown('options.zone', value, ['own', 'min', 'minShare', 'key']);
  const own = text('options.zone.own', value.own);
  if (own === undefined) throw invalid('options.zone.own', 'expected a string, got undefined');
  const { own: _, ...more } = value;
  return [within('options.zone.', () => zone(own, more as ZoneFilterOptions), 'options.')];
}

function schemes(value: unknown): Filter[] {
  if (value === undefined) return [];
  const all: unknown[] = Array.isArray(value) ? value : [value];
  if (all.length === 0) throw invalid('options.scheme', 'expected at least one, such as "grpc"');
  const path = (place: number) => (Array.isArray(value) ? `options.scheme[${place}]` : 'options.scheme');
  return [scheme(...all.map((word, place) => schemeOf(path(place), word)))];
}

/** Runs what names its argument by itself; the path is put before it, in the place of `instead`. */
export function within<T>(path: string, make: () => T, instead = ''): T {
  try {
    return make();
  } catch (error) {
    const failure = error as Error;
    const rest = failure.message.startsWith(instead) ? failure.message.slice(instead.length) : failure.message;
    failure.message = `${path}${rest}`;
    throw failure;
  }
}

function outlier(value: unknown): OutlierSettings | false {
  if (value === false) return false;
  if (!isRecord(value)) throw invalid('options.outlier', `expected false or an object, got ${kindOf(value)}`);
  onlyKnown('options.outlier', value, Object.keys(OUTLIER_DEFAULTS));
  const path = (key: string) => `options.outlier.${key}`;
  const ms = (key: keyof OutlierOptions & `${string}Ms`) =>
    integer(path(key), value[key], OUTLIER_DEFAULTS[key], { min: 1 });
  return Object.freeze({
    consecutiveFailures: integer(path('consecutiveFailures'), value.consecutiveFailures, 5, { min: 0 }),
    baseEjectionMs: ms('baseEjectionMs'),
    maxEjectionMs: ms('maxEjectionMs'),
    refusedMs: ms('refusedMs'),
    intervalMs: ms('intervalMs'),
    maxEjected: share(path('maxEjected'), value.maxEjected, OUTLIER_DEFAULTS.maxEjected),
    successRateFactor: factor(path('successRateFactor'), value.successRateFactor),
    failureShare: value.failureShare === false ? false : share(path('failureShare'), value.failureShare, 0.85),
  });
}

function factor(path: string, value: unknown): number | false {
  if (value === undefined) return OUTLIER_DEFAULTS.successRateFactor;
  if (value === false || (typeof value === 'number' && value >= 0.1 && value <= 100)) return value;
  const got = typeof value === 'number' ? value : kindOf(value);
  throw invalid(path, `expected false or a number from 0.1 to 100, got ${got}`);
}
