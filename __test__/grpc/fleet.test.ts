// Callers over gRPC under load: servers in processes of their own, one of them in Go on Kratos, on a real etcd and a real
// Consul. They are restarted, killed and frozen.
import { fileURLToPath } from 'node:url';
import type { Registry, RegistryOptions } from 'rollcall';
import { connect } from 'rollcall';
import type { GrpcOptions } from 'rollcall/grpc';
import { beforeAll, expect, test } from 'vitest';
import { server } from '../faults/kit.js';
import { startConsul } from '../support/consul.js';
import { runProgram, runScript, type Script, waitFor } from '../support/process.js';
import { builtProgram } from '../support/programs.js';
import { type Caller, dial, type Finish, type Outcome, project } from './kit.js';

/** How long etcd is away; one minute in `make hard`. */
const OUTAGE_MS = Number(process.env.OUTAGE_MS ?? 4000);

const program = fileURLToPath(new URL('fixtures/server.mjs', import.meta.url));
let folder: string;
beforeAll(async () => {
  folder = await project();
}, 300_000);

type Kind = 'node' | 'go';

async function started({ onTestFinished }: Finish, script: Script): Promise<Script> {
  onTestFinished(() => script.kill('SIGKILL'));
  await script.line(({ event }) => event === 'registered');
  return script;
}

/** A server in a process of its own, on one of two registries. */
function instance(context: Finish, options: RegistryOptions, kind: Kind, id: string): Promise<Script> {
  if (kind === 'node') {
    return started(context, runScript(program, [JSON.stringify({ registry: options, id, project: folder })]));
  }
  const host = String((options as { hosts?: unknown }).hosts);
  const where =
    options.backend === 'consul' ? ['--consul', host, '--interval', '1500ms', '--health=false'] : ['--endpoints', host];
  return started(context, runProgram(builtProgram('peer'), [...where, '--ttl', '3s', '--serve', id]));
}

/** Calls one after another, by so many callers, until `stop()`. */
function load({ call }: Caller, callers: number, timeoutMs: number) {
  const answered = new Map<string, number>();
  const failures: Outcome[] = [];
  let [calls, inFlight, over] = [0, 0, false];
  const caller = async () => {
    while (!over) {
      inFlight++;
      const outcome = await call({ deadline: Date.now() + timeoutMs });
      if (outcome.code === 0) answered.set(outcome.from ?? '', (answered.get(outcome.from ?? '') ?? 0) + 1);
      else failures.push(outcome);
      inFlight--;
      calls++;
    }
  };
  const all = Promise.all(Array.from({ length: callers }, caller));
  const more = async (count: number) => {
    const goal = calls + count;
    await waitFor(() => calls >= goal, { timeoutMs: 60_000, what: `${count} more calls` });
  };
  const heardOf = (id: string) =>
    waitFor(() => answered.has(id), { timeoutMs: 30_000, what: `calls to ${id}`, intervalMs: 5 });
  const stop = async () => {
    over = true;
    await all;
  };
  return { answered, failures, more, heardOf, stop, inFlight: () => inFlight };
}

const etcdOptions = (hosts: readonly string[]): RegistryOptions => ({
  backend: 'etcd',
  hosts: [...hosts],
  ttlMs: 3000,
  timeoutMs: 2000, // for who leaves while etcd is away
  logger: false,
});

async function fleet(context: Finish, options: RegistryOptions, how: GrpcOptions = {}) {
  const kinds: Kind[] = ['node', 'node', 'go'];
  const servers = await Promise.all(kinds.map((kind, n) => instance(context, options, kind, `old-${n}`)));
  const registry = await connect(options);
  context.onTestFinished(() => registry.close({ timeoutMs: 1000 }).catch(() => undefined));
  const orders = await dial(context, 14, registry, { allowLocal: true, ...how });
  await orders.reaches(['old-0', 'old-1', 'old-2']);
  return { servers, registry, orders, kinds };
}

const told = (registry: Registry) => registry.metrics().services.orders;

async function rollingRestart(context: Finish, options: RegistryOptions): Promise<void> {
  const { servers, registry, orders, kinds } = await fleet(context, options);
  const calls = load(orders, 12, 20_000);
  await calls.more(100);
  for (const [n, old] of servers.entries()) {
    old.kill('SIGTERM');
    expect((await old.exit).code).toBe(0);
    await instance(context, options, kinds[n] as Kind, `new-${n}`);
    await calls.heardOf(`new-${n}`);
    await calls.more(100);
  }
  await calls.stop();
  expect(calls.failures).toEqual([]);
  expect(told(registry)).toMatchObject({ inFlight: 0 });
  await orders.reaches(['new-0', 'new-1', 'new-2']);
}

