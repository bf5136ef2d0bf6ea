// What befalls nodes of discovery, and what follows: killed, frozen, restarted without anything, two owners of a host name,
// instances that nobody renews.
import type { BilibiliOptions, Registry } from 'rollcall';
import { describe, expect, test } from 'vitest';
import { hear, ids, inProcess, listsUntil, nextList, quiet, sees, timed, waitFor } from '../conformance/kit.js';
import {
  type Discovery,
  ENV,
  type DiscoveryOptions as ServerOptions,
  startDiscovery,
  ZONE,
} from '../support/discovery.js';
import { inTime } from '../support/process.js';
import { connected, type Finish, wayTo } from './kit.js';

const ttlMs = 3000;
/** A thirtieth of the usual times, without protection. */
const FAST = { EVICT_AFTER: '3s', EVICT_EVERY: '500ms', PROTECT_BELOW: '0' };

async function servers({ onTestFinished }: Finish, options: ServerOptions = {}): Promise<Discovery> {
  const discovery = await startDiscovery(options);
  onTestFinished(() => discovery.close());
  return discovery;
}

const optionsFor = (hosts: string | readonly string[], more: Partial<BilibiliOptions> = {}): BilibiliOptions => ({
  ...{ backend: 'bilibili', hosts, zone: ZONE, env: ENV, ttlMs, logger: false },
  ...more,
});

async function client(
  context: Finish,
  hosts: string | readonly string[],
  more: Partial<BilibiliOptions> = {},
): Promise<Registry> {
  return connected(context, optionsFor(hosts, more));
}

const instance = {
  name: 'orders',
  id: 'a',
  version: '1',
  metadata: { colour: 'gray' },
  endpoints: ['http://10.1.2.3:8000', 'grpc://10.1.2.3:9000'],
};

