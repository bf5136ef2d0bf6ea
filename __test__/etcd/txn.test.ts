/** Transactions and batches: like etcd3, and where etcd3 hangs, with an error. */

import * as theirs from 'etcd3';
import {
  comparator,
  compareTarget,
  type Etcd3,
  GRPCInvalidArgumentError,
  InvalidArgumentError,
  type Namespace,
} from 'rollcall/etcd';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ETCD_VERSIONS, type EtcdCluster, startEtcd } from '../support/etcd.js';
import { uniqueName, within } from '../support/process.js';
import { type Both, connectBoth, outcome } from './both.js';

type Program = [string, (ns: Namespace, client: Etcd3) => unknown];

const programs: Program[] = [
  [
    'then, when it holds',
    (ns) => ns.if('a', 'Value', '==', '1').then(ns.put('b').value('x')).else(ns.delete().key('a')).commit(),
  ],
  [
    'else, when it does not',
    (ns) => ns.if('a', 'Value', '==', '2').then(ns.put('b').value('x')).else(ns.delete().key('a')).commit(),
  ],
  ['without operations', (ns) => ns.if('a', 'Version', '==', 1).commit()],
  [
    'every operation, and what it answers',
    (ns) =>
      ns
        .if('a', 'Create', '>', 0)
        .then(ns.put('new').value(1), ns.get('a'), ns.getAll().prefix('d/').limit(1), ns.delete().prefix('d/'), {
          request_range: { key: Buffer.from('raw') },
        })
        .commit(),
  ],
  ['a later then', (ns) => ns.if('a', 'Mod', '>', '0').then(ns.get('a')).then(ns.get('d/1'), ns.get('d/2')).commit()],
  [
    'and, of which one does not hold',
    (ns) => ns.if('a', 'Version', '==', 1).and('d/1', 'Value', '!=', Buffer.from('eins')).then(ns.get('a')).commit(),
  ],
  ...(Object.keys(comparator) as (keyof typeof comparator)[]).map(
    (cmp): Program => [
      `Version ${cmp}`,
      async (ns) => {
        const answers: boolean[] = [];
        for (const value of [0, 1, '2']) answers.push((await ns.if('a', 'Version', cmp, value).commit()).succeeded);
        return answers;
      },
    ],
  ),
  [
    'every column of a key that does not exist',
    async (ns) => {
      const answers: boolean[] = [];
      for (const column of ['Version', 'Create', 'Mod', 'Lease'] as const) {
        answers.push((await ns.if('no', column, '==', 0).commit()).succeeded);
      }
      return [...answers, (await ns.if('no', 'Value', '!=', 'x').commit()).succeeded];
    },
  ],
  ['Value as a number', (ns) => ns.if('a', 'Value', '==', 1).commit()],
  [
    'Lease',
    async (ns, client) => {
      const { ID } = await client.leaseClient.leaseGrant({ TTL: 60 });
      await ns.put('leased').value('').lease(ID);
      const same = await ns.if('leased', 'Lease', '===', ID).commit();
      await client.leaseClient.leaseRevoke({ ID });
      return same.succeeded;
    },
  ],
  [
    'a put with the promise of a lease',
    async (ns, client) => {
      const granted = client.leaseClient.leaseGrant({ TTL: 60 });
      const id = granted.then(({ ID }) => ID);
      const answer = await ns.if('a', 'Create', '>', 0).then(ns.put('p').value('').lease(id)).commit();
      const held = (await ns.get('p').exec()).kvs[0]?.lease === (await id);
      await client.leaseClient.leaseRevoke({ ID: await id });
      return [answer, held];
    },
  ],
  [
    'a put whose lease fails',
    (ns) =>
      ns
        .if('a', 'Create', '>', 0)
        .then(ns.put('p').lease(Promise.reject(new TypeError('no'))))
        .commit(),
  ],
  [
    'the same key twice',
    (ns) => ns.if('a', 'Create', '>', 0).then(ns.put('k').value(1), ns.put('k').value(2)).commit(),
  ],
  [
    'committed twice',
    async (ns) => {
      const txn = ns.if('a', 'Version', '>', 0).then(ns.put('a').value('x'));
      await txn.commit();
      await txn.commit();
      return (await ns.get('a').exec()).kvs[0]?.version;
    },
  ],
  ['an unknown column', (ns) => ns.if('a', 'Size' as 'Value', '==', 1)],
  ['an unknown comparison', (ns) => ns.if('a', 'Value', '>=' as '>', 1)],
  [
    'mapOperations',
    (ns) =>
      Promise.all(
        ns.if('a', 'Value', '==', 1).mapOperations([ns.get('a'), { request_put: { key: Buffer.from('k') } }]),
      ),
  ],
];

