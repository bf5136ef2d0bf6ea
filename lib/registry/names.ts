/** The names of a registry that have instances. */

import { invalid, kindOf, wellFormed } from '../common/shape.js';
import type { NativeNames, ServicesWatcherHandle } from '../native.js';
import { mended } from './instance.js';
import { type ListKind, ListWatcher, type WatcherSource } from './watcher.js';

/** A name that has at least one instance. */
export interface ServiceName {
  /** The name. */
  readonly name: string;
  /** How many instances it has, where the registry tells it with the name (`capabilities.countsNames`). */
  readonly count?: number;
}

/** Names, frozen and sorted as `services()` sorts them. A name that did not change is the same object from list to list. */
export type ServiceNames = readonly ServiceName[];

/** @internal */
export const NAMES: ListKind<ServiceName, ServicesWatcherHandle> = {
  operation: 'watchServices',
  observed: 'watchServices',
  next: (handle, known, previous) => {
    const taken = handle.take(known);
    return [taken.version, nextNames(previous, taken)];
  },
  same: (a, b) => a.name === b.name && a.count === b.count,
};

function nextNames(previous: ServiceNames, { difference, names, counts }: NativeNames): ServiceNames {
  const named = (name: string, place: number): ServiceName => {
    const count = counts[place] as number;
    return Object.freeze(count < 0 ? { name } : { name, count });
  };
  return mended(previous, difference, names.map(named));
}

/**
 * Follows the names that have instances: as a `Watcher` does the instances of one name, and it ends as that does. A name
 * comes with its first instance and goes with its last.
 */
export class ServicesWatcher extends ListWatcher<ServiceName> {
  private constructor(source: WatcherSource<ServiceName>) {
    super(source);
  }

  /** @internal */
  static follow(source: WatcherSource<ServiceName>): ServicesWatcher {
    return new ServicesWatcher(source);
  }
}

/** Refuses what is no name of a service, before anything is asked of it. */
export function serviceName(name: unknown): void {
  if (typeof name !== 'string') throw invalid('name', `expected a string, got ${kindOf(name)}`);
  wellFormed('name', name);
}
