/** The try-lock of etcd3. */

import { type Bytes, leaseTtl, plainError } from '../check.js';
import type { Keyspace } from '../kv/keyspace.js';
import type { CallOptions } from '../rpc/calls.js';
import type { ICompare } from '../rpc/messages.js';
import type { Connection } from '../transport/connection.js';
import { waited } from '../transport/waiting.js';
import { type Acquisition, Holder, isTaken } from './acquisition.js';
import { MockAcquisition } from './mock-acquisition.js';
import { NativeAcquisition } from './native-acquisition.js';
import { type IStallOptions, stallMs, timeFor } from './settings.js';

/** Options of a lock: those of its calls, and `stallTimeoutMs`. */
export interface ILockOptions extends CallOptions, IStallOptions {}

/**
 * A lock on one key, which is taken or refused at once: the key is there while the lock is held, with an empty value,
 * under a lease of its own. It is the lock of etcd3; processes that use that and this exclude each other. It does not
 * wait, and knows nothing of `etcdctl lock`: for both see `Mutex`.
 *
 * ```js
 * await client.lock('job').do(async (signal) => {
 *   await work(signal); // released afterwards; `signal` fires when the lock is lost meanwhile
 * });
 * ```
 *
 * A lock can be lost: its lease expires when etcd can't be reached for its time to live, and somebody may revoke it or
 * delete the key. Then `signal` fires, and `isHeld` is false from the moment on until which the lease could be vouched for.
 * What even that can't exclude, a process that was stopped between looking and writing, `guard()` does.
 */
export class Lock {
  readonly #connection: Connection;
  readonly #keyspace: Keyspace;
  readonly #key: Bytes;
  #ttl = 30;
  #options: ILockOptions | undefined;
  readonly #holder = new Holder<Acquisition>();

  /** @internal */
  constructor(connection: Connection, keyspace: Keyspace, key: Bytes) {
    this.#connection = connection;
    this.#keyspace = keyspace;
    this.#key = key;
    keyspace.key(key); // refused here when it is no key
  }

  /**
   * The time to live of the lease, in seconds; default 30. How long the lock of a process that died stays at most.
   *
   * @throws Error after `acquire()`, RangeError below 1.
   */
  ttl(seconds: number): this {
    if (this.#holder.state !== 'unused') throw plainError('Cannot set a lock TTL after acquiring the lock');
    this.#ttl = leaseTtl(seconds);
    return this;
  }

  /** Options of what `acquire()` sends; `timeoutMs`, `deadline` and `signal` count for it as a whole. */
  options(options: ILockOptions): this {
    stallMs(options, 'lock');
    this.#options = options;
    return this;
  }

  /**
   * Takes the lock. Tried again on other members without doing harm: a key of our own lease is success.
   *
   * Rejects with `EtcdLockFailedError` when it is taken, also by this very object, which may be about to take it; with what etcd refuses, or with
   * `GRPCUnavailableError` or `GRPCDeadlineExceededError`. Nothing stays in etcd then.
   */
  async acquire(): Promise<this> {
    await this.#holder.acquire(
      () => this.#begin(),
      () => isTaken(String(this.#key)),
    );
    return this;
  }

  #begin(): Acquisition {
    const [connection, key, options] = [this.#connection, this.#key, this.#options];
    if (connection.mocked) return new MockAcquisition(connection, this.#keyspace, { key, ttl: this.#ttl, options });
    const timeoutMs = timeFor(options, connection.options.timeoutMs, 'acquire');
    const asked = {
      name: this.#keyspace.key(key),
      queue: false,
      waits: false,
      ttlMs: this.#ttl * 1000,
      attach: null,
      stallTimeoutMs: stallMs(options, 'acquire'),
    };
    return new NativeAcquisition(connection, asked, { shown: String(key), timeoutMs, signal: options?.signal });
  }

  /** The id of the lease while the lock is held, as decimal digits; `null` before `acquire()` has succeeded. */
  async leaseId(): Promise<string | null> {
    return this.#holder.acquisition?.leaseId ?? null;
  }

  /** The fencing token: the create revision of the key, higher than that of any holder before. `undefined` before. */
  get revision(): bigint | undefined {
    return this.#holder.acquisition?.revision;
  }

  /** Whether the lock is held at this moment, by the clock. */
  get isHeld(): boolean {
    return this.#holder.isHeld;
  }

  /** Fires when the lock that was acquired last is lost, with the error as its reason; not at `release()`. */
  get signal(): AbortSignal {
    return this.#holder.signal;
  }

  /**
   * A compare that holds as long as the lock is: `client.if(lock.guard()).then(…).commit()`. It takes the lock's word for
   * nothing: etcd compares.
   *
   * @throws EtcdLockFailedError when the lock was not acquired.
   */
  guard(): ICompare {
    return this.#holder.guard();
  }

  /**
   * Gives the lock back, by revoking its lease. Rejects when etcd can't be reached; it is tried for ten minutes more, and
   * the lease expires at the latest. `timeoutMs` and a `signal` end the wait alone. Harmless a second time, and when the
   * lock was lost.
   *
   * @throws Error, and not as a rejection, when `acquire()` was never called.
   */
  release(options?: CallOptions): Promise<void> {
    if (this.#holder.state === 'unused') throw plainError('Attempted to release a lock which was not acquired');
    return waited(this.#holder.release(), options, 'release');
  }

  /**
   * Acquires the lock, runs `fn`, and releases the lock whatever became of it. Gives what `fn` gives; what `fn` throws goes
   * before a failure of the release. `signal` fires when the lock is lost meanwhile: somebody else may hold it then, and
   * what `fn` goes on doing is not protected.
   */
  async do<T>(fn: (signal: AbortSignal) => T | Promise<T>): Promise<T> {
    await this.acquire();
    return await this.#holder.during(fn);
  }

  /** Releases the lock, if it was acquired. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#holder.release();
  }
}
