// A Go service on Kratos's own etcd registry and rollcall, in the same etcd, both ways.
import type { Registry } from 'rollcall';
import { connect } from 'rollcall';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hear, ids, listsUntil, nextList, quiet, sees, waitFor } from '../conformance/kit.js';
import type { EtcdCluster } from '../support/etcd.js';
import { ETCD_VERSIONS, startEtcd } from '../support/etcd.js';
import type { Peer, PeerInstance } from '../support/peer.js';
import { startPeer } from '../support/peer.js';

// As Kratos writes them: `null` where there is nothing.
const awkward: PeerInstance[] = [
  {
    id: '5f8d-1',
    name: 'helloworld',
    version: 'v1.0.0',
    metadata: { q: 'a&b<c>é', weight: '10', zone: 'sh001' },
    endpoints: ['http://127.0.0.1:8000', 'grpc://127.0.0.1:9000'],
  },
  { id: 'x', name: 'helloworld-admin', version: '', metadata: null, endpoints: null },
  { id: 'one', name: 'single', version: '1', metadata: null, endpoints: ['grpc://10.0.0.1:9000'] },
  {
    id: 'many',
    name: 'many',
    version: '1',
    metadata: { k: '' },
    endpoints: ['grpc://10.0.0.1:1', 'http://10.0.0.1:2', 'tcp://10.0.0.1:3', 'grpcs://[::1]:4'],
  },
  {
    id: 'ünï',
    name: 'text',
    version: '版本',
    metadata: { lines: 'a\u2028b\u2029c', control: '\b\f\n\r\t\u0001', quotes: '"\\/', emoji: '🛎️', ключ: 'значение' },
    endpoints: null,
  },
];

const asRollcall = ({ metadata, endpoints, ...rest }: PeerInstance) => ({
  ...rest,
  metadata: metadata ?? {},
  endpoints: endpoints ?? [],
});

