/**
 * Who runs a tick. Two things say so: the record of the job, a compare-and-swap of which claims the tick for ever, and a lock of the
 * tick, which stands as long as its runner lives. Whoever wants a tick takes its lock, and claims it under that. So a claim
 * whose answer was lost is found again by the token of the lock, and one whose runner died is known by the lock being free.
 */

import { pause } from '../../common/waiting.js';
import { BadRecordError, type RollcallError } from '../../errors.js';
import { only } from '../keys.js';
import type { Held, Keeper } from '../locks/held.js';
import { Lock } from '../locks/lock.js';
import type { Limits, Store } from '../store.js';
import { EMPTY, type JobRecord, recordOf, runnerOf, settled, textOf } from './record.js';

/** How long to wait before the store is asked again, in milliseconds: a random share, doubled each time up to the most. */
const PAUSE_MS = 100;
const PAUSE_MOST_MS = 2000;
/** The time to live of the lock of a tick, in milliseconds. */
const TTL_MS = 15_000;
/**
 * How often a token is drawn anew that is not higher than that of the claim before: two claim in turn. Still not higher, the store was
 * set back, and tokens begin anew.
 */
const DRAWS_MOST = 3;
/** For how long the end of a tick is tried to be written, in milliseconds. */
const SETTLING_MS = 20_000;

/** Pauses that grow, until the next `reset()`. */
class Pauses {
  #ms = PAUSE_MS;
  readonly #signal: AbortSignal | undefined;

  constructor(signal?: AbortSignal) {
    this.#signal = signal;
  }

  async next(): Promise<void> {
    await pause(this.#ms * (0.5 + Math.random() / 2), this.#signal);
    this.#ms = Math.min(2 * this.#ms, PAUSE_MOST_MS);
  }

  reset(): void {
    this.#ms = PAUSE_MS;
  }
}

/** What a record is to become so that a tick is claimed; `undefined`: it can't be claimed. */
export type Change<T> = (
  record: JobRecord,
  token: bigint,
) => { readonly record: JobRecord; readonly told: T } | undefined;

/** A tick that was claimed. */
export interface Claim<T> {
  readonly at: number;
  readonly held: Held;
  /** What the change told that claimed it. */
  readonly told: T;
}

interface Seen {
  readonly record: JobRecord;
  /** 0: there is none. */
  readonly revision: number;
}

/** The claims of one job by one client. */
export class Claims {
  readonly #store: Store;
  readonly #keeper: Keeper;
  readonly #path: string;

  constructor(store: Store, keeper: Keeper, path: string) {
    this.#store = store;
    this.#keeper = keeper;
    this.#path = path;
  }

