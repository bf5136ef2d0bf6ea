// mock(): the same seam as etcd3's. One program runs on both, and what the mocks were asked is compared.
import { EventEmitter } from 'node:events';
import { Etcd3 as Theirs } from 'etcd3';
import { Etcd3, Range } from 'rollcall/etcd';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';
import { uniqueName } from '../support/process.js';
import { comparable, outcome } from './both.js';

const header = { cluster_id: '1', member_id: '2', revision: '3', raft_term: '4' };
const kv = (key: string, value: string) => ({
  key: Buffer.from(key),
  value: Buffer.from(value),
  create_revision: '1',
  mod_revision: '2',
  version: '1',
  lease: '0',
});

/** What a mock of each method answers: anew each time, for etcd3 takes the prefix off in place. */
const answers = (): Record<string, unknown> => ({
  range: { header, kvs: [kv('ns/a', '7'), kv('ns/b', '8')], more: false, count: '2' },
  put: { header, prev_kv: kv('ns/a', 'before') },
  deleteRange: { header, deleted: '1', prev_kvs: [kv('ns/a', 'before')] },
  txn: { header, succeeded: true, responses: [] },
  roleList: { header, roles: ['r'] },
  userList: { header, users: ['u'] },
  roleGet: { header, perm: [{ permType: 'Read', key: Buffer.from('a'), range_end: Buffer.alloc(0) }] },
  userGet: { header, roles: ['r'] },
});

/** Answers of the table, and remembers what was asked. A class, with state: `exec` must keep its `this`. */
class Recorder {
  readonly asked: unknown[] = [];
  fail: Error | undefined;

  async exec(service: string, method: string, params: unknown): Promise<never> {
    this.asked.push(comparable([service, method, params]));
    if (this.fail) throw this.fail;
    return (answers()[method] ?? { header }) as never;
  }
}

/** A program that touches every builder, and what became of each call. */
async function program(client: Etcd3, range: typeof Range): Promise<unknown[]> {
  const ns = client.namespace('ns/');
  const calls: (() => unknown)[] = [
    () => ns.get('a').string(),
    () => ns.get('a').number(),
    () => ns.get('a').json(),
    () => ns.get('a').buffer(),
    () => ns.get('a').exists(),
    () => ns.get('a').exec(),
    () => ns.get('a').string('hex'),
    () => ns.get('a').revision(5).serializable(true).minModRevision(1).maxCreateRevision('9').string(),
    () => ns.getAll().strings(),
    () => ns.getAll().prefix('x').limit(5).sort('Mod', 'Descend').keys(),
    () => ns.getAll().inRange({ start: 'a', end: 'c' }).json(),
    () => ns.getAll().all().numbers(),
    () => ns.getAll().buffers(),
    () => ns.getAll().keyBuffers(),
    () => ns.getAll().count(),
    () => ns.getAll().exec(),
    () => ns.put('a').value('v'),
    () => ns.put('a').value(5).exec(),
    () =>
      ns
        .put('a')
        .value(Buffer.from([1, 2]))
        .lease('77')
        .exec(),
    () => ns.put('a').value('v').ignoreLease().getPrevious(),
    () => ns.put('a').touch(),
    () => ns.delete().key('a'),
    () => ns.delete().prefix('a').exec(),
    () => ns.delete().all().getPrevious(),
    () => ns.delete().range(new range('a', 'b')).exec(),
    () =>
      ns
        .if('a', 'Version', '==', 1)
        .and('b', 'Value', '!=', 'x')
        .then(ns.put('a').value('1'))
        .else(ns.get('b'))
        .commit(),
    () => client.getRoles().then((roles) => roles.map(({ name }) => name)),
    () => client.getUsers().then((users) => users.map(({ name }) => name)),
    () =>
      client
        .role('r')
        .create()
        .then(({ name }) => name),
    () =>
      client
        .role('r')
        .permissions()
        .then((all) => all.map(({ permission }) => permission)),
    () =>
      client
        .role('r')
        .grant({ permission: 'Read', key: 'k' })
        .then(({ name }) => name),
    () =>
      client
        .user('u')
        .create('secret')
        .then(({ name }) => name),
    () =>
      client
        .user('u')
        .roles()
        .then((roles) => roles.map(({ name }) => name)),
    () =>
      client
        .user('u')
        .addRole('r')
        .then(({ name }) => name),
    () => client.kv.compact({ revision: '5' }),
    () => client.leaseClient.leaseGrant({ TTL: 5 }),
    () => client.leaseClient.leaseLeases(),
    () => client.cluster.memberList({}),
    () => client.maintenance.status(),
    () => client.auth.authStatus(),
  ];
  const outcomes = [];
  for (const call of calls) outcomes.push(await outcome(call));
  return outcomes;
}

