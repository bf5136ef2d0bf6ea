// Every method that waits ends by its time limit and by its signal, against a server that says nothing. The methods are read
// from the classes: one that is new has to be given here, or the reason why it needs neither.
import { setTimeout as delay } from 'node:timers/promises';
import { connect, Registration, Registry, ServicesWatcher, Watcher as ServiceWatcher } from 'rollcall';
import {
  AuthClient,
  BatchBuilder,
  Campaign,
  ClusterClient,
  ComparatorBuilder,
  DeleteBuilder,
  Election,
  ElectionObserver,
  Etcd3,
  KVClient,
  LastingLease,
  Lease,
  LeaseClient,
  Lock,
  MaintenanceClient,
  MultiRangeBuilder,
  Mutex,
  Namespace,
  PutBuilder,
  Role,
  SingleRangeBuilder,
  SoftwareTransaction,
  User,
  WatchBuilder,
  WatchClient,
  Watcher,
} from 'rollcall/etcd';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';
import { uniqueName, within } from '../support/process.js';
import { INTERNAL, WITHOUT } from './calls-without-end.js';

type Options = { timeoutMs?: number; signal?: AbortSignal };
type Call = (options: Options) => Promise<unknown>;
/** What is needed for a call is made while the server answers. */
type Prepared = (at: Ground) => Promise<Call> | Call;

interface Ground {
  readonly client: Etcd3;
  readonly registry: Registry;
  readonly hosts: readonly string[];
}

const BASES = ['Object', 'EventEmitter', 'Emitter'];
const stopsAt = (prototype: object) => BASES.includes(prototype.constructor.name);

const LIMIT_MS = 400;
/** Whether nothing ends it before: calls of the client take 60 s, of the registry 10 s. */
const PATIENCE_MS = 6000;

const register = async (registry: Registry) =>
  await registry.register({ name: uniqueName('orders'), endpoints: ['http://10.0.0.1:80'] });

async function withRegistration({ registry }: Ground, call: (it: Registration, options: Options) => Promise<unknown>) {
  const registration = await register(registry);
  return (options: Options) => call(registration, options);
}

async function leading({ client }: Ground): Promise<Campaign> {
  return await client.election(uniqueName('job'), 60).campaign('me').wait();
}

