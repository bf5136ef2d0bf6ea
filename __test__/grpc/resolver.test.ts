// Names that are dialled by every line of grpc-js: lists, faults, policies and what a channel is told.
import { readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { connect } from 'rollcall';
import { grpcClient, registerResolver } from 'rollcall/grpc';
import { beforeAll, describe, expect, test } from 'vitest';
import { uniqueName, waitFor } from '../support/process.js';
import { makeCertificates } from '../support/tls.js';
import { callerOf, counts, dial, LINES, load, memory, ORDERS, ordersServer, project } from './kit.js';

beforeAll(async () => void (await project()), 300_000);

const config = (policy: string, how: object = {}) => ({
  'grpc.service_config': JSON.stringify({ loadBalancingConfig: [{ [policy]: how }] }),
});
const POLICIES = ['rollcall_p2c', 'round_robin', 'pick_first'];
/** Of metadata, under which connections stay: 1,000 in `make hard`. */
const CHANGES = Number(process.env.CHANGES ?? 200);
const NAMES = Number(process.env.NAMES ?? 300);
/** For how long shares are counted at least: 10 s in `make hard`. */
const SHARE_MS = Number(process.env.SHARE_MS ?? 3000);
const UNAVAILABLE = 14;

describe.each(LINES)('grpc-js 1.%d', (line) => {
  test('calls are spread, and a change of the list reaches them', async (context) => {
    const { registry, add } = await memory(context);
    const a = await ordersServer(context, 'a');
    const b = await ordersServer(context, 'b');
    const c = await ordersServer(context, 'c');
    const [first] = await Promise.all([add(a), add(b)]);
    const orders = await dial(context, line, registry);
    await orders.reaches(['a', 'b']);
    await add(c);
    await orders.reaches(['a', 'b', 'c']);
    await first.deregister();
    await orders.reaches(['b', 'c']);
    expect(registry.metrics().services.orders).toMatchObject({ inFlight: 0, ejections: 0 });
  });

  test.each(POLICIES)('%s: no list, an empty one, a list, an empty one, a list', async (policy) => {
    await fates(line, policy);
  });

  test('a burst in one turn falls on all alike, and the connections stay through changes of metadata', async (context) => {
    const { registry, add } = await memory(context);
    const servers = await Promise.all(['a', 'b', 'c'].map((id) => ordersServer(context, id)));
    const registrations = await Promise.all(servers.map((server) => add(server)));
    // Calls under way alone decide: with a high floor latencies, which are chance here, don't count.
    const channel = config('rollcall_p2c', { floorMs: 600_000 });
    const orders = await dial(context, line, registry, { channel });
    await orders.reaches(['a', 'b', 'c']);
    const answered = counts(await Promise.all(Array.from({ length: 1000 }, () => orders.call())));
    for (const count of Object.values(answered)) expect(count).toSatisfy((n: number) => n >= 200 && n <= 460);
    expect(Object.keys(answered).sort()).toEqual(['a', 'b', 'c']);
    for (let change = 0; change < CHANGES; change++) {
      const metadata = { weight: `${1 + (change % 90)}`, zone: `z${change % 3}` };
      await registrations[change % 3]?.update({ metadata });
      if (change % 50 === 0) expect(await orders.call()).toMatchObject({ code: 0 });
    }
    await orders.reaches(['a', 'b', 'c']);
    expect(servers.map(({ connections }) => connections)).toEqual([1, 1, 1]);
  });

  test('calls that the caller cancels leave nothing behind, and set nobody aside', async (context) => {
    const { registry, add } = await memory(context);
    const servers = await Promise.all(['a', 'b', 'c'].map((id) => ordersServer(context, id)));
    await Promise.all(servers.map((server) => add(server)));
    const orders = await dial(context, line, registry);
    await orders.reaches(['a', 'b', 'c']);
    const grpc = await load(line);
    let over = 0;
    for (let n = 0; n < 600; n++) {
      const call = orders.client.get('7', new grpc.Metadata(), {}, () => over++);
      if (n % 4 === 0)
        call.cancel(); // before it is picked
      else if (n % 4 === 1) setImmediate(() => call.cancel()); // while it is under way
    }
    await waitFor(() => over === 600, { what: 'all calls to end' });
    expect(registry.metrics().services.orders).toMatchObject({ inFlight: 0, ejections: 0 });
  });

  test('an idle channel comes back while the registry is away', async (context) => {
    const { registry, faults, add } = await memory(context);
    await add(await ordersServer(context, 'a'));
    const orders = await dial(context, line, registry, { channel: { 'grpc.client_idle_timeout_ms': 1000 } });
    await orders.reaches(['a']);
    const channel = orders.client.getChannel();
    await waitFor(() => channel.getConnectivityState(false) === 0, { what: 'the channel to be idle' });
    faults.setAway(true);
    expect(await orders.call()).toMatchObject({ from: 'a' });
  });

  test('who fails five times in a row is set aside, and tried again', async (context) => {
    const { registry, add } = await memory(context);
    const servers = await Promise.all(['a', 'b'].map((id) => ordersServer(context, id)));
    await Promise.all(servers.map((server) => add(server)));
    const orders = await dial(context, line, registry, { outlier: { baseEjectionMs: 300 } });
    await orders.reaches(['a', 'b']);
    const [a] = servers;
    if (a) a.failures = Array(10_000).fill(UNAVAILABLE);
    const outcomes = [];
    while (registry.metrics().services.orders?.ejections === 0) outcomes.push(await orders.call());
    expect(counts(outcomes)['from a']).toBeGreaterThanOrEqual(5); // more where the loop is blocked: those count for nothing
    if (a) a.failures = [];
    await orders.reaches(['a', 'b']);
  });
});

test('one whose first call was slow has a fair share afterwards', {
  timeout: 60_000 + SHARE_MS,
}, async (context) => {
  const { registry, add } = await memory(context);
  const servers = await Promise.all(['a', 'b', 'c'].map((id) => ordersServer(context, id)));
  const [slow] = servers;
  if (slow) slow.delays = [500]; // all others take a few milliseconds at most
  await Promise.all(servers.map((server) => add(server)));
  const orders = await dial(context, 14, registry);
  const counted: Record<string, number> = {};
  const total = () => Object.values(counted).reduce((sum, count) => sum + count, 0);
  let [isCounting, over] = [false, false];
  const caller = async () => {
    for (; !over; await new Promise((resolve) => setTimeout(resolve, 2))) {
      const { from = '', code } = await orders.call();
      expect(code).toBe(0);
      if (from === 'a') isCounting = true;
      if (isCounting) counted[from] = (counted[from] ?? 0) + 1;
    }
  };
  const callers = Promise.all(Array.from({ length: 6 }, caller));
  await waitFor(() => isCounting, { what: 'the slow call to end' });
  const until = Date.now() + SHARE_MS;
  const enough = () => Date.now() >= until && total() >= 900;
  await waitFor(enough, { timeoutMs: SHARE_MS + 45_000, what: 'the calls that are counted' });
  over = true;
  await callers;
  const shares = servers.map(({ id }) => ((counted[id] ?? 0) / total()) * 3);
  for (const share of shares) expect(share, `shares ${shares}`).toSatisfy((n: number) => n > 0.75 && n < 1.25);
});

/** What a list may do to a channel, with one policy. */
async function fates(line: (typeof LINES)[number], policy: string): Promise<void> {
  const context = { finishes: [] as (() => unknown)[], onTestFinished: (f: () => unknown) => context.finishes.push(f) };
  try {
    const { registry, faults, add } = await memory(context);
    const server = await ordersServer(context, 'a');
    faults.setAway(true);
    const orders = await dial(context, line, registry, { firstListTimeoutMs: 200, channel: config(policy) });
    const patient = orders.call({ waitForReady: true });
    expect(await orders.call()).toMatchObject({
      code: UNAVAILABLE,
      details: expect.stringContaining('no list of orders within 200 ms'),
    });
    faults.setAway(false);
    const none = expect.stringContaining('no instance of orders: the registry has none');
    const empty = { timeoutMs: 20_000, what: 'the empty list' };
    await waitFor(async () => (await orders.call()).details.includes('the registry has none'), empty);
    expect(await orders.call()).toMatchObject({ code: UNAVAILABLE, details: none });
    const registration = await add(server);
    expect(await patient).toMatchObject({ from: 'a' });
    await orders.reaches(['a']);
    await registration.deregister();
    if (policy.startsWith('rollcall_')) {
      await waitFor(async () => (await orders.call()).code === UNAVAILABLE, empty);
      expect(await orders.call()).toMatchObject({ details: none });
    }
    const other = await ordersServer(context, 'b');
    await add(other);
    await orders.reaches(['b']);
  } finally {
    for (const finish of context.finishes.reverse()) await finish();
  }
}

test('two copies of grpc-js side by side, and a second registry by its authority', async (context) => {
  const [one, other] = await Promise.all([memory(context), memory(context)]);
  await one.add(await ordersServer(context, 'a'));
  await other.add(await ordersServer(context, 'b'));
  const grpcs = [await load(12), await load(14)];
  const registrations = [
    registerResolver(one.registry, { grpc: grpcs }),
    registerResolver(other.registry, { grpc: grpcs, authority: 'eu' }),
  ];
  for (const grpc of grpcs) {
    const Client = grpc.makeGenericClientConstructor(ORDERS, 'Orders');
    const clients = ['discovery:///orders', 'discovery://eu/orders'].map(
      (target) => new Client(target, grpc.credentials.createInsecure()),
    );
    const froms = await Promise.all(clients.map(async (client) => (await callerOf(grpc, client).call()).from));
    expect(froms).toEqual(['a', 'b']);
    for (const client of clients) client.close();
    expect(() => new Client('discovery://us/orders', grpc.credentials.createInsecure())).toThrow(
      'no registry answers for discovery://us/orders: known: discovery:///, discovery://eu/',
    );
  }
  const again = () => registerResolver(one.registry, { grpc: grpcs[1], authority: 'eu' });
  expect(again).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', operation: 'registerResolver' }));
  for (const { unregister } of registrations) unregister();
  again().unregister();
});

test('grpcClient(): one line, and options of its own', async (context) => {
  const { registry, add } = await memory(context);
  await add(await ordersServer(context, 'a'), { metadata: { tier: 'gold' } });
  await add(await ordersServer(context, 'b'));
  const grpc = await load(14);
  const Client = grpc.makeGenericClientConstructor(ORDERS, 'Orders');
  const all = grpcClient(registry, Client, 'orders', { grpc });
  const gold = grpcClient(registry, Client, 'orders', {
    grpc,
    filters: [
      Object.assign((list: readonly { instance: { metadata: object } }[]) =>
        list.filter(({ instance }) => 'tier' in instance.metadata),
      ) as never,
    ],
  });
  context.onTestFinished(() => {
    all.close();
    gold.close();
  });
  await callerOf(grpc, all).reaches(['a', 'b']);
  await callerOf(grpc, gold).reaches(['a']);
});

test('the header of a call decides, with rollcall_hash', async (context) => {
  const { registry, add } = await memory(context);
  for (const id of ['a', 'b', 'c']) await add(await ordersServer(context, id));
  const orders = await dial(context, 14, registry, { policy: 'rollcall_hash', hashHeader: 'x-user' });
  await orders.reaches(['a', 'b', 'c']);
  const reached = new Set<string | undefined>();
  for (let user = 0; user < 20; user++) {
    const calls = [];
    for (let n = 0; n < 5; n++) calls.push(await orders.call({ headers: { 'x-user': `u${user}` } }));
    expect(new Set(calls.map(({ from }) => from)).size).toBe(1);
    reached.add(calls[0]?.from);
  }
  expect(reached.size).toBe(3);
});

test('what the channel is configured with counts: timeouts and retries of methods beside our policy', async (context) => {
  const { registry, add } = await memory(context);
  const server = await ordersServer(context, 'a');
  await add(server);
  const methodConfig = (more: object) => ({
    channel: { 'grpc.service_config': JSON.stringify({ methodConfig: [{ name: [{}], ...more }] }) },
  });
  for (const line of LINES) {
    const slow = await dial(context, line, registry, methodConfig({ timeout: '0.15s' }));
    await slow.reaches(['a']);
    server.delays = [5000];
    const started = Date.now();
    expect(await slow.call()).toMatchObject({ code: 4 });
    expect(Date.now() - started).toBeLessThan(4000);
  }
  const retried = await dial(context, 14, registry, {
    ...methodConfig({
      retryPolicy: {
        maxAttempts: 3,
        initialBackoff: '0.01s',
        maxBackoff: '0.01s',
        backoffMultiplier: 1,
        retryableStatusCodes: ['UNAVAILABLE'],
      },
    }),
  });
  await retried.reaches(['a']);
  server.failures = [UNAVAILABLE, UNAVAILABLE];
  const { calls } = server;
  expect(await retried.call()).toMatchObject({ from: 'a' });
  expect(server.calls - calls).toBe(3);
});

test('TLS proves the name of the service, or what the instance or the program says', async (context) => {
  const { registry } = await memory(context);
  const certificates = await makeCertificates(); // for localhost
  context.onTestFinished(() => certificates.remove());
  const roots = readFileSync(certificates.ca.certFile);
  const servers = [];
  for (const id of ['a', 'b']) servers.push(await ordersServer(context, id, certificates.server));
  const [a, b] = servers.map(({ port }) => `grpcs://127.0.0.1:${port}`);
  const plain = await ordersServer(context, 'plain');
  // Plain endpoints are nothing for a channel with TLS, and the other way round.
  await registry.register({ name: 'localhost', id: 'a', endpoints: [`grpc://127.0.0.1:${plain.port}`, a as string] });
  await registry.register({ name: 'orders', id: 'b', endpoints: [b as string], metadata: { serverName: 'localhost' } });
  await registry.register({ name: 'payments', id: 'b', endpoints: [b as string] });
  const credentials = (grpc: { credentials: { createSsl(roots: Buffer): object } }) =>
    grpc.credentials.createSsl(roots);
  for (const line of LINES) {
    const call = async (service: string, channel?: object) =>
      (await dial(context, line, registry, { service, credentials, channel })).call();
    expect(await call('localhost')).toMatchObject({ from: 'a' });
    expect(await call('orders')).toMatchObject({ from: 'b' });
    expect(await call('payments')).toMatchObject({ code: UNAVAILABLE });
    const option = { 'grpc.ssl_target_name_override': 'localhost' };
    expect(await call('payments', option)).toMatchObject({ from: 'b' });
    expect(await call('orders', { 'grpc.ssl_target_name_override': 'other' })).toMatchObject({ from: 'b' });
  }
  const plainly = await dial(context, 14, registry, { service: 'localhost' });
  expect(await plainly.call()).toMatchObject({ from: 'plain' });
  expect((await (await dial(context, 14, registry, { service: 'orders' })).call()).details).toContain(
    'no instance of orders: of 1, scheme took out 1; discovery:/// takes grpc:// alone',
  );
  const grpc = await load(14);
  const Client = grpc.makeGenericClientConstructor(ORDERS, 'Orders');
  const options = { grpc, credentials: grpc.credentials.createSsl(roots), serverName: 'localhost' };
  const client = grpcClient(registry, Client, 'payments', options);
  context.onTestFinished(() => client.close());
  expect(await callerOf(grpc, client).call()).toMatchObject({ from: 'b' });
});

test('endpoints that are another place for each caller are left out, unless it is said', async (context) => {
  const { registry, add } = await memory(context);
  await add(await ordersServer(context, 'a'));
  const orders = await dial(context, 14, registry, { allowLocal: false });
  expect(await orders.call()).toMatchObject({
    code: UNAVAILABLE,
    details: 'no instance of orders: of 1, local took out 1',
  });
});

test('a registry that is closed leaves the connections that are there, and tells new channels', async (context) => {
  const registry = await connect(`memory://${uniqueName()}?logger=0`);
  const server = await ordersServer(context, 'a');
  const other = await connect(`memory://${uniqueName()}?logger=0`);
  context.onTestFinished(() => other.close());
  await registry.register({ name: 'orders', id: 'a', endpoints: [`grpc://127.0.0.1:${server.port}`] });
  const orders = await dial(context, 14, registry);
  await orders.reaches(['a']);
  await registry.close();
  expect(await orders.call()).toMatchObject({ from: 'a' });
  const closed = { code: UNAVAILABLE, details: expect.stringContaining('closed') };
  expect(await (await dial(context, 14, registry)).call()).toMatchObject(closed);
});

test('a channel that comes back from idleness to a closed registry, and a filter that throws, fail calls alone', async (context) => {
  const registry = await connect(`memory://${uniqueName()}?logger=0`);
  const server = await ordersServer(context, 'a');
  await registry.register({ name: 'orders', id: 'a', endpoints: [`grpc://127.0.0.1:${server.port}`] });
  for (const line of [10, 14] as const) {
    const filter = () => {
      throw new Error('on purpose');
    };
    const broken = await dial(context, line, registry, { filters: [filter] });
    expect(await broken.call()).toMatchObject({ code: UNAVAILABLE, details: 'on purpose' });
  }
  const idle = { channel: { 'grpc.client_idle_timeout_ms': 1000 } };
  const channels = [await dial(context, 10, registry, idle), await dial(context, 14, registry, idle)];
  for (const orders of channels) await orders.reaches(['a']);
  const states = () => channels.map(({ client }) => client.getChannel().getConnectivityState(false));
  await waitFor(() => states().every((state) => state === 0), { what: 'the channels to be idle' });
  await registry.close();
  for (const orders of channels) {
    expect(await orders.call()).toMatchObject({ code: UNAVAILABLE, details: expect.stringContaining('closed') });
  }
});

test('names that are dialled by three users each and let go leave no watch behind', {
  timeout: 60_000 + 60 * NAMES,
}, async (context) => {
  const { registry } = await memory(context);
  // A function of its own: what it held is garbage when it is over.
  const dialled = async (n: number) => {
    const finishes: (() => unknown)[] = [];
    const asked = Array.from({ length: 300 }, async (_, k) => {
      const service = `s${n + (k % 100)}`;
      const own = { onTestFinished: (finish: () => unknown) => finishes.push(finish) };
      return await (await dial(own, 14, registry, { service, lingerMs: 0 })).call();
    });
    for (const { details } of await Promise.all(asked)) expect(details).toContain('the registry has none');
    for (const finish of finishes.sort(() => Math.random() - 0.5)) finish();
  };
  for (let n = 0; n < NAMES; n += 100) await dialled(n);
  // Nobody tells a channel that was closed from an idle one: the last 256 are followed until they are garbage.
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const followed = () => {
    collect();
    return registry.metrics().watches.followed;
  };
  await waitFor(() => followed() === 0, { intervalMs: 200, what: 'all watches to end' });
});

test('bad input is refused, and named', async (context) => {
  const { registry } = await memory(context);
  const grpc = await load(14);
  const refuses = (run: () => unknown, message: string) =>
    expect(run).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', message: expect.stringContaining(message) }),
    );
  const register = (options: object) => () => registerResolver(registry, { grpc, authority: 'bad', ...options });
  refuses(() => registerResolver({} as never, { grpc }), 'registry: expected what connect() gives, got object');
  refuses(register({ grpc: {} }), 'options.grpc: expected the module @grpc/grpc-js');
  refuses(register({ grpc: [grpc, 7] }), 'options.grpc[1]: expected the module');
  refuses(register({ grpc: [] }), 'options.grpc: expected the module');
  refuses(register({ authority: 'a/b' }), 'options.authority: expected letters');
  refuses(register({ policy: 'p2c' }), 'options.policy: expected "rollcall_p2c"');
  refuses(register({ policy: 'rollcall_hash' }), 'options.hashHeader: expected the name of a header');
  refuses(register({ hashHeader: 'x' }), 'options.hashHeader: it is for the policy');
  refuses(register({ firstListTimeoutMs: 0 }), 'options.firstListTimeoutMs: expected');
  refuses(register({ zone: 7 }), 'options.zone: expected a string');
  refuses(register({ subset: { size: 0 } }), 'options.subset.size: expected');
  refuses(register({ schema: 1 }), 'options.schema: unknown option');
  const Client = grpc.makeGenericClientConstructor(ORDERS, 'Orders');
  refuses(() => grpcClient(registry, 7 as never, 'orders', { grpc }), 'Client: expected a class');
  refuses(() => grpcClient(registry, Client, '', { grpc }), 'name: expected a string that is not empty');
  refuses(() => grpcClient(registry, Client, 'orders', { grpc, credentials: {} }), 'options.credentials: expected');
  const other = (await load(13)).makeGenericClientConstructor(ORDERS, 'Orders');
  refuses(() => grpcClient(registry, other, 'orders', { grpc }), 'options.grpc: the class was made with another copy');
  const dialled = await dial(context, 14, registry, { service: 'a/b' });
  expect(await dialled.call()).toMatchObject({ code: UNAVAILABLE, details: expect.stringMatching(/^name: /) });
  await expect(connect('discovery:///orders')).rejects.toThrow('is what a client of gRPC dials: see rollcall/grpc');
});
