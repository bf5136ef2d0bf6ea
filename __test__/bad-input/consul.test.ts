// Agents of Consul that refuse, are not there, or are something else, and what Consul would not take: each gives a typed
// error within its timeout, leaves nothing behind, and loses nothing that was registered.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, request as forward } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { BadRecord, ConsulOptions, Registry, RollcallError } from 'rollcall';
import { connect } from 'rollcall';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  hear,
  ids,
  inTime,
  listsUntil,
  nextList,
  quiet,
  refused,
  sees,
  timed,
  waitFor,
  within,
} from '../conformance/kit.js';
import type { Finish } from '../faults/kit.js';
import type { Consul } from '../support/consul.js';
import { startConsul } from '../support/consul.js';
import { startSilentServer } from '../support/tcp.js';

const options = (hosts: string, more: Partial<ConsulOptions> = {}): ConsulOptions => ({
  ...{ backend: 'consul', hosts, healthCheck: false, ttlMs: 3000, logger: false, connectTimeoutMs: 2000 },
  ...more,
});

async function client({ onTestFinished }: Finish, hosts: string, more: Partial<ConsulOptions> = {}): Promise<Registry> {
  const registry = await connect(options(hosts, more));
  onTestFinished(() => registry.close({ timeoutMs: 500 }).catch(() => undefined));
  return registry;
}

const attempt = async (
  hosts: string,
  more: Partial<ConsulOptions> = {},
): Promise<{ ms: number; error: RollcallError }> => {
  const { ms, error, value } = await timed(connect(options(hosts, more)));
  await value?.close();
  expect(error, 'connect() succeeded').toBeDefined();
  expect(error).toMatchObject({ operation: 'connect' });
  return { ms, error: error as RollcallError };
};

type Answer = (request: IncomingMessage, answer: ServerResponse) => void;

