// Secrets of a configuration: never shown, never on disk, and deciphered by the program.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { MemoryServer } from 'rollcall';
import { defineConfig, type StandardSchema } from 'rollcall/coord';
import { expect, test } from 'vitest';
import { temporaryFolder, uniqueName } from '../support/process.js';
import { anything, client, type Finish, failure, inMemory, schemaOf, until } from './kit.js';

type Db = Record<string, unknown>;

const SECRET = 'hunter"2';
const key = '/config/dev/orders/db';

/** Says all that it was given. */
const loud = schemaOf<Db>((value) => {
  const { user, password } = (value ?? {}) as { user?: unknown; password?: unknown };
  if (user === 'throws') throw new Error(`no ${JSON.stringify(value)}`);
  if (user !== undefined && typeof password === 'string') return { value: value as Db };
  return {
    issues: [
      { message: `expected a user and a password, got ${JSON.stringify(value)}`, path: [] },
      { message: `what is ${String(password)}?`, path: ['password'] },
    ],
  };
});
const define = (more: object = {}, schema: StandardSchema<unknown, Db> = loud) =>
  defineConfig({ key: '/config/{env}/{service}/db', schema, secret: ['password', 'tokens.*.key'], ...more });

function logged() {
  const lines: string[] = [];
  const write = (line: unknown) => void lines.push(String(line));
  return { lines, logger: { debug: write, info: write, warn: write, error: write } };
}

test('a refusal, a veto and the log of what listeners throw show none', async (finish) => {
  const { lines, logger } = logged();
  const { config } = await inMemory(finish, { logger, settleMs: 0, instance: 'a', reportApplied: true });
  await config.set(key, { password: SECRET });
  const shown: unknown[] = [await failure(config.open(define()))];
  await config.set(key, { user: 'a', password: SECRET });
  const ref = await config.open(define());
  expect(ref.value).toEqual({ user: 'a', password: SECRET });
  ref.on('rejected', (error) => shown.push(error));
  ref.subscribe((next) => {
    throw new Error(`can't use ${JSON.stringify(next)}`);
  });
  ref.on('change', (next) => {
    throw new Error(`nor ${next.password}`);
  });
  ref.beforeChange((next, previous) => {
    if (next.user === 'veto') throw new Error(`not ${next.password} after ${previous.password}`);
  });
  await config.set(key, { user: 'throws', password: SECRET });
  await until('the schema', () => shown.length === 2);
  await config.set(key, { user: 'veto', password: `${SECRET}2` });
  await until('the veto', () => shown.length === 3);
  expect(ref.rejected?.message).toContain('beforeChange() refused it: not … after …');
  await until('the report', async () => (await config.applied(define()))[0]?.rejected?.includes('beforeChange'));
  shown.push(await config.applied(define()));
  await config.set(key, { user: 'b', password: `${SECRET}3` });
  await until('the listeners', () => lines.filter((line) => line.includes('a listener of')).length === 2);
  const all = [...shown, ...lines].map((one) => inspect(one, { depth: 9 })).join('\n');
  expect(all).toContain('… (what is wrong with a secret is not shown)');
  expect(all).toContain('expected a user and a password, got {"password":"…"}');
  expect(all).not.toContain('hunter');
});

test('a difference shows that a secret is another one, and not which', async (finish) => {
  const { config } = await inMemory(finish);
  const label = `${key}/@canary=true`;
  const first = await config.set(key, { user: 'a', password: SECRET, tokens: [{ key: 't1' }, { key: 't2' }] });
  const second = await config.set(key, { user: 'b', password: SECRET, tokens: [{ key: 't1' }, { key: 't3' }] });
  const labelled = [await config.set(label, { password: 'x' }), await config.set(label, { password: 'y' })] as const;
  expect(await config.diff(key, first, second)).toContain('hunter'); // nothing is known of it yet
  for (const options of [{ definition: define() }, undefined]) {
    const shown = await config.diff(key, first, second, options);
    expect(shown).not.toMatch(/hunter|t[123]/);
    expect(shown.split('\n').filter((line) => /^[-+]/.test(line))).toEqual([
      '-  "user": "a",',
      '+  "user": "b",',
      '-      "key": "…"',
      '+      "key": "… (another)"',
    ]);
    expect(await config.diff(label, ...labelled, options)).toBe(
      ' {\n-  "password": "…"\n+  "password": "… (another)"\n }',
    );
    await config.open(define()); // from here on it is
  }
  await config.set(key, '{ broken: hunter');
  const [now] = await config.history(key);
  expect(await config.diff(key, first, now?.revision ?? 0n)).toBe('-…\n+… (another)');
  expect((await failure(config.get(define({ default: { user: 'd' } })))).message).not.toContain('hunter');
});

function folderOf({ onTestFinished }: Finish): string {
  const folder = temporaryFolder();
  onTestFinished(() => folder.remove());
  return join(folder.path, 'cache');
}

const all = anything as StandardSchema<unknown, Db>;

