/** A ring of points that is changed in place. */

import { hashOf, mixed } from './hash.js';

/** Another constant, so that the second number of an id tells apart what the first does not. */
const SECOND = 0x9e3779b9;

/** How many points a bucket has in the mean. */
const IN_BUCKET = 64;

/**
 * Points in the order of their hashes, each with the slot of its owner. Where they lie depends on the ids and on nothing
 * that went before, so that two processes with the same list agree on every key.
 *
 * The ring is cut into buckets of equal length, with room in each: one point that comes or goes moves those of its bucket
 * alone. At 10,000 owners a single array would move some megabytes for each owner.
 *
 * Source: consistent hashing (Karger and others, 1997).
 */
export class Ring {
  /** Of each owner. */
  readonly points: number;
  /** How many there are; where each bucket begins, and how full it is. */
  #bits = 0;
  #room = 0;
  #counts = new Uint32Array(1);
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

  /** The place of the first point at or after a hash, the ring being closed. */
  find(hash: number): number {
    const bucket = this.#bucketOf(hash);
    return this.#atOrAfter(bucket, this.#lower(bucket, hash));
  }

  /** The place of the point that follows. */
  next(place: number): number {
    return this.#atOrAfter(Math.floor(place / this.#room), place + 1);
  }

  /** Whose the point at a place is. */
  owner(place: number): number {
    return this.#slots[place] as number;
  }

  /** Takes owners out and puts others in; gives whether the slots were dealt anew. */
  change(removed: readonly string[], added: readonly string[]): boolean {
    // A change of an eighth costs about as much as the sorting of all.
    const isLarge = (removed.length + added.length) * 8 > this.#slotOf.size;
    if (!isLarge) {
      for (const id of removed) this.#remove(id);
      if (added.every((id) => this.#insert(id))) return false;
    }
    const gone = new Set(removed);
    this.#build([...new Set([...[...this.#slotOf.keys()].filter((id) => !gone.has(id)), ...added])]);
    return true;
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
    // Ids that were chosen so that their points crowd in one bucket get fewer and larger ones.
    for (let bits = Math.max(0, Math.round(Math.log2(this.#size / IN_BUCKET))); !this.#fill(all, bits); ) bits--;
  }

  /** Puts sorted points into so many buckets; `false` where one of them is too small. */
  #fill(all: Float64Array, bits: number): boolean {
    const mean = Math.ceil(all.length / 2 ** bits);
    this.#bits = bits;
    this.#room = mean + (mean >> 1) + 24;
    this.#counts = new Uint32Array(2 ** bits);
    this.#hashes = new Uint32Array(this.#room * 2 ** bits);
    this.#slots = new Uint32Array(this.#room * 2 ** bits);
    for (const both of all) {
      const hash = Math.floor(both / 2 ** 20);
      const bucket = this.#bucketOf(hash);
      const count = this.#counts[bucket] as number;
      if (count === this.#room) return false;
      this.#counts[bucket] = count + 1;
      this.#hashes[bucket * this.#room + count] = hash;
      this.#slots[bucket * this.#room + count] = both - hash * 2 ** 20;
    }
    return true;
  }

  *#hashesOf(id: string): Iterable<number> {
    const [first, step] = [hashOf(id), hashOf(id, SECOND) | 1];
    for (let point = 0; point < this.points; point++) yield mixed(first + Math.imul(point + 1, step));
  }

  #remove(id: string): void {
    const slot = this.#slotOf.get(id);
    if (slot === undefined) return;
    for (const hash of this.#hashesOf(id)) {
      const bucket = this.#bucketOf(hash);
      let place = this.#lower(bucket, hash);
      while (this.#slots[place] !== slot) place++; // another with the same hash
      this.#move(place, place + 1, this.#end(bucket));
      this.#counts[bucket] = (this.#counts[bucket] as number) - 1;
      this.#size--;
    }
    this.#slotOf.delete(id);
    this.#ids[slot] = '';
    this.#free.push(slot);
  }

  /** `false` where a bucket is full: the ring is to be built anew. */
  #insert(id: string): boolean {
    const slot = this.#free.pop() ?? this.#ids.length;
    this.#ids[slot] = id;
    this.#slotOf.set(id, slot);
    for (const hash of this.#hashesOf(id)) {
      const bucket = this.#bucketOf(hash);
      const end = this.#end(bucket);
      if (this.#counts[bucket] === this.#room) return false;
      let place = this.#lower(bucket, hash);
      while (place < end && this.#hashes[place] === hash && this.#isBefore(this.#slots[place] as number, id)) place++;
      this.#move(place + 1, place, end);
      this.#hashes[place] = hash;
      this.#slots[place] = slot;
      this.#counts[bucket] = (this.#counts[bucket] as number) + 1;
      this.#size++;
    }
    return true;
  }

  #isBefore(slot: number, id: string): boolean {
    return (this.#ids[slot] as string) < id;
  }

  #move(to: number, from: number, end: number): void {
    this.#hashes.copyWithin(to, from, end);
    this.#slots.copyWithin(to, from, end);
  }

  #bucketOf(hash: number): number {
    return this.#bits === 0 ? 0 : hash >>> (32 - this.#bits); // a shift by 32 would be none
  }

  #end(bucket: number): number {
    return bucket * this.#room + (this.#counts[bucket] as number);
  }

  /** This place, or where it lies behind the points of its bucket, that of the next point. */
  #atOrAfter(bucket: number, place: number): number {
    if (place < this.#end(bucket) || this.#size === 0) return place;
    let next = bucket;
    do next = next + 1 === this.#counts.length ? 0 : next + 1;
    while (this.#counts[next] === 0);
    return next * this.#room;
  }

  /** The first place of a bucket with at least this hash; behind its last point where there is none. */
  #lower(bucket: number, hash: number): number {
    let [low, high] = [bucket * this.#room, this.#end(bucket)];
    const hashes = this.#hashes;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((hashes[middle] as number) < hash) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