const CALLS: Record<string, Prepared> = {
  // --- the registry
  'Registry.register':
    ({ registry }) =>
    (o) =>
      registry.register({ name: uniqueName('orders') }, o),
  'Registry.getService':
    ({ registry }) =>
    (o) =>
      registry.getService(uniqueName('orders'), o),
  'Registry.services':
    ({ registry }) =>
    (o) =>
      registry.services(o),
  'Registry.ping':
    ({ registry }) =>
    (o) =>
      registry.ping(o),
  'Registry.ready': async ({ hosts }) => {
    const lazy = await connect({ backend: 'etcd', hosts, lazy: true, logger: false });
    return (o) => lazy.ready(o).finally(() => lazy.close({ timeoutMs: 1 }).catch(() => {}));
  },
  'Registry.close': async ({ hosts }) => {
    const registry = await connect({ backend: 'etcd', hosts, logger: false });
    await register(registry);
    return (o) => registry.close(o);
  },
  'Registration.update': (at) => withRegistration(at, (it, o) => it.update({ version: '2' }, o)),
  'Registration.withdraw': (at) => withRegistration(at, (it, o) => it.withdraw('withdrawn', o)),
  'Registration.restore': async ({ registry }) => {
    const registration = await register(registry);
    await registration.withdraw();
    return (o) => registration.restore('withdrawn', o);
  },
  'Registration.drain': (at) => withRegistration(at, (it, o) => it.drain(10, o)),
  'Registration.deregister': (at) => withRegistration(at, (it, o) => it.deregister(o)),
  'ServiceCache.ready':
    ({ registry }) =>
    (o) =>
      registry.service(uniqueName('orders')).ready(o),
  'ServiceCache.waitFor':
    ({ registry }) =>
    ({ timeoutMs = 60_000, signal }) =>
      registry.service(uniqueName('orders')).waitFor({ waitForReadyMs: timeoutMs, signal }),
  'ServiceCache.fetch':
    ({ registry }) =>
    ({ timeoutMs, signal = null }) =>
      registry.service(uniqueName('orders')).fetch('/', { ...(timeoutMs ? { timeoutMs } : {}), signal }),

  // --- the client and its namespaces
  'Etcd3.getRoles':
    ({ client }) =>
    (o) =>
      client.getRoles(o),
  'Etcd3.getUsers':
    ({ client }) =>
    (o) =>
      client.getUsers(o),
  'Etcd3.ready':
    ({ client }) =>
    (o) =>
      client.ready(o),
  'Etcd3.leases':
    ({ client }) =>
    (o) =>
      client.leases(o),
  'Namespace.timeToLive':
    ({ client }) =>
    (o) =>
      client.timeToLive(1, o),
  'SingleRangeBuilder.exec':
    ({ client }) =>
    (o) =>
      client.get('a').options(o).exec(),
  'SingleRangeBuilder.string':
    ({ client }) =>
    (o) =>
      client.get('a').options(o).string(),
  'SingleRangeBuilder.json':
    ({ client }) =>
    (o) =>
      client.get('a').options(o).json(),
  'SingleRangeBuilder.number':
    ({ client }) =>
    (o) =>
      client.get('a').options(o).number(),
  'SingleRangeBuilder.buffer':
    ({ client }) =>
    (o) =>
      client.get('a').options(o).buffer(),
  'SingleRangeBuilder.exists':
    ({ client }) =>
    (o) =>
      client.get('a').options(o).exists(),
  'SingleRangeBuilder.then':
    ({ client }) =>
    async (o) =>
      await client.get('a').options(o),
  'SingleRangeBuilder.catch':
    ({ client }) =>
    (o) =>
      client
        .get('a')
        .options(o)
        .catch((error) => Promise.reject(error)),
  'MultiRangeBuilder.exec':
    ({ client }) =>
    (o) =>
      client.getAll().options(o).exec(),
  'MultiRangeBuilder.count':
    ({ client }) =>
    (o) =>
      client.getAll().options(o).count(),
  'MultiRangeBuilder.keys':
    ({ client }) =>
    (o) =>
      client.getAll().options(o).keys(),
  'MultiRangeBuilder.keyBuffers':
    ({ client }) =>
    (o) =>
      client.getAll().options(o).keyBuffers(),
  'MultiRangeBuilder.strings':
    ({ client }) =>
    (o) =>
      client.getAll().options(o).strings(),
  'MultiRangeBuilder.json':
    ({ client }) =>
    (o) =>
      client.getAll().options(o).json(),
  'MultiRangeBuilder.numbers':
    ({ client }) =>
    (o) =>
      client.getAll().options(o).numbers(),
  'MultiRangeBuilder.buffers':
    ({ client }) =>
    (o) =>
      client.getAll().options(o).buffers(),
  'MultiRangeBuilder.entries':
    ({ client }) =>
    (o) =>
      client.getAll().options(o).entries(),
  'MultiRangeBuilder.stream':
    ({ client }) =>
    async (o) => {
      for await (const _ of client.getAll().options(o).stream()) break;
    },
  'MultiRangeBuilder.then':
    ({ client }) =>
    async (o) =>
      await client.getAll().options(o),
  'MultiRangeBuilder.catch':
    ({ client }) =>
    (o) =>
      client
        .getAll()
        .options(o)
        .catch((error) => Promise.reject(error)),
  'PutBuilder.exec':
    ({ client }) =>
    (o) =>
      client.put('a').value('b').options(o).exec(),
  'PutBuilder.touch':
    ({ client }) =>
    (o) =>
      client.put('a').options(o).touch(),
  'PutBuilder.getPrevious':
    ({ client }) =>
    (o) =>
      client.put('a').value('b').options(o).getPrevious(),
  'PutBuilder.then':
    ({ client }) =>
    async (o) =>
      await client.put('a').value('b').options(o),
  'PutBuilder.catch':
    ({ client }) =>
    (o) =>
      client
        .put('a')
        .value('b')
        .options(o)
        .catch((error) => Promise.reject(error)),
  'DeleteBuilder.exec':
    ({ client }) =>
    (o) =>
      client.delete().key('a').options(o).exec(),
  'DeleteBuilder.getPrevious':
    ({ client }) =>
    (o) =>
      client.delete().key('a').options(o).getPrevious(),
  'DeleteBuilder.then':
    ({ client }) =>
    async (o) =>
      await client.delete().key('a').options(o),
  'DeleteBuilder.catch':
    ({ client }) =>
    (o) =>
      client
        .delete()
        .key('a')
        .options(o)
        .catch((error) => Promise.reject(error)),
  'BatchBuilder.commit':
    ({ client }) =>
    (o) =>
      client.batch().put('a', 'b').commit(o),
  'ComparatorBuilder.commit':
    ({ client }) =>
    (o) =>
      client.if('a', 'Create', '==', 0).then(client.put('a').value('b')).options(o).commit(),
  'SoftwareTransaction.transact':
    ({ client }) =>
    (o) =>
      client.stm({ callOptions: o }).transact(async (tx) => {
        await tx.get('a').string();
        await tx.put('a').value('b');
      }),

  // --- what lives longer than a call
  'WatchBuilder.create':
    ({ client }) =>
    (o) =>
      client.watch().key('a').create(o),
  'Lease.grant':
    ({ client }) =>
    (o) =>
      client.lease(10).grant(o),
  'Lease.put':
    ({ client }) =>
    (o) =>
      client.lease(10).put('a').value('b').options(o).exec(),
  'Lease.revoke': async ({ client }) => {
    const lease = client.lease(60);
    await lease.grant();
    return (o) => lease.revoke(o);
  },
  'Lease.keepaliveOnce': async ({ client }) => {
    const lease = client.lease(60);
    await lease.grant();
    return (o) => lease.keepaliveOnce(o);
  },
  'LastingLease.put':
    ({ client }) =>
    (o) =>
      new LastingLease(client, { ttlSeconds: 60 }).put('a', 'b', o),
  'LastingLease.delete':
    ({ client }) =>
    (o) =>
      new LastingLease(client, { ttlSeconds: 60 }).delete('a', o),
  'LastingLease.revoke': async ({ client }) => {
    const lasting = new LastingLease(client, { ttlSeconds: 60 });
    await lasting.put(uniqueName('key'), 'b');
    return (o) => lasting.revoke(o);
  },
  'Lock.acquire':
    ({ client }) =>
    (o) =>
      client.lock(uniqueName('job')).options(o).acquire(),
  'Lock.do':
    ({ client }) =>
    (o) =>
      client
        .lock(uniqueName('job'))
        .options(o)
        .do(() => {}),
  'Lock.release': async ({ client }) => {
    const lock = await client.lock(uniqueName('job')).ttl(60).acquire();
    return (o) => lock.release(o);
  },
  'Mutex.acquire':
    ({ client }) =>
    (o) =>
      client.mutex(uniqueName('job')).acquire(o),
  'Mutex.tryAcquire':
    ({ client }) =>
    (o) =>
      client.mutex(uniqueName('job')).tryAcquire(o),
  'Mutex.attach':
    ({ client }) =>
    (o) =>
      client.mutex(uniqueName('job')).attach(1n, o),
  'Mutex.do':
    ({ client }) =>
    (o) =>
      client.mutex(uniqueName('job')).do(() => {}, o),
  'Mutex.release': async ({ client }) => {
    const mutex = await client.mutex(uniqueName('job'), { ttlSeconds: 60 }).acquire();
    return (o) => mutex.release(o);
  },
  'Election.leader':
    ({ client }) =>
    (o) =>
      client.election('job').leader('utf8', o),
  'Election.observe':
    ({ client }) =>
    (o) =>
      client.election('job').observe(o),
  'Campaign.wait':
    ({ client }) =>
    (o) =>
      client.election(uniqueName('job'), 60).campaign('me').wait(o),
  'Campaign.getCampaignKey':
    ({ client }) =>
    (o) =>
      client.election('job', 60).campaign('me').getCampaignKey(o),
  'Campaign.proclaim': async (at) => {
    const campaign = await leading(at);
    return (o) => campaign.proclaim('another', o);
  },
  'Campaign.resign': async (at) => {
    const campaign = await leading(at);
    return (o) => campaign.resign(o);
  },

  // --- roles and users
  'Role.create':
    ({ client }) =>
    (o) =>
      client.role('a').create(o),
  'Role.delete':
    ({ client }) =>
    (o) =>
      client.role('a').delete(o),
  'Role.grant':
    ({ client }) =>
    (o) =>
      client.role('a').grant({ permission: 'Read', key: 'a' }, o),
  'Role.revoke':
    ({ client }) =>
    (o) =>
      client.role('a').revoke({ permission: 'Read', key: 'a' }, o),
  'Role.permissions':
    ({ client }) =>
    (o) =>
      client.role('a').permissions(o),
  'Role.addUser':
    ({ client }) =>
    (o) =>
      client.role('a').addUser('b', o),
  'Role.removeUser':
    ({ client }) =>
    (o) =>
      client.role('a').removeUser('b', o),
  'User.create':
    ({ client }) =>
    (o) =>
      client.user('a').create('secret', o),
  'User.setPassword':
    ({ client }) =>
    (o) =>
      client.user('a').setPassword('secret', o),
  'User.delete':
    ({ client }) =>
    (o) =>
      client.user('a').delete(o),
  'User.roles':
    ({ client }) =>
    (o) =>
      client.user('a').roles(o),
  'User.addRole':
    ({ client }) =>
    (o) =>
      client.user('a').addRole('b', o),
  'User.removeRole':
    ({ client }) =>
    (o) =>
      client.user('a').removeRole('b', o),
};

