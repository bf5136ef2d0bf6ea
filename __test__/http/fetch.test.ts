// Calls over HTTP by name, by the built package, on the memory registry: what is tried again, what never is, and how it ends.

import type { ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { Readable } from 'node:stream';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { ServiceRequestInit } from 'rollcall';
import { connect, consistentHash, MemoryServer, NoInstanceError, RollcallError, roundRobin } from 'rollcall';
import { createFetch } from 'rollcall/http';
import { describe, expect, it, test } from 'vitest';
import { uniqueName, waitFor } from '../support/process.js';
import { type Finish, httpServer, refusingPort, service } from './kit.js';

const inTurn = () => ({ strategy: roundRobin(), outlier: false as const });
const post = (more: ServiceRequestInit = {}): ServiceRequestInit => ({ method: 'POST', body: 'order 7', ...more });

/** A server that ends the connection when so many bytes of the request's body came, or after a first byte of the answer. */
async function resetting({ onTestFinished }: Finish, after: 'request' | 'first byte of the answer') {
  let arrivals = 0;
  const server = createServer((socket) => {
    let text = '';
    let isNew = true;
    socket
      .on('error', () => {})
      .on('data', (data) => {
        text += data;
        if (!isNew || !text.includes('\r\n\r\n')) return;
        isNew = false;
        arrivals++;
        if (after === 'request') socket.resetAndDestroy();
        else socket.write('H', () => socket.resetAndDestroy());
      });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  return { port: (server.address() as AddressInfo).port, arrivals: () => arrivals };
}

/** A server that takes connections and never answers. */
async function silent({ onTestFinished }: Finish) {
  const sockets = new Set<{ destroy(): unknown }>();
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => {}).on('close', () => sockets.delete(socket)));
    socket.resume();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, connections: () => sockets.size };
}

test('an answer comes from an instance, whatever its status, and 502, 503, 504 speak against the instance', async (context) => {
  const server = await httpServer(context, (response, { url, body }) => {
    response.writeHead(Number(url?.slice(1))).end(body);
  });
  const other = await httpServer(context);
  const { orders } = await service(context, [server.port, other.port], {
    strategy: consistentHash({ bound: false }),
    outlier: { consecutiveFailures: 2, baseEjectionMs: 600_000 },
  });
  const keyOf = (port: number) =>
    [...'abcdefghijklmnop'].find((key) => orders.explain({ key }).picked?.endpoints[0]?.endsWith(`:${port}`)) as string;
  const key = keyOf(server.port);
  const told: unknown[] = [];
  orders.on('ejected', ({ instance, reason }) => told.push(instance.id, reason));
  for (const status of [500, 404, 500, 501, 502]) {
    const response = await orders.fetch(`/${status}`, post({ key }));
    expect([response.status, await response.text()]).toEqual([status, 'order 7']);
  }
  expect(told).toEqual([]);
  // On a busy machine an answer may wait for a blocked event loop, and then says nothing of the instance.
  await waitFor(
    async () => {
      expect((await orders.fetch('/504', { key })).status).toBe(504);
      return told.length > 0;
    },
    { what: 'an ejection' },
  );
  expect(told).toEqual(['i0', 'failures']);
  const { picks } = orders.metrics();
  expect(server.arrivals).toHaveLength(picks);
  expect(other.arrivals).toHaveLength(0); // no answer is tried again
  expect(orders.metrics()).toMatchObject({ inFlight: 0, ejections: 1, retries: 0 });
});

test('other statuses speak against an instance where `failedStatuses` says so', async (context) => {
  const answer = (response: ServerResponse) => void response.writeHead(500).end();
  const [one, two] = [await httpServer(context, answer), await httpServer(context, answer)];
  const { orders } = await service(context, [one.port, two.port], {
    http: { failedStatuses: [500] },
    strategy: roundRobin(),
    outlier: { consecutiveFailures: 1, baseEjectionMs: 600_000 },
  });
  const told: string[] = [];
  orders.on('ejected', ({ reason }) => told.push(reason));
  await orders.fetch('/');
  expect(told).toEqual(['failures']);
});

