/** One acquisition of a lock, whoever makes it, and the object that makes one after the other. */

import { EtcdLockFailedError } from '../errors.js';
import type { ICompare } from '../rpc/messages.js';

/** From the asking for a lock to its end: made by the addon, or by calls to a mock. */
export interface Acquisition {
  /** Fires when the lock is lost, with the error as its reason. */
  readonly signal: AbortSignal;
  /** The id of the lease, and the fencing token, once the lock was acquired. */
  readonly leaseId: string | undefined;
  readonly revision: bigint | undefined;
  /** Whether it is held at this moment. */
  readonly isHeld: boolean;
  /** Waits until it is held. To be called once. */
  acquire(): Promise<void>;
  /** A compare that holds as long as the lock is. Throws before it was acquired. */
  guard(): ICompare;
  /** Gives it back, or stops waiting for it. Harmless a second time. */
  release(): Promise<void>;
}

/** What fires for a lock that was never acquired. */
export const NEVER: AbortSignal = new AbortController().signal;

/** What `guard()` throws when there is nothing to guard by. */
export function notAcquired(): EtcdLockFailedError {
  return new EtcdLockFailedError('The lock was not acquired', { operation: 'guard' });
}

/** What `acquire()` rejects with when the lock is not to be had; `why`: besides that somebody holds it. */
export function isTaken(shown: string, why = ''): EtcdLockFailedError {
  return new EtcdLockFailedError(`Failed to acquire a lock on ${shown}${why}`, { operation: 'acquire' });
}

/** Where a lock object is. Whether its lock is held besides, the acquisition says. */
type State =
  /** Nothing was acquired yet. */
  | 'unused'
  /** An acquisition is under way: there is no second one meanwhile. */
  | 'acquiring'
  /** The last acquisition has succeeded or failed. */
  | 'settled';

/** What a `Lock` or a `Mutex` is inside: one acquisition at a time. */
export class Holder<A extends Acquisition> {
  #state: State = 'unused';
  #acquisition: A | undefined;

  get state(): State {
    return this.#state;
  }

  /** The last one. */
  get acquisition(): A | undefined {
    return this.#acquisition;
  }

  get isHeld(): boolean {
    return this.#acquisition?.isHeld ?? false;
  }

  get signal(): AbortSignal {
    return this.#acquisition?.signal ?? NEVER;
  }

  guard(): ICompare {
    if (!this.#acquisition) throw notAcquired();
    return this.#acquisition.guard();
  }

  /** Begins what `begin` makes, and waits for it. Rejects with `refusal()` when one is under way or held. */
  async acquire(begin: () => A, refusal: () => Error): Promise<void> {
    if (this.#state === 'acquiring' || this.isHeld) throw refusal();
    this.#state = 'acquiring';
    try {
      this.#acquisition = begin();
      await this.#acquisition.acquire();
    } finally {
      this.#state = 'settled';
    }
  }

  async release(): Promise<void> {
    await this.#acquisition?.release();
  }

  /** Runs `fn` with the lock that was acquired, then releases it. What `fn` throws goes before a failure of that. */
  async during<T>(fn: (signal: AbortSignal) => T | Promise<T>): Promise<T> {
    let value: T;
    try {
      value = await fn(this.signal);
    } catch (error) {
      await this.release().catch(() => {}); // it is tried again by itself
      throw error;
    }
    await this.release();
    return value;
  }
}
