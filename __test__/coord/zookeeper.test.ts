// What is ZooKeeper's own in a store of configuration: its nodes, its rights, its limit, and how a snapshot is had of many reads.
// SIZE=full is the size of `make hard`.
import { ConflictError, type Coord, defineConfig, type Entry } from 'rollcall/coord';
import { expect, test } from 'vitest';
import { startTcpProxy } from '../support/tcp.js';
import { startZookeeper, type ZookeeperOptions } from '../support/zookeeper.js';
import { anything, client, type Finish, FULL, failure, LIMITS, LIMITS_KEY, opened, until } from './kit.js';

/** Transactions that a reader follows, and members of which one after the other is killed meanwhile (1: a link is cut). */
const TRANSACTIONS = FULL ? 1000 : 200;
const MEMBERS = FULL ? 3 : 1;

const key = LIMITS_KEY;

async function begin(finish: Finish, options?: ZookeeperOptions) {
  const server = await startZookeeper(options);
  finish.onTestFinished(() => server.close());
  return { server, url: server.url };
}

async function linked(finish: Finish) {
  const { server } = await begin(finish);
  const link = await startTcpProxy(server.hosts[0] as string);
  finish.onTestFinished(() => link.close());
  return { server, link, other: await server.client() };
}

test('a key is a node with data, and what others write is followed', async (finish) => {
  const { server, url } = await begin(finish);
  const other = await server.client();
  await other.createAll(key, '{"max":1}');
  const { coord, ref } = await opened(finish, url);
  const { config } = coord;
  expect((await config.list('/config/')).map((entry) => entry.key)).toEqual([key]); // and none of the folders
  await other.set(key, '{"max":2}');
  await until('the change', () => ref.value.max === 2);
  expect((await config.raw(key))?.revision).toBe((await other.get(key))?.stat.mzxid);

  const revision = await config.set('/config/global/limits', { more: 'ü' });
  expect(await other.get('/config/global/limits')).toMatchObject({ value: '{"more":"ü"}', stat: { mzxid: revision } });
  expect(await other.get('/config/global')).toMatchObject({ value: '' });
  await until('the layer', () => ref.value.more === 'ü');
  await other.delete('/config/global/limits');
  await until('the layer to be gone', () => !('more' in ref.value));

  // A key with others below it becomes a folder when it is deleted, and a folder a key.
  await config.set(`${key}/@canary=true`, { max: 9 });
  expect(await config.delete(key)).toBe(true);
  expect(await config.raw(key)).toBeNull();
  expect(await config.delete(key)).toBe(false);
  expect((await config.list('/config/dev/')).map((entry) => entry.key)).toEqual([`${key}/@canary=true`]);
  expect(await failure(config.set(key, 1, { ifRevision: revision }))).toMatchObject({ current: null });
  await config.set(key, { max: 3 }, { ifRevision: 0 });
  await until('the key', () => ref.value.max === 3);
  expect(await other.children('/config/dev/orders')).toEqual(['limits']); // what counts is not left there
});

test('what it can not hold is refused, and none of it is made', async (finish) => {
  const { url } = await begin(finish);
  const { config } = await client(finish, url, { history: 0 });
  const refused = async (promise: Promise<unknown>, message: RegExp | string) =>
    expect(await failure(promise)).toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      message: expect.stringMatching(message),
    });
  await refused(config.set('/a', ''), /value: expected at least one byte: in ZooKeeper/);
  await refused(config.set('/zookeeper/quota', 1), /belongs to ZooKeeper itself/);
  await refused(config.list('/zookeeper/'), /belongs to ZooKeeper itself/);
  await refused(config.raw('/a/\u{f000}'), /characters that ZooKeeper does not allow/);
  const most = 'x'.repeat(1_048_575 - 300);
  await refused(config.set('/large', 'x'.repeat(1024 * 1024)), /bytes long, which is more than a ZooKeeper takes/);
  await refused(config.setAll({ '/large/a': most, '/large/b': 'x'.repeat(1000) }), /more than a ZooKeeper takes/);
  expect(await config.list('/large/')).toEqual([]);
  await config.set('/large', most);
  expect((await config.raw('/large'))?.value.length).toBe(most.length);
});

