// What can't be right is refused, with the argument named, before anything is asked of the store.
import { connect } from 'rollcall';
import { type Coord, connectCoord, defineConfig } from 'rollcall/coord';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { uniqueName } from '../support/process.js';
import { anything, failure } from './kit.js';

/** What is not checked by the compiler. */
const any = (value: unknown): never => value as never;
const url = `memory://${uniqueName('coord')}`;

/** Refused as an argument, by a message that begins so. */
async function refuses(promise: Promise<unknown>, operation: string, begins: string): Promise<void> {
  const error = await failure(promise);
  expect([error.code, error.operation, error.message.slice(0, begins.length)]).toEqual([
    'ERR_INVALID_ARGUMENT',
    operation,
    begins,
  ]);
}

describe('calls', () => {
  let coord: Coord;
  beforeAll(async () => {
    coord = await connectCoord({ url });
  });
  afterAll(() => coord.close());

  const keys: [unknown, string][] = [
    ['', 'expected a path that begins with "/"'],
    ['a/b', 'expected a path that begins with "/"'],
    ['/', 'expected no empty part'],
    ['/a//b', 'expected no empty part'],
    ['/a/', 'expected no empty part'],
    ['/a/../b', 'expected no part that is ".."'],
    ['/a/.', 'expected no part that is "."'],
    ['/a\nb', 'expected no control characters'],
    ['/\ud800', 'expected a string of well-formed Unicode'],
    [`/${'x'.repeat(1024)}`, 'expected at most 1024 bytes, got 1025'],
    [7, 'expected a string, got number'],
    [undefined, 'expected a string, got undefined'],
  ];
  test.each(keys)('a key that is %j', async (key, problem) => {
    const { config } = coord;
    await refuses(config.raw(any(key)), 'raw', `key: ${problem}`);
    await refuses(config.set(any(key), 1), 'set', `key: ${problem}`);
    await refuses(config.delete(any(key)), 'delete', `key: ${problem}`);
    expect(() => config.watch(any(key))).toThrow(`key: ${problem}`);
    if (typeof key !== 'string') return;
    await refuses(config.setAll({ [key]: 1 }), 'setAll', `changes[${JSON.stringify(key)}]: ${problem}`);
  });

  test.each([
    ['/a', 'expected a prefix that ends in "/"'],
    ['/', 'expected a path that begins with "/"'],
    ['/a/../', 'expected no part that is ".."'],
    [null, 'expected a string, got null'],
  ])('a prefix that is %j', async (prefix, problem) => {
    await refuses(coord.config.list(any(prefix)), 'list', `prefix: ${problem}`);
    expect(() => coord.config.watchPrefix(any(prefix))).toThrow(`prefix: ${problem}`);
  });

  const circle: Record<string, unknown> = {};
  circle.self = circle;
  test.each([
    ['nothing', undefined, 'expected text or what JSON can hold, got undefined'],
    ['a function', () => 1, 'expected text or what JSON can hold, got function'],
    ['a bigint', 1n, 'expected text or what JSON can hold'],
    ['a circle', circle, 'expected text or what JSON can hold'],
    ['bytes', Buffer.from('x'), 'expected text or what JSON can hold, got bytes'],
    ['half a character', '\ud800', 'expected a string of well-formed Unicode'],
    ['too large', 'x'.repeat(1024 * 1024 + 1), 'expected at most 1048576 bytes, got 1048577'],
    ['too large in bytes', '世'.repeat(400_000), 'expected at most 1048576 bytes, got 1200000'],
  ])('a value that is %s', async (_, value, problem) => {
    await refuses(coord.config.set('/a', value), 'set', `value: ${problem}`);
    await refuses(coord.config.setAll({ '/a': value }), 'setAll', `changes["/a"]: ${problem}`);
    expect(await coord.config.raw('/a')).toBeNull();
  });

  test('the largest value is taken', async () => {
    await coord.config.set('/largest', 'x'.repeat(1024 * 1024));
    expect((await coord.config.raw('/largest'))?.value.length).toBe(1024 * 1024);
  });

  test('options', async () => {
    const { config } = coord;
    await refuses(
      config.set('/a', 1, any({ ifRevison: 1 })),
      'set',
      'options.ifRevison: unknown option; did you mean "ifRevision"?',
    );
    for (const [value, problem] of [
      [-1, 'expected a whole number from 0 to'],
      [1.5, 'expected a whole number from 0 to'],
      ['1', 'expected a whole number from 0 to'],
      [-1n, 'expected a revision, got -1'],
      [2n ** 63n, 'expected a revision, got'],
    ] as const) {
      await refuses(config.set('/a', 1, { ifRevision: any(value) }), 'set', `options.ifRevision: ${problem}`);
      const ifRevisions = { '/b': any(value) };
      await refuses(config.setAll({ '/a': 1 }, { ifRevisions }), 'setAll', `options.ifRevisions["/b"]: ${problem}`);
    }
    await refuses(
      config.setAll({ '/a': 1 }, { ifRevisions: { '/b': any(undefined) } }),
      'setAll',
      'options.ifRevisions["/b"]: ',
    );
    await refuses(
      config.setAll({ '/a': 1 }, { ifRevisions: { b: 1 } }),
      'setAll',
      'options.ifRevisions["b"]: expected a path',
    );
    await refuses(config.setAll({}), 'setAll', 'changes: expected at least one');
    await refuses(config.setAll(any([1])), 'setAll', 'changes: expected an object, got array');
    await refuses(config.raw('/a', { timeoutMs: 0 }), 'raw', 'options.timeoutMs: ');
    await refuses(config.list('/a/', any({ signal: 1 })), 'list', 'options.signal: expected an AbortSignal');
    expect(await failure(config.raw('/a', { signal: AbortSignal.abort() }))).toMatchObject({
      code: 'ERR_ABORTED',
      operation: 'raw',
    });
  });

  test('what was opened can not be opened in such a way', async () => {
    const { config } = coord;
    await refuses(config.open(any(undefined)), 'open', 'definition: expected what defineConfig() gives, got undefined');
    await refuses(
      config.open(any({ key: '/a/b', schema: anything })),
      'open',
      'definition: expected what defineConfig() gives',
    );
    const needs = (name: string) => `definition.key: expected the option ${name} of connectCoord()`;
    await refuses(config.open(defineConfig({ key: '/a/{env}/b', schema: anything })), 'open', needs('env'));
    await refuses(config.open(defineConfig({ key: '/a/{instance}', schema: anything })), 'open', needs('instance'));
    await refuses(
      config.open(defineConfig({ key: '/a/../b', schema: anything })),
      'open',
      'definition.key: expected no part that is ".."',
    );
    const layers = ['/a/./b'];
    await refuses(
      config.open(defineConfig({ key: '/a/b', schema: anything, layers })),
      'open',
      'definition.layers[0]: expected no part',
    );
    const ref = await config.open(defineConfig({ key: '/a/b', schema: anything }));
    expect(() => ref.subscribe(any(1))).toThrow('listener: expected a function, got number');
    expect(() => ref.on(any('chnage'), () => {})).toThrow('did you mean "change"?');
  });
});

