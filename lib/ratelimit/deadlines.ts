/** One timer for all who wait equally long. */

import { after, now, turn } from '../common/clock.js';

interface Waiting {
  readonly until: number;
  expire: (() => void) | undefined;
}

/**
 * Ends waits of `ms` each, the oldest first. Before one is ended, the event loop is given a turn: what came while the thread was busy is
 * heard first.
 *
 * @internal
 */
export class Deadlines {
  readonly #ms: number;
  #queue: Waiting[] = [];
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
    after(Math.max(1, Math.ceil(oldest.until - now())), () => void this.#due());
  }

  async #due(): Promise<void> {
    const at = now();
    await turn();
    const due = this.#queue.findIndex(({ until, expire }) => until > at && expire !== undefined);
    const over = this.#queue.splice(0, due < 0 ? this.#queue.length : due);
    // What began since then and is not due stays.
    this.#queue = [...over.filter(({ until, expire }) => until > at && expire !== undefined), ...this.#queue];
    this.#isArmed = false;
    this.#arm();
    for (const one of over) if (one.until <= at) one.expire?.();
  }
}