test('a POST while one instance refuses arrives once and whole, as text and as a stream', async (context) => {
  const server = await httpServer(context);
  const { orders } = await service(context, [await refusingPort(), server.port, await refusingPort()], inTurn());
  const stream = () => Readable.from([Buffer.from('order'), Buffer.from(' 7')]);
  async function* generator() {
    yield Buffer.from('order 7');
  }
  for (let turn = 0; turn < 3; turn++) {
    await orders.fetch('/', post());
    await orders.fetch('/', post({ body: stream() as never, duplex: 'half' }));
    await orders.fetch('/', post({ body: generator() as never, duplex: 'half' }));
    await orders.fetch('/', post({ body: new Blob(['order 7']).stream() as never, duplex: 'half' }));
  }
  expect(server.arrivals.map(({ method, body }) => `${method} ${body}`)).toEqual(Array(12).fill('POST order 7'));
  expect(orders.metrics().retries).toBeGreaterThan(0);
});

test('a large stream goes whole to another instance; one whose call fails gives back what it holds', async (context) => {
  const server = await httpServer(context);
  const refusing = await refusingPort();
  const { orders } = await service(context, [refusing, server.port], inTurn());
  let open = 0;
  async function* large() {
    open++;
    try {
      for (let piece = 0; piece < 200; piece++) yield Buffer.alloc(10_000, `${piece % 10}`);
    } finally {
      open--;
    }
  }
  const expected = Array.from({ length: 200 }, (_, piece) => `${piece % 10}`.repeat(10_000)).join('');
  for (let turn = 0; turn < 4; turn++) await orders.fetch('/', post({ body: large() as never, duplex: 'half' }));
  expect(server.arrivals.map(({ body }) => body === expected)).toEqual([true, true, true, true]);
  const nobody = await service(context, [refusing]);
  const call = nobody.orders.fetch('/', post({ body: large() as never, duplex: 'half' }));
  await expect(call).rejects.toMatchObject({ code: 'ERR_UNAVAILABLE', retryable: true });
  await waitFor(() => open === 0, { what: 'the generators to end' });
});

describe.each(['request', 'first byte of the answer'] as const)('a connection that is reset after the %s', (after) => {
  it('is an error for a POST, which arrived once', async (context) => {
    const [one, two] = [await resetting(context, after), await resetting(context, after)];
    const { orders } = await service(context, [one.port, two.port], inTurn());
    const error = await orders.fetch('/', post()).catch((error) => error);
    expect(error).toMatchObject({ code: 'ERR_UNAVAILABLE', operation: 'fetch', retryable: false });
    expect(error.message).toMatch(/^fetch: orders: .+; the instance may have acted on it$/);
    expect(one.arrivals() + two.arrivals()).toBe(1);
  });

  it.each([
    ['a GET', {}],
    ['a POST that is idempotent', post({ idempotent: true })],
    ['a POST with an Idempotency-Key', post({ headers: { 'Idempotency-Key': 'k' } })],
  ])('sends %s to another instance', async (_, init) => {
    const context = { onTestFinished: (finish: () => unknown) => void finishes.push(finish) };
    const finishes: (() => unknown)[] = [];
    const [one, two] = [await resetting(context, after), await httpServer(context)];
    const { orders } = await service(context, [one.port, two.port], inTurn());
    for (let turn = 0; turn < 4; turn++) expect(await (await orders.fetch('/', init)).text()).toBe('ok');
    expect(two.arrivals).toHaveLength(4);
    expect(one.arrivals()).toBe(orders.metrics().retries);
    expect(one.arrivals()).toBeGreaterThan(0);
    for (const finish of finishes) await finish();
  });

  it('is an error for a stream that was read, be it idempotent', async (context) => {
    const [one, two] = [await resetting(context, after), await resetting(context, after)];
    const { orders } = await service(context, [one.port, two.port], inTurn());
    const body = Readable.from([Buffer.from('order 7')]) as never;
    await expect(orders.fetch('/', post({ body, duplex: 'half', idempotent: true }))).rejects.toMatchObject({
      code: 'ERR_UNAVAILABLE',
    });
    expect(one.arrivals() + two.arrivals()).toBe(1);
  });
});

