// ZooKeeper servers that stop, freeze, lose their leader or their way to a client; sessions that expire; owners that meet.
// The theme of faults/{outage,cluster,races,lease} with what is ZooKeeper's own. All tests at the same time, because most
// of each is waiting.
import type { Registry, RegistryOptions, ZookeeperOptions } from 'rollcall';
import { connect } from 'rollcall';
import type { TestContext } from 'vitest';
import { describe, expect, test } from 'vitest';
import {
  hear,
  ids,
  inProcess,
  inTime,
  listsUntil,
  nextList,
  quiet,
  refused,
  sees,
  timed,
  waitFor,
} from '../conformance/kit.js';
import { startToxiproxy } from '../support/toxiproxy.js';
import type { ZookeeperOptions as ServerOptions, ZookeeperEnsemble } from '../support/zookeeper.js';
import { startZookeeper } from '../support/zookeeper.js';
import { expireSession, type ZkClient } from '../support/zookeeper-client.js';
import { connected, wayTo } from './kit.js';

const instance = { name: 'orders', id: 'a', version: '1', metadata: { zone: 'a' } };
const PATH = '/microservices/orders/a';

type Finish = Pick<TestContext, 'onTestFinished'>;

async function server({ onTestFinished }: Finish, options: ServerOptions = {}): Promise<ZookeeperEnsemble> {
  const zookeeper = await startZookeeper(options);
  onTestFinished(() => zookeeper.close());
  return zookeeper;
}

const optionsFor = (hosts: readonly string[], more: Partial<ZookeeperOptions> = {}): RegistryOptions => ({
  backend: 'zookeeper',
  hosts: [...hosts],
  ttlMs: 4000,
  logger: false, // faults are what these tests are about
  ...more,
});

async function client(
  context: Finish,
  hosts: readonly string[],
  more: Partial<ZookeeperOptions> = {},
): Promise<Registry> {
  return connected(context, optionsFor(hosts, more));
}

const heldBy = async (around: ZkClient, path = PATH): Promise<bigint | undefined> =>
  (await around.get(path))?.stat.ephemeralOwner;

/** Which member the owner of the instance is connected to. */
async function memberOf(zookeeper: ZookeeperEnsemble): Promise<number> {
  const session = `sid=0x${((await heldBy(await zookeeper.client())) as bigint).toString(16)},`;
  const connections = await Promise.all(zookeeper.members.map((member) => member.ask('cons')));
  const index = connections.findIndex((told) => told.includes(session));
  expect(index, connections.join('\n')).toBeGreaterThanOrEqual(0);
  return index;
}