describe.each(ETCD_VERSIONS)('Kratos and rollcall on etcd %s', (version) => {
  let etcd: EtcdCluster;
  let go: Peer;
  let node: Registry;
  let serial = 0;
  const fresh = (): string => `orders${++serial}`;

  beforeAll(async () => {
    etcd = await startEtcd({ version });
    go = await startPeer({ endpoints: etcd.hosts });
    node = await connect({ backend: 'etcd', hosts: [...etcd.hosts], ttlMs: 3000 });
  });
  afterAll(async () => {
    await node?.close();
    await go?.close();
    await etcd?.close();
  });

  test.each(awkward)('the bytes of $name are the same, whoever writes them', async (instance) => {
    const key = `/microservices/${instance.name}/${instance.id}`;
    await go.register(instance);
    const byGo = await etcd.get(key);
    expect(await node.getService(instance.name)).toEqual([asRollcall(instance)]);
    await go.deregister(instance);
    await waitFor(async () => (await etcd.get(key)) === null, { what: 'the record of Go to go' });
    const registration = await node.register(asRollcall(instance));
    expect(await etcd.get(key)).toBe(byGo);
    expect(await go.get(instance.name)).toEqual([instance]);
    await registration.deregister();
  });

  test('the captured values are what both write', async () => {
    const captures: Record<string, string> = {
      '/microservices/helloworld/5f8d-1':
        '{"id":"5f8d-1","name":"helloworld","version":"v1.0.0","metadata":{"q":"a\\u0026b\\u003cc\\u003eé","weight":"10","zone":"sh001"},"endpoints":["http://127.0.0.1:8000","grpc://127.0.0.1:9000"]}',
      '/microservices/helloworld-admin/x':
        '{"id":"x","name":"helloworld-admin","version":"","metadata":null,"endpoints":null}',
    };
    for (const instance of awkward.slice(0, 2)) {
      const key = `/microservices/${instance.name}/${instance.id}`;
      await go.register(instance);
      expect(await etcd.get(key)).toBe(captures[key]);
      await go.deregister(instance);
      const registration = await node.register(asRollcall(instance));
      expect(await etcd.get(key)).toBe(captures[key]);
      await registration.deregister();
    }
  });

  test('Node sees Go join, change and leave', async () => {
    const name = fresh();
    const watcher = node.watch(name);
    expect(await nextList(watcher)).toEqual([]);
    await go.register({ id: 'go', name, version: '1' });
    await listsUntil(watcher, ['go']);
    await go.register({ id: 'go', name, version: '2' });
    await waitFor(async () => (await nextList(watcher))[0]?.version === '2', { what: 'version 2' });
    await go.deregister({ id: 'go', name });
    await listsUntil(watcher, []);
    watcher.stop();
  });

  test('Go sees Node join, change and leave', async () => {
    const name = fresh();
    const watch = await go.watch(name);
    const registration = await node.register({ name, id: 'node', version: '1', endpoints: ['grpc://10.0.0.1:9000'] });
    await watch.list((list) => list.length === 1 && list[0]?.version === '1');
    await registration.update({ version: '2' });
    await watch.list((list) => list[0]?.version === '2' && list[0]?.endpoints?.[0] === 'grpc://10.0.0.1:9000');
    await registration.deregister();
    await waitFor(() => watch.lists.at(-1)?.length === 0, { what: 'the leave' });
    expect(watch.events.filter(({ error }) => error !== undefined)).toEqual([]);
    await watch.stop();
  });

  test('both are in one list, for Go and for Node', async () => {
    const name = fresh();
    const registration = await node.register({ name, id: 'node' });
    await go.register({ id: 'go', name });
    expect(ids(await node.getService(name))).toEqual(['go', 'node']);
    expect((await go.get(name)).map(({ id }) => id).sort()).toEqual(['go', 'node']);
    await registration.deregister();
    await go.deregister({ id: 'go', name });
  });

  test('a Kratos peer that deletes our key without asking: lost, then restored', async () => {
    const name = fresh();
    const registration = await node.register({ name, id: 'a', version: '1' });
    const heard = hear(registration);
    await go.deregister({ id: 'a', name });
    await waitFor(() => heard.count('restored') === 1, { what: '"restored"' });
    expect(heard.events).toEqual(['lost', 'restored']);
    expect(await go.get(name)).toMatchObject([{ id: 'a', version: '1' }]);
    await registration.deregister();
  });

  test('a Kratos peer that registers our id is the newer owner: we are replaced, and leave its record', async () => {
    const name = fresh();
    const registration = await node.register({ name, id: 'a', version: 'node' });
    const heard = hear(registration);
    await go.register({ id: 'a', name, version: 'go' });
    await waitFor(() => heard.count('replaced') === 1, { what: '"replaced"' });
    await registration.deregister();
    await quiet(1000); // a removal on its way would have arrived
    expect(await go.get(name)).toMatchObject([{ id: 'a', version: 'go' }]);
    expect(heard.events).toEqual(['replaced']);
    await go.deregister({ id: 'a', name });
  });

  test('we register the id of a Kratos peer, whose late deregistration deletes ours: it comes back', async () => {
    const name = fresh();
    await go.register({ id: 'a', name, version: 'go' });
    const registration = await node.register({ name, id: 'a', version: 'node' });
    expect(await go.get(name)).toMatchObject([{ version: 'node' }]);
    const heard = hear(registration);
    await go.deregister({ id: 'a', name });
    await waitFor(() => heard.count('restored') === 1, { what: '"restored"' });
    await sees(node, name, ['a']);
    expect(await go.get(name)).toMatchObject([{ version: 'node' }]);
    await registration.deregister();
  });

  test('a record of Go whose process is killed goes within its TTL', async () => {
    const name = fresh();
    const mortal = await startPeer({ endpoints: etcd.hosts, ttlMs: 3000 });
    await mortal.register({ id: 'go', name });
    const watcher = node.watch(name);
    await listsUntil(watcher, ['go']);
    await mortal.kill();
    await listsUntil(watcher, [], 6000);
    watcher.stop();
  });

  test('a record that would fail the whole list of Go is skipped here, and reported', async () => {
    const name = fresh();
    const bad: string[] = [];
    const listener = ({ key }: { key: string }): void => void bad.push(key);
    node.on('badRecord', listener);
    await etcd.put(`/microservices/${name}/bad`, '{"id":"bad","metadata":{"n":1}}');
    await go.register({ id: 'go', name });
    expect(ids(await node.getService(name))).toEqual(['go']);
    await waitFor(() => bad.length === 1, { what: '"badRecord"' });
    expect(bad).toEqual([`/microservices/${name}/bad`]);
    node.off('badRecord', listener);
    await go.deregister({ id: 'go', name });
  });

  test('a Kratos id with a slash in it is seen under its name, and nowhere else', async () => {
    const name = fresh();
    await go.register({ id: 'host/1', name });
    expect(await node.getService(name)).toMatchObject([{ id: 'host/1', name }]);
    await go.deregister({ id: 'host/1', name });
  });
});
