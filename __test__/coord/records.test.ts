// Definitions whose key ends in "/": a record of names, each entry of which is accepted or refused by itself.
import { join } from 'node:path';
import { MemoryServer } from 'rollcall';
import { type ConfigRef, defineConfig } from 'rollcall/coord';
import { expect, test } from 'vitest';
import { startEtcd } from '../support/etcd.js';
import { temporaryFolder, uniqueName } from '../support/process.js';
import { client, type Finish, failure, inMemory, limits, until } from './kit.js';

const base = '/config/dev/orders/rules/';
const rules = defineConfig({ key: '/config/{env}/{service}/rules/', schema: limits });

function heard<T>(ref: ConfigRef<T>) {
  const told: unknown[] = [];
  ref.on('change', (value) => told.push(value));
  ref.on('rejected', ({ issues }) => told.push(issues.map(({ entry, path }) => `${entry}: ${path}`)));
  return told;
}

test('each name has its value, made of its own layers', async (finish) => {
  const { config } = await inMemory(finish, { labels: { canary: 'true' }, instance: 'a' });
  const ref = await config.open(rules);
  expect([ref.value, ref.source]).toEqual([{}, 'default']);
  await config.setAll({
    '/config/global/rules/send.json': { max: 1, low: 1 },
    '/config/dev/global/rules/only': { max: 2 },
    [`${base}send.json`]: { max: 3 },
    [`${base}deep/er.json`]: { max: 4 },
    [`${base}send.json/@canary=true`]: { canary: 5 },
    [`${base}send.json/@canary=false`]: { canary: 6 },
    [`${base}send.json/@instance=a`]: { own: 7 },
    [`${base}@canary=true`]: { max: 8 },
    '/config/dev/orders/rules-else/x': { max: 9 },
  });
  await until('all', () => 'only' in ref.value);
  expect(ref.value).toEqual({
    'deep/er.json': { max: 4 },
    only: { max: 2 },
    'send.json': { max: 3, low: 1, canary: 5, own: 7 },
  });
  expect([Object.isFrozen(ref.value), Object.isFrozen(ref.value.only), ref.source]).toEqual([true, true, 'store']);
  const { only } = ref.value;
  await config.delete(`${base}send.json`);
  await until('the layer below', () => ref.value['send.json']?.max === 1);
  expect(ref.value.only).toBe(only);
  await config.setAll({ '/config/global/rules/send.json': null, [`${base}send.json/@canary=true`]: null });
  await until('what is left to be refused', () => ref.rejected);
  await config.delete(`${base}send.json/@instance=a`);
  await until('the name to be gone', () => !('send.json' in ref.value));
  expect(ref.rejected).toBeUndefined();
});

test('an entry that is refused stays as it was, and is named; the others change', async (finish) => {
  const { config } = await inMemory(finish, { settleMs: 0, service: 'orders', instance: 'a', reportApplied: true });
  await config.setAll({ [`${base}a`]: { max: 1 }, [`${base}b`]: { max: 1 } });
  const ref = await config.open(rules);
  const told = heard(ref);
  const revision = await config.setAll({
    [`${base}a`]: { max: 'two' },
    [`${base}b`]: { max: 2 },
    [`${base}c`]: '{ broken',
    [`${base}d`]: { max: 2 },
  });
  await until('the change', () => ref.value.b?.max === 2);
  expect(ref.value).toEqual({ a: { max: 1 }, b: { max: 2 }, d: { max: 2 } });
  expect(ref.rejected).toMatchObject({ code: 'ERR_INVALID_CONFIG', key: base, revision: String(revision) });
  expect(ref.rejected?.message).toMatch(/rules\/, at revision \d+ of the store: a: max: expected a whole number; c: /);
  expect(told).toEqual([{ a: { max: 1 }, b: { max: 2 }, d: { max: 2 } }, ['a: max', 'c: max']]);
  await until('the report', async () => (await config.applied(rules))[0]?.rejected?.includes('a: max'));

  // What is wrong already is not told again.
  await config.set(`${base}b`, { max: 3 });
  await until('the next', () => ref.value.b?.max === 3);
  expect(told.length).toBe(3);
  await config.setAll({ [`${base}a`]: { max: 4 }, [`${base}c`]: null });
  await until('all to be well', () => !ref.rejected);
  expect(ref.value).toEqual({ a: { max: 4 }, b: { max: 3 }, d: { max: 2 } });
  await config.delete(`${base}a`);
  await until('one to be gone', () => !('a' in ref.value));
});

test('with `whole` one entry refuses all of them', async (finish) => {
  const { config } = await inMemory(finish);
  await config.setAll({ [`${base}a`]: { max: 1 }, [`${base}b`]: { max: 1 } });
  const ref = await config.open(defineConfig({ key: '/config/{env}/{service}/rules/', schema: limits, whole: true }));
  await config.setAll({ [`${base}a`]: { max: 'two' }, [`${base}b`]: { max: 2 } });
  await until('the refusal', () => ref.rejected);
  expect(ref.value).toEqual({ a: { max: 1 }, b: { max: 1 } });
  await config.set(`${base}a`, { max: 2 });
  await until('both', () => ref.value.a?.max === 2);
  expect(ref.value).toEqual({ a: { max: 2 }, b: { max: 2 } });
});

