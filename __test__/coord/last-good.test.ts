// A program starts without its store, by the file of what was good last: where the store matters on etcd, which is stopped; what is
// of the file alone, on memory.
import { readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MemoryServer } from 'rollcall';
import { type Coord, defineConfig } from 'rollcall/coord';
import { expect, test } from 'vitest';
import { startEtcd } from '../support/etcd.js';
import { inTime, temporaryFolder, uniqueName } from '../support/process.js';
import { client, type Finish, failure, limits, until } from './kit.js';

const key = '/config/dev/orders/limits';
const place = { key: '/config/{env}/{service}/limits', schema: limits };
const definition = defineConfig(place);
const withDefault = defineConfig({ ...place, default: { max: 1 } });

function folderOf({ onTestFinished }: Finish): string {
  const folder = temporaryFolder();
  onTestFinished(() => folder.remove());
  return join(folder.path, 'cache');
}

/** An etcd that a program has worked with, and that is stopped now. */
async function stopped(finish: Finish) {
  const cacheDir = folderOf(finish);
  const server = await startEtcd();
  finish.onTestFinished(() => server.close());
  await server.put(key, '{"max":5}');
  const before = await client(finish, server.url, { cacheDir });
  const { revision } = await before.config.open(definition);
  await before.close();
  await server.kill();
  const next = (more = {}) => client(finish, server.url, { cacheDir, connectTimeoutMs: 500, ...more });
  return { server, next, revision, file: join(cacheDir, readdirSync(cacheDir)[0] as string) };
}

/** A store that a program has worked with, and that is away now. */
async function used(finish: Finish, cacheDir: string, value: unknown = { max: 5 }) {
  const namespace = uniqueName('coord');
  const server = MemoryServer.of(namespace);
  const url = `memory://${namespace}`;
  const coord = await client(finish, url, { cacheDir });
  await coord.config.set(key, value);
  await coord.config.open(withDefault);
  await coord.close();
  server.setAway(true);
  const next = async (more = {}): Promise<Coord> =>
    await client(finish, url, { cacheDir, connectTimeoutMs: 100, ...more });
  return { server, next, url };
}

test('etcd is down at the start: the value of the file, stale; etcd comes: fresh within 2 s, by itself', async (finish) => {
  const { server, next, revision } = await stopped(finish);
  const { config } = await next();
  const ref = await config.open(definition);
  expect([ref.value, ref.stale, ref.source, ref.revision]).toEqual([{ max: 5 }, true, 'file', revision]);
  const told: unknown[] = [];
  ref
    .on('change', ({ max }) => told.push(max))
    .on('fresh', () => told.push('fresh'))
    .on('reset', () => told.push('reset'));
  await server.start();
  const came = performance.now();
  await until('fresh', () => told.includes('fresh'));
  expect(performance.now() - came).toBeLessThan(inTime(2000));
  expect([ref.value, ref.stale, ref.source, told]).toEqual([{ max: 5 }, false, 'store', ['fresh']]);
  await server.put(key, '{"max":6}');
  await until('the change', () => ref.value.max === 6);
});

test.for([
  ['cut off', (file: string) => truncateSync(file, readFileSync(file).length - 3), /it is cut off or changed/],
  [
    'changed by a bit',
    (file: string) => {
      const bytes = readFileSync(file);
      const at = bytes.indexOf('5}');
      bytes[at] = (bytes[at] as number) ^ 1; // still JSON, and the schema would take it
      writeFileSync(file, bytes);
    },
    /its checksum is another one/,
  ],
] as const)(
  'a file that is %s is refused by its name: then the default, or an error',
  async ([, spoil, problem], finish) => {
    const { next, file } = await stopped(finish);
    spoil(file);
    const logs: string[] = [];
    const { config } = await next({ logger: { warn: (text: string) => logs.push(text) } });
    const refused = await failure(config.open(definition));
    expect(refused).toMatchObject({ code: 'ERR_UNAVAILABLE', operation: 'open', key });
    expect(refused.message).toContain(file);
    expect(refused.message).toMatch(problem);
    expect(logs.filter((text) => text.includes(file) && problem.test(text)).length).toBe(1);
    const ref = await config.open(withDefault);
    expect([ref.value, ref.source, ref.stale]).toEqual([{ max: 1 }, 'default', true]);
  },
);

test('what only a schema of yesterday accepts, and what is of other layers, is none', async (finish) => {
  const { next } = await used(finish, folderOf(finish));
  const coord = await next();
  const { '~standard': standard } = limits;
  const strict = {
    '~standard': { ...standard, validate: () => ({ issues: [{ message: 'too strict', path: ['max'] }] }) },
  };
  const refused = await failure(coord.config.open(defineConfig({ ...place, schema: strict })));
  expect(refused.message).toMatch(/last-known-good file .*max: too strict/);
  const canary = await next({ labels: { canary: 'true' } });
  const none = await failure(canary.config.open(definition));
  expect(none.message).toMatch(/there is no last-known-good file/);
});

test('what lies in the store is refused at the start: the file does, and the refusal is there', async (finish) => {
  const { server, next, url } = await used(finish, folderOf(finish));
  server.setAway(false);
  const other = await client(finish, url);
  const revision = await other.config.set(key, { max: 'bad' });
  const { config } = await next();
  const ref = await config.open(definition);
  expect([ref.value, ref.source, ref.stale]).toEqual([{ max: 5 }, 'file', false]);
  expect(ref.rejected).toMatchObject({ code: 'ERR_INVALID_CONFIG', revision: String(revision) });
  await other.config.set(key, { max: 6 });
  await until('the next good one', () => ref.value.max === 6);
  expect([ref.source, ref.rejected]).toEqual(['store', undefined]);
});

test('a store that was set back behind the file is told', async (finish) => {
  const { server, next } = await used(finish, folderOf(finish));
  server.wipe();
  const ref = await (await next()).config.open(withDefault);
  const told: unknown[] = [];
  ref.on('change', ({ max }) => told.push(max)).on('reset', () => told.push('reset'));
  server.setAway(false);
  await until('fresh', () => !ref.stale);
  expect(told).toEqual(['reset', 1]);
});

test('nothing is kept where that is said, nor what was refused', async (finish) => {
  const cacheDir = folderOf(finish);
  const coord = await client(finish, `memory://${uniqueName('coord')}`, { cacheDir, settleMs: 0 });
  await coord.config.set(key, { max: 5 });
  const secret = await coord.config.open(defineConfig({ ...place, cache: false }));
  secret.close();
  const ref = await coord.config.open(definition);
  await coord.config.set(key, { max: 'a secret in a bad value' });
  await until('the refusal', () => ref.rejected);
  await coord.close();
  const files = readdirSync(cacheDir);
  expect(files.length).toBe(1);
  const text = readFileSync(join(cacheDir, files[0] as string), 'utf8');
  expect([text.includes('\\"max\\":5'), text.includes('secret')]).toEqual([true, false]);
});

test('a folder that can not be written is logged, and harms nothing', async (finish) => {
  const logs: string[] = [];
  const logger = { warn: (text: string) => logs.push(text) };
  const coord = await client(finish, `memory://${uniqueName('coord')}`, {
    cacheDir: '/dev/null/x',
    logger,
    settleMs: 0,
  });
  const ref = await coord.config.open(withDefault);
  for (const max of [2, 3]) {
    await coord.config.set(key, { max });
    await until(`${max}`, () => ref.value.max === max);
  }
  await coord.close();
  expect(logs.filter((text) => text.includes("can't be written")).length).toBe(1);
});
