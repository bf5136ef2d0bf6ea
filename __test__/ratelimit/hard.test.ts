// Limits among processes, on a Redis that is frozen, fails over and comes back, and by a registry whose instances die.
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { connect } from 'rollcall';
import type { RateLimiter, RateRule } from 'rollcall/ratelimit';
import { describe, expect, test, vi } from 'vitest';
import { type Finish, FULL, until } from '../coord/kit.js';
import { changing } from '../support/changing.js';
import { startEtcd } from '../support/etcd.js';
import { freePorts } from '../support/ports.js';
import { ordered, output, type Script, uniqueName, waitFor } from '../support/process.js';
import { startRedis } from '../support/redis.js';
import { CLIENTS, limiter } from './kit.js';

const program = (name: string) => fileURLToPath(new URL(`fixtures/${name}.mjs`, import.meta.url));

interface Line {
  event: 'ready' | 'count' | 'done';
  at: number;
  asked: number;
  allowed: number;
  limit: number;
  by: Record<string, number>;
}

const distributed = (rate: number, capacity: number, more: Partial<RateRule> = {}): RateRule => ({
  mode: 'distributed',
  rate,
  capacity,
  ...more,
});

async function redisOf(finish: Finish) {
  const server = await startRedis();
  finish.onTestFinished(() => server[Symbol.asyncDispose]());
  return server;
}

const quantile = (times: number[], share: number) =>
  times.sort((a, b) => a - b)[Math.min(times.length - 1, Math.floor(times.length * share))] as number;

/** How long a request takes. */
async function timed(of: RateLimiter): Promise<number> {
  const start = performance.now();
  await of.allow('a', 'send');
  return performance.now() - start;
}

/** Six processes ask ten times as much as there is, with a burst of 50 each at the start. */
async function six(finish: Finish, seconds: number, toy: boolean): Promise<{ began: number; lines: Line[] }> {
  const server = await redisOf(finish);
  const order = { redis: server.url, rule: distributed(100, 50), perSecond: 1000 / 6, burst: 50, seconds, toy };
  const takers = [1, 2, 3, 4, 5, 6].map(() => ordered<Line>(finish, program('taker'), order));
  for (const taker of takers) await taker.line(({ event }) => event === 'ready');
  const began = Date.now();
  await server.ask('SET go 1');
  const done = takers.map((taker) => taker.line(({ event }) => event === 'done', { timeoutMs: 60_000 }));
  return { began, lines: await Promise.all(done) };
}

const sum = (lines: readonly Line[], what: 'asked' | 'allowed') => lines.reduce((all, line) => all + line[what], 0);

test('six processes at ten times the load have the burst and the rate, and 98 % of it at least', async (finish) => {
  const seconds = FULL ? 30 : 4;
  const { began, lines } = await six(finish, seconds, false);
  const took = (Math.max(...lines.map(({ at }) => at)) - began) / 1000;
  for (const { by } of lines) expect(Object.keys(by)).toEqual(['redis']);
  expect(sum(lines, 'asked')).toBeGreaterThan(900 * seconds);
  expect(sum(lines, 'allowed')).toBeLessThanOrEqual(50 + 100 * took);
  expect(sum(lines, 'allowed')).toBeGreaterThanOrEqual(0.98 * (50 + 100 * seconds));
});

test('and a toy that reads and writes lets far more through', async (finish) => {
  const { lines } = await six(finish, 1, true);
  expect(sum(lines, 'allowed')).toBeGreaterThan(1.2 * (50 + 100));
});

