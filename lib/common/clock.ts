/**
 * Time as it is: fake timers of test runners, which replace `setTimeout` and the clock, are not to stop what waits for the
 * network.
 *
 * @internal
 */

import { performance } from 'node:perf_hooks';

/** Milliseconds of a monotonic clock. Taken at import, before a test runner puts a clock of its own in its place. */
export const now: () => number = performance.now.bind(performance);

/** Calls back once after so many milliseconds, and keeps no process alive meanwhile. Gives what takes it back. */
export function after(ms: number, back: () => void): () => void {
  const timer = AbortSignal.timeout(ms);
  timer.addEventListener('abort', back, { once: true });
  return () => timer.removeEventListener('abort', back);
}

/** Taken at import, as the clock is. */
const immediately = setImmediate;

/** Resolves when this turn of the event loop is over: what the network had brought by then was looked at. */
export const turn = (): Promise<void> => new Promise((resolve) => void immediately(resolve));