test('the only instance is called again when it closed the connection that was kept', async (context) => {
  let isFirst = true;
  const server = await httpServer(context, (response, { url }) => {
    if (url === '/close' && isFirst) response.socket?.destroy();
    else response.end('ok');
    isFirst = false;
  });
  const { orders } = await service(context, [server.port]);
  expect(await (await orders.fetch('/close')).text()).toBe('ok');
  expect(server.arrivals).toHaveLength(2);
});

test('while all refuse, the tries are bounded by the budget', async (context) => {
  const ports = await Promise.all([1, 2, 3, 4].map(refusingPort));
  const { orders } = await service(context, ports, { ...inTurn(), http: { retries: 10 } });
  const calls = 400;
  const began = performance.now();
  const codes = new Set<string>();
  for (let call = 0; call < calls; call++) {
    const error = await orders.fetch('/', post()).catch((error) => error);
    codes.add(`${error.code} ${error.retryable} ${error.cause?.code}`);
  }
  const { picks, retries, inFlight, budget } = orders.metrics();
  expect([...codes]).toEqual(['ERR_UNAVAILABLE true ECONNREFUSED']);
  // 20 % of the calls and 10 a second, those of the 10 s before too.
  expect(retries).toBeGreaterThan(100);
  expect(retries).toBeLessThanOrEqual(0.2 * calls + 100 + (performance.now() - began) / 100);
  expect(picks).toBeGreaterThanOrEqual(calls + retries); // and those which the budget refused, that made no call
  expect([inFlight, budget]).toEqual([0, 0]);
});

describe('deadlines', () => {
  it('`perTryTimeoutMs` ends a try: a GET goes to another instance, a POST fails', async (context) => {
    const [slow, quick] = [await silent(context), await httpServer(context)];
    const { orders } = await service(context, [slow.port, quick.port], { ...inTurn(), http: { perTryTimeoutMs: 300 } });
    for (let turn = 0; turn < 4; turn++) expect(await (await orders.fetch('/')).text()).toBe('ok');
    expect(orders.metrics().retries).toBeGreaterThan(0);
    const errors = [];
    for (let turn = 0; turn < 2; turn++) errors.push(await orders.fetch('/', post()).catch((error) => error));
    expect(errors.filter(({ code }) => code === 'ERR_TIMEOUT').map(({ message }) => message)).toEqual([
      'fetch: orders: no answer to a try within 300 ms',
    ]);
  });

  it('`timeoutMs` ends the call with all of its tries', async (context) => {
    const [one, two] = [await silent(context), await silent(context)];
    const { orders } = await service(context, [one.port, two.port], inTurn());
    const began = performance.now();
    const error = await orders.fetch('/', { timeoutMs: 250, perTryTimeoutMs: 200, retries: 9 }).catch((error) => error);
    expect(error).toMatchObject({ code: 'ERR_TIMEOUT', message: 'fetch: orders: no answer within 250 ms' });
    expect(performance.now() - began).toBeGreaterThan(240);
    expect(orders.metrics()).toMatchObject({ picks: 2, retries: 1, inFlight: 0 });
  });

  it('`timeoutMs` also bounds the wait for the first list', async ({ onTestFinished }) => {
    const namespace = uniqueName();
    const registry = await connect(`memory://${namespace}?logger=0`);
    onTestFinished(() => registry.close());
    MemoryServer.of(namespace).setAway(true);
    const orders = registry.service('orders');
    const error = await orders.fetch('/', { timeoutMs: 100 }).catch((error) => error);
    expect([error.code, error.message]).toEqual(['ERR_TIMEOUT', 'fetch: orders: no list of instances within 100 ms']);
    const server = await httpServer({ onTestFinished });
    const waiting = orders.fetch('/');
    MemoryServer.of(namespace).setAway(false);
    await registry.register({ name: 'orders', endpoints: [`http://127.0.0.1:${server.port}`] }).catch(() => {});
    const outcome = await waiting.catch((error) => error); // the first list may still be empty
    expect(outcome.status ?? outcome.name).toBeOneOf([200, 'NoInstanceError']);
  });

  it('`timeoutMs` ends with the head: the answer may be read for longer than `timeoutMs`', async (context) => {
    const server = await httpServer(context, (response) => {
      response.write('a');
      setTimeout(() => response.end('b'), 300);
    });
    const { orders } = await service(context, [server.port]);
    expect(await (await orders.fetch('/', { timeoutMs: 150 })).text()).toBe('ab');
  });

  it.for(['service.fetch()', 'with a signal of the program', 'createFetch()'])(
    'ends the connection: %s',
    async (way, context) => {
      const hanging = await silent(context);
      const { orders, registry } = await service(context, [hanging.port]);
      const init = { timeoutMs: 300, retries: 0 };
      const calls: Record<string, () => Promise<Response>> = {
        'service.fetch()': () => orders.fetch('/', init),
        'with a signal of the program': () => orders.fetch('/', { ...init, signal: new AbortController().signal }),
        'createFetch()': () => createFetch(registry)('http://orders/', init),
      };
      const call = calls[way]?.().catch((error) => error);
      await waitFor(() => hanging.connections() === 1, { what: 'the call to arrive' });
      expect(await call).toMatchObject({ code: 'ERR_TIMEOUT' });
      await waitFor(() => hanging.connections() === 0, { what: 'the connection to end' });
    },
  );

  it('holds though `fetch` was replaced by one that heeds nothing', async (context) => {
    const { orders } = await service(context, [await refusingPort()]);
    const replaced = globalThis.fetch;
    context.onTestFinished(() => {
      globalThis.fetch = replaced;
    });
    globalThis.fetch = () => new Promise<Response>(() => {});
    const error = await orders.fetch('/', { timeoutMs: 100 }).catch((error) => error);
    expect(error).toMatchObject({ code: 'ERR_TIMEOUT' });
  });
});

