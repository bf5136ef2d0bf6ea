// An agent of Consul that is away when an instance which it holds leaves by way of another agent, and comes back later: it
// tells the catalog again what it has, and must have it taken away.
import type { Registration } from 'rollcall';
import { describe, expect, test } from 'vitest';
import { quiet, sees, waitFor } from '../conformance/kit.js';
import type { ConsulAgent, ConsulEntry } from '../support/consul.js';
import { startConsul } from '../support/consul.js';
import { connected, type Finish } from './kit.js';

const ttlMs = 3000;
const instance = { name: 'orders', id: 'a', version: '1', endpoints: ['grpc://10.1.2.3:9000'] };
/** A server that joins makes an agent compare anew after this time at most (`serverUpIntv` of agent/ae/ae.go in Consul 1.22). */
const joinedMs = 3000;

/** An instance at the first of two agents, of which none leads. */
async function scene(context: Finish) {
  const consul = await startConsul({ servers: 3, config: { log_level: 'debug' } });
  context.onTestFinished(() => consul.close());
  const leader = await consul.leader();
  const [first, second] = consul.agents.filter((agent) => agent !== leader);
  if (!first || !second) return expect.fail('two agents beside the leader');
  const options = { backend: 'consul', healthCheck: false, ttlMs, logger: false } as const;
  const registry = await connected(context, { ...options, hosts: [first.host, second.host] });
  const registration = await registry.register(instance);
  await synchronized(first);
  return { first, second, registry, registration };
}

/**
 * Waits until the agent has compared all that it has with the catalog, which it does every minute or two. One for which that
 * falls due while it is stopped tells of its check as it knew it, before it looks at its clock: no client can help that.
 */
async function synchronized(agent: ConsulAgent): Promise<void> {
  const done = () => agent.log.includes('Skipping remote check since it is managed automatically');
  await waitFor(done, { timeoutMs: 45_000, what: 'a full synchronization' });
  await quiet(joinedMs + 500);
}

/** Away for longer than the TTL, so that the instance moves. Gives the way back. */
async function leave(first: ConsulAgent, second: ConsulAgent, how: 'stopped' | 'killed'): Promise<() => Promise<void>> {
  if (how === 'stopped') first.freeze();
  else await first.kill();
  await waitFor(async () => (await second.services()).includes('a'), { timeoutMs: 10_000, what: 'the move' });
  await quiet(ttlMs + 500);
  return async () => {
    if (how === 'stopped') first.thaw();
    else await first.start();
  };
}

/** Takes it out while the first agent is away, and reads all the time from when that comes back until it has nothing of it. */
async function nobodySees(
  context: Finish,
  how: 'stopped' | 'killed',
  out: (registration: Registration) => Promise<void>,
) {
  const { first, second, registry, registration } = await scene(context);
  const comesBack = await leave(first, second, how);
  await out(registration);
  const seen: string[] = [];
  const read = async () => {
    const passing = await second.get<ConsulEntry[]>('/v1/health/service/orders?passing&consistent');
    seen.push(...passing.map(({ Node }) => Node.Node));
  };
  await read();
  let isBack = false;
  const back = comesBack().then(() => {
    isBack = true;
  });
  const isRid = async () => {
    await read();
    return isBack && (await first.services()).length === 0;
  };
  await waitFor(isRid, { timeoutMs: 30_000, intervalMs: 1, what: 'the agent to be rid of it' });
  await back;
  const isGone = async () => {
    await read();
    return (await second.entries('orders')).length === 0;
  };
  await waitFor(isGone, { timeoutMs: 45_000, intervalMs: 1, what: 'the catalog to be rid of it' });
  expect(seen).toEqual([]);
  return { registry, registration };
}

describe('an agent that was away when an instance left shows nothing of it, and has it no more:', () => {
  test('one that was stopped, of an instance out of traffic', async (context) => {
    const { registry, registration } = await nobodySees(context, 'stopped', (registration) =>
      registration.withdraw('withdrawn', { timeoutMs: 30_000 }),
    );
    await registration.restore();
    await sees(registry, 'orders', ['a']);
  }, 180_000);

  test('one that was killed, of an instance that has deregistered', async (context) => {
    const { registry } = await nobodySees(context, 'killed', (registration) =>
      registration.deregister({ timeoutMs: 30_000 }),
    );
    await sees(registry, 'orders', []);
  }, 180_000);
});
