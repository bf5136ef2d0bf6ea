// The watch contract while the registry can't be reached, and after: the last list stays, nothing is missed.

import type { Watcher } from 'rollcall';
import { expect } from 'vitest';
import { forEveryBackend, record } from './backends.js';
import { ids, listsUntil, nextList, quiet, refused, sees, staysPending, waitFor, within } from './kit.js';

const told = (watcher: Watcher): string[] => {
  const events: string[] = [];
  watcher.on('stale', () => events.push('stale'));
  watcher.on('fresh', () => events.push('fresh'));
  return events;
};

forEveryBackend('watching through an outage', (it) => {
  it('the last list stays, stale is told and is no delivery, and the iterator does not end', async (scope) => {
    const registry = await scope.connect();
    await scope.put('orders', 'x', record('orders', 'x'));
    const watcher = registry.watch('orders');
    const events = told(watcher);
    const list = await nextList(watcher);
    const next = watcher.next();
    await scope.outage();
    await waitFor(() => watcher.stale, { timeoutMs: 20_000, what: 'the watcher to be stale' });
    await waitFor(() => events.length === 1, { what: 'the event' });
    await staysPending(1500, next, 'next() during an outage'); // a few tries to reconnect fall into this
    expect(watcher.current).toBe(list);
    expect(await registry.getService('orders')).toBe(list);
    await scope.restore();
    await waitFor(() => !watcher.stale, { timeoutMs: 15_000, what: 'the watcher to be fresh' });
    await waitFor(() => events.length === 2, { what: 'the event' });
    expect(events).toEqual(['stale', 'fresh']);
    await staysPending(500, next, 'next() after an outage without a change'); // the read that made it fresh is over
    await scope.put('orders', 'y', record('orders', 'y'));
    expect(ids((await within(next, 5000, 'next()')).value)).toEqual(['x', 'y']);
  });

  it('a stale watch still answers getService(); consistent: true does not pretend', async (scope) => {
    const registry = await scope.connect();
    await scope.put('orders', 'x', record('orders', 'x'));
    const watcher = registry.watch('orders');
    const list = await nextList(watcher);
    await scope.outage();
    await waitFor(() => watcher.stale, { timeoutMs: 20_000, what: 'the watcher to be stale' });
    expect(await registry.getService('orders')).toBe(list);
    await refused(within(registry.getService('orders', { consistent: true, timeoutMs: 500 }), 1500, 'getService()'), [
      'ERR_TIMEOUT',
      'ERR_UNAVAILABLE',
    ]);
  });

  it('what changed during the outage is delivered after it as one net change', async (scope) => {
    const registry = await scope.connect();
    for (const id of ['a', 'b', 'c', 'd', 'e']) await scope.put('orders', id, record('orders', id));
    const watcher = registry.watch('orders');
    expect(await nextList(watcher)).toHaveLength(5);
    await scope.outage();
    await waitFor(() => watcher.stale, { timeoutMs: 20_000, what: 'the watcher to be stale' });
    await scope.remove('orders', 'a');
    await scope.put('orders', 'b', record('orders', 'b', { version: '2' }));
    await scope.put('orders', 'f', record('orders', 'f'));
    await scope.put('orders', 'g', record('orders', 'g'));
    await scope.remove('orders', 'g');
    await scope.restore();
    const list = await nextList(watcher, 15_000);
    expect(ids(list)).toEqual(['b', 'c', 'd', 'e', 'f']);
    expect(list[0]?.version).toBe('2');
    await staysPending(500, watcher.next(), 'a second delivery of the same change');
  });

  it(
    'a compaction while the watch is disconnected loses nothing',
    async (scope) => {
      const registry = await scope.connect();
      for (const id of ['a', 'b', 'c']) await scope.put('orders', id, record('orders', id));
      const watcher = registry.watch('orders');
      expect(await nextList(watcher)).toHaveLength(3);
      await scope.outage();
      await waitFor(() => watcher.stale, { timeoutMs: 20_000, what: 'the watcher to be stale' });
      for (let i = 0; i < 20; i++) await scope.put('orders', 'b', record('orders', 'b', { version: String(i) }));
      await scope.remove('orders', 'a');
      await scope.compact();
      await scope.restore();
      const lists = await listsUntil(watcher, ['b', 'c'], 15_000);
      expect(lists.at(-1)?.[0]?.version).toBe('19');
      await scope.put('orders', 'd', record('orders', 'd'));
      await listsUntil(watcher, ['b', 'c', 'd']);
      expect(watcher.stale).toBe(false);
    },
    { needs: ['compaction', 'oneSided'] },
  );

  it('a first next() during an outage waits for the truth instead of inventing an empty list', async (scope) => {
    await scope.put('orders', 'x', record('orders', 'x'));
    await scope.outage();
    const registry = await scope.connect({ lazy: true });
    const watcher = registry.watch('orders');
    const next = watcher.next();
    await staysPending(2000, next, 'the first next() during an outage'); // several tries fall into this
    expect(watcher.current).toBeUndefined();
    await scope.restore();
    expect(ids((await within(next, 15_000, 'next()')).value)).toEqual(['x']);
    expect(watcher.stale).toBe(false);
  });

  it('a watch begun and ended during an outage ends at once', async (scope) => {
    const registry = await scope.connect();
    await scope.outage();
    const watcher = registry.watch('orders');
    const next = watcher.next();
    watcher.stop();
    expect((await within(next, 2000, 'next()')).done).toBe(true);
    const aborter = new AbortController();
    const other = registry.watch('orders', { signal: aborter.signal }).next();
    aborter.abort();
    expect((await within(other, 2000, 'next()')).done).toBe(true);
  });

  it(
    'several outages: stale and fresh alternate, and each time the truth is caught up with',
    async (scope) => {
      const registry = await scope.connect();
      const watcher = registry.watch('orders');
      const events = told(watcher);
      await nextList(watcher);
      for (let round = 1; round <= 3; round++) {
        await scope.outage();
        await waitFor(() => watcher.stale, { timeoutMs: 20_000, what: 'the watcher to be stale' });
        await scope.put('orders', String(round), record('orders', String(round)));
        await scope.restore();
        await listsUntil(
          watcher,
          Array.from({ length: round }, (_, i) => String(i + 1)),
          15_000,
        );
        await waitFor(() => !watcher.stale, { timeoutMs: 5000, what: 'the watcher to be fresh' });
      }
      await waitFor(() => events.length === 6, { what: 'the events' });
      expect(events).toEqual(['stale', 'fresh', 'stale', 'fresh', 'stale', 'fresh']);
    },
    { timeoutMs: 90_000 },
  );

  it('a client reads and registers again after an outage without being made anew', async (scope) => {
    const registry = await scope.connect();
    await scope.outage();
    await refused(registry.getService('orders', { timeoutMs: 300 }), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
    await scope.restore();
    await waitFor(
      () =>
        registry.register({ name: 'orders', id: 'a' }, { timeoutMs: 5000 }).then(
          () => true,
          () => false,
        ),
      { timeoutMs: 15_000, what: 'register()' },
    );
    await sees(registry, 'orders', ['a']);
  });
});

forEveryBackend('the grace for a registry that lost its data', (it) => {
  const fleet = ['a', 'b', 'c', 'd', 'e', 'f'];

  it(
    'when more than half is gone after a break, the old list stays, stale, for emptyGraceMs; then the truth comes',
    async (scope) => {
      const registry = await scope.connect({ emptyGraceMs: 4000 });
      for (const id of fleet) await scope.put('orders', id, record('orders', id));
      const watcher = registry.watch('orders');
      const events = told(watcher);
      const list = await nextList(watcher);
      await scope.outage();
      await waitFor(() => watcher.stale, { timeoutMs: 20_000, what: 'the watcher to be stale' });
      await scope.wipe();
      await scope.restore();
      const next = watcher.next();
      await staysPending(3000, next, 'next() within the grace'); // less than emptyGraceMs, which begins after the restore
      expect([watcher.stale, watcher.current]).toEqual([true, list]);
      expect(await registry.getService('orders')).toBe(list);
      expect(await registry.getService('orders', { consistent: true })).toEqual([]);
      expect((await within(next, 12_000, 'the truth')).value).toEqual([]);
      await waitFor(() => !watcher.stale && events.length === 2, { what: 'the watcher to be fresh' });
      expect(events).toEqual(['stale', 'fresh']);
    },
    { timeoutMs: 60_000 },
  );

  it(
    'while reading goes on, instances that come back within the grace end it, and no list of less than half is delivered',
    async (scope) => {
      const registry = await scope.connect({ emptyGraceMs: 20_000 });
      for (const id of fleet) await scope.put('orders', id, record('orders', id));
      const watcher = registry.watch('orders');
      await nextList(watcher);
      await scope.outage();
      await waitFor(() => watcher.stale, { timeoutMs: 20_000, what: 'the watcher to be stale' });
      await scope.wipe();
      await scope.restore();
      const next = watcher.next();
      await staysPending(1500, next, 'next() within the grace');
      for (const id of fleet) await scope.put('orders', id, record('orders', id));
      await waitFor(() => !watcher.stale, { timeoutMs: 12_000, what: 'the watcher to be fresh' });
      expect(ids(watcher.current ?? []).length).toBeGreaterThanOrEqual(3); // with half of them back it is believed
      await waitFor(() => watcher.current?.length === 6, { what: 'all to be back' });
      const first = await Promise.race([next, quiet(500)]); // none, if all were back when it was believed
      if (first) expect(ids(first.value ?? []).length).toBeGreaterThanOrEqual(3);
    },
    { timeoutMs: 60_000 },
  );

  it(
    'a loss of half or less after a break is delivered at once',
    async (scope) => {
      const registry = await scope.connect({ emptyGraceMs: 60_000 });
      for (const id of fleet) await scope.put('orders', id, record('orders', id));
      const watcher = registry.watch('orders');
      await nextList(watcher);
      await scope.outage();
      await waitFor(() => watcher.stale, { timeoutMs: 20_000, what: 'the watcher to be stale' });
      for (const id of ['a', 'b', 'c']) await scope.remove('orders', id);
      await scope.restore();
      expect(ids(await nextList(watcher, 15_000))).toEqual(['d', 'e', 'f']);
    },
    { timeoutMs: 60_000 },
  );

  it(
    'emptyGraceMs: 0 turns it off: the truth comes at once',
    async (scope) => {
      const registry = await scope.connect({ emptyGraceMs: 0 });
      for (const id of fleet) await scope.put('orders', id, record('orders', id));
      const watcher = registry.watch('orders');
      await nextList(watcher);
      await scope.outage();
      await waitFor(() => watcher.stale, { timeoutMs: 20_000, what: 'the watcher to be stale' });
      await scope.wipe();
      await scope.restore();
      expect(await nextList(watcher, 13_000)).toEqual([]); // reconnecting may take one back-off of 10 s
    },
    { timeoutMs: 60_000 },
  );

  it('without a break there is no grace: the leaving of all is delivered at once', async (scope) => {
    const registry = await scope.connect({ emptyGraceMs: 60_000 });
    for (const id of fleet) await scope.put('orders', id, record('orders', id));
    const watcher = registry.watch('orders');
    await nextList(watcher);
    for (const id of fleet) await scope.remove('orders', id);
    await listsUntil(watcher, [], 5000);
    expect(watcher.stale).toBe(false);
  });

  it(
    'the default grace is 15 s',
    async (scope) => {
      const registry = await scope.connect();
      for (const id of fleet) await scope.put('orders', id, record('orders', id));
      const watcher = registry.watch('orders');
      await nextList(watcher);
      await scope.outage();
      await waitFor(() => watcher.stale, { timeoutMs: 20_000, what: 'the watcher to be stale' });
      await scope.wipe();
      await scope.restore();
      const start = performance.now();
      expect(await nextList(watcher, 32_000)).toEqual([]);
      expect(performance.now() - start).toBeGreaterThan(14_000);
      expect(performance.now() - start).toBeLessThan(28_000); // 15 s from the first read after the break; the way back takes up to 10 s
    },
    { timeoutMs: 75_000 },
  );

  it(
    'a list put back together by its owners is not shown half: the grace covers the return of a fleet',
    async (scope) => {
      const [registry, owner] = [await scope.connect({ emptyGraceMs: 30_000 }), await scope.connect()];
      for (const id of fleet) await owner.register({ name: 'orders', id });
      const watcher = registry.watch('orders');
      await nextList(watcher);
      await scope.outage();
      await waitFor(() => watcher.stale, { timeoutMs: 20_000, what: 'the watcher to be stale' });
      await scope.wipe();
      await scope.restore();
      const lists: string[][] = [];
      void (async () => {
        for await (const list of watcher) lists.push(ids(list));
      })();
      // Fresh it is when more than half are back.
      const isWhole = () => !watcher.stale && ids(watcher.current ?? []).join() === fleet.join();
      await waitFor(isWhole, { timeoutMs: 40_000, what: 'the watcher to be fresh and all to be back' });
      await sees(registry, 'orders', fleet);
      for (const list of lists) expect(list.length, 'a list with less than half').toBeGreaterThanOrEqual(3);
    },
    { timeoutMs: 75_000 },
  );
});
