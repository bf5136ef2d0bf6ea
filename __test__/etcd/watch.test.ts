/** Watches: like those of etcd3, and where etcd3 errs, better. */

import { once } from 'node:events';
import {
  CompactedError,
  Etcd3,
  EtcdPermissionDeniedError,
  GRPCCancelledError,
  GRPCInvalidArgumentError,
  type IKeyValue,
  InvalidArgumentError,
  type IWatchResponse,
  type Namespace,
  UnsupportedError,
  type WatchBuilder,
  type WatchChange,
  type Watcher,
} from 'rollcall/etcd';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ETCD_VERSIONS, type EtcdCluster, startEtcd } from '../support/etcd.js';
import { runProgram, uniqueName, waitFor, within } from '../support/process.js';
import { type Both, connectBoth } from './both.js';

const text = (kv: IKeyValue | null | undefined) =>
  kv && { ...kv, key: kv.key.toString('latin1'), value: kv.value.toString('latin1') };

/** Everything that a watcher tells, in order, without what differs between two watches. */
function record(watcher: Watcher): unknown[] {
  const told: unknown[] = [];
  const response = ({ watch_id: _, ...res }: IWatchResponse) => ({
    ...res,
    events: res.events.map(({ type, kv, prev_kv }) => ({ type, kv: text(kv), prev_kv: text(prev_kv) })),
  });
  watcher.on('put', (kv, previous) => told.push(['put', text(kv), text(previous)]));
  watcher.on('delete', (kv, previous) => told.push(['delete', text(kv), text(previous)]));
  watcher.on('data', (res) => told.push(['data', response(res)]));
  watcher.on('connected', (res) => told.push(['connected', response(res)]));
  watcher.on('connecting', (req) => told.push(['connecting', { ...req, start_revision: String(req.start_revision) }]));
  watcher.on('end', () => told.push(['end']));
  return told;
}

const seen = (told: unknown[], kind: string) => told.filter((one) => (one as unknown[])[0] === kind).length;

async function collect<E>(watcher: AsyncIterable<E>, count: number): Promise<E[]> {
  const changes: E[] = [];
  for await (const change of watcher) if (changes.push(change) === count) break;
  return changes;
}

