/** Worker ids: numbers of which each is one process's, with a window of time that may be stamped with it. */

import { onAbort } from '../common/abort.js';
import { fromNative } from '../common/failure.js';
import { Harmless } from '../common/harmless.js';
import { abortSignal, integer, invalid, kindOf, record, text } from '../common/shape.js';
import { outcomeOf } from '../common/waiting.js';
import { aborted, type RollcallError } from '../errors.js';
import type { NativeSlotWindow, SlotHandle } from '../native.js';
import { call } from '../registry/call.js';
import { partOf } from './keys.js';
import type { LiveHolds } from './locks/live.js';

/** Which slots, and how one is held. */
export interface SlotOptions {
  /** Whose slots: one part of a key. They lie at `/im-infra/allocators/{service}/`. */
  readonly service: string;
  /** How many there are, from 1 to 2^22. */
  readonly slots: number;
  /** For how many milliseconds may be stamped ahead of an extension, from 1,000 to an hour. It is extended each third of it. */
  readonly windowMs: number;
  /** The time to live of the lease, in milliseconds, from 1,000: so soon another one can have the slot of who has died. */
  readonly ttlMs: number;
  /** Who asks, for people: at most 1,024 characters. */
  readonly holder: string;
}

/** How long to wait for a slot, in milliseconds, and what ends that. */
export interface SlotLimits {
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
}

/** Who uses a slot. */
export interface SlotUser {
  /** Its window has changed. */
  changed(): void;
  /** It is given back: nothing is to be stamped from here on. Gives the last millisecond that was, and of which generation. */
  ended(): { readonly generation: number; readonly last: number };
}

/** What may be stamped with a slot. */
export interface SlotWindow {
  /** Grows when the slot is another one, or was somebody else's meanwhile. */
  readonly generation: number;
  /** Its number, from 1 on. */
  readonly n: number;
  /** What is stamped is after this millisecond of the Unix epoch, */
  readonly since: number;
  /** and not after this one. That holds whatever became of the lease. */
  readonly until: number;
  /** The clock has jumped ahead, and the window is not extended by it. */
  readonly isClockOff: boolean;
  /** How often the clock was seen to have been set, and by how many milliseconds the last time. */
  readonly steps: number;
  readonly stepMs: number;
  /** Why the last extension failed; `undefined`: it did not. */
  readonly failure: RollcallError | undefined;
}

/** Why there is no slot. */
export interface SlotRefusal {
  readonly reason: 'full' | 'clock';
  /** Where all are held: by whom. */
  readonly holders: readonly string[];
  /** By how many milliseconds the clock is ahead. */
  readonly aheadMs: number;
}

const SLOTS_MOST = 2 ** 22;
const HOUR_MS = 3_600_000;
const HOLDER_MOST = 1024;

/** The slots of a client. */
export class Slots {
  readonly #keeper: LiveHolds;

  /** @internal */
  constructor(keeper: LiveHolds) {
    this.#keeper = keeper;
  }

  /**
   * Takes a slot. What may pass by itself is tried again for `timeoutMs`; that all are held is said at once. From then on it is extended
   * beside the event loop, and another one is taken where it is lost. It keeps no process alive.
   *
   * @throws `ERR_INVALID_ARGUMENT`, `ERR_UNSUPPORTED` where the store holds no leases, `ERR_UNAVAILABLE`, `ERR_TIMEOUT`, `ERR_PERMISSION_DENIED`,
   * `ERR_ABORTED`, `ERR_CLOSED`.
   */
  async take(options: SlotOptions, user: SlotUser, limits: SlotLimits): Promise<Slot | SlotRefusal> {
    const asked = checkedOptions(options);
    checkUser(user);
    const { timeoutMs, signal } = checkedLimits(limits);
    this.#keeper.refuseClosed('createUid');
    if (signal?.aborted) throw aborted(signal, 'createUid');
    const ending = new AbortController();
    const unlisten = signal && onAbort(signal, () => ending.abort(signal.reason));
    const taking = this.#take(asked, user, timeoutMs, ending.signal);
    const pending = {
      // What is on its way to the store can't be called back: it is waited for, and what it took given back.
      close: async () => {
        await outcomeOf(
          taking.catch(() => {}),
          undefined,
          this.#keeper.inside.timeoutMs,
        );
        ending.abort();
      },
    };
    this.#keeper.live.add(pending);
    try {
      return await taking;
    } catch (error) {
      if (!signal?.aborted) this.#keeper.refuseClosed('createUid');
      throw error;
    } finally {
      unlisten?.();
      this.#keeper.live.delete(pending);
    }
  }

