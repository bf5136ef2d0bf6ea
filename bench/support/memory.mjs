// Memory of this process, after its garbage is gone. Needs `--expose-gc`.

import { setTimeout as delay } from 'node:timers/promises';

/** In bytes: all that is resident, and the JavaScript heap in it. */
export async function memory() {
  for (let round = 0; round < 3; round++) {
    globalThis.gc();
    await delay(100); // memory goes back to the system a little later
  }
  const { rss, heapUsed } = process.memoryUsage();
  return { resident: rss, heap: heapUsed };
}
