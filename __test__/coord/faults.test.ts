// What befalls etcd, and what a configuration makes of it. SIZE=full is the size of `make hard`.
import { defineConfig } from 'rollcall/coord';
import { describe, expect, test } from 'vitest';
import { ETCD_VERSIONS, startEtcd } from '../support/etcd.js';
import { startTcpProxy } from '../support/tcp.js';
import {
  anything,
  client,
  expectMostAtOnce,
  type Finish,
  FULL,
  failure,
  LIMITS,
  LIMITS_KEY,
  opened,
  until,
} from './kit.js';

const key = LIMITS_KEY;

describe.each(ETCD_VERSIONS)('etcd %s', (version) => {
  async function begin(finish: Finish, options: Parameters<typeof startEtcd>[0] = {}) {
    const server = await startEtcd({ version, ...options });
    finish.onTestFinished(() => server.close());
    return server;
  }

  test('killed and started again: the value stays, stale, then fresh, with what was changed by others', async (finish) => {
    const server = await begin(finish);
    await server.put(key, '{"max":1}');
    const { ref, told } = await opened(finish, server.url);
    await server.kill();
    await until('stale', () => ref.stale);
    expect(ref.value).toEqual({ max: 1 });
    await server.start();
    for (const max of [2, 3, 4]) await server.put(key, `{"max":${max}}`);
    await until('the last', () => ref.value.max === 4);
    await until('fresh', () => told.includes('fresh'));
    expect([told[0], ref.stale]).toEqual(['stale', false]);
    expect(told).not.toContain('reset');
    // Started before it was changed, so it may have been read in between; but never back in time.
    const values = told.filter((one) => typeof one === 'number');
    expect(values).toEqual([...values].sort());
  });

  test('cut off while it is changed and compacted: one change, and no older value', async (finish) => {
    const server = await begin(finish);
    const link = await startTcpProxy(server.hosts[0] as string);
    finish.onTestFinished(() => link.close());
    await server.put(key, '{"max":1}');
    const { ref, told } = await opened(finish, `etcd://${link.host}`);
    for (let round = 0; round < (FULL ? 20 : 1); round++) {
      told.length = 0;
      link.setEnabled(false);
      await until('stale', () => ref.stale);
      const last = 100 * (round + 1) + 20;
      for (let max = last - 18; max <= last; max++) await server.put(key, `{"max":${max}}`);
      await server.compact();
      link.setEnabled(true);
      await until('fresh', () => told.includes('fresh'));
      expect([told, ref.value]).toEqual([['stale', last, 'fresh'], { max: last }]);
    }
  });

  test('compacted under a live watch: nothing is missed', async (finish) => {
    const server = await begin(finish);
    await server.put(key, '{"max":1}');
    const { coord, ref, told } = await opened(finish, server.url);
    for (let max = 2; max <= 10; max++) {
      await coord.config.set(key, { max });
      await server.compact();
    }
    await until('the last', () => ref.value.max === 10);
    expect(told).not.toContain('stale');
    expect(told).not.toContain('reset');
  });

  test('restored from an older backup: it is told, and the older value is what lies there', async (finish) => {
    const server = await begin(finish);
    await server.put(key, '{"max":1}');
    const { ref, told } = await opened(finish, server.url);
    for (let round = 0; round < (FULL ? 5 : 1); round++) {
      const restore = await server.backup();
      for (const max of [2, 3, 4, 5]) await server.put(key, `{"max":${max}}`);
      await until('the latest', () => ref.value.max === 5);
      told.length = 0;
      await restore();
      await until('the older value', () => ref.value.max === 1);
      await until('fresh', () => told.includes('fresh'));
      expect(told).toEqual(['stale', 'reset', 1, 'fresh']);
    }
  });

  test('a write whose answer never comes says that it may be made, and is not sent twice', async (finish) => {
    const server = await begin(finish);
    const link = await startTcpProxy(server.hosts[0] as string);
    finish.onTestFinished(() => link.close());
    const { config } = await client(finish, `etcd://${link.host}`, { history: 0 });
    const first = await config.set('/config/counter', 0);
    link.dropAnswers();
    const late = await failure(config.set('/config/counter', 1, { timeoutMs: 500 }));
    expect(late).toMatchObject({ code: 'ERR_TIMEOUT', operation: 'set', outcomeUnknown: true, retryable: false });
    expect(await server.get('/config/counter')).toBe('1');
    const signal = AbortSignal.timeout(500);
    const aborted = await failure(config.set('/config/counter', 2, { signal }));
    expect(aborted).toMatchObject({ code: 'ERR_ABORTED', name: 'AbortError', operation: 'set', outcomeUnknown: true });
    expect(await server.get('/config/counter')).toBe('2');
    link.dropAnswers(false);
    link.sever();
    expect((await config.raw('/config/counter'))?.revision).toBe(first + 2n);
  });

  test('a user who may not is told what to be granted, and one who may only read can', async (finish) => {
    const server = await begin(finish, {
      users: [
        { name: 'reader', password: 'r', roles: [{ prefix: '/config/', permission: 'read' }] },
        { name: 'other', password: 'o', roles: [{ prefix: '/other/' }] },
      ],
    });
    const at = (user: string) => `etcd://${user}@${server.hosts[0]}`;
    await server.put(key, '{"max":1}');
    const { coord, ref } = await opened(finish, at('reader:r'));
    expect(ref.value).toEqual({ max: 1 });
    const bare = await client(finish, at('reader:r'), { history: 0 });
    expect(await failure(bare.config.set(key, { max: 2 }))).toMatchObject({
      code: 'ERR_PERMISSION_DENIED',
      operation: 'set',
      message: expect.stringMatching(/"reader" may not write .*--prefix=true readwrite \/config\/dev\/orders\//),
    });
    expect(await failure(coord.config.set(key, { max: 2 }))).toMatchObject({
      code: 'ERR_PERMISSION_DENIED',
      operation: 'set',
      message: expect.stringMatching(
        /"reader" may not read .*readwrite \/config-history\/config\/dev\/orders\/limits\//,
      ),
    });
    const other = await client(finish, at('other:o'));
    const refused = await Promise.all([other.config.raw(key), other.config.open(LIMITS)].map(failure));
    const denied = { code: 'ERR_PERMISSION_DENIED', message: expect.stringContaining('may not read') };
    expect(refused).toMatchObject([
      { ...denied, operation: 'raw' },
      { ...denied, operation: 'open', message: expect.stringMatching(/--prefix=true readwrite \/config\/$/) },
    ]);
  });

  test('more changes at once than it takes are refused, and none is made', async (finish) => {
    const server = await begin(finish);
    await expectMostAtOnce(await client(finish, server.url, { history: 0 }));
  });

  test('bytes that are no text are shown as such, and refused by what is opened', async (finish) => {
    const server = await begin(finish);
    const base64 = (bytes: Buffer | string) => Buffer.from(bytes as string).toString('base64');
    await server.call('/v3/kv/put', { key: base64(key), value: base64(Buffer.from([0x7b, 0xff, 0x7d])) });
    const { config } = await client(finish, server.url);
    expect(await config.raw(key)).toMatchObject({ value: '{\ufffd}', isText: false });
    const refused = await failure(config.open(LIMITS));
    expect(refused).toMatchObject({
      code: 'ERR_INVALID_CONFIG',
      key,
      issues: [{ message: expect.stringContaining('no UTF-8') }],
    });
  });
});

test('transactions over several folders, read by a link that is cut again and again: no snapshot is mixed or goes back', async (finish) => {
  const server = await startEtcd();
  finish.onTestFinished(() => server.close());
  const link = await startTcpProxy(server.hosts[0] as string);
  finish.onTestFinished(() => link.close());
  const writer = await client(finish, server.url);
  const reader = await client(finish, `etcd://${link.host}`, { settleMs: 0 });
  const keys = ['/config/global/sum', '/config/dev/orders/sum', '/config/dev/orders/twin'];
  const write = (n: number) =>
    writer.config.setAll(Object.fromEntries(keys.map((one, place) => [one, { [`n${place}`]: n }])));
  await write(0);
  const sum = await reader.config.open(defineConfig({ key: '/config/{env}/{service}/sum', schema: anything }));
  const twin = await reader.config.open(defineConfig({ key: '/config/{env}/{service}/twin', schema: anything }));
  let [last, changes, mixed] = [0, 0, 0];
  sum.on('change', (value) => {
    const { n0, n1 } = value as { n0: number; n1: number };
    const { n2 } = twin.value as { n2: number };
    if (n0 !== n1 || n1 !== n2 || n0 <= last) mixed++;
    last = n0;
    changes++;
  });
  const rounds = FULL ? 1000 : 200;
  const each = rounds / 10;
  let [n, cuts] = [0, 0];
  // As many as it takes until there was enough to look at: on a busy machine one is read where many were written.
  while (n < rounds || changes <= 10) {
    await write(++n);
    if (n % each === 0) {
      link.setEnabled(false);
      cuts++;
      await until('stale', () => sum.stale);
      link.setEnabled(true);
    }
  }
  await until('the last', () => last === n);
  expect(mixed).toBe(0);
  expect(cuts).toBeGreaterThanOrEqual(10);
});
