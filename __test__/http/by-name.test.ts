// Calls of URLs whose host is the name of a service: createFetch(), a ServiceAgent, agents of node:http, and the clients on top.

import { createServer, get, request } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { connect, type Registry, roundRobin } from 'rollcall';
import { createFetch, httpAgent, httpsAgent, ServiceAgent, type UndiciModule } from 'rollcall/http';
import { beforeAll, describe, expect, it, test } from 'vitest';
import { uniqueName, waitFor } from '../support/process.js';
import { type Finish, httpServer, refusingPort, service } from './kit.js';
import { clients } from './project.js';

// biome-ignore lint/suspicious/noExplicitAny: clients of other people, each with types of its own
type Client = any;
let undici: UndiciModule;
let axios: Client;
let got: Client;
beforeAll(async () => {
  const require = createRequire(`${await clients()}/`);
  undici = require('undici7');
  axios = require('axios');
  ({ got } = await import(require.resolve('got')));
});

async function memory({ onTestFinished }: Finish): Promise<Registry> {
  const registry = await connect(`memory://${uniqueName()}?logger=0`);
  onTestFinished(() => registry.close());
  return registry;
}

const echo = (context: Finish) =>
  httpServer(context, (response, { method, url, headers: { host }, body }) => {
    response.end(JSON.stringify({ method, url, host, body }));
  });

describe('createFetch()', () => {
  it('takes a string, a URL and a Request, and what a call says of itself', async (context) => {
    const server = await echo(context);
    const { registry, orders } = await service(context, [server.port]);
    const fetch = createFetch(registry, { undici });
    const told = async (response: Promise<Response>) => await (await response).json();
    expect(await told(fetch('http://orders/a?b#c'))).toEqual({ method: 'GET', url: '/a?b', host: 'orders', body: '' });
    expect(await told(fetch(new URL('http://orders')))).toMatchObject({ url: '/' });
    const post = new Request('http://orders/p', { method: 'POST', body: 'x' });
    expect(await told(fetch(post, { timeoutMs: 5000 }))).toMatchObject({ method: 'POST', url: '/p', body: 'x' });
    expect(await told(fetch(new Request('http://orders/p'), { method: 'PUT', body: 'y' }))).toMatchObject({
      method: 'PUT',
      body: 'y',
    });
    expect(orders.metrics()).toMatchObject({ picks: 4, inFlight: 0, ejections: 0 });
    await fetch.close();
    await expect(fetch('http://orders/')).rejects.toMatchObject({ code: 'ERR_CLOSED', operation: 'fetch' });
  });

  it('tries another instance as service.fetch() does, within the budget', async (context) => {
    const server = await httpServer(context);
    const options = { strategy: roundRobin(), outlier: false as const };
    const { registry, orders } = await service(context, [await refusingPort(), server.port], { outlier: false });
    const fetch = createFetch(registry, { undici, service: options });
    for (let turn = 0; turn < 4; turn++) {
      const body = new Blob(['order 7']).stream();
      expect((await fetch('http://orders/', { method: 'POST', body: body as never, duplex: 'half' })).status).toBe(200);
    }
    expect(server.arrivals.map(({ body }) => body)).toEqual(Array(4).fill('order 7'));
    expect(orders.metrics().retries).toBeGreaterThan(0);
    const error = await fetch('http://orders/', { retries: 0 })
      .then(() => fetch('http://orders/', { retries: 0 }))
      .catch((error) => error);
    expect(error).toMatchObject({ code: 'ERR_UNAVAILABLE', retryable: true, cause: { code: 'ECONNREFUSED' } });
  });

  it('follows no more than 256 names', async (context) => {
    const registry = await memory(context);
    const fetch = createFetch(registry, { undici: false, service: { lingerMs: 0 } });
    for (let n = 0; n < 300; n++) await fetch(`http://name-${n}/`).catch(() => {});
    expect(Object.keys(registry.metrics().services)).toHaveLength(256);
    await fetch.close();
    expect(registry.metrics().services).toEqual({});
  });
});

