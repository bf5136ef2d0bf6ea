// The guide's page of breaker, section 9: its policies as its files have them, in an etcd, and its way to call.
//
//   config := breaker.GetDefaultConfig("message-service", "production")
//   breakerProvider, err := breaker.New(ctx, config, breaker.WithCoordProvider(coordProvider)); defer breakerProvider.Close()
import { BreakerOpenError, createBreakers } from 'rollcall/breaker';
import { expect, test } from 'vitest';
import { client, failure, until } from '../coord/kit.js';
import { startEtcd } from '../support/etcd.js';

/** Its coord puts `/config` before each key of configuration. */
const PATH = '/config/config/prod/message-service/policies/';

test('GetBreaker, Do and ErrBreakerOpen, by the files of the guide, which change while the program runs', async (finish) => {
  const etcd = await startEtcd();
  finish.onTestFinished(() => etcd.close());
  await etcd.put(`${PATH}default.json`, '{"failureThreshold":5,"successThreshold":2,"openStateTimeout":"1m"}');
  const coord = await client(finish, etcd.url, { env: 'prod', service: 'message-service' });
  using breakerProvider = createBreakers({
    policies: { coord, path: '/config/config/{env}/{service}/policies/' },
    logger: false,
  });
  const refused: string[] = [];
  breakerProvider.on('refused', (name, error) => refused.push(`${name}: ${error.message}`));
  await breakerProvider.ready();

  // b := breakerProvider.GetBreaker("grpc:user-service:GetUserInfo")
  const b = breakerProvider.get('grpc:user-service:GetUserInfo');
  // err := b.Do(ctx, func() error { return callDownstreamService(ctx) })
  let calls = 0;
  const down = new Error('调用失败');
  const callDownstreamService = () => {
    calls++;
    return Promise.reject(down);
  };
  for (let n = 0; n < 5; n++) expect(await failure(b.do(callDownstreamService)), 'the error of the call').toBe(down);
  // if errors.Is(err, breaker.ErrBreakerOpen) { … }
  const err = await failure(b.do(callDownstreamService));
  expect([err instanceof BreakerOpenError, calls]).toEqual([true, 5]);
  expect(err.retryAfterMs, 'the minute of the file').toBeGreaterThan(50_000);
  expect(await breakerProvider.get('grpc:user-service:GetUser').do(() => 'fine'), 'another one').toBe('fine');

  // The file is changed, as Go writes a time.Duration: the guide's own would go on for the minute.
  await etcd.put(`${PATH}default.json`, '{"failureThreshold":5,"successThreshold":2,"openStateTimeout":1000000000}');
  await until('it to try again', async () => (await b.do(() => 'fine').catch(() => 'open')) === 'fine');
  expect([b.state, await b.do(() => 'fine'), b.state]).toEqual(['half-open', 'fine', 'closed']);

  await etcd.put(`${PATH}default.json`, '{"failureThreshold":"five"}');
  await until('the refusal', () => refused.length === 1);
  expect(refused[0]).toContain('failureThreshold: expected a whole number');
  for (let n = 0; n < 4; n++) await failure(b.do(callDownstreamService));
  expect(b.state, 'by the policy before').toBe('closed');
});
