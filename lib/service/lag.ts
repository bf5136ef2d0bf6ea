/** How long the event loop of this thread was blocked: what a call took meanwhile is nobody's fault. */

import { after, now } from '../common/clock.js';

/** How often the loop is asked for a sign of life, in milliseconds. */
const BEAT_MS = 100;
/** What a beat may be late without being a lag. */
const SLACK_MS = 20;

/**
 * Remembers the last block of the loop. Beats go on only while somebody is interested.
 */
export class LagMeter {
  /** Set by those who use it; taken back by each beat. */
  wanted = false;
  #isBeating = false;
  #beat = 0;
  #from = 0;
  #to = 0;
  readonly #now: () => number;
  readonly #later: (ms: number, beat: () => void) => void;

  constructor(now: () => number, later: (ms: number, beat: () => void) => void) {
    this.#now = now;
    this.#later = later;
  }

  /** Begins to beat, if it doesn't. */
  want(): void {
    this.wanted = true;
    if (this.#isBeating) return;
    this.#isBeating = true;
    this.#next();
  }

  /** For how long of this time, to now, the loop is known to have been blocked. */
  within(from: number, to: number): number {
    let blocked = overlap(from, to, this.#from, this.#to);
    // The beat that is late has not come yet: this runs before it in the turn after the block.
    if (this.#isBeating && to - this.#beat > BEAT_MS + SLACK_MS) {
      blocked += overlap(from, to, this.#beat + BEAT_MS, to);
    }
    return blocked;
  }

  #next(): void {
    this.#beat = this.#now();
    this.#later(BEAT_MS, () => {
      const late = this.#now();
      const due = this.#beat + BEAT_MS;
      if (late - due > SLACK_MS) {
        this.#from = due;
        this.#to = late;
      }
      if (!this.wanted) {
        this.#isBeating = false;
        return;
      }
      this.wanted = false;
      this.#next();
    });
  }
}

const overlap = (from: number, to: number, otherFrom: number, otherTo: number): number =>
  Math.max(0, Math.min(to, otherTo) - Math.max(from, otherFrom));

/** Of this thread. */
export const lag = new LagMeter(now, after);
