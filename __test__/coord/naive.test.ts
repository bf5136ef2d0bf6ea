// Why the hard tests of configuration are hard: what is written in an afternoon, on the same servers and by the same steps, comes
// to the wrong end. Each toy stands beside what rollcall/coord makes of that, which its own test says in full. Locks have theirs in
// naive-locks.test.ts; processes that trust a lock for ever, and readers that are not whole, are in faults/naive.test.ts.
import { execFileSync } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'rollcall/coord';
import { expect, test } from 'vitest';
import { temporaryFolder } from '../support/process.js';
import { anything, client, countUp, type Finish, failure, LIMITS, LIMITS_KEY, limits, until } from './kit.js';
import { alone, begin, followed, linked } from './naive-kit.js';

const key = LIMITS_KEY;
const untyped = defineConfig({ key, schema: anything });
const typed = defineConfig({ key: '/config/{env}/{service}/limits', schema: limits, default: { max: 0 } });

/** Where coord keeps what was good last, and where the toy does. */
function files({ onTestFinished }: Finish) {
  const folder = temporaryFolder();
  onTestFinished(() => folder.remove());
  return { cacheDir: join(folder.path, 'cache'), file: join(folder.path, 'toy.json') };
}

test('a file that is read where the store is away at the start: nobody asks the store again', async (finish) => {
  const { cacheDir, file } = files(finish);
  const { server, etcd, coord } = await alone(finish, cacheDir);
  const start = async () => {
    try {
      const value = (await etcd.get(key).options({ timeoutMs: 500 })) as string;
      writeFileSync(file, value);
      return await followed(etcd.watch().key(key), [value]);
    } catch {
      return [readFileSync(file, 'utf8')];
    }
  };
  await server.put(key, '5');
  await start();
  await coord.config.open(untyped);
  await coord.close();
  await server.kill();
  const toy = await start();
  const { config } = await client(finish, server.url, { cacheDir, connectTimeoutMs: 200, settleMs: 0 });
  const ref = await config.open(untyped);
  expect([toy, ref.value, ref.source]).toEqual([['5'], 5, 'file']);
  await server.start();
  await server.put(key, '6');
  await until('the change', () => ref.value === 6);
  expect(toy).toEqual(['5']);
});

test('a file that was cut off, or changed by a bit, read as it is: a value that nobody has written', async (finish) => {
  const { cacheDir, file } = files(finish);
  const { server, etcd, coord } = await alone(finish, cacheDir);
  await server.put(key, '1500');
  writeFileSync(file, JSON.stringify(await etcd.get(key).json()));
  await coord.config.open(untyped);
  await coord.close();
  await server.kill();
  const kept = join(cacheDir, readdirSync(cacheDir)[0] as string);
  const good = [file, kept].map((path) => ({ path, bytes: readFileSync(path) }));
  const cut = (bytes: Buffer) => bytes.subarray(0, -3);
  const changed = (bytes: Buffer) => {
    const at = bytes.lastIndexOf('1500');
    return bytes.with(at, (bytes[at] as number) ^ 2);
  };
  for (const [spoil, wrong] of [
    [cut, 1],
    [changed, 3500],
  ] as const) {
    for (const { path, bytes } of good) writeFileSync(path, spoil(bytes));
    expect(JSON.parse(readFileSync(file, 'utf8'))).toBe(wrong);
    const { config } = await client(finish, server.url, { cacheDir, connectTimeoutMs: 200 });
    const refused = await failure(config.open(untyped));
    expect(refused).toMatchObject({ code: 'ERR_UNAVAILABLE', message: expect.stringContaining(kept) });
  }
});

test('keys that are read one by one: half of a transaction', async (finish) => {
  const { etcd, coord } = await begin(finish);
  const layers = ['/config/global/limits', key] as const;
  const write = (n: number) => coord.config.setAll({ [layers[0]]: { a: n }, [layers[1]]: { b: n } });
  await write(1);
  const ref = await coord.config.open(defineConfig({ key, layers: [layers[0]], schema: anything }));
  const first = await etcd.get(layers[0]);
  await write(2);
  const toy = { ...JSON.parse(first as string), ...JSON.parse((await etcd.get(layers[1])) as string) };
  await until('the change', () => JSON.stringify(ref.value) === '{"a":2,"b":2}');
  expect(toy).toEqual({ a: 1, b: 2 });
});

