/** Reading more keys than one answer should hold: page by page, all of one revision. */

import { CompactedError, Etcd3, GRPCResourceExhastedError, InvalidArgumentError, type Namespace } from 'rollcall/etcd';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ETCD_VERSIONS, type EtcdCluster, startEtcd } from '../support/etcd.js';
import { uniqueName } from '../support/process.js';

describe.each(ETCD_VERSIONS)('on etcd %s', (version) => {
  let etcd: EtcdCluster;
  let client: Etcd3;
  let ns: Namespace;

  beforeAll(async () => {
    etcd = await startEtcd({ version });
    client = new Etcd3({ hosts: [...etcd.hosts] });
  });
  afterAll(async () => {
    await client?.close();
    await etcd?.close();
  });
  beforeEach(() => {
    ns = client.namespace(`${uniqueName()}/`);
  });

  const keysOf = async (stream: AsyncIterable<{ key: Buffer }>) => {
    const keys: string[] = [];
    for await (const { key } of stream) keys.push(key.toString());
    return keys;
  };
  const some = (count: number) => Array.from({ length: count }, (_, index) => `k${String(index).padStart(4, '0')}`);

  async function fillPages(count: number): Promise<string[]> {
    const keys = some(count);
    for (let at = 0; at < count; at += 100) {
      const batch = ns.batch();
      for (const key of keys.slice(at, at + 100)) batch.put(key, key);
      await batch.commit();
    }
    return keys;
  }

  it.each([1, 7, 50, 51, 1000])('every key comes once and in order: pages of %i', async (pageSize) => {
    const keys = await fillPages(50);
    expect(await keysOf(ns.getAll().stream({ pageSize }))).toEqual(keys);
  });

  it('a builder iterates by itself, over what it selects', async () => {
    const keys = await fillPages(30);
    expect(await keysOf(ns.getAll().prefix('k001'))).toEqual(keys.slice(10, 20));
    expect(await keysOf(ns.getAll().inRange('k0011'))).toEqual(['k0011']);
    expect(await keysOf(ns.getAll().prefix('none'))).toEqual([]);
    expect(await keysOf(ns.getAll().limit(7).stream({ pageSize: 3 }))).toEqual(keys.slice(0, 7));
    expect(await keysOf(ns.getAll().sort('Key', 'Ascend').stream({ pageSize: 8 }))).toEqual(keys);
  });

  it('all pages are of one revision, and no more than one is held', async () => {
    const keys = await fillPages(40);
    let calls = 0;
    let largest = 0;
    const counting = client.namespace(ns.prefix);
    const { connection } = counting as unknown as { connection: { exec: (...args: unknown[]) => Promise<unknown> } };
    const exec = connection.exec;
    const seen: string[] = [];
    connection.exec = async function (this: unknown, ...args: unknown[]) {
      const answer = (await exec.apply(this, args)) as { kvs?: unknown[] };
      if (args[1] === 'range') {
        calls++;
        largest = Math.max(largest, answer.kvs?.length ?? 0);
      }
      return answer;
    };
    try {
      for await (const { key } of counting.getAll().stream({ pageSize: 10 })) {
        if (seen.length === 5) {
          expect(calls).toBe(1);
          await ns.delete().key(keys[35] as string);
          await ns.put('k0005x').value('late');
          await ns.put(keys[30] as string).value('late');
        }
        seen.push(key.toString());
      }
    } finally {
      connection.exec = exec;
    }
    expect(seen).toEqual(keys);
    expect([calls, largest]).toEqual([4, 10]);
  });

  it('break ends it: no page more is read', async () => {
    await fillPages(30);
    const stream = ns.getAll().stream({ pageSize: 10 });
    for await (const { key } of stream) if (key.toString() === 'k0004') break;
    expect(await stream.next()).toEqual({ done: true, value: undefined });
  });

  it('a compaction in the middle is a CompactedError', async () => {
    await fillPages(30);
    const seen: string[] = [];
    const reading = (async () => {
      for await (const { key } of ns.getAll().stream({ pageSize: 10 })) {
        seen.push(key.toString());
        if (seen.length === 10) {
          await ns.put('k').value('later');
          await etcd.compact();
        }
      }
    })();
    const error = await reading.then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(CompactedError);
    expect(error).toMatchObject({ code: 'ERR_COMPACTED', details: expect.stringContaining('compacted') });
    expect(seen.length).toBe(10);
  });

  it('a signal ends it between two keys', async () => {
    await fillPages(30);
    const controller = new AbortController();
    const seen: string[] = [];
    const reading = (async () => {
      for await (const { key } of ns.getAll().options({ signal: controller.signal }).stream({ pageSize: 10 })) {
        if (seen.push(key.toString()) === 3) controller.abort(new Error('enough'));
      }
    })();
    await expect(reading).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: { message: 'enough' } });
    expect(seen.length).toBe(3);
  });

  it('another order, and pages of nothing, are refused at once', () => {
    expect(() => ns.getAll().sort('Key', 'Descend').stream()).toThrow(InvalidArgumentError);
    expect(() => ns.getAll().sort('Mod', 'Ascend').stream()).toThrow(/pages come by key/);
    expect(() => ns.getAll().stream({ pageSize: 0 })).toThrow(InvalidArgumentError);
  });
});

it('a page that is too large for one answer is read in halves', async () => {
  const client = new Etcd3({ hosts: '127.0.0.1:1' });
  const keys = Array.from({ length: 10 }, (_, index) => `k${index}`);
  const limits: number[] = [];
  client.mock({
    exec: async (_service: string, _method: string, params: unknown) => {
      const { key, limit } = params as { key: Buffer; limit: number };
      limits.push(limit);
      if (limit > 3) throw new GRPCResourceExhastedError('8 RESOURCE_EXHAUSTED: Received message larger than max');
      const found = keys.filter((one) => Buffer.from(one).compare(key) >= 0);
      const numbers = { version: '1', create_revision: '2', mod_revision: '2', lease: '0' };
      return {
        header: { revision: '7' },
        kvs: found.slice(0, limit).map((one) => ({ key: Buffer.from(one), value: Buffer.alloc(0), ...numbers })),
        more: found.length > limit,
        count: String(found.length),
      } as never;
    },
  });
  const seen: string[] = [];
  for await (const { key } of client.getAll().stream({ pageSize: 8 })) seen.push(key.toString());
  expect(seen).toEqual(keys);
  expect(limits).toEqual([8, 4, 2, 2, 2, 2, 2]);
  client.unmock();
  await client.close();
});
