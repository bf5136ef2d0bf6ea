// A registry on the connection of an etcd client: one connection to the server, both survive its restart, and either closes first.
import { readFileSync } from 'node:fs';
import { Etcd3 as NpmEtcd3 } from 'etcd3';
import { type ClosedError, connect, type InvalidArgumentError, type Registry, type RegistryOptions } from 'rollcall';
import { Etcd3, type IOptions } from 'rollcall/etcd';
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest';
import { connectionsOf } from '../support/connections.js';
import { type EtcdCluster, type EtcdOptions, startEtcd } from '../support/etcd.js';
import { uniqueName, waitFor, within } from '../support/process.js';

type Finish = Pick<TestContext, 'onTestFinished'>;

let etcd: EtcdCluster;
beforeAll(async () => {
  etcd = await startEtcd();
});
afterAll(() => etcd?.close());

function clientOf({ onTestFinished }: Finish, { hosts }: EtcdCluster, options: Partial<IOptions> = {}): Etcd3 {
  const client = new Etcd3({ hosts, logger: false, ...options });
  onTestFinished(() => client.close());
  return client;
}

async function registryOf({ onTestFinished }: Finish, options: RegistryOptions): Promise<Registry> {
  const registry = await connect({ ttlMs: 3000, logger: false, ...options });
  onTestFinished(() => registry.close().catch(() => {}));
  return registry;
}

async function own({ onTestFinished }: Finish, options: EtcdOptions = {}): Promise<EtcdCluster> {
  const cluster = await startEtcd(options);
  onTestFinished(() => cluster.close());
  return cluster;
}

const instance = (name: string) => ({ name, id: 'a', endpoints: ['http://10.0.0.1:80'] });

const connectionsTo = ({ hosts }: EtcdCluster) => connectionsOf('self', hosts[0] as string);

async function failure<E>(work: Promise<unknown>): Promise<E> {
  return await work.then(
    () => {
      throw new Error('it went well');
    },
    (error) => error as E,
  );
}

it('has one connection to the server, with all that both do; two of their own have two', async (t) => {
  const cluster = await own(t);
  const client = clientOf(t, cluster);
  const registry = await registryOf(t, { client });
  const name = uniqueName('orders');
  await registry.register(instance(name));
  const watcher = registry.watch(name);
  await watcher.next();
  await client.put('a').value('b').exec();
  const watch = await client.watch().key('a').create();
  await client.lease(10).grant();
  expect(await registry.services()).toEqual([name]);
  expect(await client.getAll().prefix(`/microservices/${name}/`).count()).toBe(1);
  expect(connectionsTo(cluster)).toBe(1);
  const other = await registryOf(t, { backend: 'etcd', hosts: cluster.hosts });
  expect(await other.getService(name)).toHaveLength(1);
  expect(connectionsTo(cluster)).toBe(2);
  await watch.cancel();
});

it('takes the user, the token and TLS of the client', async (t) => {
  const cluster = await own(t, { tls: true, users: [{ name: 'orders', password: 'secret' }] });
  const ca = readFileSync(cluster.certificates?.ca.certFile as string);
  const client = clientOf(t, cluster, { tls: { ca }, auth: { username: 'orders', password: 'secret' } });
  const registry = await registryOf(t, { client, prefix: '/services', codec: 'metadata' });
  const name = uniqueName('orders');
  await registry.register({ name, id: 'a', metadata: { zone: 'b' } });
  expect(await client.get(`/services/${name}/a`).string()).toBe('{"zone":"b"}');
  expect(connectionsTo(cluster)).toBe(1);
});

