// Bad input is refused by a typed error that names the argument, and nothing is run.
import { type Coord, connectCoord } from 'rollcall/coord';
import { coordOnce, createOnce, memoryOnce, type OnceOptions, type RunOptions, redisOnce } from 'rollcall/once';
import { describe, expect, test } from 'vitest';
import { failure } from '../coord/kit.js';
import { uniqueName } from '../support/process.js';
import { redisClient, startRedis } from '../support/redis.js';
import { onceOf } from './kit.js';

const refusal = (make: () => unknown): Error & { code?: string } => {
  try {
    make();
  } catch (error) {
    return error as Error;
  }
  throw new Error('it was not refused');
};

describe('what createOnce() is given', () => {
  const store = memoryOnce();
  test.each([
    [{}, 'options.store: expected what memoryOnce(), redisOnce() or coordOnce() gives, got undefined'],
    [{ store: 'redis' }, 'options.store:'],
    [{ store, prefix: 1 }, 'options.prefix: expected a string, got number'],
    [{ store, prefix: 'x'.repeat(65) }, 'options.prefix: expected at most 64 bytes, got 65'],
    [{ store, codec: {} }, 'options.codec: expected an object with encode() and decode()'],
    [{ store, maxResultBytes: 0 }, 'options.maxResultBytes: expected a whole number from 1'],
    [{ store, logger: 1 }, 'options.logger:'],
    [{ store, ttl: 1 }, 'options.ttl: unknown option'],
  ])('%o', (options, message) => {
    const error = refusal(() => createOnce(options as unknown as OnceOptions));
    expect(error.code).toBe('ERR_INVALID_ARGUMENT');
    expect(error.message).toContain(message);
  });
});

test.each([
  [() => memoryOnce({ maxKeys: 0 }), 'options.maxKeys: expected a whole number from 1'],
  [() => memoryOnce({ keys: 1 } as object), 'options.keys: unknown option'],
  [() => redisOnce({} as never), 'client: expected a client of ioredis or node-redis'],
  [() => redisOnce(undefined as never), 'client: expected a client of ioredis or node-redis, got undefined'],
  [() => redisOnce({ eval() {}, evalsha() {} } as never, { storeTimeoutMs: -1 }), 'options.storeTimeoutMs:'],
  [() => coordOnce(undefined as never), 'coord: expected a client of rollcall/coord, got undefined'],
  [() => coordOnce({} as Coord), 'coord: expected a client of rollcall/coord'],
])('%s', (make, message) => {
  const error = refusal(make);
  expect(error.code).toBe('ERR_INVALID_ARGUMENT');
  expect(error.message).toContain(message);
});

describe('what a call is given', () => {
  const once = createOnce({ store: memoryOnce(), logger: false });
  const never = () => {
    throw new Error('it is not to be run');
  };
  test.each([
    [[undefined, 1000], 'key: expected a string, got undefined'],
    [['', 1000], 'key: expected a string that is not empty'],
    [['x'.repeat(257), 1000], 'key: expected at most 256 bytes, got 257'],
    [['€'.repeat(86), 1000], 'key: expected at most 256 bytes, got 258'],
    [['x'.repeat(1 << 20), 1000], 'key: expected at most 256 bytes, got 1048576'],
    [['\ud800', 1000], 'key: expected a string of well-formed Unicode'],
    [['k'], 'ttlMs: expected a whole number, got undefined'],
    [['k', 0], 'ttlMs: expected a whole number from 1'],
    [['k', 1.5], 'ttlMs: expected a whole number from 1'],
    [['k', -1], 'ttlMs: expected a whole number from 1'],
    [['k', Number.NaN], 'ttlMs: expected a whole number from 1'],
    [['k', Number.POSITIVE_INFINITY], 'ttlMs: expected a whole number from 1'],
    [['k', '24h'], 'ttlMs: expected a whole number from 1'],
    [['k', 1000, 'fn'], 'fn: expected a function, got string'],
    [['k', 1000, never, 1], 'options: expected an object, got number'],
    [['k', 1000, never, { timeoutMs: 1 }], 'options.timeoutMs: unknown option'],
    [['k', 1000, never, { scope: '' }], 'options.scope: expected a string that is not empty'],
    [['k', 1000, never, { scope: 'x'.repeat(257) }], 'options.scope: expected at most 256 bytes'],
    [['k', 1000, never, { fingerprint: {} }], 'options.fingerprint: expected a string or bytes, got object'],
    [['k', 1000, never, { fingerprint: 'a\udc00' }], 'options.fingerprint: expected a string of well-formed Unicode'],
    [['k', 1000, never, { whenRunning: 'wait' }], 'options.whenRunning: expected "join" or "reject"'],
    [['k', 1000, never, { joinTimeoutMs: 0 }], 'options.joinTimeoutMs: expected a whole number from 1'],
    [['k', 1000, never, { lockMs: 999 }], 'options.lockMs: expected a whole number from 1000 to 3600000, got 999'],
    [['k', 1000, never, { afterCrash: true }], 'options.afterCrash: expected "retry" or "unknown"'],
    [['k', 1000, never, { cacheErrors: true }], 'options.cacheErrors: expected a function'],
    [['k', 1000, never, { onStoreFailure: 'allow' }], 'options.onStoreFailure: expected "reject" or "run"'],
    [['k', 1000, never, { signal: {} }], 'options.signal: expected an AbortSignal'],
  ])('%#', async (args, message) => {
    for (const method of ['do', 'execute'] as const) {
      const [key, ttlMs, fn = never, options] = args as [string, number, (() => void)?, RunOptions?];
      const error = await failure(once[method](key, ttlMs, fn, options));
      expect(error.code).toBe('ERR_INVALID_ARGUMENT');
      expect(error.message).toContain(message);
      expect(error.message.length).toBeLessThan(300);
    }
  });

  test('of other calls', async () => {
    for (const [call, message] of [
      [once.clear(''), 'key: expected a string that is not empty'],
      [once.clear('k', { force: 1 as never }), 'options.force: expected true or false'],
      [once.clear('k', { forced: true } as never), 'options.forced: unknown option; did you mean "force"?'],
      [once.resolve('k', 1n), 'result: expected what JSON gives back as it was, got a bigint'],
      [once.inspect('k', { scope: 1 as never }), 'options.scope: expected a string'],
    ] as const) {
      const error = await failure(call);
      expect([error.code, error.message]).toEqual(['ERR_INVALID_ARGUMENT', expect.stringContaining(message)]);
    }
  });

  test('a signal that has fired: nothing is run', async () => {
    const error = await failure(once.do('aborted', 1000, never, { signal: AbortSignal.abort() }));
    expect(error).toMatchObject({ code: 'ERR_ABORTED', name: 'AbortError' });
    expect(await once.inspect('aborted')).toBe(null);
  });
});

