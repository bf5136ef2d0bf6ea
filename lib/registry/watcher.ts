/** What is followed, a name or the names: an async iterator of whole lists, where the latest wins. */

import { onAbort } from '../common/abort.js';
import { fromNative } from '../common/failure.js';
import type { Log } from '../common/logger.js';
import { invalid } from '../common/shape.js';
import { aborted, type RollcallError } from '../errors.js';
import type { NativeFailure, ServicesWatcherHandle, WatcherHandle } from '../native.js';
import { Events } from './events.js';
import { nextList, type ServiceInstance, sameInstance } from './instance.js';

/** The events of a watcher. */
export interface WatcherEvents {
  /** The registry can't be reached, or is not yet believed: the last list stays. */
  stale: [];
  /** The list is again what the registry says. */
  fresh: [];
}

const VOIDS = { stale: ['stale', 'fresh'], fresh: ['stale', 'fresh'] };

/**
 * What the native side holds of a watcher.
 *
 * @internal
 */
export type Handle = Pick<
  WatcherHandle & ServicesWatcherHandle,
  'id' | 'stale' | 'version' | 'error' | 'attempts' | 'stop'
>;

/**
 * What lists are made of, and how they come from the native side.
 *
 * @internal
 */
export interface ListKind<T, H extends Handle> {
  /** What errors call the watch. */
  readonly operation: string;
  /** What the observer of a registry is told of it; nothing where it is not one of the registry's own calls. */
  readonly observed?: 'watch' | 'watchServices';
  /** The latest list and its number: what `previous`, whose number is `known`, has of it is kept. */
  next(handle: H, known: number, previous: readonly T[]): [version: number, list: readonly T[]];
  /** Whether two entries say the same. */
  same(a: T, b: T): boolean;
}

/** @internal */
export const INSTANCES: ListKind<ServiceInstance, WatcherHandle> = {
  operation: 'watch',
  observed: 'watch',
  next: (handle, known, previous) => {
    const taken = handle.take(known);
    return [taken.version, nextList(previous, taken)];
  },
  same: sameInstance,
};

/**
 * The latest list of what is followed, converted and frozen once for all its watchers, for `getService()` and for
 * `services()`.
 */
class Feed<T, H extends Handle> {
  /** Of its live watchers. */
  readonly handles = new Set<H>();
  readonly #kind: ListKind<T, H>;
  #version = 0;
  #list: readonly T[] | undefined;

  constructor(kind: ListKind<T, H>) {
    this.#kind = kind;
  }

  /** The latest list, through the handle of any watcher of it; `undefined` before the first one. */
  latest(handle: H): readonly T[] | undefined {
    if (handle.version() !== this.#version) {
      // Always through the same handle while it lives: it remembers what was taken, and hands over what is new.
      const [first = handle] = this.handles;
      [this.#version, this.#list] = this.#kind.next(first, this.#version, this.#list ?? []);
    }
    return this.#list;
  }
}

/**
 * What is followed, by name.
 *
 * @internal
 */
export class Feeds<T, H extends Handle> {
  readonly kind: ListKind<T, H>;
  readonly #feeds = new Map<string, Feed<T, H>>();

  constructor(kind: ListKind<T, H>) {
    this.kind = kind;
  }

  /** A handle has begun to follow `name`. */
  join(name: string, handle: H): Following<T> {
    let feed = this.#feeds.get(name);
    if (!feed) {
      feed = new Feed(this.kind);
      this.#feeds.set(name, feed);
    }
    const joined = feed;
    joined.handles.add(handle);
    return {
      id: handle.id(),
      stale: () => handle.stale(),
      error: () => handle.error(),
      attempts: () => handle.attempts(),
      latest: () => joined.latest(handle),
      stop: () => {
        handle.stop();
        if (joined.handles.delete(handle) && joined.handles.size === 0) this.#feeds.delete(name);
      },
    };
  }

  /** The list of a live watch. */
  known(name: string): readonly T[] | undefined {
    const feed = this.#feeds.get(name);
    if (!feed) return undefined;
    for (const handle of feed.handles) return feed.latest(handle);
    return undefined;
  }
}

/** What a watcher has of the native side. */
interface Following<T> {
  readonly id: number;
  stale(): boolean;
  error(): NativeFailure | null;
  attempts(): number;
  latest(): readonly T[] | undefined;
  stop(): void;
}

/**
 * What a watcher needs of its registry.
 *
 * @internal
 */
export interface WatcherSource<T> {
  readonly kind: Pick<ListKind<T, never>, 'operation' | 'same'>;
  readonly log: Log;
  /** Missing when the watcher is over before it begins. */
  readonly following?: Following<T>;
  readonly signal?: AbortSignal | undefined;
  /** Why it failed before it began. */
  readonly failure?: unknown;
  /** Hears that the registry refuses, once until it has told something, in place of an end. */
  readonly refused?: ((error: RollcallError) => void) | undefined;
  /** Hears that the store is another one than before, or was set back. */
  readonly reset?: (() => void) | undefined;
  /** Hears of the first list, or why there is none: then it may be called again. */
  readonly first?: ((error?: unknown) => void) | undefined;
  /** Called once, when it is over. */
  released(watcher: object): void;
}

interface Waiting<T> {
  resolve(result: IteratorResult<readonly T[]>): void;
  reject(error: unknown): void;
}

const DONE: IteratorReturnResult<undefined> = Object.freeze({ done: true, value: undefined });

/** What `Watcher` and `ServicesWatcher` have in common: see there. */
export abstract class ListWatcher<T> implements AsyncIterableIterator<readonly T[]> {
  readonly #source: WatcherSource<T>;
  readonly #events: Events<WatcherEvents>;
  readonly #waiting: Waiting<T>[] = [];
  readonly #unlisten: () => void = () => {};
  #delivered: readonly T[] | undefined;
  #last: readonly T[] | undefined;
  #stale = false;
  #over = false;
  #failure: { error: unknown } | undefined;
  /** It was told that the registry refuses, which nothing has contradicted. */
  #complained = false;
  #looped = false;

