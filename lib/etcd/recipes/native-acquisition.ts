/** The acquisition of a lock by the addon, which also keeps it. */

import { onAbort } from '../../common/abort.js';
import { type CancelHandle, type LockHandle, native } from '../../native.js';
import { abortedCall, ClientClosedError, EtcdLockFailedError } from '../errors.js';
import type { ICompare } from '../rpc/messages.js';
import type { Connection, Live } from '../transport/connection.js';
import { type Acquisition, isTaken, notAcquired } from './acquisition.js';
import { CLOSING_MS, errorOf, stillCreated, thrown } from './settings.js';

/** What is known of a lock that is held. */
export interface Held {
  lease: bigint;
  key: Buffer;
  revision: bigint;
}

/** What is asked for, besides what the addon is told. */
interface Wanted {
  /** How messages call the lock. */
  readonly shown: string;
  /** How long to wait, in milliseconds; 0 for no limit. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
}

/** @internal */
export class NativeAcquisition implements Acquisition, Live {
  readonly #connection: Connection;
  readonly #wanted: Wanted;
  readonly #handle: LockHandle;
  readonly #id: number;
  readonly #letGo: () => void;
  readonly #cancel: CancelHandle;
  readonly #lost = new AbortController();
  #held: Held | undefined;
  #over = false;
  #released: Promise<void> | undefined;

  constructor(connection: Connection, options: Parameters<typeof LockHandle.open>[2], wanted: Wanted) {
    const addon = native();
    this.#connection = connection;
    this.#wanted = wanted;
    this.#cancel = new addon.CancelHandle();
    this.#id = connection.listen(() => this.#isLost());
    this.#handle = addon.LockHandle.open(connection.native, this.#id, options);
    this.#letGo = connection.hold(this);
  }

  get signal(): AbortSignal {
    return this.#lost.signal;
  }

  /** Once it was acquired. */
  get held(): Held | undefined {
    return this.#held;
  }

  get leaseId(): string | undefined {
    return this.#held?.lease.toString();
  }

  get revision(): bigint | undefined {
    return this.#held?.revision;
  }

  get isHeld(): boolean {
    return !this.#over && this.#held !== undefined && this.#handle.isHeld();
  }

  async acquire(): Promise<void> {
    const { shown, timeoutMs, signal } = this.#wanted;
    const unlisten = signal && onAbort(signal, () => this.#cancel.cancel());
    try {
      if (signal?.aborted) throw abortedCall(signal, 'acquire');
      const failure = await this.#handle.acquire(timeoutMs, this.#cancel).catch((raw: unknown) => {
        if (this.#connection.closed) throw new ClientClosedError('lock', { operation: 'acquire' });
        throw thrown(raw, 'acquire', signal);
      });
      if (failure?.reason === 'taken') throw isTaken(shown);
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

  guard(): ICompare {
    if (!this.#held) throw notAcquired();
    return stillCreated(this.#held.key, this.#held.revision);
  }

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
