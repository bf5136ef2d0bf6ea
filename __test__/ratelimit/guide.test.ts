// The guide's page of ratelimit, section 7: its rules as its files have them, in an etcd, and its way to ask.
//
//   config.RulesPath = "/config/prod/message-service/ratelimit/"
//   allowed, err := rateLimitProvider.Allow(ctx, "user:123", "send_message")
import { createRateLimiter } from 'rollcall/ratelimit';
import { expect, test } from 'vitest';
import { client, until } from '../coord/kit.js';
import { startEtcd } from '../support/etcd.js';
import { startRedis } from '../support/redis.js';
import { CLIENTS } from './kit.js';

const PATH = '/config/prod/message-service/ratelimit/';

test('rules of the guide’s Go services are read as they are, and change while the program runs', async (finish) => {
  const [etcd, server] = await Promise.all([startEtcd(), startRedis()]);
  finish.onTestFinished(async () => void (await Promise.all([etcd.close(), server[Symbol.asyncDispose]()])));
  await etcd.put(
    `${PATH}send_message.json`,
    '{"mode":"distributed","rate":0.5,"capacity":3,"description":"messages of a user"}',
  );
  await etcd.put(
    `${PATH}api.json`,
    '{"login":{"mode":"local","rate":0.1,"capacity":5},"search":{"mode":"local","rate":30.0,"capacity":60}}',
  );
  const coord = await client(finish, etcd.url, { env: 'prod', service: 'message-service' });
  const redis = await CLIENTS['node-redis'](finish, server.url);
  const rateLimit = createRateLimiter({
    rules: { coord, path: '/config/{env}/{service}/ratelimit/' },
    redis,
    storeTimeoutMs: 5000,
    logger: false,
  });
  finish.onTestFinished(() => rateLimit.close());
  const told: string[] = [];
  rateLimit.on('refused', (name, error) => told.push(`${name}: ${error.message}`));
  await rateLimit.ready();

  expect(Object.keys(rateLimit.rules()).sort()).toEqual(['login', 'search', 'send_message']);
  const send = async (times: number) => {
    let count = 0;
    for (let i = 0; i < times; i++) if ((await rateLimit.allow('user:123', 'send_message')).allowed) count++;
    return count;
  };
  expect(await send(5)).toBe(3);
  expect((await rateLimit.allow('user:456', 'send_message')).by, 'another user').toBe('redis');
  expect((await rateLimit.allow('user:123', 'nosuch')).allowed, 'unknown: refused, as the guide says').toBe(false);
  expect(rateLimit.allowNow('user:123', 'login', 5).remaining).toBe(0);

  await etcd.put(`${PATH}send_message.json`, '{"mode":"distributed","rate":0.5,"capacity":5}');
  await until('the new rule', () => rateLimit.rules().send_message?.capacity === 5);
  const more = await send(9);
  expect(more, 'the two more that it may have now, and no fresh bucket').toBeGreaterThanOrEqual(2);
  expect(more).toBeLessThan(5);

  await etcd.put(`${PATH}send_message.json`, '{"mode":"distributed","rate":"fast","capacity":5}');
  await until('the refusal', () => told.length === 1);
  expect(told[0]).toContain('rule.rate: expected a number above 0');
  expect(rateLimit.rules().send_message?.capacity).toBe(5);

  await etcd.put(
    `${PATH}api.json`,
    '{"login":{"mode":"local","rate":-1,"capacity":5},"search":{"mode":"local","rate":30.0,"capacity":90}}',
  );
  await until('the other rule of the file', () => rateLimit.rules().search?.capacity === 90);
  expect(told[1]).toContain('login: rules.api.json.login.rate: expected a number above 0');
  expect(rateLimit.rules().login, 'the one before it').toMatchObject({ rate: 0.1, capacity: 5 });

  await etcd.kill();
  expect(rateLimit.allowNow('user:789', 'search').allowed, 'etcd is away, the rules stay').toBe(true);
  await etcd.start();
  await coord.config.delete(`${PATH}api.json`, { timeoutMs: 20_000 });
  await until('the rules to be gone', () => rateLimit.rules().search === undefined);
  expect(rateLimit.allowNow('user:789', 'search').by).toBe('unknown');
});
