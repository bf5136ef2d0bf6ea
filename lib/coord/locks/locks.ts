/** The locks of a client. */

import { checked } from '../../registry/call.js';
import type { Held, Keeper } from './held.js';
import { functionOf, type Kind, Lock } from './lock.js';
import {
  type AcquireOptions,
  both,
  type FollowPermits,
  holding,
  type LockOptions,
  type PermitsRef,
  pathOf,
  permitsOf,
} from './options.js';

/** Where locks lie that are not named by a whole path: that of the guide. */
const FOLDER = '/locks/';

/**
 * The locks of a client. A key such as `report` lies at `/locks/report/`; one that begins with a slash is the path itself. Keep
 * to one kind for a key: a mutex, a read-write lock and a semaphore of one key do not know of each other.
 */
export class Locks {
  readonly #keeper: Keeper;

  /** @internal */
  constructor(keeper: Keeper) {
    this.#keeper = keeper;
  }

  /**
   * A lock for one at a time. It is that of `concurrency.Mutex` of etcd's Go client and of `etcdctl lock`: they and this exclude
   * each other. It is not acquired by this; no I/O.
   *
   * @throws `ERR_INVALID_ARGUMENT`.
   */
  mutex(key: string, options?: LockOptions): Lock {
    return this.#lock('mutex', key, options, { kind: 'mutex' });
  }

  /**
   * A lock for many readers or one writer, first come, first served: a writer waits for whoever came before it, a reader for the
   * writers that did. Their tokens are of one row. No I/O.
   *
   * @throws `ERR_INVALID_ARGUMENT`.
   */
  readWrite(key: string, options?: LockOptions): { readonly read: Lock; readonly write: Lock } {
    return {
      read: this.#lock('readWrite', key, options, { kind: 'read' }),
      write: this.#lock('readWrite', key, options, { kind: 'write' }),
    };
  }

  /**
   * A lock for `permits` at a time, from 1 to 1000: a number, or something with a `value`, such as a `ConfigRef<number>`. Who
   * waits goes by its latest number, and hears of it by `subscribe()`; one that is no such number changes nothing for them. Who holds
   * keeps the number with which it came to hold, so lowering it evicts nobody. No I/O.
   *
   * @throws `ERR_INVALID_ARGUMENT`, also from `acquire()` where the value is no such number by then.
   */
  semaphore(key: string, permits: number | PermitsRef, options?: LockOptions): Lock {
    const ref = typeof permits === 'object' && permits !== null && 'value' in permits ? permits : undefined;
    const read = () => checked('semaphore', () => permitsOf(ref ? ref.value : permits));
    read();
    const follow: FollowPermits = (tell) =>
      ref?.subscribe?.(() => {
        try {
          tell(read());
        } catch {
          // Those who wait go on by the number before it; who comes now is told.
        }
      });
    return this.#lock('semaphore', key, options, { kind: 'semaphore', permits: read, follow });
  }

  /** Acquires a mutex: see `Lock.acquire()`. */
  async acquire(key: string, options?: LockOptions & AcquireOptions): Promise<Held> {
    const { lock, how } = this.#both('acquire', key, options);
    return await lock.take('acquire', how);
  }

  /** Acquires a mutex if nobody holds it: see `Lock.tryAcquire()`. */
  async tryAcquire(key: string, options?: LockOptions & AcquireOptions): Promise<Held | null> {
    const { lock, how } = this.#both('tryAcquire', key, options);
    return await lock.tryTake('tryAcquire', how);
  }

  /** Runs `fn` under a mutex: see `Lock.withLock()`. */
  async withLock<T>(
    key: string,
    fn: (held: Held) => T | Promise<T>,
    options?: LockOptions & AcquireOptions,
  ): Promise<T> {
    checked('withLock', () => functionOf(fn));
    const { lock, how } = this.#both('withLock', key, options);
    return await lock.run('withLock', fn, how);
  }

  #lock(operation: string, key: string, options: LockOptions | undefined, kind: Kind): Lock {
    return checked(operation, () => new Lock(this.#keeper, pathOf('key', FOLDER, key), kind, holding(options)));
  }

  #both(operation: string, key: string, options: (LockOptions & AcquireOptions) | undefined) {
    return checked(operation, () => {
      const path = pathOf('key', FOLDER, key);
      const [held, how] = both(options, this.#keeper.inside.timeoutMs);
      return { lock: new Lock(this.#keeper, path, { kind: 'mutex' }, held), how };
    });
  }
}