it('the tables of comparisons and columns are those of etcd3', () => {
  expect(comparator).toEqual(theirs.comparator);
  expect(compareTarget).toEqual(theirs.compareTarget);
});

describe.each(ETCD_VERSIONS)('on etcd %s', (version) => {
  let etcd: EtcdCluster;
  let both: Both;
  let client: Etcd3;
  let ns: Namespace;

  beforeAll(async () => {
    etcd = await startEtcd({ version });
    both = connectBoth(etcd.hosts);
    client = both.ours;
  });
  afterAll(async () => {
    await both?.close();
    await etcd?.close();
  });
  beforeEach(() => {
    ns = client.namespace(`${uniqueName()}/`);
  });

  describe('the same program gives the same on etcd3:', () => {
    it.each(programs)('%s', async (name, program) => {
      const results: unknown[] = [];
      for (const one of [both.theirs, both.ours]) {
        const inside = one.namespace(`same ${name}/`);
        await inside.delete().all();
        await inside.put('a').value('1');
        await inside.put('d/1').value('eins');
        await inside.put('d/2').value('zwei');
        results.push([await outcome(() => program(inside, one)), await outcome(() => inside.getAll().exec())]);
        await inside.delete().all();
      }
      expect(results[1]).toEqual(results[0]);
    });
  });

  describe('awaited without commit(), a transaction', () => {
    it('rejects at once, says what is missing, and sends nothing', async () => {
      const txn = ns.if('a', 'Create', '==', 0).then(ns.put('a').value('1'));
      await expect(within(Promise.resolve(txn), 2000, 'an answer')).rejects.toThrow(/\.commit\(\)/);
      const awaited = txn as unknown as Promise<unknown>; // TypeScript knows better
      await expect((async () => await awaited)()).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
      expect(await ns.get('a').exists()).toBe(false);
      expect((await txn.commit()).succeeded).toBe(true); // its operations are still there
      expect(await ns.get('a')).toBe('1');
    });
  });

  it('what is no operation is refused', () => {
    const txn = ns.if('a', 'Create', '==', 0);
    for (const wrong of [undefined, null, 'put', {}, { put: 1 }]) {
      expect(() => txn.then(wrong as never)).toThrow(InvalidArgumentError);
      expect(() => txn.else(ns.get('a'), wrong as never)).toThrow(InvalidArgumentError);
    }
  });

  it('values of the wrong type are refused', () => {
    expect(() => ns.if('a', 'Version', '==', 'one')).toThrow(InvalidArgumentError);
    expect(() => ns.if('a', 'Mod', '==', 2 ** 53)).toThrow(InvalidArgumentError);
    expect(() => ns.if('a', 'Value', '==', { a: 1 } as never)).toThrow(InvalidArgumentError);
    expect(() => ns.if(5 as never, 'Value', '==', 1)).toThrow(InvalidArgumentError);
  });

  it('an operation that can not be made rejects the commit, and is never unhandled', async () => {
    const unhandled: unknown[] = [];
    const listener = (reason: unknown) => unhandled.push(reason);
    process.on('unhandledRejection', listener);
    try {
      const txn = ns.if('a', 'Create', '==', 0).then(ns.delete(), ns.put('a').lease(Promise.reject(new Error('no'))));
      await ns.get('a');
      await new Promise((resolve) => setImmediate(resolve));
      expect(unhandled).toEqual([]);
      await expect(txn.commit()).rejects.toBeInstanceOf(GRPCInvalidArgumentError);
    } finally {
      process.off('unhandledRejection', listener);
    }
  });

  it('a range is compared key by key', async () => {
    for (const key of ['r/1', 'r/2', 's']) await ns.put(key).value('same');
    const { header } = await ns.put('r/1').value('same');
    const range = ns.range({ prefix: 'r/' });
    expect((await ns.if(range, 'Value', '==', 'same').commit()).succeeded).toBe(true);
    expect((await ns.if(range, 'Mod', '<', header.revision).commit()).succeeded).toBe(false);
    expect((await ns.if(range, 'Mod', '<', BigInt(header.revision) + 1n).commit()).succeeded).toBe(true);
    expect((await ns.if(ns.range('r/2'), 'Version', '==', 1).commit()).succeeded).toBe(true);
  });

  it('a transaction can be an operation of another one', async () => {
    const inner = ns.if('b', 'Create', '==', 0).then(ns.put('b').value('1')).else(ns.put('c').value('1'));
    const outer = ns.if('a', 'Create', '==', 0).then(inner, ns.put('d').value('1'));
    const { responses } = await outer.commit();
    expect(responses[0]?.response_txn.succeeded).toBe(true);
    expect(await ns.getAll().keys()).toEqual(['b', 'd']);
    await outer.commit();
    expect(await ns.getAll().keys()).toEqual(['b', 'c', 'd']);
  });

  describe('a batch', () => {
    it('writes all of it at one revision', async () => {
      const { ID } = await client.leaseClient.leaseGrant({ TTL: 60 });
      await ns.put('gone').value('x');
      await ns.put('kept').value('x').lease(ID);
      const batch = ns
        .batch()
        .put('a', 'text')
        .put(Buffer.from([0xff]), Buffer.from([1, 2]))
        .put('n', 7, { lease: Promise.resolve(ID) })
        .put('kept', 'y', { ignoreLease: true })
        .delete('gone')
        .delete('never');
      expect(batch.size).toBe(6);
      const { revision, deleted } = await batch.commit();
      expect(deleted).toBe(1n);
      const entries = await ns.getAll().entries();
      expect(entries.map(({ key, value, lease }) => [key.toString('latin1'), value, lease])).toEqual([
        ['a', Buffer.from('text'), 0n],
        ['kept', Buffer.from('y'), BigInt(ID)],
        ['n', Buffer.from('7'), BigInt(ID)],
        ['\xff', Buffer.from([1, 2]), 0n],
      ]);
      expect(new Set(entries.map(({ modRevision }) => modRevision))).toEqual(new Set([revision]));
      await client.leaseClient.leaseRevoke({ ID });
    });

    it('is written whole or not at all', async () => {
      const batch = ns.batch();
      for (let index = 0; index < 129; index++) batch.put(`k${index}`, index);
      await expect(batch.commit()).rejects.toMatchObject({
        name: 'GRPCInvalidArgumentError',
        details: 'etcdserver: too many operations in txn request',
      });
      await expect(ns.batch().put('a', 1).put('b', 1, { lease: 4711 }).commit()).rejects.toMatchObject({
        name: 'EtcdLeaseInvalidError',
      });
      expect(await ns.getAll().count()).toBe(0);
    });

    it('takes as many operations as etcd, and none', async () => {
      const batch = ns.batch();
      for (let index = 0; index < 128; index++) batch.put(`k${index}`, index);
      const { revision } = await batch.commit();
      expect(await ns.getAll().count()).toBe(128);
      expect((await ns.batch().commit()).revision).toBe(revision);
    });

    it('refuses a key that occurs twice, however it is written', () => {
      expect(() => ns.batch().put('a', 1).put(Buffer.from('a'), 2)).toThrow(/occurs twice/);
      expect(() => ns.batch().put('a', 1).delete('a')).toThrow(InvalidArgumentError);
      expect(() => ns.batch().put('a', undefined as never)).toThrow(InvalidArgumentError);
    });

    it('rejects when a lease is not granted, and never before', async () => {
      const unhandled: unknown[] = [];
      const listener = (reason: unknown) => unhandled.push(reason);
      process.on('unhandledRejection', listener);
      try {
        const batch = ns.batch().put('a', 1, { lease: Promise.reject(new Error('no lease')) });
        await ns.get('a');
        await new Promise((resolve) => setImmediate(resolve));
        expect(unhandled).toEqual([]);
        await expect(batch.commit()).rejects.toThrow('no lease');
      } finally {
        process.off('unhandledRejection', listener);
      }
    });
  });
});
