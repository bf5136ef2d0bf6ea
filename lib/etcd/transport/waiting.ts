/** The time and the signal of one call for what goes on by itself: a grant, an election, a revocation. */

import { outcomeOf } from '../../common/waiting.js';
import { abortedCall, GRPCDeadlineExceededError } from '../errors.js';
import type { CallOptions } from '../rpc/calls.js';
import { timeLeft } from './options.js';

/**
 * Waits for `work` within the time and the signal of options, without a limit of its own. What ends the wait ends nothing else.
 *
 * @throws GRPCDeadlineExceededError, GRPCCancelledError.
 * @internal
 */
export async function waited<T>(work: PromiseLike<T>, options: CallOptions | undefined, operation: string): Promise<T> {
  if (options === undefined) return await work;
  let left: number | undefined;
  try {
    left = timeLeft(options, 0, 'options');
  } catch (error) {
    work.then(undefined, () => {}); // nobody waits for it
    throw error;
  }
  const { signal } = options;
  const outcome = await outcomeOf(work, signal, left === undefined ? undefined : Math.max(0, left));
  if (outcome === 'aborted') throw abortedCall(signal as AbortSignal, operation);
  if (outcome === 'expired') {
    const text = '4 DEADLINE_EXCEEDED: the time of the call was over before it was done';
    throw new GRPCDeadlineExceededError(text, { operation });
  }
  return outcome.value;
}

/**
 * Options with the same end, from now on reckoned as a deadline: for a call that has something to wait for before it is sent.
 *
 * @internal
 */
export function dueBy(options: CallOptions | undefined): CallOptions | undefined {
  const left = timeLeft(options, 0, 'options');
  if (options === undefined || left === undefined) return options;
  return { ...options, timeoutMs: undefined, deadline: Date.now() + left };
}
