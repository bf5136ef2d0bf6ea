/** The events of a registry and of what it hands out: checked names, and a listener that throws is logged. */

import { Emitter, type Voids } from '../common/emitter.js';
import { describe, type Log } from '../common/logger.js';
import { didYouMean, invalid, kindOf } from '../common/shape.js';
import type { BadRecord } from './instance.js';

/** The events of a registry. */
export interface RegistryEvents {
  /** A record was skipped because it can't be read: once per record and content. */
  badRecord: [record: BadRecord];
  /** The registry answers: for the first time, or again. It takes turns with `disconnected`, and comes first. */
  connected: [];
  /** The registry doesn't answer any more, as far as what was done has shown: see `status`. */
  disconnected: [];
}

/** What a class of the registry has for its events. It hands its own `on()`, `once()` and `off()` on to it. */
export class Events<M extends { [K in keyof M]: readonly unknown[] }> extends Emitter {
  readonly #names: readonly string[];
  readonly #log: Log;

  constructor(names: readonly (keyof M & string)[], log: Log, voids?: Voids) {
    super(voids);
    this.#names = names;
    this.#log = log;
    this.setMaxListeners(0);
  }

  /**
   * Adds a listener. An event that doesn't exist is refused. `error` is taken, since `once()` of `node:events` listens to it
   * too, and never emitted.
   */
  add(event: string, listener: unknown, once: boolean): void {
    if (event !== 'error' && !this.#names.includes(event)) {
      const known = this.#names.map((name) => `"${name}"`).join(', ');
      throw invalid(
        'event',
        `expected one of ${known}${typeof event === 'string' ? didYouMean(event, this.#names) : ''}`,
      );
    }
    if (typeof listener !== 'function') throw invalid('listener', `expected a function, got ${kindOf(listener)}`);
    if (once) this.once(event, listener as () => void);
    else this.on(event, listener as () => void);
  }

  /** Takes one addition of a listener back, the latest. */
  remove(event: string, listener: unknown): void {
    if (typeof listener === 'function') this.off(event, listener as () => void);
  }

  override tell<K extends keyof M & string>(event: K, ...args: M[K]): void {
    super.tell(event, ...args);
  }

  /** An async listener: its rejection would otherwise end the process. */
  protected override answered(event: string, result: unknown): void {
    if (typeof (result as PromiseLike<unknown> | null | undefined)?.then !== 'function') return;
    (result as PromiseLike<unknown>).then(undefined, (error: unknown) => this.threw(event, error));
  }

  protected override threw(event: string, error: unknown): void {
    this.#log.write('error', `a listener of "${event}" failed: ${describe(error)}`);
  }
}
