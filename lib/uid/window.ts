/** Up to when may be stamped, where nobody keeps that: of a worker id that is given. */

import { now as monotonic } from '../common/clock.js';
import type { SlotWindow } from '../coord/index.js';

/** What may be stamped, and with which worker id. */
export type Window = SlotWindow;

/** By how many milliseconds a clock may move against the monotonic one and still be believed. */
export const SLACK_MS = 1000;
/** For how long is stamped without a second look at the clock, and for how long one has to stand where it jumped to, in milliseconds. */
const WINDOW_MS = 60_000;

/** The window of a worker id that is given: it goes on by itself, unless the clock jumps ahead. */
export class FixedWindow {
  readonly #n: number;
  #base = Date.now();
  #baseAt = monotonic();
  #until = this.#base + WINDOW_MS;
  /** Since when it is ahead, and where it stood then. */
  #ahead: { readonly wall: number; readonly at: number } | undefined;
  #steps = 0;
  #stepMs = 0;

  constructor(workerId: number) {
    this.#n = workerId;
  }

  now(): Window {
    const wall = Date.now();
    const at = monotonic();
    const expected = this.#base + at - this.#baseAt;
    const by = wall - expected;
    if (by <= SLACK_MS || this.#hasSettled(wall, at)) {
      this.#ahead = undefined;
      this.#base = Math.max(wall, expected);
      this.#baseAt = at;
      this.#until = Math.floor(this.#base) + WINDOW_MS;
    } else if (!this.#ahead || Math.abs(wall - this.#ahead.wall - (at - this.#ahead.at)) > SLACK_MS) {
      this.#ahead = { wall, at };
      this.#steps++;
      this.#stepMs = Math.round(by);
    }
    return {
      generation: 1,
      n: this.#n,
      since: 0,
      until: this.#until,
      isClockOff: this.#ahead !== undefined,
      steps: this.#steps,
      stepMs: this.#stepMs,
      failure: undefined,
    };
  }

  #hasSettled(wall: number, at: number): boolean {
    if (!this.#ahead) return false;
    const passed = at - this.#ahead.at;
    return passed >= WINDOW_MS && Math.abs(wall - this.#ahead.wall - passed) <= SLACK_MS;
  }
}
