/**
 * Ids of a worker: the millisecond, the worker and a sequence. Nothing is asked of anybody while the millisecond lies within the window
 * that is known; what is rare is done by `#settle()`.
 */

import { now as monotonic } from '../common/clock.js';
import { ClosedError, UnavailableError } from '../errors.js';
import { ClockError } from './errors.js';
import type { Layout } from './layout.js';
import { SLACK_MS, type Window } from './window.js';

/** What becomes of a clock that was set back. */
export type ClockBack = 'borrow' | 'wait' | 'error';

/** What a generator is made of. */
export interface Rules {
  readonly layout: Layout;
  readonly epoch: number;
  readonly clockBack: ClockBack;
  readonly maxAheadMs: number;
}

/** Who is told of what is rare. */
export interface Told {
  /** Ids are made faster than their time passes: from here on they wait. */
  exhausted(): void;
  /** The clock was seen to go back, by so many milliseconds. */
  clock(byMs: number): void;
}

const PART = 10_000_000;
const sleeper = new Int32Array(new SharedArrayBuffer(4));

/** Blocks this thread. */
const block = (ms: number): void => void Atomics.wait(sleeper, 0, 0, ms);

export class Snowflake {
  readonly #rules: Rules;
  readonly #window: () => Window;
  readonly #told: Told;
  readonly #seqMost: number;
  readonly #isStrict: boolean;
  /** One id, and its low and high half: all platforms of the package are little-endian. */
  readonly #id = new BigInt64Array(1);
  readonly #halves = new Uint32Array(this.#id.buffer);
  /** The millisecond of the last id, and the latest that needs no second look. */
  #last: number;
  #limit = 0;
  #sequence: number;
  /** The id of sequence 0 of that millisecond, in halves. */
  #low = 0;
  #high = 0;
  /** The same in digits: its first ones, those of the next row, and the rest; those of which millisecond. */
  #head = '';
  #nextHead = '';
  #rest = 0;
  #headOf = -1;
  /** The window as it is known. */
  #generation = -1;
  #until = 0;
  #worker = 0;
  /** The time at a moment of the monotonic clock. */
  #base: number;
  #baseAt: number;
  /** The latest that the clock has shown. */
  #shown = 0;
  /** It was seen behind that, which is told once. */
  #isBehind = false;
  #isExhausted = false;
  #isClosed = false;

  constructor(rules: Rules, window: () => Window, told: Told) {
    this.#rules = rules;
    this.#window = window;
    this.#told = told;
    this.#seqMost = 2 ** rules.layout.seqBits - 1;
    this.#sequence = this.#seqMost;
    this.#isStrict = rules.clockBack !== 'borrow';
    this.#last = rules.epoch;
    this.#base = Date.now();
    this.#baseAt = monotonic();
    this.look();
  }

  get workerId(): number {
    return this.#worker;
  }

  get until(): number {
    return this.#until;
  }

  get last(): number {
    return this.#last;
  }

  get generation(): number {
    return this.#generation;
  }

  next(): bigint {
    this.#step();
    const halves = this.#halves;
    halves[0] = this.#low + this.#sequence;
    halves[1] = this.#high;
    return this.#id[0] as bigint;
  }