test.each([
  [undefined, 'definition: expected an object, got undefined'],
  [{ schema: anything }, 'definition.key: expected a key such as'],
  [{ key: '/limits', schema: anything }, 'definition.key: expected a key of at least two parts'],
  [{ key: 'a/b', schema: anything }, 'definition.key: expected a key of at least two parts'],
  [{ key: '/a/', schema: anything }, 'definition.key: expected a key of at least two parts'],
  [
    { key: '/a/{zone}', schema: anything },
    'definition.key: expected nothing else in braces than {env}, {service}, {instance}',
  ],
  [{ key: '/a/{env', schema: anything }, 'definition.key: expected nothing else in braces'],
  [{ key: '/a/b' }, 'definition.schema: expected a Standard Schema'],
  [
    { key: '/a/b', schema: { '~standard': { version: 2, validate: () => {} } } },
    'definition.schema: expected a Standard Schema',
  ],
  [
    { key: '/a/b', schema: anything, format: 'ini' },
    'definition.format: expected "json" or "yaml" or "toml" or "text" or "auto", got "ini"',
  ],
  [{ key: '/a/b', schema: anything, merge: 'shallow' }, 'definition.merge: expected "deep" or "replace"'],
  [{ key: '/a/b', schema: anything, layers: '/a/c' }, 'definition.layers: expected an array of keys, got string'],
  [{ key: '/a/b', schema: anything, layers: ['/a/c', '/a/c'] }, 'definition.layers: expected each key once'],
  [{ key: '/a/b', schema: anything, layers: ['/a/b'] }, 'definition.layers: expected each key once'],
  [{ key: '/a/b', schema: anything, layers: [1] }, 'definition.layers[0]: expected a key such as'],
  [{ key: '/a/b', schema: anything, env: { 'a..b': 'X' } }, 'definition.env["a..b"]: expected the path of a field'],
  [
    { key: '/a/b', schema: anything, env: { '__proto__.x': 'X' } },
    'definition.env["__proto__.x"]: expected the path of a field',
  ],
  [
    { key: '/a/b', schema: anything, env: { a: '' } },
    'definition.env["a"]: expected the name of an environment variable',
  ],
  [{ key: '/a/b', schema: anything, defualt: 1 }, 'definition.defualt: unknown field; did you mean "default"?'],
])('a definition that is %j', (definition, begins) => {
  try {
    defineConfig(any(definition));
  } catch (error) {
    expect(error).toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    expect((error as Error).message.startsWith(begins), (error as Error).message).toBe(true);
    return;
  }
  throw new Error('it was taken');
});