  /** The record as it stands. One attempt. */
  async read(signal?: AbortSignal): Promise<JobRecord> {
    return (await this.#read(this.#limits(signal))).record;
  }

  /** Puts a record there where there is none. */
  async begin(record: JobRecord, signal: AbortSignal): Promise<void> {
    await this.#commit({ record: EMPTY, revision: 0 }, record, this.#limits(signal));
  }

  /**
   * Claims a tick by `change`. `undefined`: it is another's, or can't be claimed. While its lock is another's who has not claimed it yet
   * that is waited for, until `isOver` says that it is too late; `ttlMs` is that of the lock.
   *
   * @throws what the store refuses; with `outcomeUnknown` where it is not known whether it was claimed. Then nobody runs it here.
   */
  async claim<T>(
    at: number,
    change: Change<T>,
    isOver: () => boolean,
    signal?: AbortSignal,
    ttlMs = TTL_MS,
  ): Promise<Claim<T> | undefined> {
    const lock = new Lock(
      this.#keeper,
      `${this.#path}/${new Date(at).toISOString()}`,
      { kind: 'mutex' },
      {
        ttlMs,
        stallTimeoutMs: 0,
        value: '',
      },
    );
    const limits = this.#limits(signal);
    const pauses = new Pauses(signal);
    for (let draws = 1; ; await pauses.next()) {
      try {
        const seen = await this.#read(limits);
        if (!change(seen.record, seen.record.token + 1n)) return undefined;
        const held = await lock.tryTake('cron', limits);
        const claim = held && (await this.#under(held, seen, at, change, limits, draws++ < DRAWS_MOST));
        if (claim !== null && claim !== 'again') return claim;
        if (isOver()) return undefined;
      } catch (error) {
        if (isOver() || !(error as RollcallError).retryable) throw error;
      }
    }
  }

  /** Claims it under its lock, which is released unless it is claimed. `again`: its token is too low. */
  async #under<T>(
    held: Held,
    seen: Seen,
    at: number,
    change: Change<T>,
    limits: Limits,
    isChoosy: boolean,
  ): Promise<Claim<T> | undefined | 'again'> {
    let isClaimed = false;
    let unknown: RollcallError | undefined;
    let told: T | undefined;
    try {
      const pauses = new Pauses(limits.signal);
      while (held.isHeld) {
        const { record } = seen;
        if (runnerOf(record, at)?.token === held.token) {
          isClaimed = true; // its answer was lost
          return { at, held, told: told as T };
        }
        const next = change(record, held.token);
        if (!next) return undefined;
        if (isChoosy && record.token >= held.token) return 'again';
        try {
          const conflict = await this.#commit(seen, next.record, limits);
          unknown = undefined;
          if (!conflict) {
            isClaimed = held.isHeld;
            if (isClaimed) return { at, held, told: next.told };
            break;
          }
          seen = conflict;
        } catch (error) {
          const failure = error as RollcallError;
          if (failure.code === 'ERR_ABORTED' || !(failure.retryable || failure.outcomeUnknown)) throw error;
          // The same again: whichever of the two comes first, the other is refused.
          if (failure.outcomeUnknown) unknown = failure;
          told = next.told;
          await pauses.next();
        }
      }
      throw unknown ?? held.loss;
    } finally {
      if (!isClaimed) held.release().catch(() => {});
    }
  }

  /** What ran under a claim has ended; `isDone`: it came to its end. */
  async over(claim: Claim<unknown>, isDone: boolean): Promise<void> {
    // Who lost its claim and did not come to an end has died, as far as others are concerned.
    if (claim.held.loss && !isDone) await claim.held.release().catch(() => {});
    else await this.settle(claim);
  }

  /** Says that a tick was brought to its end, and gives its lock back. Tried again for a while. */
  async settle({ at, held }: Claim<unknown>): Promise<void> {
    const limits = this.#limits();
    const end = Date.now() + SETTLING_MS;
    const pauses = new Pauses();
    try {
      for (;;) {
        try {
          const seen = await this.#read(limits);
          const { record } = seen;
          if (runnerOf(record, at)?.token !== held.token) return;
          if (!(await this.#commit(seen, settled(record, at, held.token), limits))) return;
          pauses.reset();
        } catch (error) {
          const { retryable, outcomeUnknown } = error as RollcallError;
          if (Date.now() > end || !(retryable || outcomeUnknown)) throw error;
        }
        await pauses.next();
      }
    } finally {
      await held.release().catch(() => {}); // it is tried again by itself, and the lease expires
    }
  }

  #limits(signal?: AbortSignal): Limits {
    return { timeoutMs: this.#store.timeoutMs, signal };
  }

  async #read(limits: Limits): Promise<Seen> {
    const [entry] = await this.#store.read('cron', [only(this.#path)], limits);
    return this.#seen(entry ?? null);
  }

  /** What stands there where it was changed meanwhile. */
  async #commit({ revision }: Seen, record: JobRecord, limits: Limits): Promise<Seen | undefined> {
    const key = this.#path;
    const done = await this.#store.commit('cron', [{ key, revision }], [{ key, value: textOf(record) }], limits);
    return done.conflict && this.#seen(done.conflict[0] ?? null);
  }

  #seen(entry: { readonly value: string; readonly revision: bigint } | null): Seen {
    if (!entry) return { record: EMPTY, revision: 0 };
    const record = recordOf(entry.value);
    if (record) return { record, revision: Number(entry.revision) };
    const text = `cron: what stands at ${this.#path} is no record of a job: nothing is run before it is deleted`;
    throw new BadRecordError(text, { operation: 'cron', key: this.#path });
  }
}
