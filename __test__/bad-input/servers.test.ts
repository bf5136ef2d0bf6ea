// Servers that refuse, are not there, do not answer, or are something else: each gives a typed error within its timeout,
// says what was wrong and what to do, and leaves nothing behind.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createServer as createTcpServer } from 'node:net';
import type { EtcdOptions, RollcallError } from 'rollcall';
import { connect } from 'rollcall';
import { describe, expect, test } from 'vitest';
import { inTime, listsUntil, nextList, refused, sees, timed, waitFor, within } from '../conformance/kit.js';
import { client, server } from '../faults/kit.js';
import { ETCD_VERSIONS } from '../support/etcd.js';
import { startSilentServer } from '../support/tcp.js';

const attempt = async (options: Partial<EtcdOptions>): Promise<{ ms: number; error: RollcallError }> => {
  const { ms, error, value } = await timed(connect({ backend: 'etcd', connectTimeoutMs: 2000, ...options }));
  await value?.close();
  expect(error, 'connect() succeeded').toBeDefined();
  expect(error).toMatchObject({ operation: 'connect' });
  return { ms, error: error as RollcallError };
};

describe.concurrent('no etcd there', () => {
  test('a host that does not resolve', async () => {
    const { ms, error } = await attempt({ hosts: 'does-not-exist.invalid:2379' });
    expect(['ERR_UNAVAILABLE', 'ERR_TIMEOUT']).toContain(error.code);
    expect(`${error.message} ${String(error.cause)}`).toMatch(/does-not-exist\.invalid/);
    expect(error.retryable).toBe(true);
    expect(ms).toBeLessThan(inTime(2800));
  });

  test('a host that refuses connections', async () => {
    const { ms, error } = await attempt({ hosts: '127.0.0.1:1' });
    expect(['ERR_UNAVAILABLE', 'ERR_TIMEOUT']).toContain(error.code);
    expect(error.message).toMatch(/127\.0\.0\.1:1\b.*refused.*; check its hosts, or give lazy: true/i);
    expect(error.endpoint).toBe('http://127.0.0.1:1');
    const below: string[] = [];
    for (let cause: unknown = error.cause; cause instanceof Error; cause = cause.cause) below.push(cause.message);
    expect(below).toEqual(['tcp connect error']); // the rest has been said
    expect(ms).toBeLessThan(inTime(2800));
  });

  test('a host that accepts and never answers', async ({ onTestFinished }) => {
    const silent = await startSilentServer();
    onTestFinished(() => silent.close());
    const { ms, error } = await attempt({ hosts: silent.host });
    expect(['ERR_TIMEOUT', 'ERR_UNAVAILABLE']).toContain(error.code);
    expect(`${error.message} ${String(error.cause)}`).toContain(silent.host);
    expect(ms).toBeLessThan(inTime(2800));
    await waitFor(() => silent.open === 0, { timeoutMs: 5000, what: 'the connection to be closed after the failure' });
  });

  test('a host that accepts and never answers, over TLS', async ({ onTestFinished }) => {
    const silent = await startSilentServer();
    onTestFinished(() => silent.close());
    const { ms, error } = await attempt({ hosts: silent.host, tls: true });
    expect(['ERR_TIMEOUT', 'ERR_UNAVAILABLE']).toContain(error.code);
    expect(ms).toBeLessThan(inTime(2800));
  });

  test('a host that closes every connection', async ({ onTestFinished }) => {
    const rude = createTcpServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => rude.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void rude.close());
    const { ms, error } = await attempt({ hosts: `127.0.0.1:${(rude.address() as AddressInfo).port}` });
    expect(['ERR_UNAVAILABLE', 'ERR_TIMEOUT']).toContain(error.code);
    expect(ms).toBeLessThan(inTime(2800));
  });

  test('a host that speaks HTTP/1.1', async ({ onTestFinished }) => {
    const web = createServer((_, answer) => answer.end('hello'));
    await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => {
      web.closeAllConnections();
      web.close();
    });
    const { ms, error } = await attempt({ hosts: `127.0.0.1:${(web.address() as AddressInfo).port}` });
    expect(['ERR_UNAVAILABLE', 'ERR_TIMEOUT']).toContain(error.code);
    expect(ms).toBeLessThan(inTime(2800));
  });

  test('a host that answers rubbish', async ({ onTestFinished }) => {
    const odd = createTcpServer((socket) => {
      socket.on('error', () => undefined);
      socket.write(Buffer.alloc(100_000, 0xff));
    });
    await new Promise<void>((resolve) => odd.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void odd.close());
    const { ms, error } = await attempt({ hosts: `127.0.0.1:${(odd.address() as AddressInfo).port}` });
    expect(['ERR_UNAVAILABLE', 'ERR_TIMEOUT']).toContain(error.code);
    expect(ms).toBeLessThan(inTime(2800));
  });

  test('the default connectTimeoutMs is 10 s', async ({ onTestFinished }) => {
    const silent = await startSilentServer();
    onTestFinished(() => silent.close());
    const { ms, error } = await timed(connect({ backend: 'etcd', hosts: silent.host }));
    await refused(Promise.reject(error), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
    expect(ms).toBeGreaterThan(9000);
    expect(ms).toBeLessThan(11_500);
  });

  test('lazy clients of a silent host fail call by call, in time, and close', async ({ onTestFinished }) => {
    const silent = await startSilentServer();
    onTestFinished(() => silent.close());
    const registry = await connect({ backend: 'etcd', hosts: silent.host, lazy: true });
    for (const call of [
      () => registry.getService('orders', { timeoutMs: 500 }),
      () => registry.services({ timeoutMs: 500 }),
      () => registry.register({ name: 'orders' }, { timeoutMs: 500 }),
    ]) {
      const { ms, error } = await timed<unknown>(call());
      await refused(Promise.reject(error), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
      expect(ms).toBeLessThan(inTime(1200));
    }
    await within(
      registry.close({ timeoutMs: 1000 }).catch(() => undefined),
      2500,
      'close()',
    );
    await waitFor(() => silent.open === 0, { timeoutMs: 5000, what: 'the connection to be closed' });
  });
});

