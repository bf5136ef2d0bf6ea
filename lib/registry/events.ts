/** A small typed emitter: a listener that throws is logged and stops nothing. */

import type { Log } from './logger.js';
import { didYouMean, invalid, kindOf } from './shape.js';

/** Event names and what their listeners are called with. */
export type EventMap = Record<string, readonly unknown[]>;

interface Entry {
  listener: (...args: never[]) => unknown;
  once: boolean;
}

export class Events<M extends { [K in keyof M]: readonly unknown[] }> {
  readonly #names: readonly (keyof M & string)[];
  readonly #log: Log;
  readonly #entries = new Map<string, readonly Entry[]>();

  constructor(names: readonly (keyof M & string)[], log: Log) {
    this.#names = names;
    this.#log = log;
  }

  /**
   * Adds a listener. An event that doesn't exist is refused; but for `error`, which never comes, and which Node's
   * `events.once()` and `events.on()` listen to beside the event that they are asked for.
   */
  add(event: string, listener: unknown, once: boolean): void {
    if (event !== 'error' && !this.#names.includes(event as keyof M & string)) {
      const known = this.#names.map((name) => `"${name}"`).join(', ');
      throw invalid(
        'event',
        `expected one of ${known}${typeof event === 'string' ? didYouMean(event, this.#names) : ''}`,
      );
    }
    if (typeof listener !== 'function') throw invalid('listener', `expected a function, got ${kindOf(listener)}`);
    this.#entries.set(event, [...(this.#entries.get(event) ?? []), { listener: listener as Entry['listener'], once }]);
  }

  /** Takes one addition of a listener back, the latest. */
  remove(event: string, listener: unknown): void {
    const entries = this.#entries.get(event) ?? [];
    const index = entries.findLastIndex((entry) => entry.listener === listener);
    if (index >= 0) this.#entries.set(event, entries.toSpliced(index, 1));
  }

  /** Calls every listener of now, in order. Never throws. */
  emit<K extends keyof M & string>(event: K, ...args: M[K]): void {
    for (const { listener, once } of this.#entries.get(event) ?? []) {
      if (once) this.remove(event, listener);
      try {
        const result = (listener as (...args: readonly unknown[]) => unknown)(...args);
        // An async listener: its rejection would otherwise end the process.
        if (typeof (result as PromiseLike<unknown> | null | undefined)?.then === 'function') {
          (result as PromiseLike<unknown>).then(undefined, (error: unknown) => this.#report(event, error));
        }
      } catch (error) {
        this.#report(event, error);
      }
    }
  }

  #report(event: string, error: unknown): void {
    this.#log.write('error', `a listener of "${event}" failed: ${describe(error)}`);
  }
}

/** What was thrown, as text; never throws itself, whatever it is given. */
export function describe(thrown: unknown): string {
  try {
    return `${(thrown as Error | null | undefined)?.stack ?? String(thrown)}`;
  } catch {
    return 'something that has no text';
  }
}
