/** What a program has of a configuration: the value now, and what becomes of it. */

import { onAbort } from '../../common/abort.js';
import { describe, type Log } from '../../common/logger.js';
import { abortSignal, invalid, kindOf, onlyKnown, optional } from '../../common/shape.js';
import { checked } from '../../registry/call.js';
import { Events } from '../../registry/events.js';
import type { InvalidConfigError } from '../errors.js';
import type { ConfigSource, Hears, Held } from './held.js';

/** The events of a `ConfigRef`. */
export interface ConfigRefEvents<T> {
  /** The value is another one. */
  change: [next: T, previous: T];
  /** A new value was refused; the one before it stays. Once for each. */
  rejected: [error: InvalidConfigError];
  /** The store can't be reached: the value stays. */
  stale: [];
  /** The value is again what lies in the store. */
  fresh: [];
  /** The store is another one than before, or was set back to an older state. It comes before the value that is read there. */
  reset: [];
}

/** Hears of a change. `signal` fires when a newer value waits, and at the end. */
export type ConfigListener<T> = (next: T, previous: T, context: { readonly signal: AbortSignal }) => unknown;

const NAMES = ['change', 'rejected', 'stale', 'fresh', 'reset'] as const;
const VOIDS = { stale: ['stale', 'fresh'], fresh: ['stale', 'fresh'] };

/**
 * A configuration that is open, made by `coord.config.open()`. Its value is always whole and always one that the schema has
 * accepted. It doesn't keep the process alive.
 */
export class ConfigRef<T> implements AsyncIterable<T> {
  /** The key of the definition. */
  readonly key: string;
  readonly #held: Held<T>;
  readonly #log: Log;
  readonly #events: Events<ConfigRefEvents<T>>;
  readonly #hears: Hears<T>;
  readonly #listening = new Set<Listening<T>>();
  readonly #released: () => void;
  #isClosed = false;
  #value: T;

