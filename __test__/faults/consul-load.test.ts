// Agents of Consul under load: servers that are slow behind them, more clients than an agent has connections for, more
// names than connections, and what is left at an agent.
//
// CROWD=6 is a crowd of six clients at an agent with the limit of its defaults, in place of a smaller one of every day.
import type { IncomingMessage } from 'node:http';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect as connectTcp } from 'node:net';
import type { ConsulOptions, Registration, Registry, Watcher } from 'rollcall';
import { describe, expect, test } from 'vitest';
import { hear, listsUntil, nextList, quiet, waitFor } from '../conformance/kit.js';
import type { Consul, ConsulAgent, ConsulOptions as ServerOptions } from '../support/consul.js';
import { startConsul } from '../support/consul.js';
import { connected, type Finish, wayTo } from './kit.js';

const CROWD = Number(process.env.CROWD ?? 3);
/** Of an agent with its defaults, for one address, where six clients share it. */
const CONNECTIONS = Math.round((200 / 6) * CROWD);
const NAMES = 60;

async function server({ onTestFinished }: Finish, options: ServerOptions = {}): Promise<Consul> {
  const consul = await startConsul(options);
  onTestFinished(() => consul.close());
  return consul;
}

async function client(context: Finish, hosts: string, more: Partial<ConsulOptions> = {}): Promise<Registry> {
  return connected(context, {
    backend: 'consul',
    hosts,
    healthCheck: false, // nobody listens on the endpoints
    logger: false,
    ...more,
  });
}

/** A way to an agent whose servers are slow, or behind: those are the questions that it can't answer by itself. */
async function slowServers({ onTestFinished }: Finish, agent: string) {
  const state = {
    /** How much longer such a question takes. */
    delayMs: 0,
    /** How many of the next looks for one instance find nothing yet. */
    blind: 0,
  };
  const [host, port] = agent.split(':');
  const web = createServer((question, answer) => {
    const { method, url: path = '', headers } = question;
    if (path.includes('filter=Service.ID') && state.blind > 0) {
      state.blind--;
      answer.setHeader('x-consul-index', '2');
      return void answer.end('[]');
    }
    const pass = (): void => {
      const passed = request({ host, port, method, path, headers }, (from: IncomingMessage) => {
        answer.writeHead(from.statusCode ?? 500, from.headers);
        from.pipe(answer);
      });
      passed.on('error', () => answer.destroy());
      answer.on('close', () => passed.destroy());
      question.pipe(passed);
    };
    if (/^\/($|\?|v1\/agent\/)/.test(path) || state.delayMs === 0) pass();
    else setTimeout(pass, state.delayMs);
  });
  await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    web.closeAllConnections();
    web.close();
  });
  return { state, host: `127.0.0.1:${(web.address() as AddressInfo).port}` };
}

/** Makes so many connections and keeps those that the agent takes. How many it did not. */
async function occupy({ onTestFinished }: Finish, agent: string, count: number): Promise<number> {
  const [host, port] = agent.split(':');
  const refused = await Promise.all(
    Array.from({ length: count }, async () => {
      const socket = connectTcp({ host, port: Number(port) });
      onTestFinished(() => void socket.destroy());
      // It says so at once, or nothing before it is asked.
      return new Promise<boolean>((resolve) => {
        socket.on('error', () => resolve(true)).on('data', () => resolve(true));
        socket.on('connect', () => setTimeout(() => resolve(false), 500));
      });
    }),
  );
  return refused.filter(Boolean).length;
}

/** How many lists an agent keeps up to date for those who asked for one, as its goroutines tell. */
async function views(agent: ConsulAgent): Promise<number> {
  const { text } = await agent.ask('GET', '/debug/pprof/goroutine?debug=1');
  const groups = text.split('\n\n').filter((group) => group.includes('submatview.(*RPCMaterializer).Run'));
  return groups.reduce((sum, group) => sum + Number.parseInt(group, 10), 0);
}

describe('an agent of Consul', () => {
  test('its servers are slow: registrations that wait for them cost no instance and no watch', async (context) => {
    const { server: agent } = await server(context);
    const slow = await slowServers(context, agent.host);
    const registry = await client(context, slow.host, { ttlMs: 8000 });
    const standing = Array.from({ length: 20 }, (_, i) => registry.register({ name: 'orders', id: `standing-${i}` }));
    const heard = (await Promise.all(standing)).map(hear);
    const watcher = registry.watch('quiet');
    await listsUntil(watcher, []);
    const stale: string[] = [];
    watcher.on('stale', () => stale.push('stale'));
    slow.state.delayMs = 3500;
    const waiting = Array.from({ length: 100 }, (_, i) => registry.register({ name: 'more', id: `more-${i}` }));
    const done: string[] = [];
    for (const one of waiting)
      one.then(
        ({ id }) => done.push(id),
        () => undefined,
      );
    await quiet(16_000); // twice the time to live, and what it takes to believe an agent gone
    expect(heard.flatMap(({ events }) => events)).toEqual([]);
    expect(stale).toEqual([]);
    expect(done.length).toBeGreaterThan(0);
    slow.state.delayMs = 0;
  });

  test('keeps nothing for registrations that were waited for', async (context) => {
    const { server: agent } = await server(context);
    const behind = await slowServers(context, agent.host);
    const registry = await client(context, behind.host);
    const before = await views(agent);
    behind.state.blind = 40;
    const ids = Array.from({ length: 20 }, (_, i) => `id-${i}`).sort();
    const all = await Promise.all(ids.map((id) => registry.register({ name: 'orders', id })));
    behind.state.blind = 20;
    await Promise.all(all.map((one) => one.update({ version: '2' })));
    expect(behind.state.blind).toBe(0);
    expect(await views(agent)).toBe(before);
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ids);
    await registry.register({ name: 'orders', id: 'zz' });
    await listsUntil(watcher, [...ids, 'zz']);
    expect(await views(agent), 'that a view is counted').toBe(before + 1);
  });
});

