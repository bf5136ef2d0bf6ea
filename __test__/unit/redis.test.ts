// Scripts by the clients of programs: ioredis and node-redis, on a real server.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Script, Scripts } from '../../lib/common/redis.js';
import type { Finish } from '../coord/kit.js';
import { REDIS_LIBRARIES, type RedisServer, redisClient, startRedis } from '../support/redis.js';

let server: RedisServer & AsyncDisposable;
beforeAll(async () => {
  server = await startRedis();
});
afterAll(() => server?.[Symbol.asyncDispose]());

describe.each(REDIS_LIBRARIES)('%s', (library) => {
  const connect = (finish: Finish) => redisClient(finish, library, server.url);
  const echo = new Script("return { KEYS[1], ARGV[1], redis.call('INCR', KEYS[2]), false }");

  it('runs a script, also after the server has forgotten it', async (finish) => {
    const scripts = new Scripts('redis', await connect(finish));
    await server.wipe();
    expect(await scripts.run('test', echo, ['a', 'b'], ['c'], 5000)).toEqual(['a', 'c', 1, null]);
    expect(await server.ask('SCRIPT FLUSH')).toBe('+OK');
    expect(await scripts.run('test', echo, ['a', 'b'], ['c'], 5000)).toEqual(['a', 'c', 2, null]);
  });

  it('ends a call in its time while the server is frozen, and goes on afterwards', async (finish) => {
    const scripts = new Scripts('redis', await connect(finish));
    await scripts.run('test', echo, ['a', 'b'], ['c'], 5000);
    server.freeze();
    const failed = await scripts.run('test', echo, ['a', 'b'], ['c'], 100).catch((error: unknown) => error);
    server.thaw();
    expect(failed).toMatchObject({ code: 'ERR_TIMEOUT', outcomeUnknown: true, operation: 'test' });
    await scripts.run('test', echo, ['a', 'b'], ['c'], 5000);
  });

  it('tells what the server refuses as unavailable', async (finish) => {
    const scripts = new Scripts('redis', await connect(finish));
    const failed = await scripts
      .run('test', new Script('return nothing()'), [], [], 5000)
      .catch((error: unknown) => error);
    expect(failed).toMatchObject({ code: 'ERR_UNAVAILABLE', message: expect.stringContaining('test: Redis: ') });
    expect((failed as Error).cause).toBeInstanceOf(Error);
  });
});

it.each([[undefined], [null], [{}], ['redis://host'], [{ eval() {} }]])('refuses %j as a client', (client) => {
  expect(() => new Scripts('options.redis', client)).toThrow(
    /^options.redis: expected a client of ioredis or node-redis, got /,
  );
});