describe.concurrent('one node', () => {
  test('restarted without anything: one lost and one restored for each, watches go on, no list is empty', {
    timeout: 120_000,
  }, async (context) => {
    const { node } = await servers(context);
    const registry = await client(context, node.host);
    const names = Array.from({ length: 20 }, (_, i) => `orders-${i}`);
    const registrations = await Promise.all(names.map((name) => registry.register({ ...instance, name })));
    const heard = registrations.map(hear);
    const reader = await client(context, node.host);
    const watchers = names.map((name) => reader.watch(name));
    await Promise.all(watchers.map((watcher) => listsUntil(watcher, ['a'])));
    const told: string[][] = [];
    for (const watcher of watchers) {
      void (async () => {
        for await (const list of watcher) told.push(ids(list));
      })();
    }
    await node.kill();
    // One that is there again within milliseconds, between two requests, is not known to have been away.
    await waitFor(() => watchers.every((watcher) => watcher.stale), { what: 'the end to be noticed' });
    await node.start();
    for (const one of heard)
      await waitFor(() => one.count('restored') === 1, { timeoutMs: 30_000, what: '"restored"' });
    await waitFor(() => watchers.every((watcher) => !watcher.stale), {
      timeoutMs: 30_000,
      what: 'the watches to go on',
    });
    expect(told.filter((list) => list.length === 0)).toEqual([]);
    for (const { events } of heard) expect(events).toEqual(['lost', 'restored']);
    await node.register(ENV, 'orders-7', 'b');
    await waitFor(() => told.some((list) => list.join() === 'a,b'), { what: 'the news' });
  });

  test('an outage shorter than the TTL fires nothing', async (context) => {
    const { node } = await servers(context);
    const link = await wayTo(context, node.host);
    const registry = await client(context, link.host, { ttlMs: 4 * ttlMs, discoverNodes: false });
    const registration = await registry.register(instance);
    const heard = hear(registration);
    link.setEnabled(false);
    await quiet((4 * ttlMs) / 3); // one interval of renewal passes unheard
    expect(registration.state).toBe('registered');
    link.setEnabled(true);
    await quiet(4 * ttlMs); // if the renewal had not come back, the loss would be told by now
    expect(heard.events).toEqual([]);
  });

  test('the same id in two processes: the older is told within one renewal, and its end leaves the newer record', async (context) => {
    const { node } = await servers(context);
    const first = await client(context, node.host);
    const heard = hear(await first.register(instance));
    const second = await client(context, node.host);
    const newer = await second.register({ ...instance, version: '2' });
    await waitFor(() => heard.count('replaced') === 1, { timeoutMs: ttlMs, what: '"replaced"' });
    await first.close();
    await sees(second, 'orders', ['a']);
    expect(newer.state).toBe('registered');
  });

  test('an instance of Kratos under the same host name is an owner of its own', async (context) => {
    const { node } = await servers(context);
    const registry = await client(context, node.host);
    const heard = hear(await registry.register(instance));
    await node.register(ENV, 'orders', 'a', { version: 'go' });
    await waitFor(() => heard.count('replaced') === 1, { timeoutMs: ttlMs, what: '"replaced"' });
    const [left] = await sees(registry, 'orders', ['a']);
    expect(left?.version).toBe('go');
  });

  test('an update takes a key away, and the record is as Kratos reads it', async (context) => {
    const { node } = await servers(context);
    const registry = await client(context, node.host, { region: 'sh' });
    const registration = await registry.register(instance);
    await registration.update({ metadata: { weight: '10' } });
    const [record] = await node.all(ENV).then((all) => all.filter(({ appid }) => appid === 'orders'));
    expect(record).toMatchObject({ hostname: 'a', zone: ZONE, region: 'sh', version: '1', status: 1 });
    expect(record?.addrs).toEqual(instance.endpoints);
    expect(record?.metadata).toEqual({
      weight: '10',
      'kratos.v2.serviceinstance.id': 'a',
      'rollcall.owner': expect.stringMatching(/^[0-9a-f-]{36}:2$/),
    });
  });

  test('a name that comes to be known is told within about a second, among others that are not', async (context) => {
    const { node } = await servers(context);
    const registry = await client(context, node.host);
    const names = Array.from({ length: 150 }, (_, i) => `maybe-${i}`);
    for (const name of names.slice(0, 100)) await node.register(ENV, name, 'x');
    const watchers = names.map((name) => registry.watch(name));
    const first = await Promise.all(watchers.map((watcher) => nextList(watcher, 30_000)));
    expect(first.map(ids)).toEqual(names.map((_, i) => (i < 100 ? ['x'] : [])));
    const unknown = await timed(
      Promise.all([listsUntil(watchers[130] as never, ['y']), node.register(ENV, 'maybe-130', 'y')]),
    );
    expect(unknown.ms).toBeLessThan(inTime(2000));
    const known = await timed(
      Promise.all([listsUntil(watchers[30] as never, ['x', 'y']), node.register(ENV, 'maybe-30', 'y')]),
    );
    expect(known.ms).toBeLessThan(inTime(1000));
    expect(watchers.filter(({ stale }) => stale)).toEqual([]);
  });

  test('the own zone counts, and others only where it has nothing and zoneFallback says so', async (context) => {
    const { node } = await servers(context);
    await node.register(ENV, 'orders', 'far', { zone: 'sh002' });
    const own = await client(context, node.host);
    const fallback = await client(context, node.host, { zoneFallback: true });
    expect(ids(await own.getService('orders'))).toEqual([]);
    const watcher = fallback.watch('orders');
    expect(ids(await nextList(watcher))).toEqual(['far']);
    expect([await own.services(), await fallback.services()]).toEqual([[], ['orders']]);
    await own.register(instance);
    await listsUntil(watcher, ['a']);
  });

  test('frozen: watches are stale within seconds, nothing is told but that, and all goes on', {
    timeout: 90_000,
  }, async (context) => {
    const { node } = await servers(context);
    const registry = await client(context, node.host, { ttlMs: 60_000 });
    const heard = hear(await registry.register(instance));
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a']);
    node.freeze();
    await waitFor(() => watcher.stale, { timeoutMs: 20_000, what: 'the silence to be noticed' });
    expect(ids(watcher.current ?? [])).toEqual(['a']);
    node.thaw();
    await waitFor(() => !watcher.stale, { timeoutMs: 20_000, what: 'the watch to go on' });
    await node.register(ENV, 'orders', 'b');
    await listsUntil(watcher, ['a', 'b']);
    expect(heard.events).toEqual([]);
  });
});

