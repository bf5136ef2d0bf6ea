/** A lock that can be acquired again and again. */

import { invalid, kindOf } from '../../common/shape.js';
import type { NativeHoldOptions } from '../../native.js';
import { checked } from '../../registry/call.js';
import { Held, type Keeper } from './held.js';
import { type AcquireOptions, type FollowPermits, type Holding, type Waiting, waiting } from './options.js';

/** What is held, and beside whom. */
export type Kind =
  | { readonly kind: 'mutex' | 'read' | 'write' }
  | {
      readonly kind: 'semaphore';
      readonly permits: () => number;
      readonly follow: FollowPermits;
    };

/** A lock of one kind and key. It is not held itself: each `acquire()` gives a `Held` of its own. */
export class Lock {
  /** What its keys begin with, such as `/locks/report`. */
  readonly path: string;
  readonly #keeper: Keeper;
  readonly #kind: Kind;
  readonly #holding: Holding;

  /** @internal */
  constructor(keeper: Keeper, path: string, kind: Kind, holding: Holding) {
    this.#keeper = keeper;
    this.path = path;
    this.#kind = kind;
    this.#holding = holding;
  }

  /**
   * Waits for its turn, in the order in which the keys were created. A store that is away is waited for; the place in the queue is
   * kept while its lease lives.
   *
   * @throws `ERR_TIMEOUT` after `timeoutMs`, or with what hindered it; `ERR_LOCK_LOST` when the place was lost; `ERR_ABORTED`,
   * `ERR_PERMISSION_DENIED`, `ERR_UNAUTHENTICATED`, `ERR_INVALID_ARGUMENT`, `ERR_UNSUPPORTED`, `ERR_CLOSED`. Nothing stays in
   * the store then.
   */
  async acquire(options?: AcquireOptions): Promise<Held> {
    const how = checked('acquire', () => waiting(options, this.#keeper.inside.timeoutMs));
    return await this.take('acquire', how);
  }

  /** The same without waiting for others: `null` when it is not its turn at once. `timeoutMs` is for the store to answer. */
  async tryAcquire(options?: AcquireOptions): Promise<Held | null> {
    const how = checked('tryAcquire', () => waiting(options, this.#keeper.inside.timeoutMs));
    return await this.tryTake('tryAcquire', how);
  }

  /**
   * Acquires it, runs `fn`, releases it whatever became of `fn`, and gives what `fn` gives. When it was lost before `fn` was
   * done it rejects with a `LockLostError`, also where `fn` came to its end: what `fn` threw is its `cause`. A release that fails
   * is not told: the lease expires.
   *
   * @throws what `fn` throws, and as `acquire()`.
   */
  async withLock<T>(fn: (held: Held) => T | Promise<T>, options?: AcquireOptions): Promise<T> {
    const how = checked('withLock', () => {
      functionOf(fn);
      return waiting(options, this.#keeper.inside.timeoutMs);
    });
    return await this.run('withLock', fn, how);
  }

  /** @internal */
  async take(operation: string, how: Waiting): Promise<Held> {
    const follow = this.#kind.kind === 'semaphore' ? this.#kind.follow : undefined;
    return (await Held.acquire(this.#keeper, operation, this.path, this.#options(true), how, follow)) as Held;
  }

  /** @internal */
  tryTake(operation: string, how: Waiting): Promise<Held | null> {
    return Held.acquire(this.#keeper, operation, this.path, this.#options(false), how);
  }

  /** @internal */
  async run<T>(operation: string, fn: (held: Held) => T | Promise<T>, how: Waiting): Promise<T> {
    return await under(await this.take(operation, how), fn);
  }

  #options(waits: boolean): NativeHoldOptions {
    const kind = this.#kind;
    const permits = kind.kind === 'semaphore' ? kind.permits() : 1;
    return { path: this.path, kind: kind.kind, permits, waits, ...this.#holding };
  }
}

/**
 * Runs `fn` under what is held, and gives it back. Rejects with its loss where that came first; what `fn` threw is its `cause`.
 *
 * @internal
 */
export async function under<T>(held: Held, fn: (held: Held) => T | Promise<T>): Promise<T> {
  try {
    return await unlost(held, () => fn(held));
  } finally {
    await held.release().catch(() => {}); // it is tried again by itself, and the lease expires
  }
}

/** The same, and gives nothing back. @internal */
export async function unlost<T>(held: Pick<Held, 'loss'>, work: () => T | Promise<T>): Promise<T> {
  try {
    const value = await work();
    const { loss } = held;
    if (loss) throw loss;
    return value;
  } catch (error) {
    const { loss } = held;
    if (loss && loss !== error && loss.cause === undefined) {
      Object.defineProperty(loss, 'cause', { configurable: true, enumerable: false, value: error, writable: true });
    }
    throw loss ?? error;
  }
}

export function functionOf(fn: unknown): void {
  if (typeof fn !== 'function') throw invalid('fn', `expected a function, got ${kindOf(fn)}`);
}
