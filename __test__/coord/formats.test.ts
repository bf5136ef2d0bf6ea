// YAML and TOML, by packages beside this one; and what lies where the guide's own programs put it.
import { defineConfig } from 'rollcall/coord';
import { expect, test } from 'vitest';
import { anything, type Finish, failure, inMemory, limits, schemaOf } from './kit.js';

/** A text is refused by its name, and not shown. */
async function isRefused(finish: Finish, key: string, text: string, message: string): Promise<void> {
  const { config } = await inMemory(finish);
  await config.set(key, text);
  const refused = await failure(config.open(defineConfig({ key, schema: limits })));
  expect(refused).toMatchObject({ code: 'ERR_INVALID_CONFIG', key });
  expect(refused.message).toContain(message);
  expect(refused.message).not.toContain('secret');
}

test('YAML is read by the format and by the end of the key, and merged with JSON below it', async (finish) => {
  const { config } = await inMemory(finish);
  await config.setAll({
    '/yaml/global/a.yaml': 'db:\n  url: x\n  pool: 2\nlist: [1, 2]\n',
    '/yaml/orders/a.yaml': '# a comment\ndb: { pool: 0o17 }\non: yes\nnone: ~\n',
    '/yaml/of/b.yml': 'max: 3',
    '/yaml/of/c': 'max: 4',
    '/yaml/global/d.yaml': 'max: 5',
    '/yaml/orders/d.yaml': '# nothing, which is null',
  });
  const place = { key: '/yaml/{service}/a.yaml', schema: anything };
  const value = await config.get(defineConfig(place));
  // YAML 1.2: `yes` is a text, and what is null deletes.
  expect(value).toEqual({ db: { url: 'x', pool: 15 }, list: [1, 2], on: 'yes' });
  expect(await config.get(defineConfig({ key: '/yaml/of/b.yml', schema: limits }))).toEqual({ max: 3 });
  expect(await config.get(defineConfig({ key: '/yaml/of/c', schema: limits, format: 'yaml' }))).toEqual({ max: 4 });
  expect(await config.get(defineConfig({ key: '/yaml/{service}/d.yaml', schema: anything }))).toBeUndefined();
});

test('TOML is read by the format and by the end of the key, and merged with JSON below it', async (finish) => {
  const { config } = await inMemory(finish);
  await config.setAll({
    '/toml/global/a.toml': 'list = [1, 2]\n[db]\nurl = "x"\npool = 2\n',
    '/toml/orders/a.toml':
      '# a comment\n[db]\npool = 0o17\nsince = 1979-05-27T07:32:00Z\nday = 1979-05-27\nat = 07:32:00\n',
    '/toml/of/c': 'max = 4',
    '/toml/of/d.toml': '# nothing, which is an empty table',
  });
  expect(await config.get(defineConfig({ key: '/toml/{service}/a.toml', schema: anything }))).toEqual({
    db: { url: 'x', pool: 15, since: '1979-05-27T07:32:00.000Z', day: '1979-05-27', at: '07:32:00.000' },
    list: [1, 2],
  });
  expect(await config.get(defineConfig({ key: '/toml/of/c', schema: limits, format: 'toml' }))).toEqual({ max: 4 });
  expect(await config.get(defineConfig({ key: '/toml/of/d.toml', schema: anything }))).toEqual({});
});

test.for([
  ['no TOML', 'max = [1, secret', 'expected TOML'],
  ['a key twice', 'max = 1\nmax = 2', 'expected TOML'],
  ['a prototype', 'max = 1\n[__proto__]\nadmin = true', 'expected another name than "__proto__"'],
  ['a number that is none of JavaScript', 'max = 9223372036854775807', 'expected TOML'],
  ['too many levels', `max = ${'['.repeat(5000)}${']'.repeat(5000)}`, 'expected'],
] as const)('of TOML %s is refused', async ([, text, message], finish) => {
  await isRefused(finish, '/toml/bad/a.toml', text, message);
});

const bomb = ['a: &a [x, x, x, x, x, x, x, x, x, x]'];
for (let n = 1; n < 10; n++) {
  const [name, before] = [n, n - 1].map((place) => 'abcdefghij'[place]);
  bomb.push(`${name}: &${name} [${Array.from({ length: 10 }, () => `*${before}`).join(', ')}]`);
}