it('comes back after a kill and restart of the server, on one connection', async (t) => {
  const cluster = await own(t);
  const client = clientOf(t, cluster);
  const registry = await registryOf(t, { client, ttlMs: 1000 });
  const name = uniqueName('orders');
  const registration = await registry.register(instance(name));
  const events: string[] = [];
  registration.on('lost', () => events.push('lost')).on('restored', () => events.push('restored'));
  const watcher = registry.watch(name);
  expect(await watcher.next()).toMatchObject({ value: [{ id: 'a' }] });
  const seen: (string | undefined)[] = [];
  const watch = await client.watch().key(name).create();
  watch.on('put', ({ value }) => seen.push(value.toString()));

  await cluster.kill();
  await waitFor(() => watcher.stale && events.includes('lost'), { what: 'the loss' });
  await cluster.start();
  await waitFor(() => !watcher.stale && events.includes('restored'), { what: 'the repair', timeoutMs: 30_000 });
  expect(events).toEqual(['lost', 'restored']);
  await client.put(name).value('after').exec();
  await waitFor(() => seen.includes('after'), { what: 'the watch of the client' });
  expect(await registry.getService(name, { consistent: true })).toHaveLength(1);
  expect(connectionsTo(cluster)).toBe(1);
});

it('leaves the client open when it is closed first, and takes nothing of it along', async (t) => {
  const client = clientOf(t, etcd);
  const registry = await registryOf(t, { client });
  const name = uniqueName('orders');
  await registry.register(instance(name));
  const lease = client.lease(5);
  await lease.put(name).value('kept').exec();
  const lost: Error[] = [];
  lease.on('lost', (error) => lost.push(error));
  await registry.close();
  expect(await etcd.keys(`/microservices/${name}/`)).toEqual([]);
  expect(await client.get(name).string()).toBe('kept');
  await lease.keepaliveOnce();
  expect(lost).toEqual([]);
  // And a second one on the same client.
  const next = await registryOf(t, { client });
  await next.register(instance(name));
  expect(await next.getService(name)).toHaveLength(1);
});

it('ends with the client that is closed first: what is registered is removed and says so, calls are refused', async (t) => {
  const lines: string[] = [];
  const logger = { error: () => {}, info: () => {}, debug: () => {}, warn: (line: string) => lines.push(line) };
  const client = clientOf(t, etcd);
  const registry = await registryOf(t, { client, logger });
  const name = uniqueName('orders');
  const registration = await registry.register(instance(name));
  const lost: string[] = [];
  registration.on('lost', (reason) => lost.push(reason));
  const watcher = registry.watch(name);
  await watcher.next();
  const waiting = watcher.next();

  await within(client.close(), 5000, 'close()');
  const why = 'the etcd client that the registry shares was closed';
  expect(lost).toEqual([why]);
  expect(registration.state).toBe('deregistered');
  expect(await etcd.keys(`/microservices/${name}/`)).toEqual([]);
  expect(await within(waiting, 5000, 'the watch')).toMatchObject({ done: true });
  expect(registry).toMatchObject({ closed: true, status: 'closed' });
  const refused: (() => Promise<unknown>)[] = [
    () => registry.getService(name),
    () => registry.register(instance(name)),
    () => registry.services(),
    () => registry.ping(),
    () => registry.ready(),
    () => registration.withdraw(),
    () => registry.watch(name).next(),
  ];
  for (const call of refused) {
    const error = await failure<ClosedError>(within(call(), 5000, String(call)));
    expect(error.code, String(call)).toBe('ERR_CLOSED');
    expect(error.message, String(call)).toContain(why);
  }
  await registration.deregister();
  await registry.close();
  expect(lines).toEqual([expect.stringContaining(`${why}, so ${name} is taken out: close the registry before`)]);
});

it('ends in time with a client that is closed while the server says nothing', async (t) => {
  const cluster = await own(t);
  const client = clientOf(t, cluster);
  const registry = await registryOf(t, { client });
  const registration = await registry.register(instance('orders'));
  const lost: string[] = [];
  registration.on('lost', (reason) => lost.push(reason));
  const watcher = registry.watch('orders');
  await watcher.next();
  cluster.freeze();
  const calls = [registry.getService('orders', { consistent: true }), registry.services(), registry.ping()];
  const settled = Promise.allSettled(calls);
  await within(client.close(), 5000, 'close()');
  const results = await within(settled, 5000, 'the calls under way');
  for (const result of results) expect(result).toMatchObject({ status: 'rejected', reason: { code: 'ERR_CLOSED' } });
  expect(lost).toHaveLength(1);
  expect(await within(watcher.next(), 5000, 'the watch')).toMatchObject({ done: true });
  cluster.thaw();
  await waitFor(async () => (await cluster.keys('/microservices/orders/')).length === 0, {
    what: 'the record to expire',
  });
});