test('a program may refuse the record as a whole, and open one entry as a part', async (finish) => {
  const { config } = await inMemory(finish);
  await config.set(`${base}a`, { max: 1 });
  const ref = await config.open(rules);
  const part = ref.select((all) => all.a?.max ?? 0);
  ref.beforeChange((next) => {
    if (Object.keys(next).length > 2) throw new Error('too many');
  });
  await config.setAll({ [`${base}b`]: { max: 1 }, [`${base}c`]: { max: 1 } });
  await until('the refusal', () => ref.rejected?.message.includes('too many'));
  expect(ref.value).toEqual({ a: { max: 1 } });
  await config.setAll({ [`${base}c`]: null, [`${base}a`]: { max: 2 } });
  await until('the part', () => part.value === 2);
  expect(ref.value).toEqual({ a: { max: 2 }, b: { max: 1 } });
});

function folderOf({ onTestFinished }: Finish): string {
  const folder = temporaryFolder();
  onTestFinished(() => folder.remove());
  return join(folder.path, 'cache');
}

test('what was good last of each entry outlives the process, and a start without the store', async (finish) => {
  const cacheDir = folderOf(finish);
  const namespace = uniqueName('coord');
  const server = MemoryServer.of(namespace);
  const url = `memory://${namespace}`;
  const first = await client(finish, url, { cacheDir });
  await first.config.setAll({ [`${base}a`]: { max: 1 }, [`${base}b`]: { max: 1 } });
  const ref = await first.config.open(rules);
  await first.config.setAll({ [`${base}a`]: { max: 'two' }, [`${base}b`]: { max: 2 } });
  await until('the change', () => ref.value.b?.max === 2);
  await first.close();

  const second = await client(finish, url, { cacheDir });
  const again = await second.config.open(rules); // the store has what is refused
  expect([again.value, again.source]).toEqual([{ a: { max: 1 }, b: { max: 2 } }, 'store']);
  expect(again.rejected?.issues).toMatchObject([{ entry: 'a' }]);
  await second.close();

  server.setAway(true);
  const third = await client(finish, url, { cacheDir, connectTimeoutMs: 100 });
  const alone = await third.config.open(rules);
  expect([alone.value, alone.source]).toEqual([{ a: { max: 1 }, b: { max: 2 } }, 'file']);
  server.setAway(false);
  await until('fresh', () => !alone.stale);
  expect(alone.rejected?.issues).toMatchObject([{ entry: 'a' }]);
});

test('an unreachable store is no empty record', async (finish) => {
  const namespace = uniqueName('coord');
  MemoryServer.of(namespace).setAway(true);
  const coord = await client(finish, `memory://${namespace}`, { lazy: true, connectTimeoutMs: 100 });
  expect(await failure(coord.config.open(rules))).toMatchObject({ code: 'ERR_UNAVAILABLE' });
  const withDefault = defineConfig({
    key: '/config/{env}/{service}/rules/',
    schema: limits,
    default: { a: { max: 1 } },
  });
  expect((await coord.config.open(withDefault)).value).toEqual({ a: { max: 1 } });
});

test('what can be no record is refused', () => {
  const define = (more: object) => () =>
    defineConfig({ key: '/a/b/', schema: limits, ...more } as { key: '/a/b/'; schema: typeof limits });
  expect(define({ env: { a: 'A' } })).toThrow('definition.env: expected none, for the key ends in "/"');
  expect(define({ key: '/a/b', whole: true })).toThrow('definition.whole: expected none, for the key does not end');
  expect(define({ layers: ['/a/c'] })).toThrow('definition.layers[0]: expected a key that ends in "/"');
  expect(define({ key: '/a/b', layers: ['/a/c/'] })).toThrow('definition.layers[0]: expected a key without an end');
  expect(define({ default: 1 })).toThrow('definition.default: expected an object');
  expect(define({ key: '/a/' })).toThrow('definition.key: expected a key of at least two parts');
});

test('names that are fields of objects are names', async (finish) => {
  const { config } = await inMemory(finish);
  await config.setAll({ [`${base}__proto__`]: { max: 1 }, [`${base}constructor`]: { max: 2 } });
  const { value } = await config.open(rules);
  expect(Object.entries(value)).toEqual([
    ['__proto__', { max: 1 }],
    ['constructor', { max: 2 }],
  ]);
  expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
});

test('on etcd, under load: a record is of one revision, and each entry is the last good one', async (finish) => {
  const server = await startEtcd();
  finish.onTestFinished(() => server.close());
  const { config } = await client(finish, server.url, { history: 0 });
  const reader = await client(finish, server.url, { settleMs: 0 });
  const ref = await reader.config.open(rules);
  let mixed = 0;
  ref.on('change', ({ a, b, c }) => {
    if (a?.max !== b?.max || (c?.max ?? 0) % 2 !== 0) mixed++;
  });
  const rounds = 100;
  for (let n = 1; n <= rounds; n++) {
    const c = n % 2 === 0 ? { max: n } : { max: 'odd' };
    await config.setAll({ [`${base}a`]: { max: n }, [`${base}b`]: { max: n }, [`${base}c`]: c });
  }
  await until('the last', () => ref.value.a?.max === rounds);
  expect([mixed, ref.value.c?.max]).toEqual([0, rounds]);
});