  async #take(asked: SlotOptions, user: SlotUser, timeoutMs: number, ending: AbortSignal): Promise<Slot | SlotRefusal> {
    const handle = this.#keeper.inside.client.slot(asked);
    const refusal = await call('createUid', ending, (cancel) => handle.take(timeoutMs, cancel));
    if (refusal) return refusal;
    const slot = new Slot(this.#keeper, handle, user);
    if (!this.#keeper.isClosed) return slot;
    await slot.release().catch(() => {});
    this.#keeper.refuseClosed('createUid');
    return slot;
  }
}

function checkedOptions(options: unknown): SlotOptions {
  const { service, slots, windowMs, ttlMs, holder } = record('options', options);
  // There is no default of these.
  const whole = (name: string, value: unknown, min: number, max: number) =>
    integer(`options.${name}`, value ?? null, 0, { min, max });
  const checked = {
    service: partOf('options.service', service),
    slots: whole('slots', slots, 1, SLOTS_MOST),
    windowMs: whole('windowMs', windowMs, 1000, HOUR_MS),
    ttlMs: whole('ttlMs', ttlMs, 1000, HOUR_MS),
    holder: text('options.holder', holder ?? null) as string,
  };
  if (checked.holder.length <= HOLDER_MOST) return checked;
  const expected = `expected at most ${HOLDER_MOST} characters`; // it is written with each window, and stands in the errors of others
  throw invalid('options.holder', `${expected}, got ${checked.holder.length}`);
}

function checkUser(user: unknown): void {
  const given = record('user', user) as Partial<SlotUser>; // its methods may be of its class
  for (const name of ['changed', 'ended'] as const) {
    if (typeof given[name] !== 'function') {
      throw invalid(`user.${name}`, `expected a function, got ${kindOf(given[name])}`);
    }
  }
}

function checkedLimits(limits: unknown): SlotLimits {
  const { timeoutMs, signal } = record('limits', limits);
  return {
    timeoutMs: integer('limits.timeoutMs', timeoutMs ?? null, 0, { min: 1 }),
    signal: abortSignal('limits.signal', signal),
  };
}

/** A slot that was taken. */
export class Slot {
  readonly #keeper: LiveHolds;
  readonly #handle: SlotHandle;
  readonly #user: SlotUser;
  readonly #id: number;
  #released: Promise<void> | undefined;

  /** @internal */
  constructor(keeper: LiveHolds, handle: SlotHandle, user: SlotUser) {
    this.#keeper = keeper;
    this.#handle = handle;
    this.#user = user;
    this.#id = handle.id();
    const harmless = new Harmless('changed() of who has a slot', keeper.inside.log);
    keeper.inside.slots.set(this.#id, () => void harmless.try(() => user.changed()));
    keeper.live.add(this);
  }

  /** What may be stamped, as it is known at this moment, whatever the event loop has heard. */
  window(): SlotWindow {
    const window = this.#handle.window() as NativeSlotWindow;
    const failure = window.failure ? fromNative(window.failure, 'next') : undefined;
    return { ...window, failure };
  }

  /**
   * Gives it back: up to when it was used is written, and its lease is ended. Harmless a second time.
   *
   * @throws `ERR_UNAVAILABLE`, `ERR_TIMEOUT` where the store could not be asked: who comes next stamps after the window then.
   */
  release(): Promise<void> {
    this.#released ??= this.#release();
    return this.#released;
  }

  /** @internal */
  close(): Promise<void> {
    return this.release();
  }

  async #release(): Promise<void> {
    const { generation, last } = this.#user.ended();
    this.#keeper.inside.slots.delete(this.#id);
    try {
      const { timeoutMs } = this.#keeper.inside;
      await call('release', undefined, () => this.#handle.release(generation, last, timeoutMs));
    } finally {
      this.#keeper.live.delete(this);
    }
  }
}
