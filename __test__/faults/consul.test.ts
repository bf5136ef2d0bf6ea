// What befalls agents of Consul, and what follows: restarts with and without their data, checks and registrations that
// somebody tampers with, rights taken away, agents that die or freeze, a leader that is lost.
import type { IncomingMessage } from 'node:http';
import { createServer, request as forward } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { ConsulOptions, Registry } from 'rollcall';
import { describe, expect, test } from 'vitest';
import { hear, ids, listsUntil, nextList, quiet, refused, sees, timed, waitFor, within } from '../conformance/kit.js';
import type { Consul, ConsulAgent, ConsulOptions as ServerOptions } from '../support/consul.js';
import { startConsul } from '../support/consul.js';
import { inTime, temporaryFolder } from '../support/process.js';
import { connected, type Finish, wayTo } from './kit.js';

const ttlMs = 3000;
/** What a renewal is: a third of the TTL, and room for a busy machine. */
const noticedMs = ttlMs / 3 + 1500;

async function server({ onTestFinished }: Finish, options: ServerOptions = {}): Promise<Consul> {
  const consul = await startConsul(options);
  onTestFinished(() => consul.close());
  return consul;
}

async function client(
  context: Finish,
  hosts: string | readonly string[],
  more: Partial<ConsulOptions> = {},
): Promise<Registry> {
  return connected(context, {
    backend: 'consul',
    hosts,
    healthCheck: false, // nobody listens on the endpoints
    ttlMs,
    logger: false,
    ...more,
  });
}

const instance = { name: 'orders', id: 'a', version: '1', endpoints: ['grpc://10.1.2.3:9000'] };

