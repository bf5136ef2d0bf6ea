/** Emitters whose events wait for the first listener, harm nobody when a listener throws, and end no process. */

import { EventEmitter, errorMonitor } from 'node:events';
import type { Log } from './logger.js';

/** How many events of one emitter wait at most; over it the oldest goes. */
const KEPT = 16;

// Taken at import: fake timers of a test runner must not stop what is told.
const later = queueMicrotask;

/** Which events are no longer true once one of this name is told: those that nobody has heard are forgotten then. */
export type Voids = Readonly<Record<string, readonly string[]>>;

interface Kept {
  readonly event: string;
  readonly args: readonly unknown[];
}

/**
 * An emitter that keeps what it tells until somebody listens: events come from another thread, and a program may listen
 * some time after it has made the emitter.
 *
 * - An event that was never heard waits, and is given to the first listener of its name, once the code that added it has
 *   run to its end, so that listeners of other events can be added with it. At most 16 wait; of what tells a state, the
 *   newest alone (`Voids`).
 * - From then on it is told to those who listen, and to nobody when they have left.
 * - `error` waits whenever nobody listens. It is never an uncaught exception by itself.
 * - A listener that throws stops neither the others nor who tells. What it threw is thrown again where nothing catches it.
 */
export class Emitter extends EventEmitter {
  readonly #voids: Voids;
  #kept: Kept[] = [];
  #heard: Set<string> | undefined;
  #isDue = false;

  /** @internal */
  constructor(voids: Voids = {}) {
    super();
    this.#voids = voids;
  }

  // EventEmitter has these three as functions of their own; its other ways to add a listener go through them.

  /** @internal */
  // biome-ignore lint/suspicious/noExplicitAny: as EventEmitter has it
  override on(event: string | symbol, listener: (...args: any[]) => void): this {
    super.on(event, listener);
    this.#listens(event);
    return this;
  }

  /** @internal */
  // biome-ignore lint/suspicious/noExplicitAny: as EventEmitter has it
  override addListener(event: string | symbol, listener: (...args: any[]) => void): this {
    return this.on(event, listener);
  }

  /** @internal */
  // biome-ignore lint/suspicious/noExplicitAny: as EventEmitter has it
  override prependListener(event: string | symbol, listener: (...args: any[]) => void): this {
    super.prependListener(event, listener);
    this.#listens(event);
    return this;
  }

  /**
   * Tells an event to those who listen, or keeps it for the first who does.
   *
   * @internal
   */
  tell(event: string, ...args: readonly unknown[]): void {
    if (this.#kept.length > 0) this.forget(...(this.#voids[event] ?? []));
    const waits = this.#kept.some((kept) => kept.event === event);
    if (!waits && this.listenerCount(event) > 0) {
      this.#give(event, args);
    } else if (waits || event === 'error' || !this.#heard?.has(event)) {
      this.#kept.push({ event, args });
      if (this.#kept.length > KEPT) this.#kept.shift();
    }
  }

  /**
   * Tells an `error`; when nobody listens, and nobody was told in another way, it is logged as well.
   *
   * @internal
   */
  tellError(error: unknown, what: string, log: Log, isTold = false): void {
    if (!isTold && this.listenerCount('error') === 0) {
      log.write('error', `${what}, and nobody listens to its "error": ${(error as Error | null)?.message}`);
    }
    this.tell('error', error);
  }

  /**
   * Tells an event to those who listen; when nobody does it is gone.
   *
   * @internal
   */
  deliver(event: string, ...args: readonly unknown[]): void {
    if (this.listenerCount(event) > 0) this.#call(event, args);
  }

  /**
   * Forgets what nobody has heard: of these events, or everything.
   *
   * @internal
   */
  forget(...events: readonly string[]): void {
    this.#kept = this.#kept.filter(({ event }) => !events.includes(event));
  }

  /**
   * Forgets everything that nobody has heard.
   *
   * @internal
   */
  forgetAll(): void {
    this.#kept = [];
  }

  /**
   * The program knows of this event already, without a listener: as if one had heard it.
   *
   * @internal
   */
  isKnown(event: string): void {
    if (this.listenerCount(event) === 0) this.forget(event);
    this.#heard ??= new Set();
    this.#heard.add(event);
  }

  /**
   * The listener that has heard of this event was not the program's: the first of the program is yet to come.
   *
   * @internal
   */
  isUnknown(event: string): void {
    this.#heard?.delete(event);
  }

  /**
   * Somebody has begun to listen.
   *
   * @internal
   */
  protected listens(_event: string | symbol): void {}

  /**
   * Whether an event that was kept is still to be told.
   *
   * @internal
   */
  protected stands(_event: string): boolean {
    return true;
  }

  /**
   * What a listener gave.
   *
   * @internal
   */
  protected answered(_event: string, _result: unknown): void {}

  /**
   * A listener threw: not ours to swallow.
   *
   * @internal
   */
  protected threw(_event: string, error: unknown): void {
    later(() => {
      throw error;
    });
  }

  #listens(event: string | symbol): void {
    this.listens(event);
    if (this.#isDue || !this.#kept.some((kept) => kept.event === event)) return;
    this.#isDue = true;
    later(() => this.#catchUp());
  }

  /** Gives what was kept to those who listen now. They may end the emitter, and tell or forget events meanwhile. */
  #catchUp(): void {
    this.#isDue = false;
    for (;;) {
      const at = this.#kept.findIndex(({ event }) => this.listenerCount(event) > 0);
      const [next] = at < 0 ? [] : this.#kept.splice(at, 1);
      if (!next) return;
      if (this.stands(next.event)) this.#give(next.event, next.args);
    }
  }

  #give(event: string, args: readonly unknown[]): void {
    this.#heard ??= new Set();
    this.#heard.add(event);
    this.#call(event, args);
  }

  #call(event: string, args: readonly unknown[]): void {
    const listeners = this.rawListeners(event);
    if (event === 'error') listeners.unshift(...this.rawListeners(errorMonitor));
    for (const listener of listeners) {
      try {
        this.answered(event, Reflect.apply(listener, this, args));
      } catch (error) {
        this.threw(event, error);
      }
    }
  }
}
