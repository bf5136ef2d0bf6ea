/**
 * Fault handling by policies of the program, as in etcd3: each call runs inside `global`, each attempt inside the
 * policy of its host. Without them the native side does all that, and better; then none of this runs.
 */

import { castGrpcError } from '../errors.js';
import { type CallContext, type CallOptions, type CallOptionsFactory, resolveCallOptions } from '../rpc/calls.js';

/** What a policy hands to what it runs. */
export interface PolicyContext {
  /** Fires when the policy gives the attempt up. */
  signal: AbortSignal;
}

/** A policy: anything with such an `execute`. Those of cockatiel 3 fit. */
export interface Policy {
  /** Runs `fn`, perhaps several times, or refuses to. */
  execute<T>(fn: (context: PolicyContext) => PromiseLike<T> | T, signal?: AbortSignal): Promise<T>;
}

/** The pause before an attempt, and the one after it. Those of cockatiel 3 fit. */
export interface Backoff extends BackoffFactory {
  /** In milliseconds. */
  readonly duration: number;
}

/** Where a row of pauses begins. Those of cockatiel 3 fit. */
export interface BackoffFactory {
  next(context: unknown): Backoff;
}

/** Policies of the program instead of the built-in fault handling. */
export interface FaultHandlingOptions {
  /**
   * The policy of a host, called once for each with the host as it stands in `hosts`. A host whose policy does not run
   * an attempt is passed over. Default: none; the client itself avoids hosts that fail.
   */
  host?: ((hostname: string) => Policy) | undefined;
  /**
   * The policy of all calls. Default, when `host` is given or `defaultCallOptions` is a function: 3 further attempts
   * when the call may be sent again without being applied twice.
   */
  global?: Policy | undefined;
  /** The pauses between attempts to open a watch again. Default: growing, at most 30 s. */
  watchBackoff?: Backoff | BackoffFactory | undefined;
}

/** One attempt on a host, by its index in `hosts`; -1: on whichever the native side chooses. */
export type Attempt<T> = (host: number, options: CallOptions | undefined) => Promise<T>;

/** Further attempts when nothing else is said. */
const RETRIES = 3;

/** Runs calls through the policies of a program. */
export class FaultHandling {
  /** Whether anything is given that needs the loop over attempts to run here. */
  readonly active: boolean;
  readonly #hosts: readonly Policy[] | undefined;
  readonly #count: number;
  readonly #global: Policy | undefined;
  readonly #defaults: CallOptionsFactory | undefined;

  /** `hosts` as the program gave them. */
  constructor(hosts: readonly string[], given: FaultHandlingOptions = {}, defaults?: CallOptionsFactory) {
    const { host } = given;
    this.#hosts = host && hosts.map((name) => host(name));
    this.#count = hosts.length;
    this.#global = given.global;
    this.#defaults = defaults;
    this.active = host !== undefined || given.global !== undefined || typeof defaults === 'function';
  }

  /**
   * Runs one call. Rejects with what the last attempt rejected with, or with what a policy throws by itself; a broken
   * circuit of cockatiel gives way to the failure that broke it, when that happened in this call.
   */
  async exec<T>(context: CallContext, options: CallOptions | undefined, attempt: Attempt<T>): Promise<T> {
    const order = shuffled(this.#count);
    let failed: unknown;
    const once = (signal: AbortSignal | undefined) =>
      this.#onHosts(order, context, options, signal, async (host, resolved) => {
        try {
          return await attempt(host, resolved);
        } catch (error) {
          failed = error;
          throw error;
        }
      });
    try {
      if (this.#global) return await this.#global.execute((run) => once(run?.signal), options?.signal);
      for (let left = RETRIES; ; left--) {
        try {
          return await once(undefined);
        } catch (error) {
          const again = (error as { retryable?: unknown }).retryable === true && !options?.signal?.aborted;
          if (left === 0 || !again) throw error;
        }
      }
    } catch (error) {
      throw isBrokenCircuit(error) && failed !== undefined && !isBrokenCircuit(failed) ? failed : error;
    }
  }

  async #onHosts<T>(
    order: Generator<number, never>,
    context: CallContext,
    options: CallOptions | undefined,
    signal: AbortSignal | undefined,
    attempt: Attempt<T>,
  ): Promise<T> {
    const run = (host: number, given: AbortSignal | undefined) => {
      const resolved = resolveCallOptions(options, this.#defaults, context);
      const both = eitherSignal(resolved?.signal, given);
      return attempt(host, both === resolved?.signal ? resolved : { ...resolved, signal: both });
    };
    if (!this.#hosts) return run(-1, signal);
    let refused: unknown;
    for (let tried = 0; tried < this.#count; tried++) {
      const host = order.next().value;
      let ran = false;
      try {
        return await (this.#hosts[host] as Policy).execute((within) => {
          ran = true;
          return run(host, within?.signal ?? signal);
        }, signal ?? options?.signal);
      } catch (error) {
        if (ran) throw error instanceof Error ? castGrpcError(error) : error;
        refused = error; // by the policy: another host may do
      }
    }
    throw refused;
  }
}

/** Fires when either does. */
function eitherSignal(one: AbortSignal | undefined, other: AbortSignal | undefined): AbortSignal | undefined {
  if (!one || !other || one === other) return one ?? other;
  return AbortSignal.any([one, other]);
}

/** By shape: cockatiel is no dependency. */
function isBrokenCircuit(error: unknown): boolean {
  return (error as { isBrokenCircuitError?: unknown } | null | undefined)?.isBrokenCircuitError === true;
}

/** The hosts in a random order, and again in another one, without end. */
function* shuffled(count: number): Generator<number, never> {
  const order = Array.from({ length: count }, (_, index) => index);
  for (;;) {
    for (let last = count - 1; last >= 0; last--) {
      const chosen = Math.floor(Math.random() * (last + 1));
      const host = order[chosen] as number;
      order[chosen] = order[last] as number;
      order[last] = host;
      yield host;
    }
  }
}
