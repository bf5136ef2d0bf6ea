/** One breaker: a state machine without timers, which looks at the clock when it is asked. */

import { now } from '../common/clock.js';
import { abortSignal, invalid, isRecord, kindOf, onlyKnown, optional } from '../common/shape.js';
import { outcomeOf } from '../common/waiting.js';
import { AbortedError, TimeoutError } from '../errors.js';
import { BreakerOpenError } from './errors.js';
import { isEnded, isFailedResult } from './failures.js';
import type { Policies } from './policies.js';
import type { Rules } from './policy.js';
import { type Counts, isOver, type Window, windowFor } from './window.js';

/** Closed: calls go through. Open: none does. Half open: a few do, to see whether it may close. */
export type BreakerState = 'closed' | 'open' | 'half-open';

/** What a function gets that is called through a breaker. */
export interface CallContext {
  /** Fires when the call has taken `timeoutMs` of the policy, and with the signal of the caller. */
  readonly signal: AbortSignal;
}

/** How to call through a breaker. */
export interface DoOptions<T> {
  /** Ends the call: what comes of it then counts neither as a failure nor as a success. */
  signal?: AbortSignal | undefined;
  /** What to give in the place of a call that was refused. */
  fallback?: ((error: BreakerOpenError) => T | Promise<T>) | undefined;
}

/** A call that a breaker let through, to be told how it ended. */
export interface Permit {
  /**
   * How the call ended: with an error, without one (`undefined` or `null`), or, by `aborted`, because its caller did not want it any more. Once.
   *
   * @throws `ERR_INVALID_ARGUMENT`; the call is then done all the same, and counts neither way.
   */
  done(outcome?: { readonly error?: unknown; readonly aborted?: boolean }): void;
}

/** What a breaker has seen. */
export interface BreakerStats {
  /** Failures in a row, while it is closed. */
  readonly consecutiveFailures: number;
  /** Successes since it is half open. */
  readonly successes: number;
  /** Calls that try now, while it is half open. */
  readonly probes: number;
  /** The calls of its window: all 0 without one. */
  readonly calls: number;
  readonly failures: number;
  readonly slow: number;
  /** How many milliseconds it has been open for; 0 when it isn't. */
  readonly openForMs: number;
}

/** @internal What breakers of one program share. */
export interface Shared {
  /** Read with each call: so not behind a getter, which costs a fifth of one. */
  readonly policies: Pick<Policies, 'version' | 'of'>;
  isFailure(error: unknown): boolean;
  moved(name: string, from: BreakerState, to: BreakerState, why: string): void;
  refused(name: string, error: BreakerOpenError): void;
}

/** A call that was let through: in which generation, and since when. */
interface Pass {
  readonly generation: number;
  readonly began: number;
}

/** @internal What a permit is told; of an instance also who is to blame, whatever the error is. */
export interface Told {
  readonly error?: unknown;
  readonly aborted?: boolean | undefined;
  readonly failed?: boolean | undefined;
}

type Verdict = 'success' | 'failure' | 'nothing';

const OPTIONS = ['signal', 'fallback'] as const;

/**
 * A breaker. It opens after failures, refuses calls for `openStateTimeout`, then lets a few try: it closes when they succeed, and
 * opens anew with the first that fails. What becomes of a call that began before a change of state does not count any more.
 */
export class Breaker {
  /** Its name, such as `grpc:users:Get`. */
  readonly name: string;
  /** @internal When it was asked for last, in a row with the others. */
  asked = 0;
  readonly #shared: Shared;
  #rules: Rules;
  #version: number;
  #state: BreakerState = 'closed';
  /** Grows with each change of state. */
  #generation = 0;
  #consecutive = 0;
  #window: Window | undefined;
  #openedAt = 0;
  #successes = 0;
  /** The calls that try, the oldest first. */
  #probes: Pass[] = [];

  /** @internal */
  constructor(name: string, shared: Shared) {
    this.name = name;
    this.#shared = shared;
    this.#version = shared.policies.version;
    this.#rules = shared.policies.of(name);
    this.#window = this.#rules.window && windowFor(this.#rules.window, now);
  }

  /** How it stands. What is due by the clock is done at the next call: an open breaker stays `open` until somebody calls. */
  get state(): BreakerState {
    return this.#current().force ?? this.#state;
  }

  get stats(): BreakerStats {
    this.#current();
    const { calls, failures, slow } = this.#window?.counts() ?? NO_CALLS;
    return {
      consecutiveFailures: this.#consecutive,
      successes: this.#successes,
      probes: this.#probes.length,
      calls,
      failures,
      slow,
      openForMs: this.#state === 'open' ? now() - this.#openedAt : 0,
    };
  }

