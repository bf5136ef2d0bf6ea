// Callers over HTTP under load: servers in processes of their own, on a real etcd and a real Consul. They are restarted, killed
// and frozen.
import { fileURLToPath } from 'node:url';
import {
  connect,
  type RegistryOptions,
  type ServiceCache,
  type ServiceOptions,
  type ServiceRequestInit,
} from 'rollcall';
import { expect, test } from 'vitest';
import { type Finish, server } from '../faults/kit.js';
import { startConsul } from '../support/consul.js';
import { runScript, type Script, waitFor } from '../support/process.js';

/** How long etcd is away; one minute in `make hard`. */
const OUTAGE_MS = Number(process.env.OUTAGE_MS ?? 5000);

/** How often two instances are frozen, one after the other; 10 times in `make hard`. */
const FREEZES = Number(process.env.FREEZES ?? 1);

const program = fileURLToPath(new URL('fixtures/server.mjs', import.meta.url));

async function instance({ onTestFinished }: Finish, registry: RegistryOptions, id: string): Promise<Script> {
  const script = runScript(program, [JSON.stringify({ registry, id })]);
  onTestFinished(() => script.kill('SIGKILL'));
  await script.line(({ event }) => event === 'registered');
  return script;
}

/** Calls one after another, by so many callers, until `stop()`. */
function load(orders: ServiceCache, callers: number, init: ServiceRequestInit) {
  const answered = new Map<string, number>();
  const failures: { code?: string; message: string }[] = [];
  let [calls, inFlight, over] = [0, 0, false];
  const caller = async () => {
    while (!over) {
      inFlight++;
      try {
        const id = await (await orders.fetch('/orders/7', init)).text();
        answered.set(id, (answered.get(id) ?? 0) + 1);
      } catch (error) {
        failures.push(error as Error);
      }
      inFlight--;
      calls++;
    }
  };
  const all = Promise.all(Array.from({ length: callers }, caller));
  const stop = async () => {
    over = true;
    await all;
  };
  return { answered, failures, stop, calls: () => calls, inFlight: () => inFlight };
}

/** Waits until so many more calls were made. */
async function more(loads: readonly { calls(): number }[], calls: number): Promise<void> {
  for (const { calls: made } of loads) {
    const goal = made() + calls;
    await waitFor(() => made() >= goal, { timeoutMs: 30_000, what: `${calls} more calls` });
  }
}

/** Servers of each registry, and how it is opened. */
const registries = {
  async etcd(context: Finish) {
    const etcd = await server(context, {});
    return { etcd, how: { backend: 'etcd', hosts: [...etcd.hosts], ttlMs: 3000, logger: false } as RegistryOptions };
  },
  async Consul({ onTestFinished }: Finish) {
    const consul = await startConsul();
    onTestFinished(() => consul.close());
    const hosts = consul.server.host;
    return { how: { backend: 'consul', hosts, healthCheck: false, ttlMs: 3000, logger: false } as RegistryOptions };
  },
};
const backends = Object.keys(registries) as (keyof typeof registries)[];

async function fleetOn(context: Finish, how: RegistryOptions, options: ServiceOptions = {}, ids = ['a', 'b', 'c']) {
  const servers = await Promise.all(ids.map((id) => instance(context, how, id)));
  const registry = await connect(how);
  context.onTestFinished(() => registry.close());
  const orders = registry.service('orders', { allowLocal: true, ...options });
  await orders.ready({ min: ids.length });
  return { servers, orders };
}

async function fleet(context: Finish, options?: ServiceOptions, ids?: string[]) {
  const { etcd, how } = await registries.etcd(context);
  return { etcd, ...(await fleetOn(context, how, options, ids)) };
}

/** What each test of a table finishes with. */
async function finishing(run: (context: Finish) => Promise<void>): Promise<void> {
  const finishes: (() => unknown)[] = [];
  try {
    await run({ onTestFinished: (finish) => void finishes.push(finish as () => unknown) });
  } finally {
    for (const finish of finishes.reverse()) await finish();
  }
}

const POST: ServiceRequestInit = { method: 'POST', body: 'order' };

test.each(backends)(
  '%s: a rolling restart of three instances fails no call',
  {
    timeout: 120_000,
  },
  async (backend) => {
    await finishing(async (context) => {
      const { how } = await registries[backend](context);
      const { servers, orders } = await fleetOn(context, how);
      const loads = [load(orders, 12, {}), load(orders, 12, POST)];
      await more(loads, 100);
      for (const [n, old] of servers.entries()) {
        old.kill('SIGTERM');
        expect((await old.exit).code).toBe(0);
        await instance(context, how, `new-${n}`);
        const [gets] = loads;
        await waitFor(() => gets?.answered.has(`new-${n}`), { timeoutMs: 30_000, what: `calls to new-${n}` });
        await more(loads, 100);
      }
      for (const { stop } of loads) await stop();
      expect(loads.map(({ failures }) => failures)).toEqual([[], []]);
      expect(orders.instances.map(({ id }) => id).sort()).toEqual(['new-0', 'new-1', 'new-2']);
      expect(orders.metrics().inFlight).toBe(0);
    });
  },
);

