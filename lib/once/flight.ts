/**
 * One key in this process, as long as somebody here wants it. All who call for it here are one: one of them claims it and runs it, or
 * one question to the store is asked for all. Whoever can be given an answer by what was seen is.
 */

import { randomBytes } from 'node:crypto';
import { now } from '../common/clock.js';
import { pause } from '../common/waiting.js';
import { type RollcallError, UnavailableError } from '../errors.js';
import { isAway, TakenOverError, withNothingDone } from './errors.js';
import { decoded } from './exact.js';
import type { Call, Plan } from './options.js';
import { type Done, NOTHING, type Running, type Seen } from './record.js';
import { type Ended, type Runnable, runOnce, settle, unkept } from './run.js';
import { claimed, judge } from './steps.js';
import type { Swapped } from './store.js';
import type { Unanswered } from './unanswered.js';

/** What came of a call. */
export interface Outcome {
  readonly how: 'ran' | 'done';
  readonly value: unknown;
}

/** Somebody who calls. */
export interface Caller extends Runnable {
  /** Its function runs: it does not wait for others any more. */
  isRunning: boolean;
  /** Since when it is known that somebody else runs it. */
  waitsSince: number | undefined;
  resolve(outcome: Outcome): void;
  reject(error: unknown): void;
}

/** What flights share. */
export interface Shared {
  readonly plan: Plan;
  readonly unanswered: Unanswered;
  /** The signals of the runs that go on, for `close()`. */
  readonly runs: Set<AbortController>;
}

/** How long to wait before what somebody else runs is read again, in milliseconds, doubled each time up to the most. */
const PAUSE_MS = 50;
const PAUSE_MOST_MS = 1000;

export class Flight {
  /** Why the store could not be asked the last time, if so. */
  failure: unknown;
  readonly #at: string;
  readonly #shared: Shared;
  readonly #waiting = new Set<Caller>();
  /** What was seen last; `undefined`: it was not looked yet. */
  #seen: Seen | undefined;

  constructor(at: string, shared: Shared) {
    this.#at = at;
    this.#shared = shared;
  }

