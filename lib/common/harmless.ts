/** Calling what a program handed in to be told of things, so that its faults harm nothing. */

import { describe, type Log } from './logger.js';

/** What it throws, or rejects with, is logged the first time: it may be told of every call. */
export class Harmless {
  readonly #log: Log;
  readonly #what: string;
  #hasFailed = false;

  /** `what` is how the log calls it. */
  constructor(what: string, log: Log) {
    this.#what = what;
    this.#log = log;
  }

  /** What `tell` gives; nothing of one that throws or is async, whose rejection would end the process. */
  try<T>(tell: () => T): T | undefined {
    try {
      const told = tell();
      if (typeof (told as PromiseLike<unknown> | null | undefined)?.then !== 'function') return told;
      (told as PromiseLike<unknown>).then(undefined, (error: unknown) => this.#threw(error));
    } catch (error) {
      this.#threw(error);
    }
    return undefined;
  }

  #threw(error: unknown): void {
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    this.#log.write('error', `${this.#what} failed, which is said once: ${describe(error)}`);
  }
}