test.each([
  ['a field', { secret: ['password'] }, { user: 'a' }],
  ['the whole', { secret: [''] }, undefined],
  ['a field of YAML', { secret: ['password'], format: 'yaml' }, { user: 'a' }],
] as const)('%s is not on disk, and a start without the store is without it', async (_, more, kept) => {
  const ends: (() => unknown)[] = [];
  const finish: Finish = { onTestFinished: (fn) => void ends.unshift(fn) };
  const cacheDir = folderOf(finish);
  const namespace = uniqueName('coord');
  const server = MemoryServer.of(namespace);
  const url = `memory://${namespace}`;
  const coord = await client(finish, url, { cacheDir });
  await coord.config.set(key, { user: 'a', password: SECRET });
  const ref = await coord.config.open(define(more, all));
  expect(ref.value).toEqual({ user: 'a', password: SECRET });
  await coord.close();
  const files = readdirSync(cacheDir).map((name) => readFileSync(join(cacheDir, name), 'utf8'));
  expect(files.length).toBe(1);
  expect(files.join()).not.toContain('hunter');
  server.setAway(true);
  const alone = await client(finish, url, { cacheDir, connectTimeoutMs: 100 });
  expect((await alone.config.open(define(more, all))).value).toEqual(kept);
  for (const end of ends) await end();
});

const decrypt = (text: string) => {
  if (!text.startsWith('enc:')) throw new Error(`no cipher: ${text}`);
  return Buffer.from(text.slice(4), 'base64').toString();
};
const enc = (text: string) => `enc:${Buffer.from(text).toString('base64')}`;

test('secrets are deciphered, once for each text; the default and the environment are taken as they are', async (finish) => {
  const { config } = await inMemory(finish);
  const asked: string[] = [];
  const definition = define({
    decrypt: async (text: string) => {
      asked.push(text);
      await null;
      return decrypt(text);
    },
    default: { tokens: { low: { key: 'plain' } } },
  });
  await config.setAll({
    [key]: { user: 'a', password: enc(SECRET), tokens: { x: { key: enc('one') }, y: { key: enc('one'), n: 1 } } },
    '/config/global/db': { password: enc('lower') },
  });
  const ref = await config.open(definition);
  const tokens = { low: { key: 'plain' }, x: { key: 'one' }, y: { key: 'one', n: 1 } };
  expect(ref.value).toEqual({ user: 'a', password: SECRET, tokens });
  expect(asked.sort()).toEqual([enc(SECRET), enc('lower'), enc('one')].sort());
  await config.set('/config/dev/global/db', { more: true });
  await until('the layer', () => ref.value.more);
  expect(asked.length).toBe(3);

  await config.set(key, { user: 'a', password: 'hunter in plain' });
  await until('the refusal', () => ref.rejected);
  expect(ref.rejected?.message).toMatch(/\/config\/dev\/orders\/db, at revision \d+ of the store: decrypt\(\) failed$/);
  expect(inspect(ref.rejected)).not.toContain('hunter');
  expect(ref.value.password).toBe(SECRET);
});

test('a whole text is deciphered before it is read; no answer is a refusal', async (finish) => {
  const { config } = await inMemory(finish, { timeoutMs: 200 });
  await config.set(key, enc('{"user":"a","password":"b"}'));
  const place = { key: '/config/{env}/{service}/db', schema: anything, secret: [''] };
  expect(await config.get(defineConfig({ ...place, decrypt }))).toEqual({ user: 'a', password: 'b' });
  const silent = defineConfig({ ...place, decrypt: () => new Promise<string>(() => {}) });
  expect(await failure(config.open(silent))).toMatchObject({
    code: 'ERR_INVALID_CONFIG',
    issues: [{ message: 'decrypt() gave no answer within 200 ms' }],
  });
  const odd = defineConfig({ ...place, decrypt: (() => 7) as unknown as () => string });
  expect(await failure(config.open(odd))).toMatchObject({ issues: [{ message: 'decrypt() failed' }] });
});

test('a record has secrets in each entry', async (finish) => {
  const { config } = await inMemory(finish);
  const all = defineConfig({ key: '/config/{env}/{service}/dbs/', schema: loud, secret: ['password'], decrypt });
  const base = '/config/dev/orders/dbs/';
  await config.setAll({
    [`${base}a`]: { user: 'a', password: enc(SECRET) },
    [`${base}b`]: { user: 'b', password: 'hunter in plain' },
    [`${base}c`]: { password: enc(SECRET) },
  });
  const ref = await config.open(all);
  expect(ref.value).toEqual({ a: { user: 'a', password: SECRET } });
  expect(inspect(ref.rejected)).toContain('b: decrypt() failed');
  expect(inspect(ref.rejected)).not.toContain('hunter');
  const [now] = await config.history(`${base}a`);
  const later = await config.set(`${base}a`, { user: 'c', password: enc('x') });
  expect(await config.diff(`${base}a`, now?.revision ?? 0n, later)).toContain('+  "password": "… (another)"');
});

test('what can be no secret is refused', () => {
  const wrong = (more: object, message: string) => expect(() => define(more)).toThrow(message);
  wrong({ secret: 'password' }, 'definition.secret: expected an array of paths, got string');
  wrong({ secret: ['a..b'] }, 'definition.secret[0]: expected the path of a field, such as "db.password", got "a..b"');
  wrong({ secret: [1] }, 'definition.secret[0]: expected the path of a field');
  wrong({ decrypt: 1 }, 'definition.decrypt: expected a function, got number');
  wrong({ secret: undefined, decrypt }, 'definition.decrypt: expected definition.secret beside it');
});