describe.concurrent('a single ZooKeeper', { timeout: 90_000 }, () => {
  test('killed and started again within the TTL: nothing fires, and the session is the same', async (context) => {
    const zookeeper = await server(context);
    const registry = await client(context, zookeeper.hosts, { ttlMs: 15_000 });
    const registration = await registry.register(instance);
    const heard = hear(registration);
    const watcher = registry.watch('orders');
    await nextList(watcher);
    const session = await heldBy(await zookeeper.client());
    await zookeeper.kill();
    await waitFor(() => watcher.stale, { what: 'the watch to be stale' });
    await zookeeper.start();
    await waitFor(() => !watcher.stale, { timeoutMs: 15_000, what: 'the watch to be fresh' });
    await quiet(15_000); // one TTL: without a renewal the loss would be told by now
    expect(heard.events).toEqual([]);
    expect(await heldBy(await zookeeper.client())).toBe(session);
  });

  test('away for longer than the TTL: one lost, one restored, the change wanted meanwhile, and never what was deregistered', async (context) => {
    const zookeeper = await server(context);
    const registry = await client(context, zookeeper.hosts);
    const registrations = await Promise.all(['a', 'b', 'c'].map((id) => registry.register({ ...instance, id })));
    const heard = registrations.map(hear);
    await zookeeper.kill();
    await waitFor(() => registrations.every(({ state }) => state === 'lost'), {
      timeoutMs: 10_000,
      what: 'the losses',
    });
    await registrations[1]?.update({ version: '2' }, { timeoutMs: 300 }).catch(() => undefined);
    await refused(registrations[2]?.deregister({ timeoutMs: 300 }) ?? Promise.resolve(), 'ERR_TIMEOUT');
    await zookeeper.start();
    const other = await client(context, zookeeper.hosts);
    await sees(other, 'orders', ['a', 'b'], 20_000);
    // What the session of before has left stands until it is replaced.
    await waitFor(async () => (await other.getService('orders', { consistent: true }))[1]?.version === '2', {
      timeoutMs: 20_000,
      what: 'the change',
    });
    const until = performance.now() + 5000; // longer than the session of before could live
    while (performance.now() < until) {
      expect(ids(await other.getService('orders', { consistent: true }))).not.toContain('c');
      await quiet(100);
    }
    expect(heard.map(({ events }) => events)).toEqual([['lost', 'restored'], ['lost', 'restored'], ['lost']]);
  });

  test('frozen by SIGSTOP for less than the TTL: nothing fires', async (context) => {
    const zookeeper = await server(context);
    const registry = await client(context, zookeeper.hosts, { ttlMs: 15_000 });
    const registration = await registry.register(instance);
    const heard = hear(registration);
    zookeeper.freeze();
    const { ms } = await timed(
      refused(registry.getService('orders', { timeoutMs: 500 }), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']),
    );
    expect(ms).toBeLessThan(inTime(1500));
    await quiet(4000); // the length of the outage
    zookeeper.thaw();
    await sees(registry, 'orders', ['a']);
    await quiet(15_000); // one TTL
    expect(heard.events).toEqual([]);
  });

  test('frozen by SIGSTOP for longer than the TTL: one lost, one restored', async (context) => {
    const zookeeper = await server(context);
    const registry = await client(context, zookeeper.hosts);
    const registration = await registry.register(instance);
    const heard = hear(registration);
    const start = performance.now();
    zookeeper.freeze();
    await waitFor(() => registration.state === 'lost', { timeoutMs: 12_000, what: 'the loss' });
    // The crate says that it heard nothing only when it gives the connection up, at 2/5 of the TTL.
    expect(performance.now() - start).toBeGreaterThan(4000);
    expect(performance.now() - start).toBeLessThan(4000 * 1.4 + 1500);
    zookeeper.thaw();
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: 20_000, what: '"restored"' });
    await quiet(5000); // a session of before that expires now must not take the node with it
    await sees(registry, 'orders', ['a']);
    expect(heard.events).toEqual(['lost', 'restored']);
  });

  test('with TLS: the authority is checked, the name may be another, and a client certificate is shown', async (context) => {
    const zookeeper = await server(context, { tls: 'mutual' });
    const { ca, client: own, stranger } = zookeeper.certificates ?? expect.fail('no certificates');
    const tls = { caFile: ca.certFile, certFile: own.certFile, keyFile: own.keyFile };
    const registry = await client(context, zookeeper.hosts, { tls });
    await registry.register(instance);
    await sees(registry, 'orders', ['a']);
    await sees(await client(context, zookeeper.hosts, { tls: { ...tls, serverName: 'localhost' } }), 'orders', ['a']);
    for (const wrong of [
      { ...tls, caFile: stranger.certFile },
      { ...tls, serverName: 'elsewhere.example' },
      { caFile: ca.certFile },
    ]) {
      await refused(client(context, zookeeper.hosts, { tls: wrong, connectTimeoutMs: 1500 }), [
        'ERR_UNAVAILABLE',
        'ERR_TIMEOUT',
      ]);
    }
  });

  test('restored from nothing: registrations return, the parents as well', async (context) => {
    const zookeeper = await server(context);
    const registry = await client(context, zookeeper.hosts, { prefix: '/a/b/c' });
    const registration = await registry.register(instance);
    const heard = hear(registration);
    const watcher = registry.watch('orders');
    await nextList(watcher);
    await zookeeper.wipe();
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: 25_000, what: '"restored"' });
    await sees(registry, 'orders', ['a']);
    await waitFor(() => !watcher.stale, { timeoutMs: 15_000, what: 'the watch to be fresh' });
    expect(ids(watcher.current ?? [])).toEqual(['a']);
    expect(heard.events).toEqual(['lost', 'restored']);
  });

  test('a session that expires takes all with it: each comes back once, what was deregistered does not', async (context) => {
    const zookeeper = await server(context);
    const registry = await client(context, zookeeper.hosts);
    const around = await zookeeper.client();
    const registrations = await Promise.all(['a', 'b', 'c'].map((id) => registry.register({ ...instance, id })));
    const heard = registrations.map(hear);
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a', 'b', 'c']);
    await registrations[2]?.deregister();
    const before = (await heldBy(around)) as bigint;
    expect(await heldBy(around, '/microservices/orders/b'), 'one session for all').toBe(before);
    await expireSession(zookeeper.hosts[0] as string, before);
    await waitFor(() => heard[0]?.count('restored') === 1 && heard[1]?.count('restored') === 1, {
      timeoutMs: 12_000,
      what: 'both to be restored',
    });
    const after = await heldBy(around);
    expect(after).not.toBe(before);
    expect(await heldBy(around, '/microservices/orders/b'), 'one session for all').toBe(after);
    await quiet(2000); // a third that came back by mistake would have, by the first tries of the back-off
    expect((await around.children('/microservices/orders')).sort()).toEqual(['a', 'b']);
    expect(heard.map(({ events }) => events)).toEqual([['lost', 'restored'], ['lost', 'restored'], []]);
  });

  test('the server grants another timeout than was asked for: the granted one counts', async (context) => {
    const zookeeper = await server(context, { tickTime: 2000, sessionTimeouts: { min: 4000, max: 40_000 } });
    const link = await wayTo(context, zookeeper.hosts[0] as string);
    const registry = await client(context, [link.host], { ttlMs: 1000 });
    const registration = await registry.register(instance);
    const start = performance.now();
    link.setEnabled(false);
    await waitFor(() => registration.state === 'lost', { timeoutMs: 12_000, what: 'the loss' });
    expect(performance.now() - start, '1 s became 4 s').toBeGreaterThan(3000);
  });

  test('a process that was killed and is started again with the same id takes over at once', async (context) => {
    const zookeeper = await server(context);
    const options = optionsFor(zookeeper.hosts, { ttlMs: 30_000 });
    const first = inProcess(options, [['register', instance], ['hold']]);
    context.onTestFinished(() => first.stop());
    await first.until('register:done');
    await first.stop();
    const registry = await client(context, zookeeper.hosts, { ttlMs: 30_000 });
    const { ms, value: second } = await timed(registry.register({ ...instance, version: '2' }));
    expect(ms).toBeLessThan(inTime(3000));
    const around = await zookeeper.client();
    expect((await around.get(PATH))?.value).toContain('"version":"2"');
    await second?.deregister();
    expect(await around.get(PATH)).toBeUndefined();
  });

  test('ten clients claim one id at once: one stands, nine are replaced, and the record is its own', async (context) => {
    const zookeeper = await server(context);
    const clients = await Promise.all(Array.from({ length: 10 }, () => client(context, zookeeper.hosts)));
    const all = await Promise.all(clients.map((one, i) => one.register({ ...instance, version: String(i) })));
    await waitFor(() => all.filter(({ state }) => state === 'replaced').length === 9, {
      timeoutMs: 10_000,
      what: 'nine to be replaced',
    });
    const standing = all.find(({ state }) => state === 'registered');
    const [seen] = await (clients[0] as Registry).getService('orders', { consistent: true });
    expect(seen?.version).toBe(standing?.instance.version);
  });

  test('the node of a newer owner never has a version that an older one knows: a late guarded deletion misses it', async (context) => {
    const zookeeper = await server(context);
    const around = await zookeeper.client();
    let last = -1;
    for (let round = 0; round < 5; round++) {
      const owner = await client(context, zookeeper.hosts);
      await owner.register({ ...instance, version: String(round) });
      const version = (await around.get(PATH))?.stat.version as number;
      expect(version).toBeGreaterThan(last);
      await expect(around.delete(PATH, last < 0 ? 99 : last)).rejects.toThrow('-103'); // bad version
      last = version;
    }
  });

  test('a record that someone else overwrites is put right, and tells so', async (context) => {
    const zookeeper = await server(context);
    const registry = await client(context, zookeeper.hosts);
    const heard = hear(await registry.register(instance));
    const around = await zookeeper.client();
    await around.set(PATH, 'rubbish');
    await waitFor(() => heard.count('restored') === 1, { what: '"restored"' });
    expect((await around.get(PATH))?.value).toContain('"zone":"a"');
    expect(heard.events).toEqual(['lost', 'restored']);
  });

  test('the answer of an update is lost: it is published, no false replaced', async (context) => {
    const zookeeper = await server(context);
    const link = await wayTo(context, zookeeper.hosts[0] as string);
    const registry = await client(context, [link.host], { ttlMs: 15_000 });
    const registration = await registry.register(instance);
    const heard = hear(registration);
    link.dropAnswers(true);
    await refused(registration.update({ version: '2' }, { timeoutMs: 500 }), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
    link.setEnabled(false);
    link.dropAnswers(false);
    link.setEnabled(true);
    const around = await zookeeper.client();
    await waitFor(async () => (await around.get(PATH))?.value.includes('"version":"2"'), { what: 'version 2' });
    await waitFor(() => registration.state === 'registered', { what: 'the state' });
    await quiet(2000); // the look at the own node after the break is over
    expect(heard.events).toEqual([]);
  });

  test('the answer of a registration is lost: registered once, no false replaced, and nothing left behind', async (context) => {
    const zookeeper = await server(context);
    const link = await wayTo(context, zookeeper.hosts[0] as string);
    const around = await zookeeper.client();
    await around.createAll('/microservices/orders'); // so that one request registers
    const registry = await client(context, [link.host], { ttlMs: 15_000, timeoutMs: 1000 });
    link.dropAnswers(true);
    const registering = registry.register(instance, { timeoutMs: 15_000 });
    await waitFor(() => around.get(PATH), { what: 'the node, whose answer is lost' });
    link.setEnabled(false);
    link.dropAnswers(false);
    link.setEnabled(true);
    const registration = await registering;
    const heard = hear(registration);
    await quiet(2000); // the look at the own node is over
    expect([registration.state, heard.events]).toEqual(['registered', []]);
    await registration.deregister();
    expect(await around.get(PATH)).toBeUndefined();
  });

  test('close() ends the session: its nodes are gone at once, whatever its timeout', async (context) => {
    const zookeeper = await server(context);
    const registry = await connect(optionsFor(zookeeper.hosts, { ttlMs: 60_000 }));
    await registry.register(instance);
    const around = await zookeeper.client();
    const session = (await heldBy(around)) as bigint;
    await registry.close();
    expect(await around.get(PATH)).toBeUndefined();
    await expect(expireSession(zookeeper.hosts[0] as string, session)).rejects.toThrow('no session');
  });
});

