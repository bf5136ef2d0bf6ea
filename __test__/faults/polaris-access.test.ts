// Polaris with access control, and by TLS: tokens that are none or end in the middle, and certificates.
import { readFileSync } from 'node:fs';
import { type AddressInfo, createConnection, type Socket } from 'node:net';
import { createServer } from 'node:tls';
import { connect } from 'rollcall';
import { describe, expect, test } from 'vitest';
import { hear, listsUntil, quiet, refused, sees, timed, waitFor } from '../conformance/kit.js';
import type { PolarisServer } from '../support/polaris.js';
import { inTime } from '../support/process.js';
import { type Certificates, makeCertificates } from '../support/tls.js';
import { type Finish, instance } from './kit.js';
import { client, NAMESPACE, optionsFor, server, way } from './polaris-kit.js';

/** Before a server, a way by TLS that asks for a certificate of the client. */
async function asking({ onTestFinished }: Finish, polaris: PolarisServer, of: Certificates): Promise<string> {
  const [host, port] = polaris.host.split(':') as [string, string];
  const [cert, key, ca] = [of.server.certFile, of.server.keyFile, of.ca.certFile].map((file) => readFileSync(file));
  const asks = { requestCert: true, rejectUnauthorized: true, ALPNProtocols: ['h2'] };
  const sockets = new Set<Socket>();
  const way = createServer({ ...asks, cert, key, ca }, (client) => {
    const on = createConnection({ host, port: Number(port), noDelay: true });
    for (const [from, to] of [
      [client, on],
      [on, client],
    ] as const) {
      sockets.add(from);
      from.on('error', () => to.destroy()).on('close', () => to.destroy());
      from.pipe(to);
    }
  });
  await new Promise<void>((resolve) => way.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    way.close();
    for (const socket of sockets) socket.destroy();
  });
  return `127.0.0.1:${(way.address() as AddressInfo).port}`;
}

describe.concurrent('access', { timeout: 120_000 }, () => {
  test('no token and a wrong one are refused by their name, and nothing tells the token', async (context) => {
    const polaris = await server(context, { accessControl: true });
    const none = await refused(connect(optionsFor(polaris.host)), 'ERR_UNAUTHENTICATED', /options\.token/);
    expect(none.retryable).toBe(false);
    const wrong = connect(optionsFor(polaris.host, { token: 'secret-word' }));
    const error = await refused(wrong, 'ERR_UNAUTHENTICATED', /options\.token/);
    expect(JSON.stringify([error.message, error.stack, String(error.cause)])).not.toContain('secret-word');
    const registry = await client(context, polaris.host, { token: polaris.token });
    const registration = await registry.register(instance);
    await sees(registry, 'orders', ['a']);
    await registration.deregister();
    await sees(registry, 'orders', []);
  });

  test('a user without the right to a service is refused by the server, and reads it', async (context) => {
    const polaris = await server(context, { accessControl: true });
    const owner = await client(context, polaris.host, { token: polaris.token });
    await owner.register(instance);
    const { token } = await polaris.addUser('someone');
    const other = await client(context, polaris.host, { token });
    await sees(other, 'orders', ['a']);
    const mine = { name: 'orders', id: 'b', endpoints: ['grpc://10.1.2.4:9000'] };
    await refused(other.register(mine), 'ERR_PERMISSION_DENIED', /orders/);
    await sees(owner, 'orders', ['a']);
  });

  test('a token that is ended in the middle: told as such, the instance stands by its beats', async (context) => {
    const polaris = await server(context, { accessControl: true });
    const user = await polaris.addUser('someone');
    const reader = await client(context, polaris.host, { token: polaris.token });
    const ttlMs = 1000;
    const registry = await client(context, polaris.host, { token: user.token, ttlMs });
    const registration = await registry.register({ ...instance, name: 'theirs' });
    const heard = hear(registration);
    const watcher = registry.watch('theirs');
    await listsUntil(watcher, ['a']);
    await polaris.renewToken(user);
    await waitFor(() => watcher.stale, { what: 'the watch to be stale' });
    await refused(registry.getService('theirs', { consistent: true }), 'ERR_UNAUTHENTICATED');
    await refused(registration.update({ version: '2' }), 'ERR_UNAUTHENTICATED', /options\.token/);
    await quiet(8 * ttlMs); // beats need no token: without them it would be unhealthy by now
    await sees(reader, 'theirs', ['a']);
    expect(heard.count('replaced')).toBe(0);
  });

  test('a token that is switched off, and on: what stands stays through an outage, and what was wanted meanwhile is written', async (context) => {
    const polaris = await server(context, { accessControl: true });
    const user = await polaris.addUser('someone');
    const reader = await client(context, polaris.host, { token: polaris.token });
    const link = await way(context, polaris);
    const ttlMs = 2000;
    const registry = await client(context, link.host, { token: user.token, ttlMs });
    const registration = await registry.register({ ...instance, name: 'theirs' });
    const heard = hear(registration);
    const watcher = registry.watch('theirs');
    await listsUntil(watcher, ['a']);
    await polaris.setTokenEnabled(user, false);
    const write = () =>
      registration.update({ metadata: { colour: 'red' } }).then(
        () => undefined,
        (error: Error) => error,
      );
    const told = await waitFor(write, { timeoutMs: 30_000, what: 'a write to be refused' }); // a server looks once a second
    await refused(Promise.reject(told), 'ERR_UNAUTHENTICATED', /options\.token/);
    link.setEnabled(false);
    await waitFor(() => heard.count('lost') === 1, { timeoutMs: 30_000, what: 'the loss' });
    link.setEnabled(true);
    const attempts = () => registry.metrics().registrations.attempts;
    const [before, since] = [attempts(), Date.now()];
    await waitFor(() => attempts() >= before + 3, { timeoutMs: 60_000, what: 'repairs to be refused' });
    await quiet(Math.max(0, since + 8 * ttlMs - Date.now())); // without heartbeats it would be unhealthy by now
    await sees(reader, 'theirs', ['a']);
    expect(registration.state).toBe('lost');
    expect(attempts() - before).toBeLessThan(20);
    await polaris.setTokenEnabled(user, true);
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: 60_000, what: 'the repair' });
    await waitFor(() => !watcher.stale, { timeoutMs: 30_000, what: 'the watch to go on' });
    const [theirs] = await reader.getService('theirs', { consistent: true });
    expect(theirs?.metadata).toMatchObject({ colour: 'red' });
    expect(heard.events).toEqual(['lost', 'restored']);
  });

  test('a wrong token of a client that asks nobody first: the registration is refused, and nothing of it stands', async (context) => {
    const polaris = await server(context, { accessControl: true });
    const registry = await client(context, polaris.host, { token: 'secret-word', lazy: true });
    await refused(registry.register({ ...instance, name: 'half' }), 'ERR_UNAUTHENTICATED', /options\.token/);
    await refused(registry.watch('half').next(), 'ERR_UNAUTHENTICATED', /options\.token/);
    expect(await polaris.services(NAMESPACE)).not.toContain('half');
    expect(registry.metrics().registrations).toMatchObject({ alive: 0 });
  });
});

