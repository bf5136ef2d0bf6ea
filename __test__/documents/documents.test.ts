// The programs of the documents that the package was asked for by, in its own words: what a framework's page on registries shows,
// and what Kratos's does. Each block of theirs is a test, in their order.
//
// What is elsewhere: the page of Midway's etcd component is `midway.test.ts`, that of etcd in Nest `nest.test.ts`.
// The resolver `discovery:///provider` of gRPC is `__test__/grpc`.
// What can't be written: the registries kubernetes and polaris, which the package has not; Consul's DNS,
// which is Consul's own and needs no client.
import { createServer } from 'node:http';
import { connect, type Registry, registerSelf } from 'rollcall';
import { Etcd3 } from 'rollcall/etcd';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Consul, startConsul } from '../support/consul.js';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';
import { uniqueName } from '../support/process.js';
import { startZookeeper, type ZookeeperEnsemble } from '../support/zookeeper.js';

let etcd: EtcdCluster;
let consul: Consul;
let zookeeper: ZookeeperEnsemble;
beforeAll(async () => {
  [etcd, consul, zookeeper] = await Promise.all([startEtcd(), startConsul(), startZookeeper()]);
});
afterAll(async () => {
  await Promise.all([etcd, consul, zookeeper].map((server) => server?.close()));
});

const open: { close(): Promise<unknown> }[] = [];
afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each.close();
});
const kept = <T extends { close(): Promise<unknown> }>(it: T): T => {
  open.push(it);
  return it;
};

describe.each<[string, () => Promise<Registry>]>([
  ['memory: nothing outside is needed', async () => connect({ backend: 'memory', namespace: uniqueName('documents') })],
  [
    'etcd: an existing client, a prefix and a time to live',
    async () => {
      const client = kept(new Etcd3({ hosts: etcd.hosts }));
      return connect({ client, prefix: '/services', ttlMs: 10_000 });
    },
  ],
  [
    'Consul: a health check, a time to live, and the removal of what stays critical',
    async () =>
      connect({
        backend: 'consul',
        hosts: consul.server.host,
        healthCheck: false, // nothing listens where the page says; the heartbeat is the check
        ttlMs: 15_000,
        deregisterCriticalAfterMs: 60_000,
      }),
  ],
  [
    'ZooKeeper: a prefix and the timeout of its session',
    async () => connect({ backend: 'zookeeper', hosts: zookeeper.hosts, prefix: '/services', ttlMs: 10_000 }),
  ],
])('a registry over %s', (_, make) => {
  it('has an instance that is registered by hand, found, and gone at the end', async () => {
    const reg = kept(await make());
    const name = uniqueName('user-service');
    await reg.register({
      id: 'instance-001',
      name,
      version: 'v1.0.0',
      endpoints: ['http://127.0.0.1:8000', 'grpc://127.0.0.1:9000'],
      metadata: { region: 'cn-east-1', zone: 'cn-east-1a' },
    });
    const instances = await reg.getService(name);
    expect(instances.map(({ id, endpoints }) => `ID: ${id}, Endpoints: ${[...endpoints].sort().reverse()}`)).toEqual([
      'ID: instance-001, Endpoints: http://127.0.0.1:8000,grpc://127.0.0.1:9000',
    ]);
    expect(instances[0]).toMatchObject({ version: 'v1.0.0', metadata: { region: 'cn-east-1', zone: 'cn-east-1a' } });
  });

  it('watches by next() and stop()', async () => {
    const reg = kept(await make());
    const name = uniqueName('user-service');
    const watcher = reg.watch(name);
    const counts: number[] = [];
    const registration = await reg.register({ name, id: 'instance-001' });
    const counting = (async () => {
      for (;;) {
        const { value, done } = await watcher.next();
        if (done) return;
        counts.push(value.length);
        if (value.length === 1) await registration.deregister();
        else if (counts.includes(1)) watcher.stop();
      }
    })();
    await counting;
    expect(counts.slice(-2)).toEqual([1, 0]);
  });

  it('has the application itself while it runs, by its name and version', async () => {
    const reg = kept(await make());
    const name = uniqueName('user-service');
    const server = createServer((_request, response) => response.end('ok')).listen(0, '127.0.0.1');
    const app = await registerSelf(server, reg, { name, version: 'v1.0.0', signals: ['SIGTERM'], drainMs: 0 });
    const endpoints = [expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/)];
    expect(await reg.getService(name)).toMatchObject([{ version: 'v1.0.0', endpoints }]);
    await app.leave();
    expect([server.listening, reg.closed]).toEqual([false, true]);
  });
});

describe('Kratos', () => {
  it('registers and discovers with the registry of a client of etcd, in the places where Kratos does', async () => {
    const client = kept(new Etcd3({ hosts: etcd.hosts }));
    const reg = kept(await connect({ client }));
    const name = uniqueName('provider');
    const registration = await reg.register({ id: '1', name, version: 'v1', endpoints: ['grpc://127.0.0.1:9000'] });
    const key = `/microservices/${name}/1`;
    expect(await client.get(key).json()).toMatchObject({
      id: '1',
      name,
      version: 'v1',
      endpoints: ['grpc://127.0.0.1:9000'],
    });
    // One instance is chosen for each call; a resolver for gRPC there is not.
    const { endpoint, done } = await reg.service(name, { allowLocal: true }).waitFor({ waitForReadyMs: 5000 });
    expect(endpoint.url).toBe('grpc://127.0.0.1:9000');
    done();
    await registration.deregister();
    expect(await client.get(key).exists()).toBe(false);
  });
});