describe.concurrent.each(ETCD_VERSIONS)('credentials and rights, etcd %s', (version) => {
  const users = [
    {
      name: 'app',
      password: 'secret',
      roles: [{ prefix: '/mine/' }, { prefix: '/theirs/', permission: 'read' as const }],
    },
  ];

  test('a wrong password', async (context) => {
    const etcd = await server(context, { version, users });
    const { ms, error } = await attempt({
      hosts: [...etcd.hosts],
      username: 'app',
      password: 'hunter2',
      prefix: '/mine',
    });
    expect(error.code).toBe('ERR_UNAUTHENTICATED');
    expect(error.retryable).toBe(false);
    expect(error.message).toMatch(/password|user/i);
    expect(`${error.message} ${error.stack} ${String(error.cause)}`).not.toContain('hunter2');
    expect(ms, 'a refusal ends the tries').toBeLessThan(inTime(1500));
    expect([await etcd.keys('/'), await etcd.leases()]).toEqual([[], []]);
  });

  test('an unknown user, and no user where one is needed', async (context) => {
    const etcd = await server(context, { version, users });
    for (const credentials of [{ username: 'nobody', password: 'secret' }, {}]) {
      const { error } = await attempt({ hosts: [...etcd.hosts], prefix: '/mine', ...credentials });
      expect(['ERR_UNAUTHENTICATED', 'ERR_PERMISSION_DENIED']).toContain(error.code);
      expect(error.message).toMatch(/user|password/i);
    }
  });

  test('a user where authentication is off is let in', async (context) => {
    const etcd = await server(context, { version });
    const registry = await client(context, etcd, { username: 'app', password: 'secret', ttlMs: 3000 });
    await registry.register({ name: 'orders', id: 'a' });
    await sees(registry, 'orders', ['a']);
  });

  test('no permission on the prefix', async (context) => {
    const etcd = await server(context, { version, users });
    const registry = await client(context, etcd, {
      username: 'app',
      password: 'secret',
      prefix: '/other',
      lazy: true,
      ttlMs: 3000,
    });
    for (const call of [
      () => registry.register({ name: 'orders' }),
      () => registry.getService('orders'),
      () => registry.services(),
    ]) {
      const { ms, error } = await timed<unknown>(call());
      const refusal = await refused(Promise.reject(error), 'ERR_PERMISSION_DENIED', /permission/i);
      expect(refusal).toMatchObject({
        endpoint: expect.stringMatching(/^http:\/\/127/),
        key: expect.stringMatching(/^\/other/),
      });
      expect(`${refusal.message} ${String(refusal.cause)}`, 'what it was refused for').toMatch(/\/other|prefix/);
      expect(ms, 'a refusal ends the tries').toBeLessThan(inTime(2000));
    }
    await refused(within(registry.watch('orders').next(), 5000, 'next()'), 'ERR_PERMISSION_DENIED');
    await refused(within(registry.watchServices().next(), 5000, 'next()'), 'ERR_PERMISSION_DENIED', /\/other/);
    expect(await etcd.keys('/')).toEqual([]);
    await waitFor(async () => (await etcd.leases()).length === 0, { timeoutMs: 4000, what: 'no lease to be left' });
  });

  test('permission for one name is enough for all that is done with that name', async (context) => {
    const roles = [{ prefix: '/mine/orders/' }];
    const etcd = await server(context, { version, users: [{ name: 'app', password: 'secret', roles }] });
    const registry = await client(context, etcd, {
      username: 'app',
      password: 'secret',
      prefix: '/mine',
      ttlMs: 3000,
    });
    const watcher = registry.watch('orders');
    const registration = await registry.register({ name: 'orders', id: 'a' });
    await listsUntil(watcher, ['a']);
    await sees(registry, 'orders', ['a']);
    await registration.update({ version: '2' });
    await refused(registry.getService('orders-admin'), 'ERR_PERMISSION_DENIED');
    await refused(registry.register({ name: 'users' }), 'ERR_PERMISSION_DENIED');
    await refused(registry.services(), 'ERR_PERMISSION_DENIED');
    await registration.deregister();
    expect(await etcd.keys('/')).toEqual([]);
  });

  test('permission to read only: reading and watching work, registering is refused', async (context) => {
    const etcd = await server(context, { version, users });
    await etcd.put('/theirs/orders/a', '{"id":"a","name":"orders"}');
    const registry = await client(context, etcd, {
      username: 'app',
      password: 'secret',
      prefix: '/theirs',
      ttlMs: 3000,
    });
    await sees(registry, 'orders', ['a']);
    expect(await nextList(registry.watch('orders'))).toHaveLength(1);
    expect((await registry.watchServices().next()).value).toEqual([{ name: 'orders', count: 1 }]);
    await refused(registry.register({ name: 'orders', id: 'b' }), 'ERR_PERMISSION_DENIED');
    expect(await etcd.keys('/')).toEqual(['/theirs/orders/a']);
    await waitFor(async () => (await etcd.leases()).length === 0, { timeoutMs: 4000, what: 'no lease to be left' });
  });

  test('tokens that run out are renewed: registrations stay, calls and watches go on', async (context) => {
    const etcd = await server(context, { version, users, authTokenTtl: 2 });
    const registry = await client(context, etcd, { username: 'app', password: 'secret', prefix: '/mine', ttlMs: 3000 });
    const registration = await registry.register({ name: 'orders', id: 'a' });
    const events: string[] = [];
    registration.on('lost', (reason) => events.push(reason));
    const watcher = registry.watch('orders');
    await nextList(watcher);
    for (let i = 0; i < 5; i++) {
      await new Promise((resolve) => setTimeout(resolve, 2500)); // longer than a token lives unused
      expect(await registry.services()).toEqual(['orders']);
    }
    await registry.register({ name: 'orders', id: 'b' });
    expect(await nextList(watcher)).toHaveLength(2);
    expect(events).toEqual([]);
  });
});

