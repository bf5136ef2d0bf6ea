/** What is done once, by its keys. */

import { randomBytes } from 'node:crypto';
import { now } from '../common/clock.js';
import { type Log, logOf } from '../common/logger.js';
import { invalid, kindOf, optional } from '../common/shape.js';
import { outcomeOf } from '../common/waiting.js';
import { AbortedError, ClosedError, InvalidArgumentError, type RollcallError } from '../errors.js';
import { decoded } from './exact.js';
import { type Caller, Flight, type Outcome, type Shared } from './flight.js';
import { type Call, callOf, type OnceOptions, planOf, type RunOptions, type ScopeOptions, scoped } from './options.js';
import type { Seen } from './record.js';
import { type Run, resultOf } from './run.js';
import { type State, stateOf } from './state.js';
import { ended, inProgress, isOpen } from './steps.js';
import { Unanswered } from './unanswered.js';

/** Options of `clear()`. */
export interface ClearOptions extends ScopeOptions {
  /** Also while somebody runs it: that run is lost, and may be run beside the next one. Default false. */
  force?: boolean | undefined;
}

/** For how long `close()` waits for what runs, in milliseconds. */
const CLOSING_MS = 10_000;

/**
 * Does things once, by keys. Enter at `createOnce()`.
 *
 * Each call rejects with `ERR_INVALID_ARGUMENT` that names the argument, with `ERR_CLOSED` after the end, and with what the store refuses
 * (`ERR_PERMISSION_DENIED`, `ERR_BAD_RECORD`, …). No step is sent twice whose outcome would then be another.
 */
export class Once {
  readonly #log: Log;
  readonly #shared: Shared;
  readonly #flights = new Map<string, Flight>();
  /** What goes on, until it is over. */
  readonly #flying = new Set<Promise<void>>();
  #closing: Promise<void> | undefined;

  /** @internal */
  constructor(options: OnceOptions) {
    const given = optional('options', options);
    const plan = planOf(given);
    this.#log = logOf('options.logger', given.logger);
    this.#shared = { plan, unanswered: new Unanswered(plan.store), runs: new Set() };
    plan.store.open(this.#log);
  }

  /**
   * Runs `fn`, unless that was done for this key within `ttlMs`, 1 ms to ten years, which count from its end. `ran`: by this call; `done`: by
   * another one, before or meanwhile. What `fn` gives is not kept. All else is as of `execute()`.
   */
  async do(key: string, ttlMs: number, fn: (run: Run) => unknown, options?: RunOptions): Promise<'ran' | 'done'> {
    return (await this.#call('do', key, ttlMs, fn, false, options)).how;
  }

  /**
   * Gives what `fn` gave when it was run for this key, and runs it if that was not done within `ttlMs`. Of all who call at a time, in all
   * processes, one runs it and the others wait for what comes of it. Where `fn` fails, who runs it and who waits in this process
   * are told, and the next call runs it again; who waits in another process runs it itself.
   *
   * @throws what `fn` throws; `ERR_IN_PROGRESS` while somebody else runs it, at once (`whenRunning: 'reject'`) or after `joinTimeoutMs`;
   * `ERR_KEY_REUSED` for another fingerprint; `ERR_OUTCOME_UNKNOWN` after a crash (`afterCrash: 'unknown'`); `ERR_UNAVAILABLE` or `ERR_TIMEOUT`
   * where the store can't be asked: before anything was run, or, with `outcomeUnknown`, when it is not known whether what was run was
   * recorded; `ERR_TAKEN_OVER` when the run was lost to another; `ERR_INVALID_ARGUMENT` for a result that can't be kept: it is done, and
   * recorded without a result; `ERR_ABORTED`, `ERR_CLOSED`, with `outcomeUnknown` where `fn` goes on.
   */
  async execute<T>(key: string, ttlMs: number, fn: (run: Run) => T | Promise<T>, options?: RunOptions): Promise<T> {
    return (await this.#call('execute', key, ttlMs, fn, true, options)).value as T;
  }

  /**
   * Forgets a key, so that the next call runs it. `false`: there was nothing.
   *
   * @throws `ERR_IN_PROGRESS` while somebody runs it, unless by `force`; `ERR_UNAVAILABLE`, `ERR_TIMEOUT`.
   */
  async clear(key: string, options?: ClearOptions): Promise<boolean> {
    const { at, force } = this.#scoped('clear', key, options, ['force']);
    return await this.#change('clear', at, (seen) => {
      if (seen.record === undefined) return undefined;
      if (seen.isAlive && !force) throw inProgress({ operation: 'clear', key });
      return null;
    });
  }

  /**
   * Says what came of a run that died, after which calls reject with `ERR_OUTCOME_UNKNOWN`, or of one whose result could not be kept: it is done,
   * with this result, for its `ttlMs`. `false`: nothing was open, so nothing was changed.
   *
   * @throws `ERR_IN_PROGRESS` while somebody runs it; `ERR_INVALID_ARGUMENT` for a result that can't be kept; `ERR_UNAVAILABLE`, `ERR_TIMEOUT`.
   */
  async resolve(key: string, result?: unknown, options?: ScopeOptions): Promise<boolean> {
    const { at } = this.#scoped('resolve', key, options);
    const { refused, ...kept } = resultOf(this.#shared.plan, result);
    if (refused !== undefined) throw new InvalidArgumentError(refused);
    const nonce = nonceOf();
    return await this.#change('resolve', at, (seen) => {
      if (seen.record?.state === 'running' && seen.isAlive) throw inProgress({ operation: 'resolve', key });
      return seen.record && isOpen(seen)
        ? ended(seen.record, nonce, { state: 'done', result: kept.result })
        : undefined;
    });
  }

