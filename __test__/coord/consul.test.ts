// What is Consul's own in a store of configuration: its keys, its rights, its limits, its silence.
import { defineConfig } from 'rollcall/coord';
import { expect, test } from 'vitest';
import { type ConsulOptions, startConsul } from '../support/consul.js';
import { client, expectMostAtOnce, type Finish, failure, limits, until } from './kit.js';

const key = '/config/dev/orders/limits';
const definition = defineConfig({ key: '/config/{env}/{service}/limits', schema: limits });

async function begin(finish: Finish, options?: ConsulOptions) {
  const { server, close } = await startConsul(options);
  finish.onTestFinished(close);
  return { server, url: `consul://${server.host}` };
}

test('a key has no slash in front there, and what others write is followed', async (finish) => {
  const { server, url } = await begin(finish);
  await server.call('PUT', '/v1/kv/config/dev/orders/limits', { max: 1 });
  const { config } = await client(finish, url);
  const ref = await config.open(definition);
  expect(ref.value).toEqual({ max: 1 });
  await server.call('PUT', '/v1/kv/config/dev/orders/limits', { max: 2 });
  await until('the change', () => ref.value.max === 2);
  const revision = await config.set('/config/global/limits', { more: 'ü' });
  const [pair] = await server.get<{ Value: string; ModifyIndex: number }[]>('/v1/kv/config/global/limits');
  expect(Buffer.from(pair?.Value ?? '', 'base64').toString()).toBe('{"more":"ü"}');
  expect(BigInt(pair?.ModifyIndex ?? 0)).toBe(revision);
  await until('the layer', () => ref.value.more === 'ü');
  await server.ask('DELETE' as 'PUT', '/v1/kv/config/global/limits');
  await until('the layer to be gone', () => !('more' in ref.value));
});

test('a frozen agent: a write says that it may be made, and who follows is told', async (finish) => {
  const { server, url } = await begin(finish);
  const { config } = await client(finish, url, { history: 0, timeoutMs: 1000 });
  await config.set(key, { max: 1 });
  const ref = await config.open(definition);
  server.freeze();
  const late = await failure(config.set(key, { max: 2 }, { timeoutMs: 500 }));
  server.thaw();
  expect(late).toMatchObject({ code: 'ERR_TIMEOUT', operation: 'set', outcomeUnknown: true, retryable: false });
  await until('what was sent', () => ref.value.max === 2);
});

test('a token that may not write is told so, and one that may read can', async (finish) => {
  const { server, url } = await begin(finish, { acl: true });
  await server.call('PUT', '/v1/kv/config/dev/orders/limits', { max: 1 }, 'management');
  const { secret } = await server.token('key_prefix "" { policy = "read" }');
  const { config } = await client(finish, url, { token: secret } as object);
  expect((await config.open(definition)).value).toEqual({ max: 1 });
  const refused = await failure(config.set(key, { max: 2 }));
  expect(refused).toMatchObject({ code: 'ERR_PERMISSION_DENIED', operation: 'set', retryable: false });
  expect((await config.raw(key))?.value).toBe('{"max":1}');
});

test('more at once than it takes is refused, and none is made', async (finish) => {
  const { url } = await begin(finish);
  const coord = await client(finish, url, { history: 0 });
  await expectMostAtOnce(coord);
  const large = await failure(coord.config.set('/large', 'x'.repeat(600_000)));
  expect(large).toMatchObject({ code: 'ERR_INVALID_ARGUMENT', operation: 'set' });
});
