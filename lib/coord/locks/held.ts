/** What was acquired. */

import { onAbort } from '../../common/abort.js';
import { aborted, ClosedError, type RollcallError, TimeoutError } from '../../errors.js';
import type { HoldHandle, NativeHoldFailure, NativeHoldOptions } from '../../native.js';
import { call } from '../../registry/call.js';
import type { Inside } from '../../registry/inside.js';
import { LockLostError } from './errors.js';
import type { FollowPermits, Waiting } from './options.js';

/** A compare of the transactions of `rollcall/etcd`. */
export interface Guard {
  readonly key: Buffer;
  readonly target: 'Create';
  readonly result: 'Equal';
  readonly create_revision: string;
}

/** @internal What a lock of one client is held in. */
export interface Keeper {
  readonly inside: Inside;
  /** What is held or waited for. */
  readonly live: Set<{ close(): Promise<void> }>;
  /** @throws `ERR_CLOSED` once it is closed. */
  refuseClosed(operation: string): void;
}

/**
 * A lock that was acquired. It renews itself beside the event loop, until `release()`, or until it is lost. It keeps the process
 * alive.
 */
export class Held {
  /** How messages call it. */
  readonly #shown: string;
  readonly #keeper: Keeper;
  readonly #handle: HoldHandle;
  readonly #lost = new AbortController();
  readonly #id: number;
  readonly #ending = new AbortController();
  #token = 0n;
  #key = '';
  #isOver = false;
  #released: Promise<void> | undefined;

