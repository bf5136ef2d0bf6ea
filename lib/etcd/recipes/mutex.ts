/** The queueing lock of etcd's Go client and of `etcdctl lock`. */

import { UnsupportedError } from '../../errors.js';
import { type Bytes, secondsOf } from '../check.js';
import { EtcdLockFailedError } from '../errors.js';
import type { Keyspace } from '../kv/keyspace.js';
import type { CallOptions } from '../rpc/calls.js';
import type { ICompare } from '../rpc/messages.js';
import type { Connection } from '../transport/connection.js';
import { waited } from '../transport/waiting.js';
import { Holder, isTaken } from './acquisition.js';
import { NativeAcquisition } from './native-acquisition.js';
import { type IStallOptions, stallMs, timeFor } from './settings.js';

/** How long to wait for a `Mutex`. */
export interface IAcquireOptions {
  /** In milliseconds; 0 for no limit, which is the default. */
  timeoutMs?: number | undefined;
  /** Gives the place in the queue back when it fires. */
  signal?: AbortSignal | undefined;
}

/** Options of a `Mutex`. */
export interface IMutexOptions extends IStallOptions {
  /** The time to live of the lease, in seconds; default 30. How long the lock of a process that died stays at most. */
  ttlSeconds?: number | undefined;
  /** The same as `ttlSeconds`, by its older name. */
  ttl?: number | undefined;
}

/**
 * A lock with a queue: who comes first is served first, and everybody waits for the one before alone. It is the lock of
 * etcd's Go client and of `etcdctl lock`, which it excludes and is excluded by: each candidate has a key `<name>/<lease id
 * in hexadecimal>`, and the oldest holds the lock. It knows nothing of `Lock`, even of the same name.
 *
 * ```js
 * const mutex = client.mutex('job', { ttlSeconds: 10 });
 * await mutex.acquire({ timeoutMs: 5000 });
 * try {
 *   await client.if(mutex.guard()).then(client.put('result').value(1)).commit();
 * } finally {
 *   await mutex.release();
 * }
 * ```
 *
 * It can be lost as a `Lock` can. One object holds it once: for several at a time make several.
 */
export class Mutex {
  readonly #connection: Connection;
  readonly #name: Buffer;
  readonly #shown: string;
  readonly #ttl: number;
  readonly #stallTimeoutMs: number;
  readonly #holder = new Holder<NativeAcquisition>();

  /** @internal */
  constructor(connection: Connection, keyspace: Keyspace, name: Bytes, options: IMutexOptions = {}) {
    this.#connection = connection;
    this.#name = keyspace.key(name);
    this.#shown = String(name);
    this.#ttl = secondsOf(options, 'mutex', 30);
    this.#stallTimeoutMs = stallMs(options, 'mutex');
  }

  /**
   * Waits for its turn and takes the lock. Outages pass unnoticed as long as the lease of its place in the queue lives.
   *
   * Rejects with `GRPCDeadlineExceededError` after `timeoutMs`, with `GRPCCancelledError` when the signal fires, with
   * `EtcdLeaseInvalidError` when its place was lost, with `EtcdLockFailedError` when this object holds it or waits for it
   * already, with what etcd refuses. Nothing stays in etcd then: the place is given back, and tried to for ten minutes
   * when etcd can't be reached.
   */
  async acquire(options: IAcquireOptions = {}): Promise<this> {
    await this.#acquire(true, null, options);
    return this;
  }

  /** Takes the lock if nobody holds it or waits for it, and says whether it did. Otherwise like `acquire()`. */
  async tryAcquire(options: IAcquireOptions = {}): Promise<boolean> {
    try {
      await this.#acquire(false, null, options);
      return true;
    } catch (error) {
      if (error instanceof EtcdLockFailedError && !this.isHeld) return false;
      throw error;
    }
  }

  /**
   * Goes on with a lock that was taken under this lease, perhaps by another process, and keeps it alive from here on.
   * Waits for its turn if it has not come yet. Rejects with `EtcdLockFailedError` when no key of this lock lies under the
   * lease, with `EtcdLeaseInvalidError` when there is no such lease. Otherwise like `acquire()`.
   */
  async attach(leaseId: string | bigint, options: IAcquireOptions = {}): Promise<this> {
    await this.#acquire(true, BigInt(leaseId).toString(), options);
    return this;
  }

  /** The lease of the lock, once it was acquired. */
  get leaseId(): bigint | undefined {
    return this.#holder.acquisition?.held?.lease;
  }

  /** The key that stands for the lock, with the prefix of the namespace: what `etcdctl lock` prints. */
  get key(): string | undefined {
    return this.#holder.acquisition?.held?.key.toString();
  }

  /** The fencing token: the create revision of the key, higher than that of any holder before. */
  get revision(): bigint | undefined {
    return this.#holder.acquisition?.held?.revision;
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
   * A compare that holds as long as the lock is: `client.if(mutex.guard()).then(…).commit()`.
   *
   * @throws EtcdLockFailedError when the lock was not acquired.
   */
  guard(): ICompare {
    return this.#holder.guard();
  }

  /**
   * Gives the lock back, or its place in the queue. Rejects when etcd can't be reached; it is tried for ten minutes more,
   * and the lease expires at the latest. `timeoutMs` and a `signal` end the wait alone. Harmless when there is nothing to give back.
   */
  async release(options?: CallOptions): Promise<void> {
    await waited(this.#holder.release(), options, 'release');
  }

  /** Acquires the lock, runs `fn`, and releases the lock whatever became of it; see `Lock.do()`. */
  async do<T>(fn: (signal: AbortSignal) => T | Promise<T>, options: IAcquireOptions = {}): Promise<T> {
    await this.acquire(options);
    return await this.#holder.during(fn);
  }

  /** Releases the lock, if it is held. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  async #acquire(waits: boolean, attach: string | null, options: IAcquireOptions): Promise<void> {
    if (this.#connection.mocked) {
      throw new UnsupportedError('a mutex does not go through mock(): give your code a lock of your own in tests', {
        operation: 'acquire',
      });
    }
    await this.#holder.acquire(
      () => {
        const timeoutMs = timeFor(options, 0, 'acquire');
        const ttlMs = this.#ttl * 1000;
        const asked = { name: this.#name, queue: true, waits, ttlMs, attach, stallTimeoutMs: this.#stallTimeoutMs };
        return new NativeAcquisition(this.#connection, asked, {
          shown: this.#shown,
          timeoutMs,
          signal: options.signal,
        });
      },
      () => isTaken(this.#shown, ': this object holds it or waits for it'),
    );
  }
}