test.for([
  ['no YAML', 'max: [1, secret', 'expected YAML'],
  ['a key twice', 'max: 1\nmax: 2', 'expected YAML'],
  ['a prototype', 'max: 1\n__proto__: { admin: true }', 'expected another name than "__proto__"'],
  ['aliases without end', bomb.join('\n'), 'expected YAML'],
  ['a circle', 'max: 1\nself: &self [*self]', 'expected'],
] as const)('%s is refused', async ([, text, message], finish) => {
  await isRefused(finish, '/yaml/bad/a.yaml', text, message);
});

test('the paths of the guide are read as they are, with the prefix that its own etcd has twice', async (finish) => {
  const { config } = await inMemory(finish, { service: 'message-service' });
  await config.setAll({
    '/config/dev/global/db': '{"driver":"mysql","maxOpenConns":25}',
    '/config/dev/message-service/db': '{"maxOpenConns":50}',
    '/config/ratelimit/rules/send.json': '{"mode":"local","rate":30.0,"capacity":60}',
    '/config/config/dev/message-service/clog': 'debug',
  });
  expect(await config.get(defineConfig({ key: '/config/dev/global/db', schema: anything }))).toMatchObject({
    maxOpenConns: 25,
  });
  const db = await config.get(defineConfig({ key: '/config/{env}/{service}/db', schema: anything }));
  expect(db).toEqual({ driver: 'mysql', maxOpenConns: 50 });
  expect((await config.list('/config/ratelimit/rules/')).map((entry) => JSON.parse(entry.value))).toEqual([
    { mode: 'local', rate: 30, capacity: 60 },
  ]);
  const twice = defineConfig({ key: '/config/config/{env}/{service}/clog', schema: anything });
  expect(await config.get(twice)).toBe('debug');
});

test('the rules and policies of the guide are records, of which one broken file refuses itself alone', async (finish) => {
  const { config } = await inMemory(finish, { env: 'prod', service: 'message-service' });
  const rule = schemaOf<Record<string, unknown>>((value) => {
    const isRule = typeof (value as { rate?: unknown } | null)?.rate === 'number';
    return isRule ? { value: value as Record<string, unknown> } : { issues: [{ message: 'no rule' }] };
  });
  const path = '/config/prod/message-service/ratelimit/';
  await config.setAll({
    [`${path}send.json`]: '{"mode":"local","rate":30.0,"capacity":60,"description":"…"}',
    [`${path}login.json`]: '{"mode":"distributed","rate":5}',
    [`${path}broken.json`]: '{"mode":"local",',
    [`/config${path}send.json`]: '{"mode":"local","rate":1}', // as its own etcd has it
    '/config/ratelimit/rules/all.json': '{"send":{"rate":30.0},"login":{"rate":5}}',
    '/config/prod/message-service/policies/default.json':
      '{"failureThreshold":5,"successThreshold":2,"openStateTimeout":"1m"}',
    '/config/prod/message-service/policies/user.json': '{"failureThreshold":5,"openStateTimeout":60000000000}',
  });
  const ref = await config.open(defineConfig({ key: '/config/{env}/{service}/ratelimit/', schema: rule }));
  expect(ref.value).toEqual({
    'login.json': { mode: 'distributed', rate: 5 },
    'send.json': { mode: 'local', rate: 30, capacity: 60, description: '…' },
  });
  expect(ref.rejected?.issues).toEqual([{ entry: 'broken.json', message: 'expected JSON', path: '' }]);
  const twice = defineConfig({ key: '/config/config/{env}/{service}/ratelimit/', schema: rule });
  expect(await config.get(twice)).toEqual({ 'send.json': { mode: 'local', rate: 1 } });
  const all = await config.get(defineConfig({ key: '/config/ratelimit/rules/', schema: anything }));
  expect(all).toEqual({ 'all.json': { send: { rate: 30 }, login: { rate: 5 } } });
  const policies = await config.get(defineConfig({ key: '/config/{env}/{service}/policies/', schema: anything }));
  expect(policies).toMatchObject({
    'default.json': { openStateTimeout: '1m' },
    'user.json': { openStateTimeout: 60_000_000_000 },
  });
});