describe.concurrent('an agent', () => {
  test('whose catalog is slower than the TTL is told that the instance lives, before anybody sees it', async (context) => {
    const { server: agent } = await server(context);
    let show: () => void = () => {};
    let shown: Promise<void>;
    const hold = () => {
      shown = new Promise<void>((resolve) => {
        show = resolve;
      });
    };
    hold();
    const host = await forwarder(context, agent, async ({ url = '' }) => {
      if (url.startsWith('/v1/health/service/orders')) await shown;
      return true;
    });
    const registry = await client(context, host);
    const registering = registry.register(instance, { timeoutMs: 30_000 });
    const status = async () => {
      const { text } = await agent.ask('GET', '/v1/agent/checks');
      const checks = Object.values(JSON.parse(text) as Record<string, { ServiceID: string; Status: string }>);
      return checks.find(({ ServiceID }) => ServiceID === 'a')?.Status;
    };
    const passes = async () => {
      await waitFor(async () => (await status()) === 'passing', { timeoutMs: 15_000, what: 'the write' });
      const until = Date.now() + 2 * ttlMs;
      while (Date.now() < until) {
        expect(await status(), 'its TTL check').toBe('passing');
        await quiet(100); // it would be critical from one TTL on, until the record is written anew
      }
    };
    await passes();
    show();
    const registration = await registering;
    expect(registration.state).toBe('registered');
    // The same for the record that takes the place of one that was lost.
    const heard = hear(registration);
    hold();
    await agent.deregister('a');
    await waitFor(() => heard.count('lost') === 1, { what: '"lost"' });
    await passes();
    show();
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: 15_000, what: '"restored"' });
  });

  test('restarted without its data forgets the instance: one lost, one restored, and watches go on', async (context) => {
    const { server: agent } = await server(context);
    const registry = await client(context, agent.host);
    const heard = hear(await registry.register(instance));
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a']);
    await agent.kill();
    await agent.start();
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: 15_000, what: '"restored"' });
    await waitFor(() => !watcher.stale && ids(watcher.current ?? []).length === 1, { what: 'the watch to go on' });
    await agent.register({ ID: 'b', Name: 'orders' });
    await listsUntil(watcher, ['a', 'b']);
    expect(heard.events).toEqual(['lost', 'restored']);
  });

  test('restarted with its data, after a time longer than the TTL: the instance is visible again', async (context) => {
    const { server: agent } = await server(context, { persistent: true });
    const registry = await client(context, agent.host);
    const registration = await registry.register(instance);
    const heard = hear(registration);
    await agent.kill();
    await quiet(ttlMs + 1000);
    await agent.start();
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: 15_000, what: '"restored"' });
    await sees(registry, 'orders', ['a']);
    expect(heard.events).toEqual(['lost', 'restored']);
    expect((await agent.entries('orders')).map(({ Service }) => Service.ID)).toEqual(['a']);
  });

  test('a TTL check that somebody fails, and a deregistration by hand, are noticed within one renewal', async (context) => {
    const { server: agent } = await server(context);
    const registry = await client(context, agent.host);
    const heard = hear(await registry.register(instance));
    for (const [round, harm] of [() => agent.fail('a'), () => agent.deregister('a')].entries()) {
      await harm();
      await waitFor(() => heard.count('lost') === round + 1, { timeoutMs: noticedMs, what: '"lost"' });
      await waitFor(() => heard.count('restored') === round + 1, { timeoutMs: 5000, what: '"restored"' });
      const [entry] = await agent.entries('orders');
      expect(entry?.Checks.map(({ Status }) => Status)).toEqual(expect.arrayContaining(['passing']));
      expect(entry?.Checks.filter(({ Status }) => Status !== 'passing')).toEqual([]);
    }
    expect(heard.reasons[0]).toMatch(/check/);
    expect(heard.reasons[1]).toMatch(/deregistered/);
  });

  test('an ACL token whose rights are taken away: lost within one renewal, and restored when they are back', async (context) => {
    const { server: agent } = await server(context, { acl: true });
    const rights = 'service_prefix "" { policy = "write" } node_prefix "" { policy = "read" }';
    const token = await agent.token(rights);
    const registry = await client(context, agent.host, { token: token.secret });
    const registration = await registry.register(instance);
    const heard = hear(registration);
    await agent.allow(token.policy, 'service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }');
    await waitFor(() => heard.count('lost') === 1, { timeoutMs: noticedMs, what: '"lost"' });
    expect(heard.reasons[0]).toMatch(/service:write|policy = "write"/);
    await agent.allow(token.policy, rights);
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: 12_000, what: '"restored"' });
    await sees(registry, 'orders', ['a']);
    expect(heard.events).toEqual(['lost', 'restored']);
  });

  test('an ACL token that is ended: lost with a reason that names it, without haste, and restored when it is one again', async (context) => {
    const { server: agent } = await server(context, { acl: true });
    const token = await agent.token('service_prefix "" { policy = "write" } node_prefix "" { policy = "read" }');
    const link = await wayTo(context, agent.host);
    const registry = await client(context, link.host, { token: token.secret });
    const heard = hear(await registry.register(instance));
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a']);
    await token.revoke();
    await waitFor(() => heard.count('lost') === 1, { timeoutMs: 30_000, what: '"lost"' });
    expect(heard.reasons[0]).toMatch(/options\.token.*deleted/);
    expect(heard.reasons[0]).not.toContain(token.secret);
    await waitFor(() => watcher.stale, { timeoutMs: 30_000, what: 'the watch to be stale' });
    await refused(registry.getService('orders', { consistent: true }), 'ERR_UNAUTHENTICATED', /options\.token/);
    const before = { bytes: link.bytesUp, attempts: registry.metrics().registrations.attempts };
    await quiet(2 * ttlMs); // whoever is in haste asks thousands of times, of some 200 bytes each
    expect(link.bytesUp - before.bytes).toBeLessThan(30_000);
    expect(registry.metrics().registrations.attempts - before.attempts).toBeLessThan(12);
    await token.remake();
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: 30_000, what: '"restored"' });
    await waitFor(() => !watcher.stale, { timeoutMs: 30_000, what: 'the watch to go on' });
    await sees(registry, 'orders', ['a']);
    expect(heard.events).toEqual(['lost', 'restored']);
  });

  test('frozen: the watch is stale though nothing was closed, and goes on when it thaws', async (context) => {
    const { server: agent } = await server(context);
    const registry = await client(context, agent.host, { ttlMs: 60_000 });
    await agent.register({ ID: 'x', Name: 'orders' });
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['x']);
    agent.freeze();
    await waitFor(() => watcher.stale, { timeoutMs: 20_000, what: 'the watch to be stale' });
    agent.thaw();
    await waitFor(() => !watcher.stale, { timeoutMs: 20_000, what: 'the watch to be fresh' });
    await agent.register({ ID: 'y', Name: 'orders' });
    await listsUntil(watcher, ['x', 'y']);
  });

  test('on a unix socket', async (context) => {
    const { path, remove } = temporaryFolder('rollcall-socket-');
    context.onTestFinished(remove);
    const socket = join(path, 'consul.sock');
    await server(context, { socket });
    const registry = await client(context, `unix://${socket}`);
    await registry.register(instance);
    await sees(registry, 'orders', ['a']);
  });

  test('with TLS: the authority is checked, the name may be another, and a client certificate is shown', async (context) => {
    const consul = await server(context, { tls: 'mutual' });
    const { ca, client: own, stranger } = consul.certificates ?? expect.fail('no certificates');
    const tls = { caFile: ca.certFile, certFile: own.certFile, keyFile: own.keyFile };
    const registry = await client(context, consul.server.host, { tls });
    await registry.register(instance);
    await sees(registry, 'orders', ['a']);
    await sees(await client(context, consul.server.host, { tls: { ...tls, serverName: 'localhost' } }), 'orders', [
      'a',
    ]);
    for (const wrong of [
      { ...tls, caFile: stranger.certFile },
      { ...tls, serverName: 'elsewhere.example' },
      { caFile: ca.certFile },
    ]) {
      await refused(client(context, consul.server.host, { tls: wrong, connectTimeoutMs: 1500 }), [
        'ERR_UNAVAILABLE',
        'ERR_TIMEOUT',
      ]);
    }
  });
});

