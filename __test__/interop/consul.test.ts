// A Go service on Kratos's own Consul registry and rollcall, at the same agent, both ways.
import { Resolver } from 'node:dns/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { ConsulOptions, Registry } from 'rollcall';
import { connect } from 'rollcall';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { hear, ids, listsUntil, nextList, quiet, sees, waitFor } from '../conformance/kit.js';
import type { Consul } from '../support/consul.js';
import { startConsul } from '../support/consul.js';
import type { Peer, PeerInstance } from '../support/peer.js';
import { startPeer } from '../support/peer.js';

const options = (host: string): ConsulOptions => ({
  backend: 'consul',
  hosts: host,
  healthCheck: false, // nobody listens on the endpoints
  ttlMs: 3000,
  logger: false,
});

/** Kratos gives endpoints in the order of a Go map, which is none. */
const sorted = (instances: PeerInstance[]): PeerInstance[] =>
  instances.map((instance) => ({ ...instance, endpoints: [...(instance.endpoints ?? [])].sort() }));

const instance: PeerInstance = {
  id: '5f8d-1',
  name: 'helloworld',
  version: 'v1.0.0',
  metadata: { q: 'a&b<c>é', weight: '10', zone: 'sh001' },
  endpoints: ['grpc://127.0.0.1:9000', 'http://127.0.0.1:8000'],
};

// Every test has a peer of its own: the first deregistration of a Kratos process ends the heartbeats of all that it
// registers later.
describe('Kratos and rollcall on Consul', () => {
  let consul: Consul;
  let go: Peer;
  let node: Registry;

  beforeAll(async () => {
    consul = await startConsul();
    node = await connect(options(consul.server.host));
  });
  afterAll(async () => {
    await node?.close();
    await consul?.close();
  });
  beforeEach(async () => {
    go = await startPeer({ consul: consul.server.host, ttlMs: 4000 });
  });
  afterEach(() => go.close());

  test('what Kratos registers is read whole, and what rollcall registers too', async () => {
    await go.register(instance);
    await sees(node, 'helloworld', ['5f8d-1']);
    expect(await node.getService('helloworld')).toEqual([instance]);
    await go.deregister(instance);
    await sees(node, 'helloworld', []);
    const registration = await node.register({
      ...instance,
      metadata: instance.metadata ?? {},
      endpoints: instance.endpoints ?? [],
    });
    expect(sorted(await go.get('helloworld'))).toEqual([instance]);
    await registration.deregister();
  });

  test('each sees the other join, change and leave in a watch', async () => {
    const mine = node.watch('orders');
    expect(await nextList(mine)).toEqual([]);
    await go.register({ id: 'go', name: 'orders', version: '1' });
    await listsUntil(mine, ['go']);
    const theirs = await go.watch('orders');
    await theirs.list((list) => list.length === 1, { what: 'the list of Kratos' });
    const registration = await node.register({
      id: 'node',
      name: 'orders',
      version: '1',
      endpoints: ['grpc://10.0.0.1:1'],
    });
    await listsUntil(mine, ['go', 'node']);
    await theirs.list((list) => list.length === 2, { what: 'the instance of rollcall' });
    await registration.update({ version: '2' });
    await theirs.list((list) => list.some(({ id, version }) => id === 'node' && version === '2'), {
      what: 'version 2',
    });
    await registration.deregister();
    await theirs.list((list) => list.length === 1 && theirs.lists.length > 2, { what: 'the leaving' });
    await go.deregister({ id: 'go', name: 'orders' });
    for (;;) if (ids(await nextList(mine)).length === 0) break; // the last one, which Kratos does not deliver
    await theirs.stop();
    mine.stop();
  });

  test('a Kratos instance keeps standing beside ours for several TTLs, and so does ours', async () => {
    await go.register({ id: 'go-steady', name: 'steady', version: '1' });
    const registration = await node.register({ id: 'node-steady', name: 'steady' });
    const heard = hear(registration);
    const watcher = node.watch('steady');
    await listsUntil(watcher, ['go-steady', 'node-steady']);
    await quiet(9000); // three of our TTLs, two of theirs
    expect(heard.events).toEqual([]);
    expect(ids(watcher.current ?? [])).toEqual(['go-steady', 'node-steady']);
    await registration.deregister();
    await go.deregister({ id: 'go-steady', name: 'steady' });
  });

  test('Kratos takes over our id, and we give way; a killed Kratos process expires', async () => {
    const registration = await node.register({ id: 'same', name: 'taken', version: 'ours' });
    await go.register({ id: 'same', name: 'taken', version: 'theirs' });
    await waitFor(() => registration.state === 'replaced', { what: 'ours to give way' });
    expect(await node.getService('taken', { consistent: true })).toMatchObject([{ version: 'theirs' }]);
    const watcher = node.watch('taken');
    await listsUntil(watcher, ['same']);
    await go.kill();
    expect(await nextList(watcher, 10_000)).toEqual([]); // its last one, too
    watcher.stop();
  });

  test('a Kratos peer that deregisters our id is repaired', async () => {
    const registration = await node.register({ id: 'deleted', name: 'mended' });
    const heard = hear(registration);
    await go.deregister({ id: 'deleted', name: 'mended' });
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: 6000, what: '"restored"' });
    expect(heard.events).toEqual(['lost', 'restored']);
    await registration.deregister();
  });
});

