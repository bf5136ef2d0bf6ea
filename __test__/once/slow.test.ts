// Stores that are slow, and what clients of Redis make of its answers.
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { runInNewContext } from 'node:vm';
import { Redis } from 'ioredis';
import { UnavailableError } from 'rollcall';
import { type MemoryOnce, memoryOnce, redisOnce } from 'rollcall/once';
import { describe, expect, test } from 'vitest';
import { type Finish, failure, until } from '../coord/kit.js';
import { uniqueName } from '../support/process.js';
import { startRedis } from '../support/redis.js';
import { gate, onceOf } from './kit.js';

const TTL_MS = 60_000;
const never = () => {
  throw new Error('it is not to be run');
};

type Steps = { [Name in keyof MemoryOnce]: MemoryOnce[Name] };

/** The same store, with other steps. */
const altered = (store: MemoryOnce, steps: Partial<Steps>): MemoryOnce =>
  new Proxy(store, {
    get: (target, name) => {
      const value: unknown = steps[name as keyof Steps] ?? target[name as keyof Steps];
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });

test('the wait for others begins when there are others: a store that is slow is nobody who runs it', async (finish) => {
  const memory = memoryOnce();
  const slow = altered(memory, {
    swap: async (...step) => {
      await sleep(100);
      return await memory.swap(...step);
    },
  });
  const [once, other] = [onceOf(finish, slow), onceOf(finish, memory)];
  const key = uniqueName('slow');
  const both = [1, 2].map(() => once.do(key, TTL_MS, () => {}, { joinTimeoutMs: 1 }));
  expect((await Promise.allSettled(both))[0]).toMatchObject({ status: 'fulfilled', value: 'ran' });
  const held = uniqueName('held');
  const { open: end, passed: over } = gate();
  const running = other.do(held, TTL_MS, () => over);
  expect(await failure(once.do(held, TTL_MS, never, { joinTimeoutMs: 1 }))).toMatchObject({ code: 'ERR_IN_PROGRESS' });
  end();
  await running;
});

test('who waits for another while the store goes away is told of its own call', async (finish) => {
  const memory = memoryOnce();
  const away = altered(memory, {
    read: (operation) => Promise.reject(new UnavailableError('it is away', { operation })),
  });
  const [once, other] = [onceOf(finish, away), onceOf(finish, memory)];
  const key = uniqueName('away');
  const { open: end, passed: over } = gate();
  const running = other.do(key, TTL_MS, () => over);
  const told = await failure(once.execute(key, TTL_MS, never, { joinTimeoutMs: 200 }));
  expect(told).toMatchObject({ code: 'ERR_UNAVAILABLE', operation: 'execute' });
  end();
  await running;
});

describe('Redis', () => {
  async function onRedis(finish: Finish, options: object = {}) {
    const server = await startRedis();
    finish.onTestFinished(() => server[Symbol.asyncDispose]());
    const client = new Redis(server.url, options);
    finish.onTestFinished(() => client.disconnect());
    return client;
  }

  test('by a client that gives numbers as texts', async (finish) => {
    const once = onceOf(finish, redisOnce(await onRedis(finish, { stringNumbers: true })));
    const key = uniqueName('texts');
    let lost: unknown = 'not run';
    await once.do(
      key,
      TTL_MS,
      async ({ signal }) => {
        await sleep(1500); // beyond its lock, by what is renewed
        lost = signal.reason;
      },
      { lockMs: 1000 },
    );
    expect(lost).toBe(undefined);
    expect(await once.inspect(key)).toMatchObject({ state: 'done', expiresInMs: expect.any(Number) });
  });

  test('a thread that is busy is no Redis that does not answer', async (finish) => {
    const redis = await onRedis(finish);
    const once = onceOf(finish, redisOnce(redis, { storeTimeoutMs: 300 }));
    await once.do(uniqueName('loaded'), TTL_MS, () => {});
    const asked = once.do(uniqueName('busy'), TTL_MS, () => {});
    await turn();
    for (const end = performance.now() + 500; performance.now() < end; ); // the answer is there meanwhile
    expect(await asked).toBe('ran');
  });

  test('a claim that is answered late is vouched for from when it was sent', async (finish) => {
    const redis = await onRedis(finish);
    const [lockMs, lateMs] = [3000, 2500];
    const key = uniqueName('late');
    let [sent, fired] = [0, 0];
    const answered = async (args: readonly string[], ask: Promise<unknown>) => {
      const answer = await ask;
      if (!args.join(' ').includes(key)) return answer;
      if (sent > 0) return fired > 0 ? answer : await new Promise(() => {}); // nothing is, before it is lost
      sent = performance.now() - 1;
      await sleep(lateMs);
      return answer;
    };
    const late = {
      eval: (...args: string[]) => answered(args, redis.eval(...(args as Parameters<Redis['eval']>))),
      evalsha: (...args: string[]) => answered(args, redis.evalsha(...(args as Parameters<Redis['evalsha']>))),
    };
    const once = onceOf(finish, redisOnce(late as never, { storeTimeoutMs: 5000 }));
    await once.do(uniqueName('loaded'), TTL_MS, () => {});
    const run = once.do(
      key,
      TTL_MS,
      ({ signal }) =>
        new Promise<void>((resolve) => {
          signal.addEventListener('abort', () => {
            fired = performance.now();
            resolve();
          });
        }),
      { lockMs },
    );
    await until('its loss', () => fired > 0);
    expect(fired - sent).toBeLessThan(lockMs + lateMs - 500);
    await run; // nobody has taken it over
  });

  test('errors of another realm, such as those of a test runner, are errors', async (finish) => {
    const redis = await onRedis(finish);
    const foreign = (message: string) =>
      runInNewContext(`Object.assign(new Error(${JSON.stringify(message)}), { code: 'A' })`);
    const apart = {
      evalsha: () => Promise.reject(foreign('NOSCRIPT No matching script.')),
      eval: (...args: string[]) => redis.eval(...(args as Parameters<Redis['eval']>)),
    };
    const once = onceOf(finish, redisOnce(apart as never));
    const key = uniqueName('realm');
    const thrown = foreign('no stock');
    const call = () => once.do(key, TTL_MS, () => Promise.reject(thrown), { cacheErrors: () => true });
    expect(await call().catch((error: unknown) => error)).toBe(thrown);
    expect(await failure(call())).toMatchObject({ message: 'no stock', code: 'A' });
  });

  test('what has the fields of a record and is none', async (finish) => {
    const redis = await onRedis(finish);
    const once = onceOf(finish, redisOnce(redis));
    for (const fields of [
      { v: '1' },
      { v: 'a', u: '1', d: '{}' },
      { v: '1', u: 'b', d: '{}' },
      { v: '1', u: '1', d: '{}' },
    ]) {
      const key = uniqueName('other');
      await redis.hset(`idempotent:${key}`, fields);
      expect(await failure(once.do(key, TTL_MS, never))).toMatchObject({ code: 'ERR_BAD_RECORD' });
    }
  });
});

test('a result that the codec does not read is a bad record, whoever asks', async (finish) => {
  const codec = { encode: String, decode: () => never() };
  const once = onceOf(finish, memoryOnce(), { codec });
  await once.execute('a', TTL_MS, () => 1);
  for (const call of [once.inspect('a'), once.execute('a', TTL_MS, never)]) {
    expect(await failure(call)).toMatchObject({ code: 'ERR_BAD_RECORD', key: 'a' });
  }
});