  private constructor(held: Held<T>, log: Log, released: () => void) {
    this.key = held.resolved.key;
    this.#held = held;
    this.#log = log;
    this.#released = released;
    this.#events = new Events<ConfigRefEvents<T>>(NAMES, log, VOIDS);
    this.#value = held.valid?.value as T;
    this.#hears = {
      changed: (next, previous) => {
        this.#value = next;
        this.#events.tell('change', next, previous);
        for (const one of [...this.#listening]) one.wake();
      },
      rejected: (error) => this.#events.tell('rejected', error),
      told: (event) => this.#events.tell(event),
      ended: () => this.close(),
    };
    held.hearers.add(this.#hears);
  }

  /** @internal */
  static of<T>(held: Held<T>, log: Log, released: () => void): ConfigRef<T> {
    return new ConfigRef(held, log, released);
  }

  /** The last good value, frozen: objects and lists, all the way down. The same object until it says something else. */
  get value(): T {
    return this.#isClosed ? this.#value : (this.#held.valid?.value as T);
  }

  /** The revision of the store at which the value was read; 0 for a default that no store was asked about. */
  get revision(): bigint {
    return this.#held.revision;
  }

  /** Whether the value may be out of date, because the store can't be reached. */
  get stale(): boolean {
    return this.#held.stale;
  }

  /** Where the value is from: `store`, or `default` where no layer lies in the store. */
  get source(): ConfigSource {
    return this.#held.valid?.source ?? 'default';
  }

  /** Why what lies in the store was refused, until something there is accepted; `undefined`: it was not. */
  get rejected(): InvalidConfigError | undefined {
    return this.#held.rejected;
  }

  /** Whether it is closed. It then stays as it is. */
  get closed(): boolean {
    return this.#isClosed;
  }

  /**
   * Calls `listener` with each change from now on, after `value` has changed. While it has not returned, or its promise is
   * pending, it is not called again; then it hears the latest value, and as the previous one that which it heard last. What
   * it throws is logged, and stops nothing.
   *
   * @returns what ends that; so do the signal and `close()`.
   * @throws `ERR_INVALID_ARGUMENT`.
   */
  subscribe(listener: ConfigListener<T>, options?: { signal?: AbortSignal | undefined }): () => void {
    const signal = checked('subscribe', () => {
      if (typeof listener !== 'function') throw invalid('listener', `expected a function, got ${kindOf(listener)}`);
      const given = optional('options', options);
      onlyKnown('options', given, ['signal']);
      return abortSignal('options.signal', given.signal);
    });
    if (this.#isClosed || signal?.aborted) return () => {};
    const one = new Subscription(this, listener, this.#log);
    this.#listening.add(one);
    let unlisten = () => {};
    const end = () => {
      this.#listening.delete(one);
      one.end();
      unlisten();
    };
    if (signal) unlisten = onAbort(signal, end);
    return end;
  }

  /** Adds a listener. One that throws is logged, and stops nothing. The first one is given the last 16 that nobody heard. */
  on<E extends keyof ConfigRefEvents<T>>(event: E, listener: (...args: ConfigRefEvents<T>[E]) => void): this {
    this.#events.add(event, listener, false);
    return this;
  }

  /** Adds a listener for the next time only. */
  once<E extends keyof ConfigRefEvents<T>>(event: E, listener: (...args: ConfigRefEvents<T>[E]) => void): this {
    this.#events.add(event, listener, true);
    return this;
  }

  /** Takes a listener back. */
  off<E extends keyof ConfigRefEvents<T>>(event: E, listener: (...args: ConfigRefEvents<T>[E]) => void): this {
    this.#events.remove(event, listener);
    return this;
  }

  /** The value now, and then each change; one that comes while nobody waits replaces the one before it. Ends with `close()`. */
  [Symbol.asyncIterator](): AsyncIterableIterator<T> {
    const loop: Loop<T> = new Loop(this, () => this.#listening.delete(loop));
    if (this.#isClosed) loop.end();
    else this.#listening.add(loop);
    return loop;
  }

  /** Closes it: nothing is heard any more, loops end, and the value stays as it is. May be called again. */
  close(): void {
    if (this.#isClosed) return;
    this.#value = this.value;
    this.#isClosed = true;
    this.#held.hearers.delete(this.#hears);
    for (const one of [...this.#listening]) one.end();
    this.#listening.clear();
    this.#released();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

/** Who takes the latest value when it has time. */
interface Listening<T> {
  /** There is another value. */
  wake(): void;
  end(): void;
  /** Only for the type. */
  readonly of?: T;
}

/** One `subscribe()`. */
class Subscription<T> implements Listening<T> {
  readonly #ref: ConfigRef<T>;
  readonly #listener: ConfigListener<T>;
  readonly #log: Log;
  #last: T;
  #waits = false;
  #isOver = false;
  #running: AbortController | undefined;

  constructor(ref: ConfigRef<T>, listener: ConfigListener<T>, log: Log) {
    this.#ref = ref;
    this.#listener = listener;
    this.#log = log;
    this.#last = ref.value;
  }

  wake(): void {
    this.#waits = true;
    if (this.#running) this.#running.abort();
    else void this.#run();
  }

  end(): void {
    this.#isOver = true;
    this.#running?.abort();
  }

  async #run(): Promise<void> {
    while (this.#waits && !this.#isOver) {
      this.#waits = false;
      const [next, previous] = [this.#ref.value, this.#last];
      this.#last = next;
      this.#running = new AbortController();
      try {
        await this.#listener(next, previous, { signal: this.#running.signal });
      } catch (error) {
        this.#log.write('error', `a listener of the configuration ${this.#ref.key} failed: ${describe(error)}`);
      }
      this.#running = undefined;
    }
  }
}

const DONE: IteratorReturnResult<undefined> = Object.freeze({ done: true, value: undefined });

/** One `for await`. */
class Loop<T> implements Listening<T>, AsyncIterableIterator<T> {
  readonly #ref: ConfigRef<T>;
  readonly #left: () => void;
  readonly #waiting: ((result: IteratorResult<T>) => void)[] = [];
  #isNews = true;
  #isOver = false;

  constructor(ref: ConfigRef<T>, left: () => void) {
    this.#ref = ref;
    this.#left = left;
  }

  next(): Promise<IteratorResult<T>> {
    return new Promise((resolve) => {
      if (this.#isOver) {
        resolve(DONE);
        return;
      }
      this.#waiting.push(resolve);
      this.#give();
    });
  }

  async return(): Promise<IteratorReturnResult<undefined>> {
    this.end();
    return DONE;
  }

  wake(): void {
    this.#isNews = true;
    this.#give();
  }

  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#left();
    for (const resolve of this.#waiting.splice(0)) resolve(DONE);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #give(): void {
    if (!this.#isNews) return;
    const resolve = this.#waiting.shift();
    if (!resolve) return;
    this.#isNews = false;
    resolve({ done: false, value: this.#ref.value });
  }
}
