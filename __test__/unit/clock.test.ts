/** A deadline that was taken back holds nothing, and one that stands holds no process. */

import { createHook } from 'node:async_hooks';
import { performance } from 'node:perf_hooks';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { after as later } from '../../lib/common/clock.js';
import { waitFor } from '../support/process.js';

/** The timers that were begun meanwhile and have not ended. No garbage is waited for. */
function timers() {
  const alive = new Set<number>();
  const hook = createHook({
    init: (id, type) => void (type === 'Timeout' && alive.add(id)),
    destroy: (id) => void alive.delete(id),
  });
  hook.enable();
  return { alive, stop: () => hook.disable() };
}

/** What ends in this turn of the event loop is told in the next. */
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

const HOUR = 3_600_000;

afterEach(() => {
  vi.useRealTimers();
});

describe('after()', () => {
  it('leaves no timer when it is taken back', async () => {
    const { alive, stop } = timers();
    try {
      const ends = Array.from({ length: 100 }, () => later(HOUR, () => {}));
      expect(alive.size).toBe(100);
      for (const end of ends) end();
      await turn();
      expect(alive.size).toBe(0);
    } finally {
      stop();
    }
  });

  it('calls back once, and not when it was taken back, then or before', async () => {
    let called = 0;
    const end = later(10, () => called++);
    const never = later(10, () => (called += 100));
    never();
    await waitFor(() => called > 0, { what: 'the call' });
    end();
    const began = performance.now();
    await new Promise<void>((resolve) => void later(50, resolve));
    expect(performance.now() - began).toBeGreaterThanOrEqual(48);
    expect(called).toBe(1);
  });

  it('goes by the real clock while a test runner has put its own in the place of it', async () => {
    vi.useFakeTimers();
    await new Promise<void>((resolve) => void later(10, resolve));
  });

  it('of more than 24 days is not over at once', async () => {
    let called = false;
    const end = later(2 ** 40, () => {
      called = true;
    });
    await new Promise<void>((resolve) => void later(20, resolve));
    end();
    expect(called).toBe(false);
  });
});