  /**
   * How a key stands; `null`: it was not run, or that is forgotten. One read of the store.
   *
   * @throws `ERR_UNAVAILABLE`, `ERR_TIMEOUT`; `ERR_BAD_RECORD`, also where the codec can't read the result.
   */
  async inspect(key: string, options?: ScopeOptions): Promise<State | null> {
    const { at } = this.#scoped('inspect', key, options);
    const { store, codec } = this.#shared.plan;
    return stateOf(await store.read('inspect', at), (text) => decoded('inspect', key, codec, text));
  }

  /**
   * Takes no more calls, tells who waits (`ERR_CLOSED`), and waits for what runs here, ten seconds at the most; then its signals fire. Closes
   * the store, and not the client it works on. Harmless a second time.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #call(
    operation: string,
    key: string,
    ttlMs: number,
    fn: (run: Run) => unknown,
    keepsResult: boolean,
    options: RunOptions | undefined,
  ): Promise<Outcome> {
    const call = callOf(operation, this.#shared.plan.prefix, key, ttlMs, options);
    if (typeof fn !== 'function') throw invalid('fn', `expected a function, got ${kindOf(fn)}`);
    this.#refuseClosed(operation);
    if (call.signal?.aborted) throw abortedBy(call, false);
    let caller: Caller | undefined;
    const outcome = new Promise<Outcome>((resolve, reject) => {
      caller = { call, fn, keepsResult, isRunning: false, waitsSince: undefined, resolve, reject };
    });
    return await this.#await(outcome, caller as unknown as Caller);
  }

  async #await(outcome: Promise<Outcome>, caller: Caller): Promise<Outcome> {
    const { call } = caller;
    const flight = this.#join(caller);
    const { signal, joinTimeoutMs } = call;
    let came = await outcomeOf(outcome, signal, joinTimeoutMs);
    while (came === 'expired') {
      // That was for others: what it runs itself takes its time, and so does the store until it has said that somebody runs it.
      const { isRunning, waitsSince = now() } = caller;
      const left = isRunning ? undefined : waitsSince + joinTimeoutMs - now();
      if (left !== undefined && left <= 0) break;
      came = await outcomeOf(outcome, signal, left);
    }
    if (typeof came === 'object') return came.value;
    flight.leave(caller);
    if (came === 'aborted') throw abortedBy(call, caller.isRunning);
    throw flight.failure ?? inProgress(call);
  }

  #join(caller: Caller): Flight {
    const { at } = caller.call;
    const known = this.#flights.get(at);
    if (known) {
      known.join(caller);
      return known;
    }
    const flight = new Flight(at, this.#shared);
    this.#flights.set(at, flight);
    flight.join(caller);
    const flying = flight.fly(() => this.#flights.delete(at)).finally(() => this.#flying.delete(flying));
    this.#flying.add(flying);
    return flight;
  }

  /** Changes what stands there by what it is; `undefined`: not at all. Says whether it did. */
  async #change(
    operation: string,
    at: string,
    change: (seen: Seen) => ReturnType<typeof ended> | null | undefined,
  ): Promise<boolean> {
    const { store } = this.#shared.plan;
    for (let seen: Seen | undefined = await store.read(operation, at); ; ) {
      const next = change(seen);
      if (next === undefined) return false;
      seen = (await store.swap(operation, at, seen, next)).seen;
      if (!seen) return true;
    }
  }

  #scoped(operation: string, key: string, options: ScopeOptions | undefined, known: readonly string[] = []) {
    const asked = scoped(this.#shared.plan.prefix, key, options, known);
    this.#refuseClosed(operation);
    return asked;
  }

  #refuseClosed(operation: string): void {
    if (this.#closing) throw new ClosedError(`${operation}: once is closed`, { operation });
  }

  async #close(): Promise<void> {
    const { runs, unanswered, plan } = this.#shared;
    const closed = new ClosedError('once is closed');
    for (const flight of this.#flights.values()) flight.close(closed);
    // Nothing is to stand in the way of others that was never begun here.
    const over = Promise.all(this.#flying).then(() => unanswered.takeBack());
    if ((await outcomeOf(over, undefined, CLOSING_MS)) === 'expired') {
      this.#log.write('warn', `once: ${runs.size} that run are not waited for any longer`);
      for (const run of runs) run.abort(closed);
    }
    unanswered.close();
    await plan.store.close();
  }
}

const nonceOf = (): string => randomBytes(12).toString('base64url');

function abortedBy({ operation, key, signal }: Call, goesOn: boolean): RollcallError {
  const message = goesOn ? `${operation}: aborted; what runs goes on` : `${operation}: aborted`;
  return new AbortedError(message, { operation, key, cause: signal?.reason, outcomeUnknown: goesOn });
}
