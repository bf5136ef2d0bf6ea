// Programs without a framework: registerSelf() puts them into the registry where they listen, and takes them out in time.
import { Agent, createServer, get, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect, type Registry, registerSelf } from 'rollcall';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';
import { runProgram, uniqueName, waitFor } from '../support/process.js';

const fixture = new URL('fixtures/server.mjs', import.meta.url).pathname;

describe('a server of this process', () => {
  const name = 'orders';
  let registry: Registry;
  let outside: Registry;
  let server: Server;
  let warned: string[];
  beforeEach(async () => {
    warned = [];
    const namespace = uniqueName('plain');
    const logger = { debug() {}, info() {}, warn: (text: string) => void warned.push(text), error() {} };
    registry = await connect({ backend: 'memory', namespace, logger });
    outside = await connect({ backend: 'memory', namespace });
    server = createServer((_request, response) => response.end('ok'));
  });
  afterEach(async () => {
    server.close();
    await Promise.all([registry.close(), outside.close()]);
  });
  const listen = () => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = () => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const seen = async () => (await outside.getService(name)).flatMap(({ endpoints }) => endpoints);

  it('is registered where it listens, leaves traffic and comes back, and takes all with it at the end', async () => {
    await listen();
    const application = await registerSelf(server, registry, { name, metadata: { zone: 'a' }, signals: ['SIGTERM'] });
    expect(await seen()).toEqual([url()]);
    expect(application.registration.instance).toMatchObject({ name, metadata: { zone: 'a' } });
    await application.withdraw('unhealthy');
    expect(await seen()).toEqual([]);
    expect(await (await fetch(url())).text()).toBe('ok');
    await application.restore('unhealthy');
    expect(await seen()).toEqual([url()]);
    await Promise.all([application.leave(), application.leave()]);
    expect(await seen()).toEqual([]);
    expect([server.listening, registry.closed]).toEqual([false, true]);
    expect(process.listenerCount('SIGTERM')).toBe(0);
    expect(warned).toEqual([]);
  });

  it('that does not listen yet is waited for, for so long', async () => {
    const coming = registerSelf(server, registry, { name, signals: ['SIGTERM'] });
    expect(await seen()).toEqual([]);
    await listen();
    await coming;
    expect(await seen()).toEqual([url()]);
    const never = registerSelf(createServer(), registry, { name, id: 'never', listenTimeoutMs: 20 });
    await expect(never).rejects.toMatchObject({
      code: 'ERR_TIMEOUT',
      message: /^server: it does not listen after 20 ms/,
    });
    const other = createServer();
    const taken = registerSelf(other, registry, { name, id: 'taken' });
    other.listen((server.address() as AddressInfo).port, '127.0.0.1');
    await expect(taken).rejects.toMatchObject({ code: 'EADDRINUSE' });
    expect(await seen()).toEqual([url()]);
  });

  it('goes on answering while it drains, asks those who stay to go, and cuts what never ends', async () => {
    let stuck = 0;
    server.removeAllListeners('request');
    server.on('request', (request, response) => {
      if (request.url === '/stuck') stuck++;
      else response.end('ok');
    });
    await listen();
    const options = { name, drainMs: 300, closeTimeoutMs: 100, signals: ['SIGTERM'] as const };
    const application = await registerSelf(server, registry, options);
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const ask = () =>
      new Promise<string | undefined>((resolve, reject) => {
        get(`${url()}/`, { agent }, (response) => {
          response.resume().on('end', () => resolve(response.headers.connection));
        }).on('error', reject);
      });
    expect(await ask()).toBe('keep-alive');
    const cut = fetch(`${url()}/stuck`).then(
      () => 'answered',
      () => 'cut',
    );
    await waitFor(() => stuck === 1);
    const leaving = application.leave();
    await waitFor(async () => (await seen()).length === 0);
    expect(await ask()).toBe('close');
    await leaving;
    expect(await cut).toBe('cut');
    expect(warned).toEqual([expect.stringContaining('requests were under way 100 ms after the drain')]);
    agent.destroy();
  });

  it('of Fastify is closed in its own way', async () => {
    await listen();
    let closed = 0;
    const fastify = {
      server,
      close: async () => {
        closed++;
        server.close();
      },
    };
    const application = await registerSelf(fastify, registry, { name, signals: ['SIGTERM'] });
    expect(await seen()).toEqual([url()]);
    await application.leave();
    expect([closed, server.listening]).toEqual([1, false]);
  });

  it('refuses what can not be, and leaves nothing', async () => {
    await listen();
    const wrong = async (given: unknown, options: unknown, message: RegExp) =>
      expect(registerSelf(given as never, registry, options as never)).rejects.toMatchObject({
        code: 'ERR_INVALID_ARGUMENT',
        message,
      });
    await wrong(
      () => {},
      { name },
      /^server: expected a server of Node\.js .*, got function: give what its listen\(\) returns/,
    );
    await wrong(undefined, { name }, /^server: expected/);
    await wrong(server, undefined, /^options: expected/);
    await wrong(server, {}, /^options\.name: expected/);
    await wrong(server, { name: 'a/b' }, /^options\.name: /);
    await wrong(server, { name, nam: 1 }, /^options\.nam: unknown option; did you mean "name"\?/);
    await wrong(server, { name, when: 'manual' }, /^options\.when: not an option here/);
    await wrong(server, { name, signals: ['SIGFOO'] }, /^options\.signals\[0\]: /);
    await wrong(server, { name, closeTimeoutMs: -1 }, /^options\.closeTimeoutMs: /);
    expect(await seen()).toEqual([]);
    await registry.close();
    await expect(registerSelf(server, registry, { name })).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });
});

describe('a process', () => {
  let etcd: EtcdCluster;
  let registry: Registry;
  beforeAll(async () => {
    etcd = await startEtcd();
    registry = await connect(etcd.url);
  });
  afterAll(async () => {
    await registry?.close();
    await etcd?.close();
  });

  it('leaves by SIGTERM without a refused request of those who found it, and ends by the signal', async () => {
    const SERVICE = uniqueName('orders');
    const start = async () => {
      const program = runProgram(process.execPath, [fixture], { REGISTRY: etcd.url, SERVICE });
      await program.line(({ registered }) => Boolean(registered));
      return program;
    };
    const orders = registry.service(SERVICE, { allowLocal: true });
    const programs = [await start(), await start()];
    await orders.ready({ min: 2 });
    let [calls, stop] = [0, false];
    const failures: unknown[] = [];
    const caller = async () => {
      while (!stop) {
        const { endpoint, done } = orders.pick();
        const error = await fetch(`${endpoint.url}/?wait=20`)
          .then((response) => response.text())
          .then(
            () => undefined,
            (failure: unknown) => failure ?? 'failed',
          );
        done({ error });
        if (error) failures.push(error);
        calls++;
      }
    };
    const callers = Array.from({ length: 8 }, caller);
    for (let round = 0; round < 2; round++) {
      const next = await start();
      await waitFor(() => orders.instances.length === 3);
      const old = programs.shift();
      old?.kill('SIGTERM');
      expect(await old?.exit).toMatchObject({ signal: 'SIGTERM' });
      await waitFor(() => orders.instances.length === 2);
      programs.push(next);
    }
    stop = true;
    await Promise.all(callers);
    expect(failures).toEqual([]);
    expect(calls).toBeGreaterThan(50);
    for (const program of programs) program.kill('SIGTERM');
    await Promise.all(programs.map(({ exit }) => exit));
    expect(await registry.getService(SERVICE, { consistent: true })).toEqual([]);
  });
});
