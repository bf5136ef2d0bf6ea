// Why the hard tests of once are hard: what is written in an afternoon, on the same Redis and by the same steps, comes to the wrong
// end. Each toy stands beside what rollcall/once makes of that. Runners that are stopped, with a mark that has a time, are in
// faults/naive.test.ts.
import type { Redis } from 'ioredis';
import { redisOnce } from 'rollcall/once';
import { expect, test } from 'vitest';
import { type Finish, failure, until } from '../coord/kit.js';
import { redisClient, startRedis } from '../support/redis.js';
import { gate, onceOf } from './kit.js';

const TTL_MS = 60_000;

/** The toy: a mark that is set before the work, as the guide's own does it, and taken away when the work fails. */
async function toy(redis: Redis, key: string, ttlMs: number, fn: () => unknown): Promise<'ran' | 'done'> {
  if ((await redis.set(key, '1', 'PX', ttlMs, 'NX')) === null) return 'done';
  try {
    await fn();
    return 'ran';
  } catch (error) {
    await redis.del(key);
    throw error;
  }
}

async function alone(finish: Finish) {
  const server = await startRedis();
  finish.onTestFinished(() => server[Symbol.asyncDispose]());
  const redis = (await redisClient(finish, 'ioredis', server.url)) as Redis;
  const second = onceOf(finish, redisOnce(redis));
  return { redis, once: onceOf(finish, redisOnce(redis)), second };
}

/** Work that goes on until it is told to end. */
function work() {
  const { open: end, passed: over } = gate();
  const seen = { begun: 0, ended: 0 };
  const fn = async () => {
    seen.begun++;
    await over;
    seen.ended++;
  };
  return { fn, seen, end };
}

test('who comes while it runs is told that it is done, which it is not', async (finish) => {
  const { redis, once, second } = await alone(finish);
  const [theirs, ours] = [work(), work()];
  const running = toy(redis, 'toy', TTL_MS, theirs.fn);
  await until('the toy to run', () => theirs.seen.begun === 1);
  expect([await toy(redis, 'toy', TTL_MS, theirs.fn), theirs.seen.ended]).toEqual(['done', 0]);
  theirs.end();
  await running;
  const mine = once.do('ours', TTL_MS, ours.fn);
  await until('it to run', () => ours.seen.begun === 1);
  const waits = second.do('ours', TTL_MS, ours.fn).then((how) => [how, ours.seen.ended]);
  ours.end();
  expect([await mine, await waits]).toEqual(['ran', ['done', 1]]);
});

test('the time of the mark ends while it runs: two run at a time', async (finish) => {
  const { redis, once, second } = await alone(finish);
  const [theirs, ours] = [work(), work()];
  const both = [toy(redis, 'toy', 50, theirs.fn)];
  await until('the end of its time', async () => (await redis.exists('toy')) === 0);
  both.push(toy(redis, 'toy', 50, theirs.fn));
  await until('both to run', () => theirs.seen.begun === 2);
  theirs.end();
  await Promise.all(both);
  const mine = once.do('ours', 50, ours.fn, { lockMs: 1000 });
  await new Promise((resolve) => setTimeout(resolve, 1300)); // beyond its time, and that of its lock
  const refused = await failure(second.do('ours', 50, ours.fn, { whenRunning: 'reject' }));
  expect([refused.code, ours.seen.begun]).toEqual(['ERR_IN_PROGRESS', 1]);
  ours.end();
  await mine;
});

test('who fails after its time takes the mark of its successor away: a third runs beside it', async (finish) => {
  const { redis, once, second } = await alone(finish);
  const [slow, theirs] = [work(), work()];
  const failing = failure(
    toy(redis, 'toy', 50, async () => {
      await slow.fn();
      throw new Error('late');
    }),
  );
  await until('the end of its time', async () => slow.seen.begun === 1 && (await redis.exists('toy')) === 0);
  const running = [toy(redis, 'toy', TTL_MS, theirs.fn)];
  await until('the successor', () => theirs.seen.begun === 1);
  slow.end();
  await failing;
  running.push(toy(redis, 'toy', TTL_MS, theirs.fn));
  await until('the third', () => theirs.seen.begun === 2);
  theirs.end();
  await Promise.all(running);

  const [late, ours] = [work(), work()];
  const lost = failure(
    once.do('ours', TTL_MS, async () => {
      await late.fn();
      throw new Error('late');
    }),
  );
  await until('it to run', () => late.seen.begun === 1);
  await second.clear('ours', { force: true });
  const successor = second.do('ours', TTL_MS, ours.fn);
  await until('the successor', () => ours.seen.begun === 1);
  late.end();
  expect((await lost).code).toBe('ERR_TAKEN_OVER');
  const third = await failure(second.do('ours', TTL_MS, ours.fn, { whenRunning: 'reject' }));
  expect([third.code, ours.seen.begun]).toEqual(['ERR_IN_PROGRESS', 1]);
  ours.end();
  expect(await successor).toBe('ran');
});
