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

/**
 * Those of a list that stand at some keys, or below some folders. Lists are sorted, so they are looked for and not met with: of
 * thousands of keys a few are layers.
 *
 * @internal
 */
export function entriesAt(list: Entries, keys: Iterable<string>, folders: readonly string[]): Map<string, Entry> {
  const found = new Map<string, Entry>();
  for (const key of keys) {
    const entry = list[placeOf(list, key)];
    if (entry?.key === key) found.set(key, entry);
  }
  for (const folder of folders) {
    for (let place = placeOf(list, folder); list[place]?.key.startsWith(folder); place++) {
      const entry = list[place] as Entry;
      found.set(entry.key, entry);
    }
  }
  return found;
}

/** Of the first entry whose key does not stand before `key`. */
function placeOf(list: Entries, key: string): number {
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isBefore((list[middle] as Entry).key, key)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** In the order of bytes of UTF-8, in which the native side sorts: JavaScript's own has U+E000 and above after what needs two units. */
function isBefore(a: string, b: string): boolean {
  const shared = Math.min(a.length, b.length);
  for (let at = 0; at < shared; at++) {
    const [x, y] = [a.charCodeAt(at), b.charCodeAt(at)];
    if (x !== y) return rankOf(x) < rankOf(y);
  }
  return a.length < b.length;
}

const rankOf = (unit: number) => (unit < 0xd800 ? unit : unit < 0xe000 ? unit + 0x2000 : unit - 0x800);

/** @internal */
export class EntriesWatcher extends ListWatcher<Entry> {
  private constructor(source: WatcherSource<Entry>) {
    super(source);
  }

  static follow(source: WatcherSource<Entry>): EntriesWatcher {
    return new EntriesWatcher(source);
  }
}