describe('bad input', () => {
  const form = (name: string) => `call registry.service('${name}').fetch('/path')`;
  it.each([
    ['http://orders:8080/', /^input\.port: a call by name has no port in its URL/],
    ['http://orders:80/', /^input\.port: /],
    ['http://user@orders/', /^input\.username: a call by name has no user in its URL/],
    ['http://:pw@orders/', /^input\.username: /],
    ['http://UserService/', `input: a URL turns the name "UserService" into "userservice": ${form('UserService')}`],
    ['http://2024/', `input: a URL turns the name "2024" into "0.0.7.232": ${form('2024')}`],
    [
      'http://örders/',
      /^input: a URL turns the name "örders" into "xn--[a-z0-9-]+": call registry\.service\('örders'\)/,
    ],
    ['http:///orders', /^input: a URL turns the name "" into "orders"/],
    ['http://10.0.0.1/', `input: 10.0.0.1 is an address: of a service that is called so ${form('10.0.0.1')}`],
    ['http://[::1]/', /^input: \[::1\] is an address/],
    ['discovery:///orders', /^input: expected a URL such as "http:\/\/orders\/7", .+, got one of discovery:$/],
    ['/orders', /^input: expected a URL .+, got a string that is no URL$/],
    [7, /^input: expected a URL .+, got number$/],
    [undefined, /^input: expected a URL .+, got undefined$/],
  ])('%s is refused by its part', async (url, message) => {
    const finishes: (() => unknown)[] = [];
    const registry = await memory({ onTestFinished: (finish) => void finishes.push(finish) });
    const error = await createFetch(registry, { undici: false })(url as never).catch((error) => error);
    expect(error).toMatchObject({ code: 'ERR_INVALID_ARGUMENT', operation: 'fetch' });
    if (typeof message === 'string') expect(error.message).toBe(message);
    else expect(error.message).toMatch(message);
    expect(error.message).not.toContain('pw');
    expect(registry.metrics().services).toEqual({});
    for (const finish of finishes) await finish();
  });

  it.each([
    [{ undici: 7 }, /^options\.undici: expected the module undici, .+ got number$/, 'ERR_INVALID_ARGUMENT'],
    [
      { undici: { Pool: class {}, buildConnector() {} } },
      /^options\.undici: expected undici .+, got an older one$/,
      'ERR_UNSUPPORTED',
    ],
    [{ serverNam: 'a' }, 'options.serverNam: unknown option; did you mean "serverName"?', 'ERR_INVALID_ARGUMENT'],
    [
      { serverName: 'a/b' },
      /^options\.serverName: expected a name that a certificate can carry/,
      'ERR_INVALID_ARGUMENT',
    ],
    [{ tls: { servername: 'a' } }, /^options\.tls\.servername: unknown option/, 'ERR_INVALID_ARGUMENT'],
    [{ connectTimeoutMs: 0 }, /^options\.connectTimeoutMs: expected a whole number/, 'ERR_INVALID_ARGUMENT'],
    [{ drainTimeoutMs: -1 }, /^options\.drainTimeoutMs: expected a whole number/, 'ERR_INVALID_ARGUMENT'],
    [{ service: { http: { retries: -1 } } }, /^options\.service\.http\.retries: expected/, 'ERR_INVALID_ARGUMENT'],
    [7, 'options: expected an object, got number', 'ERR_INVALID_ARGUMENT'],
  ])('options %j', async (options, message, code) => {
    const finishes: (() => unknown)[] = [];
    const registry = await memory({ onTestFinished: (finish) => void finishes.push(finish) });
    let error: { message: string } | undefined;
    try {
      new ServiceAgent(registry, { undici, ...(options as object) });
      if (typeof options === 'number') new ServiceAgent(registry, options as never);
    } catch (thrown) {
      error = thrown as never;
    }
    expect(error).toMatchObject({ code, operation: 'ServiceAgent' });
    if (typeof message === 'string') expect(error?.message).toBe(message);
    else expect(error?.message).toMatch(message);
    for (const finish of finishes) await finish();
  });

  it('a registry that is none', () => {
    for (const make of [createFetch, httpAgent, httpsAgent, (given: never) => new ServiceAgent(given)]) {
      expect(() => make(undefined as never)).toThrow(
        'registry: expected a registry, as connect() gives it, got undefined',
      );
    }
  });
});

test('an address of IPv6 is called, whatever calls', async (context) => {
  const server = createServer((request, response) => response.end(`${request.headers.host}`));
  await new Promise<void>((resolve) => server.listen(0, '::1', resolve));
  context.onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const registry = await memory(context);
  await registry.register({ name: 'orders', endpoints: [`http://[::1]:${port}`] });
  const dispatcher = new ServiceAgent(registry, { undici });
  const text = async (response: Promise<{ text(): Promise<string> }>) => await (await response).text();
  expect(await text(registry.service('orders').fetch('/'))).toBe(`[::1]:${port}`);
  expect(await text(createFetch(registry, { undici: false })('http://orders/'))).toBe(`[::1]:${port}`);
  expect(await text(createFetch(registry, { undici })('http://orders/'))).toBe('orders');
  expect(await text(fetch('http://orders/', { dispatcher } as never))).toBe('orders');
  expect((await axios.get('http://orders/', { httpAgent: httpAgent(registry) })).data).toBe('orders');
});

