/** What is under way, for who waits until it is over. */

import { outcomeOf } from '../common/waiting.js';

/** How long what is under way may go on when an application stops, in milliseconds. */
export const LEAVING_MS = 10_000;

/** How the log says that so many methods are not done. */
export const stillRun = (count: number): string =>
  `${count === 1 ? 'a method is' : `${count} methods are`} still under way`;

export class Running {
  readonly #calls = new Set<Promise<unknown>>();

  async run<T>(work: () => Promise<T>): Promise<T> {
    const call = work();
    this.#calls.add(call);
    try {
      return await call;
    } finally {
      this.#calls.delete(call);
    }
  }

  /** Waits until nothing of it is under way, for so many milliseconds at the most; says how many then still are. */
  async over(limitMs: number): Promise<number> {
    await outcomeOf(Promise.allSettled(this.#calls), undefined, limitMs);
    return this.#calls.size;
  }
}
