/** Waiting for what goes on by itself: the wait can be ended, and what is waited for is not. */

import { onAbort } from './abort.js';
import { after } from './clock.js';

/** How a wait ended that was not seen through. */
export type Ended = 'aborted' | 'expired';

/** What came of a wait. */
export type Outcome<T> = { readonly value: T } | Ended;

const never = new Promise<never>(() => {});

/** Waits for so many milliseconds, or until `signal` fires. Keeps no process alive. */
export async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  await outcomeOf(never, signal, ms);
}

/**
 * Waits until `work` is done, `signal` fires or `limitMs` have passed (`undefined`: no limit). Rejects with what `work` rejects
 * with; after an end nobody hears of that. Whoever awaits this makes the error of an end, so that its stack shows the caller.
 */
export async function outcomeOf<T>(
  work: PromiseLike<T>,
  signal: AbortSignal | undefined,
  limitMs?: number,
): Promise<Outcome<T>> {
  let unlisten = () => {};
  let stop = () => {};
  try {
    return await new Promise<Outcome<T>>((resolve, reject) => {
      work.then((value) => resolve({ value }), reject);
      if (signal?.aborted) resolve('aborted');
      else if (signal) unlisten = onAbort(signal, () => resolve('aborted'));
      if (limitMs !== undefined) stop = after(limitMs, () => resolve('expired'));
    });
  } finally {
    unlisten();
    stop();
  }
}