test('a node that was deleted and made again is another one, though its version is the same', async (finish) => {
  const { link, other } = await linked(finish);
  const { config } = await client(finish, `zookeeper://${link.host}`, { history: 0 });
  const revision = await config.set(key, 'ours');
  link.hold('down'); // what stands there is read; the answer waits, and with it what is done by it
  const up = link.bytesUp;
  const late = failure(config.set(key, 'ours again', { ifRevision: revision }));
  await until('the look', () => link.bytesUp > up);
  await other.sync(key);
  await other.delete(key);
  await other.create(key, 'of somebody else');
  expect((await other.get(key))?.stat.version).toBe(0);
  link.release();
  expect(await late).toBeInstanceOf(ConflictError);
  expect((await other.get(key))?.value).toBe('of somebody else');
});

test('a read of many folders is of one moment, while they are changed, made and deleted', async (finish) => {
  const { url } = await begin(finish);
  const writer = await client(finish, url, { history: 0 });
  const reader = await client(finish, url, { settleMs: 0 });
  const base = '/config/moment';
  const keysOf = (n: number) => [`${base}/a`, `${base}/b/c/d/${n}`, `${base}/b/${n}/e`, `${base}/z/${n}`];
  const write = (n: number) => {
    const gone = n > 0 ? keysOf(n - 1).map((one) => [one, null]) : [];
    return writer.config.setAll(Object.fromEntries([...gone, ...keysOf(n).map((one) => [one, n])]));
  };
  await write(0);
  let [n, isOver] = [0, false];
  let [mixed, reads, snapshots, last] = [0, 0, 0, -1];
  const isWhole = (entries: readonly Entry[]) => {
    const value = Number(entries[0]?.value);
    const wanted = keysOf(value).sort();
    return (
      entries.length === 4 && wanted.every((one, at) => entries[at]?.key === one && entries[at]?.value === `${value}`)
    );
  };
  const watcher = reader.config.watchPrefix(`${base}/`);
  const follow = (async () => {
    for await (const entries of watcher) {
      const all = [...entries.values()];
      if (!isWhole(all) || Number(all[0]?.value) < last) mixed++;
      last = Number(all[0]?.value);
      snapshots++;
      if (isOver && last === n) return;
    }
  })();
  const look = (async () => {
    for (; !isOver; reads++) if (!isWhole(await reader.config.list(`${base}/`))) mixed++;
  })();
  // As many as it takes until there was enough to look at: on a busy machine a read takes as long as many writes.
  while (n < TRANSACTIONS || Math.min(reads, snapshots) <= 10) await write(++n);
  isOver = true;
  await write(++n); // is seen after the end, whatever was seen before
  await Promise.all([look, follow]);
  expect(mixed).toBe(0);
});

test('transactions over several folders, with what is read broken off again and again: none is mixed, none goes back', async (finish) => {
  const { server } = await begin(finish, { members: MEMBERS });
  const link = await startTcpProxy(server.hosts[0] as string);
  finish.onTestFinished(() => link.close());
  const writer = await client(finish, server.url, { history: 0 });
  const reading = MEMBERS === 1 ? `zookeeper://${link.host}` : server.url;
  const reader = await client(finish, reading, { settleMs: 0, ttlMs: 4000 });
  const keys = ['/config/global/limits', '/config/dev/global/limits', key];
  const write = async ({ config }: Coord, n: number) => {
    const all = Object.fromEntries(keys.map((one, place) => [one, { [`n${place}`]: n }]));
    for (;;) {
      try {
        return await config.setAll(all);
      } catch (error) {
        if (!(error as { outcomeUnknown?: boolean }).outcomeUnknown) throw error; // written or not, it is written anew
      }
    }
  };
  await write(writer, 0);
  const ref = await reader.config.open(defineConfig({ key: '/config/{env}/{service}/limits', schema: anything }));
  let [mixed, back, last, seen, resets] = [0, 0, 0, 0, 0];
  ref.on('reset', () => resets++);
  ref.on('change', (value) => {
    const { n0, n1, n2 } = value as { n0: number; n1: number; n2: number };
    if (n0 !== n1 || n1 !== n2) mixed++;
    if (n0 < last) back++;
    last = n0;
    seen++;
  });
  let [isOver, breaks] = [false, 0];
  const breaking = (async () => {
    for (let n = 0; !isOver; n++) {
      if (MEMBERS === 1) {
        link.sever();
        await until('the next', () => isOver || !ref.stale);
        await new Promise((resolve) => setTimeout(resolve, 100));
      } else {
        const member = server.members[n % MEMBERS];
        await member?.kill();
        await member?.start();
      }
      breaks++;
    }
  })();
  let n = 0;
  do await write(writer, ++n);
  while (n < TRANSACTIONS || breaks < 3);
  isOver = true;
  await breaking;
  await until('the last', () => last === n);
  expect([mixed, back, resets]).toEqual([0, 0, 0]);
  expect(seen).toBeGreaterThan(3);
});

