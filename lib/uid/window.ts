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
  /** What the clock showed at a moment. */
  #shown = { wall: this.#base, at: this.#baseAt };
  /** Since when it is ahead, and where it stood then. */
  #ahead: { readonly wall: number; readonly at: number } | undefined;
  #steps = 0;
  #stepMs = 0;
  readonly #stepped: (byMs: number) => void;

  /** `stepped` is told when the clock was seen to have been set, and by how much. */
  constructor(workerId: number, stepped: (byMs: number) => void) {
    this.#n = workerId;
    this.#stepped = stepped;
  }

  now(): Window {
    const wall = Date.now();
    const at = monotonic();
    const expected = this.#base + at - this.#baseAt;
    const by = wall - expected;
    const step = wall - this.#shown.wall - (at - this.#shown.at);
    let told: number | undefined;
    if (by <= SLACK_MS || this.#hasSettled(wall, at)) {
      if (by <= SLACK_MS && Math.abs(step) > SLACK_MS) told = step;
      this.#ahead = undefined;
      this.#shown = { wall, at };
      this.#base = Math.max(wall, expected);
      this.#baseAt = at;
      this.#until = Math.floor(this.#base) + WINDOW_MS;
    } else if (!this.#ahead || this.#hasMoved(wall, at, this.#ahead)) {
      this.#ahead = { wall, at };
      told = by;
    }
    if (told !== undefined) {
      this.#steps++;
      this.#stepMs = Math.round(told);
      this.#stepped(this.#stepMs);
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
    const ahead = this.#ahead;
    return ahead !== undefined && at - ahead.at >= WINDOW_MS && !this.#hasMoved(wall, at, ahead);
  }

  /** Whether it was set once more since. */
  #hasMoved(wall: number, at: number, since: { readonly wall: number; readonly at: number }): boolean {
    return Math.abs(wall - since.wall - (at - since.at)) > SLACK_MS;
  }
}
