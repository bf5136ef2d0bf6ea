/** How one list of candidates differs from the one before it. */

import type { ServiceInstance } from '../registry/instance.js';
import type { Candidate, Change } from './pick/types.js';

/** What is compared: instances keep their identity for as long as nothing of them changes, and so does what is made of them. */
interface Named {
  readonly id: string;
}

/** Places of the old list, `-1` for what is new in it; and what of the old list is gone. */
export interface Places {
  readonly kept: Int32Array;
  /** Places of the old list. */
  readonly gone: readonly number[];
}

/**
 * Finds each of `next` in `before`: both are sorted by id, as the registry sorts them, and mostly the same objects, so one
 * walk does. Where the order is another, as of letters beyond 16 bits, a map does it.
 */
export function placesOf<T>(before: readonly T[], next: readonly T[], named: (one: T) => Named): Places {
  return walk(before, next, named) ?? lookUp(before, next, named);
}

function walk<T>(before: readonly T[], next: readonly T[], named: (one: T) => Named): Places | undefined {
  const kept = new Int32Array(next.length);
  const gone: number[] = [];
  let [old, place] = [0, 0];
  while (place < next.length) {
    if (old < before.length && before[old] === next[place]) {
      kept[place++] = old++;
      continue;
    }
    const mine = named(next[place] as T).id;
    const theirs = old < before.length ? named(before[old] as T).id : undefined;
    if (!isSorted(next, place, named) || (theirs !== undefined && !isSorted(before, old, named))) return undefined;
    if (mine === theirs) kept[place++] = old++;
    else if (theirs === undefined || mine < theirs) kept[place++] = -1;
    else gone.push(old++);
  }
  while (old < before.length) gone.push(old++);
  return { kept, gone };
}

/** Whether a place is in order with its neighbours. */
function isSorted<T>(list: readonly T[], place: number, named: (one: T) => Named): boolean {
  const { id } = named(list[place] as T);
  return (
    (place === 0 || named(list[place - 1] as T).id < id) &&
    (place + 1 === list.length || id < named(list[place + 1] as T).id)
  );
}

function lookUp<T>(before: readonly T[], next: readonly T[], named: (one: T) => Named): Places {
  const places = new Map(before.map((one, place) => [named(one).id, place]));
  const kept = Int32Array.from(next, (one) => places.get(named(one).id) ?? -1);
  const stay = new Set(kept);
  return { kept, gone: before.flatMap((_, place) => (stay.has(place) ? [] : [place])) };
}

/** The change from one list of candidates to another; `undefined` when they are the same. */
export function changeOf(before: readonly Candidate[], next: readonly Candidate[]): Change | undefined {
  const { kept, gone } = placesOf(before, next, ({ instance }) => instance);
  const added: Candidate[] = [];
  const updated: Candidate[] = [];
  for (let place = 0; place < next.length; place++) {
    const candidate = next[place] as Candidate;
    const old = kept[place] as number;
    if (old < 0) added.push(candidate);
    else if (before[old] !== candidate) updated.push(candidate);
  }
  if (added.length + updated.length + gone.length === 0) return undefined;
  return { candidates: next, kept, added, updated, removed: gone.map((place) => before[place] as Candidate) };
}

/** How a list of instances differs from the one before it. */
export interface ServiceChange {
  /** The new list. */
  readonly list: readonly ServiceInstance[];
  readonly added: readonly ServiceInstance[];
  readonly removed: readonly ServiceInstance[];
  /** Those whose version, metadata or endpoints changed, as they are now. */
  readonly updated: readonly ServiceInstance[];
}
