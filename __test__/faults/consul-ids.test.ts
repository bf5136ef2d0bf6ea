// Whose an id is, at Consul. Ids that differ only in the case of their letters, which an agent keeps apart and its
// catalog does not: who is told "registered" must be who is found. And owners that no claim has brought together.
import type { ConsulOptions, Registry } from 'rollcall';
import { describe, expect, test } from 'vitest';
import { hear, ids, sees, waitFor } from '../conformance/kit.js';
import type { ConsulAgent, ConsulOptions as ServerOptions } from '../support/consul.js';
import { startConsul } from '../support/consul.js';
import { connected, type Finish, wayTo } from './kit.js';

/** Agents, and clients of them. */
async function consul(context: Finish, options: ServerOptions = {}) {
  const started = await startConsul(options);
  context.onTestFinished(() => started.close());
  const client = async (host = started.server.host, more: Partial<ConsulOptions> = {}): Promise<Registry> => {
    const fixed = { backend: 'consul', hosts: host, healthCheck: false, ttlMs: 3000, logger: false } as const;
    return connected(context, { ...fixed, ...more });
  };
  return { ...started, client };
}

describe.concurrent('ids that differ in case', () => {
  test.each([1, 2])('at one agent, by %i clients: the newest is found, the older hears "replaced"', async (clients) => {
    const undo: (() => unknown)[] = [];
    try {
      const { server, client } = await consul({ onTestFinished: (one) => void undo.push(one as () => unknown) });
      const first = await client();
      const second = clients === 1 ? first : await client();
      const older = await first.register({ name: 'orders', id: 'Node-1' });
      const heard = hear(older);
      const newer = await second.register({ name: 'orders', id: 'node-1' });
      await sees(await client(), 'orders', ['node-1']);
      await waitFor(() => heard.count('replaced') === 1, { what: '"replaced"' });
      expect([older.state, heard.events]).toEqual(['replaced', ['replaced']]);
      await older.deregister(); // takes nothing from the newer
      await sees(await client(), 'orders', ['node-1']);
      expect(await server.services()).toEqual(['node-1']);
      expect(newer.state).toBe('registered');
      await newer.deregister();
      await sees(await client(), 'orders', []);
    } finally {
      for (const one of undo.reverse()) await one();
    }
  });

  test('claimed in the same instant: one is left, and it is found', async (context) => {
    const { server, client } = await consul(context);
    const [a, b] = [await client(), await client()];
    for (let round = 0; round < 5; round++) {
      const both = await Promise.all([
        a.register({ name: 'orders', id: `Node-${round}` }),
        b.register({ name: 'orders', id: `node-${round}` }),
      ]);
      await waitFor(() => both.some(({ state }) => state === 'replaced'), { what: 'one to give way' });
      const left = both.find(({ state }) => state === 'registered') ?? expect.fail('both gave way');
      await sees(a, 'orders', [left.instance.id]);
      expect(await server.services()).toEqual([left.instance.id]);
      await left.deregister();
    }
  }, 60_000);

  test('one that somebody else registers, who does not look: ours gives way', async (context) => {
    const { server, client } = await consul(context);
    const registration = await (await client(server.host, { ttlMs: 1000 })).register({ name: 'orders', id: 'Node-1' });
    await server.register({ ID: 'node-1', Name: 'other' });
    await waitFor(() => registration.state === 'replaced', { timeoutMs: 20_000, what: '"replaced"' });
    await waitFor(async () => (await server.services()).join() === 'node-1', { what: 'ours to be gone' });
  }, 40_000);

  test('at two agents of one cluster they are two records, both found', async (context) => {
    const { agents, client } = await consul(context, { client: true });
    const [one, two] = await Promise.all(agents.map(({ host }) => client(host)));
    if (!one || !two) return expect.fail('two agents');
    const first = await one.register({ name: 'orders', id: 'Node-1' });
    const second = await two.register({ name: 'orders', id: 'node-1' });
    await sees(one, 'orders', ['Node-1', 'node-1']);
    await second.deregister();
    await sees(two, 'orders', ['Node-1']);
    expect(first.state).toBe('registered');
  });
});