test("Consul's DNS answers an SRV question for an instance of ours", async ({ onTestFinished }) => {
  const consul = await startConsul({ dns: true });
  onTestFinished(() => consul.close());
  const node = await connect(options(consul.server.host));
  onTestFinished(() => node.close());
  const registration = await node.register({ name: 'orders', id: 'a', endpoints: ['grpc://10.1.2.3:9000'] });
  const dns = new Resolver({ timeout: 2000, tries: 3 });
  dns.setServers([`127.0.0.1:${consul.server.ports.dns}`]);
  const [record, ...more] = await dns.resolveSrv('orders.service.consul');
  expect([record?.port, more]).toEqual([9000, []]);
  expect(await dns.resolve4(record?.name ?? '')).toEqual(['10.1.2.3']);
  await registration.deregister();
  await expect(dns.resolveSrv('orders.service.consul')).rejects.toMatchObject({ code: 'ENOTFOUND' });
});

test('both send the same bytes, but for the status of the checks and the mark in the notes', async ({
  onTestFinished,
}) => {
  const bodies: string[] = [];
  const stub = createServer((request, answer) => {
    let body = '';
    request.setEncoding('utf8').on('data', (chunk: string) => {
      body += chunk;
    });
    request.on('end', () => {
      const { pathname } = new URL(request.url ?? '', 'http://stub');
      if (pathname === '/v1/agent/service/register') bodies.push(body);
      if (pathname.startsWith('/v1/agent/health/')) {
        answer.writeHead(404).end('{"AggregatedStatus":"critical","Service":null,"Checks":null}');
      } else if (pathname === '/v1/agent/services') {
        answer.end('{}');
      } else {
        answer.end(pathname.startsWith('/v1/health/') ? '[]' : '');
      }
    });
  });
  await new Promise<void>((resolve) => stub.listen(0, '127.0.0.1', resolve));
  const host = `127.0.0.1:${(stub.address() as AddressInfo).port}`;
  const go = await startPeer({ consul: host, ttlMs: 20_000, health: true });
  const node = await connect({ backend: 'consul', hosts: host, lazy: true, logger: false, timeoutMs: 500 });
  onTestFinished(async () => {
    await go.close();
    await node.close({ timeoutMs: 100 }).catch(() => undefined);
    stub.closeAllConnections();
    stub.close();
  });
  const given: PeerInstance[] = [
    instance,
    { ...instance, id: 'x', metadata: null, endpoints: null, version: '' },
    { ...instance, id: 'v6', endpoints: ['https://[::1]:8443/p?q=1&r=<2>', 'grpcs://h.example:1'] },
  ];
  for (const one of given) {
    bodies.length = 0;
    await go.register(one);
    const theirs = bodies[0]?.trimEnd(); // Go's encoder ends its line
    bodies.length = 0;
    // The stub shows nothing, so that it never becomes visible; what was sent is what counts.
    await node
      .register({ ...one, metadata: one.metadata ?? {}, endpoints: one.endpoints ?? [] }, { timeoutMs: 300 })
      .catch(() => undefined);
    const ours = bodies[0]?.replaceAll('"Status":"passing",', '').replace(/"Notes":"rollcall:[0-9a-f-]+:1",/, '');
    expect(ours).toBe(theirs);
    expect(bodies[0]).toContain('"Notes":"rollcall:');
  }
});