describe('httpAgent()', () => {
  const ended = (url: string | object, agent: ReturnType<typeof httpAgent>) =>
    new Promise<{ status?: number | undefined; body?: string; code?: string; message?: string }>((resolve) => {
      get(
        { ...(typeof url === 'string' ? { host: new URL(url).hostname, path: new URL(url).pathname } : url), agent },
        async (response) => {
          let body = '';
          for await (const piece of response) body += piece;
          resolve({ status: response.statusCode, body });
        },
      ).on('error', (error) => resolve(error));
    });

  it('picks for each request, keeps connections, and tells what came of it', async (context) => {
    const [a, b] = [await echo(context), await echo(context)];
    const { registry, orders } = await service(context, [a.port, b.port]);
    const agent = httpAgent(registry, { service: { strategy: roundRobin() } });
    for (let turn = 0; turn < 4; turn++) {
      const { body = '' } = await ended('http://orders/7', agent);
      expect(JSON.parse(body)).toEqual({ method: 'GET', url: '/7', host: 'orders', body: '' });
    }
    expect([a.arrivals.length, b.arrivals.length]).toEqual([2, 2]);
    expect(Object.values(agent.freeSockets).map((sockets) => sockets?.length)).toEqual([1, 1]);
    expect(orders.metrics()).toMatchObject({ picks: 4, inFlight: 0, ejections: 0 });
  });

  it('takes names that no URL keeps, where no URL is', async (context) => {
    const server = await echo(context);
    const registry = await memory(context);
    await registry.register({ name: 'UserService', endpoints: [`http://127.0.0.1:${server.port}`] });
    expect((await ended({ host: 'UserService', path: '/' }, httpAgent(registry))).status).toBe(200);
  });

  it('sets an instance aside that refuses, and fails as pick() does where there is none', async (context) => {
    const server = await httpServer(context);
    const { registry, orders } = await service(context, [await refusingPort(), server.port], {
      strategy: roundRobin(),
    });
    const agent = httpAgent(registry, { service: { strategy: roundRobin() } });
    const ejected: string[] = [];
    orders.on('ejected', ({ instance, reason }) => ejected.push(`${instance.id} ${reason}`));
    const codes = [];
    for (let turn = 0; turn < 4; turn++) codes.push((await ended('http://orders/', agent)).code);
    expect(codes.filter(Boolean)).toEqual(['ECONNREFUSED']);
    expect(ejected).toEqual(['i0 refused']);
    expect(await ended('http://nobody/', agent)).toMatchObject({ code: 'ERR_UNAVAILABLE', name: 'NoInstanceError' });
    expect(await ended({ host: 'orders', port: 8080 }, agent)).toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      message: 'port: a call by name has no port in its URL: the registry knows where an instance listens',
    });
  });

  it('an answer that nobody listens for is thrown away, and an abort counts for nothing', async (context) => {
    const server = await httpServer(context, (response, { url }) => {
      if (url !== '/silent') response.end('x'.repeat(1_000_000));
    });
    const { registry, orders } = await service(context, [server.port], { outlier: { consecutiveFailures: 1 } });
    const agent = httpAgent(registry);
    await new Promise((resolve) => request({ host: 'orders', agent }).on('close', resolve).end());
    expect(orders.metrics()).toMatchObject({ picks: 1, inFlight: 0 });
    const controller = new AbortController();
    const call = new Promise<{ name: string }>((resolve) => {
      request({ host: 'orders', path: '/silent', agent, signal: controller.signal }).on('error', resolve).end();
    });
    await waitFor(() => server.arrivals.length === 2, { what: 'the call to arrive' });
    controller.abort();
    expect((await call).name).toBe('AbortError');
    expect(orders.metrics()).toMatchObject({ picks: 2, inFlight: 0, ejections: 0 });
  });
});

describe('clients', () => {
  test('axios calls by name through httpAgent(), and its fetch adapter through createFetch()', async (context) => {
    const server = await echo(context);
    const { registry } = await service(context, [server.port]);
    const fetch = createFetch(registry, { undici });
    const ways = [
      axios.create({ httpAgent: httpAgent(registry), httpsAgent: httpsAgent(registry), baseURL: 'http://orders' }),
      axios.create({ adapter: 'fetch', env: { fetch }, baseURL: 'http://orders' }),
      axios.create({
        adapter: 'fetch',
        fetchOptions: { dispatcher: new ServiceAgent(registry, { undici }) },
        baseURL: 'http://orders',
      }),
    ];
    for (const client of ways) {
      expect((await client.get('/7')).data).toEqual({ method: 'GET', url: '/7', host: 'orders', body: '' });
      const { data } = await client.post('/', { id: 7 });
      expect(data).toMatchObject({ method: 'POST', host: 'orders', body: '{"id":7}' });
    }
  });

  test('got calls by name through httpAgent()', async (context) => {
    const server = await echo(context);
    const { registry } = await service(context, [server.port]);
    const agent = { http: httpAgent(registry), https: httpsAgent(registry) };
    const told = await got.post('http://orders/7', { agent, json: { id: 7 }, retry: { limit: 0 } }).json();
    expect(told).toMatchObject({ method: 'POST', url: '/7', host: 'orders', body: '{"id":7}' });
  });
});