/** The services as they are: by their names, which etcd gives. Those that take no request take the options first. */
const SERVICES = {
  auth: AuthClient,
  cluster: ClusterClient,
  kv: KVClient,
  leaseClient: LeaseClient,
  maintenance: MaintenanceClient,
};
const STREAMS = ['rangeStream', 'leaseKeepAlive', 'snapshot'];
for (const [field, Service] of Object.entries(SERVICES)) {
  for (const method of methodsOf(Service)) {
    if (STREAMS.includes(method)) continue;
    CALLS[`${Service.name}.${method}`] = ({ client }) => {
      const service = client[field as keyof typeof SERVICES] as unknown as Record<
        string,
        (...args: object[]) => Promise<unknown>
      >;
      const takesRequest = /^\s*(async )?\w+\((req|request|_req)\b/.test(String(service[method]));
      return (o) =>
        (service[method] as (...args: object[]) => Promise<unknown>).call(service, ...(takesRequest ? [{}, o] : [o]));
    };
  }
}

function methodsOf(Class: object): string[] {
  const found = new Set<string>();
  for (let at = (Class as { prototype: object }).prototype; at && !stopsAt(at); at = Object.getPrototypeOf(at)) {
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(at))) {
      if (typeof value === 'function' && name !== 'constructor') found.add(name);
    }
  }
  return [...found];
}

