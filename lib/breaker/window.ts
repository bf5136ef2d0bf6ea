/** The latest calls of a breaker, counted. */

import type { WindowRules } from './policy.js';

/** What is counted of calls. */
export interface Counts {
  readonly calls: number;
  readonly failures: number;
  readonly slow: number;
}

/** The calls by which a breaker opens. It goes on when its rules change: what was counted stays counted. */
export interface Window {
  add(isFailure: boolean, isSlow: boolean): void;
  counts(): Counts;
  /** Other rules of the same type. */
  resize(size: number): void;
  clear(): void;
}

/** @param now the monotonic clock, in milliseconds. */
export function windowFor({ type, size }: WindowRules, now: () => number): Window {
  return type === 'count' ? new CountWindow(size) : new TimeWindow(size, now);
}

/** Whether such a share of the calls failed, or was slow, that a breaker opens. */
export function isOver({ calls, failures, slow }: Counts, rules: WindowRules): boolean {
  return calls >= rules.minCalls && (failures / calls >= rules.failureRate || slow / calls >= rules.slowRate);
}

const FAILED = 1;
const SLOW = 2;

/** The latest `size` calls: a ring of two bits each. */
export class CountWindow implements Window {
  readonly #counts = { calls: 0, failures: 0, slow: 0 };
  #ring: Uint8Array;
  /** Where the next one goes. */
  #next = 0;

  constructor(size: number) {
    this.#ring = new Uint8Array(size);
  }

  add(isFailure: boolean, isSlow: boolean): void {
    const ring = this.#ring;
    if (this.#counts.calls === ring.length) this.#count(ring[this.#next] as number, -1);
    const mark = (isFailure ? FAILED : 0) | (isSlow ? SLOW : 0);
    ring[this.#next] = mark;
    this.#next = this.#next + 1 === ring.length ? 0 : this.#next + 1;
    this.#count(mark, 1);
  }

  counts(): Counts {
    return this.#counts;
  }

  resize(size: number): void {
    const { length } = this.#ring;
    if (size === length) return;
    const kept = Math.min(size, this.#counts.calls);
    const marks = Array.from(
      { length: kept },
      (_, i) => this.#ring[(this.#next - kept + i + length) % length] as number,
    );
    this.clear();
    this.#ring = new Uint8Array(size);
    for (const mark of marks) this.add((mark & FAILED) !== 0, (mark & SLOW) !== 0);
  }

  clear(): void {
    Object.assign(this.#counts, { calls: 0, failures: 0, slow: 0 });
    this.#next = 0;
  }

  #count(mark: number, by: 1 | -1): void {
    this.#counts.calls += by;
    if (mark & FAILED) this.#counts.failures += by;
    if (mark & SLOW) this.#counts.slow += by;
  }
}

/** Into how many parts the time of a window is cut: so coarse is what it forgets. */
const PARTS = 10;

interface Part {
  since: number;
  /** Of its latest call. */
  until: number;
  calls: number;
  failures: number;
  slow: number;
}

/** The calls of the latest `size` milliseconds, in at most eleven parts. */
export class TimeWindow implements Window {
  #size: number;
  readonly #now: () => number;
  #parts: Part[] = [];

  constructor(size: number, now: () => number) {
    this.#size = size;
    this.#now = now;
  }

  add(isFailure: boolean, isSlow: boolean): void {
    const now = this.#now();
    let part = this.#parts.at(-1);
    if (!part || now - part.since >= this.#size / PARTS) {
      this.#forget(now);
      part = { since: now, until: now, calls: 0, failures: 0, slow: 0 };
      this.#parts.push(part);
    }
    part.until = now;
    part.calls++;
    if (isFailure) part.failures++;
    if (isSlow) part.slow++;
  }

  resize(size: number): void {
    this.#size = size;
    // Parts of a larger window are longer: what is the latest of one is not to go with what is its oldest.
    for (const part of this.#parts) part.since = Math.max(part.since, part.until - size / PARTS);
  }

  clear(): void {
    this.#parts = [];
  }

  counts(): Counts {
    this.#forget(this.#now());
    const all = { calls: 0, failures: 0, slow: 0 };
    for (const { calls, failures, slow } of this.#parts) {
      all.calls += calls;
      all.failures += failures;
      all.slow += slow;
    }
    return all;
  }

  #forget(now: number): void {
    while (this.#parts[0] && now - this.#parts[0].since >= this.#size) this.#parts.shift();
  }
}