test.each(backends)(
  '%s: an instance that is killed costs no GET, and of POSTs no more than were in flight',
  {
    timeout: 120_000,
  },
  async (backend) => {
    await finishing(async (context) => {
      const { how } = await registries[backend](context);
      const { servers, orders } = await fleetOn(context, how);
      const [gets, posts] = [load(orders, 12, {}), load(orders, 12, POST)];
      await more([gets, posts], 100);
      const inFlight = posts.inFlight();
      servers[0]?.kill('SIGKILL');
      await servers[0]?.exit;
      await more([gets, posts], 500);
      await waitFor(() => orders.instances.length === 2, { timeoutMs: 30_000, what: 'its lease to end' });
      for (const { stop } of [gets, posts]) await stop();
      expect(gets.failures).toEqual([]);
      expect(posts.failures.length).toBeLessThanOrEqual(inFlight);
      for (const error of posts.failures) expect(error).toMatchObject({ code: 'ERR_UNAVAILABLE', retryable: false });
    });
  },
);

test('an instance that is frozen is set aside within five failures and those in flight, and comes back', {
  timeout: 120_000,
}, async (context) => {
  const { servers, orders } = await fleet(context, {
    http: { perTryTimeoutMs: 1000 },
    outlier: { baseEjectionMs: 4000 },
  });
  const [gets, posts] = [load(orders, 6, {}), load(orders, 6, POST)];
  await more([gets, posts], 100);
  const told: string[] = [];
  orders
    .on('ejected', ({ instance: { id }, reason }) => told.push(`${id} ${reason}`))
    .on('restored', ({ id }) => told.push(`${id} is back`));
  const { retries } = orders.metrics();
  servers[0]?.kill('SIGSTOP');
  await waitFor(() => told.length > 0, { timeoutMs: 30_000, what: 'it to be set aside' });
  expect(told).toEqual(['a failures']);
  await more([gets, posts], 100); // those in flight are over
  // Each failure is a POST that failed, or a GET that was tried again.
  const failures = posts.failures.length + orders.metrics().retries - retries;
  expect(failures).toBeGreaterThanOrEqual(5);
  expect(failures).toBeLessThanOrEqual(5 + 12);
  servers[0]?.kill('SIGCONT');
  await waitFor(() => told.includes('a is back'), { timeoutMs: 60_000, what: 'it to come back' });
  const known = gets.answered.get('a') ?? 0;
  await waitFor(() => (gets.answered.get('a') ?? 0) > known + 10, { timeoutMs: 30_000, what: 'calls to it' });
  for (const { stop } of [gets, posts]) await stop();
  expect(gets.failures).toEqual([]);
  for (const error of posts.failures) expect(error).toMatchObject({ code: 'ERR_TIMEOUT' });
});

test('another one that is frozen while the first is set aside costs no more than the first did', {
  timeout: 60_000 + 60_000 * FREEZES,
}, async (context) => {
  const how: ServiceOptions = {
    http: { perTryTimeoutMs: 1000 },
    outlier: { baseEjectionMs: 3000, maxEjectionMs: 3000 }, // the same each time
  };
  const { servers, orders } = await fleet(context, how, ['a', 'b', 'c', 'd']);
  const [gets, posts] = [load(orders, 6, {}), load(orders, 6, POST)];
  await more([gets, posts], 100);
  const out = new Set<string>();
  orders.on('ejected', ({ instance: { id } }) => out.add(id)).on('restored', ({ id }) => out.delete(id));
  const failures = () => posts.failures.length + orders.metrics().retries;
  for (let turn = 0; turn < FREEZES; turn++) {
    const [first, second] = [turn % 4, (turn + 1) % 4];
    for (const [n, aside] of [[first, 1] as const, [second, 2] as const]) {
      const before = failures();
      servers[n]?.kill('SIGSTOP');
      await waitFor(() => out.size === aside, { timeoutMs: 30_000, what: `${aside} to be set aside` });
      await more([gets, posts], 100); // those in flight are over
      // Beside the five and those in flight the one call that tries the first again, should its time be over.
      expect(failures() - before).toBeLessThanOrEqual(5 + 12 + (aside - 1));
    }
    servers[first]?.kill('SIGCONT');
    await waitFor(() => !out.has('abcd'[first] as string), { timeoutMs: 30_000, what: 'the first to come back' });
    servers[second]?.kill('SIGCONT');
    await waitFor(() => out.size === 0, { timeoutMs: 30_000, what: 'both to be back' });
  }
  for (const { stop } of [gets, posts]) await stop();
  expect(gets.failures).toEqual([]);
  for (const error of posts.failures) expect(error).toMatchObject({ code: 'ERR_TIMEOUT' });
  expect(orders.metrics().inFlight).toBe(0);
});

test('an outage of etcd costs no call', {
  timeout: 120_000 + 2 * OUTAGE_MS,
}, async (context) => {
  const { etcd, orders } = await fleet(context);
  const loads = [load(orders, 6, {}), load(orders, 6, POST)];
  await more(loads, 50);
  await etcd.kill();
  const until = Date.now() + OUTAGE_MS;
  await waitFor(() => orders.stale && Date.now() >= until, { timeoutMs: OUTAGE_MS + 30_000, what: 'the outage' });
  await more(loads, 50);
  await etcd.start();
  await waitFor(() => orders.state === 'live' && orders.instances.length === 3, {
    timeoutMs: 30_000,
    what: 'the list to be fresh',
  });
  await more(loads, 100);
  for (const { stop } of loads) await stop();
  expect(loads.map(({ failures }) => failures)).toEqual([[], []]);
});