describe('an abort', () => {
  it('before, during and while the answer is read ends the call, and counts for nothing', async (context) => {
    const hanging = await silent(context);
    const { orders } = await service(context, [hanging.port]);
    const reason = new Error('enough');
    await expect(orders.fetch('/', { signal: AbortSignal.abort(reason) })).rejects.toMatchObject({
      code: 'ERR_ABORTED',
      cause: reason,
    });
    expect(orders.metrics().picks).toBe(0);
    const controller = new AbortController();
    const call = orders.fetch('/', { signal: controller.signal });
    await waitFor(() => hanging.connections() === 1, { what: 'the call to arrive' });
    controller.abort(reason);
    await expect(call).rejects.toMatchObject({ code: 'ERR_ABORTED', operation: 'fetch', cause: reason });
    expect(orders.metrics()).toMatchObject({ inFlight: 0, retries: 0, ejections: 0 });
  });

  it('reaches an answer that is being read, also after garbage was collected', async (context) => {
    setFlagsFromString('--expose-gc');
    const gc = runInNewContext('gc') as () => void;
    const server = await httpServer(context, (response) => response.write('a')); // and no end
    const { orders } = await service(context, [server.port]);
    const controller = new AbortController();
    const reading = (await orders.fetch('/', { signal: controller.signal })).text();
    for (let round = 0; round < 5; round++) {
      await new Promise((resolve) => setImmediate(resolve));
      gc();
    }
    controller.abort();
    await expect(reading).rejects.toMatchObject({ name: 'AbortError' });
  });

  it('of one signal for many calls leaves nothing on it', async (context) => {
    const server = await httpServer(context);
    const { orders } = await service(context, [server.port]);
    setFlagsFromString('--expose-gc');
    const gc = runInNewContext('gc') as () => void;
    const { signal } = new AbortController();
    let [added, removed] = [0, 0];
    const { addEventListener, removeEventListener } = signal;
    signal.addEventListener = (...args: never[]) => {
      added++;
      addEventListener.apply(signal, args as never);
    };
    signal.removeEventListener = (...args: never[]) => {
      removed++;
      removeEventListener.apply(signal, args as never);
    };
    for (let call = 0; call < 50; call++) await (await orders.fetch('/', { signal })).text();
    expect(added).toBeLessThanOrEqual(50);
    await waitFor(
      () => {
        gc();
        return removed === added;
      },
      { timeoutMs: 20_000, what: 'the signal to be left' },
    );
  });
});

