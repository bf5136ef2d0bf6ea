// A registry that is restored from an old backup while an instance is out of traffic: what stood there then is back, under a
// lease or session that may live on, and has to go again.
import type { Registry, RegistryOptions } from 'rollcall';
import { describe, expect, test } from 'vitest';
import { hear, refused, sees, waitFor } from '../conformance/kit.js';
import { startConsul } from '../support/consul.js';
import { ETCD_VERSIONS, type EtcdVersion, startEtcd } from '../support/etcd.js';
import { startZookeeper } from '../support/zookeeper.js';
import { connected, type Finish } from './kit.js';

const instance = { name: 'orders', id: 'a', version: '1' };
/** So long that nothing of these tests ends by its expiry. */
const ttlMs = 600_000;

interface Server {
  readonly options: RegistryOptions;
  /** Takes a backup; what it gives restores the server from it. */
  backup(): Promise<() => Promise<void>>;
  kill(): Promise<void>;
  /** Whether the record is there. */
  isThere(): Promise<boolean>;
}

async function etcd({ onTestFinished }: Finish, version: EtcdVersion): Promise<Server> {
  const server = await startEtcd({ version });
  onTestFinished(() => server.close());
  return {
    options: { backend: 'etcd', hosts: [...server.hosts], ttlMs, logger: false },
    backup: () => server.backup(),
    kill: () => server.kill(),
    isThere: async () => (await server.get('/microservices/orders/a')) !== null,
  };
}

/** After the restoration others write: a server refuses the sessions of those who have seen more transactions than it has. */
async function zookeeper({ onTestFinished }: Finish): Promise<Server> {
  const server = await startZookeeper({ sessionTimeouts: { min: 1000, max: ttlMs } });
  onTestFinished(() => server.close());
  return {
    options: { backend: 'zookeeper', hosts: [...server.hosts], ttlMs, logger: false },
    async backup() {
      const restore = server.backup();
      return async () => {
        await restore();
        const client = await server.client();
        for (let i = 0; i < 50; i++) await client.put('/filler', String(i));
      };
    },
    kill: () => server.kill(),
    isThere: async () => {
      const client = await server.client();
      return (await client.get('/microservices/orders/a')) !== undefined;
    },
  };
}

/** The disk of an agent, which has the services of the agent and when each TTL check was renewed. */
async function consul({ onTestFinished }: Finish): Promise<Server> {
  const { server, close } = await startConsul({ persistent: true });
  onTestFinished(close);
  return {
    options: { backend: 'consul', hosts: server.host, healthCheck: false, ttlMs, logger: false },
    async backup() {
      await server.kill();
      const restore = server.backup();
      await server.start();
      return async () => {
        await server.kill();
        restore();
        await server.start();
      };
    },
    kill: () => server.kill(),
    isThere: async () => (await server.services()).includes('a'),
  };
}

async function client(context: Finish, { options }: Server): Promise<Registry> {
  return connected(context, options);
}

const servers = [
  ...ETCD_VERSIONS.map((version) => [`etcd ${version}`, (context: Finish) => etcd(context, version)] as const),
  ['zookeeper 3.8', zookeeper] as const,
  ['consul', consul] as const,
];

describe.concurrent.each(servers)('%s restored from an old backup', (_, start) => {
  test('what is out of traffic is taken away again, and comes back when it is restored', {
    timeout: 180_000,
  }, async (context) => {
    const server = await start(context);
    const [registry, other] = [await client(context, server), await client(context, server)];
    const registration = await registry.register(instance);
    const heard = hear(registration);
    const restore = await server.backup();
    await registration.withdraw();
    expect(await server.isThere()).toBe(false);
    await restore();
    await waitFor(async () => !(await server.isThere()), { timeoutMs: 20_000, what: 'its removal' });
    await sees(other, 'orders', []);
    expect([registration.state, heard.events]).toEqual(['out', ['out withdrawn']]);
    await registration.restore('withdrawn', { timeoutMs: 20_000 });
    await sees(other, 'orders', ['a']);
    await waitFor(() => heard.count('in') === 1, { what: '"in"' });
    expect(heard.events).toEqual(['out withdrawn', 'in']);
  });

  test('what is wanted back finds its own record of before, and no newer owner', {
    timeout: 180_000,
  }, async (context) => {
    const server = await start(context);
    const registry = await client(context, server);
    const registration = await registry.register(instance);
    const heard = hear(registration);
    const restore = await server.backup();
    await registration.withdraw();
    await registration.update({ version: '2' });
    await server.kill();
    await refused(registration.restore('withdrawn', { timeoutMs: 500 }), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
    await restore();
    await waitFor(() => heard.events.length === 2, { timeoutMs: 30_000, what: '"in"' });
    expect([registration.state, heard.events]).toEqual(['registered', ['out withdrawn', 'in']]);
    const [shown] = await registry.getService('orders', { consistent: true });
    expect(shown?.version).toBe('2');
  });
});

test('zookeeper 3.8 restored from an old backup: what has deregistered goes again, what is registered stays', {
  timeout: 180_000,
}, async (context) => {
  const server = await zookeeper(context);
  const registry = await client(context, server);
  const registration = await registry.register(instance);
  await registry.register({ ...instance, id: 'b' });
  const restore = await server.backup();
  await registration.deregister();
  expect(await server.isThere()).toBe(false);
  await restore();
  await waitFor(async () => !(await server.isThere()), { timeoutMs: 20_000, what: 'its removal' });
  await sees(await client(context, server), 'orders', ['b']);
});
