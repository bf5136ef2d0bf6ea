/** Reading, writing and deleting: like etcd3, and where etcd3 errs, better. */

import { Etcd3, GRPCInvalidArgumentError, InvalidArgumentError, type Namespace } from 'rollcall/etcd';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ETCD_VERSIONS, type EtcdCluster, startEtcd } from '../support/etcd.js';
import { uniqueName } from '../support/process.js';
import { type Both, connectBoth, outcome } from './both.js';

/** A program and its name. The namespace holds the keys of `fill`. */
type Program = [string, (ns: Namespace, client: Etcd3) => unknown];

async function fill(ns: Namespace): Promise<void> {
  await ns.delete().all();
  await ns.put('a').value('1');
  await ns.put('b').value('{"x":[2]}');
  await ns.put('b').value('{"x":[3]}');
  await ns.put('dir/1').value('eins');
  await ns.put('dir/2').value(Buffer.from('zwei'));
  await ns.put('dir/10').value(10);
}

const programs: Program[] = [
  ['get', (ns) => ns.get('a')],
  ['get of nothing', (ns) => ns.get('no')],
  ['get by a Buffer', (ns) => ns.get(Buffer.from('a')).string()],
  ['get string in hex', (ns) => ns.get('a').string('hex')],
  ['get json', (ns) => ns.get('b').json()],
  ['get json of nothing', (ns) => ns.get('no').json()],
  [
    'get json of no JSON',
    (ns) =>
      ns
        .get('dir/1')
        .json()
        .then(
          () => 'parsed',
          (error: Error) => error.name,
        ),
  ],
  ['get number', (ns) => ns.get('dir/10').number()],
  ['get number of text', (ns) => ns.get('dir/1').number()],
  ['get number of nothing', (ns) => ns.get('no').number()],
  ['get buffer', (ns) => ns.get('dir/2').buffer()],
  ['get buffer of nothing', (ns) => ns.get('no').buffer()],
  ['get exists', async (ns) => [await ns.get('a').exists(), await ns.get('no').exists()]],
  ['get exec', (ns) => ns.get('a').exec()],
  ['get exec of nothing', (ns) => ns.get('no').exec()],
  ['get of an empty key', (ns) => ns.get('')],
  [
    'get catch',
    (ns) =>
      ns
        .get('a')
        .revision('999999999')
        .catch((error: Error) => error.constructor.name),
  ],
  ['get serializable', (ns) => ns.get('a').serializable(true)],
  [
    'get at a revision',
    async (ns) => {
      const { header } = await ns.put('a').value('new');
      await ns.put('a').value('newer');
      return [await ns.get('a').revision(header.revision), await ns.get('a').revision(Number(header.revision) - 1)];
    },
  ],
  [
    'filters by revision',
    async (ns) => {
      const { kvs } = await ns.getAll().exec();
      const revisions = kvs.map((kv) => Number(kv.mod_revision)).sort((x, y) => x - y);
      const middle = revisions[2] as number;
      return [
        await ns.getAll().minModRevision(middle).keys(),
        await ns.getAll().maxModRevision(middle).keys(),
        await ns.getAll().minCreateRevision(String(middle)).keys(),
        await ns.getAll().maxCreateRevision(middle).keys(),
      ];
    },
  ],
  ['getAll', (ns) => ns.getAll()],
  ['getAll prefix strings', (ns) => ns.getAll().prefix('dir/').strings()],
  ['getAll strings in base64', (ns) => ns.getAll().prefix('dir/').strings('base64')],
  ['getAll json', (ns) => ns.getAll().inRange('b').all().prefix('b').json()],
  [
    'getAll json of no JSON',
    (ns) =>
      ns
        .getAll()
        .json()
        .then(
          () => 'parsed',
          (error: Error) => error.name,
        ),
  ],
  ['getAll numbers', (ns) => ns.getAll().prefix('dir/1').numbers()],
  ['getAll buffers', (ns) => ns.getAll().prefix('dir/').buffers()],
  ['getAll keys', (ns) => ns.getAll().keys()],
  ['getAll keys in hex', (ns) => ns.getAll().keys('hex')],
  ['getAll keyBuffers', (ns) => ns.getAll().keyBuffers()],
  ['getAll count', (ns) => ns.getAll().prefix('dir/').count()],
  ['getAll in a range', (ns) => ns.getAll().inRange({ start: 'a', end: 'dir/1' }).keys()],
  ['getAll in a range without end', (ns) => ns.getAll().inRange({ start: 'b', end: '\0' }).keys()],
  [
    'getAll in a range of bytes',
    (ns) =>
      ns
        .getAll()
        .inRange({ start: Buffer.from('b'), end: Buffer.from('dir0') })
        .keys(),
  ],
  [
    'getAll by a prefix range',
    (ns) =>
      ns
        .getAll()
        .inRange(ns.range({ prefix: 'dir/' }))
        .keys(),
  ],
  ['getAll limit', (ns) => ns.getAll().limit(2).exec()],
  ['getAll limit 0', (ns) => ns.getAll().limit(0).count()],
  ['getAll without limit', (ns) => ns.getAll().limit(Number.POSITIVE_INFINITY).keys()],
  ['getAll sorted down', (ns) => ns.getAll().sort('Key', 'Descend').keys()],
  ['getAll sorted by value', (ns) => ns.getAll().sort('Value', 'Ascend').keys()],
  ['getAll sorted by mod', (ns) => ns.getAll().sort('Mod', 'Descend').limit(3).keys()],
  ['getAll sorted by version', async (ns) => (await ns.getAll().sort('Version', 'Descend').keys())[0]],
  ['getAll exec', (ns) => ns.getAll().prefix('dir/').exec()],
  ['put exec', (ns) => ns.put('new').value('1').exec()],
  [
    'put twice by awaiting twice',
    async (ns) => {
      const put = ns.put('twice').value('x');
      await put;
      await put;
      return (await ns.get('twice').exec()).kvs[0]?.version;
    },
  ],
  ['put without a value', async (ns) => [await ns.put('empty'), await ns.get('empty')]],
  ['put a number', async (ns) => [await ns.put('n').value(-1.5), await ns.get('n')]],
  ['put bytes', async (ns) => [await ns.put('n').value(Buffer.from([0, 255])), await ns.get('n').buffer()]],
  ['put by a Buffer', async (ns) => [await ns.put(Buffer.from('ä')).value('ü'), await ns.get('ä')]],
  ['put getPrevious', (ns) => ns.put('a').value('2').getPrevious()],
  ['put getPrevious of nothing', (ns) => ns.put('fresh').value('2').getPrevious()],
  ['put touch', async (ns) => [await ns.put('a').touch(), (await ns.get('a').exec()).kvs]],
  ['put touch of nothing', (ns) => ns.put('none').touch()],
  ['put ignoreLease of nothing', (ns) => ns.put('none').value('').ignoreLease()],
  [
    'put with a lease that is none',
    (ns) =>
      ns
        .put('a')
        .value('')
        .lease('4711')
        .then(
          () => 'put',
          (error: Error) => error.constructor.name,
        ),
  ],
  [
    'put with leases',
    async (ns, client) => {
      const { ID } = await client.leaseClient.leaseGrant({ TTL: 60 });
      const leaseOf = async (key: string) => (await ns.get(key).exec()).kvs[0]?.lease === ID;
      await ns.put('l').value('1').lease(ID);
      await ns.put('m').value('1').lease(Promise.resolve(ID));
      const leased = [await leaseOf('l'), await leaseOf('m')];
      await ns.put('l').value('2').ignoreLease();
      await ns.put('m').value('2');
      return [leased, await leaseOf('l'), await leaseOf('m'), await client.leaseClient.leaseRevoke({ ID })];
    },
  ],
  ['put with a lease of 0', async (ns) => [await ns.put('z').value('').lease(0), (await ns.get('z').exec()).kvs]],
  ['put with a lease that fails', (ns) => ns.put('a').lease(Promise.reject(new TypeError('no lease')))],
  ['put to an empty key', async (ns) => [await ns.put('').value('x'), await ns.get('')]],
  ['delete nothing', (ns) => ns.delete()],
  ['delete a key', async (ns) => [await ns.delete().key('a'), await ns.getAll().keys()]],
  ['delete a key that is none', (ns) => ns.delete().key('no').exec()],
  ['delete a prefix', async (ns) => [await ns.delete().prefix('dir/'), await ns.getAll().keys()]],
  [
    'delete a range',
    async (ns) => [await ns.delete().range(ns.range({ start: 'b', end: 'dir/2' })), await ns.getAll().keys()],
  ],
  ['delete in a range', async (ns) => [await ns.delete().inRange({ prefix: 'dir/1' }), await ns.getAll().keys()]],
  ['delete all', async (ns) => [await ns.delete().all(), await ns.getAll().keys()]],
  ['delete getPrevious', (ns) => ns.delete().prefix('dir/').getPrevious()],
  ['delete getPrevious of nothing', (ns) => ns.delete().key('no').getPrevious()],
  ['op of get', (ns) => ns.get('a').revision(7).op()],
  ['op of getAll', (ns) => ns.getAll().prefix('dir/').limit(3).sort('Mod', 'Descend').op()],
  ['op of put', (ns) => ns.put('a').value(5).op()],
  ['op of put with a lease', (ns) => ns.put('a').value(5).lease(Promise.resolve(7)).op()],
  ['op of delete', (ns) => ns.delete().prefix('a').op()],
  [
    'a nested namespace',
    async (ns) => {
      const inner = ns.namespace('dir/');
      await inner.put('3').value('drei');
      return [
        inner.prefix.equals(Buffer.concat([ns.prefix, Buffer.from('dir/')])),
        await inner.getAll(),
        await ns.get('dir/3'),
      ];
    },
  ],
  [
    'an unknown sort target',
    (ns) =>
      outcome(() => ns.getAll().sort('Wrong' as 'Key', 'Ascend')).then((text) =>
        String(JSON.stringify(text)).slice(0, 72),
      ),
  ],
  [
    'an unknown sort order',
    (ns) =>
      outcome(() => ns.getAll().sort('Key', 'Wrong' as 'None')).then((text) =>
        String(JSON.stringify(text)).slice(0, 72),
      ),
  ],
];

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
      const prefix = `same ${name}/`;
      const results: unknown[] = [];
      for (const one of [both.theirs, both.ours]) {
        const inside = one.namespace(prefix);
        await fill(inside);
        results.push(await outcome(() => program(inside, one)));
        await inside.delete().all();
      }
      expect(results[1]).toEqual(results[0]);
      expect(results[1]).toBeDefined();
    });
  });

  describe('without a namespace', () => {
    it('keys are whole, as in etcd3', async () => {
      const [a, b] = [uniqueName(), uniqueName()];
      for (const one of [both.theirs, client]) {
        await one.put(a).value(b);
        expect(await one.get(a)).toBe(b);
        expect(await one.getAll().prefix(a)).toEqual({ [a]: b });
        expect((await one.delete().key(a)).deleted).toBe('1');
      }
    });

    it.each<[string, (one: Etcd3) => PromiseLike<unknown>]>([
      ['get', (one) => one.get('')],
      ['put', (one) => one.put('').value('x')],
      ['delete', (one) => one.delete().key('')],
      ['delete of nothing', (one) => one.delete()],
      ['a comparison', (one) => one.if('', 'Create', '==', 0).commit()],
    ])('an empty key is refused as etcd refuses it: %s', async (_name, run) => {
      expect(await outcome(() => run(client))).toEqual(await outcome(() => run(both.theirs)));
      const error = await Promise.resolve(run(client)).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      expect(error).toBeInstanceOf(GRPCInvalidArgumentError);
      expect(error).toMatchObject({ code: 'ERR_INVALID_ARGUMENT', message: expect.stringMatching(/needs/) });
    });
  });

  it('options count for one call, and can be taken back', async () => {
    // A client of its own: a deadline that has passed locks etcd3 out for seconds.
    const own = connectBoth(etcd.hosts);
    const late = (one: Etcd3) => one.get('a').options({ deadline: 1 });
    try {
      for (const one of [own.theirs, own.ours]) {
        const error = await Promise.resolve(late(one)).then(
          () => undefined,
          (reason: Error) => reason.constructor.name,
        );
        expect(error).toBe('GRPCDeadlineExceededError');
      }
      expect(await late(own.ours).options(undefined)).toBeNull();
    } finally {
      await own.close();
    }
  });

  describe('better than etcd3:', () => {
    it('the key __proto__ is a key', async () => {
      await ns.put('__proto__').value('1');
      await ns.put('a').value('2');
      const found = await ns.getAll().strings();
      expect(Object.keys(found).sort()).toEqual(['__proto__', 'a']);
      expect(Object.getPrototypeOf(found)).toBe(Object.prototype);
      expect(Object.entries(await ns.getAll().numbers())).toContainEqual(['__proto__', 1]);
    });

    it('entries() keeps the order, binary keys and exact numbers', async () => {
      const keys = ['10', '9', Buffer.from([0xff]), Buffer.from([0xfe])];
      for (const key of keys) await ns.put(key).value('v');
      await ns.put('9').value('w');
      const entries = await ns.getAll().sort('Mod', 'Ascend').entries();
      expect(entries.map(({ key }) => key.toString('latin1'))).toEqual(['10', '\xff', '\xfe', '9']);
      expect(entries.map(({ version }) => version)).toEqual([1n, 1n, 1n, 2n]);
      const nine = entries[3];
      expect(nine).toMatchObject({ value: Buffer.from('w'), lease: 0n });
      expect((nine?.modRevision as bigint) - (nine?.createRevision as bigint)).toBe(3n);
      expect(Object.keys(await ns.getAll().strings()).length).toBe(3); // what a plain object makes of it
    });

    it('one way of reading leaves no trace in the builder', async () => {
      await ns.put('a').value('text');
      const one = ns.get('a');
      expect(await one.exists()).toBe(true);
      expect(await one.string()).toBe('text');
      const all = ns.getAll();
      expect([await all.count(), await all.keys(), await all.strings()]).toEqual([1, ['a'], { a: 'text' }]);
      const put = ns.put('a').value('next');
      await put.touch();
      await put;
      expect(await one).toBe('next');
      expect((await put.exec()).prev_kv).toBeNull();
      expect((await put.getPrevious()).value.toString()).toBe('next');
      expect((await put.exec()).prev_kv).toBeNull();
    });

    it('a range of one key is one key in a namespace too', async () => {
      for (const key of ['a', 'a1', 'b']) await ns.put(key).value(key);
      expect(await ns.getAll().inRange('a').keys()).toEqual(['a']);
      expect((await ns.delete().inRange('a')).deleted).toBe('1');
      expect((await ns.delete().range(client.range('b'))).deleted).toBe('1');
      expect(await ns.getAll().keys()).toEqual(['a1']);
    });

    it('a range of one key is one key, and not all that follow', async () => {
      // etcd 3.4 takes an end that is sent empty for no upper bound: etcd3 then reads every later key.
      const key = uniqueName();
      for (const one of [key, `${key}1`]) await client.put(one).value('v');
      expect(await client.getAll().inRange(key).keys()).toEqual([key]);
      expect((await client.delete().inRange(key)).deleted).toBe('1');
      expect((await client.delete().prefix(key)).deleted).toBe('1');
    });

    it('the failure of a lease that no put has waited for yet is not unhandled', async () => {
      const unhandled: unknown[] = [];
      const listener = (reason: unknown) => unhandled.push(reason);
      process.on('unhandledRejection', listener);
      try {
        const put = ns
          .put('a')
          .value('1')
          .lease(Promise.reject(new Error('no lease')));
        await ns.get('a'); // several turns of the loop
        await new Promise((resolve) => setImmediate(resolve));
        expect(unhandled).toEqual([]);
        await expect(put).rejects.toThrow('no lease');
        expect(await ns.get('a').exists()).toBe(false);
      } finally {
        process.off('unhandledRejection', listener);
      }
    });

    it('a put takes bigints, and anything that grants a lease', async () => {
      const { ID } = await client.leaseClient.leaseGrant({ TTL: 60 });
      await ns.put('a').value('1').lease(BigInt(ID));
      await ns
        .put('b')
        .value('1')
        .lease({ grant: () => Promise.resolve(ID) });
      const entries = await ns.getAll().entries();
      expect(entries.map(({ lease }) => lease)).toEqual([BigInt(ID), BigInt(ID)]);
      expect(await ns.get('a').revision(entries[0]?.modRevision as bigint)).toBe('1');
      expect(await ns.timeToLive(ID, { keys: true })).toEqual({
        id: BigInt(ID),
        ttlSeconds: expect.any(Number),
        grantedTtlSeconds: 60,
        ttl: expect.any(Number),
        grantedTtl: 60,
        keys: [Buffer.from('a'), Buffer.from('b')],
      });
      expect((await client.namespace('elsewhere/').timeToLive(ID, { keys: true }))?.keys).toEqual([]);
      expect(await client.leases()).toContain(BigInt(ID));
      await client.leaseClient.leaseRevoke({ ID });
      expect(await ns.timeToLive(BigInt(ID))).toBeNull();
    });

    it('a signal gives a call up before it is sent', async () => {
      const signal = AbortSignal.abort(new Error('enough'));
      await expect(ns.put('a').value('1').options({ signal })).rejects.toMatchObject({ code: 'ERR_ABORTED' });
      expect(await ns.get('a').exists()).toBe(false);
    });

    it('ready() resolves when a member answers', async () => {
      await client.ready({ timeoutMs: 5000 });
    });

    it('a namespace keeps binary prefixes, and prefixes without an end', async () => {
      for (const prefix of [Buffer.from([0xff, 0xff]), Buffer.from([0x80, 0xff]), Buffer.from('ä/')]) {
        const inside = client.namespace(prefix);
        await inside.put('k').value('v');
        expect(await inside.getAll().entries()).toMatchObject([{ key: Buffer.from('k') }]);
        expect((await inside.get('k').exec()).kvs[0]?.key).toEqual(Buffer.concat([prefix, Buffer.from('k')]));
        expect((await inside.delete().all()).deleted).toBe('1');
      }
    });
  });

  describe('wrong arguments are told at once:', () => {
    const wrong = (value: unknown) => value as never;
    it.each<[string, (one: Namespace) => unknown]>([
      ['get of undefined', (one) => one.get(wrong(undefined))],
      ['get of a number', (one) => one.get(wrong(5))],
      ['put to null', (one) => one.put(wrong(null))],
      ['a value that is an object', (one) => one.put('a').value(wrong({ a: 1 }))],
      ['a value that is undefined', (one) => one.put('a').value(wrong(undefined))],
      ['a value that is a bigint', (one) => one.put('a').value(wrong(1n))],
      ['a value that is true', (one) => one.put('a').value(wrong(true))],
      ['a lease that is an object', (one) => one.put('a').lease(wrong({}))],
      ['a lease that is no number', (one) => one.put('a').lease('lease')],
      ['a lease beyond 2^53 as a number', (one) => one.put('a').lease(2 ** 60)],
      ['a revision beyond 2^53 as a number', (one) => one.get('a').revision(2 ** 53)],
      ['a revision with a fraction', (one) => one.get('a').revision(1.5)],
      ['a revision that is text', (one) => one.get('a').revision('new')],
      ['a revision beyond 64 bits', (one) => one.get('a').revision(2n ** 63n)],
      ['a negative limit', (one) => one.getAll().limit(-1)],
      ['a prefix that is a number', (one) => one.getAll().prefix(wrong(1))],
      ['a range that is none', (one) => one.getAll().inRange(wrong({}))],
      ['a key and then a range', (one) => one.delete().key('a').prefix('b')],
      ['a range and then a key', (one) => one.delete().all().key('b')],
      ['a namespace that is a number', (one) => one.namespace(wrong(1))],
    ])('%s', (_name, run) => {
      let thrown: unknown;
      try {
        run(ns);
      } catch (error) {
        thrown = error;
      }
      expect(thrown).toBeInstanceOf(InvalidArgumentError);
      expect(thrown).toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    });

    it('exact 64-bit numbers pass', async () => {
      await expect(ns.get('a').revision('9007199254740993')).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
      await expect(ns.get('a').revision(2n ** 63n - 1n)).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
    });
  });
});

describe('a mock', () => {
  it('gets the requests of all namespaces in the place of a server, as in etcd3', async () => {
    const client = new Etcd3({ hosts: '127.0.0.1:1' });
    const calls: unknown[][] = [];
    const mock = {
      exec: async (...args: unknown[]) => {
        calls.push(args);
        return { kvs: [{ key: 'foo', value: 'bar' }], count: '1' } as never;
      },
    };
    expect(client.mock(mock)).toBe(mock);
    expect(await client.get('foo').string()).toBe('bar');
    expect(await client.getAll().strings()).toEqual({ foo: 'bar' });
    await client.namespace('n/').put('foo').value(1);
    expect(calls).toEqual([
      ['KV', 'range', { key: Buffer.from('foo'), limit: 1 }],
      ['KV', 'range', { key: Buffer.from([0]), range_end: Buffer.from([0]) }],
      ['KV', 'put', { key: Buffer.from('n/foo'), value: Buffer.from('1') }],
    ]);
    client.unmock();
    await client.close();
  });
});
