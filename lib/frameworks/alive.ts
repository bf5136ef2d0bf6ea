/** Waits of the start and the end of an application, whose clients keep nothing alive before it has started. */

import { clearInterval, setInterval } from 'node:timers';
import { MAX_MS } from '../common/shape.js';

/** Keeps the process alive until `work` is settled: else it would end meanwhile. */
export async function keptAlive<T>(work: () => Promise<T>): Promise<T> {
  const alive = setInterval(() => {}, MAX_MS);
  try {
    return await work();
  } finally {
    clearInterval(alive);
  }
}
