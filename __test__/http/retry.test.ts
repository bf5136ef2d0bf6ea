// The rules of trying again, without a network.
import { describe, expect, it, test } from 'vitest';
import { NoInstanceError } from '../../lib/errors.js';
import { bodyOf } from '../../lib/http/body.js';
import { kindOfFailure } from '../../lib/http/failure.js';
import { redirectOf } from '../../lib/http/redirect.js';
import { type CalledService, isRepeatable, originOf, Tries } from '../../lib/http/retry.js';
import type { ServiceInstance } from '../../lib/registry/instance.js';
import { RetryBudget } from '../../lib/service/budget.js';
import { parseEndpoint } from '../../lib/service/endpoint.js';
import { each } from '../../lib/service/pick/filters.js';

/** A service that picks the first that is not excluded. */
function fake(ids: string[], budget = new RetryBudget({}, () => 0)) {
  const told: string[] = [];
  let retries = 0;
  const service: CalledService = {
    name: 'orders',
    state: 'live',
    instances: [],
    budget,
    ready: async () => undefined,
    refresh: () => {},
    noteRetry: () => void retries++,
    pick({ exclude }) {
      const id = ids.find((one) => !exclude?.has(one));
      if (id === undefined) {
        throw new NoInstanceError('none', {
          service: 'orders',
          known: 0,
          removedBy: {},
          ejected: 0,
          operation: 'pick',
        });
      }
      const endpoint = parseEndpoint('http://10.0.0.1:80');
      if (!endpoint) throw new Error('no endpoint');
      const done = (result?: { error?: unknown }) => {
        told.push(`${id} ${(result?.error as Error | undefined)?.name ?? 'ok'}`);
      };
      return { instance: { id } as ServiceInstance, endpoint, done };
    },
  };
  return { service, told, retries: () => retries };
}

const filter = each('any', () => true);
const unsent = { sent: false, repeatable: false, late: false };
const broken = { sent: true, repeatable: true, late: false };

describe('the next try', () => {
  it('goes to another instance each time, and never back to one that refused', () => {
    const { service, retries } = fake(['a', 'b', 'c']);
    const tries = new Tries(service, { key: undefined, retries: 9, filter });
    const first = tries.first();
    const second = tries.next(first, unsent);
    const third = second && tries.next(second, unsent);
    expect([first, second, third].map((picked) => picked?.instance.id)).toEqual(['a', 'b', 'c']);
    expect(third && tries.next(third, unsent)).toBeUndefined();
    expect(retries()).toBe(2);
  });

  it('goes to the only instance again when its connection broke, not when it was late', () => {
    const { service } = fake(['a']);
    const one = new Tries(service, { key: undefined, retries: 2, filter });
    expect(one.next(one.first(), broken)?.instance.id).toBe('a');
    const two = new Tries(service, { key: undefined, retries: 2, filter });
    expect(two.next(two.first(), { ...broken, late: true })).toBeUndefined();
  });

  it('is none for what was sent and may not be repeated, and none beyond `retries`', () => {
    const { service } = fake(['a', 'b', 'c']);
    const one = new Tries(service, { key: undefined, retries: 2, filter });
    expect(one.next(one.first(), { sent: true, repeatable: false, late: false })).toBeUndefined();
    const two = new Tries(service, { key: undefined, retries: 0, filter });
    expect(two.next(two.first(), unsent)).toBeUndefined();
  });

  it('is asked of the budget; the pick of one that it refuses counts for nothing', () => {
    const { service, told, retries } = fake(['a', 'b'], new RetryBudget({ ratio: 0, minPerSecond: 0.1 }, () => 0));
    const one = new Tries(service, { key: undefined, retries: 2, filter });
    expect(one.next(one.first(), unsent)?.instance.id).toBe('b');
    const two = new Tries(service, { key: undefined, retries: 2, filter });
    expect(two.next(two.first(), unsent)).toBeUndefined();
    expect(told).toEqual(['b AbortError']);
    expect(retries()).toBe(1);
  });
});