describe.concurrent('more watches than connections', () => {
  test(`${CROWD} clients watch ${NAMES} names each through ${CONNECTIONS} connections: all hear, and one more connects`, {
    timeout: 120_000,
  }, async (context) => {
    const { server: agent } = await server(context, {
      config: { limits: { http_max_conns_per_client: CONNECTIONS } },
    });
    const names = Array.from({ length: NAMES }, (_, i) => `svc-${i}`);
    const clients = await Promise.all(Array.from({ length: CROWD }, () => client(context, agent.host)));
    const watchers = clients.flatMap((registry) => names.map((name) => registry.watch(name)));
    const stale: string[] = [];
    for (const watcher of watchers) watcher.on('stale', () => stale.push(watcher.name));
    await Promise.all(watchers.map((watcher) => listsUntil(watcher, [], 30_000)));
    const late = await client(context, agent.host);
    let registrations: Registration[] = [];
    for (const version of ['1', '2']) {
      const heard = watchers.map(async (watcher) => {
        while ((await nextList(watcher, 30_000))[0]?.version !== version);
      });
      if (version === '1')
        registrations = await Promise.all(names.map((name) => late.register({ name, id: name, version })));
      else await Promise.all(registrations.map((one) => one.update({ version })));
      await Promise.all(heard);
    }
    expect(stale).toEqual([]);
  });

  test('an agent is full and nobody asks for more: watches make way for a client that connects', async (context) => {
    const limit = 80;
    const { server: agent } = await server(context, { config: { limits: { http_max_conns_per_client: limit } } });
    const registry = await client(context, agent.host);
    const watchers = Array.from({ length: 40 }, (_, i) => registry.watch(`svc-${i}`));
    await Promise.all(watchers.map((watcher) => listsUntil(watcher, [])));
    const turnedAway = await occupy(context, agent.host, limit);
    expect(turnedAway).toBeGreaterThan(0);
    const late = await client(context, agent.host);
    await late.register({ name: 'svc-7', id: 'a' });
    await late.register({ name: 'svc-39', id: 'b' });
    await listsUntil(watchers[7] as Watcher, ['a']);
    await listsUntil(watchers[39] as Watcher, ['b']);
  });

  test('a name without a connection of its own hears of checks, too', async (context) => {
    const { server: agent } = await server(context);
    const registry = await client(context, agent.host, { maxWatchConnections: 1 });
    await listsUntil(registry.watch('first'), []);
    await agent.register({ ID: 'a', Name: 'orders', Check: { CheckID: 'service:a', TTL: '1h', Status: 'passing' } });
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a']);
    await quiet(1000); // it has heard the bell once by now, and asked
    await agent.fail('a');
    await listsUntil(watcher, []);
    await agent.call('PUT', '/v1/agent/check/pass/service:a');
    await listsUntil(watcher, ['a']);
  });

  test('with TLS many names share a connection, and all of them know when it is dead', async (context) => {
    const { server: agent, certificates } = await server(context, { tls: true });
    const link = await wayTo(context, agent.host);
    const tls = { caFile: certificates?.ca.certFile };
    const registry = await client(context, link.host, { tls, ttlMs: 60_000 });
    const names = Array.from({ length: 250 }, (_, i) => `svc-${i}`);
    const watchers = names.map((name) => registry.watch(name));
    await Promise.all(watchers.map((watcher) => listsUntil(watcher, [], 30_000)));
    await waitFor(() => link.open === 3, { timeoutMs: 30_000, what: '200 names, 50 names and the calls' });
    const other = await client(context, agent.host, { tls });
    const registrations = await Promise.all(names.map((name) => other.register({ name, id: name })));
    await Promise.all(watchers.map((watcher) => listsUntil(watcher, [watcher.name])));
    expect(link.open).toBe(3);
    link.hold();
    await waitFor(() => watchers.every(({ stale }) => stale), { timeoutMs: 20_000, what: 'all watches to be stale' });
    link.release();
    link.sever();
    for (const index of [0, 120, 249]) {
      await registrations[index]?.update({ version: '2' });
      while ((await nextList(watchers[index] as Watcher, 30_000))[0]?.version !== '2');
    }
    for (const watcher of watchers) watcher.stop();
    await waitFor(() => link.open <= 1, { timeoutMs: 20_000, what: 'the connections of no watch to be closed' });
  }, 120_000);
});