  /**
   * Calls `fn` if the breaker lets it, and gives what it gives. A failure is what `isFailure` of the breakers says of what it
   * throws, and a call that took longer than `timeoutMs`.
   *
   * @throws `ERR_BREAKER_OPEN` without a call; `ERR_TIMEOUT` after `timeoutMs`; `ERR_ABORTED`; `ERR_INVALID_ARGUMENT`; what `fn` throws.
   */
  do<T>(fn: (context: CallContext) => T | Promise<T>, options?: DoOptions<T>): Promise<T> {
    const isPlain = options === undefined && this.#state === 'closed' && typeof fn === 'function';
    const rules = isPlain ? this.#current() : undefined;
    if (rules === undefined || rules.timeoutMs !== 0 || rules.force !== undefined) return this.#do(fn, options);
    return this.#plain(fn, rules);
  }

  /**
   * What most calls are: through a closed breaker, and ended by nobody. It makes one promise and no async function, which costs
   * a third less (`bench/rows/breaker.mjs`).
   */
  #plain<T>(fn: (context: CallContext) => T | Promise<T>, rules: Rules): Promise<T> {
    const pass = this.#admit(rules) as Pass; // closed, it refuses nobody
    let given: T | Promise<T>;
    try {
      given = fn(new Unended());
    } catch (error) {
      this.#ended(pass, this.#judge(error));
      return Promise.reject(error);
    }
    return Promise.resolve(given).then(
      (value) => {
        this.#ended(pass, isFailedResult(value) ? 'failure' : 'success');
        return value;
      },
      (error) => {
        this.#ended(pass, this.#judge(error));
        throw error;
      },
    );
  }

  async #do<T>(fn: (context: CallContext) => T | Promise<T>, options: DoOptions<T> | undefined): Promise<T> {
    if (typeof fn !== 'function') throw invalid('fn', `expected a function, got ${kindOf(fn)}`);
    const { signal, fallback } = options === undefined ? NOTHING : checkedOptions<T>(options);
    if (signal?.aborted) throw this.#aborted(signal);
    const rules = this.#current();
    const pass = this.#enter(rules);
    if (pass instanceof BreakerOpenError) {
      if (fallback) return await fallback(pass);
      throw pass;
    }
    let verdict: Verdict = 'nothing';
    try {
      const value =
        rules.timeoutMs === 0 && signal === undefined
          ? await fn(new Unended())
          : await this.#within(fn, rules.timeoutMs, signal);
      verdict = isFailedResult(value) ? 'failure' : 'success';
      return value;
    } catch (error) {
      if (!signal?.aborted) verdict = this.#judge(error);
      throw error;
    } finally {
      if (pass) this.#ended(pass, verdict);
    }
  }

  /** The same without a context and options, as cockatiel's policies have it. */
  async execute<T>(fn: (context: CallContext) => T | Promise<T>): Promise<T> {
    return await this.do(fn);
  }

  /**
   * Lets a call through that can't be a function, and is told how it ended. One that is never told is taken for a failure, while the
   * breaker is half open, after `openStateTimeout`; `timeoutMs` is not for it.
   *
   * @throws `ERR_BREAKER_OPEN`.
   */
  acquire(): Permit {
    const pass = this.#enter(this.#current());
    if (pass instanceof BreakerOpenError) throw pass;
    let isOver = false;
    return {
      done: (outcome?: Told) => {
        if (isOver) return;
        isOver = true;
        const isTold = outcome === undefined || isRecord(outcome);
        if (pass) this.#ended(pass, isTold ? this.#verdict(outcome) : 'nothing');
        if (isTold) return;
        const got = (outcome as unknown) instanceof Error ? 'an error: write done({ error })' : kindOf(outcome);
        throw invalid('outcome', `expected an object, got ${got}`);
      },
    };
  }

  #verdict({ error, aborted, failed }: Told = {}): Verdict {
    if (failed !== undefined) return failed ? 'failure' : 'success';
    if (aborted) return 'nothing';
    return error === undefined || error === null ? 'success' : this.#judge(error);
  }

  #judge(error: unknown): Verdict {
    if (this.#shared.isFailure(error)) return 'failure';
    return isEnded(error) ? 'nothing' : 'success';
  }

  async #within<T>(fn: (context: CallContext) => T | Promise<T>, timeoutMs: number, signal?: AbortSignal): Promise<T> {
    const ending = new Ending();
    const work = (async () => await fn(ending))();
    const outcome = await outcomeOf(work, signal, timeoutMs === 0 ? undefined : timeoutMs);
    if (typeof outcome === 'object') return outcome.value;
    const error =
      outcome === 'aborted'
        ? this.#aborted(signal as AbortSignal)
        : new TimeoutError(`breaker ${this.name}: the call took longer than ${timeoutMs} ms`, { operation: 'do' });
    ending.end(error);
    throw error;
  }

  #aborted(signal: AbortSignal): AbortedError {
    return new AbortedError(`breaker ${this.name}: the call was aborted`, { operation: 'do', cause: signal.reason });
  }

  /** The rules of now. What was counted is kept when they change. */
  #current(): Rules {
    if (this.#version === this.#shared.policies.version) return this.#rules;
    this.#version = this.#shared.policies.version;
    const before = this.#rules.window;
    this.#rules = this.#shared.policies.of(this.name);
    const { window } = this.#rules;
    if (this.#window && window && window.type === before?.type) this.#window.resize(window.size);
    else this.#window = window && windowFor(window, now);
    return this.#rules;
  }

  /** Nothing where it is held closed: then nothing is counted. */
  #enter(rules: Rules): Pass | BreakerOpenError | undefined {
    if (rules.force === 'closed') return undefined;
    const entered = this.#admit(rules);
    if (entered instanceof BreakerOpenError) this.#shared.refused(this.name, entered);
    return entered;
  }

  #admit(rules: Rules): Pass | BreakerOpenError {
    if (rules.force === 'open') return this.#refusal('is held open by its policy', rules.openMs);
    if (this.#state === 'closed') return { generation: this.#generation, began: rules.window ? now() : 0 };
    const began = now();
    if (this.#state === 'open') {
      const left = this.#openedAt + rules.openMs - began;
      if (left > 0) return this.#refusal('is open', left);
      this.#move('half-open', 'its time is over');
      return this.#admit(this.#current()); // who was told may have called
    }
    const [oldest] = this.#probes;
    const left = oldest ? oldest.began + rules.openMs - began : rules.openMs;
    if (left <= 0) {
      this.#open('a call that tries it has not come to an end', began); // or nobody might ever call again
      return this.#refusal('is open', rules.openMs);
    }
    if (this.#probes.length >= rules.maxProbes) return this.#refusal('is half open, and enough calls try', left);
    const pass = { generation: this.#generation, began };
    this.#probes.push(pass);
    return pass;
  }

  #refusal(how: string, retryAfterMs: number): BreakerOpenError {
    const ms = Math.ceil(retryAfterMs);
    return new BreakerOpenError(`breaker ${this.name} ${how}; it may let a call through in ${ms} ms`, {
      breaker: this.name,
      retryAfterMs: ms,
      operation: 'do',
    });
  }

  #ended(pass: Pass, verdict: Verdict): void {
    if (pass.generation !== this.#generation) return;
    const rules = this.#current();
    if (this.#state === 'half-open') this.#probes.splice(this.#probes.indexOf(pass), 1);
    if (verdict === 'nothing') return;
    const { window } = rules;
    const ended = window || this.#state === 'half-open' ? now() : 0;
    const isSlow = window !== undefined && pass.began > 0 && ended - pass.began > window.slowCallMs;
    const isFailure = verdict === 'failure';
    if (this.#state === 'half-open') {
      if (isFailure || isSlow)
        this.#open(isFailure ? 'a call that tried it failed' : 'a call that tried it was slow', ended);
      else if (++this.#successes >= rules.successThreshold) this.#move('closed', `${this.#successes} calls succeeded`);
      return;
    }
    this.#consecutive = isFailure ? this.#consecutive + 1 : 0;
    this.#window?.add(isFailure, isSlow);
    if (this.#consecutive >= rules.failureThreshold) {
      this.#open(`${this.#consecutive} calls in a row failed`, ended || now());
      return;
    }
    const counts = this.#window?.counts();
    if (window && counts && isOver(counts, window)) {
      const { calls, failures, slow } = counts;
      this.#open(`of ${calls} calls ${failures} failed and ${slow} were slow`, ended);
    }
  }

  #open(why: string, at: number): void {
    this.#openedAt = at;
    this.#move('open', why);
  }

  #move(to: BreakerState, why: string): void {
    const from = this.#state;
    this.#state = to;
    this.#generation++;
    this.#consecutive = this.#successes = 0;
    this.#probes = [];
    this.#window?.clear();
    this.#shared.moved(this.name, from, to, why);
  }
}

