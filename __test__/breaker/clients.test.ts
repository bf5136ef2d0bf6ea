// Breakers before the clients that programs have: grpc-js from 1.10 to 1.14, and undici 6 to 8.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { createBreakers } from 'rollcall/breaker';
import { expect, test } from 'vitest';
import { callerOf, type Finish, LINES, load, ORDERS, ordersServer } from '../grpc/kit.js';
import { clients } from '../http/project.js';
import { waitFor } from '../support/process.js';

test.each(LINES)(
  'grpc-js 1.%d: a method is refused when it fails, and nothing is left of what was refused',
  async (line) => {
    const finishing: (() => unknown)[] = [];
    const finish: Finish = { onTestFinished: (end) => void finishing.push(end) };
    try {
      const server = await ordersServer(finish, 'a');
      const grpc = await load(line);
      const breakers = createBreakers({
        default: { failureThreshold: 2, openStateTimeout: 100, successThreshold: 1 },
        logger: false,
      });
      const Client = grpc.makeGenericClientConstructor(ORDERS, 'Orders');
      const stub = new Client(`127.0.0.1:${server.port}`, grpc.credentials.createInsecure(), {
        interceptors: [breakers.grpcInterceptor('orders')],
      });
      finish.onTestFinished(() => stub.close());
      const { call } = callerOf(grpc, stub);
      expect(await call()).toMatchObject({ from: 'a', code: 0 });
      server.failures = [5, 5, 5, 14, 14];
      for (const code of [5, 5, 5, 14, 14]) expect((await call()).code).toBe(code);
      const breaker = breakers.get('grpc:orders:Get');
      expect([breaker.state, server.calls]).toEqual(['open', 6]);
      const refused = await call({ deadline: Date.now() + 3_600_000 });
      expect(refused.code).toBe(14);
      expect(refused.details).toMatch(/^breaker grpc:orders:Get is open; it may let a call through in \d+ ms$/);
      expect(server.calls).toBe(6);
      await new Promise((resolve) => setTimeout(resolve, 110));
      expect(await call()).toMatchObject({ from: 'a', code: 0 });
      expect(breaker.state).toBe('closed');
    } finally {
      for (const end of finishing.reverse()) await end();
    }
  },
);

/** undici 8 does not run on Node.js 20. */
const MAJORS = Number(process.versions.node.split('.')[0]) < 22 ? [6, 7] : [6, 7, 8];

interface Undici {
  Agent: new () => { compose(interceptor: unknown): { destroy(): Promise<void> } };
  request(url: string, options: object): Promise<{ statusCode: number; body: { text(): Promise<string> } }>;
}

test.each(MAJORS)('undici %d: a host is refused when it fails, and a body is whole', async (major) => {
  const { Agent, request } = createRequire(`${await clients()}/`)(`undici${major}`) as Undici;
  const answers = [200, 404, 503, 503];
  let calls = 0;
  const server = createServer((_, response) => {
    calls++;
    response.writeHead(answers.shift() ?? 200).end('x'.repeat(100_000));
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const policy = { failureThreshold: 2, openStateTimeout: 100, successThreshold: 1 };
  const breakers = createBreakers({ default: policy, logger: false });
  const dispatcher = new Agent().compose(breakers.undici(() => 'users'));
  try {
    const get = async (more: object = {}) => {
      const { statusCode, body } = await request(url, { dispatcher, ...more });
      expect((await body.text()).length).toBe(100_000);
      return statusCode;
    };
    for (const status of [...answers]) expect(await get()).toBe(status);
    const breaker = breakers.get('users');
    expect([breaker.state, calls]).toEqual(['open', 4]);
    expect(await get().catch((error) => error)).toMatchObject({ code: 'ERR_BREAKER_OPEN', breaker: 'users' });
    expect(calls).toBe(4);
    await new Promise((resolve) => setTimeout(resolve, 110));
    await expect(get({ signal: AbortSignal.abort() })).rejects.toThrow();
    expect(await get()).toBe(200);
    expect(breaker.state).toBe('closed');
    server.close();
    server.closeAllConnections();
    for (let call = 0; call < 2; call++) {
      const error = await get().catch((error) => error);
      expect(error.code).toMatch(/^(ECONNREFUSED|UND_ERR_SOCKET|ECONNRESET)$/);
    }
    expect(breaker.state).toBe('open');
  } finally {
    await dispatcher.destroy();
    server.closeAllConnections();
    server.close();
  }
});

test('a call that could not be begun takes no place of those that try; a request without a host is refused by its name', async () => {
  const breakers = createBreakers({ default: { failureThreshold: 1, openStateTimeout: 1 }, logger: false });
  const broken = () => {
    throw new Error('not begun');
  };
  const grpc = breakers.grpcInterceptor('orders')({ method_definition: { path: '/Orders/Get' } }, broken);
  const undici = breakers.undici()(broken);
  for (const [name, begin] of [
    ['grpc:orders:Get', () => grpc.start({})],
    ['http:orders', () => undici({ origin: 'http://orders', path: '/' }, {})],
  ] as const) {
    const breaker = breakers.get(name);
    breaker.acquire().done({ error: new Error('boom') });
    await waitFor(() => breaker.stats.openForMs > 1, { what: 'it to be half open' });
    expect(begin).toThrow('not begun');
    expect([breaker.state, breaker.stats.probes]).toEqual(['half-open', 0]);
  }
  // As a Pool and a Client dispatch.
  expect(() => undici({ path: '/' }, {})).toThrow(
    expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', message: expect.stringMatching(/^origin: expected that/) }),
  );
});