describe.each(ETCD_VERSIONS)('etcd %s', (version) => {
  let etcd: EtcdCluster;
  let client: Etcd3;
  let both: Both;
  beforeAll(async () => {
    etcd = await startEtcd({ version });
    both = connectBoth(etcd.hosts);
    client = new Etcd3({ hosts: [...etcd.hosts] });
  });
  afterAll(async () => {
    await both?.close();
    await client?.close();
    await etcd?.close();
  });
  /** A namespace of its own for each test. */
  const space = () => client.namespace(`${uniqueName()}/`);

  describe('like etcd3', () => {
    const kinds: [string, (ns: Namespace, from: string) => WatchBuilder][] = [
      ['a key', (ns) => ns.watch().key('a')],
      ['a prefix', (ns) => ns.watch().prefix('d')],
      ['a prefix with what was before', (ns) => ns.watch().prefix('').withPreviousKV()],
      ['a range', (ns) => ns.watch().inRange({ start: 'b', end: 'd/2' })],
      ['only puts', (ns) => ns.watch().prefix('').only('put')],
      ['only deletes', (ns) => ns.watch().prefix('').only('delete').withPreviousKV()],
      ['the deprecated ignore', (ns) => ns.watch().prefix('').ignore('put')],
      ['an old revision', (ns, from) => ns.watch().prefix('').startRevision(from)],
    ];
    it.each(kinds)('%s', async (kind, watch) => {
      const prefix = `${uniqueName()}/`;
      const ns = client.namespace(prefix);
      const { header } = await ns.put('a').value('before');
      const watchers = [both.ours, both.theirs].map((each) => watch(each.namespace(prefix), header.revision).watcher());
      const told = watchers.map(record);
      await waitFor(() => told.every((one) => seen(one, 'connected') > 0), { what: 'both are connected' });
      if (kind === 'an old revision') {
        // The server tells the past when it gets to it, and what is written until then in one piece with it.
        await waitFor(() => told.every((one) => seen(one, 'data') > 0), { what: 'both have the past' });
      }
      await ns.put('a').value('1');
      await ns.put('a').value(Buffer.from([0, 255]));
      await ns
        .if('a', 'Version', '>', 0)
        .then(ns.put('b').value(''), ns.put('d/1').value('x'), ns.delete().key('a'))
        .commit();
      await ns.delete().all();
      // Behind everything of interest, one of each kind that every kind of watch but one key's lets through.
      for (const end of ['a', 'c', 'd/1']) await ns.put(end).value('end');
      await ns.delete().all();
      await waitFor(
        () => told.every((one) => /"(end|delete)"/.test(JSON.stringify(one.at(-1)) ?? '') || one.length > 8),
        {
          what: 'both have told something',
        },
      ).catch(() => {});
      await waitFor(() => told[0]?.length === told[1]?.length && (told[0]?.length ?? 0) > 3, {
        what: 'as much from both',
      });
      // etcd3 hands over the same request object, and moves its start revision to the store's.
      const [ours, theirs] = told.map((one) => one.filter((each) => (each as unknown[])[0] !== 'connecting'));
      expect(ours).toEqual(theirs);
      expect(seen(told[0] as unknown[], 'connecting')).toBe(1);
      await watchers[0]?.cancel();
      await watchers[1]?.cancel();
      expect(told[0]?.at(-1)).toEqual(['end']);
      expect(told[1]?.at(-1)).toEqual(['end']);
    });

    it('tells of an expired lease as of a deletion', async () => {
      const ns = space();
      const watcher = await ns.watch().key('k').withPreviousKV().create();
      const lease = await etcd.grant(60);
      const { key } = await ns
        .put('k')
        .value('v')
        .op()
        .then((op) => op.request_put as { key: Buffer });
      const written = once(watcher, 'put');
      await etcd.put(String(key), 'v', lease);
      const [put] = await written;
      expect(BigInt((put as IKeyValue).lease)).toBe(BigInt(`0x${lease}`));
      const gone = once(watcher, 'delete');
      await etcd.revoke(lease);
      const [kv, previous] = await gone;
      expect(text(kv as IKeyValue)).toMatchObject({ key: 'k', value: '', lease: '0', version: '0' });
      expect((previous as IKeyValue).lease).toBe(put.lease);
      await watcher.cancel();
    });
  });

  it('events that come while create() resolves wait for the listeners', async () => {
    const ns = space();
    const { header } = await ns.put('k').value('0');
    for (let i = 1; i < 5; i++) await ns.put('k').value(i);
    const create = async () => await ns.watch().key('k').startRevision(header.revision).create();
    const watcher = await create();
    const values: string[] = [];
    watcher.on('put', (kv) => values.push(kv.value.toString()));
    await waitFor(() => values.length === 5, { what: 'all events' });
    expect(values).toEqual(['0', '1', '2', '3', '4']);
    await watcher.cancel();
  });

  it('a compacted revision rejects create(), is an error of watcher(), and touches no other watch', async () => {
    const ns = space();
    const { header: first } = await ns.put('k').value('1');
    const { header } = await ns.put('k').value('2');
    await client.kv.compact({ revision: header.revision });
    const error = await ns
      .watch()
      .key('k')
      .startRevision(first.revision)
      .create()
      .catch((e: unknown) => e);
    expect(error).toBeInstanceOf(CompactedError);
    expect((error as CompactedError).compactRevision).toBe(BigInt(header.revision));
    expect((error as Error).stack).toContain('watch.test.ts');

    const lost = ns.watch().key('k').startRevision(first.revision).watcher();
    const [event] = await once(lost, 'error');
    expect(event).toBeInstanceOf(CompactedError);
    await lost.cancel();

    // The oldest one that is left, and one that nothing has happened in since.
    const good = await ns.watch().key('k').startRevision(header.revision).create();
    const [kv] = await once(good, 'put');
    expect(kv.value.toString()).toBe('2');
    await good.cancel();
    const idle = await within(ns.watch().key('other').startRevision(header.revision).create(), 5000, 'a quiet watch');
    await idle.cancel();

    const loop = ns.watch().key('k').startRevision(first.revision).watcher();
    await expect(collect(loop, 1)).rejects.toThrow(CompactedError);
  });

  it('withRelist() reads what is there after a gap and goes on from it', async () => {
    const ns = space();
    const { header: first } = await ns.put('a').value('1');
    await ns.put('b').value('2');
    await ns.delete().key('a');
    const { header } = await ns.put('c').value('3');
    await client.kv.compact({ revision: header.revision });
    const watcher = await ns.watch().prefix('').startRevision(first.revision).withRelist().create();
    const lists: string[] = [];
    watcher.on('list', (kvs, revision) => lists.push(`${kvs.map(({ key, value }) => `${key}=${value}`)} ${revision}`));
    const changes = collect(watcher, 2);
    await waitFor(() => lists.length > 0, { what: 'the list' });
    await ns.put('d').value('4');
    const [list, put] = await changes;
    expect(lists).toEqual([`b=2,c=3 ${header.revision}`]);
    expect(list).toMatchObject({ type: 'list', revision: BigInt(header.revision) });
    expect(list?.type === 'list' && list.keys.map(({ key }) => String(key))).toEqual(['b', 'c']);
    expect(put).toMatchObject({ type: 'put', key: Buffer.from('d'), revision: BigInt(header.revision) + 1n });
  });

  it('for await gives revisions as bigint, and break cancels', async () => {
    const ns = space();
    const watcher = await ns.watch().prefix('').withPreviousKV().create();
    const ended = once(watcher, 'end');
    const changes = collect(watcher, 3);
    const { header } = await ns.put('k').value('1');
    await ns.put('k').value('2');
    await ns.delete().key('k');
    const revision = BigInt(header.revision);
    const kv = { key: Buffer.from('k'), createRevision: revision, lease: 0n };
    const one = { ...kv, value: Buffer.from('1'), revision, version: 1n };
    const two = { ...kv, value: Buffer.from('2'), revision: revision + 1n, version: 2n };
    const gone = { ...kv, value: Buffer.alloc(0), createRevision: 0n, version: 0n, revision: revision + 2n };
    expect(await changes).toEqual([
      { type: 'put', ...one, previous: undefined },
      { type: 'put', ...two, previous: one },
      { type: 'delete', ...gone, previous: two },
    ]);
    await ended;
    expect(watcher.id).toBeNull();
    expect(await collect(watcher, 1)).toEqual([]);
  });

  it('a slow reader gets every change in order, though more come than may wait', async () => {
    const ns = space();
    const watcher = await ns.watch().prefix('').create();
    const iterator = watcher[Symbol.asyncIterator]();
    const count = 30_000;
    for (let done = 0; done < count; done += 100) {
      const { header } = await client.kv.txn({
        success: await Promise.all(
          Array.from({ length: 100 }, (_, i) =>
            ns
              .put(`${done + i}`)
              .value('x'.repeat(200))
              .op(),
          ),
        ),
      });
      expect(header.revision).not.toBe('0');
    }
    // Another watch of the client is not held up.
    const other = await within(ns.watch().key('other').create(), 5000, 'another watch');
    const put = once(other, 'put');
    await ns.put('other').value('1');
    await within(put, 5000, 'an event of another watch');
    for (let i = 0; i < count; i++) {
      const { value } = await iterator.next();
      if (String((value as WatchChange).key) !== String(i)) throw new Error(`${(value as WatchChange).key} for ${i}`);
    }
    await watcher.cancel();
    await other.cancel();
  });

  it('a listener that throws harms neither the watch nor the others', async () => {
    const ns = space();
    const uncaught: string[] = [];
    const listeners = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    process.on('uncaughtException', (error) => uncaught.push(error.message));
    try {
      const [bad, good] = await Promise.all([ns.watch().key('k').create(), ns.watch().key('k').create()]);
      const values: string[] = [];
      bad.on('put', (kv) => {
        values.push(`bad ${kv.value}`);
        throw new Error(`thrown for ${kv.value}`);
      });
      good.on('put', (kv) => values.push(`good ${kv.value}`));
      await ns.put('k').value('1');
      await ns.put('k').value('2');
      await waitFor(() => values.length === 4 && uncaught.length === 2, { what: 'all events and both errors' });
      expect(uncaught).toEqual(['thrown for 1', 'thrown for 2']);
      await bad.cancel();
      await good.cancel();
    } finally {
      process.removeAllListeners('uncaughtException');
      for (const listener of listeners) process.on('uncaughtException', listener);
    }
  });

  it('one is connected before the next is connecting', async () => {
    const ns = space();
    const order: string[] = [];
    const watchers = Array.from({ length: 30 }, (_, i) => {
      const watcher = ns.watch().key(`k${i}`).watcher();
      watcher.on('connecting', () => order.push(`connecting ${i}`));
      watcher.on('connected', () => order.push(`connected ${i}`));
      return watcher;
    });
    await waitFor(() => order.length === 60, { what: 'all are connected' });
    for (let i = 0; i < 60; i += 2) {
      expect(order[i + 1]).toBe(order[i]?.replace('connecting', 'connected'));
    }
    await Promise.all(watchers.map((watcher) => watcher.cancel()));
  });

  it('says where it is', async () => {
    const ns = space();
    const { header } = await ns.put('k').value('1');
    const watcher = ns.watch().prefix('').watcher();
    expect([watcher.id, watcher.lastRevision(), watcher.request.start_revision]).toEqual([null, null, undefined]);
    await once(watcher, 'connected');
    const now = Number(header.revision);
    expect(watcher.id).toMatch(/^\d+$/);
    expect([watcher.lastRevision(), watcher.request.start_revision]).toEqual([now, String(now + 1)]);
    await client.put(uniqueName('elsewhere')).value('x');
    const data = once(watcher, 'data');
    await ns.put('k').value('2');
    await data;
    expect([watcher.lastRevision(), watcher.request.start_revision]).toEqual([now + 2, String(now + 3)]);
    await watcher.cancel();

    const far = ns.watch().key('k').startRevision('9007199254740993').watcher();
    expect(far.request.start_revision).toBe('9007199254740993');
    await once(far, 'connected');
    expect(far.request.start_revision).toBe(String(now + 3));
    await far.cancel();
  });

  it('cancel() settles as often as it is called, also after close()', async () => {
    const own = new Etcd3({ hosts: [...etcd.hosts] });
    const [one, two] = await Promise.all([own.watch().key('a').create(), own.watch().key('b').create()]);
    const ends: string[] = [];
    one.on('end', () => ends.push('one'));
    two.on('end', () => ends.push('two'));
    await within(Promise.all([one.cancel(), one.cancel()]), 2000, 'two calls of cancel()');
    await within(one.cancel(), 2000, 'a third one');
    const loop = collect(two, 1);
    await own.close();
    await within(two.cancel(), 2000, 'cancel() after close()');
    expect(ends).toEqual(['one', 'two']);
    expect(await loop).toEqual([]);
    await expect(own.watch().key('a').create()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    expect(() => own.watch().key('a').watcher()).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
  });

  it('a signal cancels, and rejects a create() that waits', async () => {
    const ns = space();
    const done = new AbortController();
    const watcher = await ns.watch().key('k').create({ signal: done.signal });
    const ended = once(watcher, 'end');
    done.abort(new Error('enough'));
    await ended;
    const again = ns.watch().key('k').create({ signal: done.signal });
    await expect(again).rejects.toThrow(GRPCCancelledError);
    await expect(again).rejects.toMatchObject({ cause: new Error('enough') });
    const nobody = new Etcd3({ hosts: '127.0.0.1:1' });
    await expect(
      nobody
        .watch()
        .key('k')
        .create({ signal: AbortSignal.timeout(300) }),
    ).rejects.toThrow(GRPCCancelledError);
    await nobody.close();
  });

  it('fragments are handed over when they are wanted', async () => {
    const ns = space();
    const ops = (n: number) =>
      Promise.all(Array.from({ length: 100 }, (_, i) => ns.put(`${n} ${i}`).value('x'.repeat(13_000)).op()));
    const { header } = await client.kv.txn({ success: await ops(0) });
    for (let n = 1; n < 4; n++) await client.kv.txn({ success: await ops(n) });
    for (const wanted of [true, false]) {
      const builder = ns.watch().prefix('').startRevision(header.revision);
      const watcher = await (wanted ? builder.withFragment() : builder).create();
      const keys: string[] = [];
      const fragments: boolean[] = [];
      watcher.on('data', (res) => {
        fragments.push(res.fragment);
        keys.push(...res.events.map(({ kv }) => String(kv.key)));
      });
      await waitFor(() => keys.length === 400, { what: 'all keys' });
      expect(new Set(keys).size).toBe(400);
      expect(fragments.includes(true)).toBe(wanted);
      expect(fragments.at(-1)).toBe(false);
      await watcher.cancel();
    }
  });

  it('a watcher keeps the process alive, and close() lets it end', async () => {
    const key = uniqueName();
    const program = runProgram(process.execPath, [
      '-e',
      `const { Etcd3 } = require('rollcall/etcd');
      const client = new Etcd3({ hosts: ${JSON.stringify(etcd.hosts)} });
      client.watch().key(${JSON.stringify(key)}).create().then((watcher) => {
        watcher.on('put', () => client.close());
        console.log('{"ready":true}');
      });`,
    ]);
    await program.line(({ ready }) => ready === true, { what: 'the watch' });
    const early = await Promise.race([program.exit, new Promise((resolve) => setTimeout(resolve, 700))]);
    expect(early).toBeUndefined();
    await etcd.put(key, 'go');
    expect(await within(program.exit, 2000, 'the end of the process')).toMatchObject({ code: 0, stderr: '' });
  });

  it('misuse is refused at once', async () => {
    const ns = space();
    expect(() => ns.watch().watcher()).toThrow(GRPCInvalidArgumentError);
    await expect(ns.watch().create()).rejects.toThrow(GRPCInvalidArgumentError);
    expect(() => ns.watch().key('')).not.toThrow();
    await expect(ns.watch().key('').create()).rejects.toThrow(GRPCInvalidArgumentError);
    expect(() => ns.watch().startRevision(2 ** 53)).toThrow(InvalidArgumentError);
    expect(() => ns.watch().startRevision('soon')).toThrow(InvalidArgumentError);
    expect(() => ns.watch().only('puts' as 'put')).toThrow('"put" "delete"');
    expect(() => ns.watch().key(7 as unknown as string)).toThrow(InvalidArgumentError);
    const mocked = new Etcd3({ hosts: [...etcd.hosts] });
    mocked.mock({ exec: () => Promise.resolve({} as never) });
    await expect(mocked.watch().key('k').create()).rejects.toThrow(UnsupportedError);
    await mocked.close();
  });
});

it.each(ETCD_VERSIONS)('a watch that is denied rejects alone (etcd %s)', async (version) => {
  const users = [{ name: 'app', password: 'secret', roles: [{ prefix: 'mine/' }] }];
  const etcd = await startEtcd({ version, users });
  const client = new Etcd3({ hosts: [...etcd.hosts], auth: { username: 'app', password: 'secret' } });
  try {
    const before = await client.watch().prefix('mine/').create();
    const put = once(before, 'put');
    const [denied, after] = await Promise.allSettled([
      client.watch().prefix('others/').create(),
      client.watch().prefix('mine/').create(),
    ]);
    expect(denied).toMatchObject({ status: 'rejected', reason: expect.any(EtcdPermissionDeniedError) });
    expect(after.status).toBe('fulfilled');
    await client.put('mine/k').value('v');
    await within(put, 5000, 'an event of the watch before');
  } finally {
    await client.close();
    await etcd.close();
  }
});
