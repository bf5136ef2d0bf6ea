// Agents of Consul under load: servers that are slow behind them, and what is left at an agent.
import type { IncomingMessage } from 'node:http';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { ConsulOptions, Registry } from 'rollcall';
import { connect } from 'rollcall';
import { describe, expect, test } from 'vitest';
import { hear, listsUntil, quiet } from '../conformance/kit.js';
import type { Consul, ConsulAgent, ConsulOptions as ServerOptions } from '../support/consul.js';
import { startConsul } from '../support/consul.js';
import type { Finish } from './kit.js';

async function server({ onTestFinished }: Finish, options: ServerOptions = {}): Promise<Consul> {
  const consul = await startConsul(options);
  onTestFinished(() => consul.close());
  return consul;
}

async function client({ onTestFinished }: Finish, hosts: string, more: Partial<ConsulOptions> = {}): Promise<Registry> {
  const registry = await connect({
    backend: 'consul',
    hosts,
    healthCheck: false, // nobody listens on the endpoints
    logger: false,
    ...more,
  });
  onTestFinished(() => registry.close({ timeoutMs: 1000 }).catch(() => undefined));
  return registry;
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

/** How many lists an agent keeps up to date for those who asked for one, as its goroutines tell. */
async function views(agent: ConsulAgent): Promise<number> {
  const { text } = await agent.ask('GET', '/debug/pprof/goroutine?debug=1');
  const groups = text.split('\n\n').filter((group) => group.includes('submatview.(*RPCMaterializer).Run'));
  return groups.reduce((sum, group) => sum + Number.parseInt(group, 10), 0);
}

describe.concurrent('an agent of Consul', () => {
  test('its servers are slow: registrations that wait for them cost no instance and no watch', async (context) => {
    const { server: agent } = await server(context);
    const slow = await slowServers(context, agent.host);
    const registry = await client(context, slow.host, { ttlMs: 4000 });
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
    await quiet(14_000); // more than three times the time to live, and twice what it takes to believe an agent gone
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
