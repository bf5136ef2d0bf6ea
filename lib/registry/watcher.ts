/** A followed name: an async iterator of whole lists, where the latest wins. */

import { onAbort } from '../common/abort.js';
import type { Log } from '../common/logger.js';
import { fromNative, type RollcallError } from '../errors.js';
import type { WatcherHandle } from '../native.js';
import { Events } from './events.js';
import { nextList, type ServiceList, sameList } from './instance.js';

/** The events of a watcher. */
export interface WatcherEvents {
  /** The registry can't be reached, or is not yet believed: the last list stays. */
  stale: [];
  /** The list is again what the registry says. */
  fresh: [];
}

const VOIDS = { stale: ['stale', 'fresh'], fresh: ['stale', 'fresh'] };

/**
 * The latest list of one name, converted and frozen once for all watchers and for `getService()`.
 *
 * @internal
 */
export class Feed {
  /** Of its live watchers. */
  readonly handles = new Set<WatcherHandle>();
  #version = 0;
  #list: ServiceList | undefined;

  /** The latest list, through the handle of any watcher of the name; `undefined` before the first one. */
  latest(handle: WatcherHandle): ServiceList | undefined {
    if (handle.version() !== this.#version) {
      // Always through the same handle while it lives: it remembers what was taken, and hands over what is new.
      const [first = handle] = this.handles;
      const taken = first.take(this.#version);
      this.#list = nextList(this.#list ?? [], taken);
      this.#version = taken.version;
    }
    return this.#list;
  }
}

/**
 * What a watcher needs of its registry.
 *
 * @internal
 */
export interface WatcherSource {
  readonly name: string;
  readonly log: Log;
  /** Missing when the watcher is over before it begins. */
  readonly handle?: WatcherHandle;
  readonly feed?: Feed;
  readonly signal?: AbortSignal;
  /** Why it failed before it began. */
  readonly failure?: unknown;
  /** Hears that the registry refuses, once until it has told something, in place of an end. */
  readonly refused?: (error: RollcallError) => void;
  /** Called once, when it is over. */
  released(watcher: Watcher): void;
}

interface Waiting {
  resolve(result: IteratorResult<ServiceList>): void;
  reject(error: unknown): void;
}

const DONE: IteratorReturnResult<undefined> = Object.freeze({ done: true, value: undefined });

/**
 * Follows one name. `next()`, or `for await`, gives the current list and then every change of it:
 *
 * - The first list comes as soon as the registry has told it, also when it is empty. While the registry can't be reached
 *   `next()` waits; it has no timeout of its own.
 * - Every list is whole, frozen and sorted by id. One that comes while nobody waits replaces the one before it.
 * - A broken connection is no end: the last list stays, `stale` is true, and following goes on until it succeeds.
 *
 * It ends, with `done` and without an error, by `stop()`, by `break`, by its `AbortSignal` and by `registry.close()`. It
 * ends with an error only when the registry refuses: `ERR_PERMISSION_DENIED`, `ERR_UNAUTHENTICATED` or
 * `ERR_INVALID_ARGUMENT`, once, from the pending or the next `next()`; and with `ERR_CLOSED` when the registry was closed
 * before `watch()` was called.
 */
export class Watcher implements AsyncIterableIterator<ServiceList> {
  /** The service that is followed. */
  readonly name: string;
  readonly #source: WatcherSource;
  readonly #events: Events<WatcherEvents>;
  readonly #waiting: Waiting[] = [];
  readonly #unlisten: () => void = () => {};
  #delivered: ServiceList | undefined;
  #last: ServiceList | undefined;
  #stale = false;
  #over = false;
  #failure: { error: unknown } | undefined;
  /** It was told that the registry refuses, which nothing has contradicted. */
  #complained = false;

  private constructor(source: WatcherSource) {
    this.name = source.name;
    this.#source = source;
    this.#events = new Events<WatcherEvents>(['stale', 'fresh'], source.log, VOIDS);
    if (source.failure !== undefined) this.#failure = { error: source.failure };
    if (!source.handle) {
      this.#over = true;
    } else if (source.signal?.aborted) {
      this.stop();
    } else if (source.signal) {
      this.#unlisten = onAbort(source.signal, () => this.stop());
    }
  }

  /** @internal */
  static follow(source: WatcherSource): Watcher {
    return new Watcher(source);
  }