  private constructor(keeper: Keeper, shown: string, handle: HoldHandle) {
    this.#keeper = keeper;
    this.#shown = shown;
    this.#handle = handle;
    this.#id = handle.id();
    keeper.inside.locks.set(this.#id, () => this.#isLost());
    keeper.inside.holds.add(this);
    keeper.live.add(this);
  }

  /**
   * Waits for a lock; `null`: somebody holds it, and it was not to be waited for. `follow` tells of other permits of a semaphore.
   *
   * @internal
   */
  static async acquire(
    keeper: Keeper,
    operation: string,
    shown: string,
    options: NativeHoldOptions,
    { timeoutMs, signal }: Waiting,
    follow?: FollowPermits,
  ): Promise<Held | null> {
    keeper.refuseClosed(operation);
    if (signal?.aborted) throw aborted(signal, operation);
    const handle = keeper.inside.client.hold(options);
    const held = new Held(keeper, shown, handle);
    const unfollow = follow?.((permits) => handle.permit(permits));
    try {
      return (await held.#acquire(operation, timeoutMs, signal)) ? held : null;
    } catch (error) {
      held.#end();
      throw error;
    } finally {
      unfollow?.();
    }
  }

  async #acquire(operation: string, timeoutMs: number, signal: AbortSignal | undefined): Promise<boolean> {
    const unlisten = signal && onAbort(signal, () => this.#ending.abort(signal.reason));
    let failure: NativeHoldFailure | null;
    try {
      failure = await call(operation, this.#ending.signal, (cancel) => this.#handle.acquire(timeoutMs, cancel));
    } catch (error) {
      if (this.#released) throw new ClosedError(`${operation}: coord is closed`, { operation });
      throw error;
    } finally {
      unlisten?.();
    }
    if (failure?.reason === 'taken') {
      this.#end();
      return false;
    }
    if (failure) throw this.#failed(failure, operation);
    this.#token = this.#handle.token() as bigint;
    this.#key = this.#handle.key() as string;
    if (signal?.aborted || this.#released) {
      this.release().catch(() => {}); // it came through in that moment
      if (signal?.aborted) throw aborted(signal, operation);
      throw new ClosedError(`${operation}: coord is closed`, { operation });
    }
    // It may have been lost before this thread came to hear of it, blocked or stopped as it was.
    if (!this.isHeld) {
      this.release().catch(() => {});
      throw this.#lostBy(this.#handle.failure(), operation);
    }
    return true;
  }

  /**
   * The fencing token: the revision at which the key was created, higher than that of every key that was created before in this
   * store, whatever its kind. Who guards a resource by it remembers the highest it has seen and refuses what is lower.
   */
  get token(): bigint {
    return this.#token;
  }

  /** The key that stands for it in the store, such as `/locks/report/694d8f…`: what `etcdctl lock` prints. */
  get key(): string {
    return this.#key;
  }

  /** Whether it is held at this moment, by the clock: asked anew at each access. Once false it stays so. */
  get isHeld(): boolean {
    return !this.#isOver && this.#handle.isHeld();
  }

  /** How many milliseconds it can be vouched for without another renewal; 0 when it is not held. */
  get remainingMs(): number {
    return this.#isOver ? 0 : this.#handle.remainingMs();
  }

  /**
   * Fires when it is lost, with a `LockLostError` as its reason: no later than its lease can be vouched for, as soon as the event
   * loop gets to it. And when coord is closed. Not at `release()`.
   */
  get signal(): AbortSignal {
    return this.#lost.signal;
  }

  /**
   * A compare that holds as long as the key stands, for a transaction of `rollcall/etcd`: `client.if(held.guard()).then(…)`. It
   * takes nobody's word: etcd compares.
   */
  guard(): Guard {
    const key = Buffer.from(this.#key);
    return { key, target: 'Create', result: 'Equal', create_revision: String(this.#token) };
  }

  /**
   * Gives it back: its lease is ended, which takes its own key away and no other. Resolves when that is done; harmless a second
   * time, and when it was lost. `isHeld` is false at once.
   *
   * @throws `ERR_UNAVAILABLE`, `ERR_TIMEOUT` when the store could not be asked: that is tried for ten minutes more, and the lease
   * expires at the latest.
   */
  release(): Promise<void> {
    this.#released ??= this.#release();
    return this.#released;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  /**
   * Gives it back because coord is closed. Who is still at work under it did not ask for that: it is lost to them.
   *
   * @internal
   */
  close(): Promise<void> {
    const isTaken = this.#token !== 0n && !this.#isOver;
    const done = this.release();
    if (isTaken)
      this.#lost.abort(
        new LockLostError(`${this.#shown}: coord was closed`, { operation: '', key: this.#key, token: this.#token }),
      );
    return done;
  }

  async #release(): Promise<void> {
    this.#ending.abort(); // it may still wait
    const { timeoutMs } = this.#keeper.inside;
    const done = call('release', undefined, () => this.#handle.release(timeoutMs));
    this.#end();
    await done;
  }

  /** Why what was done under it is not protected, if it is not. Asks the clock. */
  get loss(): RollcallError | undefined {
    if (this.#lost.signal.aborted) return this.#lost.signal.reason as RollcallError;
    if (this.#released || this.isHeld) return undefined;
    this.#isLost();
    return this.#lost.signal.reason as RollcallError;
  }

  #isLost(): void {
    if (this.#isOver) return;
    const error = this.#lostBy(this.#handle.failure());
    this.#end();
    this.#lost.abort(error);
  }

  #lostBy(failure: NativeHoldFailure | null, operation = ''): RollcallError {
    const expired: NativeHoldFailure = {
      reason: 'lost',
      text: 'its lease was not renewed within its time to live',
      call: null,
    };
    return this.#failed(failure ?? expired, operation);
  }

  #failed({ reason, text, call: below }: NativeHoldFailure, operation: string): RollcallError {
    const key = this.#key || undefined;
    const message = `${operation === '' ? '' : `${operation}: `}${this.#shown}: ${text}`;
    if (reason === 'late') return new TimeoutError(message, { operation, key });
    if (below?.code === 'ERR_CLOSED')
      return new LockLostError(`${this.#shown}: the client was closed`, { operation, key });
    return new LockLostError(message, { operation, key, token: this.#token || undefined });
  }

  #end(): void {
    this.#isOver = true;
    this.#keeper.inside.locks.delete(this.#id);
    this.#keeper.inside.holds.delete(this);
    this.#keeper.live.delete(this);
  }
}