describe('a redirect', () => {
  const secrets = { authorization: 'Bearer t', cookie: 's=1', 'proxy-authorization': 'p', 'x-other': 'o' };

  it('to a path goes to the service again, with all headers', async (context) => {
    const answer = (response: ServerResponse, url: string | undefined) => {
      if (url === '/old?a') response.writeHead(302, { location: '/new?b' }).end();
      else response.end(url);
    };
    const one = await httpServer(context, (response, { url }) => answer(response, url));
    const two = await httpServer(context, (response, { url }) => answer(response, url));
    const { orders } = await service(context, [one.port, two.port], inTurn());
    const response = await orders.fetch('/old?a', { headers: secrets });
    expect([await response.text(), response.redirected, response.status]).toEqual(['/new?b', true, 200]);
    expect([one.arrivals.length, two.arrivals.length]).toEqual([1, 1]); // picked anew
    for (const { headers } of [...one.arrivals, ...two.arrivals]) expect(headers).toMatchObject(secrets);
  });

  it.each([302, 307])('of status %i to another origin takes no credentials there', async (status) => {
    const finishes: (() => unknown)[] = [];
    const context = { onTestFinished: (finish: () => unknown) => void finishes.push(finish) };
    const foreign = await httpServer(context, (response) => response.end('foreign'));
    const server = await httpServer(context, (response) => {
      response.writeHead(status, { location: `http://127.0.0.1:${foreign.port}/x` }).end();
    });
    const { orders } = await service(context, [server.port]);
    const response = await orders.fetch('/', { headers: { ...secrets, host: 'orders' } });
    expect([await response.text(), response.redirected]).toEqual(['foreign', true]);
    expect(server.arrivals[0]?.headers).toMatchObject({ ...secrets, host: `127.0.0.1:${server.port}` });
    const [arrival] = foreign.arrivals;
    expect(arrival?.headers).toMatchObject({ 'x-other': 'o', host: `127.0.0.1:${foreign.port}` });
    for (const name of ['authorization', 'cookie', 'proxy-authorization'])
      expect(arrival?.headers).not.toHaveProperty(name);
    for (const finish of finishes) await finish();
  });

  it('to where nobody listens makes no second POST, and speaks not against the instance', async (context) => {
    const nowhere = await refusingPort();
    const server = await httpServer(context, (response) => {
      response.writeHead(307, { location: `http://127.0.0.1:${nowhere}/x` }).end();
    });
    const { orders } = await service(context, [server.port]);
    await expect(orders.fetch('/', post())).rejects.toMatchObject({ code: 'ERR_UNAVAILABLE', retryable: false });
    expect(server.arrivals).toHaveLength(1);
    expect(orders.metrics()).toMatchObject({ ejections: 0, inFlight: 0 });
  });

  it('in a circle ends; "manual" gives it, "error" refuses it; a stream is not sent twice', async (context) => {
    const server = await httpServer(context, (response) => response.writeHead(307, { location: '/' }).end());
    const { orders } = await service(context, [server.port]);
    await expect(orders.fetch('/')).rejects.toThrow(
      'fetch: orders: its redirect is not followed: there were 20 before it',
    );
    expect(server.arrivals).toHaveLength(21);
    const manual = await orders.fetch('/', { redirect: 'manual' });
    expect([manual.status, manual.headers.get('location'), manual.redirected]).toEqual([307, '/', false]);
    await expect(orders.fetch('/', { redirect: 'error' })).rejects.toThrow('init.redirect is "error"');
    const body = Readable.from([Buffer.from('x')]) as never;
    await expect(orders.fetch('/', post({ body, duplex: 'half' }))).rejects.toThrow(
      'its body is a stream, which was sent',
    );
    expect(server.arrivals).toHaveLength(24);
  });
});