test.each([
  [7, 'target: expected a URL or an object of options, got number'],
  [{ url, labels: { 'a/b': 'x' } }, 'options.labels["a/b"]: expected no "/"'],
  [{ url, labels: { a: 'x/y' } }, 'options.labels["a"]: expected no "/"'],
  [{ url, labels: { 'a=b': 'x' } }, 'options.labels["a=b"]: expected a name without "="'],
  [{ url, labels: { instance: 'x' } }, 'options.labels["instance"]: expected another name'],
  [{ url, labels: { a: 1 } }, 'options.labels["a"]: expected a string, got number'],
  [{ url, labels: ['a'] }, 'options.labels: expected an object, got array'],
  [{ url, env: '' }, 'options.env: expected no empty part'],
  [{ url, env: '..' }, 'options.env: expected no part that is ".."'],
  [{ url, service: 'a/b' }, 'options.service: expected no "/"'],
  [{ url, settleMs: 1001 }, 'options.settleMs: expected a whole number from 0 to 1000, got 1001'],
  [{ url, serivce: 'a' }, 'options.serivce: unknown option'],
  [{ url: 7 }, 'options.url: expected a URL'],
  [{ registry: {} }, 'options.registry: expected a client that connect() has made, got object'],
  [{ etcd: {} }, 'options.client: expected an Etcd3 of rollcall/etcd'],
])('a client that is given %j', async (target, begins) => {
  const error = await failure(connectCoord(any(target)));
  expect([error.code, error.message.slice(0, begins.length)]).toEqual(['ERR_INVALID_ARGUMENT', begins]);
});

test('a client of a registry that is there takes no options of another, and leaves it open', async () => {
  const registry = await connect(url);
  await refuses(
    connectCoord(any({ registry, url })),
    'connectCoord',
    'options.url: given together with options.registry',
  );
  const coord = await connectCoord({ registry, env: 'dev' });
  expect(coord.registry).toBe(registry);
  await coord.config.set('/shared', 1);
  await coord.close();
  expect(await failure(coord.config.raw('/shared'))).toMatchObject({
    code: 'ERR_CLOSED',
    message: 'raw: coord is closed',
  });
  expect(registry.closed).toBe(false);
  const second = await connectCoord({ registry });
  const watcher = second.config.watch('/shared');
  await watcher.next();
  const pending = watcher.next();
  await registry.close();
  expect((await pending).done).toBe(true);
  expect(await failure(second.config.raw('/shared'))).toMatchObject({ code: 'ERR_CLOSED' });
});

test('the environment names the store: ROLLCALL_COORD before ROLLCALL_REGISTRY', async () => {
  const [one, two] = [`memory://${uniqueName('one')}`, `memory://${uniqueName('two')}`];
  Object.assign(process.env, { ROLLCALL_COORD: one, ROLLCALL_REGISTRY: two });
  try {
    const coord = await connectCoord({ env: 'dev' });
    await coord.config.set('/a', 1);
    delete process.env.ROLLCALL_COORD;
    const other = await connectCoord({ env: 'dev' });
    expect(await other.config.raw('/a')).toBeNull();
    process.env.ROLLCALL_COORD = 'no URL';
    expect((await failure(connectCoord())).message).toContain('(from ROLLCALL_COORD)');
    await Promise.all([coord.close(), other.close()]);
  } finally {
    delete process.env.ROLLCALL_COORD;
    delete process.env.ROLLCALL_REGISTRY;
  }
});

test('a registry that keeps no configuration says so', async () => {
  const coord = await connectCoord({ url: 'nacos://127.0.0.1:1', lazy: true, logger: false });
  const { config } = coord;
  const key = '/a/b';
  const calls: Record<string, Promise<unknown>> = {
    raw: config.raw(key),
    list: config.list('/a/'),
    set: config.set(key, 1),
    setAll: config.setAll({ [key]: 1 }),
    delete: config.delete(key),
    open: config.open(defineConfig({ key, schema: anything })),
  };
  const failures = await Promise.all(Object.values(calls).map(failure));
  const told = failures.map(({ code, operation, retryable }) => ({ code, operation, retryable }));
  expect(told).toEqual(
    Object.keys(calls).map((operation) => ({ code: 'ERR_UNSUPPORTED', operation, retryable: false })),
  );
  expect(() => config.watch('/a')).toThrow(/127\.0\.0\.1:1.* keeps no configuration$/);
  await coord.close();
});