describe('several agents', () => {
  test('the one that holds the registration dies: it moves before its TTL is over, and nothing is told', async (context) => {
    const consul = await server(context, { servers: 3 });
    const [first, second, third] = consul.agents;
    if (!first || !second || !third) return expect.fail('three agents');
    const link = await wayTo(context, first.host);
    const registry = await client(context, [link.host, second.host], { ttlMs: 6000 });
    const registration = await registry.register(instance);
    const heard = hear(registration);
    expect((await third.entries('orders')).map(({ Node }) => Node.Node)).toEqual([first.name]);
    link.setEnabled(false);
    await waitFor(async () => (await second.services()).includes('a'), { timeoutMs: 6000, what: 'the move' });
    await quiet(6000); // the TTL of the record that was left
    expect(heard.events).toEqual([]);
    expect(registration.state).toBe('registered');
    await sees(await client(context, third.host), 'orders', ['a']);
    // The agent that was left is told as soon as it can be.
    link.setEnabled(true);
    await waitFor(async () => !(await first.services()).includes('a'), {
      timeoutMs: 8000,
      what: 'the old record to go',
    });
    await registration.deregister();
    expect(await second.services()).toEqual([]);
    expect(await first.services()).toEqual([]);
  });

  test('a publication that moves is not taken away as something left over', async (context) => {
    const consul = await server(context, { client: true });
    const [first, second] = consul.agents;
    if (!first || !second) return expect.fail('two agents');
    let beats = 0;
    let refuses = false;
    const one = await forwarder(context, first, async ({ method, url = '' }) => {
      if (url.startsWith('/v1/agent/check/update')) beats++;
      return !(refuses && method === 'PUT' && url.startsWith('/v1/agent/service/register'));
    });
    const two = await forwarder(context, second, async ({ url = '' }) => {
      // The look whether others see it is answered late: two renewals go by at the first agent.
      if (refuses && url.startsWith('/v1/health/service')) {
        const from = beats;
        await waitFor(() => beats >= from + 2, { what: 'two renewals' });
      }
      return true;
    });
    const registry = await client(context, [one, two], { timeoutMs: 20_000 });
    const registration = await registry.register(instance);
    const heard = hear(registration);
    refuses = true;
    await registration.update({ version: '2' });
    await waitFor(async () => (await first.services()).length === 0, { what: 'the old record to go' });
    expect(await second.services()).toEqual(['a']);
    expect([registration.state, heard.events]).toEqual(['registered', []]);
  });

  test('what was written at an agent that is away is taken back there when the instance deregisters', async (context) => {
    const consul = await server(context, { servers: 3 });
    const [first, second] = consul.agents;
    if (!first || !second) return expect.fail('two agents');
    const link = await wayTo(context, first.host);
    const registry = await client(context, [link.host, second.host], { ttlMs: 60_000 });
    const registration = await registry.register(instance);
    link.setEnabled(false);
    await registration.update({ version: '2' }); // which goes to the second
    expect(await second.services()).toEqual(['a']);
    const leaving = registration.deregister({ timeoutMs: 10_000 });
    await waitFor(async () => (await second.services()).length === 0, { what: 'the second to be rid of it' });
    link.setEnabled(true);
    await leaving;
    expect(await first.services()).toEqual([]);
    await sees(registry, 'orders', []);
  });

  test('a watch begins, and begins again after a break, with a leader that has caught up', async (context) => {
    const consul = await server(context, { persistent: true });
    const consistent: string[] = [];
    const host = await forwarder(context, consul.server, async ({ url = '' }) => {
      if (url.startsWith('/v1/health/service/orders') && url.includes('consistent')) consistent.push(url);
      return true;
    });
    const registry = await client(context, host, { ttlMs: 60_000 });
    await registry.register(instance);
    expect(consistent).toEqual([]);
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a']);
    expect(consistent.splice(0).length).toBe(1);
    await consul.server.kill();
    await consul.server.start();
    await waitFor(() => !watcher.stale && consistent.length > 0, { timeoutMs: 30_000, what: 'a consistent read' });
  }, 60_000);

  test('the leader is lost: reads, watches and registrations go on through the agents that are left', async (context) => {
    const consul = await server(context, { servers: 3 });
    const registry = await client(context, consul.hosts, { ttlMs: 10_000 });
    const registration = await registry.register(instance);
    const heard = hear(registration);
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a']);
    const leader = await consul.leader();
    await leader.kill();
    await consul.leader();
    await waitFor(
      () =>
        registry.register({ name: 'orders', id: 'b' }, { timeoutMs: 5000 }).then(
          () => true,
          () => false,
        ),
      { timeoutMs: 20_000, what: 'register()' },
    );
    await listsUntil(watcher, ['a', 'b'], 20_000);
    expect(heard.count('lost')).toBe(heard.count('restored'));
    expect(registration.state).toBe('registered');
    await leader.start();
    await sees(registry, 'orders', ['a', 'b'], 20_000);
  }, 90_000);

  test('no quorum: calls are refused in time, the list stays, stale, and all is well when it is back', async (context) => {
    const consul = await server(context, { servers: 3 });
    const [first, second, third] = consul.agents;
    if (!first || !second || !third) return expect.fail('three agents');
    const registry = await client(context, first.host, { ttlMs: 60_000 });
    await registry.register(instance);
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a']);
    await Promise.all([second.kill(), third.kill()]);
    await waitFor(
      () =>
        registry.getService('orders', { consistent: true, timeoutMs: 1000 }).then(
          () => false,
          (error: { retryable: boolean }) => error.retryable,
        ),
      { timeoutMs: 20_000, what: 'a refusal' },
    );
    expect(ids(watcher.current ?? [])).toEqual(['a']);
    const { ms, error } = await timed(registry.register({ name: 'orders', id: 'b' }, { timeoutMs: 1500 }));
    expect(error).toMatchObject({ retryable: true });
    expect(ms).toBeLessThan(inTime(2500));
    await Promise.all([second.start(), third.start()]);
    await sees(registry, 'orders', ['a'], 30_000);
    await waitFor(() => !watcher.stale, { timeoutMs: 30_000, what: 'the watch to be fresh' });
    await waitFor(() => ids(watcher.current ?? []).join() === 'a', { timeoutMs: 10_000, what: 'the list' });
  }, 120_000);
});