describe('bad input', () => {
  it.each([
    ['no path', undefined, undefined, 'path: expected a path that begins with "/", such as "/orders/7", got undefined'],
    [
      'a URL',
      new URL('http://orders/'),
      undefined,
      'path: expected a path that begins with "/", such as "/orders/7", got URL',
    ],
    ['a whole URL', 'http://orders/7', undefined, /^path: .+ got a whole URL: .+ write what follows them$/],
    ['a URL of another scheme', 'discovery:///orders', undefined, /^path: .+ got a whole URL/],
    ['no slash', 'orders', undefined, /^path: .+ got a string that begins otherwise$/],
    ['an empty path', '', undefined, /^path: .+ got a string that begins otherwise$/],
    ['init that is none', '/', 7, 'init: expected an object, got number'],
    ['a misspelt field', '/', { timeoutMS: 1 }, 'init.timeoutMS: unknown field; did you mean "timeoutMs"?'],
    ['a dispatcher', '/', { dispatcher: {} }, /^init\.dispatcher: .+ leave it out$/],
    ['a timeout that is negative', '/', { timeoutMs: -1 }, /^init\.timeoutMs: expected a whole number from 0 to/],
    ['a timeout of a try in words', '/', { perTryTimeoutMs: '1s' }, /^init\.perTryTimeoutMs: expected a whole number/],
    ['half a retry', '/', { retries: 0.5 }, /^init\.retries: expected a whole number from 0 to 100, got 0.5$/],
    ['too many retries', '/', { retries: 101 }, /^init\.retries: /],
    ['idempotent in words', '/', { idempotent: 'yes' }, 'init.idempotent: expected true or false, got string'],
    ['a key that is none', '/', { key: 7 }, 'init.key: expected a string, got number'],
    ['a signal that is none', '/', { signal: {} }, 'init.signal: expected an AbortSignal, got object'],
    ['a redirect that is none', '/', { redirect: 'never' }, /^init\.redirect: expected "follow", "manual" or "error"/],
    ['a header that is none', '/', { headers: { 'a b': 'secret' } }, /^init\.headers: expected headers/],
    ['a value of a header that is none', '/', { headers: { a: 'secret\n' } }, undefined],
    ['a value with a line break', '/', { headers: { a: 'sec\nret' } }, /^init\.headers: expected headers/],
    ['a method that fetch refuses', '/', { method: 'TRACE' }, /^init: the built-in fetch does not take it/],
    ['a GET with a body', '/', { body: 'x' }, /^init: the built-in fetch does not take it/],
    ['a stream without duplex', '/', { method: 'POST', body: new ReadableStream() }, /^init: the built-in fetch/],
    [
      'a length that is not that of the body',
      '/',
      { method: 'POST', body: 'x', headers: { 'content-length': '7' } },
      /^init: /,
    ],
  ])('%s', async (_, path, init, message) => {
    const finishes: (() => unknown)[] = [];
    const server = await httpServer({ onTestFinished: (finish) => void finishes.push(finish) });
    const { orders } = await service({ onTestFinished: (finish) => void finishes.push(finish) }, [server.port]);
    const call = orders.fetch(path as string, init as ServiceRequestInit);
    if (message === undefined)
      expect((await call).status).toBe(200); // which headers trim
    else {
      const error = await call.catch((error) => error);
      expect(error).toMatchObject({ code: 'ERR_INVALID_ARGUMENT', operation: 'fetch' });
      if (typeof message === 'string') expect(error.message).toBe(message);
      else expect(error.message).toMatch(message);
      expect(error.message).not.toContain('secret');
      expect(server.arrivals).toHaveLength(0);
    }
    expect(orders.metrics()).toMatchObject({ inFlight: 0, ejections: 0, retries: 0 });
    for (const finish of finishes) await finish();
  });

  it.each([
    [{ http: 7 }, 'options.http: expected an object, got number'],
    [{ http: { retry: 1 } }, 'options.http.retry: unknown option'],
    [{ http: { retries: -1 } }, 'options.http.retries: expected a whole number from 0 to 100, got -1'],
    [{ http: { failedStatuses: 503 } }, 'options.http.failedStatuses: expected an array of statuses, got number'],
    [
      { http: { failedStatuses: [503, 99] } },
      'options.http.failedStatuses[1]: expected a status from 100 to 599, got 99',
    ],
  ])('options %j', async (options, message) => {
    const registry = await connect(`memory://${uniqueName()}?logger=0`);
    expect(() => registry.service('orders', options as never)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', operation: 'service', message }),
    );
    await registry.close();
  });

  it('a stream of text is refused, and speaks not against the instance', async (context) => {
    const server = await httpServer(context);
    const { orders } = await service(context, [server.port], { outlier: { consecutiveFailures: 1 } });
    const body = new ReadableStream({
      pull: (controller) => {
        controller.enqueue('text');
        controller.close();
      },
    });
    await expect(orders.fetch('/', post({ body: body as never, duplex: 'half' }))).rejects.toThrow(
      'init.body: expected a stream of Uint8Array, got string in it',
    );
    expect(orders.metrics()).toMatchObject({ inFlight: 0, ejections: 0 });
  });

  it('a stream that fails is the error of the call, and speaks not against the instance', async (context) => {
    const server = await httpServer(context);
    const { orders } = await service(context, [server.port], { outlier: { consecutiveFailures: 1 } });
    const mine = new Error('my stream broke');
    async function* broken() {
      yield Buffer.from('a');
      throw mine;
    }
    await expect(orders.fetch('/', post({ body: broken() as never, duplex: 'half' }))).rejects.toBe(mine);
    expect(orders.metrics()).toMatchObject({ inFlight: 0, ejections: 0, retries: 0 });
    expect(server.arrivals).toHaveLength(0);
  });
});