it('has a time of its own for its calls', async (t) => {
  const cluster = await own(t);
  const client = clientOf(t, cluster);
  const registry = await registryOf(t, { client, timeoutMs: 700 });
  cluster.freeze();
  const begun = performance.now();
  const error = await failure<{ code: string }>(registry.getService('orders'));
  expect(error.code).toBe('ERR_TIMEOUT');
  expect(performance.now() - begun).toBeLessThan(3000);
  cluster.thaw();
});

it('keeps no process alive that has nothing registered, and one client may carry several', async (t) => {
  const client = clientOf(t, etcd);
  const [one, two] = await Promise.all([
    registryOf(t, { client, prefix: `/${uniqueName('one')}` }),
    registryOf(t, { client, prefix: `/${uniqueName('two')}` }),
  ]);
  await one.register(instance('orders'));
  expect(await two.getService('orders')).toEqual([]);
  await two.close();
  expect(await one.getService('orders')).toHaveLength(1);
});

describe('refuses', () => {
  it.each([
    ['hosts', { hosts: '127.0.0.1' }],
    ['username', { username: 'root', password: 'secret' }],
    ['password', { password: 'secret' }],
    ['auth', { auth: { username: 'root', password: 'secret' } }],
    ['tls', { tls: false }],
    ['keepAliveMs', { keepAliveMs: 10_000 }],
    ['keepAliveTimeoutMs', { keepAliveTimeoutMs: 5000 }],
    ['maxMessageBytes', { maxMessageBytes: 1 << 20 }],
  ])('%s beside a client, by its name', async (option, options) => {
    const client = new Etcd3({ hosts: etcd.hosts });
    const error = await failure<InvalidArgumentError>(connect({ client, ...options } as RegistryOptions));
    expect(error).toMatchObject({ code: 'ERR_INVALID_ARGUMENT', operation: 'connect' });
    expect(error.message).toBe(
      `options.${option}: given together with options.client, which has its own: leave it out`,
    );
    await client.close();
  });

  it.each<[string, () => unknown, string]>([
    [
      'a client of the npm package etcd3',
      () => new NpmEtcd3({ hosts: '127.0.0.1:1' }),
      'an object of another class, Etcd3',
    ],
    ['a text', () => 'etcd', 'string'],
    ['options', () => ({ hosts: [] }), 'another object'],
    ['nothing', () => null, 'null'],
    ['a function', () => () => {}, 'function'],
    [
      'a namespace',
      () => new Etcd3({ hosts: '127.0.0.1:1' }).namespace('a/'),
      'a namespace of one: give the client, and the prefix as options.prefix',
    ],
  ])('%s', async (_, make, got) => {
    const error = await failure<InvalidArgumentError>(connect({ client: make() } as RegistryOptions));
    expect(error.code).toBe('ERR_INVALID_ARGUMENT');
    expect(error.message).toBe(`options.client: expected an Etcd3 of rollcall/etcd, got ${got}`);
  });

  it('a client that is closed, and one that is mocked', async () => {
    const client = new Etcd3({ hosts: etcd.hosts });
    client.mock({ exec: async <T>() => ({}) as T });
    expect(await failure(connect({ client }))).toMatchObject({
      code: 'ERR_UNSUPPORTED',
      message:
        'options.client: the etcd client is mocked and has no connection: take the memory registry in tests, "memory://"',
    });
    client.unmock();
    await client.close();
    expect(await failure(connect({ client }))).toMatchObject({
      code: 'ERR_CLOSED',
      message: 'options.client: the etcd client is closed',
    });
  });

  it('a client for another registry, and one in a URL', async () => {
    const client = new Etcd3({ hosts: etcd.hosts });
    const consul = { backend: 'consul', client } as unknown as RegistryOptions;
    expect(await failure(connect(consul))).toMatchObject({
      message: 'options.client: not an option of the consul backend, only of etcd',
    });
    expect(await failure(connect('etcd://127.0.0.1?client=a'))).toMatchObject({
      message: 'options.client: expected in an object of options: a URL has no place for it',
    });
    await client.close();
  });
});
