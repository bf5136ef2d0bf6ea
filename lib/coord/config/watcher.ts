/** What is followed without a definition: an async iterator, where the latest wins. */

import { invalid } from '../../common/shape.js';
import type { NativeRange } from '../../native.js';
import { Events } from '../../registry/events.js';
import type { WatcherEvents } from '../../registry/watcher.js';
import type { Store } from '../store.js';
import { type Entries, type EntriesWatcher, revisionOf } from './entry.js';

/** The events of a `ConfigWatcher`. */
export interface ConfigWatcherEvents extends WatcherEvents {
  /** The store is another one than before, or was set back to an older state. It comes before what is read there. */
  reset: [];
}

const VOIDS = { stale: ['stale', 'fresh'], fresh: ['stale', 'fresh'] };

/**
 * Follows a key, or all below a prefix. `next()`, or `for await`, gives what stands there and then every change, each of one
 * revision of the store. One that comes while nobody waits replaces the one before it. While the store can't be reached
 * `next()` waits, and `stale` is true. It keeps the process alive.
 *
 * It ends, with `done`, by `stop()`, by `break`, by its signal and by `close()`; with an error only where the store refuses
 * before the first.
 */
export class ConfigWatcher<T> implements AsyncIterableIterator<T> {
  readonly #watcher: EntriesWatcher;
  readonly #events: Events<ConfigWatcherEvents>;
  readonly #made: (list: Entries) => T;
  #revision = 0n;

  private constructor(
    store: Store,
    operation: string,
    ranges: NativeRange[],
    signal: AbortSignal | undefined,
    made: (list: Entries) => T,
  ) {
    const events = new Events<ConfigWatcherEvents>(['stale', 'fresh', 'reset'], store.log, VOIDS);
    this.#events = events;
    this.#made = made;
    this.#watcher = store.follow(operation, ranges, { signal, reset: () => events.tell('reset') });
    this.#watcher.on('stale', () => events.tell('stale')).on('fresh', () => events.tell('fresh'));
  }

  /** @internal */
  static of<T>(
    store: Store,
    operation: string,
    ranges: NativeRange[],
    signal: AbortSignal | undefined,
    made: (list: Entries) => T,
  ): ConfigWatcher<T> {
    return new ConfigWatcher(store, operation, ranges, signal, made);
  }

  /** Whether what was given last may be out of date, because the store can't be reached. */
  get stale(): boolean {
    return this.#watcher.stale;
  }

  /** The revision of the store of what was given last; 0 before the first. */
  get revision(): bigint {
    return this.#revision;
  }

  /** What comes next. Calls made at once are answered in their order. */
  async next(): Promise<IteratorResult<T>> {
    const { done, value } = await this.#watcher.next();
    if (done) return { done, value };
    this.#revision = revisionOf(value);
    return { done: false, value: this.#made(value) };
  }

  /** Ends it, as `break` does. */
  async return(): Promise<IteratorReturnResult<undefined>> {
    return await this.#watcher.return();
  }

  /** Ends it: pending and later `next()` are `done`. May be called again. */
  stop(): void {
    this.#watcher.stop();
  }

  /** Adds a listener. One that throws is logged, and stops nothing. */
  on<E extends keyof ConfigWatcherEvents>(event: E, listener: (...args: ConfigWatcherEvents[E]) => void): this {
    this.#events.add(event, listener, false);
    return this;
  }

  /** Adds a listener for the next time only. */
  once<E extends keyof ConfigWatcherEvents>(event: E, listener: (...args: ConfigWatcherEvents[E]) => void): this {
    this.#events.add(event, listener, true);
    return this;
  }

  /** Takes a listener back. */
  off<E extends keyof ConfigWatcherEvents>(event: E, listener: (...args: ConfigWatcherEvents[E]) => void): this {
    this.#events.remove(event, listener);
    return this;
  }

  /**
   * For `for await`, once.
   *
   * @throws `ERR_INVALID_ARGUMENT` the second time.
   */
  [Symbol.asyncIterator](): this {
    try {
      this.#watcher[Symbol.asyncIterator]();
    } catch {
      throw invalid('watch', 'expected one loop over a watcher, of which each would miss values: watch anew for each');
    }
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop();
  }
}
