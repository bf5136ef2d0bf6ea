// A cluster of three members that loses one, and then its majority.
import { describe, expect, test } from 'vitest';
import { hear, listsUntil, nextList, quiet, refused, sees, waitFor } from '../conformance/kit.js';
import type { EtcdMember } from '../support/etcd.js';
import { ETCD_VERSIONS } from '../support/etcd.js';
import { client, server } from './kit.js';

const instance = { name: 'orders', id: 'a' };
const record = (id: string): string => JSON.stringify({ id, name: 'orders' });

describe.each(ETCD_VERSIONS)('a cluster of three, etcd %s', (version) => {
  test('whose leader is killed: nothing fires, and reading, watching and registering go on', {
    timeout: 90_000,
  }, async (context) => {
    const etcd = await server(context, { version, members: 3 });
    const leader = await etcd.leader();
    // Clients that know the members in different orders: one begins at the leader, the other elsewhere.
    const rest = etcd.hosts.filter((host) => host !== leader.host);
    const registries = [
      await client(context, etcd, { hosts: [leader.host, ...rest], ttlMs: 10_000 }),
      await client(context, etcd, { hosts: [...rest, leader.host], ttlMs: 10_000 }),
    ];
    const heards = await Promise.all(
      registries.map(async (registry, i) => hear(await registry.register({ ...instance, id: `r${i}` }))),
    );
    const watchers = registries.map((registry) => registry.watch('orders'));
    for (const watcher of watchers) await listsUntil(watcher, ['r0', 'r1']);
    await leader.kill();
    await etcd.leader();
    for (const registry of registries) {
      await waitFor(
        () =>
          registry.getService('orders', { consistent: true, timeoutMs: 3000 }).then(
            (list) => list.length === 2,
            () => false,
          ),
        {
          timeoutMs: 15_000,
          what: 'reading to go on',
        },
      );
    }
    await waitFor(() => etcd.put('/microservices/orders/x', record('x')).then(() => true), {
      timeoutMs: 10_000,
      what: 'a write',
    });
    for (const watcher of watchers) await listsUntil(watcher, ['r0', 'r1', 'x'], 20_000);
    const late = await registries[0]?.register({ ...instance, id: 'r2' });
    expect(late?.state).toBe('registered');
    await quiet(11_000); // one TTL: without renewal at the new leader the loss would be told by now
    for (const { events } of heards) expect(events).toEqual([]);
    await leader.start();
    await sees(registries[1] as never, 'orders', ['r0', 'r1', 'r2', 'x']);
  });

  test('whose leader is frozen: clients leave it for the others', { timeout: 90_000 }, async (context) => {
    const etcd = await server(context, { version, members: 3 });
    const leader = await etcd.leader();
    const rest = etcd.hosts.filter((host) => host !== leader.host);
    const registry = await client(context, etcd, {
      hosts: [leader.host, ...rest],
      ttlMs: 30_000,
      keepAliveMs: 5000,
      keepAliveTimeoutMs: 2000,
    });
    const heard = hear(await registry.register(instance));
    const watcher = registry.watch('orders');
    await nextList(watcher);
    leader.freeze();
    await waitFor(
      () =>
        registry.getService('orders', { consistent: true, timeoutMs: 3000 }).then(
          () => true,
          () => false,
        ),
      {
        timeoutMs: 25_000,
        what: 'reading to go on',
      },
    );
    await registry.register({ ...instance, id: 'b' });
    await listsUntil(watcher, ['a', 'b'], 25_000);
    leader.thaw();
    expect(heard.events).toEqual([]);
  });

  test('without a majority: calls fail in time, the watch is stale, and all returns with the majority', {
    timeout: 90_000,
  }, async (context) => {
    const etcd = await server(context, { version, members: 3 });
    const registry = await client(context, etcd, { ttlMs: 3000 });
    const registration = await registry.register(instance);
    const heard = hear(registration);
    const watcher = registry.watch('orders');
    await nextList(watcher);
    const [kept, ...others] = etcd.members as [EtcdMember, ...EtcdMember[]];
    await Promise.all(others.map((member) => member.kill()));
    expect(kept.running).toBe(true);
    await refused(registry.getService('orders', { consistent: true, timeoutMs: 1000 }), [
      'ERR_TIMEOUT',
      'ERR_UNAVAILABLE',
    ]);
    await waitFor(() => registration.state === 'lost', { timeoutMs: 10_000, what: 'the loss' });
    await waitFor(() => watcher.stale, { timeoutMs: 20_000, what: 'the watcher to be stale: it asks for a leader' });
    await Promise.all(others.map((member) => member.start()));
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: 20_000, what: '"restored"' });
    await waitFor(() => !watcher.stale, { timeoutMs: 15_000, what: 'the watcher to be fresh' });
    expect(heard.events).toEqual(['lost', 'restored']);
    await registry.register({ ...instance, id: 'b' });
    await listsUntil(watcher, ['a', 'b'], 10_000);
  });

  test('of which some hosts are dead from the start: connect() finds a living one', {
    timeout: 60_000,
  }, async (context) => {
    const etcd = await server(context, { version, members: 3 });
    await etcd.members[0]?.kill();
    await etcd.leader();
    const registry = await client(context, etcd, {
      hosts: [etcd.hosts[0] as string, '127.0.0.1:1', ...etcd.hosts.slice(1)],
      ttlMs: 3000,
    });
    await registry.register(instance);
    await sees(registry, 'orders', ['a']);
  });
});
