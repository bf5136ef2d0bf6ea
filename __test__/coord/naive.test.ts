// Why the hard tests are hard: what is written in an afternoon, on the same servers and by the same steps, comes to the wrong end.
// Each toy stands beside what rollcall/coord makes of that, which its own test says in full. Processes that trust a lock for ever,
// and readers that are not whole, are in faults/naive.test.ts.
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'rollcall/coord';
import { Etcd3 } from 'rollcall/etcd';
import { expect, test } from 'vitest';
import { startEtcd } from '../support/etcd.js';
import { anything, client, countUp, type Finish, until } from './kit.js';

const key = '/config/dev/orders/limits';

async function begin(finish: Finish) {
  const server = await startEtcd();
  finish.onTestFinished(() => server.close());
  const etcd = new Etcd3({ hosts: [...server.hosts] });
  finish.onTestFinished(() => etcd.close());
  return { server, etcd, coord: await client(finish, server.url, { settleMs: 0 }) };
}

/** Follows a key by a watch, from the moment at which that stands. */
async function followed(etcd: Etcd3, of: string): Promise<string[]> {
  const told: string[] = [];
  const watcher = await etcd.watch().key(of).create();
  watcher.on('put', ({ value }) => told.push(value.toString()));
  return told;
}

test('a read, and then a watch: what is written in between is never heard of', async (finish) => {
  const { server, etcd, coord } = await begin(finish);
  await server.put(key, '1');
  const toy = [await etcd.get(key)];
  const ref = await coord.config.open(defineConfig({ key, schema: anything }));
  await server.put(key, '2');
  const told = await followed(etcd, key);
  const marks = await followed(etcd, '/mark');
  await server.put('/mark', 'later than that'); // what was to be told has been told by then
  await until('the mark', () => marks.length === 1);
  await until('the change', () => ref.value === 2);
  expect([...toy, ...told]).toEqual(['1']);
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

test('every event is a change: who was blocked hears of all that is out of date', async (finish) => {
  const { server, etcd, coord } = await begin(finish);
  const ref = await coord.config.open(defineConfig({ key, schema: anything, default: 0 }));
  const told: unknown[] = [];
  ref.subscribe((value) => told.push(value));
  const toy = await followed(etcd, key);
  // Which blocks this thread until another process has made all of them.
  const program = fileURLToPath(new URL('./fixtures/writer.mjs', import.meta.url));
  execFileSync(process.execPath, [program, server.url, '50'], { env: { ...process.env, NODE_OPTIONS: '' } });
  await until('the last', () => toy.at(-1) === '{"max":51}' && told.length > 0);
  expect([toy.length, told]).toEqual([50, [{ max: 51 }]]);
});

test('a release that deletes the key of the lock by its name takes it from who has it by then (etcd#22082)', async (finish) => {
  const { server, etcd, coord } = await begin(finish);
  const acquire = async () =>
    (await etcd.if('/toy', 'Create', '==', 0).then(etcd.put('/toy').value('mine')).commit()).succeeded;
  const release = () => etcd.delete().key('/toy');
  expect(await acquire()).toBe(true);
  await release(); // whose answer is lost
  expect(await acquire()).toBe(true);
  await release(); // so it is tried again
  expect(await server.get('/toy')).toBeNull();
  const old = await coord.lock.acquire('job');
  await old.release();
  const held = await coord.lock.acquire('job');
  await old.release();
  expect([held.isHeld, await server.keys('/locks/')]).toEqual([true, [held.key]]);
});

test('who waits for the one before it alone has a lock that it lost while it waited (etcd#16221)', async (finish) => {
  const { server, etcd, coord } = await begin(finish);
  const leases = [etcd.lease(60), etcd.lease(60)] as const;
  await leases[0].put('/toy/1').value('');
  await leases[1].put('/toy/2').value('');
  const gone: string[] = [];
  const watcher = await etcd.watch().key('/toy/1').create();
  watcher.on('delete', () => gone.push('it is my turn'));
  await leases[1].revoke();
  await leases[0].revoke();
  await until('its turn', () => gone.length === 1);
  expect(await server.keys('/toy/')).toEqual([]); // it acts, and anybody may take the lock
  const held = await coord.lock.acquire('job');
  const waits = coord.lock.acquire('job', { timeoutMs: 0 }).catch(({ code }) => code);
  await until('it to wait', async () => (await server.keys('/locks/job/')).length === 2);
  const own = (await server.keys('/locks/job/')).find((one) => one !== held.key) as string;
  await server.revoke(own.slice(own.lastIndexOf('/') + 1));
  await held.release();
  expect(await waits).toBe('ERR_LOCK_LOST');
});