describe.each(Object.entries(CLIENTS))('%s', (_, clientOf) => {
  test('a frozen Redis costs each request one wait and no more, and nothing is counted twice', async (finish) => {
    const server = await redisOf(finish);
    const redis = await clientOf(finish, server.url);
    const rules = { send: distributed(0.001, 1000, { onStoreFailure: 'allow' }) };
    const limits = limiter(finish, { rules, redis });
    const told: string[] = [];
    limits.on('degraded', ({ code }) => told.push(code)).on('restored', () => told.push('restored'));
    for (let i = 0; i < 10; i++) await limits.allow('a', 'send');
    const seen = async () => {
      const { by, remaining } = await limits.allow('a', 'send', 0);
      return by === 'redis' && { remaining };
    };
    const { remaining } = await waitFor(seen, { what: 'Redis, also on a machine that is busy' });
    told.length = 0;
    server.freeze();
    const first = await Promise.all(Array.from({ length: 64 }, () => timed(limits)));
    expect(quantile(first, 0.99)).toBeGreaterThan(45);
    expect(quantile(first, 0.99)).toBeLessThan(50 + (FULL ? 5 : 25));
    const after: number[] = [];
    for (let i = 0; i < 2000; i++) after.push(await timed(limits));
    expect(quantile(after, 0.99)).toBeLessThan(1);
    for (const end = performance.now() + (FULL ? 8000 : 3000); performance.now() < end; await sleep(5)) {
      expect(await timed(limits), 'also while it is asked again').toBeLessThan(40);
    }
    expect(told).toEqual(['ERR_TIMEOUT']);
    server.thaw();
    const thawed = performance.now();
    await waitFor(async () => (await limits.allow('b', 'send')).by === 'redis', { what: 'Redis to be asked again' });
    expect(performance.now() - thawed).toBeLessThan(2000);
    expect(told).toEqual(['ERR_TIMEOUT', 'restored']);
    expect(await waitFor(seen, { what: 'Redis' }), 'the 64 came too late').toEqual({ remaining });
  });

  test('a thread that is busy is no Redis that does not answer, and a caller can end its wait', async (finish) => {
    const server = await redisOf(finish);
    const redis = await clientOf(finish, server.url);
    const limits = limiter(finish, { rules: { send: distributed(1, 100) }, redis });
    await waitFor(async () => (await limits.allow('a', 'send')).by === 'redis', { what: 'Redis' });
    const busy = (ms: number) => {
      for (const end = performance.now() + ms; performance.now() < end; );
    };
    for (let i = 0; i < 5; i++) {
      const before = limits.allow('a', 'send');
      busy(100); // before it is sent
      expect((await before).by).toBe('redis');
      const asked = limits.allow('a', 'send');
      await turn();
      busy(100); // while the answer is on its way
      expect((await asked).by).toBe('redis');
    }
    server.freeze();
    const ending = new AbortController();
    const asked = limits.allow('a', 'send', 1, { signal: ending.signal });
    ending.abort(new Error('enough'));
    const aborted = await asked.catch((error: unknown) => error);
    expect(aborted).toMatchObject({ code: 'ERR_ABORTED', cause: expect.objectContaining({ message: 'enough' }) });
  });

  test('a clock of Redis that is set back keeps nobody longer than the burst takes', async (finish) => {
    const server = await redisOf(finish);
    const redis = await clientOf(finish, server.url);
    const limits = limiter(finish, { rules: { send: distributed(100, 50) }, redis, storeTimeoutMs: 5000 });
    // What Redis keeps of a subject that had all of it ten seconds from now, as it is once its clock was set back.
    await server.ask(
      "EVAL \"redis.call('SET', 'ratelimit:{send:a}', struct.pack('dd', 50, redis.call('TIME')[1] * 1e6 + 1e7))\" 0",
    );
    const refused = await limits.allow('a', 'send');
    expect(refused).toMatchObject({ allowed: false, by: 'redis', remaining: 0 });
    expect(refused.retryAfterMs).toBeLessThanOrEqual(10);
    await sleep(500);
    const all = await Promise.all(Array.from({ length: 49 }, () => limits.allow('a', 'send')));
    expect(all.every(({ allowed }) => allowed)).toBe(true);
  });

  test('clocks that are an hour apart change nothing, not even for the first requests', async (finish) => {
    const server = await redisOf(finish);
    const redis = await clientOf(finish, server.url);
    finish.onTestFinished(() => void vi.useRealTimers());
    for (const [n, ms] of [-3_600_000, 3_600_000].entries()) {
      vi.useFakeTimers({ now: Date.now() + ms, toFake: ['Date'] });
      const limits = limiter(finish, { rules: { send: distributed(0.001, 100) }, redis, storeTimeoutMs: 5000 });
      const all = await Promise.all(Array.from({ length: 30 }, () => limits.allow(`user:${n}`, 'send')));
      expect(all.map(({ by, remaining }) => [by, remaining])).toEqual(all.map((_, i) => ['redis', 99 - i]));
      vi.useRealTimers();
    }
  });

  test('a Redis that answers and takes no writes is not told to be back', async (finish) => {
    const server = await redisOf(finish);
    const redis = await clientOf(finish, server.url);
    const limits = limiter(finish, { rules: { send: distributed(100, 50) }, redis, storeTimeoutMs: 5000 });
    const told: string[] = [];
    limits.on('degraded', ({ code }) => told.push(code)).on('restored', () => told.push('restored'));
    expect((await limits.allow('a', 'send')).by).toBe('redis');
    const ask = async () => (await limits.allow('a', 'send')).by;
    await server.ask('CONFIG SET maxmemory 1');
    expect(await ask()).toBe('fallback');
    // It is asked again after a second, and after two more.
    for (const end = performance.now() + 4000; performance.now() < end; await sleep(20)) await ask();
    expect(told).toEqual(['ERR_UNAVAILABLE']);
    await server.ask('CONFIG SET maxmemory 0');
    await waitFor(async () => (await ask()) === 'redis', { what: 'it to be asked again', timeoutMs: 30_000 });
    expect(told).toEqual(['ERR_UNAVAILABLE', 'restored']);
  });

  test('a rule that changes in the middle of a burst leaves what was consumed', async (finish) => {
    const server = await redisOf(finish);
    const rules = changing<Record<string, RateRule>>({ send: distributed(100, 50) });
    const redis = await clientOf(finish, server.url);
    const limits = limiter(finish, { rules, redis, storeTimeoutMs: 5000 });
    const other = limiter(finish, { rules: { send: distributed(10, 50) }, redis, storeTimeoutMs: 5000 });
    const began = performance.now();
    const ask = async (times: number, of = limits) => {
      const all = await Promise.all(Array.from({ length: times }, () => of.allow('a', 'send')));
      return all.filter(({ allowed }) => allowed).length;
    };
    let through = await ask(40);
    const changedAfterMs = performance.now() - began;
    rules.set({ send: distributed(10, 50) });
    through += await ask(100);
    through += await ask(100, other); // a process that has heard of it before
    const passed = performance.now() - began;
    expect(through).toBeGreaterThanOrEqual(50);
    expect(through).toBeLessThanOrEqual(50 + Math.ceil((changedAfterMs * 100 + passed * 10) / 1000));
  });

  test('a failover to an empty replica gives each subject one burst more at most', async (finish) => {
    const [server, replica] = await Promise.all([redisOf(finish), redisOf(finish)]);
    const redis = await clientOf(finish, server.url);
    const rules = { send: distributed(0.01, 20, { onStoreFailure: 'deny' }) };
    const limits = limiter(finish, { rules, redis });
    const through = async (times: number) => {
      let count = 0;
      for (let i = 0; i < times; i++) if ((await limits.allow('a', 'send')).allowed) count++;
      return count;
    };
    expect(await through(30)).toBe(20);
    await server.ask(`REPLICAOF 127.0.0.1 ${replica.port}`);
    await waitFor(async () => (await server.ask('GET ratelimit:{send:a}')) === '$-1', { what: 'it to be empty' });
    const refused = await limits.allow('a', 'send');
    expect(refused, 'it takes no writes').toMatchObject({ allowed: false, by: 'fallback' });
    expect(refused.retryAfterMs).toBeLessThanOrEqual(1100);
    await server.ask('REPLICAOF NO ONE');
    await waitFor(async () => (await limits.allow('b', 'send')).by === 'redis', { what: 'Redis to be asked again' });
    expect(await through(50)).toBe(20);
  });
});

