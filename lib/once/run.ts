/** One run of a function under a claim: what it comes to, and what is recorded of that. */

import { now } from '../common/clock.js';
import { pause } from '../common/waiting.js';
import { InvalidArgumentError, type RollcallError } from '../errors.js';
import type { Call, Plan } from './options.js';
import { keptError, type OnceRecord, type Running, type Seen } from './record.js';
import { ended } from './steps.js';
import type { OnceStore } from './store.js';

/** What a function gets that is run once. */
export interface Run {
  /**
   * Grows with each run of the key, also through `clear()` and after its time: a fencing token. Who guards a resource by it remembers the
   * highest it has seen and refuses what is lower. 0 where the store could not be asked (`onStoreFailure: 'run'`).
   */
  readonly token: bigint;
  /** 1, and one more for each run before it that died. */
  readonly attempt: number;
  /** Fires with a `TakenOverError` when the run can't be vouched for any more: somebody else may run it from then on. And at `close()`. */
  readonly signal: AbortSignal;
}

/** What is run. */
export interface Runnable {
  readonly call: Call;
  readonly fn: (run: Run) => unknown;
  /** Whether what the function gives is kept. */
  readonly keepsResult: boolean;
}

/** What a run came to. */
export interface Ended {
  /** What is to be recorded; `null`: nothing, so that it can be run again. */
  readonly next: OnceRecord | null;
  /** What its caller gets. */
  readonly value: unknown;
  /** What its caller is told instead. */
  readonly error?: { readonly is: unknown };
}

/** For how long the end of a run is tried to be written, in milliseconds. */
const SETTLING_MS = 5000;
/** How long to wait before it is tried again, in milliseconds, doubled each time. */
const PAUSE_MS = 50;

/** Runs it to its end. Never rejects. */
export async function runOnce(
  { fn, call, keepsResult }: Runnable,
  run: Run,
  record: Running,
  plan: Plan | undefined,
): Promise<Ended> {
  let value: unknown;
  try {
    value = await fn(Object.freeze(run));
  } catch (error) {
    if (!isKept(call, error)) return { next: null, value: undefined, error: { is: error } };
    const kept = keptError(error, plan?.maxResultBytes ?? Number.POSITIVE_INFINITY);
    const next = ended(record, record.nonce, { state: 'failed', error: kept });
    return { next, value: undefined, error: { is: error } };
  }
  const { result, refused, cause } = plan && keepsResult ? resultOf(plan, value) : NO_RESULT;
  const next = ended(record, record.nonce, { state: 'done', result, refused });
  if (refused === undefined) return { next, value };
  return { next, value: undefined, error: { is: unkept(call, refused, cause) } };
}

/** Whether an error is to be given to all who call. */
function isKept({ cacheErrors }: Call, error: unknown): boolean {
  try {
    return cacheErrors?.(error) === true;
  } catch {
    return false; // it was to say that it is
  }
}

interface Kept {
  readonly result?: string;
  readonly refused?: string;
  readonly cause?: unknown;
}

const NO_RESULT: Kept = {};

/** What is kept of a result. */
export function resultOf({ codec, maxResultBytes }: Plan, value: unknown): Kept {
  if (value === undefined) return NO_RESULT;
  let text: string;
  try {
    text = codec.encode(value);
  } catch (error) {
    const isOurs = error instanceof InvalidArgumentError;
    return isOurs ? { refused: error.message } : { refused: 'result: the codec refused it', cause: error };
  }
  if (typeof text !== 'string') return { refused: 'options.codec: expected encode() to give a string' };
  const bytes = Buffer.byteLength(text);
  if (bytes <= maxResultBytes) return { result: text };
  return { refused: `result: expected at most ${maxResultBytes} bytes, got ${bytes}: see maxResultBytes` };
}

/** It was done, and what came of it can't be kept: told to who ran it, and to all who call later. */
export const unkept = ({ operation, key }: Call, refused: string, cause?: unknown): InvalidArgumentError =>
  new InvalidArgumentError(`${refused}. It was done, and is recorded as done, without a result`, {
    operation,
    key,
    cause,
  });

/**
 * Records an end in the place of a claim. `undefined`: it stands there. Else what stands there in its place. Tried again for a while.
 *
 * @throws what the store rejected with: then it is not known.
 */
export async function settle(
  store: OnceStore,
  operation: string,
  at: string,
  claim: Seen,
  next: OnceRecord | null,
): Promise<Seen | undefined> {
  const until = now() + SETTLING_MS;
  let wasUnanswered = false;
  for (let pauseMs = PAUSE_MS; ; pauseMs *= 2) {
    try {
      const { seen } = await store.swap(operation, at, claim, next);
      if (!seen) return undefined;
      return wasUnanswered && isOwn(seen, claim, next) ? undefined : seen;
    } catch (error) {
      const { retryable, outcomeUnknown } = error as RollcallError;
      wasUnanswered ||= outcomeUnknown === true;
      if (!(retryable || outcomeUnknown) || now() + pauseMs > until) throw error;
    }
    await pause(pauseMs);
  }
}

/** Whether what stands there was written by an attempt that had no answer. */
const isOwn = ({ record }: Seen, claim: Seen, next: OnceRecord | null): boolean =>
  next === null
    ? record === undefined
    : record !== undefined && record.nonce === claim.record?.nonce && record.state !== 'running';