test('a read, and then a watch: what is written in between is never heard of', async (finish) => {
  const { server, etcd, coord } = await begin(finish);
  await server.put(key, '1');
  const toy = [await etcd.get(key)];
  const ref = await coord.config.open(untyped);
  await server.put(key, '2');
  const told = await followed(etcd.watch().key(key));
  const marks = await followed(etcd.watch().key('/mark'));
  await server.put('/mark', 'later than that'); // what was to be told has been told by then
  await until('the mark', () => marks.length === 1);
  await until('the change', () => ref.value === 2);
  expect([...toy, ...told]).toEqual(['1']);
});

test('a watch that begins anew from now after a compaction: what was compacted is never heard of', async (finish) => {
  const { server, link, etcd, coord } = await linked(finish);
  await server.put(key, '1');
  const ref = await coord.config.open(untyped);
  const told: unknown[] = [];
  ref.on('change', (value) => told.push(value));
  const toy = ['1'];
  let watches = 0;
  const follow = async (): Promise<void> => {
    const watcher = await etcd.watch().key(key).create();
    watcher.on('put', ({ value }) => toy.push(value.toString())).on('error', () => void follow());
    watches++;
  };
  await follow();
  link.setEnabled(false);
  await until('stale', () => ref.stale);
  for (let n = 2; n <= 20; n++) await server.put(key, String(n));
  await server.compact();
  link.setEnabled(true);
  await until('the next watch', () => watches === 2);
  await until('the change', () => ref.value === 20);
  expect([toy, told]).toEqual([['1'], [20]]);
});

test('what has the higher revision is the newer: a cache keeps what a store that was set back does not have', async (finish) => {
  const { server, etcd, coord } = await alone(finish);
  const toy = { value: '', revision: 0 };
  const poll = async () => {
    const [read] = (await etcd.get(key).exec()).kvs;
    const revision = Number(read?.mod_revision);
    if (revision > toy.revision) Object.assign(toy, { value: String(read?.value), revision });
  };
  await server.put(key, '1');
  const ref = await coord.config.open(untyped);
  const told: unknown[] = [];
  ref.on('reset', () => told.push('reset')).on('change', (value) => told.push(value));
  const restore = await server.backup();
  for (const value of ['2', '3', '4', '5']) await server.put(key, value);
  await until('the latest', () => ref.value === 5);
  await poll();
  told.length = 0;
  await restore();
  await until('the older value', () => ref.value === 1);
  await poll();
  expect([toy.value, told]).toEqual(['5', ['reset', 1]]);
});

test('a handler for each event, and no schema: what is wrong is in use', async (finish) => {
  const { etcd, coord } = await begin(finish);
  const ref = await coord.config.open(typed);
  const told: unknown[] = [];
  ref.subscribe(({ max }) => told.push(max));
  ref.on('rejected', () => told.push('refused'));
  const toy = await followed(etcd.watch().key(key));
  for (let n = 1; n <= 10; n++) {
    await coord.config.set(key, { max: n === 4 || n === 7 ? 'bad' : n });
    await until(`update ${n}`, () => told.length === n);
  }
  await until('the last', () => toy.length === 10);
  expect(toy.map((text) => JSON.parse(text).max)).toEqual([1, 2, 3, 'bad', 5, 6, 'bad', 8, 9, 10]);
  expect(told).toEqual([1, 2, 3, 'refused', 5, 6, 'refused', 8, 9, 10]);
});

test('a value that is read, counted up and written: an update is lost', async (finish) => {
  const { server, etcd, coord } = await begin(finish);
  await coord.config.set(key, 0);
  const read = await Promise.all([1, 2].map(() => etcd.get(key)));
  for (const value of read) await etcd.put(key).value(Number(value) + 1);
  expect(await server.get(key)).toBe('1');
  await coord.config.set(key, 0);
  await Promise.all([1, 2].map(() => countUp(coord, key, 1)));
  expect(await server.get(key)).toBe('2');
});