  /** Whether `current` may be out of date, because the registry can't be reached or isn't believed yet. */
  get stale(): boolean {
    return this.#over ? this.#stale : (this.#source.handle?.stale() ?? this.#stale);
  }

  /**
   * Whether the registry refuses to tell of it, as it may only where it is asked again.
   *
   * @internal
   */
  get refused(): boolean {
    return !this.#over && this.#complained && Boolean(this.#source.handle?.error());
  }

  /** The latest list, delivered or not; `undefined` before the first one. Stays after the end. */
  get current(): ServiceList | undefined {
    this.#refresh();
    return this.#last;
  }

  /**
   * Adds a listener. One that throws is logged, and stops nothing. The first one is given what nobody has heard: the newer
   * of `stale` and `fresh`.
   */
  on<E extends keyof WatcherEvents>(event: E, listener: (...args: WatcherEvents[E]) => void): this {
    this.#events.add(event, listener, false);
    return this;
  }

  /** Adds a listener for the next time only. */
  once<E extends keyof WatcherEvents>(event: E, listener: (...args: WatcherEvents[E]) => void): this {
    this.#events.add(event, listener, true);
    return this;
  }

  /** Takes a listener back. */
  off<E extends keyof WatcherEvents>(event: E, listener: (...args: WatcherEvents[E]) => void): this {
    this.#events.remove(event, listener);
    return this;
  }

  /** The same as `off()`: the name by which `once()` and `on()` of `node:events` know it. */
  removeListener<E extends keyof WatcherEvents>(event: E, listener: (...args: WatcherEvents[E]) => void): this {
    return this.off(event, listener);
  }

  /**
   * The next list that differs from the one delivered before it. Calls made at once are answered in their order.
   *
   * @throws the refusal of the registry, once; then it is `done`.
   */
  async next(): Promise<IteratorResult<ServiceList>> {
    try {
      return await this.#pull();
    } catch (error) {
      throw fromNative(error, 'watch');
    }
  }

  /** Ends the watch, as `break` does. */
  async return(): Promise<IteratorReturnResult<undefined>> {
    this.stop();
    return DONE;
  }

  /** Ends the watch: pending and later `next()` are `done`. May be called again. */
  stop(): void {
    if (this.#over) return;
    try {
      this.#refresh();
      this.#stale = this.#source.handle?.stale() ?? false;
    } finally {
      this.#end();
      for (const { resolve } of this.#waiting.splice(0)) resolve(DONE);
    }
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop();
  }

  /**
   * What the native side reports of this watch.
   *
   * @internal
   */
  notify(kind: string): void {
    if (this.#over) return;
    if (kind === 'watch') {
      this.#complained = false;
      this.#deliver();
    } else if (kind === 'stale' || kind === 'fresh') this.#events.tell(kind);
    else if (kind === 'watchError') {
      const error = this.#source.handle?.error();
      if (!error) return; // what was refused is no longer
      const { refused } = this.#source;
      if (!refused) this.#fail(error);
      else if (!this.#complained) {
        this.#complained = true;
        refused(fromNative(error, 'watch'));
      }
    }
  }

  #pull(): Promise<IteratorResult<ServiceList>> {
    return new Promise((resolve, reject) => {
      if (this.#over) {
        const failure = this.#failure;
        this.#failure = undefined;
        if (failure) reject(failure.error);
        else resolve(DONE);
        return;
      }
      this.#waiting.push({ resolve, reject });
      this.#deliver();
    });
  }

  /** Gives the latest list to the one who waits longest, if it is news. */
  #deliver(): void {
    const waiting = this.#waiting[0];
    if (!waiting) return; // a list that nobody asks for stays on the native side
    this.#refresh();
    const list = this.#last;
    if (!list || (this.#delivered && sameList(this.#delivered, list))) return;
    this.#delivered = list;
    this.#waiting.shift();
    waiting.resolve({ done: false, value: list });
  }

  #refresh(): void {
    const { handle, feed } = this.#source;
    if (!this.#over && handle && feed) this.#last = feed.latest(handle);
  }

  #fail(error: unknown): void {
    this.#refresh();
    this.#end();
    const [first, ...rest] = this.#waiting.splice(0);
    if (first) first.reject(error);
    else this.#failure = { error };
    for (const { resolve } of rest) resolve(DONE);
  }

  #end(): void {
    this.#over = true;
    this.#unlisten();
    this.#source.handle?.stop();
    this.#source.released(this);
  }
}
