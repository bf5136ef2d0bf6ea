/** One call of the native side: abortable, its failure turned into the error that the caller sees. */

import { onAbort } from '../common/abort.js';
import { fromNative } from '../common/failure.js';
import { outcomeOf } from '../common/waiting.js';
import { aborted, ClosedError, RollcallError } from '../errors.js';
import { type CancelHandle, native } from '../native.js';
import type { Tally } from './observe.js';

/** Makes a handle that aborts a call. */
export type NewCancel = () => CancelHandle;

const newCancel: NewCancel = () => new (native().CancelHandle)();

/**
 * Awaits `start`, cancelled when `signal` fires: the rejection is then an `AbortedError`. A signal that has fired before
 * rejects without a call. `tally` counts the attempts. Await it in the async method of the caller, whose frames are then in the stack.
 */
export async function call<T>(
  operation: string,
  signal: AbortSignal | undefined,
  start: (cancel: CancelHandle | null) => Promise<T>,
  cancelHandle: NewCancel = newCancel,
  tally?: Tally,
): Promise<T> {
  if (!signal && !tally) {
    try {
      return await start(null);
    } catch (error) {
      throw fromNative(error, operation);
    }
  }
  if (signal?.aborted) throw aborted(signal, operation);
  const cancel = cancelHandle();
  const unlisten = signal && onAbort(signal, () => cancel.cancel());
  try {
    return await start(cancel);
  } catch (error) {
    const failure = fromNative(error, operation);
    throw failure.code === 'ERR_ABORTED' && signal?.aborted ? aborted(signal, operation) : failure;
  } finally {
    unlisten?.();
    if (tally) tally.attempts += cancel.attempts();
  }
}

/**
 * Waits for what goes on by itself; the signal ends the wait alone, with an `AbortedError`. Without a signal it is the same
 * promise.
 */
export function waited<T>(operation: string, work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  return signal ? waitedUntil(operation, work, signal) : work;
}

async function waitedUntil<T>(operation: string, work: Promise<T>, signal: AbortSignal): Promise<T> {
  const outcome = await outcomeOf(work, signal);
  if (typeof outcome === 'string') throw aborted(signal, operation);
  return outcome.value;
}

/** Checks arguments by `check`: its refusals name the operation. What a getter of the caller throws goes through. */
export function checked<T>(operation: string, check: () => T): T {
  try {
    return check();
  } catch (error) {
    throw named(error, operation);
  }
}

/** An error of ours that names the operation, if it named none; any other as it is. */
export function named(error: unknown, operation: string): unknown {
  if (error instanceof RollcallError && error.operation === '') (error as { operation: string }).operation = operation;
  return error;
}

/** The error of a call of a registry that was closed. */
export function closedError(operation: string, why: string): ClosedError {
  return new ClosedError(`${operation}: ${why}`, { operation });
}