test('a list of listeners, the second of whom throws: the first has the new value, and the others the old one', async (finish) => {
  const { etcd, coord } = await begin(finish);
  const refuse = ({ max }: { max: number }) => {
    if (max === 3) throw new Error('not three');
  };
  const refs = await Promise.all([1, 2, 3].map(() => coord.config.open(typed)));
  refs[1]?.beforeChange(refuse);
  const toy = [0, 0, 0];
  const listeners = new EventEmitter();
  for (const i of toy.keys()) {
    listeners.on('change', (value) => {
      if (i === 1) refuse(value);
      toy[i] = value.max;
    });
  }
  const watcher = await etcd.watch().key(key).create();
  watcher.on('put', ({ value }) => {
    try {
      listeners.emit('change', JSON.parse(value.toString()));
    } catch {} // so that it goes on
  });
  for (const max of [1, 2, 3]) {
    await coord.config.set(key, { max });
    await until(`${max}`, () => toy[0] === max && (refs[0]?.value.max === max || refs[0]?.rejected));
  }
  expect(toy).toEqual([3, 2, 2]);
  expect(refs.map(({ value }) => value.max)).toEqual([2, 2, 2]);
});

test('layers that are merged once, and then by what is written: one that is deleted stays', async (finish) => {
  const { etcd, coord } = await begin(finish);
  const layers = ['/config/global/limits', key] as const;
  await coord.config.setAll({ [layers[0]]: { max: 10 }, [layers[1]]: { max: 11 } });
  const ref = await coord.config.open(typed);
  const toy: { max?: number } = {};
  for (const layer of layers) {
    Object.assign(toy, await etcd.get(layer).json());
    const watcher = await etcd.watch().key(layer).create();
    watcher.on('put', ({ value }) => Object.assign(toy, JSON.parse(value.toString())));
  }
  await coord.config.delete(key);
  await until('the one below', () => ref.value.max === 10);
  const marks = await followed(etcd.watch().key('/mark'));
  await coord.config.set('/mark', 'later than that');
  await until('the mark', () => marks.length === 1);
  expect(toy).toEqual({ max: 11 });
});

test('a deletion that is obeyed: what the program needs is gone', async (finish) => {
  const { server, etcd, coord } = await begin(finish);
  await server.put(key, '{"max":1}');
  const ref = await coord.config.open(LIMITS);
  const toy: { limits?: { max: number } } = { limits: (await etcd.get(key).json()) as { max: number } };
  const watcher = await etcd.watch().key(key).create();
  watcher.on('delete', () => {
    toy.limits = undefined;
  });
  await coord.config.delete(key);
  await until('both', () => ref.rejected && toy.limits === undefined);
  expect(ref.value).toEqual({ max: 1 });
  expect(() => (toy.limits as { max: number }).max).toThrow(TypeError);
});

test('every event is a change: who was blocked hears of all that is out of date', async (finish) => {
  const { server, etcd, coord } = await begin(finish);
  const ref = await coord.config.open(defineConfig({ key, schema: anything, default: 0 }));
  const told: unknown[] = [];
  ref.subscribe((value) => told.push(value));
  const toy = await followed(etcd.watch().key(key));
  // Which blocks this thread until another process has made all of them.
  const program = fileURLToPath(new URL('./fixtures/writer.mjs', import.meta.url));
  execFileSync(process.execPath, [program, server.url, '50'], { env: { ...process.env, NODE_OPTIONS: '' } });
  await until('the last', () => toy.at(-1) === '{"max":51}' && told.length > 0);
  expect([toy.length, told]).toEqual([50, [{ max: 51 }]]);
});

test('what lies at a key and below it: everybody reads the layer of a label', async (finish) => {
  const { server, etcd, coord } = await begin(finish);
  const labelled: Record<string, string>[] = [{}, { canary: 'false' }, { canary: 'true' }];
  const toys = await Promise.all(labelled.map(() => followed(etcd.watch().prefix(key))));
  const told = await Promise.all(
    labelled.map(async (labels) => {
      const { config } = await client(finish, server.url, { labels, settleMs: 0 });
      const seen: number[] = [];
      (await config.open(typed)).on('change', ({ max }) => seen.push(max));
      return seen;
    }),
  );
  await coord.config.set(`${key}/@canary=true`, { max: 7 });
  await until('the canary', () => told[2]?.length === 1);
  await coord.config.setAll({ [key]: { max: 5 }, [`${key}/@canary=true`]: null });
  await until('all', () => told.every((seen) => seen.at(-1) === 5) && toys.every((seen) => seen.length === 2));
  const toy = ['{"max":7}', '{"max":5}'];
  expect(toys).toEqual([toy, toy, toy]);
  expect(told).toEqual([[5], [5], [7, 5]]);
});
