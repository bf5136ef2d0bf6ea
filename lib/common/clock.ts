/**
 * Time as it is: fake timers of test runners, which replace `setTimeout` and the clock, are not to stop what waits for the
 * network.
 *
 * @internal
 */

import { performance } from 'node:perf_hooks';
import { clearTimeout, setImmediate, setTimeout } from 'node:timers';
import { MAX_MS } from './shape.js';

/** Milliseconds of a monotonic clock. Taken at import, before a test runner puts a clock of its own in its place. */
export const now: () => number = performance.now.bind(performance);

// Taken at import, as the clock is.
const [begin, end, immediately] = [setTimeout, clearTimeout, setImmediate];

/**
 * Calls back once after so many milliseconds, and keeps no process alive meanwhile. Gives what takes it back: then neither
 * the timer nor `back` is held any longer. (`AbortSignal.timeout()` has no such end: its timer stands until the signal is
 * collected as garbage.)
 */
export function after(ms: number, back: () => void): () => void {
  const timer = begin(back, Math.min(ms, MAX_MS)).unref(); // beyond it, Node.js would call back at once
  return () => end(timer);
}

/** Resolves when this turn of the event loop is over: what the network had brought by then was looked at. */
export const turn = (): Promise<void> => new Promise((resolve) => void immediately(resolve));
