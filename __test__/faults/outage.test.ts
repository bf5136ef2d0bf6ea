// Real servers that stop, freeze, fall back to nothing, and come back. One server per test; all tests at the same time,
// because most of each is waiting.
import { describe, expect, test } from 'vitest';
import {
  hear,
  ids,
  inTime,
  listsUntil,
  nextList,
  quiet,
  refused,
  sees,
  timed,
  waitFor,
  within,
} from '../conformance/kit.js';
import { ETCD_VERSIONS } from '../support/etcd.js';
import { client, server } from './kit.js';

const instance = { name: 'orders', id: 'a', version: '1', metadata: { zone: 'a' } };

describe.concurrent.each(ETCD_VERSIONS)('etcd %s', (version) => {
  test('stopped for 5 s with the default TTL: nothing fires', { timeout: 60_000 }, async (context) => {
    const etcd = await server(context, { version });
    const registry = await client(context, etcd);
    const registration = await registry.register(instance);
    const heard = hear(registration);
    const lease = await etcd.leaseOf('/microservices/orders/a');
    await etcd.stop();
    await quiet(5000); // the length of the outage
    expect(registration.state).toBe('registered');
    await etcd.start();
    await quiet(17_000); // one default TTL: without a renewal the loss would be told by now
    expect(heard.events).toEqual([]);
    expect(await etcd.leaseOf('/microservices/orders/a')).toBe(lease);
    await sees(registry, 'orders', ['a']);
  });

  test('stopped for 60 s with the default TTL: the instance is back after it, with one lost and one restored', {
    timeout: 150_000,
  }, async (context) => {
    const etcd = await server(context, { version });
    const registry = await client(context, etcd);
    const other = await client(context, etcd);
    const registrations = await Promise.all(['a', 'b', 'c'].map((id) => registry.register({ ...instance, id })));
    const heard = registrations.map(hear);
    const watcher = other.watch('orders');
    const list = await nextList(watcher);
    const lists: string[][] = [];
    void (async () => {
      for await (const next of watcher) lists.push(ids(next));
    })();
    await etcd.kill();
    const start = performance.now();
    await waitFor(() => registrations.every(({ state }) => state === 'lost'), {
      timeoutMs: 25_000,
      what: 'the losses',
    });
    const lostAfter = performance.now() - start;
    expect(lostAfter, 'lost is judged by the TTL').toBeGreaterThan(9000);
    expect(lostAfter).toBeLessThan(17_000);
    await quiet(30_000 - (performance.now() - start)); // half of the outage
    await registrations[1]?.update({ version: '2' }, { timeoutMs: 500 }).catch(() => undefined);
    await refused(registrations[2]?.deregister({ timeoutMs: 500 }) ?? Promise.resolve(), 'ERR_TIMEOUT');
    const late = await registry.register({ ...instance, id: 'd' }, { background: true });
    expect([late.state, watcher.stale, other.watch('orders').name]).toEqual(['registering', true, 'orders']);
    expect(await other.getService('orders')).toEqual(list);
    await quiet(60_000 - (performance.now() - start)); // the rest of it
    expect(heard.map(({ events }) => events)).toEqual([['lost'], ['lost'], ['lost']]);
    expect(lists, 'an outage delivers nothing').toEqual([]);
    await etcd.start();
    const back = performance.now();
    await waitFor(() => heard[0]?.count('restored') === 1 && heard[1]?.count('restored') === 1, {
      timeoutMs: 13_000,
      what: '"restored"',
    });
    expect(performance.now() - back, 'the ceiling of the back-off is 10 s').toBeLessThan(12_000);
    await sees(registry, 'orders', ['a', 'b', 'd'], 15_000);
    expect((await registry.getService('orders', { consistent: true }))[1]?.version).toBe('2');
    await waitFor(() => !watcher.stale && lists.at(-1)?.join() === 'a,b,d', {
      timeoutMs: 15_000,
      what: 'the watch to catch up',
    });
    expect(heard.map(({ events }) => events)).toEqual([['lost', 'restored'], ['lost', 'restored'], ['lost']]);
  });

  test('frozen by SIGSTOP for less than the TTL: nothing fires, calls time out, and all goes on', {
    timeout: 60_000,
  }, async (context) => {
    const etcd = await server(context, { version });
    const registry = await client(context, etcd);
    const registration = await registry.register(instance);
    const heard = hear(registration);
    const watcher = registry.watch('orders');
    await nextList(watcher);
    etcd.freeze();
    const { ms, error } = await timed(registry.getService('orders', { consistent: true, timeoutMs: 1000 }));
    await refused(Promise.reject(error), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
    expect(ms).toBeLessThan(inTime(1800));
    await quiet(5000); // together less than half of the default TTL
    etcd.thaw();
    await etcd.put('/microservices/orders/b', '{"id":"b","name":"orders"}');
    await listsUntil(watcher, ['a', 'b'], 20_000);
    await quiet(16_000); // one default TTL, as above
    expect(heard.events).toEqual([]);
  });

  test('frozen by SIGSTOP for longer than the TTL: one lost, one restored; the watch is stale and then fresh', {
    timeout: 90_000,
  }, async (context) => {
    const etcd = await server(context, { version });
    const registry = await client(context, etcd, { ttlMs: 5000, keepAliveMs: 5000, keepAliveTimeoutMs: 2000 });
    const registration = await registry.register(instance);
    const heard = hear(registration);
    const watcher = registry.watch('orders');
    await nextList(watcher);
    etcd.freeze();
    await waitFor(() => registration.state === 'lost', { timeoutMs: 9000, what: 'the loss' });
    await waitFor(() => watcher.stale, { timeoutMs: 15_000, what: 'the watcher to notice a silent server' });
    const { ms } = await timed(registry.register({ ...instance, id: 'b' }, { timeoutMs: 1000 }));
    expect(ms).toBeLessThan(inTime(1800));
    etcd.thaw();
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: 15_000, what: '"restored"' });
    await waitFor(() => !watcher.stale, { timeoutMs: 15_000, what: 'the watcher to be fresh' });
    await sees(registry, 'orders', ['a'], 10_000); // b was refused: it must not have come, or must be taken back
    await quiet(3000); // the tries of a registration that should have been given up
    await sees(registry, 'orders', ['a']);
    expect(heard.events).toEqual(['lost', 'restored']);
  });

  test('restored from nothing: registrations return, and the watch shows no half list', {
    timeout: 90_000,
  }, async (context) => {
    const etcd = await server(context, { version });
    const registry = await client(context, etcd, { ttlMs: 3000 });
    const fleet = Array.from({ length: 20 }, (_, i) => String(i).padStart(2, '0'));
    for (let i = 0; i < 30; i++) await etcd.put('/filler', String(i)); // so that the revision goes far back
    const heard = await Promise.all(fleet.map(async (id) => hear(await registry.register({ ...instance, id }))));
    const other = await client(context, etcd, { ttlMs: 3000 });
    const watcher = other.watch('orders');
    expect(await nextList(watcher)).toHaveLength(20);
    const lists: number[] = [];
    void (async () => {
      for await (const list of watcher) lists.push(list.length);
    })();
    await etcd.wipe();
    await waitFor(() => heard.every((one) => one.count('restored') === 1), {
      timeoutMs: 30_000,
      what: 'all to be back',
    });
    await waitFor(() => !watcher.stale, { timeoutMs: 15_000, what: 'the watcher to be fresh' });
    expect(Math.min(20, ...lists)).toBeGreaterThanOrEqual(10);
    expect(ids(watcher.current ?? [])).toEqual(fleet);
    for (const { events } of heard) expect(events).toEqual(['lost', 'restored']);
    await etcd.put('/microservices/orders/zz', '{"id":"zz","name":"orders"}');
    await waitFor(() => watcher.current?.length === 21, {
      timeoutMs: 5000,
      what: 'the watch to go on in the new history',
    });
  });

  test('deregister() during an outage, which ends: the record goes, and never comes back', {
    timeout: 60_000,
  }, async (context) => {
    const etcd = await server(context, { version });
    const registry = await client(context, etcd, { ttlMs: 60_000 });
    const registration = await registry.register(instance);
    await etcd.kill();
    const { ms, error } = await timed(registration.deregister({ timeoutMs: 1000 }));
    await refused(Promise.reject(error), 'ERR_TIMEOUT');
    expect(ms).toBeLessThan(inTime(1800));
    await etcd.start();
    await waitFor(async () => (await etcd.get('/microservices/orders/a')) === null, {
      timeoutMs: 15_000,
      what: 'the removal in the background',
    });
    await waitFor(async () => (await etcd.leases()).length === 0, { timeoutMs: 5000, what: 'the lease to go' });
    await quiet(5000); // several back-offs of a repair that should be dead
    expect(await etcd.get('/microservices/orders/a')).toBeNull();
  });

  test('restarted while an instance is out of traffic: it stays out, and comes back when it is restored', {
    timeout: 60_000,
  }, async (context) => {
    const etcd = await server(context, { version });
    const registry = await client(context, etcd, { ttlMs: 3000 });
    const [out, late, in_] = await Promise.all(['a', 'b', 'c'].map((id) => registry.register({ ...instance, id })));
    if (!out || !late || !in_) throw new Error('no registration');
    const heard = hear(out);
    await out.withdraw('unhealthy');
    await etcd.kill();
    await refused(late.withdraw('withdrawn', { timeoutMs: 500 }), 'ERR_TIMEOUT');
    await out.update({ version: '2' });
    await quiet(4000); // longer than the TTL: what stood expires, if the server counts on
    await etcd.start();
    await waitFor(() => in_.state === 'registered', { timeoutMs: 15_000, what: 'the repair of what is wanted' });
    await late.withdraw('withdrawn', { timeoutMs: 15_000 });
    await sees(registry, 'orders', ['c'], 15_000);
    await quiet(5000); // several back-offs of a repair that should not be
    await sees(registry, 'orders', ['c']);
    await Promise.all([out.restore('unhealthy'), late.restore()]);
    const list = await sees(registry, 'orders', ['a', 'b', 'c']);
    expect(list[0]?.version).toBe('2');
    await waitFor(() => heard.count('in') === 1, { what: '"in"' });
    expect(heard.events).toEqual(['out unhealthy', 'in']);
    expect(await etcd.leases()).toHaveLength(3);
  });

  test('compaction while a watch is disconnected, with the server down in between', {
    timeout: 60_000,
  }, async (context) => {
    const etcd = await server(context, { version });
    const registry = await client(context, etcd, { ttlMs: 3000 });
    await etcd.put('/microservices/orders/a', '{"id":"a","name":"orders"}');
    await etcd.put('/microservices/orders/b', '{"id":"b","name":"orders"}');
    await etcd.put('/microservices/orders/c', '{"id":"c","name":"orders"}');
    const watcher = registry.watch('orders');
    expect(await nextList(watcher)).toHaveLength(3);
    etcd.freeze();
    await etcd.kill();
    await etcd.start();
    await etcd.put('/microservices/orders/d', '{"id":"d","name":"orders"}');
    await etcd.del('/microservices/orders/a');
    await etcd.compact();
    await listsUntil(watcher, ['b', 'c', 'd'], 20_000);
    expect(watcher.stale).toBe(false);
  });

  test('close() while the server is frozen ends in its bound, and the process can go', {
    timeout: 60_000,
  }, async (context) => {
    const etcd = await server(context, { version });
    const registry = await client(context, etcd);
    await registry.register(instance);
    await nextList(registry.watch('orders'));
    etcd.freeze();
    const { ms } = await timed(within(registry.close({ timeoutMs: 1500 }), 5000, 'close()'));
    expect(ms).toBeLessThan(inTime(2500));
    etcd.thaw();
  });
});