  nextString(): string {
    this.#step();
    if (this.#headOf !== this.#last) this.#spell();
    const rest = this.#rest + this.#sequence;
    if (rest >= PART) return this.#nextHead + String(rest).slice(1);
    return this.#head + (this.#head === '' ? String(rest) : String(rest + PART).slice(1));
  }

  nextMany(count: number): BigInt64Array {
    const ids = new BigInt64Array(count);
    const halves = new Uint32Array(ids.buffer);
    for (let at = 0; at < count; ) {
      this.#step();
      // The rest of that millisecond at once.
      const end = Math.min(count, at + 1 + this.#seqMost - this.#sequence);
      const low = this.#low + this.#sequence - at;
      const high = this.#high;
      this.#sequence += end - at - 1;
      for (; at < end; at++) {
        halves[2 * at] = low + at;
        halves[2 * at + 1] = high;
      }
    }
    return ids;
  }

  /** Takes over the window as it is now. */
  look(): Window {
    const window = this.#window();
    if (!this.#isClosed) this.#until = window.until;
    if (window.generation !== this.#generation) {
      this.#generation = window.generation;
      this.#worker = window.n & (2 ** this.#rules.layout.workerBits - 1);
      this.#lift(window.since);
      this.#sequence = this.#seqMost; // not one more of that millisecond: it may be another's
      this.#shown = this.#last; // who had it before may have been ahead of our clock
    }
    this.#limit = 0;
    return window;
  }

  /** How many milliseconds it takes until an id can be made; `undefined`: as long as it takes for the window to be extended. */
  waitMs(): number | undefined {
    const now = Date.now();
    if (this.#isStrict && now < this.#shown) return this.#shown - now;
    this.look();
    return Math.max(now, this.#last + 1) > this.#until ? undefined : 0;
  }

  /** No id is made any more. */
  close(): void {
    this.#isClosed = true;
    this.#until = this.#limit = Number.NEGATIVE_INFINITY;
    this.#sequence = this.#seqMost;
  }

  /** On to the next id. */
  #step(): void {
    const now = Date.now();
    if (now > this.#last) {
      this.#enter(now, now);
      return;
    }
    if (this.#isStrict && now < this.#shown) this.#wentBack(now);
    if (this.#sequence < this.#seqMost) this.#sequence++;
    else this.#enter(this.#last + 1, now);
  }

  #enter(at: number, now: number): void {
    const ms = at > this.#limit ? this.#settle(at, now) : at;
    this.#place(ms);
    this.#last = ms;
    this.#sequence = 0;
  }

  #place(ms: number): void {
    const { workerBits, seqBits } = this.#rules.layout;
    const shift = workerBits + seqBits;
    const time = ms - this.#rules.epoch;
    const lowTime = 2 ** (32 - shift);
    this.#high = Math.floor(time / lowTime);
    this.#low = (time % lowTime) * 2 ** shift + this.#worker * 2 ** seqBits;
  }

  /** Whether `at` may be stamped, by the window and by the clock; which millisecond it is then. */
  #settle(at: number, shown: number): number {
    let now = shown;
    let ms = at;
    for (;;) {
      if (this.#isClosed) throw new ClosedError('next: it is closed', { operation: 'next' });
      if (ms > this.#until) {
        const window = this.look();
        ms = Math.max(ms, this.#last + 1);
        if (ms > this.#until) throw this.#over(ms, now, window);
      }
      const time = this.#time(now);
      const most = time + this.#rules.maxAheadMs;
      if (ms <= most) {
        if (this.#isStrict) {
          this.#shown = Math.max(this.#shown, now);
          this.#isBehind = false;
        }
        this.#base = time;
        this.#baseAt = monotonic();
        this.#isExhausted = false;
        // Strict: each millisecond of the clock is looked at, so that one that goes back is noticed.
        this.#limit = this.#isStrict ? ms : Math.min(this.#until, most, this.#end());
        if (ms > this.#end()) throw new ClockError('next: the bits of the time are used up', this.#clock(0));
        return ms;
      }
      if (!this.#isExhausted) {
        this.#isExhausted = true;
        this.#told.exhausted();
        ms = Math.max(ms, this.#last + 1); // who was told may have made ids
        continue;
      }
      block(1);
      now = Date.now();
    }
  }

  /** The last millisecond of the layout. */
  #end(): number {
    return this.#rules.epoch + 2 ** this.#rules.layout.timeBits - 1;
  }

  /** The time that the monotonic clock leads to expect. Not in whole milliseconds: what was cut off each time would make it slow. */
  #expected(): number {
    return this.#base + (monotonic() - this.#baseAt);
  }

  /** The time: what the clock shows, or, where it was set back, what it would show. */
  #time(now: number): number {
    return Math.max(now, this.#expected());
  }

  /** Nothing is stamped up to there. */
  #lift(to: number): void {
    this.#last = Math.max(this.#last, to);
    this.#base = Math.max(this.#expected(), this.#last);
    this.#baseAt = monotonic();
  }

  #over(ms: number, now: number, window: Window): ClockError | UnavailableError {
    const offMs = now - Math.floor(this.#expected());
    if (offMs > SLACK_MS || (window.isClockOff && now > this.#until)) {
      const text = `next: the clock has jumped ahead: no id is stamped after ${shown(this.#until)}, the end of the window`;
      return new ClockError(text, this.#clock(offMs > SLACK_MS ? offMs : window.stepMs));
    }
    const text = `next: the window of worker id ${this.#worker} ended at ${shown(this.#until)}, and was not extended yet`;
    return new UnavailableError(ms > now ? `${text}: ids were made ahead of the clock` : text, {
      operation: 'next',
      cause: window.failure,
    });
  }

  #wentBack(now: number): void {
    if (!this.#isBehind) {
      this.#isBehind = true;
      this.#told.clock(now - this.#shown);
    }
    // By the other clock: this one may be set back once more, or stand.
    const began = monotonic();
    for (let by = this.#shown - now; by > 0; by = this.#shown - Date.now()) {
      if (this.#rules.clockBack === 'error' || by + Math.floor(monotonic() - began) > this.#rules.maxAheadMs) {
        const text = `next: the clock is ${by} ms behind what ids were made of: none is made before it is there`;
        throw new ClockError(text, this.#clock(-by));
      }
      block(Math.min(by, 10));
    }
    this.#isBehind = false;
  }

  #clock(offMs: number) {
    return { operation: 'next', offMs };
  }

  #spell(): void {
    const id = (BigInt(this.#high) << 32n) | BigInt(this.#low);
    const head = id / BigInt(PART);
    this.#head = head === 0n ? '' : String(head);
    this.#nextHead = String(head + 1n);
    this.#rest = Number(id % BigInt(PART));
    this.#headOf = this.#last;
  }
}

const shown = (ms: number): string => (Number.isFinite(ms) ? new Date(ms).toISOString() : 'no time');
