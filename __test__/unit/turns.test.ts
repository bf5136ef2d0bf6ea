// What comes in is handed over in shares, and no waking is lost.

import { createRequire } from 'node:module';
import { setImmediate as turn } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { waitFor } from '../support/process.js';

const { Share, took } = createRequire(import.meta.url)('../../dist/cjs/common/turns.js');

/** Takes the thread for longer than a share. */
function work() {
  for (const end = performance.now() + 6; performance.now() < end; );
}

it.each([1, 2, 5])('who is woken while it is due looks once more after the last of %d shares', async (shares) => {
  let [left, looks] = [shares, 0];
  let told = false;
  const share = new Share(() => {
    looks++;
    if (left === 0) told = true;
    else {
      took(1);
      left--;
    }
    return left > 0;
  });
  const busy = new Share(() => {
    took(1);
    work();
    return false;
  });
  await turn();
  busy.wake(); // the thread has no time left
  share.wake();
  share.wake();
  expect(looks).toBe(0);
  await waitFor(() => told, { timeoutMs: 2000, what: 'the second look' });
  expect(looks).toBe(shares + 1);
});

it('a share that is dear leaves the event loop a turn between two', async () => {
  let [left, turns] = [20, 0];
  const share = new Share(() => {
    took(1);
    work();
    return --left > 0;
  });
  const count = async () => {
    for (; left > 0; turns++) await turn();
  };
  const counting = count();
  share.wake();
  await counting;
  expect(turns).toBeGreaterThan(9);
});