async function web({ onTestFinished }: Finish, answer: Answer): Promise<string> {
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const page = '<!DOCTYPE html><html><body>It works!</body></html>';
const oddities: [what: string, answer: Answer][] = [
  ['500', (_, answer) => void answer.writeHead(500).end('rpc error getting client: failed to get conn')],
  ['a page of HTML', (_, answer) => void answer.writeHead(200, { 'content-type': 'text/html' }).end(page)],
  ['a page of HTML with 404', (_, answer) => void answer.writeHead(404).end(page)],
  ['a redirect', (_, answer) => void answer.writeHead(302, { location: 'http://127.0.0.1:1/' }).end()],
  ['half a JSON body', (_, answer) => void answer.end('[{"Node":{"Node":"n"')],
  [
    'less than it promised',
    (_, answer) => {
      answer.writeHead(200, { 'content-length': '1000' });
      answer.write('[{"Node":');
      setTimeout(() => answer.destroy(), 50);
    },
  ],
  ['JSON of something else', (_, answer) => void answer.end('{"status":"UP"}')],
  ['nothing', (_, answer) => void answer.end()],
  [
    '429, too many connections',
    (_, answer) => void answer.writeHead(429).end('Your IP is issuing too many concurrent connections'),
  ],
];

describe.concurrent('no agent there', () => {
  test('a host that refuses connections, and one that does not resolve', async () => {
    for (const host of ['127.0.0.1:1', 'does-not-exist.invalid:8500']) {
      const { ms, error } = await attempt(host);
      expect(['ERR_UNAVAILABLE', 'ERR_TIMEOUT']).toContain(error.code);
      expect(error.message).toContain(host);
      expect(ms).toBeLessThan(inTime(2800));
    }
  });

  test('a host that accepts and never answers', async (context) => {
    const silent = await startSilentServer();
    context.onTestFinished(() => silent.close());
    const { ms, error } = await attempt(silent.host);
    expect(['ERR_TIMEOUT', 'ERR_UNAVAILABLE']).toContain(error.code);
    expect(ms).toBeLessThan(inTime(2800));
    await waitFor(() => silent.open === 0, { timeoutMs: 5000, what: 'the connection to be closed' });
  });

  test.each(oddities)('an agent that answers %s', async (_, answer) => {
    const finish: (() => void)[] = [];
    const context: Finish = { onTestFinished: (undo) => void finish.push(undo as () => void) };
    try {
      const host = await web(context, answer);
      const { ms, error } = await attempt(host);
      expect(['ERR_UNAVAILABLE', 'ERR_TIMEOUT']).toContain(error.code);
      expect(error.message).toContain(host);
      expect(ms).toBeLessThan(inTime(2800));
      const registry = await connect(options(host, { lazy: true }));
      for (const call of [
        () => registry.getService('orders', { timeoutMs: 500 }),
        () => registry.services({ timeoutMs: 500 }),
        () => registry.register({ name: 'orders' }, { timeoutMs: 500 }),
      ]) {
        const { ms, error } = await timed<unknown>(call());
        await refused(Promise.reject(error), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
        expect(ms).toBeLessThan(inTime(1300));
      }
      const next = registry.watch('orders').next();
      await within(
        registry.close({ timeoutMs: 500 }).catch(() => undefined),
        2500,
        'close()',
      );
      expect((await within(next, 1000, 'next()')).done).toBe(true);
    } finally {
      for (const undo of finish) undo();
    }
  });

  test('rubbish between client and agent for a while: nothing that was registered is lost, and watches go on', async (context) => {
    const consul = await startConsul();
    context.onTestFinished(() => consul.close());
    let odd: Answer | undefined;
    const host = await web(context, (request, answer) => {
      if (odd) return odd(request, answer);
      const { method, url: path, headers } = request;
      const passed = forward(`${consul.server.url}${path}`, { method, headers }, (from) => {
        answer.writeHead(from.statusCode ?? 0, from.headers);
        from.pipe(answer);
      });
      passed.on('error', () => answer.destroy());
      answer.on('close', () => passed.destroy());
      request.pipe(passed);
    });
    const registry = await client(context, host);
    const registration = await registry.register({ name: 'orders', id: 'a' });
    const heard = hear(registration);
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a']);
    for (const [what, answer] of oddities.filter(([what]) => !what.includes('404'))) {
      odd = answer;
      await quiet(400);
      expect(ids(watcher.current ?? []), what).toEqual(['a']);
    }
    odd = undefined;
    await waitFor(() => registration.state === 'registered' && heard.count('lost') === heard.count('restored'), {
      timeoutMs: 12_000,
      what: 'the registration, and as many "restored" as "lost"',
    });
    await sees(registry, 'orders', ['a']);
    await consul.server.register({ ID: 'b', Name: 'orders' });
    await waitFor(() => ids(watcher.current ?? []).join() === 'a,b', { timeoutMs: 15_000, what: 'the watch to go on' });
    await registration.deregister();
    expect(await consul.server.services()).toEqual(['b']);
  }, 60_000);
});

describe('rights', () => {
  let consul: Consul;
  beforeAll(async () => {
    consul = await startConsul({ acl: true });
  });
  afterAll(() => consul?.close());

  test('a token that is not known', async () => {
    const { ms, error } = await attempt(consul.server.host, { token: '00000000-0000-0000-0000-00000000dead' });
    expect(error).toMatchObject({ code: 'ERR_UNAUTHENTICATED', retryable: false });
    expect(error.message).not.toContain('dead');
    expect(ms).toBeLessThan(inTime(1500));
  });

  test('a token that may not write is refused at once, and says which right is missing', async (context) => {
    const token = await consul.server.token('service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }');
    const registry = await client(context, consul.server.host, { token: token.secret });
    const { ms, error } = await timed(registry.register({ name: 'orders', id: 'a' }));
    const refusal = await refused(Promise.reject(error), 'ERR_PERMISSION_DENIED', /service "orders".*write/);
    expect(refusal).toMatchObject({ endpoint: `http://${consul.server.host}`, key: 'orders/a' });
    expect(refusal.message).toContain('answered 403');
    expect(ms).toBeLessThan(inTime(1500));
    expect(await registry.getService('orders')).toEqual([]);
    expect(await consul.server.services('management')).toEqual([]);
  });

  test('a token that may not read gets no invented empty list', async (context) => {
    await consul.server.register({ ID: 'x', Name: 'hidden' }, 'management');
    context.onTestFinished(async () => void (await consul.server.deregister('x', 'management')));
    const token = await consul.server.token('service_prefix "seen" { policy = "read" }');
    const registry = await client(context, consul.server.host, { token: token.secret });
    const refusal = await refused(registry.getService('hidden'), 'ERR_PERMISSION_DENIED', /service:read/);
    expect(refusal).toMatchObject({ endpoint: `http://${consul.server.host}`, key: 'hidden' });
    await refused(registry.watch('hidden').next(), 'ERR_PERMISSION_DENIED');
  });

  test('a token that may write one service and read nothing else registers it', async (context) => {
    const token = await consul.server.token('service "orders" { policy = "write" }');
    const registry = await client(context, consul.server.host, { token: token.secret });
    const registration = await registry.register({ name: 'orders', id: 'a' });
    const reader = await client(context, consul.server.host, { token: 'management' });
    await sees(reader, 'orders', ['a']);
    await registration.deregister();
    await sees(reader, 'orders', []);
    await refused(registry.register({ name: 'other', id: 'a' }), 'ERR_PERMISSION_DENIED');
  });

  test('options of Consul Enterprise are refused by one that is not', async (context) => {
    const registry = await client(context, consul.server.host, { token: 'management', namespace: 'team', lazy: true });
    await refused(registry.register({ name: 'orders', id: 'a' }), 'ERR_INVALID_ARGUMENT');
    await refused(registry.getService('orders'), 'ERR_INVALID_ARGUMENT');
  });
});

describe('what Consul would not take', () => {
  let consul: Consul;
  beforeAll(async () => {
    consul = await startConsul();
  });
  afterAll(() => consul?.close());

  test.each([
    [{ metadata: { 'a.b': '1' } }, /metadata\["a\.b"\]/],
    [{ metadata: { k: 'x'.repeat(600) } }, /metadata\["k"\].*512/],
    [{ metadata: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`k${i}`, ''])) }, /at most 64/],
    [{ endpoints: ['grpc://a:1', 'http://a:1', 'grpc://b:1'] }, /endpoints\[2\].*second "grpc"/],
    [{ id: '..' }, /instance\.id/],
    [{ name: '.' }, /instance\.name/],
    [{ id: 'zero\u200bwidth' }, /^instance\.id: .*U\+200B/],
    [{ name: 'no\u00a0break' }, /^instance\.name: .*U\+00A0/],
    [{ name: 'consul' }, /^instance\.name: .*own servers/],
    [{ endpoints: ['lan://a:1'] }, /^instance\.endpoints\[0\]: .*"lan"/],
  ])('%j is refused, by its name, and nothing is registered', async (more, message) => {
    const registry = await connect(options(consul.server.host));
    try {
      const instance = { name: 'orders', id: 'a', ...more };
      await refused(registry.register(instance), 'ERR_INVALID_ARGUMENT', message);
      await refused(registry.register(instance, { background: true }), 'ERR_INVALID_ARGUMENT', message);
      expect(await consul.server.services()).toEqual([]);
    } finally {
      await registry.close();
    }
  });

  test('an update that it would not take is refused at once, and the instance is repaired as it was', async (context) => {
    const registry = await client(context, consul.server.host);
    const registration = await registry.register({ name: 'orders', id: 'a', version: '1' });
    await refused(registration.update({ metadata: { 'a.b': '1' } }), 'ERR_INVALID_ARGUMENT', /metadata\["a\.b"\]/);
    expect(registration.instance.metadata).toEqual({});
    const heard = hear(registration);
    await consul.server.deregister('a');
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: 10_000, what: '"restored"' });
    await registration.deregister();
  });

  test('a name that it can not be asked for is refused when it is read', async (context) => {
    const registry = await client(context, consul.server.host);
    for (const name of ['no\u00a0break', '..']) {
      await refused(registry.getService(name), 'ERR_INVALID_ARGUMENT', /^name: /);
      await refused(registry.watch(name).next(), 'ERR_INVALID_ARGUMENT', /^name: /);
    }
  });

  test('a filter that is none', async (context) => {
    const registry = await client(context, consul.server.host, { filter: 'Service.ID ==' });
    await refused(registry.getService('orders'), 'ERR_INVALID_ARGUMENT', /filter/i);
    await refused(registry.watch('orders').next(), 'ERR_INVALID_ARGUMENT');
  });

  test('instances of other tools are read at their address; those that fail or warn are left out unless asked for', async (context) => {
    const { server } = consul;
    await server.register({ ID: 'bare', Name: 'foreign', Port: 80 });
    await server.register({
      ID: 'own',
      Name: 'foreign',
      Address: '10.0.0.9',
      Port: 81,
      Tags: ['blue'],
      Meta: { k: 'v' },
    });
    await server.register({ ID: 'ill', Name: 'foreign', Port: 82, Check: { TTL: '60s', Status: 'warning' } });
    const registry = await client(context, server.host);
    expect(await nextList(registry.watch('foreign'))).toEqual([
      { id: 'bare', name: 'foreign', version: '', metadata: {}, endpoints: ['http://127.0.0.1:80'] },
      { id: 'own', name: 'foreign', version: '', metadata: { k: 'v' }, endpoints: ['http://10.0.0.9:81'] },
    ]);
    const all = await client(context, server.host, { passingOnly: false });
    expect(ids(await all.getService('foreign'))).toEqual(['bare', 'ill', 'own']);
    const blue = await client(context, server.host, { filter: '"blue" in Service.Tags' });
    expect(ids(await blue.getService('foreign'))).toEqual(['own']);
    for (const id of ['bare', 'own', 'ill']) await server.deregister(id);
    await sees(registry, 'foreign', []);
  });

  test('a port that is none is a bad record, and those beside it are read', async (context) => {
    const { server } = consul;
    for (const [id, port] of [['good', 80] as const, ['bad', 70_000] as const]) {
      await server.register({ ID: id, Name: 'ports', Port: port });
      context.onTestFinished(async () => void (await server.deregister(id)));
    }
    const registry = await client(context, server.host);
    const bad: BadRecord[] = [];
    registry.on('badRecord', (record) => bad.push(record));
    expect(ids(await registry.getService('ports', { consistent: true }))).toEqual(['good']);
    expect(ids(await nextList(registry.watch('ports')))).toEqual(['good']);
    await waitFor(() => bad.length > 0, { what: '"badRecord"' });
    expect(bad[0]?.key).toContain('bad');
    expect(bad[0]?.reason).toContain('70000');
    expect(await registry.services()).toContain('ports');
    // Nor does it stand in the way of one's own.
    const registration = await registry.register({ name: 'ports', id: 'own' });
    await sees(registry, 'ports', ['good', 'own']);
    await registration.deregister();
  });

  test('tags, weights and checks of the options reach Consul', async (context) => {
    const listening = await web(context, (_, answer) => void answer.end('ok'));
    const registry = await client(context, consul.server.host, {
      ...{ healthCheck: 'http', healthCheckPath: '/healthz', healthCheckIntervalMs: 1000, tags: ['blue'] },
      ...{ weights: { passing: 10, warning: 2 }, deregisterCriticalAfterMs: 60_000 },
    });
    const registration = await registry.register({ name: 'checked', id: 'c', endpoints: [`http://${listening}/api`] });
    const [entry] = await consul.server.entries('checked');
    expect(entry?.Service.Tags).toEqual(['version=', 'blue']);
    expect(entry?.Service.Weights).toEqual({ Passing: 10, Warning: 2 });
    expect(entry?.Checks.map(({ Type }) => Type).sort()).toEqual(['', 'http', 'ttl']);
    await quiet(1500); // the agent has looked by then
    await sees(registry, 'checked', ['c']);
    await registration.deregister();
  });

  test('without a heartbeat: no TTL check, and the capabilities say what that means', async (context) => {
    const registry = await client(context, consul.server.host, { heartbeat: false });
    expect(registry.capabilities).toMatchObject({ expires: false, owners: false });
    const registration = await registry.register({ name: 'quiet', id: 'q', version: '1' });
    await registration.update({ version: '2' });
    expect(await registry.getService('quiet')).toMatchObject([{ version: '2' }]);
    expect((await consul.server.entries('quiet'))[0]?.Checks.filter(({ ServiceID }) => ServiceID === 'q')).toEqual([]);
    await registration.deregister();
    expect(await registry.getService('quiet')).toEqual([]);
  });
});