describe.concurrent('owners that never met', () => {
  /** A registration whose process is cut off from its agent, and so as good as dead. */
  async function abandoned(context: Finish, agent: ConsulAgent, client: (host: string) => Promise<Registry>) {
    const link = await wayTo(context, agent.host);
    await (await client(link.host)).register({ name: 'orders', id: 'a', version: 'old' });
    link.setEnabled(false);
  }

  test('an agent comes back with an old disk: the record of an earlier life on it is no newer owner', async (context) => {
    const { server, client } = await consul(context, { persistent: true });
    await abandoned(context, server, client);
    await server.stop();
    const restore = server.backup();
    await server.start();
    const registration = await (await client()).register({ name: 'orders', id: 'a', version: 'new' });
    const heard = hear(registration);
    await server.kill();
    restore();
    await server.start();
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: 20_000, what: '"restored"' });
    expect(heard.events).toEqual(['lost', 'restored']);
    const [found] = await sees(await client(), 'orders', ['a']);
    expect(found?.version).toBe('new');
  }, 60_000);

  test('moving to another agent, one finds an earlier life of its id, or a newer owner', async (context) => {
    const { agents, client } = await consul(context, { client: true });
    const [first, second] = agents;
    if (!first || !second) return expect.fail('two agents');
    await abandoned(context, second, client);
    const link = await wayTo(context, first.host);
    const both = { hosts: [link.host, second.host], ttlMs: 6000 };
    const [steady, older] = [await client('', both), await client('', both)];
    const kept = await steady.register({ name: 'orders', id: 'a', version: 'new' });
    const replaced = await older.register({ name: 'orders', id: 'b' });
    const events = hear(kept).events;
    await (await client(second.host)).register({ name: 'orders', id: 'b', version: 'newer' });
    link.setEnabled(false);
    await waitFor(() => replaced.state === 'replaced', { timeoutMs: 15_000, what: '"replaced"' });
    await waitFor(
      async () => (await second.entries('orders')).some(({ Service }) => Service.Tags[0] === 'version=new'),
      {
        timeoutMs: 15_000,
        what: 'the move',
      },
    );
    expect([kept.state, events]).toEqual(['registered', []]);
    const ours = (await second.entries('orders')).find(
      ({ Service }) => Service.ID === 'b' && Service.Tags[0] !== 'version=',
    );
    expect(ours?.Service.Tags).toEqual(['version=newer']);
  }, 60_000);
});

test('an agent that was away comes back with an old record: the newer one at another agent is listed', async (context) => {
  const { agents, client } = await consul(context, { client: true });
  const [first, second] = agents;
  if (!first || !second) return expect.fail('two agents');
  const record = { name: 'orders', id: 'a', endpoints: ['grpc://127.0.0.1:9000'] };
  const link = await wayTo(context, second.host);
  // Long enough for all of the test: it passes until then, though nobody renews it any more.
  await (await client(link.host, { ttlMs: 60_000 })).register({ ...record, version: 'a-old' });
  link.setEnabled(false);
  const watcher = (await client()).watch('orders');
  await (await client(first.host)).register({ ...record, version: 'b-new' });
  await waitFor(async () => (await first.entries('orders')).length === 2, { what: 'both records' });
  for await (const [found, ...more] of watcher) {
    if (found?.version === 'b-new') {
      expect(more).toEqual([]);
      break;
    }
  }
  expect((await (await client()).getService('orders')).map(({ version }) => version)).toEqual(['b-new']);
});

test('names that differ in case are two services', async (context) => {
  const { client } = await consul(context);
  const registry = await client();
  const upper = await registry.register({ name: 'Orders', id: 'a' });
  const lower = await registry.register({ name: 'orders', id: 'b' });
  const watcher = registry.watch('Orders');
  expect(ids((await watcher.next()).value ?? [])).toEqual(['a']);
  await sees(registry, 'orders', ['b']);
  expect(await registry.services()).toEqual(['Orders', 'orders']);
  await upper.deregister();
  expect(ids((await watcher.next()).value ?? ['?'])).toEqual([]);
  await sees(registry, 'orders', ['b']);
  expect(lower.state).toBe('registered');
});