describe('nobody to call', () => {
  it('is a NoInstanceError as pick() throws it, and says what is not of HTTP', async (context) => {
    const { registry, orders } = await service(context, []);
    await expect(orders.fetch('/')).rejects.toBeInstanceOf(NoInstanceError);
    const endpoints = ['grpc://127.0.0.1:9', 'tcp://127.0.0.1:9', 'ws://127.0.0.1:9'];
    for (const [n, endpoint] of endpoints.entries()) {
      await registry.register({ name: 'orders', id: `${n}`, endpoints: [endpoint] });
    }
    await orders.ready({ min: 3 });
    const error = await orders.fetch('/').catch((error) => error);
    expect(error).toMatchObject({ name: 'NoInstanceError', code: 'ERR_UNAVAILABLE', known: 3, removedBy: { http: 3 } });
  });

  it('is ERR_CLOSED after release(); after close() of the registry the last list is used', async (context) => {
    const server = await httpServer(context);
    const { registry, orders } = await service(context, [server.port]);
    const other = registry.service('orders');
    other.release();
    const error = await other.fetch('/').catch((error) => error);
    expect([error instanceof RollcallError, error.code, error.operation]).toEqual([true, 'ERR_CLOSED', 'fetch']);
    await registry.close();
    // The memory registry takes back what it registered when it closes; the list that a caller has stays.
    expect((await orders.fetch('/')).status).toBe(200);
  });
});

test('the registry tells what it counted of each service', async (context) => {
  const server = await httpServer(context);
  const { registry, orders } = await service(context, [server.port]);
  for (let call = 0; call < 3; call++) await orders.fetch('/');
  expect(registry.metrics().services).toEqual({ orders: orders.metrics() });
  expect(orders.metrics()).toEqual({ picks: 3, inFlight: 0, ejections: 0, retries: 0, budget: 100 });
});