describe.concurrent('an ensemble of three', { timeout: 120_000 }, () => {
  test('whose leader is killed: nothing fires, and reading, watching and registering go on', async (context) => {
    const zookeeper = await server(context, { members: 3 });
    const registry = await client(context, zookeeper.hosts, { ttlMs: 15_000 });
    const heard = hear(await registry.register(instance));
    const watcher = registry.watch('orders');
    await nextList(watcher);
    await (await zookeeper.leader()).kill();
    await registry.register({ ...instance, id: 'b' }, { timeoutMs: 15_000 });
    await listsUntil(watcher, ['a', 'b'], 15_000);
    await quiet(10_000); // a loss by the change of leaders would be told by now
    expect(heard.events).toEqual([]);
    await sees(registry, 'orders', ['a', 'b']);
  });

  test('whose member is frozen: its clients leave it for the others', async (context) => {
    const zookeeper = await server(context, { members: 3 });
    const registry = await client(context, zookeeper.hosts, { ttlMs: 10_000 });
    const heard = hear(await registry.register(instance));
    const victim = zookeeper.members[await memberOf(zookeeper)];
    victim?.freeze();
    await registry.register({ ...instance, id: 'b' }, { timeoutMs: 20_000 });
    await quiet(10_000); // one TTL
    expect(heard.events).toEqual([]);
    victim?.thaw();
    await sees(registry, 'orders', ['a', 'b']);
  });

  test('without a quorum: calls fail in time, the watch is stale, and all returns with the quorum', async (context) => {
    const zookeeper = await server(context, { members: 3 });
    const registry = await client(context, zookeeper.hosts);
    const registration = await registry.register(instance);
    const heard = hear(registration);
    const watcher = registry.watch('orders');
    await nextList(watcher);
    const [first, second] = zookeeper.members;
    await first?.kill();
    await second?.kill();
    await waitFor(() => watcher.stale, { timeoutMs: 20_000, what: 'the watch to be stale' });
    const { ms } = await timed(
      refused(registry.register({ ...instance, id: 'b' }, { timeoutMs: 1000 }), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']),
    );
    expect(ms).toBeLessThan(inTime(2000));
    await waitFor(() => registration.state === 'lost', { timeoutMs: 15_000, what: 'the loss' });
    await refused(connect(optionsFor(zookeeper.hosts, { connectTimeoutMs: 1500 })), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
    await zookeeper.start();
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: 30_000, what: '"restored"' });
    await waitFor(() => !watcher.stale, { timeoutMs: 20_000, what: 'the watch to be fresh' });
    await sees(registry, 'orders', ['a']);
    expect(heard.events).toEqual(['lost', 'restored']);
  });

  test('of which a client is partitioned: the black hole is noticed and left, nothing fires', async (context) => {
    const zookeeper = await server(context, { members: 3 });
    const toxiproxy = await startToxiproxy();
    context.onTestFinished(() => toxiproxy.close());
    const ways = await Promise.all(zookeeper.hosts.map((host) => toxiproxy.proxy(host)));
    const registry = await client(
      context,
      ways.map(({ host }) => host),
      { ttlMs: 10_000 },
    );
    const registration = await registry.register(instance);
    const heard = hear(registration);
    const watcher = registry.watch('orders');
    await nextList(watcher);
    await ways[await memberOf(zookeeper)]?.timeout();
    const other = await client(context, zookeeper.hosts);
    await other.register({ ...instance, id: 'b' });
    await listsUntil(watcher, ['a', 'b'], 20_000);
    await quiet(10_000); // one TTL
    expect(heard.events).toEqual([]);
    // All of them, for longer than the TTL.
    await Promise.all(ways.map((way) => way.timeout().catch(() => undefined)));
    await waitFor(() => registration.state === 'lost', { timeoutMs: 20_000, what: 'the loss' });
    await sees(other, 'orders', ['b'], 20_000);
    await Promise.all(ways.map((way) => way.clear()));
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: 30_000, what: '"restored"' });
    await sees(other, 'orders', ['a', 'b']);
    expect(heard.events).toEqual(['lost', 'restored']);
  });
});
