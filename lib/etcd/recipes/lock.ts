/** Locks: the try-lock of etcd3, and the queueing lock of etcd's Go client and of `etcdctl lock`. */

import { onAbort } from '../../common/abort.js';
import { UnsupportedError } from '../../errors.js';
import { type CancelHandle, type LockHandle, native } from '../../native.js';
import { type Bytes, plainError } from '../check.js';
import { ClientClosedError, EtcdLockFailedError } from '../errors.js';
import type { Keyspace } from '../kv/keyspace.js';
import { PutBuilder } from '../kv/put.js';
import { ComparatorBuilder } from '../kv/txn.js';
import type { CallOptions } from '../rpc/calls.js';
import type { ICompare, ILeaseGrantResponse } from '../rpc/messages.js';
import type { Connection, Live } from '../transport/connection.js';
import { aborted, CLOSING_MS, checkTtl, errorOf, type IStallOptions, stallMs, thrown, timeFor } from './settings.js';

/** Options of a lock: those of its calls, and `stallTimeoutMs`. */
export interface ILockOptions extends CallOptions, IStallOptions {}

/** How long to wait for a `Mutex`. */
export interface IAcquireOptions {
  /** In milliseconds; 0 for no limit, which is the default. */
  timeoutMs?: number;
  /** Gives the place in the queue back when it fires. */
  signal?: AbortSignal;
}

/** What is known of a lock that is held. */
interface Held {
  lease: bigint;
  key: Buffer;
  revision: bigint;
}

/** One acquisition of a lock, by the addon. */
class Acquisition implements Live {
  readonly #connection: Connection;
  readonly #handle: LockHandle;
  readonly #id: number;
  readonly #letGo: () => void;
  readonly #cancel: CancelHandle;
  readonly #lost = new AbortController();
  #held: Held | undefined;
  #over = false;
  #released: Promise<void> | undefined;

  constructor(connection: Connection, options: Parameters<typeof LockHandle.open>[2]) {
    const addon = native();
    this.#connection = connection;
    this.#cancel = new addon.CancelHandle();
    this.#id = connection.listen(() => this.#isLost());
    this.#handle = addon.LockHandle.open(connection.native, this.#id, options);
    this.#letGo = connection.hold(this);
  }

  get signal(): AbortSignal {
    return this.#lost.signal;
  }

  get held(): Held | undefined {
    return this.#held;
  }

  get isHeld(): boolean {
    return !this.#over && this.#held !== undefined && this.#handle.isHeld();
  }

  /** Waits until it is held, for so many milliseconds at most; 0 for no limit. */
  async acquire(shown: string, timeoutMs: number, signal: AbortSignal | undefined): Promise<void> {
    const unlisten = signal && onAbort(signal, () => this.#cancel.cancel());
    try {
      if (signal?.aborted) throw aborted(signal, 'acquire');
      const failure = await this.#handle.acquire(timeoutMs, this.#cancel).catch((raw: unknown) => {
        if (this.#connection.closed) throw new ClientClosedError('lock', { operation: 'acquire' });
        throw thrown(raw, 'acquire', signal);
      });
      if (failure?.reason === 'taken') {
        throw new EtcdLockFailedError(`Failed to acquire a lock on ${shown}`, { operation: 'acquire' });
      }
      if (failure) throw errorOf(failure, 'lock', 'acquire');
      // It was lost before this thread came to hear of it, blocked or stopped as it was.
      this.#lost.signal.throwIfAborted();
      if (!this.#handle.isHeld()) throw this.#expired();
    } catch (error) {
      this.#end();
      throw error;
    } finally {
      unlisten?.();
    }
    this.#held = {
      lease: this.#handle.lease() as bigint,
      key: this.#handle.key() as Buffer,
      revision: this.#handle.revision() as bigint,
    };
  }

  /** Gives it back, or stops waiting for it. */
  release(limitMs = 0): Promise<void> {
    this.#released ??= this.#release(limitMs);
    return this.#released;
  }

  end(): Promise<void> {
    this.#cancel.cancel();
    return this.release(CLOSING_MS).catch(() => {}); // what is not revoked in time expires
  }

  async #release(limitMs: number): Promise<void> {
    if (!this.#held) this.#cancel.cancel(); // it still waits
    const done = this.#handle.release(limitMs);
    this.#over = true;
    try {
      const failure = await done;
      if (failure) throw errorOf(failure, 'lock', 'release', this.#held?.lease);
    } finally {
      this.#end();
    }
  }

  #expired(): Error {
    const lease = this.#handle.lease()?.toString() ?? null;
    this.#handle.release(CLOSING_MS).catch(() => {}); // it expires
    return errorOf({ reason: 'lease', text: 'it was not renewed in time', lease, call: null }, 'lock', 'acquire');
  }