describe('a mock', () => {
  const nowhere = { hosts: '127.0.0.1:1' };

  it('is asked what a mock of etcd3 is asked, and its answers come out alike', async () => {
    const [ours, theirs] = [new Etcd3(nowhere), new Theirs(nowhere)];
    const [mine, other] = [new Recorder(), new Recorder()];
    expect(ours.mock(mine)).toBe(mine);
    theirs.mock(other as never);
    const { Range: TheirRange } = await import('etcd3');
    const [told, expected] = [
      await program(ours, Range),
      await program(theirs as unknown as Etcd3, TheirRange as unknown as typeof Range),
    ];
    expect(told).toEqual(expected);
    expect(normal(mine.asked)).toEqual(normal(other.asked));
    expect(mine.asked.length).toBeGreaterThanOrEqual(40);
    theirs.close();
    await ours.close();
  });

  it('that fails: its errors come out as they are', async () => {
    const [ours, theirs] = [new Etcd3(nowhere), new Theirs(nowhere)];
    const [mine, other] = [new Recorder(), new Recorder()];
    ours.mock(mine);
    theirs.mock(other as never);
    class Mine extends Error {}
    const thrown = new Mine('by the mock');
    mine.fail = thrown;
    other.fail = thrown;
    for (const client of [ours, theirs as unknown as Etcd3]) {
      for (const call of [
        () => client.get('a').string(),
        () => client.namespace('n').put('a').value('v').exec(),
        () => client.getAll().keys(),
        () => client.delete().all().exec(),
        () => client.if('a', 'Mod', '>', 1).then(client.get('a')).commit(),
        () => client.kv.range({}),
        () => client.getRoles(),
      ]) {
        await expect(call()).rejects.toBe(thrown);
      }
    }
    theirs.close();
    await ours.close();
  });

  it('gets streams by withConnection', async () => {
    const client = new Etcd3(nowhere);
    const streams: string[] = [];
    const stream = Object.assign(new EventEmitter(), { write() {}, end() {}, cancel() {} });
    client.mock({
      async withConnection(service: string, fn: (args: never) => unknown) {
        streams.push(service);
        const open = () => stream;
        return (await fn({
          resource: 'mine',
          client: { watch: open, leaseKeepAlive: open, snapshot: open },
          metadata: {},
        } as never)) as never;
      },
      markFailed() {},
    });
    expect(await client.watchClient.watch()).toBe(stream);
    expect(await client.leaseClient.leaseKeepAlive()).toBe(stream);
    expect(await client.maintenance.snapshot()).toBe(stream);
    expect(streams).toEqual(['Watch', 'Lease', 'Maintenance']);
    await client.close();
  });

  it('that lacks a method, or answers what no server would, fails the call and nothing else', async () => {
    const client = new Etcd3(nowhere);
    client.mock({});
    await expect(client.get('a').string()).rejects.toBeInstanceOf(TypeError);
    for (const answer of [undefined, null, 5, {}, { kvs: null }]) {
      client.mock({ exec: async () => answer as never });
      await expect(client.get('a').string()).rejects.toBeInstanceOf(TypeError);
    }
    client.mock({
      exec() {
        throw new RangeError('not even a promise');
      },
    });
    await expect(client.get('a').string()).rejects.toBeInstanceOf(RangeError);
    await client.close();
  });
});

it('a mutex of a mocked client takes nothing on the real etcd', async () => {
  const client = new Etcd3({ hosts: '127.0.0.1:1' });
  const before = client.mutex('made before');
  client.mock({});
  for (const mutex of [before, client.mutex('made after')]) {
    await expect(mutex.acquire()).rejects.toMatchObject({ code: 'ERR_UNSUPPORTED' });
    await expect(mutex.tryAcquire()).rejects.toMatchObject({ code: 'ERR_UNSUPPORTED' });
    expect(mutex.isHeld).toBe(false);
  }
  await client.close();
});

describe('mock() and unmock() on a client that works', () => {
  let etcd: EtcdCluster;
  let client: Etcd3;
  beforeAll(async () => {
    etcd = await startEtcd();
    client = new Etcd3({ hosts: [...etcd.hosts] });
  });
  afterAll(async () => {
    await client?.close();
    await etcd?.close();
  });

  it('the servers see nothing of it, and everything afterwards; calls under way are not touched', async () => {
    const key = uniqueName();
    const ns = client.namespace('ns/'); // made before the mock
    const under = client.put(key).value('real');
    const promise = under.exec();
    const mock = client.mock(new Recorder() as never) as unknown as Recorder;
    await promise;
    await ns.put(key).value('mocked');
    expect(await client.get(key).number()).toBe(7);
    expect(mock.asked).toHaveLength(2);
    client.unmock();
    expect(await client.get(key).string()).toBe('real');
    expect(await ns.get(key).string()).toBeNull();
    expect(mock.asked).toHaveLength(2);
    client.unmock(); // once more is harmless
  });
});

/** What protobuf would not tell apart: absent, undefined and empty. */
function normal(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(normal);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, member]) => member !== undefined && member !== null && member !== 'Buffer ')
      .map(([name, member]) => [name, normal(member)]),
  );
}
