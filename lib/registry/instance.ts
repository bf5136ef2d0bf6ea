/** The instance of a service: what goes in, checked by shape, and what comes out, frozen. */

import { invalid, kindOf, onlyKnown, record, text, wellFormed } from '../common/shape.js';
import type { NativeDifference, NativeInstance, NativeList } from '../native.js';

/** One running instance of a service. Frozen, and shared by all who are handed it. */
export interface ServiceInstance {
  /** Unique within the service; the name of the process, so to speak. */
  readonly id: string;
  /** The service. */
  readonly name: string;
  /** Of the service; may be empty. */
  readonly version: string;
  /** Such as zone or weight. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Such as `grpc://10.1.2.3:9000`. */
  readonly endpoints: readonly string[];
  /**
   * Since when it is registered, in milliseconds since 1970 by the clock of the registry; of lists, where the registry
   * tells it with them (`capabilities.since`). An instance that was registered anew is another one.
   */
  readonly since?: number;
}

/** What `register()` takes. */
export interface InstanceInput {
  /** The service. Required. */
  name: string;
  /** Default: a UUID. */
  id?: string | undefined;
  /** Default: empty. */
  version?: string | undefined;
  /** Default: none. */
  metadata?: Readonly<Record<string, string>> | undefined;
  /**
   * URLs with a host and a port that is not 0. Instead of a wildcard host (`0.0.0.0`, `[::]`) an address of this machine
   * is written. Default: none.
   */
  endpoints?: readonly string[] | undefined;
  /** Ignored, so that an instance of a list may be handed in. */
  since?: number | undefined;
}

/** What `update()` takes: each field given replaces the whole of the old one. */
export type InstanceUpdate = {
  [Field in 'version' | 'metadata' | 'endpoints']?: ServiceInstance[Field] | undefined;
};

/** A list as it is delivered: frozen, sorted by id. */
export type ServiceList = readonly ServiceInstance[];

/**
 * A copy of an input, checked; what a name or an endpoint must look like is judged natively.
 *
 * @internal
 */
export function instanceOf(input: unknown): NativeInstance {
  const given = record('instance', input);
  onlyKnown('instance', given, ['name', 'id', 'version', 'metadata', 'endpoints', 'since']);
  if (typeof given.name !== 'string') throw invalid('instance.name', `expected a string, got ${kindOf(given.name)}`);
  return {
    name: wellFormed('instance.name', given.name),
    id: text('instance.id', given.id) ?? '',
    version: version('instance.version', given.version) ?? '',
    metadata: metadata('instance.metadata', given.metadata) ?? {},
    endpoints: endpoints('instance.endpoints', given.endpoints) ?? [],
  };
}

/**
 * A copy of a patch, checked; `null` for what stays.
 *
 * @internal
 */
export function patchOf(input: unknown): { [K in 'version' | 'metadata' | 'endpoints']: NativeInstance[K] | null } {
  const given = record('patch', input);
  onlyKnown('patch', given, ['version', 'metadata', 'endpoints'], (key) =>
    key === 'name' || key === 'id' ? 'never changes: register another instance' : undefined,
  );
  return {
    version: version('patch.version', given.version) ?? null,
    metadata: metadata('patch.metadata', given.metadata) ?? null,
    endpoints: endpoints('patch.endpoints', given.endpoints) ?? null,
  };
}

function version(path: string, value: unknown): string | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'string') throw invalid(path, `expected a string, got ${kindOf(value)}`);
  return wellFormed(path, value);
}

function metadata(path: string, value: unknown): Record<string, string> | undefined {
  if (value === undefined) return undefined;
  const entries = Object.entries(record(path, value, 'an object of strings'));
  for (const [key, entry] of entries) {
    wellFormed(path, key, 'keys');
    if (typeof entry === 'string') {
      wellFormed(`${path}.${key}`, entry);
      continue;
    }
    const plain = typeof entry === 'number' || typeof entry === 'boolean' || typeof entry === 'bigint';
    const hint = plain ? `; write String(${entry})` : '';
    throw invalid(`${path}.${key}`, `expected a string, got ${kindOf(entry)}${hint}`);
  }
  // Without a prototype: the native side lists inherited keys as well, and somebody may have added to Object.prototype.
  return Object.setPrototypeOf(Object.fromEntries(entries), null) as Record<string, string>;
}

function endpoints(path: string, value: unknown): string[] | undefined {
  if (value === undefined) return undefined;
  if (!Array.isArray(value)) throw invalid(path, `expected an array of strings, got ${kindOf(value)}`);
  return Array.from(value as unknown[], (entry, index) => {
    if (typeof entry !== 'string') throw invalid(`${path}[${index}]`, `expected a string, got ${kindOf(entry)}`);
    return wellFormed(`${path}[${index}]`, entry);
  });
}

/**
 * Freezes an instance of the native side through and through.
 *
 * @internal
 */
export function frozenInstance({ id, name, version, metadata, endpoints, since }: NativeInstance): ServiceInstance {
  // A literal of our own: V8 lays it out in one piece, where the native one is in two.
  return Object.freeze({
    id,
    name,
    version,
    metadata: Object.freeze(metadata),
    endpoints: Object.freeze(endpoints),
    ...(since !== undefined && { since }),
  });
}

/**
 * Freezes a list of the native side.
 *
 * @internal
 */
export function frozenList(list: readonly NativeInstance[]): ServiceList {
  return Object.freeze(list.map(frozenInstance));
}

/**
 * The list that comes after `previous`: instances that did not change are the very same objects.
 *
 * @internal
 */
export function nextList(previous: ServiceList, { difference, instances }: NativeList): ServiceList {
  return mended(previous, difference, instances.map(frozenInstance));
}

/**
 * The frozen list that comes after `previous`, with the entries that are new; without `difference` there are no others.
 * What is as before at both ends is copied in one piece each: a change of one entry among 10,000 is two of them.
 *
 * @internal
 */
export function mended<T>(
  previous: readonly T[],
  difference: NativeDifference | undefined | null,
  fresh: readonly T[],
): readonly T[] {
  if (!difference) return Object.freeze(fresh);
  const { head, tail, places } = difference;
  let next = 0;
  const between = Array.from(places, (place) => (place < 0 ? fresh[next++] : previous[place]) as T);
  const all = [...previous]; // V8 is slow at all else that is done with what is frozen
  if (between.length !== all.length - head - tail) {
    return Object.freeze(all.slice(0, head).concat(between, all.slice(all.length - tail)));
  }
  // As many as before, which is what most changes are: in their places.
  for (const [at, entry] of between.entries()) all[head + at] = entry;
  return Object.freeze(all);
}

/** Whether two instances say the same. */
export function sameInstance(a: ServiceInstance, b: ServiceInstance): boolean {
  if (a === b) return true;
  if (a.id !== b.id || a.name !== b.name || a.version !== b.version || a.since !== b.since) return false;
  if (a.endpoints.length !== b.endpoints.length || !a.endpoints.every((entry, i) => entry === b.endpoints[i]))
    return false;
  const keys = Object.keys(a.metadata);
  return keys.length === Object.keys(b.metadata).length && keys.every((key) => a.metadata[key] === b.metadata[key]);
}

/** A record of somebody else that can't be read. */
export interface BadRecord {
  /** Where it is. */
  readonly key: string;
  /** What is wrong with it. */
  readonly reason: string;
}
