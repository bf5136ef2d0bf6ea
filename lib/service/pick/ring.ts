/** A ring of points that is changed in place. */

import { hashOf, mixed } from './hash.js';

/** Another constant, so that the second number of an id tells apart what the first does not. */
const SECOND = 0x9e3779b9;

/** A point while it is being put in. */
interface Point {
  readonly hash: number;
  readonly slot: number;
}

/**
 * Points in the order of their hashes, each with the slot of its owner. Where they lie depends on the ids and on nothing
 * that went before, so that two processes with the same list agree on every key.
 *
 * Source: consistent hashing (Karger and others, 1997). Points of one change go in, and out, in one pass over the arrays:
 * at 10,000 owners a rebuild would take several hundred times as long.
 */
export class Ring {
  /** Of each owner. */
  readonly points: number;
  #hashes = new Uint32Array(0);
  #slots = new Uint32Array(0);
  #size = 0;
  readonly #ids: string[] = [];
  readonly #free: number[] = [];
  readonly #slotOf = new Map<string, number>();

  constructor(points: number, ids: readonly string[]) {
    this.points = points;
    this.#build(ids);
  }

  /** How many points there are. */
  get size(): number {
    return this.#size;
  }

  /** The slot of an owner; it stays for as long as the owner does. */
  slot(id: string): number | undefined {
    return this.#slotOf.get(id);
  }

  /** The first point at or after a hash, the ring being closed. */
  find(hash: number): number {
    const at = this.#lower(hash);
    return at === this.#size ? 0 : at;
  }

  /** Whose a point is. */
  owner(point: number): number {
    return this.#slots[point] as number;
  }

  /** Takes owners out and puts others in; gives whether the slots were dealt anew. */
  change(removed: readonly string[], added: readonly string[]): boolean {
    // A pass costs about as much as the sorting of an eighth.
    if ((removed.length + added.length) * 8 > this.#slotOf.size) {
      const gone = new Set(removed);
      this.#build([...[...this.#slotOf.keys()].filter((id) => !gone.has(id)), ...added]);
      return true;
    }
    if (removed.length > 0) this.#remove(removed);
    if (added.length > 0) this.#insert(added);
    return false;
  }

  #build(ids: readonly string[]): void {
    const sorted = [...ids].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
    this.#free.length = 0;
    this.#slotOf.clear();
    this.#ids.length = 0;
    this.#size = sorted.length * this.points;
    // A hash of 32 bits and a slot of 20 are one exact number, so that they are sorted together; by slots, that is by ids,
    // where hashes are the same.
    const all = new Float64Array(this.#size);
    let at = 0;
    for (const [slot, id] of sorted.entries()) {
      this.#ids.push(id);
      this.#slotOf.set(id, slot);
      for (const hash of this.#hashesOf(id)) all[at++] = hash * 2 ** 20 + slot;
    }
    all.sort();
    this.#hashes = new Uint32Array(room(this.#size));
    this.#slots = new Uint32Array(room(this.#size));
    for (let point = 0; point < this.#size; point++) {
      const both = all[point] as number;
      const hash = Math.floor(both / 2 ** 20);
      this.#hashes[point] = hash;
      this.#slots[point] = both - hash * 2 ** 20;
    }
  }

  *#hashesOf(id: string): Iterable<number> {
    const [first, step] = [hashOf(id), hashOf(id, SECOND) | 1];
    for (let point = 0; point < this.points; point++) yield mixed(first + Math.imul(point + 1, step));
  }

  #remove(ids: readonly string[]): void {
    const places: number[] = [];
    for (const id of ids) {
      const slot = this.#slotOf.get(id);
      if (slot === undefined) continue;
      const seen = new Set<number>();
      for (const hash of this.#hashesOf(id)) {
        let at = this.#lower(hash);
        while (this.#slots[at] !== slot || seen.has(at)) at++;
        seen.add(at);
        places.push(at);
      }
      this.#slotOf.delete(id);
      this.#ids[slot] = '';
      this.#free.push(slot);
    }
    if (places.length === 0) return;
    places.sort((a, b) => a - b);
    let to = places[0] as number;
    for (const [order, place] of places.entries()) {
      const end = places[order + 1] ?? this.#size;
      this.#move(to, place + 1, end);
      to += end - place - 1;
    }
    this.#size = to;
  }

  #insert(ids: readonly string[]): void {
    const coming: Point[] = [];
    for (const id of ids) {
      const slot = this.#free.pop() ?? this.#ids.length;
      this.#ids[slot] = id;
      this.#slotOf.set(id, slot);
      for (const hash of this.#hashesOf(id)) coming.push({ hash, slot });
    }
    coming.sort((a, b) => a.hash - b.hash || this.#order(a.slot, b.slot));
    this.#reserve(this.#size + coming.length);
    // From the end: what lies behind a new point moves by as many places as points are still to come.
    let end = this.#size;
    for (let left = coming.length; left > 0; left--) {
      const { hash, slot } = coming[left - 1] as Point;
      let at = this.#lower(hash, end);
      while (at < end && this.#hashes[at] === hash && this.#order(this.#slots[at] as number, slot) < 0) at++;
      this.#move(at + left, at, end);
      this.#hashes[at + left - 1] = hash;
      this.#slots[at + left - 1] = slot;
      end = at;
    }
    this.#size += coming.length;
  }

  #order(a: number, b: number): number {
    const [left, right] = [this.#ids[a] as string, this.#ids[b] as string];
    return left < right ? -1 : left > right ? 1 : 0;
  }

  #move(to: number, from: number, end: number): void {
    this.#hashes.copyWithin(to, from, end);
    this.#slots.copyWithin(to, from, end);
  }

  #reserve(size: number): void {
    if (size <= this.#hashes.length) return;
    const [hashes, slots] = [new Uint32Array(room(size)), new Uint32Array(room(size))];
    hashes.set(this.#hashes);
    slots.set(this.#slots);
    this.#hashes = hashes;
    this.#slots = slots;
  }

  /** The first point of at least this hash, among the first `end`. */
  #lower(hash: number, end = this.#size): number {
    let [low, high] = [0, end];
    const hashes = this.#hashes;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((hashes[middle] as number) < hash) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Some more than there are, so that most changes fit in. */
const room = (size: number): number => size + (size >> 4) + 64;
