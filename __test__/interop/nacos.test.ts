// A Go service on Kratos's own Nacos registry and rollcall, in the same r-nacos, both ways.
import type { Registry } from 'rollcall';
import { connect } from 'rollcall';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hear, ids, listsUntil, nextList, quiet, sees, waitFor } from '../conformance/kit.js';
import { type NacosServer, startNacos } from '../support/nacos.js';
import { type Peer, startPeer } from '../support/peer.js';

const NAMESPACE = 'interop';

describe('Kratos and rollcall on r-nacos', () => {
  let nacos: NacosServer;
  let go: Peer;
  let node: Registry;

  beforeAll(async () => {
    nacos = await startNacos();
    go = await startPeer({ nacos: nacos.host, namespace: NAMESPACE });
    node = await connect({
      ...{ backend: 'nacos', hosts: nacos.host, grpcPort: Number(nacos.grpcHost.split(':')[1]) },
      ...{ namespace: NAMESPACE, logger: false },
    });
  });
  afterAll(async () => {
    await node?.close();
    await go?.close();
    await nacos?.close();
  });

  test('what Go registers is read, an instance for each endpoint, and its leaving is heard', async () => {
    const watcher = node.watch('gohello');
    expect(await nextList(watcher)).toEqual([]);
    const instance = {
      ...{ id: 'go-1', name: 'gohello', version: 'v1.0.0', metadata: { zone: 'sh001', weight: '30' } },
      endpoints: ['grpc://10.8.0.1:9000', 'grpc://10.8.0.1:9001?isSecure=true', 'http://10.8.0.1:8000'],
    };
    await go.register(instance);
    const all = ['9000', '9001'].map((port) => `10.8.0.1#${port}#DEFAULT#DEFAULT_GROUP@@gohello.grpc`);
    all.push('10.8.0.1#8000#DEFAULT#DEFAULT_GROUP@@gohello.http');
    const list = (await listsUntil(watcher, all.sort(), 20_000)).at(-1) ?? [];
    expect(list).toHaveLength(3);
    for (const each of list) {
      expect(each).toMatchObject({ name: 'gohello', version: 'v1.0.0', metadata: { zone: 'sh001', weight: '30' } });
    }
    expect(list.flatMap(({ endpoints }) => endpoints).sort()).toEqual([
      'grpc://10.8.0.1:9000',
      'grpc://10.8.0.1:9001',
      'http://10.8.0.1:8000',
    ]);
    expect(await node.services()).toContain('gohello');
    await go.deregister(instance);
    await listsUntil(watcher, [], 20_000);
    watcher.stop();
  });

  test('what we register is read by Go, by get and by watch, and an update of ours', async () => {
    const registration = await node.register({
      ...{ name: 'nodehello', id: 'node-1', version: 'v2', metadata: { zone: 'a' } },
      endpoints: ['grpc://10.7.0.1:9000', 'http://10.7.0.1:8000'],
    });
    const read = await go.get('nodehello.grpc');
    expect(read).toMatchObject([
      { version: 'v2', endpoints: ['grpc://10.7.0.1:9000'], metadata: { zone: 'a', kind: 'grpc', version: 'v2' } },
    ]);
    expect(await go.get('nodehello.http')).toMatchObject([{ endpoints: ['http://10.7.0.1:8000'] }]);
    const watch = await go.watch('nodehello.grpc');
    await watch.list((list) => list.length === 1, { timeoutMs: 30_000 });
    await registration.update({ metadata: { zone: 'b' } });
    // Its client polls every 10 s.
    await watch.list((list) => list[0]?.metadata?.zone === 'b', { timeoutMs: 30_000, what: 'the update' });
    await watch.stop();
    await registration.deregister();
  });

  test('beside each other under one name: each leaves alone', async () => {
    const ours = await node.register({ name: 'both', id: 'node', endpoints: ['grpc://10.7.0.1:9000'] });
    const heard = hear(ours);
    const theirs = { id: 'go', name: 'both', version: 'v1', metadata: null, endpoints: ['grpc://10.8.0.1:9000'] };
    await go.register(theirs);
    const id = '10.8.0.1#9000#DEFAULT#DEFAULT_GROUP@@both.grpc';
    await sees(node, 'both', [id, 'node']);
    await waitFor(async () => (await go.get('both.grpc')).length === 2, { timeoutMs: 30_000, what: 'both, in Go' });
    await go.deregister(theirs);
    await sees(node, 'both', ['node']);
    await quiet(1500); // a push may be a second late
    expect(ids(await node.getService('both', { consistent: true }))).toEqual(['node']);
    expect(heard.events).toEqual([]);
    await ours.deregister();
  });
});