test('subjects of a Redis Cluster, which lie apart, are asked for one by one', async (finish) => {
  const server = await startRedis(['--cluster-enabled', 'yes']);
  finish.onTestFinished(() => server[Symbol.asyncDispose]());
  await server.ask('CLUSTER ADDSLOTSRANGE 0 16383');
  await waitFor(async () => (await server.ask('SET a 1')) === '+OK', { what: 'the cluster' });
  const redis = await CLIENTS.ioredis(finish, server.url);
  const limits = limiter(finish, { rules: { send: distributed(0.01, 2) }, redis, storeTimeoutMs: 5000 });
  for (const expected of [true, true, false]) {
    const all = await Promise.all(Array.from({ length: 50 }, (_, n) => limits.allow(`user:${n}`, 'send')));
    for (const { allowed, by } of all) expect({ allowed, by }).toEqual({ allowed: expected, by: 'redis' });
  }
});

test('while Redis is away, processes share the rate by the instances that the registry knows', async (finish) => {
  const server = await redisOf(finish);
  const url = `memory://${uniqueName('limits')}`;
  const all = await Promise.all(
    [1, 2].map(async (n) => {
      const registry = await connect({ url, logger: false });
      finish.onTestFinished(() => registry.close());
      await registry.register({ name: 'orders', id: `${n}`, endpoints: [`http://127.0.0.1:${n}`] });
      const redis = await CLIENTS.ioredis(finish, server.url);
      const rules = { send: distributed(100, 10) };
      return limiter(finish, { rules, redis, registry: { registry, service: 'orders' } });
    }),
  );
  for (const one of all) await one.ready();
  await until('both to know of two', () => all.every((one) => one.allowNow('x', 'send').limit === 5));
  server.freeze();
  const began = performance.now();
  let through = 0;
  const bys = new Set<string>();
  while (performance.now() - began < (FULL ? 10_000 : 2000)) {
    for (const one of all) {
      const { allowed, by } = await one.allow('a', 'send');
      bys.add(by);
      if (allowed) through++;
    }
    await sleep(1);
  }
  const seconds = (performance.now() - began) / 1000;
  expect([...bys]).toEqual(['fallback']);
  expect(through).toBeLessThanOrEqual(Math.ceil(10 + 100 * seconds));
  expect(through).toBeGreaterThan(80 * (seconds - 0.2));
});