test('a memory that is full of what still counts runs nothing new; what is over makes room', async () => {
  const once = createOnce({ store: memoryOnce({ maxKeys: 2 }), logger: false });
  await once.do('a', 60_000, () => {});
  await once.do('b', 1, () => {});
  await new Promise((resolve) => setTimeout(resolve, 5));
  expect(await once.do('c', 60_000, () => {})).toBe('ran');
  let ran = 0;
  const error = await failure(once.do('d', 60_000, () => void ran++));
  expect(error).toMatchObject({ code: 'ERR_UNAVAILABLE', message: expect.stringContaining('maxKeys') });
  expect(ran).toBe(0);
  expect(await once.do('a', 60_000, () => {})).toBe('done');
});

test('a codec of the program, and one that fails', async (finish) => {
  const reviver = (_: string, value: unknown) =>
    typeof value === 'string' && /^\d+n$/.test(value) ? BigInt(value.slice(0, -1)) : value;
  const codec = {
    encode: (value: unknown) => JSON.stringify(value, (_, inner) => (typeof inner === 'bigint' ? `${inner}n` : inner)),
    decode: (text: string) => JSON.parse(text, reviver) as unknown,
  };
  const store = memoryOnce();
  const once = onceOf(finish, store, { codec });
  for (let i = 0; i < 2; i++) expect(await once.execute('k', 1000, () => ({ sum: 10n }))).toEqual({ sum: 10n });
  const failing = {
    encode: () => 'x',
    decode: () => {
      throw new Error('of the codec');
    },
  };
  const other = onceOf(finish, memoryOnce(), { codec: failing });
  expect(await other.execute('k', 1000, () => 5)).toBe(5);
  expect(await failure(other.execute('k', 1000, () => 5))).toMatchObject({ code: 'ERR_BAD_RECORD', key: 'k' });
});

test('what others have put there is told of, and left as it is', async (finish) => {
  await using server = await startRedis();
  const client = await redisClient(finish, 'ioredis', server.url);
  const byRedis = onceOf(finish, redisOnce(client as never));
  await server.ask('SET idempotent:guide 1');
  await server.ask('HSET idempotent:hash v 1 u 0 d what');
  const coord = await connectCoord({ url: `memory://${uniqueName('once')}`, logger: false });
  finish.onTestFinished(() => coord.close());
  const byCoord = onceOf(finish, coordOnce(coord));
  await byCoord.do('k', 60_000, () => {});
  const [entry] = await coord.config.list('/once/');
  await coord.config.set(entry?.key as string, '1');
  const calls = [
    () => byRedis.do('guide', 1, () => {}),
    () => byRedis.inspect('hash'),
    () => byCoord.do('k', 1, () => {}),
  ];
  for (const call of calls) {
    expect(await failure(call() as Promise<unknown>)).toMatchObject({ code: 'ERR_BAD_RECORD', retryable: false });
  }
  expect(await server.ask('TYPE idempotent:guide')).toBe('+string');
});

test.for([
  ['allkeys-lru', [['warn', 'maxmemory-policy of Redis is allkeys-lru']]],
  ['noeviction', []],
] as const)('a Redis that forgets when it is full is warned of: %s', async ([policy, expected], finish) => {
  await using server = await startRedis(['--maxmemory', '64mb', '--maxmemory-policy', policy]);
  const told: [string, string][] = [];
  const logger = {
    info: (text: string) => told.push(['info', text]),
    warn: (text: string) => told.push(['warn', text]),
  };
  const once = createOnce({ store: redisOnce(await redisClient(finish, 'ioredis', server.url)), logger });
  await once.do('k', 1000, () => {}); // it comes after the question
  expect(told).toEqual(expected.map(([level, text]) => [level, expect.stringContaining(text as string)]));
});

test('a Redis that does not say what it does when it is full is used all the same', async (finish) => {
  await using server = await startRedis();
  expect(await server.ask('ACL SETUSER default -info')).toBe('+OK');
  const told: string[] = [];
  const store = redisOnce(await redisClient(finish, 'ioredis', server.url));
  const once = createOnce({ store, logger: { info: (text: string) => told.push(text) } });
  expect(await once.do('k', 1000, () => {})).toBe('ran');
  expect(told).toEqual([expect.stringContaining('should be noeviction')]);
});
