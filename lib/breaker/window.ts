/** The latest calls of a breaker, counted. */

import type { WindowRules } from './policy.js';

/** What is counted of calls. */
export interface Counts {
  readonly calls: number;
  readonly failures: number;
  readonly slow: number;
}

/** The calls by which a breaker opens. It goes on when its rules change: what was counted stays counted. */
export interface Window extends Counts {
  add(isFailure: boolean, isSlow: boolean): void;
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
  calls = 0;
  failures = 0;
  slow = 0;
  #ring: Uint8Array;
  /** Where the next one goes. */
  #next = 0;

  constructor(size: number) {
    this.#ring = new Uint8Array(size);
  }

  add(isFailure: boolean, isSlow: boolean): void {
    const ring = this.#ring;
    if (this.calls === ring.length) this.#count(ring[this.#next] as number, -1);
    const mark = (isFailure ? FAILED : 0) | (isSlow ? SLOW : 0);
    ring[this.#next] = mark;
    this.#next = this.#next + 1 === ring.length ? 0 : this.#next + 1;
    this.#count(mark, 1);
  }

  resize(size: number): void {
    const { length } = this.#ring;
    if (size === length) return;
    const kept = Math.min(size, this.calls);
    const marks = Array.from(
      { length: kept },
      (_, i) => this.#ring[(this.#next - kept + i + length) % length] as number,
    );
    this.clear();
    this.#ring = new Uint8Array(size);
    for (const mark of marks) this.add((mark & FAILED) !== 0, (mark & SLOW) !== 0);
  }

  clear(): void {
    this.calls = this.failures = this.slow = this.#next = 0;
  }

  #count(mark: number, by: 1 | -1): void {
    this.calls += by;
    if (mark & FAILED) this.failures += by;
    if (mark & SLOW) this.slow += by;
  }
}

/** Into how many parts the time of a window is cut: so coarse is what it forgets. */
const PARTS = 10;

interface Part {
  readonly since: number;
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

  get calls(): number {
    return this.#sum('calls');
  }

  get failures(): number {
    return this.#sum('failures');
  }

  get slow(): number {
    return this.#sum('slow');
  }

  add(isFailure: boolean, isSlow: boolean): void {
    const now = this.#now();
    let part = this.#parts.at(-1);
    if (!part || now - part.since >= this.#size / PARTS) {
      this.#forget(now);
      part = { since: now, calls: 0, failures: 0, slow: 0 };
      this.#parts.push(part);
    }
    part.calls++;
    if (isFailure) part.failures++;
    if (isSlow) part.slow++;
  }

  resize(size: number): void {
    this.#size = size;
  }

  clear(): void {
    this.#parts = [];
  }

  #sum(what: 'calls' | 'failures' | 'slow'): number {
    this.#forget(this.#now());
    let sum = 0;
    for (const part of this.#parts) sum += part[what];
    return sum;
  }

  #forget(now: number): void {
    while (this.#parts[0] && now - this.#parts[0].since >= this.#size) this.#parts.shift();
  }
}
