/** Filters: which candidates fit at all. */

import { integer, invalid, isRecord, kindOf, onlyKnown, optional, text } from '../../common/shape.js';
import type { ServiceInstance } from '../../registry/instance.js';
import { parseRange, parseVersion, satisfies } from '../semver.js';
import type { Candidate, Filter } from './types.js';

/** A filter out of a function. */
function named(name: string, run: (candidates: readonly Candidate[]) => readonly Candidate[], live = false): Filter {
  return Object.freeze(Object.defineProperties(run, { name: { value: name }, live: { value: live } })) as Filter;
}

/** A filter that looks at each candidate by itself. */
export function each(name: string, fits: (candidate: Candidate) => boolean): Filter {
  return named(name, (candidates) => candidates.filter(fits));
}

/** Versions that a filter has judged and remembers at most. */
const REMEMBERED = 1024;

/**
 * Those whose version is in a range as npm writes them: `^1.2`, `>=1.4 <3`, `1.x || 2.x`. A version that is none, such as
 * `main`, is in no range.
 *
 * Source: Semantic Versioning 2.0.0 and the ranges of `node-semver`; see `semver.ts`.
 *
 * @throws `ERR_INVALID_ARGUMENT`
 */
export function version(range: string): Filter {
  const given = text('range', range);
  const parsed = given === undefined ? undefined : parseRange(given);
  if (!parsed) {
    throw invalid(
      'range',
      `expected a range of versions such as "^1.2" or ">=1 <3"; other texts are compared by metadata((_, instance) => …)`,
    );
  }
  const judged = new Map<string, boolean>();
  return each('version', ({ instance }) => {
    let fits = judged.get(instance.version);
    if (fits === undefined) {
      const own = parseVersion(instance.version);
      fits = own !== undefined && satisfies(own, parsed);
      if (judged.size >= REMEMBERED) judged.clear();
      judged.set(instance.version, fits);
    }
    return fits;
  });
}

/** Judges an instance by its metadata. */
export type MetadataPredicate = (metadata: Readonly<Record<string, string>>, instance: ServiceInstance) => boolean;

/**
 * Those whose metadata have these values, all of them; or those that a function takes. It must be quick and must not throw.
 *
 * Source: selectors of labels as Kubernetes has them (equality-based), and `InstanceFilter` of Apache Curator.
 *
 * @throws `ERR_INVALID_ARGUMENT`
 */
export function metadata(wanted: Readonly<Record<string, string>> | MetadataPredicate): Filter {
  if (typeof wanted === 'function') return each('metadata', ({ instance }) => wanted(instance.metadata, instance));
  if (!isRecord(wanted))
    throw invalid('metadata', `expected an object of strings or a function, got ${kindOf(wanted)}`);
  const pairs = Object.entries(wanted).map(([key, value]) => {
    if (typeof value !== 'string') throw invalid(`metadata.${key}`, `expected a string, got ${kindOf(value)}`);
    return [key, value] as const;
  });
  return each('metadata', ({ instance }) => pairs.every(([key, value]) => instance.metadata[key] === value));
}

/**
 * Those whose endpoint has one of these schemes. An instance with several endpoints is called at the first that fits.
 *
 * Source: `registry.Kratos`'s resolver, which takes the first endpoint of its own scheme.
 *
 * @throws `ERR_INVALID_ARGUMENT`
 */
export function scheme(...schemes: readonly string[]): Filter {
  const known = new Set(schemes.map((word, place) => schemeOf(`scheme[${place}]`, word)));
  if (known.size === 0) throw invalid('scheme', 'expected at least one, such as "grpc"');
  return each('scheme', ({ endpoint }) => known.has(endpoint.scheme));
}

/** A scheme in lower case. */
export function schemeOf(path: string, word: unknown): string {
  const given = text(path, word) ?? '';
  if (!/^[a-z][a-z0-9+.-]*$/i.test(given)) throw invalid(path, 'expected a scheme without its colon, such as "grpc"');
  return given.toLowerCase();
}

/** Those whose endpoint speaks TLS; `secure(false)`: those whose endpoint doesn't. Source: `IsSecure` of Kratos's endpoints. */
export function secure(wanted = true): Filter {
  if (typeof wanted !== 'boolean') throw invalid('secure', `expected true or false, got ${kindOf(wanted)}`);
  return each('secure', ({ endpoint }) => endpoint.secure === wanted);
}

/** Options of the filter `zone()`. */
export interface ZoneFilterOptions {
  /** The own zone is taken while it has at least so many instances that are not set aside. Default 2. */
  min?: number | undefined;
  /**
   * … and while those are at least so much of a fair share: of all instances divided by the number of zones. From 0 to 1.
   * Default 0.5.
   */
  minShare?: number | undefined;
  /** The key of the metadata that names the zone. Default `zone`. */
  key?: string | undefined;
}

/**
 * Those of the own zone while it has enough of them; else all: the calls spill over before a few instances take the load of
 * a whole zone. Instances without a zone are of none.
 *
 * Source: zone-aware routing of Envoy (its minimum of a cluster and its spill-over), and of Spring Cloud LoadBalancer (own
 * zone, all if it is empty).
 *
 * @throws `ERR_INVALID_ARGUMENT`
 */
export function zone(own: string, options?: ZoneFilterOptions): Filter {
  const name = text('zone', own);
  if (name === undefined) throw invalid('zone', 'expected a string, got undefined');
  const given = optional('options', options);
  onlyKnown('options', given, ['min', 'minShare', 'key']);
  const min = integer('options.min', given.min, 2, { min: 0 });
  const minShare = share('options.minShare', given.minShare, 0.5);
  const key = text('options.key', given.key) ?? 'zone';
  const run = (candidates: readonly Candidate[]) => {
    const zones = new Set<string>();
    let [all, here] = [0, 0];
    let last: ServiceInstance | undefined;
    for (const { instance, load } of candidates) {
      if (instance === last || load.ejected) continue; // another endpoint of the same one
      last = instance;
      const of = instance.metadata[key];
      if (of !== undefined) zones.add(of);
      all++;
      if (of === name) here++;
    }
    zones.add(name);
    const enough = here > 0 && here >= min && here >= (all / zones.size) * minShare;
    return enough ? candidates.filter(({ instance }) => instance.metadata[key] === name) : candidates;
  };
  return named('zone', run, true);
}

/** A number from 0 to 1. */
export function share(path: string, value: unknown, fallback: number): number {
  if (value === undefined) return fallback;
  if (typeof value !== 'number') throw invalid(path, `expected a number from 0 to 1, got ${kindOf(value)}`);
  if (!(value >= 0 && value <= 1)) throw invalid(path, `expected a number from 0 to 1, got ${value}`);
  return value;
}

/** A live filter out of a function, for the other files of this folder. */
export const liveFilter = (name: string, run: (candidates: readonly Candidate[]) => readonly Candidate[]): Filter =>
  named(name, run, true);
