// Callers by name on a real etcd that is killed, and comes back.
import { describe, expect, test } from 'vitest';
import { quiet, waitFor } from '../conformance/kit.js';
import { ETCD_VERSIONS } from '../support/etcd.js';
import { client, server } from './kit.js';

const instance = (id: string) => ({ name: 'orders', id, version: '1.0.0', endpoints: [`grpc://10.0.0.${id}:9000`] });

describe.concurrent.each(ETCD_VERSIONS)('etcd %s', (version) => {
  test('an outage longer than the leases costs no pick; a user who comes meanwhile begins with the stale list', {
    timeout: 120_000,
  }, async (context) => {
    const etcd = await server(context, { version });
    const provider = await client(context, etcd, { ttlMs: 3000 });
    const caller = await client(context, etcd, { emptyGraceMs: 15_000 });
    await Promise.all(['1', '2', '3'].map((id) => provider.register(instance(id))));
    const orders = caller.service('orders');
    await orders.ready({ min: 3 });
    const told: string[] = [];
    orders.on('stale', () => told.push('stale')).on('fresh', () => told.push('fresh'));

    const counts = { picked: 0, failed: 0 };
    let over = false;
    const calls = (async () => {
      while (!over) {
        try {
          const picked = orders.pick();
          await quiet(1); // the call
          picked.done();
          counts.picked++;
        } catch {
          counts.failed++;
        }
      }
    })();
    await etcd.kill();
    await waitFor(() => orders.stale, { timeoutMs: 20_000, what: 'the list to be stale' });
    const late = caller.service('orders', { scheme: 'grpc' });
    expect([late.state, (await late.ready()).instances.length]).toEqual(['stale', 3]);
    late.pick().done();
    const unknown = caller.service('payments');
    await expect(unknown.ready({ timeoutMs: 200 })).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    const waiting = unknown.waitFor({ waitForReadyMs: 90_000 });
    await quiet(8000); // every lease has ended when it is over
    await etcd.start();
    await provider.register({ ...instance('9'), name: 'payments' }, { timeoutMs: 60_000 });
    expect((await waiting).instance.id).toBe('9');
    await waitFor(() => orders.state === 'live' && orders.instances.length === 3, {
      timeoutMs: 30_000,
      what: 'the list to be fresh',
    });
    over = true;
    await calls;
    expect(counts.failed).toBe(0);
    expect(counts.picked).toBeGreaterThan(100);
    expect(told[0]).toBe('stale');
    expect(told.at(-1)).toBe('fresh');
  });

  test('2,000 names that are resolved and let go leave no watch at the server', {
    timeout: 120_000,
  }, async (context) => {
    const etcd = await server(context, { version });
    const registry = await client(context, etcd);
    const watchers = async () => {
      const text = await (await fetch(`http://${etcd.hosts[0]}/metrics`)).text();
      return Number(/^etcd_debugging_mvcc_watcher_total (\S+)$/m.exec(text)?.[1]);
    };
    const before = await watchers();
    const lots = Array.from({ length: 2000 }, (_, n) => registry.service(`name-${n}`, { lingerMs: 0 }));
    await Promise.all(lots.map((cache) => cache.ready({ timeoutMs: 60_000 })));
    // A name is ready with its list, and the server counts its watch by and by.
    await waitFor(async () => (await watchers()) === before + 2000, { what: 'the watches' });
    for (const cache of lots) cache.release();
    await waitFor(async () => (await watchers()) === before, { what: 'the watches to end' });
  });
});