/** A way to an agent, request by request; one that `passes` says no to is cut off. */
async function forwarder(
  { onTestFinished }: Finish,
  agent: ConsulAgent,
  passes: (request: IncomingMessage) => Promise<boolean>,
): Promise<string> {
  const web = createServer(async (request, answer) => {
    if (!(await passes(request).catch(() => false))) return void answer.destroy();
    const { method, url, headers } = request;
    const passed = forward(`${agent.url}${url}`, { method, headers }, (from) => {
      answer.writeHead(from.statusCode ?? 0, from.headers);
      from.pipe(answer);
    });
    passed.on('error', () => answer.destroy());
    answer.on('close', () => passed.destroy());
    request.pipe(passed);
  });
  await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    web.closeAllConnections();
    web.close();
  });
  return `127.0.0.1:${(web.address() as AddressInfo).port}`;
}

/** A logger that has nothing to log, and a test that fails where it has. */
function deaf({ onTestFinished }: Finish): { warn(line: string): void } {
  const said: string[] = [];
  onTestFinished(() => expect(said).toEqual([]));
  return { warn: (line) => void said.push(line) };
}

/** A stub that plays an agent whose index can be set, without a change of the list. */
async function stub({ onTestFinished }: Finish) {
  const state = { index: 10, list: ['x'], asked: [] as string[] };
  const entries = (): unknown[] =>
    state.list.map((id) => ({
      Node: { Node: 'n', Address: '10.0.0.1' },
      Service: { ID: id, Service: 'orders', Tags: null, Meta: null, Address: '', Port: 80 },
      Checks: [],
    }));
  const waiting = new Set<() => void>();
  const web = createServer((request, answer) => {
    const url = new URL(request.url ?? '', 'http://stub');
    if (url.pathname === '/v1/status/leader') return void answer.end('"10.0.0.1:8300"');
    state.asked.push(url.search);
    const go = (): void => {
      waiting.delete(go);
      answer.setHeader('x-consul-index', String(state.index));
      answer.end(JSON.stringify(entries()));
    };
    if (Number(url.searchParams.get('index') ?? 0) === state.index) waiting.add(go);
    else go();
  });
  await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    web.closeAllConnections();
    web.close();
  });
  return {
    state,
    host: `127.0.0.1:${(web.address() as AddressInfo).port}`,
    change(index: number, list: string[]) {
      Object.assign(state, { index, list });
      for (const go of [...waiting]) go();
    },
  };
}

