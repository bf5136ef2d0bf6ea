/** One timer for all who wait equally long. */

import { after, now, turn } from '../common/clock.js';
import { pause } from '../common/waiting.js';

/** A timer that is late by such a share of the wait was held up by this thread. */
const LATE = 0.2;

interface Waiting {
  readonly until: number;
  expire: (() => void) | undefined;
}

/**
 * Ends waits of `ms` each, the oldest first. Before one is ended, the event loop is given a turn, so that what came meanwhile is heard. Where
 * this thread was busy, it is given as long as it was, up to `ms`: what it had not even sent is no silence of others.
 *
 * @internal
 */
export class Deadlines {
  readonly #ms: number;
  readonly #queue: Waiting[] = [];
  #isArmed = false;

  constructor(ms: number) {
    this.#ms = ms;
  }

  /** @param expire called once when the time is over, unless what is given was called. */
  begin(expire: () => void): () => void {
    const waiting: Waiting = { until: now() + this.#ms, expire };
    this.#queue.push(waiting);
    this.#arm();
    return () => {
      waiting.expire = undefined;
    };
  }

  #arm(): void {
    const [oldest] = this.#queue;
    if (this.#isArmed || !oldest) return;
    this.#isArmed = true;
    after(Math.max(1, Math.ceil(oldest.until - now())), () => void this.#due(oldest.until));
  }

  async #due(until: number): Promise<void> {
    const at = now();
    const late = at - until;
    await (late > this.#ms * LATE ? pause(Math.min(late, this.#ms)) : turn());
    const due = this.#queue.findIndex(({ until, expire }) => until > at && expire !== undefined);
    const over = this.#queue.splice(0, due < 0 ? this.#queue.length : due);
    this.#isArmed = false;
    this.#arm();
    for (const one of over) one.expire?.();
  }
}
