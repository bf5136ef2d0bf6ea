/** Software transactions: what each level of isolation promises, without conflicts that are none. */

import * as theirs from 'etcd3';
import { Etcd3, Isolation, type Namespace, type SoftwareTransaction, STMConflictError } from 'rollcall/etcd';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ETCD_VERSIONS, type EtcdCluster, startEtcd } from '../support/etcd.js';
import { uniqueName } from '../support/process.js';
import { seeded } from '../support/random.js';
import { type Both, connectBoth, outcome } from './both.js';

type Body = (tx: SoftwareTransaction, ns: Namespace) => unknown;

const { SerializableSnapshot, Serializable, RepeatableReads, ReadCommitted } = Isolation;
const LEVELS = [SerializableSnapshot, Serializable, RepeatableReads, ReadCommitted];
const named = (levels: Isolation[]) => levels.map((level) => [Isolation[level] as string, level] as const);

it('the levels are an object at run time, with the numbers that etcd3 compiles in', () => {
  expect(LEVELS).toEqual([0, 1, 2, 3]);
  expect((theirs as Record<string, unknown>).Isolation).toBeUndefined();
});

/** What etcd3 gets right. Each starts with `a` = 1, `b` = 2. */
const bodies: [string, Body][] = [
  ['reads', async (tx) => [await tx.get('a').number(), await tx.get('b').string(), await tx.get('no').string()]],
  [
    'a write',
    (tx) =>
      tx
        .put('a')
        .value(5)
        .exec()
        .then(() => 'done'),
  ],
  [
    'reads its own write',
    async (tx) => {
      await tx.put('a').value('mine');
      return [await tx.get('a').string(), await tx.get('a').exists(), await tx.get('a').buffer()];
    },
  ],
  [
    'reads its own write of a new key',
    async (tx) => {
      await tx.put('n').value('{"x":1}');
      return tx.get('n').json();
    },
  ],
  [
    'reads its own delete',
    async (tx) => {
      await tx.delete().key('a');
      return [await tx.get('a').string(), await tx.get('a').exists()];
    },
  ],
  [
    'the last write of a key counts',
    async (tx) => {
      await tx.put('a').value('x');
      await tx.put('a').value('y');
      await tx.delete().key('b');
      await tx.put('b').value('z');
      await tx.put('c').value('c');
      await tx.delete().key('c');
    },
  ],
  [
    'copies',
    async (tx) => {
      const [a, b] = await Promise.all([tx.get('a').number(), tx.get('b').number()]);
      await Promise.all([tx.put('a').value(Number(b)), tx.put('b').value(Number(a))]);
      return 'swapped';
    },
  ],
  [
    'deletes a range without a read',
    async (tx) =>
      tx
        .delete()
        .prefix('b')
        .exec()
        .then(() => 'done'),
  ],
  [
    'deletes a range after a read',
    async (tx) => {
      await tx.get('a');
      await tx.delete().prefix('b');
    },
  ],
  [
    'writes begun without await',
    (tx) => {
      tx.put('a').value('begun').exec();
      tx.delete().key('b').exec();
    },
  ],
  [
    'throws',
    async (tx) => {
      await tx.put('a').value('never');
      throw new TypeError('no');
    },
  ],
  [
    'an empty value',
    async (tx) => {
      await tx.put('a').value('');
      return tx.get('a').string();
    },
  ],
  ['a read at a revision', (tx) => tx.get('a').revision(1).string()],
  ['a read by min mod revision', (tx) => tx.get('a').minModRevision(1).string()],
  ['a read by max create revision', (tx) => tx.get('a').maxCreateRevision(1).string()],
  ['a put with a lease', (tx) => tx.put('a').value('').lease(5).exec()],
  ['a put with getPrevious', (tx) => tx.put('a').value('').getPrevious()],
  ['a delete with getPrevious', (tx) => tx.delete().key('a').getPrevious()],
];

