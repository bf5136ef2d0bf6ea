/** What a program has of a configuration: the value now, and what becomes of it. */

import { onAbort } from '../../common/abort.js';
import { describe, type Log } from '../../common/logger.js';
import { abortSignal, invalid, kindOf, onlyKnown, optional } from '../../common/shape.js';
import { checked } from '../../registry/call.js';
import { Events } from '../../registry/events.js';
import type { InvalidConfigError } from '../errors.js';
import type { ConfigSource } from './evaluate.js';
import type { Hears, Shown } from './held.js';
import { Part } from './part.js';

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

/**
 * Is asked before a change. `signal` fires when its answer does not matter any more: all have been asked, one has refused, or
 * `timeoutMs` has passed.
 */
export type ConfigCheck<T> = (next: T, previous: T, context: { readonly signal: AbortSignal }) => unknown;

/** @internal How many have what is open. */
export interface Users {
  retain(): void;
  release(): void;
}

const NAMES = ['change', 'rejected', 'stale', 'fresh', 'reset'] as const;
const VOIDS = { stale: ['stale', 'fresh'], fresh: ['stale', 'fresh'] };

/**
 * A configuration that is open, made by `coord.config.open()`. Its value is always whole and always one that the schema has
 * accepted. It doesn't keep the process alive.
 */
export class ConfigRef<T> implements AsyncIterable<T> {
  /** The key of the definition. */
  readonly key: string;
  readonly #held: Shown<T>;
  readonly #log: Log;
  readonly #events: Events<ConfigRefEvents<T>>;
  readonly #hears: Hears<T>;
  readonly #listening = new Set<Listening<T>>();
  readonly #checks = new Set<{ readonly check: ConfigCheck<T> }>();
  readonly #users: Users;
  #isClosed = false;
  #value: T;

  private constructor(held: Shown<T>, log: Log, users: Users) {
    this.key = held.key;
    this.#held = held;
    // What a program throws may show what it was told.
    const write: Log['write'] = (level, message) => log.write(level, held.valid?.hide(message) ?? message);
    this.#log = { level: log.level, write };
    this.#users = users;
    this.#events = new Events<ConfigRefEvents<T>>(NAMES, this.#log, VOIDS);
    this.#value = held.valid?.value as T;
    this.#hears = {
      asked: (next, previous, signal) => {
        const ask = async ({ check }: { check: ConfigCheck<T> }) => await check(next, previous, { signal });
        return Promise.all([...this.#checks].map(ask));
      },
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
  static of<T>(held: Shown<T>, log: Log, users: Users): ConfigRef<T> {
    return new ConfigRef(held, log, users);
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

  /** Where the value is from: `store`, `default` where no layer lies in the store, or `file` until the store was asked. */
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
    const signal = checked('subscribe', () => signalOfHook('listener', listener, options));
    if (this.#isClosed || signal?.aborted) return () => {};
    const one = new Subscription(this, listener, this.#log);
    this.#listening.add(one);
    return endedBy(signal, () => {
      this.#listening.delete(one);
      one.end();
    });
  }

  /**
   * Asks `check` before each change from now on. If it throws, or rejects, or gives no answer within `timeoutMs`, the value is
   * refused: nobody who has this configuration open sees it, `rejected` is told, with what was thrown as its `cause`, and it is
   * not asked again before something in the store changes. All are asked at once, and another may refuse what this one
   * accepts: prepare here, and act in `subscribe()`. No other change of the same folders is made while it is asked.
   *
   * @returns what ends that; so do the signal and `close()`.
   * @throws `ERR_INVALID_ARGUMENT`.
   */
  beforeChange(check: ConfigCheck<T>, options?: { signal?: AbortSignal | undefined }): () => void {
    const signal = checked('beforeChange', () => signalOfHook('check', check, options));
    if (this.#isClosed || signal?.aborted) return () => {};
    const one = { check };
    this.#checks.add(one);
    return endedBy(signal, () => this.#checks.delete(one));
  }

  /**
   * Opens a part of the value, such as `({ db }) => db.pool`, as a ref of its own: it changes only when what `pick` gives says
   * something else, and has the staleness, the refusals and the revision of the whole. It is to be closed by itself.
   *
   * `pick` is called with each new value before the change. If it throws, the value is refused, as by `beforeChange()`.
   *
   * @throws `ERR_INVALID_ARGUMENT`; what `pick` throws with the value now.
   */
  select<U>(pick: (value: T) => U): ConfigRef<U> {
    if (typeof pick !== 'function') {
      throw checked('select', () => invalid('pick', `expected a function, got ${kindOf(pick)}`));
    }
    const { key, revision, stale, rejected, source } = this;
    const stays = {
      key,
      revision,
      stale,
      rejected,
      valid: { value: this.value, source, hide: (text: string) => this.#held.valid?.hide(text) ?? text },
      hearers: new Set<Hears<T>>(),
    };
    const part = new Part(this.#isClosed ? stays : this.#held, pick, this.#log);
    let count = 0;
    // Parts of it are on it, and outlive its ref.
    const users: Users = {
      retain: () => {
        count++;
        this.#users.retain();
      },
      release: () => {
        if (--count === 0) part.end();
        this.#users.release();
      },
    };
    users.retain();
    const ref = ConfigRef.of(part, this.#log, users);
    if (this.#isClosed) ref.close();
    return ref;
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
    this.#checks.clear();
    this.#users.release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

function signalOfHook(
  name: string,
  hook: unknown,
  options: { signal?: AbortSignal | undefined } | undefined,
): AbortSignal | undefined {
  if (typeof hook !== 'function') throw invalid(name, `expected a function, got ${kindOf(hook)}`);
  const given = optional('options', options);
  onlyKnown('options', given, ['signal']);
  return abortSignal('options.signal', given.signal);
}

/** Calls `end` when the signal fires, or what it gives is called. */
function endedBy(signal: AbortSignal | undefined, end: () => void): () => void {
  let unlisten = () => {};
  const ended = () => {
    end();
    unlisten();
  };
  if (signal) unlisten = onAbort(signal, ended);
  return ended;
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