test.each([
  ['GET', undefined, {}, true],
  ['head', undefined, {}, true],
  ['OPTIONS', undefined, {}, true],
  ['POST', undefined, {}, false],
  ['PUT', undefined, {}, false],
  ['DELETE', undefined, {}, false],
  ['POST', undefined, { 'Idempotency-Key': '7' }, true],
  ['POST', true, {}, true],
  ['GET', false, {}, false],
  ['POST', false, { 'Idempotency-Key': '7' }, false],
] as const)('%s, idempotent %s, headers %j: may be repeated: %s', (method, idempotent, headers, expected) => {
  expect(isRepeatable(method, idempotent, new Headers(headers))).toBe(expected);
});

const failed = (cause: unknown) => Object.assign(new TypeError('fetch failed'), { cause });
const system = (code: string, syscall?: string) => Object.assign(new Error(code), { code, syscall });

test.each([
  ['refused', failed(system('ECONNREFUSED', 'connect')), 'unsent'],
  ['unreachable', failed(system('EHOSTUNREACH', 'connect')), 'unsent'],
  ['an unknown host', failed(system('ENOTFOUND', 'getaddrinfo')), 'unsent'],
  ['no connection in time', failed(system('UND_ERR_CONNECT_TIMEOUT')), 'unsent'],
  [
    'both addresses of a host refuse',
    failed(
      Object.assign(new Error(), {
        code: 'ECONNREFUSED',
        errors: [system('ECONNREFUSED', 'connect'), system('ECONNREFUSED', 'connect')],
      }),
    ),
    'unsent',
  ],
  [
    'one address refuses, one broke',
    failed(Object.assign(new Error(), { errors: [system('ECONNREFUSED', 'connect'), system('ECONNRESET', 'read')] })),
    'broken',
  ],
  ['a port that fetch blocks', failed(new Error('bad port')), 'unsent'],
  ['reset', failed(system('ECONNRESET', 'read')), 'broken'],
  ['closed by the other side', failed(system('UND_ERR_SOCKET')), 'broken'],
  ['no head in time', failed(system('UND_ERR_HEADERS_TIMEOUT')), 'broken'],
  ['a certificate of another', failed(system('ERR_TLS_CERT_ALTNAME_INVALID')), 'broken'],
  ['refused is said without a connect', failed(system('ECONNREFUSED')), 'broken'],
  ['a TypeError without a cause', new TypeError("'TRACE' HTTP method is unsupported."), 'argument'],
  ['an argument of undici', failed(system('UND_ERR_INVALID_ARG')), 'argument'],
  ['a wrong content-length', failed(system('UND_ERR_REQ_CONTENT_LENGTH_MISMATCH')), 'argument'],
  [
    'causes in a circle',
    (() => {
      const one: { cause?: unknown } = {};
      one.cause = one;
      return one;
    })(),
    'broken',
  ],
] as const)('%s: %#', (_, error, expected) => {
  expect(kindOfFailure(error)).toBe(expected);
});

describe('a body', () => {
  const read = async (body: RequestInit['body']) => await new Response(body as ReadableStream).text();
  it('that is no stream can be sent as often as one likes', () => {
    const body = bodyOf('text');
    expect([body.repeatable, body.whole, body.next(), body.next()]).toEqual([true, true, 'text', 'text']);
  });

  it('that is a stream can be handed out again until more of it was read than is kept', async () => {
    async function* source() {
      yield Buffer.from('ab');
      yield Buffer.from('cd');
    }
    const body = bodyOf(source() as never);
    const first = (body.next() as unknown as ReadableStream).getReader();
    await first.read(); // `fetch` does so before it has a connection
    await first.cancel();
    expect([body.repeatable, body.whole]).toEqual([false, true]);
    expect(await read(body.next())).toBe('abcd');
  });

  it('that is a longer stream is not whole when more of it was read', async () => {
    async function* source() {
      for (let piece = 0; piece < 5; piece++) yield Buffer.from(`${piece}`);
    }
    const body = bodyOf(source() as never);
    expect(await read(body.next())).toBe('01234');
    expect(body.whole).toBe(false);
  });

  it('that fails says with what', async () => {
    const body = bodyOf(new ReadableStream({ pull: () => Promise.reject(new Error('mine')) }) as never);
    await expect(read(body.next())).rejects.toThrow('mine');
    expect(body.error).toEqual({ thrown: new Error('mine') });
  });

  it('that is not sent gives back what it holds', async () => {
    const stream = new ReadableStream({ cancel: () => told('cancelled') });
    let told = (_: string) => {};
    const cancelled = new Promise((resolve) => (told = resolve));
    bodyOf(stream as never).drop();
    expect(await cancelled).toBe('cancelled');
  });
});

