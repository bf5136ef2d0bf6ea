/** One call of the native side: abortable, its failure turned into the error that the caller sees. */

import { aborted, fromNative, RollcallError } from '../errors.js';
import { type CancelHandle, native } from '../native.js';

/** Makes a handle that aborts a call. */
export type NewCancel = () => CancelHandle;

const newCancel: NewCancel = () => new (native().CancelHandle)();

/**
 * Awaits `start`, cancelled when `signal` fires: the rejection is then an `AbortedError`. A signal that has fired before
 * rejects without a call. Await it in the async method of the caller, whose frames are then in the stack.
 */
export async function call<T>(
  operation: string,
  signal: AbortSignal | undefined,
  start: (cancel: CancelHandle | null) => Promise<T>,
  cancelHandle: NewCancel = newCancel,
): Promise<T> {
  if (!signal) {
    try {
      return await start(null);
    } catch (error) {
      throw fromNative(error, operation);
    }
  }
  if (signal.aborted) throw aborted(signal, operation);
  const cancel = cancelHandle();
  const unlisten = onAbort(signal, () => cancel.cancel());
  try {
    return await start(cancel);
  } catch (error) {
    const failure = fromNative(error, operation);
    throw failure.code === 'ERR_ABORTED' ? aborted(signal, operation) : failure;
  } finally {
    unlisten();
  }
}

interface Listening {
  readonly heirs: Set<() => void>;
  readonly listener: () => void;
}

const listening = new WeakMap<AbortSignal, Listening>();

/**
 * Runs `heir` when `signal` fires; gives what takes it back. However many there are, the signal has one listener: Node.js
 * warns of a leak from the eleventh on.
 */
export function onAbort(signal: AbortSignal, heir: () => void): () => void {
  let entry = listening.get(signal);
  if (!entry) {
    const heirs = new Set<() => void>();
    const listener = () => {
      listening.delete(signal);
      for (const one of [...heirs]) one();
    };
    entry = { heirs, listener };
    listening.set(signal, entry);
    signal.addEventListener('abort', listener, { once: true });
  }
  const { heirs, listener } = entry;
  heirs.add(heir);
  return () => {
    if (!heirs.delete(heir) || heirs.size > 0 || listening.get(signal)?.heirs !== heirs) return;
    listening.delete(signal);
    signal.removeEventListener('abort', listener);
  };
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