describe.concurrent('blocking queries', () => {
  test('an index that goes back begins anew, and the list is stale meanwhile', async (context) => {
    const agent = await stub(context);
    const registry = await client(context, agent.host, { emptyGraceMs: 0 });
    const watcher = registry.watch('orders');
    const events: string[] = [];
    watcher.on('stale', () => events.push('stale'));
    watcher.on('fresh', () => events.push('fresh'));
    await listsUntil(watcher, ['x']);
    await waitFor(() => agent.state.asked.some((asked) => asked.includes('index=10&')), { what: 'a blocking query' });
    agent.change(3, ['y']);
    await listsUntil(watcher, ['y']);
    await waitFor(() => agent.state.asked.some((asked) => asked.includes('index=3&')), { what: 'the next query' });
    await waitFor(() => events.length === 2, { what: 'the events' });
    expect(events).toEqual(['stale', 'fresh']);
    expect(agent.state.asked.some((asked) => asked.includes('index=0'))).toBe(false);
  });

  test('an index that goes back with the same list is no break', async (context) => {
    const agent = await stub(context);
    const registry = await client(context, agent.host, { logger: deaf(context) });
    const watcher = registry.watch('orders');
    const events: string[] = [];
    for (const event of ['stale', 'fresh'] as const) watcher.on(event, () => events.push(event));
    await listsUntil(watcher, ['x']);
    await waitFor(() => agent.state.asked.some((asked) => asked.includes('index=10&')), { what: 'a blocking query' });
    agent.change(3, ['x']);
    await waitFor(() => agent.state.asked.some((asked) => asked.includes('index=3&')), { what: 'the next query' });
    agent.change(4, ['x', 'y']);
    await listsUntil(watcher, ['x', 'y']);
    expect(events).toEqual([]);
    expect(
      agent.state.asked.filter((asked) => asked.startsWith('?passing=1') && !asked.includes('index=')),
    ).toHaveLength(1);
  });

  // The first read is answered by the store, with the index of the last service that went; a held query by the agent's
  // view of this name, with a lower one.
  test('a name without instances stays fresh while others come and go at an agent that streams', async (context) => {
    const { server: agent } = await server(context, { config: { use_streaming_backend: true } });
    const path = '/v1/health/service/ghost?passing=1';
    await agent.get(`${path}&index=1&wait=1ms`); // the view
    await agent.register({ ID: 'x', Name: 'passing' });
    await agent.deregister('x');
    const registry = await client(context, agent.host, { waitMs: 1000, logger: deaf(context) });
    const watcher = registry.watch('ghost');
    const events: string[] = [];
    for (const event of ['stale', 'fresh'] as const) watcher.on(event, () => events.push(event));
    expect(await nextList(watcher)).toEqual([]);
    await quiet(3500); // three waits
    expect(events).toEqual([]);
    await agent.register({ ID: 'y', Name: 'ghost' });
    await listsUntil(watcher, ['y']);
  });

  test('an agent that answers at once, always with a new index, is not asked without pause', async (context) => {
    const agent = await stub(context);
    const registry = await client(context, agent.host);
    const watcher = registry.watch('orders');
    await nextList(watcher);
    const busy = setInterval(() => agent.change(agent.state.index + 1, ['x']), 1);
    context.onTestFinished(() => clearInterval(busy));
    await quiet(2000); // a burst, and then twenty a second
    agent.state.asked.length = 0;
    await quiet(2000);
    expect(agent.state.asked.length).toBeLessThan(60);
    expect(agent.state.asked.length).toBeGreaterThan(10);
  });

  test('the options of reads are sent: datacenter, near, filter, consistency, namespace, partition', async (context) => {
    const agent = await stub(context);
    const registry = await client(context, agent.host, {
      ...{ datacenter: 'dc 2', near: '_agent', filter: '"blue" in Service.Tags', consistency: 'stale' },
      ...{ namespace: 'ns1', partition: 'p1', passingOnly: false, lazy: true },
    });
    await registry.getService('orders');
    const asked = new URLSearchParams(agent.state.asked[0]);
    expect(Object.fromEntries(asked)).toEqual({
      ...{ dc: 'dc 2', near: '_agent', filter: '"blue" in Service.Tags', stale: '', ns: 'ns1', partition: 'p1' },
    });
  });
});

describe('many names', () => {
  test('more names than connections: each gets its first list and its changes, within the limit of the agent', async (context) => {
    const { server: agent } = await server(context);
    const registry = await client(context, agent.host, { maxWatchConnections: 10 });
    const link = await wayTo(context, agent.host);
    const counted = await client(context, link.host, { maxWatchConnections: 10 });
    const names = Array.from({ length: 300 }, (_, i) => `svc-${i}`);
    const watchers = names.map((name) => counted.watch(name));
    await within(Promise.all(watchers.map((watcher) => nextList(watcher, 30_000))), 30_000, 'the first lists');
    expect(link.open).toBeLessThan(100);
    for (const i of [0, 5, 150, 299]) {
      const name = names[i] as string;
      const registration = await registry.register({ name, id: `id-${i}` });
      const list = await nextList(watchers[i] as never, 5000);
      expect(ids(list)).toEqual([`id-${i}`]);
      await registration.update({ version: '2' }); // changes no check
      expect(await nextList(watchers[i] as never, 5000)).toMatchObject([{ version: '2' }]);
      await registration.deregister();
      expect(await nextList(watchers[i] as never, 5000)).toEqual([]);
    }
    expect(link.open).toBeLessThan(100);
  }, 90_000);
});