describe.each(ETCD_VERSIONS)('on etcd %s', (version) => {
  let etcd: EtcdCluster;
  let both: Both;
  let client: Etcd3;
  let ns: Namespace;
  const spied: (() => void)[] = [];

  beforeAll(async () => {
    etcd = await startEtcd({ version });
    both = connectBoth(etcd.hosts);
    client = both.ours;
  });
  afterAll(async () => {
    await both?.close();
    await etcd?.close();
  });
  beforeEach(async () => {
    ns = client.namespace(`${uniqueName()}/`);
    await ns.put('a').value('1');
    await ns.put('b').value('2');
  });
  afterEach(() => {
    for (const undo of spied.splice(0)) undo();
  });

  /** The requests that the client sends from now on: method and keys. */
  function spy(): { method: string; key: string }[] {
    const sent: { method: string; key: string }[] = [];
    const { connection } = client as unknown as { connection: { exec: (...args: unknown[]) => unknown } };
    const exec = connection.exec;
    connection.exec = function (this: unknown, ...args: unknown[]) {
      sent.push({ method: String(args[1]), key: String((args[2] as { key?: Buffer }).key ?? '') });
      return exec.apply(this, args);
    };
    spied.push(() => {
      connection.exec = exec;
    });
    return sent;
  }

  describe.each(named(LEVELS))('%s: the same transaction does the same on etcd3:', (_name, isolation) => {
    it.each(bodies)('%s', async (name, body) => {
      const results: unknown[] = [];
      for (const one of [both.theirs, both.ours]) {
        const inside = one.namespace(`same ${isolation} ${name}/`);
        await inside.delete().all();
        // Written at once: etcd3 sees conflicts between a key and one that was written after it.
        await inside.if('a', 'Create', '==', 0).then(inside.put('a').value('1'), inside.put('b').value('2')).commit();
        let runs = 0;
        const run = () =>
          inside.stm({ isolation }).transact((tx) => {
            runs++;
            return body(tx, inside);
          });
        results.push([await outcome(run), runs, await outcome(() => inside.getAll().exec())]);
        await inside.delete().all();
      }
      const [theirResult, ourResult] = JSON.parse(
        JSON.stringify(results).replace(/You cannot delete ranges in the \w+ isolation level[^"]*/g, 'You cannot'),
      );
      expect(ourResult).toEqual(theirResult);
    });
  });

  describe.each(named(LEVELS))('%s', (_name, isolation) => {
    it('sees no conflict where nobody else writes: an old key read, a newer one written', async () => {
      for (let index = 0; index < 5; index++) await ns.put('b').value(index);
      let runs = 0;
      await ns.stm({ isolation, retries: 0 }).transact(async (tx) => {
        runs++;
        await tx.put('b').value(`${await tx.get('a').string()}!`);
      });
      expect([runs, await ns.get('b')]).toEqual([1, '1!']);
    });

    it('sees no conflict when others write other keys meanwhile', async () => {
      await ns.stm({ isolation, retries: 0 }).transact(async (tx) => {
        const a = await tx.get('a').string();
        await ns.put('other').value('x');
        await tx.get('missing');
        await ns.put('other').value('y');
        await tx.put('b').value(`${a}!`);
      });
      expect(await ns.get('b')).toBe('1!');
    });

    const checksReads = isolation !== ReadCommitted;
    it(`${checksReads ? 'runs again' : 'goes on'} when a key that was read has changed`, async () => {
      let runs = 0;
      const seen = await ns.stm({ isolation }).transact(async (tx) => {
        const a = await tx.get('a').string();
        if (++runs === 1) await ns.put('a').value('changed');
        await tx.put('b').value(`${a}`);
        return a;
      });
      const expected = checksReads ? [2, 'changed', 'changed'] : [1, '1', '1'];
      expect([runs, seen, await ns.get('b')]).toEqual(expected);
    });

    it(`${checksReads ? 'runs again' : 'goes on'} when a key that was missing has come`, async () => {
      let runs = 0;
      await ns.stm({ isolation }).transact(async (tx) => {
        const there = await tx.get('new').exists();
        if (++runs === 1) await ns.put('new').value('');
        await tx.put('b').value(String(there));
      });
      expect([runs, await ns.get('b')]).toEqual(checksReads ? [2, 'true'] : [1, 'false']);
    });

    const checksWrites = isolation === SerializableSnapshot;
    it(`${checksWrites ? 'runs again' : 'goes on'} when a key that is written has changed since the first read`, async () => {
      let runs = 0;
      await ns.stm({ isolation }).transact(async (tx) => {
        await tx.get('a');
        if (++runs === 1) await ns.put('b').value('theirs');
        await tx.put('b').value('ours');
      });
      expect([runs, await ns.get('b')]).toEqual([checksWrites ? 2 : 1, 'ours']);
    });

    const pinned = isolation === SerializableSnapshot || isolation === Serializable;
    it(`reads ${pinned ? 'all keys at the revision of the first read' : 'each key as it is then'}`, async () => {
      const seen: (string | null)[] = [];
      await ns.stm({ isolation }).transact(async (tx) => {
        await tx.get('a');
        if (seen.length === 0) await ns.put('b').value('later');
        seen.push(await tx.get('b').string());
      });
      expect(seen).toEqual(pinned ? ['2', 'later'] : ['later']);
    });

    it('reads a key once, and what it wrote itself not at all', async () => {
      const sent = spy();
      await ns.stm({ isolation }).transact(async (tx) => {
        expect(await tx.get('a').exists()).toBe(true);
        expect(await Promise.all([tx.get('a').string(), tx.get('a').number()])).toEqual(['1', 1]);
        await tx.put('c').value('3');
        expect(await tx.get('c').string()).toBe('3');
      });
      expect(sent.map(({ method }) => method)).toEqual(['range', 'txn']);
    });
  });

  it('the retries are counted, and then it is a conflict', async () => {
    for (const retries of [0, 2]) {
      let runs = 0;
      const transaction = ns.stm({ retries }).transact(async (tx) => {
        runs++;
        await tx.get('a');
        await ns.put('a').value(runs);
        await tx.put('b').value('never');
      });
      await expect(transaction).rejects.toBeInstanceOf(STMConflictError);
      expect([runs, await ns.get('b')]).toEqual([retries + 1, '2']);
    }
  });

  it('a function that throws writes nothing, also when it throws at once', async () => {
    const failed = ns.stm().transact(() => {
      throw new TypeError('at once');
    });
    await expect(failed).rejects.toThrow(TypeError);
  });

  it('keys that are fetched ahead are those of the namespace, and are read once', async () => {
    await client.put('a').value('not of the namespace');
    const sent = spy();
    const seen = await ns.stm({ prefetch: ['a', 'b', 'missing'] }).transact(async (tx) => {
      await new Promise((resolve) => setImmediate(resolve));
      return [await tx.get('a').string(), await tx.get('b').string(), await tx.get('missing').string()];
    });
    expect(seen).toEqual(['1', '2', null]);
    const prefix = ns.prefix.toString();
    expect(sent.filter(({ method }) => method === 'range').map(({ key }) => key)).toEqual(
      ['a', 'b', 'missing'].map((key) => prefix + key),
    );
    await client.delete().key('a');
  });

  it('a key that was only fetched ahead is no reason for a conflict', async () => {
    let runs = 0;
    await ns.stm({ prefetch: ['b'], retries: 0 }).transact(async (tx) => {
      runs++;
      await tx.get('a');
      await ns.put('b').value('theirs');
      await tx.put('c').value('1');
    });
    expect([runs, await ns.get('c')]).toEqual([1, '1']);
  });

  it('keys are told apart by their bytes', async () => {
    const [one, two] = [Buffer.from([0xff]), Buffer.from([0xfe])];
    await ns.put(one).value('1');
    await ns.put(two).value('2');
    const seen = await ns.stm().transact(async (tx) => {
      await tx.put(Buffer.from([0xfd])).value('3');
      return Promise.all([one, two, Buffer.from([0xfd])].map((key) => tx.get(key).string()));
    });
    expect(seen).toEqual(['1', '2', '3']);
  });

  const deletes: [string, (tx: SoftwareTransaction) => PromiseLike<unknown>, string[]][] = [
    ['key()', (tx) => tx.delete().key('d'), ['d']],
    ['prefix()', (tx) => tx.delete().prefix('d'), ['d', 'd1', 'd2', 'd~']],
    ['range()', (tx) => tx.delete().range(ns.range({ start: 'd1', end: 'e' })), ['d1', 'd2', 'd~']],
    ['range() of one key', (tx) => tx.delete().range(ns.range('d1')), ['d1']],
    ['inRange() of one key', (tx) => tx.delete().inRange('d1'), ['d1']],
    ['inRange() without end', (tx) => tx.delete().inRange({ start: 'd2', end: '\0' }), ['d2', 'd~', 'e']],
    ['all()', (tx) => tx.delete().all(), ['d', 'd1', 'd2', 'd~', 'e']],
  ];
  it.each(deletes)('reads see own deletes by %s, and so does etcd', async (_name, remove, gone) => {
    const keys = ['d', 'd1', 'd2', 'd~', 'e'];
    for (const key of keys) await ns.put(key).value(key);
    const missing = await ns.stm({ isolation: Serializable }).transact(async (tx) => {
      await tx.get('d');
      await remove(tx);
      const found = await Promise.all(keys.map((key) => tx.get(key).exists()));
      return keys.filter((_key, index) => !found[index]);
    });
    expect(missing).toEqual(gone);
    const left = await ns.getAll().keys();
    expect(keys.filter((key) => !left.includes(key))).toEqual(gone);
  });

  it('writes below a delete of a range: the later one counts', async () => {
    for (const key of ['d1', 'd2', 'd3', 'd4']) await ns.put(key).value('old');
    await ns.stm({ isolation: Serializable }).transact(async (tx) => {
      await tx.put('d1').value('lost');
      await tx.delete().key('d2');
      await tx.delete().prefix('d');
      await tx.put('d3').value('new');
      await tx.put('d2').value('new');
      await tx.put('d').value('new');
      expect(await Promise.all(['d', 'd1', 'd2', 'd3', 'd4'].map((key) => tx.get(key).string()))).toEqual([
        'new',
        null,
        'new',
        'new',
        null,
      ]);
    });
    expect(await ns.getAll().prefix('d').strings()).toEqual({ d: 'new', d2: 'new', d3: 'new' });
  });

  it('touch() keeps the value, the one of this transaction as well', async () => {
    await ns.stm().transact(async (tx) => {
      await tx.put('b').value('mine');
      await tx.put('b').touch();
      await tx.put('a').touch();
      expect([await tx.get('a').string(), await tx.get('b').string()]).toEqual(['1', 'mine']);
      await tx.delete().key('c');
      await expect(tx.put('c').touch()).rejects.toThrow(/no value to keep/);
    });
    expect(await ns.getAll().strings()).toEqual({ a: '1', b: 'mine' });
    expect((await ns.get('a').exec()).kvs[0]?.version).toBe('2');
  });

  it('several transactions of one object do not disturb one another', async () => {
    const stm = ns.stm({ retries: 50 });
    const add = () =>
      stm.transact(async (tx) => {
        const before = Number(await tx.get('a').number());
        await tx.put('a').value(before + 1);
        return before;
      });
    const seen = await Promise.all(Array.from({ length: 10 }, add));
    expect(seen.sort((x, y) => x - y)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    expect(await ns.get('a')).toBe('11');
  });

  it('the object itself can stand for tx, while that is clear', async () => {
    const stm = ns.stm();
    await stm.transact(async () => {
      await stm.put('b').value(`${await stm.get('a')}!`);
    });
    expect(await ns.get('b')).toBe('1!');
    expect(() => stm.get('a')).toThrow(/only inside/);
  });

  it('what comes after the end of the transaction is refused, and not lost in silence', async () => {
    let late: SoftwareTransaction | undefined;
    await ns.stm().transact((tx) => {
      late = tx;
    });
    await expect(late?.put('a').value('late')).rejects.toThrow(/has ended/);
    await expect(late?.get('a').string()).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    expect(await ns.get('a')).toBe('1');
  });

  it('a compaction of the revision that is read at is a reason to run again', async () => {
    let runs = 0;
    const seen = await ns.stm().transact(async (tx) => {
      await tx.get('a');
      if (++runs === 1) {
        await ns.put('c').value('later');
        await etcd.compact();
      }
      return tx.get('b').string();
    });
    expect([runs, seen]).toEqual([2, '2']);
  });

  it('options are for the commit', async () => {
    const signal = AbortSignal.abort();
    const aborted = ns.stm({ callOptions: { signal } }).transact((tx) => tx.put('a').value('no').exec());
    await expect(aborted).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(await ns.get('a')).toBe('1');
  });

  it('wrong options are told at once', () => {
    expect(() => ns.stm({ isolation: 7 as Isolation })).toThrow(/Unknown isolation level "7"/);
    expect(() => ns.stm({ retries: 1.5 })).toThrow(/retries/);
  });

  describe.each(named([SerializableSnapshot, Serializable, RepeatableReads]))(
    'a bank, by %s, under contention',
    (name, isolation) => {
      it('stays serializable, in the order of the commits', async () => {
        const seed = 20_240_101 + isolation;
        const random = seeded(seed);
        const accounts = Array.from({ length: 5 }, (_, index) => `account/${index}`);
        const start = 100;
        for (const account of accounts) await ns.put(account).value(JSON.stringify({ balance: start, by: 'start' }));

        interface Account {
          balance: number;
          by: string;
        }
        interface Done {
          id: string;
          reads: Record<string, Account>;
          writes: Record<string, Account>;
        }
        const history = new Map<string, Done>();
        let runs = 0;
        const clients = Array.from({ length: 3 }, () => new Etcd3({ hosts: [...etcd.hosts] }));
        try {
          await Promise.all(
            clients.map(async (own, worker) => {
              const inside = own.namespace(ns.prefix);
              for (let index = 0; index < 25; index++) {
                const id = `${worker}-${index}`;
                const picked = accounts.toSorted(() => random() - 0.5).slice(0, 2 + Math.floor(random() * 3));
                const amount = 1 + Math.floor(random() * 40);
                const done = await inside.stm({ isolation, retries: 200 }).transact(async (tx) => {
                  runs++;
                  const read = async (account: string) => [account, await tx.get(account).json()] as const;
                  const reads = Object.fromEntries(await Promise.all(picked.map(read))) as Done['reads'];
                  // Written are the first two of those read, and a journal entry that tells the revision.
                  const [from, to] = picked as [string, string];
                  const moved = Math.min(amount, (reads[from] as Account).balance);
                  const writes: Done['writes'] = {
                    [from]: { balance: (reads[from] as Account).balance - moved, by: id },
                    [to]: { balance: (reads[to] as Account).balance + moved, by: id },
                  };
                  for (const [account, value] of Object.entries(writes)) {
                    await tx.put(account).value(JSON.stringify(value));
                  }
                  await tx.put(`journal/${id}`).value('');
                  return { id, reads, writes };
                });
                history.set(id, done);
              }
            }),
          );
        } finally {
          await Promise.all(clients.map((own) => own.close()));
        }

        const journal = await ns.getAll().prefix('journal/').sort('Create', 'Ascend').entries();
        expect(journal.map(({ version }) => version)).toEqual(journal.map(() => 1n)); // each was committed once
        expect(journal.length).toBe(history.size);
        expect(new Set(journal.map(({ createRevision }) => createRevision)).size).toBe(history.size);
        const state = new Map(accounts.map((account) => [account, { balance: start, by: 'start' }]));
        for (const { key } of journal) {
          const { id, reads, writes } = history.get(key.toString().slice('journal/'.length)) as Done;
          const before = Object.fromEntries(Object.keys(reads).map((account) => [account, state.get(account)]));
          expect(reads, `${name}, seed ${seed}: what ${id} read`).toEqual(before);
          for (const [account, value] of Object.entries(writes)) state.set(account, value);
          expect([...state.values()].reduce((sum, { balance }) => sum + balance, 0)).toBe(start * accounts.length);
        }
        expect(await ns.getAll().prefix('account/').json()).toEqual(Object.fromEntries(state));
        expect(runs, 'there was contention').toBeGreaterThan(history.size);
      });
    },
  );
});