describe('a redirect', () => {
  const origin = 'http://10.0.0.1:8080';
  const headers = new Headers({
    authorization: 'a',
    cookie: 'b',
    'proxy-authorization': 'c',
    'content-type': 'e',
    accept: 'f',
  });
  const asked = (method: string, body: unknown = undefined) => ({
    path: '/a/b?c',
    method,
    headers,
    body: bodyOf(body as never),
  });
  const answer = (status: number, location?: string) =>
    new Response(null, { status, headers: location ? { location } : {} });
  const names = (next: ReturnType<typeof redirectOf>) =>
    next && 'asked' in next ? [...(next.asked.headers ?? []).keys()] : next;

  it.each([
    [200, '/x'],
    [300, '/x'],
    [304, '/x'],
    [302, undefined],
  ])('%i with location %s is none', (status, location) => {
    expect(redirectOf(answer(status, location), [origin], asked('GET'))).toBeUndefined();
  });

  it.each([
    ['/x', '/x'],
    ['x?y', '/a/x?y'],
    ['?z', '/a/b?z'],
    ['http://10.0.0.1:8080/whole', '/whole'],
    ['//10.0.0.1:8080/x', '/x'],
  ])('to %s stays on the name, with credentials', (location, path) => {
    const next = redirectOf(answer(307, location), [origin], asked('GET'));
    expect(next).toMatchObject({ to: 'name', asked: { path, method: 'GET' } });
    expect(names(next)).toContain('authorization');
  });

  it.each([
    'http://10.0.0.2:8080/x',
    '//evil.example/x',
    'https://10.0.0.1:8080/x',
    'http://10.0.0.1/x',
    '\\\\evil.example/x',
  ])('to %s leaves the service, without credentials', (location) => {
    const next = redirectOf(answer(307, location), [origin], asked('GET'));
    expect(next).toMatchObject({ to: 'url' });
    expect(names(next)).toEqual(['accept', 'content-type']);
  });

  it.each([
    [301, 'POST', 'GET'],
    [302, 'post', 'GET'],
    [303, 'PUT', 'GET'],
    [303, 'HEAD', 'HEAD'],
    [302, 'PUT', 'PUT'],
    [307, 'POST', 'POST'],
    [308, 'POST', 'POST'],
  ])('%i makes of %s a %s', (status, method, then) => {
    const next = redirectOf(answer(status, '/x'), [origin], asked(method, 'body'));
    expect(next).toMatchObject({ to: 'name', asked: { method: then } });
    if (then === method) expect(names(next)).toContain('content-type');
    else expect(names(next)).not.toContain('content-type');
  });

  it.each(['http://', 'ftp://10.0.0.1/x', 'javascript:alert(1)', 'http://user:pw@10.0.0.1:8080/'])(
    'to %s is not followed',
    (location) => {
      expect(redirectOf(answer(302, location), [origin], asked('GET'))).toMatchObject({ to: 'nowhere' });
    },
  );

  it('to any origin of the service stays on the name; what is relative counts from the first', () => {
    const both = ['http://orders', origin];
    const to = (location: string) => redirectOf(answer(307, location), both, asked('GET'));
    for (const location of ['/x', 'http://orders/x', 'http://10.0.0.1:8080/x']) {
      expect(to(location)).toMatchObject({ to: 'name', asked: { path: '/x' } });
    }
    expect(to('https://orders/x')).toMatchObject({ to: 'url' });
  });

  it('that would send a stream twice is not followed', () => {
    const stream = () => new ReadableStream();
    expect(redirectOf(answer(307, '/x'), [origin], asked('POST', stream()))).toMatchObject({ to: 'nowhere' });
    expect(redirectOf(answer(303, '/x'), [origin], asked('POST', stream()))).toMatchObject({ to: 'name' });
  });
});

test.each([
  ['http://[::1]:80', 'http://[::1]:80'],
  ['https://orders.example:8443/base', 'https://orders.example:8443'],
  ['http://10.0.0.1:80?isSecure=true', 'https://10.0.0.1:80'],
])('%s is called at %s', (endpoint, expected) => {
  const parsed = parseEndpoint(endpoint);
  expect(parsed && originOf(parsed)).toBe(expected);
});