describe.concurrent('TLS', { timeout: 60_000 }, () => {
  test('a server whose authority is known is spoken to, and another is not', async (context) => {
    const certificates = await makeCertificates();
    context.onTestFinished(() => certificates.remove());
    const polaris = await server(context, { tls: certificates.server });
    const registry = await client(context, polaris.host, { tls: { caFile: certificates.ca.certFile } });
    const registration = await registry.register(instance);
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a']);
    const byUrl = await connect(
      `polariss://${polaris.host}?tls.caFile=${encodeURIComponent(certificates.ca.certFile)}&logger=false`,
    );
    await sees(byUrl, 'orders', ['a']);
    await byUrl.close();
    for (const tls of [true, { caFile: certificates.stranger.certFile }]) {
      const { ms, error } = await timed(connect(optionsFor(polaris.host, { tls, connectTimeoutMs: 1500 })));
      const told = await refused(Promise.reject(error), ['ERR_UNAVAILABLE', 'ERR_TIMEOUT']);
      expect(`${told.message} ${String(told.cause)}`).toMatch(/certificate|issuer|authority/i);
      expect(ms).toBeLessThan(inTime(2500));
    }
    const plain = connect(optionsFor(polaris.host, { connectTimeoutMs: 1500 }));
    await refused(plain, ['ERR_UNAVAILABLE', 'ERR_TIMEOUT']);
    await registration.deregister();
    await listsUntil(watcher, []);
  });

  test('of both sides, before a server that asks nobody: ours is shown, and its lack is told', async (context) => {
    const certificates = await makeCertificates();
    context.onTestFinished(() => certificates.remove());
    const polaris = await server(context);
    const host = await asking(context, polaris, certificates);
    const { ca, client: own } = certificates;
    const tls = { caFile: ca.certFile, certFile: own.certFile, keyFile: own.keyFile };
    const registry = await client(context, host, { tls });
    await registry.register(instance);
    await sees(registry, 'orders', ['a']);
    const { stranger } = certificates;
    for (const wrong of [
      { caFile: ca.certFile },
      { ...tls, certFile: stranger.certFile, keyFile: stranger.keyFile },
      { ...tls, caFile: stranger.certFile },
    ]) {
      const connecting = connect(optionsFor(host, { tls: wrong, connectTimeoutMs: 1500 }));
      await refused(connecting, ['ERR_UNAVAILABLE', 'ERR_TIMEOUT']);
    }
  });
});
