// What a toy does not stand (naive.test.ts and naive-locks.test.ts show it), on real servers. SIZE=full is the size of `make hard`.
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type ConfigRef, type Coord, defineConfig } from 'rollcall/coord';
import { expect, test } from 'vitest';
import { startEtcd } from '../support/etcd.js';
import { runScript } from '../support/process.js';
import { startTcpProxy } from '../support/tcp.js';
import { anything, client, countUp, type Finish, FULL, limits, until } from './kit.js';

/** Counted up by each of two writers. */
const WRITES = FULL ? 500 : 60;
/** For how long the event loop is blocked at least, in milliseconds. */
const BLOCKED_MS = FULL ? 10_000 : 1000;
/** Updates while it is. */
const UPDATES = FULL ? 1000 : 200;
/** Transactions of three keys, and how often the way to the reader is cut meanwhile, in milliseconds. */
const TRANSACTIONS = FULL ? 1000 : 200;
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
  for (let round = 0; round < (FULL ? 100 : 10); round++) {
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

test('of ten updates of which the fourth and the seventh are refused is each of the others, and what is reported is right', async (finish) => {
  const server = await etcd(finish);
  const { config } = await client(finish, server.url);
  const reader = await client(finish, server.url, { settleMs: 0, instance: 'a', reportApplied: true });
  const shown = defineConfig({ key: '/config/{env}/{service}/limits', schema: limits, default: { max: 0 } });
  const ref = await reader.config.open(shown);
  const applied = async () => (await config.applied(shown)).map(({ revision, rejected }) => [revision, rejected]);
  const bad = 'expected a whole number';
  for (let round = 0; round < (FULL ? 10 : 1); round++) {
    const told: unknown[] = [];
    const end = new AbortController();
    ref.subscribe(({ max }) => told.push(max - 100 * round), { signal: end.signal });
    const reject = ({ issues }: { issues: readonly { message: string }[] }) => told.push(issues[0]?.message);
    ref.on('rejected', reject);
    let good = 0n;
    for (let n = 1; n <= 10; n++) {
      const isBad = n === 4 || n === 7;
      const revision = await config.set(key, { max: isBad ? 'bad' : 100 * round + n });
      await until(`update ${n}`, () => told.length === n);
      if (!isBad) good = revision;
      if (!isBad && n !== 10) continue;
      const last = isBad ? expect.stringContaining(bad) : undefined;
      await until(`the report of ${n}`, async () =>
        (await applied()).some(([at, why]) => at === good && !!why === isBad),
      );
      expect(await applied()).toEqual([[good, last]]);
    }
    expect(told).toEqual([1, 2, 3, bad, 5, 6, bad, 8, 9, 10]);
    end.abort();
    ref.off('rejected', reject);
  }
});

test('what one of three subscribers refuses is seen by none of them', async (finish) => {
  const server = await etcd(finish);
  const { config } = await client(finish, server.url, { settleMs: 0 });
  const open = () => config.open(defineConfig({ key, schema: limits, default: { max: 0 } }));
  const refs = (await Promise.all([open(), open(), open()])) as ConfigRef<{ max: number }>[];
  refs[1]?.beforeChange(({ max }) => {
    if (max % 3 === 0) throw new Error('not a third');
  });
  const told: number[][] = refs.map(() => []);
  let refused = 0;
  for (const [i, ref] of refs.entries()) ref.subscribe(({ max }) => told[i]?.push(max));
  refs[0]?.on('rejected', () => refused++);
  const count = FULL ? 300 : 9;
  for (let max = 1; max <= count; max++) {
    await config.set(key, { max });
    const good = max % 3 === 0 ? max - 1 : max;
    await until(`${max}`, () => (max % 3 === 0 ? refused === max / 3 : told.every((one) => one.at(-1) === max)));
    expect(refs.map(({ value }) => value.max)).toEqual([good, good, good]);
  }
  const seen = Array.from({ length: count }, (_, i) => i + 1).filter((max) => max % 3 !== 0);
  expect(told).toEqual([seen, seen, seen]);
});

test('a layer that is deleted brings back what is below it, and the deletion of what is needed is refused', async (finish) => {
  const server = await etcd(finish);
  const { config } = await client(finish, server.url, { settleMs: 0 });
  const global = '/config/global/limits';
  const needed = '/config/dev/orders/needed';
  await server.put(needed, '{"max":1}');
  const ref = await config.open(
    defineConfig({ key: '/config/{env}/{service}/limits', schema: limits, default: { max: 0 } }),
  );
  const must = await config.open(defineConfig({ key: '/config/{env}/{service}/needed', schema: limits }));
  let refused = 0;
  must.on('rejected', () => refused++);
  for (let round = 1; round <= (FULL ? 100 : 3); round++) {
    await config.setAll({ [global]: { max: 10 * round }, [key]: { max: 10 * round + 1 } });
    await until('the own layer', () => ref.value.max === 10 * round + 1);
    await config.delete(key);
    await until('the one below', () => ref.value.max === 10 * round);
    await config.delete(global);
    await until('the default', () => ref.value.max === 0);
    await config.delete(needed);
    await until('the refusal', () => refused === round);
    expect([must.value.max, must.source]).toEqual([round, 'store']);
    await config.set(needed, { max: round + 1 });
    await until('the next', () => must.value.max === round + 1 && must.rejected === undefined);
  }
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
  // And until what it wrote last has settled: what is told before is not the last.
  const end = Math.max(start + BLOCKED_MS, performance.now() + 500);
  while (performance.now() < end);
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
  const [seen, seenByCanary] = [[1], [1]];
  for (let round = 1; round <= (FULL ? 50 : 1); round++) {
    await config.set(`${key}/@canary=true`, { max: 10 * round + 7 });
    await canary?.line(({ max }) => max === 10 * round + 7);
    await config.setAll({ [key]: { max: 10 * round + 5 }, [`${key}/@canary=true`]: null });
    await each(10 * round + 5);
    seen.push(10 * round + 5);
    seenByCanary.push(10 * round + 7, 10 * round + 5);
  }
  expect(all.map(({ seen }) => seen.map(({ max }) => max))).toEqual([seen, seen, seenByCanary]);
});