test('five instances share a rate, four of them when one has died, and as many when the registry is away', async (finish) => {
  const etcd = await startEtcd();
  finish.onTestFinished(() => etcd.close());
  const order = { registry: etcd.url, rule: { mode: 'shared', rate: 200, capacity: 10 }, perSecond: 400 };
  const ports = await freePorts(5);
  const takers = ports.map((port, n) => ordered<Line>(finish, program('taker'), { ...order, port, id: `${n}` }));
  const last = ({ seen }: Script<Line>) => seen.filter(({ event }) => event === 'count').at(-1);
  const share = (of: readonly Script<Line>[], limit: number) =>
    waitFor(() => of.every((taker) => last(taker)?.limit === limit), { what: `shares of ${limit}`, timeoutMs: 60_000 });
  /** Tokens a second, of all together. */
  const rateOf = async (of: readonly Script<Line>[], ms: number) => {
    const before = of.map((taker) => last(taker) as Line);
    await sleep(ms);
    return of.reduce((all, taker, n) => {
      const [from, to] = [before[n] as Line, last(taker) as Line];
      return all + ((to.allowed - from.allowed) * 1000) / (to.at - from.at);
    }, 0);
  };
  const ms = FULL ? 10_000 : 2000;
  const within = (rate: number) => {
    expect(rate).toBeGreaterThan(180);
    expect(rate).toBeLessThan(220);
  };
  await share(takers, 2);
  within(await rateOf(takers, ms));
  const [dead, ...living] = takers as [Script<Line>, ...Script<Line>[]];
  dead.kill('SIGKILL');
  // The share is 2 of five, and 2.5 of four: it shows in the rate alone.
  await waitFor(async () => (await rateOf(living, 1000)) > 185, { what: 'four to have it all', timeoutMs: 60_000 });
  within(await rateOf(living, ms));
  await etcd.kill();
  await sleep(1000);
  within(await rateOf(living, ms));
}, 120_000);

test('a million subjects take no more memory than is said, and open no door', async () => {
  const script = fileURLToPath(new URL('../../bench/programs/ratelimit-million.mjs', import.meta.url));
  const said = JSON.parse(await output(process.execPath, ['--expose-gc', script], { NODE_OPTIONS: '' }));
  expect(said.subjects).toBe(1_000_000);
  expect(said.megabytes).toBeLessThan(150);
  expect(said.others, 'of 100,000 for whom there is no room').toBe(2);
});
