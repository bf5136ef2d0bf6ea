/** What stands at a key, and lists of it. */

import type { NativePair, NativePairs, PairsWatcherHandle } from '../../native.js';
import { mended } from '../../registry/instance.js';
import { type ListKind, ListWatcher, type WatcherSource } from '../../registry/watcher.js';

/** A key of the store with its value. Frozen; what did not change is the same object from one snapshot to the next. */
export interface Entry {
  /** The key. */
  readonly key: string;
  /** The value as text. Bytes that are no UTF-8 are U+FFFD in it. */
  readonly value: string;
  /** Whether there are no such bytes. */
  readonly isText: boolean;
  /** The revision of the store at which it was written last. */
  readonly revision: bigint;
}

/** What lies in a layer. */
export interface Layer extends Entry {
  /** It is JSON, whatever the definition says: it was read, and written anew. */
  readonly isJson?: boolean;
}

/** @internal */
export type Entries = readonly Entry[];

/** @internal */
export function entryOf({ key, text, isText, revision }: NativePair): Entry {
  return Object.freeze({ key, value: text, isText, revision: BigInt(revision) });
}

/** At which revision of the store a list stood there. */
const revisions = new WeakMap<Entries, bigint>();

/** @internal */
export const revisionOf = (list: Entries): bigint => revisions.get(list) ?? 0n;

/** @internal */
export const ENTRIES: ListKind<Entry, PairsWatcherHandle> = {
  operation: 'watch',
  next: (handle, known, previous) => {
    const taken = handle.take(known);
    return [taken.version, nextEntries(previous, taken)];
  },
  same: (a, b) => a.revision === b.revision && a.key === b.key && a.value === b.value,
};

function nextEntries(previous: Entries, { difference, pairs, revision }: NativePairs): Entries {
  const list = mended(previous, difference, pairs.map(entryOf));
  revisions.set(list, BigInt(revision));
  return list;
}

/** @internal */
export class EntriesWatcher extends ListWatcher<Entry> {
  private constructor(source: WatcherSource<Entry>) {
    super(source);
  }

  static follow(source: WatcherSource<Entry>): EntriesWatcher {
    return new EntriesWatcher(source);
  }
}