let etcd: EtcdCluster;
let ground: Ground;
const ready: { name: string; mode: 'timeoutMs' | 'signal'; call: Call }[] = [];

beforeAll(async () => {
  etcd = await startEtcd();
  const client = new Etcd3({ hosts: etcd.hosts, logger: false });
  const registry = await connect({ client, logger: false, ttlMs: 60_000 });
  ground = { client, registry, hosts: etcd.hosts };
  for (const [name, prepare] of Object.entries(CALLS)) {
    for (const mode of ['timeoutMs', 'signal'] as const) ready.push({ name, mode, call: await prepare(ground) });
  }
  etcd.freeze();
});
afterAll(async () => {
  etcd?.thaw();
  await ground?.client.close();
  await etcd?.close();
});

/** What a call ended with. */
async function end({ mode, call }: (typeof ready)[number]): Promise<string> {
  const stop = new AbortController();
  const begun = performance.now();
  const work = call(mode === 'signal' ? { signal: stop.signal } : { timeoutMs: LIMIT_MS });
  const settled = work.then(
    () => 'it resolved',
    (error) => `${(error as { code?: string }).code ?? error}`,
  );
  if (mode === 'signal') {
    await delay(LIMIT_MS); // it waits meanwhile
    stop.abort();
  }
  const told = await within(settled, PATIENCE_MS, 'its end').catch((error: Error) => error.message);
  const took = performance.now() - begun;
  return took < LIMIT_MS * 0.9 ? `${told} too early, after ${Math.round(took)} ms` : told;
}

describe.each([
  ['timeoutMs', 'ERR_TIMEOUT'],
  ['signal', 'ERR_ABORTED'],
] as const)('%s', (mode, code) => {
  it(`ends every call that waits, with ${code}`, async () => {
    const calls = ready.filter((one) => one.mode === mode);
    const ends = await Promise.all(calls.map(async (one) => [one.name, await end(one)] as const));
    // Nobody could be picked within the time: the one call whose limit has another name for its end.
    const expected = (name: string) =>
      mode === 'timeoutMs' && name === 'ServiceCache.waitFor' ? 'ERR_UNAVAILABLE' : code;
    expect(Object.fromEntries(ends)).toEqual(Object.fromEntries(calls.map(({ name }) => [name, expected(name)])));
  });
});

it('is shown for every public method that waits', () => {
  const builders = [
    SingleRangeBuilder,
    MultiRangeBuilder,
    PutBuilder,
    DeleteBuilder,
    BatchBuilder,
    ComparatorBuilder,
    WatchBuilder,
  ];
  const classes = [
    ...[Registry, Registration, ServiceWatcher, ServicesWatcher, ground.registry.service('a').constructor],
    ...[
      Etcd3,
      Namespace,
      SoftwareTransaction,
      Lease,
      LastingLease,
      Lock,
      Mutex,
      Election,
      Campaign,
      ElectionObserver,
      Watcher,
    ],
    ...[Role, User, AuthClient, ClusterClient, KVClient, LeaseClient, MaintenanceClient, WatchClient],
    ...builders,
  ] as { name: string; prototype: object }[];
  const known = new Set([...Object.keys(CALLS), ...Object.values(WITHOUT).flat()]);
  const missing = classes.flatMap((Class) =>
    methodsOf(Class)
      .filter((method) => !INTERNAL.includes(method))
      .map((method) => ({ name: `${Class.name}.${method}`, method }))
      .filter(
        ({ name, method }) =>
          !known.has(name) && !(builders.includes(Class as never) && known.has(`Builder.${method}`)),
      )
      // Of a namespace of the client itself.
      .filter(({ name, method }) => !(name.startsWith('Etcd3.') && known.has(`Namespace.${method}`)))
      .map(({ name }) => name),
  );
  expect(missing).toEqual([]);
});