/** What a call is told that may be ended. Its signal is made when it is asked for: that takes longer than all else of it. */
class Ending implements CallContext {
  #controller: AbortController | undefined;
  #reason: unknown;

  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.#reason !== undefined) this.#controller.abort(this.#reason);
    }
    return this.#controller.signal;
  }

  end(reason: Error): void {
    this.#reason = reason;
    this.#controller?.abort(reason);
  }
}

/** What a call is told that nothing ends. Its signal is its own: what listens to it is to go with the call. */
class Unended implements CallContext {
  #signal: AbortSignal | undefined;

  get signal(): AbortSignal {
    this.#signal ??= new AbortController().signal;
    return this.#signal;
  }
}

const NO_CALLS: Counts = { calls: 0, failures: 0, slow: 0 };
const NOTHING: DoOptions<never> = {};

function checkedOptions<T>(options: unknown): DoOptions<T> {
  const given = optional('options', options);
  onlyKnown('options', given, OPTIONS);
  const { fallback } = given;
  if (fallback !== undefined && typeof fallback !== 'function') {
    throw invalid('options.fallback', `expected a function, got ${kindOf(fallback)}`);
  }
  return { signal: abortSignal('options.signal', given.signal), fallback: fallback as DoOptions<T>['fallback'] };
}
