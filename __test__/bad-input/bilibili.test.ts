// What can't be right of discovery, and servers that are none: typed errors in time, and nothing left behind.
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { BilibiliOptions, Registry } from 'rollcall';
import { connect } from 'rollcall';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ids, refused, sees, timed } from '../conformance/kit.js';
import { connected, type Finish } from '../faults/kit.js';
import { type Discovery, ENV, startDiscovery, ZONE } from '../support/discovery.js';
import { inTime } from '../support/process.js';
import { startSilentServer } from '../support/tcp.js';

const options = (hosts: string, more: Partial<BilibiliOptions> = {}): BilibiliOptions => ({
  ...{ backend: 'bilibili', hosts, zone: ZONE, env: ENV, ttlMs: 3000, logger: false, connectTimeoutMs: 2000 },
  ...more,
});

async function client(context: Finish, hosts: string, more: Partial<BilibiliOptions> = {}): Promise<Registry> {
  return connected(context, options(hosts, more));
}

async function answering({ onTestFinished }: Finish, answer: RequestListener): Promise<string> {
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

describe('a server that is none', () => {
  const page = '<!DOCTYPE html><html><body>It works!</body></html>';
  const huge = Buffer.alloc(1024 * 1024, ' ');
  const cases: [string, RequestListener][] = [
    ['a page of HTML', (_, answer) => void answer.writeHead(200, { 'content-type': 'text/html' }).end(page)],
    ['500', (_, answer) => void answer.writeHead(500).end('oops')],
    ['the code -500', (_, answer) => void answer.end('{"code":-500,"data":null}')],
    ['another JSON', (_, answer) => void answer.end('[]')],
    ['half a message', (_, answer) => void answer.writeHead(200, { 'content-length': 1000 }).write('{"code":0,"da')],
    ['a redirect', (_, answer) => void answer.writeHead(302, { location: 'http://127.0.0.1:1/' }).end()],
    [
      'an answer of 65 MB',
      (_, answer) => {
        answer.on('error', () => {});
        let left = 65;
        const more = () => {
          while (left-- > 0) if (!answer.write(huge)) return void answer.once('drain', more);
          answer.end();
        };
        more();
      },
    ],
  ];
  test.each(cases)('%s', async (_, listener) => {
    const cleanUp: (() => unknown)[] = [];
    const context = { onTestFinished: (undo: () => unknown) => void cleanUp.push(undo) } as unknown as Finish;
    const host = await answering(context, listener);
    const { ms } = await timed(
      refused(connect(options(host)), ['ERR_UNAVAILABLE', 'ERR_TIMEOUT']).then((error) => {
        expect(`${error.message} ${error.endpoint}`).toContain(host);
      }),
    );
    expect(ms).toBeLessThan(inTime(5000));
    for (const undo of cleanUp) await undo();
  });

  test.each([
    [401, 'ERR_UNAUTHENTICATED'],
    [403, 'ERR_PERMISSION_DENIED'],
  ] as const)('a proxy before it that says %d', async (status, code) => {
    const cleanUp: (() => unknown)[] = [];
    const context = { onTestFinished: (undo: () => unknown) => void cleanUp.push(undo) } as unknown as Finish;
    const host = await answering(context, (_, answer) => void answer.writeHead(status).end('no'));
    await refused(connect(options(host)), code);
    for (const undo of cleanUp) await undo();
  });

  test('one that never answers', async ({ onTestFinished }) => {
    const silent = await startSilentServer();
    onTestFinished(() => silent.close());
    await refused(connect(options(silent.host)), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
  });
});

describe('on a real node', () => {
  let discovery: Discovery;
  beforeAll(async () => {
    discovery = await startDiscovery();
  });
  afterAll(() => discovery?.close());

  test('a zone and an environment without a node are refused by name', async () => {
    const { host } = discovery.node;
    const zone = await refused(connect(options(host, { zone: 'bj001' })), 'ERR_INVALID_ARGUMENT');
    expect(zone.message).toMatch(/options\.zone: .*"bj001".*sh001/);
    const env = await refused(connect(options(host, { env: 'prod' })), 'ERR_INVALID_ARGUMENT');
    expect(env.message).toMatch(/options\.env: .*"prod"/);
  });

  test.each([
    [{ endpoints: ['grpc://10.0.0.1:1/a,b'] }, /instance\.endpoints\[0\]: .*comma/],
    [{ name: 'infra.discovery' }, /instance\.name: .*own nodes/],
    [{ metadata: { 'rollcall.owner': 'me' } }, /instance\.metadata\["rollcall\.owner"\]: /],
    [{ metadata: { 'kratos.v2.serviceinstance.id': 'x' } }, /instance\.metadata\["kratos\.v2/],
  ])('%o is refused before anything is sent', async (wrong, message) => {
    const registry = await connect(options(discovery.node.host));
    try {
      await refused(registry.register({ name: 'refused', id: 'a', ...wrong }), 'ERR_INVALID_ARGUMENT', message);
      expect(await registry.getService('refused')).toEqual([]);
    } finally {
      await registry.close();
    }
  });

  test('a record with another environment in its name is none of ours', async (context) => {
    const registry = await client(context, discovery.node.host);
    // The node keeps both under "x-y-dev".
    await discovery.node.register('y-dev', 'x', 'theirs');
    await discovery.node.register('dev', 'x-y', 'ours');
    await sees(registry, 'x-y', ['ours']);
  });

  test('records without an id, metadata or addresses are read under their host name', async (context) => {
    const registry = await client(context, discovery.node.host);
    await discovery.node.ask('POST', 'register', {
      ...{ appid: 'bare', env: ENV, zone: ZONE, hostname: 'box-1', status: '1' },
    });
    const list = await registry.getService('bare');
    expect(ids(list)).toEqual(['box-1']);
    expect(list[0]).toMatchObject({ endpoints: [], metadata: {}, version: '' });
  });

  test('a record of half a megabyte goes by as a form', async (context) => {
    const registry = await client(context, discovery.node.host);
    const text = 'é&<'.repeat(30_000);
    await registry.register({ name: 'large', id: 'a', metadata: { text } });
    expect((await registry.getService('large', { consistent: true }))[0]?.metadata.text).toBe(text);
  });
});

describe('options', () => {
  test.each([
    ['bilibili://h', /options\.zone: .*ZONE/],
    ['bilibili://h?zone=a', /options\.env: .*DEPLOY_ENV/],
    ['bilibili://user:pw@h?zone=a&env=b', /no "@"/],
    ['bilibili://h/prefix?zone=a&env=b', /no path/],
    ['discovery:///orders', /rollcall\/grpc/],
    ['discovery://eu/orders', /rollcall\/grpc/],
  ])('%s', async (url, message) => {
    await refused(connect(url), 'ERR_INVALID_ARGUMENT', message);
  });

  test('the zone and the environment are taken from the variables of the Go client', async ({ onTestFinished }) => {
    onTestFinished(() => {
      for (const name of ['ZONE', 'DEPLOY_ENV']) delete process.env[name];
    });
    Object.assign(process.env, { ZONE: 'a', DEPLOY_ENV: 'b' });
    const registry = await connect('discovery://127.0.0.1:1?lazy=true');
    await registry.close();
  });
});
