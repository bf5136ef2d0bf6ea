/**
 * Calls that wait for others to end, because as many as may be under way are.
 *
 * @internal
 */

import { onAbort } from '../../common/abort.js';
import { after, now } from '../../common/clock.js';
import type { Failure } from '../../common/failure.js';
import type { Call } from './call.js';
import { abortFailure, expired } from './failure.js';

interface Waiting {
  /** When its time is over, by the clock of `now`. */
  readonly due: number;
  /** It was refused meanwhile. */
  over: boolean;
  start(): void;
  refuse(failure: Failure): void;
}

/** Between two looks for calls that have waited too long, in milliseconds. */
const SWEEP_MS = 10;

/** First come, first served; the time of a call runs while it waits, and its signal ends the wait. */
export class Queue {
  #waiting: Waiting[] = [];
  /** When to look next for those whose time is over, and what takes that back. */
  #sweepAt = Number.POSITIVE_INFINITY;
  #unsweep = (): void => {};

  get length(): number {
    return this.#waiting.length;
  }

  /** `send` is called when it is the call's turn, with the time that is left for it. */
  add<T>(call: Call, send: (call: Call) => Promise<T>): Promise<T> {
    const { signal, timeoutMs } = call;
    if (signal?.aborted) return Promise.reject(abortFailure(signal, false));
    return new Promise<T>((resolve, reject) => {
      const due = timeoutMs > 0 ? now() + timeoutMs : Number.POSITIVE_INFINITY;
      const unlisten = signal && onAbort(signal, () => waiting.refuse(abortFailure(signal, false)));
      const waiting: Waiting = {
        due,
        over: false,
        start() {
          unlisten?.();
          const left = timeoutMs > 0 ? Math.ceil(due - now()) : 0;
          if (timeoutMs > 0 && left <= 0) reject(expired());
          else send({ ...call, timeoutMs: left }).then(resolve, reject);
        },
        refuse(failure) {
          unlisten?.();
          waiting.over = true;
          reject(failure);
        },
      };
      this.#waiting.push(waiting);
      if (due < this.#sweepAt) this.#sweep(due);
    });
  }

  /** Lets in as many as there is room for. */
  start(room: number): void {
    const started = [];
    let seen = 0;
    while (started.length < room && seen < this.#waiting.length) {
      const waiting = this.#waiting[seen++] as Waiting;
      if (!waiting.over) started.push(waiting);
    }
    this.#waiting.splice(0, seen);
    for (const waiting of started) waiting.start();
  }

  /** Refuses those whose time is over, when the first one's is. */
  #sweep(at: number): void {
    this.#unsweep(); // this one tells earlier
    this.#sweepAt = at;
    this.#unsweep = after(Math.max(SWEEP_MS, Math.ceil(at - now())), () => {
      const time = now();
      let next = Number.POSITIVE_INFINITY;
      for (const waiting of this.#waiting) {
        if (waiting.over) continue;
        if (waiting.due <= time) waiting.refuse(expired());
        else next = Math.min(next, waiting.due);
      }
      this.#waiting = this.#waiting.filter(({ over }) => !over);
      this.#sweepAt = Number.POSITIVE_INFINITY;
      if (next < Number.POSITIVE_INFINITY) this.#sweep(next);
    });
  }
}