describe.concurrent.each(ETCD_VERSIONS)('TLS, etcd %s', (version) => {
  test('TLS against a plain port', async (context) => {
    const etcd = await server(context, { version });
    const { ms, error } = await attempt({ hosts: [...etcd.hosts], tls: true });
    expect(['ERR_UNAVAILABLE', 'ERR_TIMEOUT']).toContain(error.code);
    expect(`${error.message} ${String(error.cause)}`).toMatch(/tls|plain/i);
    expect(ms).toBeLessThan(inTime(2800));
  });

  test('plain text against a TLS port', async (context) => {
    const etcd = await server(context, { version, tls: true });
    const { ms, error } = await attempt({ hosts: [...etcd.hosts] });
    expect(['ERR_UNAVAILABLE', 'ERR_TIMEOUT']).toContain(error.code);
    expect(`${error.message} ${String(error.cause)}`).toMatch(/tls|closed|reset|broken/i);
    expect(ms).toBeLessThan(inTime(2800));
  });

  test('the right authority, from a file, a text and a URL', async (context) => {
    const etcd = await server(context, { version, tls: true });
    const caFile = etcd.certificates?.ca.certFile as string;
    const { readFileSync } = await import('node:fs');
    const ca = readFileSync(caFile);
    for (const tls of [{ caFile }, { ca }, { ca: ca.toString() }]) {
      const registry = await client(context, etcd, { tls, ttlMs: 3000 });
      expect(await registry.services()).toEqual([]);
    }
    const byUrl = await connect(`${etcd.url}?tls.caFile=${encodeURIComponent(caFile)}&ttlMs=3000`);
    await byUrl.register({ name: 'orders', id: 'a' });
    await byUrl.close();
  });

  test('a server whose authority is not known', async (context) => {
    const etcd = await server(context, { version, tls: true });
    for (const tls of [true, { caFile: etcd.certificates?.stranger.certFile as string }]) {
      const { ms, error } = await attempt({ hosts: [...etcd.hosts], tls });
      expect(['ERR_UNAVAILABLE', 'ERR_UNAUTHENTICATED', 'ERR_TIMEOUT']).toContain(error.code);
      expect(`${error.message} ${String(error.cause)}`).toMatch(/certificate|issuer|authority/i);
      expect(ms).toBeLessThan(inTime(2800));
    }
  });

  test('a server of another name, and serverName', async (context) => {
    const etcd = await server(context, { version, tls: true });
    const caFile = etcd.certificates?.ca.certFile as string;
    const { error } = await attempt({ hosts: [...etcd.hosts], tls: { caFile, serverName: 'other.example' } });
    expect(`${error.message} ${String(error.cause)}`).toMatch(/certificate|name/i);
    const registry = await client(context, etcd, { tls: { caFile, serverName: 'localhost' }, ttlMs: 3000 });
    expect(await registry.services()).toEqual([]);
  });

  test('a server that asks for a client certificate: with it in, without it out', async (context) => {
    const etcd = await server(context, { version, tls: 'mutual' });
    const { ca, client: own } = etcd.certificates ?? {};
    const { ms, error } = await attempt({ hosts: [...etcd.hosts], tls: { caFile: ca?.certFile as string } });
    expect(['ERR_UNAVAILABLE', 'ERR_UNAUTHENTICATED', 'ERR_TIMEOUT']).toContain(error.code);
    expect(ms).toBeLessThan(inTime(2800));
    const registry = await client(context, etcd, {
      tls: { caFile: ca?.certFile as string, certFile: own?.certFile as string, keyFile: own?.keyFile as string },
      ttlMs: 3000,
    });
    await registry.register({ name: 'orders', id: 'a' });
    await sees(registry, 'orders', ['a']);
  });
});
