// The guide's chapter on once, in its words, on a Redis as its cache component is one.
import { createOnce, type Once, redisOnce } from 'rollcall/once';
import { expect, test } from 'vitest';
import { failure } from '../coord/kit.js';
import { redisClient, startRedis } from '../support/redis.js';

const HOUR_MS = 60 * 60 * 1000;

test('do, execute and clear, as the guide calls them', async (finish) => {
  await using server = await startRedis();
  const cache = await redisClient(finish, 'node-redis', server.url);
  // config.KeyPrefix = "idempotent:"; once.New(ctx, config, once.WithCacheProvider(cacheProvider)); defer onceProvider.Close()
  await using onceProvider: Once = createOnce({ store: redisOnce(cache), prefix: 'idempotent:' });

  // onceProvider.Do(ctx, "payment:process:order-123", 24*time.Hour, func() error { return processPayment(ctx, orderData) })
  let payments = 0;
  const pay = () => onceProvider.do('payment:process:order-123', 24 * HOUR_MS, () => void payments++);
  expect([await pay(), await pay(), payments]).toEqual(['ran', 'done', 1]);
  expect(await server.ask('PTTL idempotent:payment:process:order-123')).toMatch(/^:86[34]\d{5}$/); // the time that was given

  // a failure is returned, and the next call runs it: the guide's own marks it before it runs, and loses it
  const refused = new Error('处理支付失败');
  const failing = onceProvider.do('payment:process:order-124', 24 * HOUR_MS, () => Promise.reject(refused));
  expect(await failure(failing)).toBe(refused);
  expect(await onceProvider.do('payment:process:order-124', 24 * HOUR_MS, () => {})).toBe('ran');

  // result, err := onceProvider.Execute(ctx, "doc:create:xyz", 48*time.Hour, func() (any, error) { return createDocument(ctx, docData) })
  let documents = 0;
  const createDocument = async () => ({ id: ++documents, title: 'xyz' });
  const create = () => onceProvider.execute('doc:create:xyz', 48 * HOUR_MS, createDocument);
  expect(await Promise.all([create(), create(), create()])).toEqual(Array(3).fill({ id: 1, title: 'xyz' }));

  // onceProvider.Clear(ctx, "payment:process:order-123")
  expect(await onceProvider.clear('payment:process:order-123')).toBe(true);
  expect([await pay(), payments]).toEqual(['ran', 2]);
});