  /** @internal */
  protected constructor(source: WatcherSource<T>) {
    this.#source = source;
    this.#events = new Events<WatcherEvents>(['stale', 'fresh'], source.log, VOIDS);
    if (source.failure !== undefined) this.#failure = { error: source.failure };
    if (!source.following) {
      this.#over = true;
    } else if (source.signal?.aborted) {
      this.stop();
    } else if (source.signal) {
      this.#unlisten = onAbort(source.signal, () => this.stop());
    }
  }

  /** Whether `current` may be out of date, because the registry can't be reached or isn't believed yet. */
  get stale(): boolean {
    return this.#over ? this.#stale : (this.#source.following?.stale() ?? this.#stale);
  }

  /**
   * Whether the registry refuses to tell of it, as it may only where it is asked again.
   *
   * @internal
   */
  get refused(): boolean {
    return !this.#over && this.#complained && Boolean(this.#source.following?.error());
  }

  /** The latest list, delivered or not; `undefined` before the first one. Stays after the end. */
  get current(): readonly T[] | undefined {
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
  async next(): Promise<IteratorResult<readonly T[]>> {
    try {
      return await this.#pull();
    } catch (error) {
      throw fromNative(error, this.#source.kind.operation);
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
      this.#stale = this.#source.following?.stale() ?? false;
    } finally {
      this.#end();
      for (const { resolve } of this.#waiting.splice(0)) resolve(DONE);
    }
  }

  /**
   * For `for await`, once: a second loop would take lists from the first.
   *
   * @throws `ERR_INVALID_ARGUMENT` the second time, unless the watch is over.
   */
  [Symbol.asyncIterator](): this {
    if (this.#looped && !this.#over) {
      const { operation } = this.#source.kind;
      throw invalid(
        operation,
        `expected one loop over a watcher, of which each would miss lists: call ${operation}() for each`,
      );
    }
    this.#looped = true;
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
      this.#source.first?.();
      this.#deliver();
    } else if (kind === 'stale' || kind === 'fresh') this.#events.tell(kind);
    else if (kind === 'reset') this.#source.reset?.();
    else if (kind === 'watchError') {
      const error = this.#source.following?.error();
      if (!error) return; // what was refused is no longer
      const { refused } = this.#source;
      if (!refused) this.#fail(error);
      else if (!this.#complained) {
        this.#complained = true;
        refused(fromNative(error, this.#source.kind.operation));
      }
    }
  }

  #pull(): Promise<IteratorResult<readonly T[]>> {
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
    if (!list || (this.#delivered && this.#same(this.#delivered, list))) return;
    this.#delivered = list;
    this.#waiting.shift();
    waiting.resolve({ done: false, value: list });
  }

  #same(a: readonly T[], b: readonly T[]): boolean {
    if (a === b) return true;
    if (a.length !== b.length) return false;
    // A plain loop over copies: of 10,000 entries all but one are the very same objects, a call for each costs more than the rest, and
    // so does looking into what is frozen.
    const { same } = this.#source.kind;
    const [first, second] = [[...a], [...b]];
    for (let place = 0; place < first.length; place++) {
      if (first[place] !== second[place] && !same(first[place] as T, second[place] as T)) return false;
    }
    return true;
  }

  #refresh(): void {
    if (!this.#over && this.#source.following) this.#last = this.#source.following.latest();
  }

  #fail(error: unknown): void {
    this.#refresh();
    this.#end(error);
    const [first, ...rest] = this.#waiting.splice(0);
    if (first) first.reject(error);
    else this.#failure = { error };
    for (const { resolve } of rest) resolve(DONE);
  }

  #end(failure?: unknown): void {
    this.#over = true;
    this.#unlisten();
    const { first, kind, signal } = this.#source;
    // No news, if a list has come.
    first?.(failure === undefined ? aborted(signal, kind.operation) : fromNative(failure, kind.operation));
    this.#source.following?.stop();
    this.#source.released(this);
  }
}

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
export class Watcher extends ListWatcher<ServiceInstance> {
  /** The service that is followed. */
  readonly name: string;

  private constructor(name: string, source: WatcherSource<ServiceInstance>) {
    super(source);
    this.name = name;
  }

  /** @internal */
  static follow(name: string, source: WatcherSource<ServiceInstance>): Watcher {
    return new Watcher(name, source);
  }
}
