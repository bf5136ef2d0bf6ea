// What a toy does not stand, on real servers. Small here; `make hard` runs it in full, by the variables named below.
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type Coord, defineConfig } from 'rollcall/coord';
import { expect, test } from 'vitest';
import { startEtcd } from '../support/etcd.js';
import { runScript } from '../support/process.js';
import { startTcpProxy } from '../support/tcp.js';
import { anything, client, countUp, type Finish, until } from './kit.js';

/** Counted up by each of two writers. */
const WRITES = Number(process.env.WRITES ?? 60);
/** For how long the event loop is blocked at least, in milliseconds. */
const BLOCKED_MS = Number(process.env.BLOCKED_MS ?? 1000);
/** Updates while it is. */
const UPDATES = Number(process.env.UPDATES ?? 200);
/** Transactions of three keys, and how often the way to the reader is cut meanwhile, in milliseconds. */
const TRANSACTIONS = Number(process.env.TRANSACTIONS ?? 200);
const CUT_MS = 200;

const key = '/config/dev/orders/limits';
const definition = defineConfig({ key: '/config/{env}/{service}/limits', schema: anything, default: { max: 1 } });
const fixture = (name: string) => fileURLToPath(new URL(`./fixtures/${name}`, import.meta.url));
const maxOf = (value: unknown) => (value as { max: number }).max;

async function etcd(finish: Finish) {
  const server = await startEtcd();
  finish.onTestFinished(() => server.close());
  return server;
}

test('a change between the first read and the watch is not missed', async (finish) => {
  const server = await etcd(finish);
  const link = await startTcpProxy(server.hosts[0] as string);
  finish.onTestFinished(() => link.close());
  let between = 0;
  for (let round = 0; round < 10; round++) {
    await server.put(key, '{"max":1}');
    const { config } = await client(finish, `etcd://${link.host}`);
    const before = link.requests;
    link.hold('down'); // the read goes through; its answer, and so the watch after it, waits
    const opening = config.open(definition);
    await until('the read', () => link.requests > before);
    await server.get(key);
    await server.put(key, '{"max":2}');
    link.release();
    const ref = await opening;
    if (maxOf(ref.value) === 1) between++;
    await until('the change', () => maxOf(ref.value) === 2);
    ref.close();
  }
  expect(between).toBeGreaterThan(0); // it was what it is about
});

test('two writers who count up by revision lose nothing', async (finish) => {
  const server = await etcd(finish);
  const clients = await Promise.all([1, 2].map(() => client(finish, server.url)));
  await clients[0]?.config.set(key, 0);
  const conflicts = await Promise.all(clients.map((one) => countUp(one, key, WRITES)));
  expect(await server.get(key)).toBe(String(2 * WRITES));
  expect(Math.max(...conflicts)).toBeGreaterThan(0);
});

test('no reader sees half of a transaction, by a link that is cut all the time', async (finish) => {
  const server = await etcd(finish);
  const link = await startTcpProxy(server.hosts[0] as string);
  finish.onTestFinished(() => link.close());
  const writer = await client(finish, server.url, { history: 0 });
  const reader = await client(finish, `etcd://${link.host}`, { settleMs: 0 });
  const keys = ['/config/global/limits', '/config/dev/global/limits', key];
  const write = (n: number) =>
    writer.config.setAll(Object.fromEntries(keys.map((one, place) => [one, { [`n${place}`]: n }])));
  await write(0);
  const ref = await reader.config.open(definition);
  let [mixed, back, last, seen] = [0, 0, 0, 0];
  ref.on('change', (value) => {
    const { n0, n1, n2 } = value as { n0: number; n1: number; n2: number };
    if (n0 !== n1 || n1 !== n2) mixed++;
    if (n0 <= last) back++;
    last = n0;
    seen++;
  });
  let cuts = 0;
  const cutting = setInterval(() => {
    link.sever();
    cuts++;
  }, CUT_MS);
  finish.onTestFinished(() => clearInterval(cutting));
  for (let n = 1; n <= TRANSACTIONS || cuts < 3; n++) await write(n);
  clearInterval(cutting);
  const { n0: final } = JSON.parse((await server.get(keys[0] as string)) as string) as { n0: number };
  await until('the last', () => last === final);
  expect([mixed, back]).toEqual([0, 0]);
  expect(seen).toBeGreaterThan(0);
});

test('a blocked event loop hears of many updates once, of the last', async (finish) => {
  const server = await etcd(finish);
  const { config } = await client(finish, server.url);
  const ref = await config.open(definition);
  const told: number[] = [];
  ref.subscribe((value) => told.push(maxOf(value)));
  const start = performance.now();
  // Which blocks this thread until another process has made all of them.
  execFileSync(process.execPath, [fixture('writer.mjs'), server.url, String(UPDATES)], {
    env: { ...process.env, NODE_OPTIONS: '' },
  });
  while (performance.now() - start < BLOCKED_MS);
  await until('the last', () => maxOf(ref.value) === UPDATES + 1);
  expect(told).toEqual([UPDATES + 1]);
});

test('of three processes only the labelled one changes by the canary layer', async (finish) => {
  const server = await etcd(finish);
  const program = fixture('follower.mjs');
  const [a, b, canary] = [{}, { canary: 'false' }, { canary: 'true' }].map((labels) => {
    const script = runScript<{ max: number }>(program, [server.url, JSON.stringify(labels)]);
    finish.onTestFinished(() => script.kill('SIGKILL'));
    return script;
  });
  const all = [a, b, canary].map((script) => script as NonNullable<typeof script>);
  const each = (max: number) => Promise.all(all.map((script) => script.line((line) => line.max === max)));
  await each(1);
  const { config }: Coord = await client(finish, server.url);
  await config.set(`${key}/@canary=true`, { max: 7 });
  await canary?.line(({ max }) => max === 7);
  await config.setAll({ [key]: { max: 5 }, [`${key}/@canary=true`]: null });
  await each(5);
  expect(all.map(({ seen }) => seen.map(({ max }) => max))).toEqual([
    [1, 5],
    [1, 5],
    [1, 7, 5],
  ]);
});