describe.concurrent('the TTL', () => {
  test('a process that dies is gone after it, by the clock of the server', async (context) => {
    const { node } = await servers(context, { clocks: FAST });
    const registry = await client(context, node.host);
    const owner = inProcess(optionsFor(node.host), [['register', { name: 'orders', id: 'mortal' }]]);
    context.onTestFinished(() => owner.stop());
    await owner.until('register:done');
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['mortal']);
    const died = timed(listsUntil(watcher, [], 15_000));
    await owner.stop();
    const { ms } = await died;
    expect(ms).toBeGreaterThan(1000);
    expect(ms).toBeLessThan(inTime(6000));
  });

  test('a server that protects itself keeps it until its second clock', { timeout: 90_000 }, async (context) => {
    // One of two instances dies, so that far less than 85 % of the renewals arrive.
    const clocks = { EVICT_AFTER: '3s', EVICT_EVERY: '2s', EVICT_PROTECTED_AFTER: '12s' };
    const { node } = await servers(context, { clocks });
    const registry = await client(context, node.host);
    await registry.register(instance);
    const owner = inProcess(optionsFor(node.host), [['register', { name: 'orders', id: 'mortal' }]]);
    context.onTestFinished(() => owner.stop());
    await owner.until('register:done');
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a', 'mortal']);
    const died = timed(listsUntil(watcher, ['a'], 40_000));
    await owner.stop();
    const { ms } = await died;
    expect(ms).toBeGreaterThan(9000);
  });
});

describe.concurrent('two nodes', () => {
  test('what is registered at one is read whole at the other', async (context) => {
    const { hosts } = await servers(context, { nodes: 2 });
    const [one, two] = await Promise.all(hosts.map((host) => client(context, host, { discoverNodes: false })));
    await (one as Registry).register(instance);
    const [read] = await sees(two as Registry, 'orders', ['a']);
    expect(read).toMatchObject({ endpoints: instance.endpoints, metadata: instance.metadata, version: '1' });
  });

  test('the one that was given is killed: all goes on at the other, of which the cluster told; nothing is lost', {
    timeout: 120_000,
  }, async (context) => {
    const { nodes, hosts } = await servers(context, { nodes: 2 });
    const [node, other] = nodes as [(typeof nodes)[0], (typeof nodes)[0]];
    const registry = await client(context, hosts[0] as string, { ttlMs: 12_000 });
    const registration = await registry.register(instance);
    const heard = hear(registration);
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a']);
    let isBroken = false; // it may be over sooner than somebody looks
    watcher.on('stale', () => {
      isBroken = true;
    });
    await node.kill();
    await waitFor(() => isBroken, { what: 'the break' });
    await waitFor(() => !watcher.stale, { timeoutMs: 20_000, what: 'the watch to go on' });
    await registration.update({ version: '2' });
    await other.register(ENV, 'orders', 'b');
    await waitFor(() => ids(watcher.current ?? []).join() === 'a,b', { what: 'the news' });
    expect(watcher.current?.[0]?.version).toBe('2');
    await registration.deregister();
    expect(await other.all(ENV).then((all) => all.some(({ hostname }) => hostname === 'a'))).toBe(false);
    expect(heard.events).toEqual([]);
  });

  test('a peer is frozen, so that writes are taken and never answered: register, update, renewal and the end go on', {
    timeout: 120_000,
  }, async (context) => {
    const { nodes, hosts } = await servers(context, { nodes: 2 });
    const [node, peer] = nodes as [(typeof nodes)[0], (typeof nodes)[0]];
    const registry = await client(context, hosts[0] as string, { ttlMs: 12_000, timeoutMs: 20_000 });
    const standing = await registry.register({ ...instance, id: 'before' });
    const heard = hear(standing);
    peer.freeze();
    const registration = await registry.register(instance);
    await registration.update({ version: '2' });
    await waitFor(async () => (await node.all(ENV)).some(({ version }) => version === '2'), { what: 'the update' });
    // As long as it takes for a renewal that counts for none to be a loss.
    await expect(waitFor(() => heard.events.length > 0, { timeoutMs: 15_000 })).rejects.toThrow();
    await registration.deregister({ timeoutMs: 20_000 });
    expect((await node.all(ENV)).map(({ hostname }) => hostname)).not.toContain('a');
  });
});