  #isLost(): void {
    if (this.#over) return;
    this.#end();
    const failure = this.#handle.failure();
    const error = failure && errorOf(failure, 'lock', 'lock', this.#held?.lease);
    this.#lost.abort(error ?? new EtcdLockFailedError('The lock was lost'));
  }

  #end(): void {
    this.#over = true;
    this.#connection.unlisten(this.#id);
    this.#letGo();
  }
}

/**
 * A compare for transactions: whether the key is still the one that was created then.
 *
 * @internal
 */
export function stillCreated(key: Buffer, revision: bigint): ICompare {
  return { key, result: 'Equal', target: 'Create', create_revision: String(revision) };
}

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
  /** `acquire()` was called. */
  #begun = false;
  /** An `acquire()` is under way. */
  #acquiring = false;
  #acquisition: Acquisition | undefined;
  /** In place of an acquisition while the client is mocked. */
  #mocked: { lease: string; revision: bigint } | undefined;

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
    if (this.#begun) throw plainError('Cannot set a lock TTL after acquiring the lock');
    this.#ttl = checkTtl(seconds);
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
    this.#begun = true;
    const shown = String(this.#key);
    if (this.#acquiring || this.#acquisition?.isHeld) {
      throw new EtcdLockFailedError(`Failed to acquire a lock on ${shown}`, { operation: 'acquire' });
    }
    this.#acquiring = true;
    try {
      return await this.#acquire(shown);
    } finally {
      this.#acquiring = false;
    }
  }

  async #acquire(shown: string): Promise<this> {
    if (this.#connection.mocked) return await this.#acquireMocked(shown);
    const timeoutMs = timeFor(this.#options, this.#connection.options.timeoutMs, 'acquire');
    this.#mocked = undefined;
    this.#acquisition = new Acquisition(this.#connection, {
      name: this.#keyspace.key(this.#key),
      queue: false,
      waits: false,
      ttlMs: this.#ttl * 1000,
      attach: null,
      stallTimeoutMs: stallMs(this.#options, 'acquire'),
    });
    await this.#acquisition.acquire(shown, timeoutMs, this.#options?.signal);
    return this;
  }

  /** The id of the lease while the lock is held, as decimal digits; `null` before `acquire()` has succeeded. */
  async leaseId(): Promise<string | null> {
    return this.#mocked?.lease ?? this.#acquisition?.held?.lease.toString() ?? null;
  }

  /** The fencing token: the create revision of the key, higher than that of any holder before. `undefined` before. */
  get revision(): bigint | undefined {
    return this.#mocked?.revision ?? this.#acquisition?.held?.revision;
  }

  /** Whether the lock is held at this moment, by the clock. */
  get isHeld(): boolean {
    return this.#acquisition?.isHeld ?? this.#mocked !== undefined;
  }

  /** Fires when the lock that was acquired last is lost, with the error as its reason; not at `release()`. */
  get signal(): AbortSignal {
    return this.#acquisition?.signal ?? NEVER;
  }

  /**
   * A compare that holds as long as the lock is: `client.if(lock.guard()).then(…).commit()`. It takes the lock's word for
   * nothing: etcd compares.
   *
   * @throws EtcdLockFailedError when the lock was not acquired.
   */
  guard(): ICompare {
    return guardOf(this.#acquisition);
  }

  /**
   * Gives the lock back, by revoking its lease. Rejects when etcd can't be reached; it is tried for ten minutes more, and
   * the lease expires at the latest. Harmless a second time, and when the lock was lost.
   *
   * @throws Error, and not as a rejection, when `acquire()` was never called.
   */
  release(): Promise<void> {
    if (!this.#begun) throw plainError('Attempted to release a lock which was not acquired');
    return this.#release();
  }

  /**
   * Acquires the lock, runs `fn`, and releases the lock whatever became of it. Gives what `fn` gives; what `fn` throws goes
   * before a failure of the release. `signal` fires when the lock is lost meanwhile: somebody else may hold it then, and
   * what `fn` goes on doing is not protected.
   */
  async do<T>(fn: (signal: AbortSignal) => T | Promise<T>): Promise<T> {
    await this.acquire();
    return await releasing(
      () => fn(this.signal),
      () => this.release(),
    );
  }

  /** Releases the lock, if it was acquired. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#begun) await this.#release();
  }

  async #release(): Promise<void> {
    const mocked = this.#mocked;
    this.#mocked = undefined;
    if (mocked) await this.#connection.exec('Lease', 'leaseRevoke', { ID: mocked.lease }, this.#options);
    await this.#acquisition?.release();
  }

  /** The same by two calls, for a mock. The lease is not kept alive. */
  async #acquireMocked(shown: string): Promise<this> {
    const connection = this.#connection;
    const { ID } = await connection.exec<ILeaseGrantResponse>('Lease', 'leaseGrant', { TTL: this.#ttl });
    const answer = await new ComparatorBuilder(connection, this.#keyspace)
      .and(this.#key, 'Create', '==', 0)
      .then(new PutBuilder(connection, this.#keyspace, this.#key).value('').lease(ID))
      .options(this.#options)
      .commit();
    if (answer.succeeded) {
      this.#acquisition = undefined;
      this.#mocked = { lease: ID, revision: BigInt(answer.header?.revision ?? 0) };
      return this;
    }
    await connection.exec('Lease', 'leaseRevoke', { ID }).catch(() => {}); // it expires
    throw new EtcdLockFailedError(`Failed to acquire a lock on ${shown}`, { operation: 'acquire' });
  }
}

/** Options of a `Mutex`. */
export interface IMutexOptions extends IStallOptions {
  /** The time to live of the lease, in seconds; default 30. How long the lock of a process that died stays at most. */
  ttl?: number;
}

/**
 * A lock with a queue: who comes first is served first, and everybody waits for the one before alone. It is the lock of
 * etcd's Go client and of `etcdctl lock`, which it excludes and is excluded by: each candidate has a key `<name>/<lease id
 * in hexadecimal>`, and the oldest holds the lock. It knows nothing of `Lock`, even of the same name.
 *
 * ```js
 * const mutex = client.mutex('job', { ttl: 10 });
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
  #acquisition: Acquisition | undefined;
  #waiting = false;

  /** @internal */
  constructor(connection: Connection, keyspace: Keyspace, name: Bytes, options: IMutexOptions = {}) {
    this.#connection = connection;
    this.#name = keyspace.key(name);
    this.#shown = String(name);
    this.#ttl = checkTtl(options.ttl ?? 30);
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
    return this.#acquisition?.held?.lease;
  }

  /** The key that stands for the lock, with the prefix of the namespace: what `etcdctl lock` prints. */
  get key(): string | undefined {
    return this.#acquisition?.held?.key.toString();
  }

  /** The fencing token: the create revision of the key, higher than that of any holder before. */
  get revision(): bigint | undefined {
    return this.#acquisition?.held?.revision;
  }

  /** Whether the lock is held at this moment, by the clock. */
  get isHeld(): boolean {
    return this.#acquisition?.isHeld ?? false;
  }

  /** Fires when the lock that was acquired last is lost, with the error as its reason; not at `release()`. */
  get signal(): AbortSignal {
    return this.#acquisition?.signal ?? NEVER;
  }

  /**
   * A compare that holds as long as the lock is: `client.if(mutex.guard()).then(…).commit()`.
   *
   * @throws EtcdLockFailedError when the lock was not acquired.
   */
  guard(): ICompare {
    return guardOf(this.#acquisition);
  }

  /**
   * Gives the lock back, or its place in the queue. Rejects when etcd can't be reached; it is tried for ten minutes more,
   * and the lease expires at the latest. Harmless when there is nothing to give back.
   */
  async release(): Promise<void> {
    await this.#acquisition?.release();
  }

  /** Acquires the lock, runs `fn`, and releases the lock whatever became of it; see `Lock.do()`. */
  async do<T>(fn: (signal: AbortSignal) => T | Promise<T>, options: IAcquireOptions = {}): Promise<T> {
    await this.acquire(options);
    return await releasing(
      () => fn(this.signal),
      () => this.release(),
    );
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
    if (this.#waiting || this.isHeld) {
      throw new EtcdLockFailedError(
        `Failed to acquire a lock on ${this.#shown}: this object holds it or waits for it`,
        {
          operation: 'acquire',
        },
      );
    }
    const timeoutMs = timeFor(options, 0, 'acquire');
    this.#acquisition = new Acquisition(this.#connection, {
      name: this.#name,
      queue: true,
      waits,
      ttlMs: this.#ttl * 1000,
      attach,
      stallTimeoutMs: this.#stallTimeoutMs,
    });
    this.#waiting = true;
    try {
      await this.#acquisition.acquire(this.#shown, timeoutMs, options.signal);
    } finally {
      this.#waiting = false;
    }
  }
}

/** What fires for a lock that was never acquired. */
const NEVER = new AbortController().signal;

function guardOf(acquisition: Acquisition | undefined): ICompare {
  const held = acquisition?.held;
  if (!held) throw new EtcdLockFailedError('The lock was not acquired', { operation: 'guard' });
  return stillCreated(held.key, held.revision);
}

/** Runs `fn`, then `release`. */
async function releasing<T>(fn: () => T | Promise<T>, release: () => Promise<void>): Promise<T> {
  let value: T;
  try {
    value = await fn();
  } catch (error) {
    await release().catch(() => {}); // it is tried again by itself; what `fn` says is worth more
    throw error;
  }
  await release();
  return value;
}