test('etcd: a rolling restart of two servers in Node and one in Go fails no call', {
  timeout: 120_000,
}, async (context) => {
  const etcd = await server(context, {});
  await rollingRestart(context, etcdOptions(etcd.hosts));
});

test('Consul: a rolling restart of two servers in Node and one in Go fails no call', {
  timeout: 120_000,
}, async (context) => {
  const consul = await startConsul();
  context.onTestFinished(() => consul.close());
  const options = { backend: 'consul', hosts: consul.server.host, healthCheck: false, ttlMs: 3000, logger: false };
  await rollingRestart(context, options as RegistryOptions);
});

test('a server that is killed costs no more than the calls in flight', { timeout: 120_000 }, async (context) => {
  const etcd = await server(context, {});
  const { servers, orders } = await fleet(context, etcdOptions(etcd.hosts));
  const calls = load(orders, 12, 20_000);
  await calls.more(100);
  for (const [n, killed] of [servers[0], servers[2]].entries()) {
    const failed = calls.failures.length;
    killed?.kill('SIGKILL');
    await killed?.exit;
    await calls.more(300);
    // Each caller has one call, and may have had it there.
    expect(calls.failures.length - failed).toBeLessThanOrEqual(12);
    for (const { code } of calls.failures) expect([1, 14]).toContain(code);
    if (n === 0) await calls.more(100);
  }
  await calls.stop();
  await orders.reaches(['old-1']);
});

test('a server that is frozen is set aside within five failures and those in flight, and comes back', {
  timeout: 120_000,
}, async (context) => {
  const etcd = await server(context, {});
  const { servers, registry, orders } = await fleet(context, etcdOptions(etcd.hosts), {
    outlier: { baseEjectionMs: 2000 },
  });
  const calls = load(orders, 12, 2000);
  await calls.more(100);
  const before = calls.failures.length;
  servers[0]?.kill('SIGSTOP');
  await waitFor(() => told(registry)?.ejections === 1, { timeoutMs: 30_000, what: 'it to be set aside' });
  await calls.more(200); // those in flight are over
  expect(calls.failures.length - before).toBeGreaterThanOrEqual(5);
  expect(calls.failures.length - before).toBeLessThanOrEqual(5 + 12);
  servers[0]?.kill('SIGCONT');
  const known = calls.answered.get('old-0') ?? 0;
  await waitFor(() => (calls.answered.get('old-0') ?? 0) > known + 20, { timeoutMs: 60_000, what: 'calls to it' });
  const failed = calls.failures.length;
  await calls.more(200);
  await calls.stop();
  expect(calls.failures.length).toBe(failed);
  for (const { code } of calls.failures) expect(code).toBe(4);
});

test('an outage of etcd under load costs no call, nor does a server that moves meanwhile', {
  timeout: 120_000 + 2 * OUTAGE_MS,
}, async (context) => {
  const etcd = await server(context, {});
  const options = etcdOptions(etcd.hosts);
  const { servers, registry, orders } = await fleet(context, options);
  const watched = registry.service('orders', { allowLocal: true });
  const calls = load(orders, 12, 20_000);
  await calls.more(50);
  await etcd.kill();
  const until = Date.now() + OUTAGE_MS;
  servers[1]?.kill('SIGTERM'); // it can't say that it leaves, and goes all the same
  expect((await servers[1]?.exit)?.code).toBe(0);
  const moved = runScript(program, [
    JSON.stringify({ registry: { ...options, lazy: true }, id: 'moved', project: folder }),
  ]);
  context.onTestFinished(() => moved.kill('SIGKILL'));
  await waitFor(() => watched.stale && Date.now() >= until, { timeoutMs: OUTAGE_MS + 30_000, what: 'the outage' });
  await calls.more(50);
  await etcd.start();
  await calls.heardOf('moved');
  await waitFor(() => watched.state === 'live', { timeoutMs: 30_000, what: 'the list to be fresh' });
  await calls.more(100);
  await calls.stop();
  expect(calls.failures).toEqual([]);
});
