/** A watch as an async iterator: changes with their revisions as bigint. */

import type { IKeyValue } from '../rpc/messages.js';
import type { Change } from './records.js';

/** A key as it was. */
export interface WatchedKey {
  readonly key: Buffer;
  readonly value: Buffer;
  /** The revision of its last change. */
  readonly revision: bigint;
  /** The revision that made it; `0n` when it was deleted. */
  readonly createRevision: bigint;
  /** How often it was written since it was made, from `1n`; `0n` when it was deleted. */
  readonly version: bigint;
  /** The lease that it belongs to; `0n` for none. */
  readonly lease: bigint;
}

/** One change of one key. `value` is empty when it was deleted. */
export interface WatchChange extends WatchedKey {
  /** A deletion may be one by a program, or the end of the key's lease. */
  readonly type: 'put' | 'delete';
  /** The key before the change, with `withPreviousKV()`; missing when there was none, or etcd no longer has it. */
  readonly previous: WatchedKey | undefined;
}

/** After a gap in the history, with `withRelist()`: everything that is there. What is not among it was deleted. */
export interface WatchList {
  readonly type: 'list';
  /** The revision of the list. Changes after it follow. */
  readonly revision: bigint;
  /** In the order of their keys. */
  readonly keys: readonly WatchedKey[];
}

/** @internal */
export function watchedKey(kv: IKeyValue): WatchedKey {
  return {
    key: kv.key,
    value: kv.value,
    revision: BigInt(kv.mod_revision),
    createRevision: BigInt(kv.create_revision),
    version: BigInt(kv.version),
    lease: BigInt(kv.lease),
  };
}

/** @internal */
export function watchChange({ deleted, kv, previous }: Change): WatchChange {
  return {
    type: deleted ? 'delete' : 'put',
    ...watchedKey(kv),
    previous: previous === null ? undefined : watchedKey(previous),
  };
}

const DONE: IteratorReturnResult<undefined> = Object.freeze({ done: true, value: undefined });

interface Waiting<E> {
  resolve(result: IteratorResult<E>): void;
  reject(error: unknown): void;
}

/**
 * Hands out what its watcher puts in. While something waits in it, the watcher takes nothing more from the native side:
 * what the program has no time for waits there, up to a bound, and then on the server.
 *
 * @internal
 */
export class WatchIterator<E> implements AsyncIterableIterator<E> {
  #waiting: Waiting<E>[] = [];
  #items: E[] = [];
  #at = 0;
  #over = false;
  #failure: (() => unknown) | undefined;
  readonly #drained: () => void;
  readonly #returned: () => Promise<void>;

  /** `drained` is called when everything has been handed out, `returned` when the program wants no more. */
  constructor(drained: () => void, returned: () => Promise<void>) {
    this.#drained = drained;
    this.#returned = returned;
  }

  /** Whether something waits for the program. */
  get busy(): boolean {
    return this.#at < this.#items.length;
  }

  put(item: E): void {
    const waiting = this.#waiting.shift();
    if (waiting) waiting.resolve({ done: false, value: item });
    else this.#items.push(item);
  }

  /** No more comes; what waits is still handed out. `failure` makes the error that is thrown after it, once. */
  finish(failure?: () => unknown): void {
    if (this.#over) return;
    this.#over = true;
    this.#failure = failure;
    const [first, ...rest] = this.#waiting.splice(0);
    if (first) this.#end(first);
    for (const waiting of rest) waiting.resolve(DONE);
  }

  /**
   * The next change. Calls made at once are answered in their order.
   *
   * @throws why the watch ended, if not by the program: once, then it is `done`.
   */
  async next(): Promise<IteratorResult<E>> {
    if (this.#at === this.#items.length) {
      this.#items = [];
      this.#at = 0;
      if (!this.#over) this.#drained(); // may put something in
    }
    if (this.busy) return { done: false, value: this.#items[this.#at++] as E };
    return await new Promise<IteratorResult<E>>((resolve, reject) => {
      if (this.#over) this.#end({ resolve, reject });
      else this.#waiting.push({ resolve, reject });
    });
  }

  /** Ends the watch, as `break` does. */
  async return(): Promise<IteratorReturnResult<undefined>> {
    this.#items = [];
    this.#at = 0;
    this.#failure = undefined;
    await this.#returned();
    return DONE;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #end({ resolve, reject }: Waiting<E>): void {
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure) reject(failure());
    else resolve(DONE);
  }
}