  /** Somebody wants it as well. */
  join(caller: Caller): void {
    this.#waiting.add(caller);
    if (this.#seen) this.#judge(caller, this.#seen);
  }

  /** Somebody does not wait any more. */
  leave(caller: Caller): void {
    this.#waiting.delete(caller);
  }

  /** Who waits for somebody else is told that it is over. */
  close(error: Error): void {
    for (const caller of this.#waiting) if (!caller.isRunning) this.#settle(caller, () => caller.reject(error));
  }

  /** Goes on until nobody waits, and tells that by `over`. Never rejects. */
  async fly(over: () => void): Promise<void> {
    let seen = NOTHING; // as a rule nobody has asked before; else the claim is told what there is
    for (let pauseMs = PAUSE_MS; ; ) {
      const first = this.#judgeAll(seen);
      if (this.#waiting.size === 0) return over();
      if (first) {
        seen = await this.#claim(first.caller, seen, first.attempt);
        pauseMs = PAUSE_MS;
      } else {
        await pause(pauseMs * (0.75 + Math.random() / 4));
        pauseMs = Math.min(2 * pauseMs, PAUSE_MOST_MS);
        if (this.#waiting.size > 0) seen = await this.#look(seen);
      }
      this.#seen = seen;
    }
  }

  async #look(before: Seen): Promise<Seen> {
    const [asking] = this.#waiting;
    try {
      const seen = await this.#shared.plan.store.read(asking?.call.operation ?? 'once', this.#at);
      this.failure = undefined;
      return seen;
    } catch (error) {
      this.failure = error; // told to those whose time is over meanwhile
      if (!isAway(error)) this.#rejectAll(error);
      return before;
    }
  }

  /** Tells everybody what they come to; gives the first who may claim it. */
  #judgeAll(seen: Seen): { readonly caller: Caller; readonly attempt: number } | undefined {
    let first: { caller: Caller; attempt: number } | undefined;
    for (const caller of this.#waiting) {
      const attempt = this.#judge(caller, seen);
      if (attempt !== undefined) first ??= { caller, attempt };
    }
    return first;
  }

  /** Tells somebody what it comes to; gives the number of its run, where it may claim it. */
  #judge(caller: Caller, seen: Seen): number | undefined {
    if (caller.isRunning) return undefined;
    const verdict = judge(caller.call, seen, (nonce) => !this.#shared.unanswered.has(nonce));
    if (verdict.is === 'run') return verdict.attempt;
    if (verdict.is === 'refused') this.#settle(caller, () => caller.reject(verdict.error));
    else if (verdict.is === 'done') this.#settle(caller, () => this.#replay(caller, verdict.record));
    else caller.waitsSince ??= now();
    return undefined;
  }

  #replay(caller: Caller, { result, refused }: Done): void {
    try {
      if (caller.keepsResult && refused !== undefined) throw unkept(caller.call, refused);
      const isThere = caller.keepsResult && result !== undefined;
      const { operation, key } = caller.call;
      const value = isThere ? decoded(operation, key, this.#shared.plan.codec, result) : undefined;
      caller.resolve({ how: 'done', value });
    } catch (error) {
      caller.reject(error);
    }
  }

  #settle(caller: Caller, tell: () => void): void {
    if (this.#waiting.delete(caller)) tell();
  }

  #rejectAll(error: unknown): void {
    for (const caller of this.#waiting) this.#settle(caller, () => caller.reject(error));
  }

  /** Claims it and runs it; gives what stands there then. */
  async #claim(caller: Caller, seen: Seen, attempt: number): Promise<Seen> {
    const { call } = caller;
    const { store } = this.#shared.plan;
    const record = claimed(call, attempt, randomBytes(12).toString('base64url'));
    let swapped: Swapped;
    try {
      swapped = await store.swap(call.operation, this.#at, seen, record);
      this.failure = undefined;
    } catch (error) {
      const { outcomeUnknown } = error as RollcallError;
      if (outcomeUnknown) this.#shared.unanswered.add(this.#at, record.nonce, record.lockMs);
      if (isAway(error)) await this.#runUnclaimed(withNothingDone(error, ': nothing was run'));
      else this.#rejectAll(error);
      return NOTHING;
    }
    if (swapped.seen) return swapped.seen;
    const claim: Seen = { version: swapped.version, record, isAlive: true, expiresInMs: call.ttlMs };
    return await (this.#waiting.has(caller) ? this.#run(caller, claim, record) : this.#takeBack(call, claim, record));
  }

  /** Who claimed it left meanwhile: nothing is begun. Whoever else waits claims it anew. */
  async #takeBack({ operation }: Call, claim: Seen, record: Running): Promise<Seen> {
    const { store } = this.#shared.plan;
    const release = store.keep(this.#at, claim.version, record, () => {});
    try {
      const { seen } = await store.swap(operation, this.#at, claim, null);
      release(true);
      return seen ?? NOTHING;
    } catch {
      release(false);
      this.#shared.unanswered.add(this.#at, record.nonce, record.lockMs);
      return claim;
    }
  }

  /** The store could not be asked: who would rather have it done twice runs it, the others are told. */
  async #runUnclaimed(error: RollcallError): Promise<void> {
    for (const one of this.#waiting) {
      if (one.call.onStoreFailure === 'reject') this.#settle(one, () => one.reject(error));
    }
    const [caller] = this.#waiting;
    if (!caller) return;
    const record = claimed(caller.call, 1, '');
    const claim = { ...NOTHING, record, isAlive: true };
    const { value, error: failed } = await this.#execute(caller, { claim, record, alive: new AbortController() });
    if (failed) return this.#rejectAll(failed.is);
    for (const one of this.#waiting) {
      this.#settle(one, () => one.resolve({ how: one === caller ? 'ran' : 'done', value }));
    }
  }

  /** Runs it under a claim; gives what stands there at the end. */
  async #run(caller: Caller, claim: Seen, record: Running): Promise<Seen> {
    const { store } = this.#shared.plan;
    const { operation, key } = caller.call;
    const token = claim.version;
    const alive = new AbortController();
    const lost = (why: string, cause?: unknown) =>
      new TakenOverError(`${operation}: ${why}`, { operation, key, token, cause });
    const release = store.keep(this.#at, token, record, (why) => alive.abort(lost(`the run was lost: ${why}`)));
    const { next, value, error } = await this.#execute(caller, { claim, record, alive });
    let instead: Seen | undefined;
    try {
      instead = await settle(store, operation, this.#at, claim, next);
      release(true);
    } catch (cause) {
      release(false);
      this.#rejectAll(error ? error.is : unrecorded(operation, key, cause));
      return NOTHING;
    }
    if (instead) {
      const why = 'the run was taken over or cleared: what came of it is dropped';
      this.#settle(caller, () => caller.reject(lost(why, error?.is)));
      return instead;
    }
    this.#settle(caller, () => (error ? caller.reject(error.is) : caller.resolve({ how: 'ran', value })));
    // Who waited for a run that failed is told of that: who calls from now on runs it anew.
    if (next === null) this.#rejectAll(error?.is);
    return next === null ? NOTHING : { ...claim, record: next, isAlive: false };
  }

  /** Calls its function. Who else waits here is told by what stands there meanwhile. */
  async #execute(
    caller: Caller,
    { claim, record, alive }: { claim: Seen; record: Running; alive: AbortController },
  ): Promise<Ended> {
    const { plan, runs } = this.#shared;
    caller.isRunning = true;
    this.#seen = claim;
    this.#judgeAll(claim);
    runs.add(alive);
    try {
      const run = { token: claim.version, attempt: record.attempt, signal: alive.signal };
      return await runOnce(caller, run, record, claim.version > 0n ? plan : undefined);
    } finally {
      runs.delete(alive);
    }
  }
}

const unrecorded = (operation: string, key: string, cause: unknown): UnavailableError =>
  new UnavailableError(`${operation}: it was run, and the store does not say whether that was recorded`, {
    operation,
    key,
    cause,
    outcomeUnknown: true,
  });