test('killed and started again: the value stays, stale, then fresh, with what was changed by others', async (finish) => {
  const { server, url } = await begin(finish);
  await (await server.client()).createAll(key, '{"max":1}');
  const { ref, told } = await opened(finish, url);
  await server.kill();
  await until('stale', () => ref.stale);
  expect(ref.value).toEqual({ max: 1 });
  await server.start();
  const other = await server.client();
  for (const max of [2, 3, 4]) await other.set(key, `{"max":${max}}`);
  await until('the last', () => ref.value.max === 4);
  await until('fresh', () => told.includes('fresh'));
  expect(told).not.toContain('reset');
  const values = told.filter((one) => typeof one === 'number');
  expect(values).toEqual([...values].sort());
});

test('restored from an older backup: it is told, and the older value is what lies there', async (finish) => {
  const { server, url } = await begin(finish);
  const other = await server.client();
  await other.createAll(key, '{"max":1}');
  await server.kill();
  const restore = server.backup();
  await server.start();
  const { coord, ref, told } = await opened(finish, url, { ttlMs: 2000 });
  for (const max of [2, 3, 4, 5]) await coord.config.set(key, { max });
  await until('the last', () => ref.value.max === 5);
  told.length = 0;
  await restore();
  await until('the older value', () => ref.value.max === 1);
  await until('fresh', () => told.includes('fresh'));
  expect(told).toEqual(['stale', 'reset', 1, 'fresh']);
});

test('a frozen server: a write that was not sent is certain not to be made', async (finish) => {
  const { server, url } = await begin(finish);
  await (await server.client()).createAll(key, '{"max":1}');
  const { coord, ref } = await opened(finish, url, { history: 0, timeoutMs: 1000 });
  server.freeze();
  const late = await failure(coord.config.set(key, { max: 2 }, { timeoutMs: 500 }));
  server.thaw();
  expect(late).toMatchObject({ code: 'ERR_TIMEOUT', operation: 'set', retryable: true });
  expect(late).not.toHaveProperty('outcomeUnknown');
  expect((await coord.config.raw(key))?.value).toBe('{"max":1}');
  await coord.config.set(key, { max: 3 });
  await until('the value', () => ref.value.max === 3);
});

test('a write whose answer never comes says that it may be made, and is not sent twice', async (finish) => {
  const { link, other } = await linked(finish);
  const { config } = await client(finish, `zookeeper://${link.host}`, { history: 0, ttlMs: 6000 });
  const first = await config.set('/config/counter', 0);
  link.hold('down'); // what stands there is read and answered; what is written by it is not answered
  const up = link.bytesUp;
  const writing = failure(config.set('/config/counter', 1));
  await until('the look', () => link.bytesUp > up);
  const down = link.bytesDown;
  link.hold('up');
  await until('its answer', () => link.bytesDown > down);
  link.dropAnswers();
  link.release();
  await until('the write', async () => (await other.get('/config/counter'))?.value === '1');
  link.sever();
  expect(await writing).toMatchObject({ operation: 'set', outcomeUnknown: true, retryable: false });
  link.dropAnswers(false);
  const stat = (await other.get('/config/counter'))?.stat;
  expect([stat?.version, (stat?.mzxid ?? 0n) > first]).toEqual([1, true]);
});

test('nodes have the access list of the client, and who may not is told so', async (finish) => {
  const { server, url } = await begin(finish);
  const owner = await client(finish, url.replace('//', '//owner:secret@'), { acl: 'creator-anyone-reads' } as object);
  await owner.config.set(key, { max: 1 });
  const other = await server.client();
  for (const path of ['/config', '/config/dev/orders', key]) {
    expect((await other.acls(path)).map(({ scheme, perms }) => `${scheme} ${perms}`)).toEqual(['digest 31', 'world 1']);
  }
  const reader = await client(finish, url, { history: 0 });
  expect((await reader.config.open(LIMITS)).value).toEqual({ max: 1 });
  const refused = await failure(reader.config.set(key, { max: 2 }));
  expect(refused).toMatchObject({ code: 'ERR_PERMISSION_DENIED', operation: 'set', retryable: false });
  await owner.config.set('/own', 1);
  const shut = await client(finish, url.replace('//', '//owner:secret@'), { acl: 'creator' } as object);
  await shut.config.set('/config/dev/shut/a', 1);
  const closed = await failure(reader.config.list('/config/dev/'));
  expect(closed).toMatchObject({ code: 'ERR_PERMISSION_DENIED', operation: 'list' });
});
