// What calls carry on a server that works: sizes, keys, numbers of them, order, options of time.

import { Etcd3, GRPCCancelledError, GRPCDeadlineExceededError, GRPCResourceExhastedError } from 'rollcall/etcd';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ETCD_VERSIONS, type EtcdCluster, startEtcd } from '../support/etcd.js';
import { inTime, uniqueName } from '../support/process.js';
import { seeded } from '../support/random.js';
import { connectBoth } from './both.js';

describe.each(ETCD_VERSIONS)('etcd %s', (version) => {
  let etcd: EtcdCluster;
  let client: Etcd3;

  beforeAll(async () => {
    etcd = await startEtcd({ version });
    client = new Etcd3({ hosts: [...etcd.hosts] });
  });
  afterAll(async () => {
    await client?.close();
    await etcd?.close();
  });

  it('10,000 gets of one tick are all answered', async () => {
    const ns = client.namespace(`${uniqueName()}/`);
    await ns.put('k').value('v');
    const answers = await Promise.all(Array.from({ length: 10_000 }, (_, i) => ns.get(i % 2 ? 'k' : 'none').string()));
    expect(answers.filter((value) => value === 'v')).toHaveLength(5000);
    expect(answers.filter((value) => value === null)).toHaveLength(5000);
  });

  it('20,000 puts of 100 bytes in one tick are applied once each', async () => {
    const ns = client.namespace(`${uniqueName()}/`);
    const value = 'x'.repeat(100);
    await Promise.all(Array.from({ length: 20_000 }, (_, i) => ns.put(`k${i}`).value(value)));
    const { kvs } = await ns.getAll().exec();
    expect(kvs).toHaveLength(20_000);
    expect(kvs.filter((kv) => kv.version !== '1' || kv.value.length !== 100)).toEqual([]);
  });

  it.each([
    ['nothing', 0],
    ['one byte less than goes by itself', 8 * 1024 - 1],
    ['as much as goes in a page', 8 * 1024],
    ['more than goes in a page of answers', 8 * 1024 + 1],
    ['the most that is written into a page', 32 * 1024],
    ['more than that', 32 * 1024 + 1],
    ['a whole page', 256 * 1024],
    ['more than a page', 300 * 1024],
    ['about what etcd takes', 1_400_000],
  ])('a value of %s comes back as it was', async (_what, length) => {
    const key = uniqueName();
    const value = Buffer.alloc(length, 'abcdefg');
    for (const given of [value, value.toString('latin1')]) {
      await client.put(key).value(given);
      expect((await client.get(key).buffer())?.equals(value)).toBe(true);
      expect((await client.get(key).string()) === value.toString('latin1')).toBe(true);
      expect((await client.get(key).exec()).kvs[0]?.value.equals(value)).toBe(true);
      expect((await client.getAll().prefix(key).buffers())[key]?.equals(value)).toBe(true);
    }
  });

  it('text of three and four bytes a letter fits wherever text of one byte does', async () => {
    for (const [letter, count] of [
      ['€', 32 * 1024],
      ['😀', 16 * 1024],
      ['é', 43],
      ['é', 42],
      ['x', 42],
      ['x', 43],
      ['é', 21],
    ] as const) {
      const key = uniqueName();
      const value = letter.repeat(count);
      await client.put(key).value(value);
      expect((await client.get(key).string()) === value, `${letter} ${count}`).toBe(true);
    }
  });

  it('a value too large for etcd is refused with its text, as by etcd3, and harms no other call', async () => {
    const both = connectBoth(etcd.hosts);
    try {
      const key = uniqueName();
      const large = both.ours.put(key).value(Buffer.alloc(1_800_000)).exec();
      const small = Array.from({ length: 200 }, (_, i) => both.ours.put(`${key}/${i}`).value('v').exec());
      const [error, theirs] = await Promise.all([
        large.catch((e: unknown) => e),
        both.theirs
          .put(key)
          .value(Buffer.alloc(1_800_000))
          .exec()
          .catch((e: unknown) => e),
      ]);
      await Promise.all(small);
      expect(error).toMatchObject({
        name: (theirs as Error).constructor.name,
        details: 'etcdserver: request is too large',
        retryable: false,
        outcomeUnknown: false,
      });
      expect((error as Error).message).toContain('etcdserver: request is too large');
      expect(await both.ours.get(key).string()).toBeNull();
    } finally {
      await both.close();
    }
  });

  it('keys of every kind are the same key for rollcall and for etcd3, by every way', async () => {
    const both = connectBoth(etcd.hosts);
    const prefix = `${uniqueName()}/`;
    const [mine, theirs] = [both.ours.namespace(prefix), both.theirs.namespace(prefix)];
    const keys: (string | Buffer)[] = [
      'a',
      'k'.repeat(127 - prefix.length), // as long as one byte of length tells
      'l'.repeat(128 - prefix.length),
      'm'.repeat(42),
      'n'.repeat(5000),
      'ключ',
      '键'.repeat(30),
      '键'.repeat(60),
      '😀',
      'nul\0inside',
      '\0',
      Buffer.from([0xff, 0xfe, 0x00, 0x80]),
      Buffer.alloc(200, 0xff),
      'lone \ud800 surrogate', // goes as U+FFFD, as everywhere in Node.js
      '\udc00',
      '__proto__',
    ];
    try {
      for (const [i, key] of keys.entries()) {
        const bytes = Buffer.from(key as string);
        await mine.put(key).value(`mine ${i}`);
        expect(await theirs.get(key).string()).toBe(`mine ${i}`);
        await theirs.put(key).value(`theirs ${i}`);
        expect(await mine.get(key).string()).toBe(`theirs ${i}`);
        expect((await mine.get(key).buffer())?.toString()).toBe(`theirs ${i}`);
        expect((await mine.get(bytes).exec()).kvs[0]?.key).toEqual(Buffer.concat([Buffer.from(prefix), bytes]));
        expect(await mine.get(bytes).string()).toBe(`theirs ${i}`);
        expect((await mine.if(key, 'Version', '==', 2).then(mine.get(key)).commit()).succeeded).toBe(true);
      }
      expect((await mine.getAll().keyBuffers()).map((key) => key.toString('hex')).sort()).toEqual(
        keys.map((key) => Buffer.from(key as string).toString('hex')).sort(),
      );
      // The lone surrogate and U+FFFD are one key.
      expect(await mine.get('lone \ufffd surrogate').string()).toBe(`theirs ${keys.indexOf('lone \ud800 surrogate')}`);
    } finally {
      await both.close();
    }
  });

  it('small and large calls of one tick keep every answer with its call', async () => {
    const random = seeded(4711);
    const ns = client.namespace(`${uniqueName()}/`);
    const sizes = [0, 1, 20, 100, 1000, 8191, 8192, 8193, 40_000, 270_000];
    const values = sizes.map((size, i) =>
      Buffer.alloc(size, `value of ${size} `).fill(String(i), 0, Math.min(1, size)),
    );
    await Promise.all(values.map((value, i) => ns.put(`v${i}`).value(value)));
    let checked = 0;
    for (let round = 0; round < 12; round++) {
      const calls = Array.from({ length: 300 }, async (_, n) => {
        // Large ones are rare, or the test would be about copying.
        const i = Math.floor(random() ** 2 * sizes.length);
        const value = values[i] as Buffer;
        const what = Math.floor(random() * 8);
        const signal = random() < 0.3 ? new AbortController().signal : undefined;
        const own = `own${round}.${n}`;
        switch (what) {
          case 0: {
            await ns.put(own).value(value);
            return value.equals((await ns.get(own).buffer()) as Buffer);
          }
          case 1:
            return (await ns.get(`v${i}`).string()) === value.toString('latin1');
          case 2:
            return value.equals((await ns.get(`v${i}`).options({ signal }).buffer()) as Buffer);
          case 3:
            return value.equals((await ns.get(`v${i}`).exec()).kvs[0]?.value as Buffer);
          case 4:
            return (await ns.get(`none${n}`).string()) === null;
          case 5: {
            const all = await ns.getAll().prefix(`v${i}`).options({ signal }).buffers();
            return value.equals(all[`v${i}`] as Buffer);
          }
          case 6: {
            const { responses, succeeded } = await ns
              .if(`v${i}`, 'Version', '==', 1)
              .then(ns.get(`v${i}`), ns.put(`t${round}.${n}`).value(String(n)))
              .commit();
            return succeeded && value.equals(responses[0]?.response_range.kvs[0]?.value as Buffer);
          }
          default: {
            const { prev_kv, header } = await ns.put(own).value(String(n)).exec();
            return prev_kv === null && BigInt(header.revision) > 0n && (await ns.get(own).number()) === n;
          }
        }
      });
      const right = await Promise.all(calls);
      expect(right.filter((one) => !one)).toEqual([]);
      checked += right.length;
    }
    expect(checked).toBe(3600);
  });

  it('puts of one tick are applied in the order in which they were begun', async () => {
    const ns = client.namespace(`${uniqueName()}/`);
    const headers = await Promise.all(Array.from({ length: 50 }, (_, i) => ns.put(`k${i}`).value('v').exec()));
    expect(new Set(headers.map(({ header }) => header.revision)).size).toBe(50);
  });

  describe('time', () => {
    it('a deadline is a date or a number; whichever is over refuses the call unsent, with a typed error', async () => {
      const key = uniqueName();
      for (const past of [
        new Date(Date.now() - 1000),
        Date.now() - 1000,
        0,
        new Date(0),
        -5,
        Number.NEGATIVE_INFINITY,
      ]) {
        const put = client.put(key).value('v').options({ deadline: past }).exec();
        await expect(put).rejects.toBeInstanceOf(GRPCDeadlineExceededError);
        await expect(put).rejects.toMatchObject({ code: 'ERR_TIMEOUT', grpcCode: 4, outcomeUnknown: false });
        await expect(client.get(key).options({ deadline: past }).string()).rejects.toMatchObject({ grpcCode: 4 });
        await expect(client.getAll().prefix(key).options({ deadline: past }).keys()).rejects.toMatchObject({
          grpcCode: 4,
        });
        await expect(
          client.if(key, 'Version', '==', 0).then(client.put(key).value('v')).options({ deadline: past }).commit(),
        ).rejects.toMatchObject({ grpcCode: 4 });
      }
      expect(await client.get(key).string()).toBeNull();
      for (const ahead of [new Date(Date.now() + 60_000), Date.now() + 60_000, Number.POSITIVE_INFINITY, 8.64e15]) {
        await client.put(key).value('v').options({ deadline: ahead });
        expect(await client.get(key).options({ deadline: ahead }).string()).toBe('v');
      }
      expect(await client.get(key).options({ timeoutMs: 0 }).string()).toBe('v');
    });

    it.each([
      ['deadline', { deadline: 'soon' }],
      ['deadline', { deadline: Number.NaN }],
      ['deadline', { deadline: new Date('never') }],
      ['deadline', { deadline: {} }],
      ['deadline', { deadline: true }],
      ['timeoutMs', { timeoutMs: -1 }],
      ['timeoutMs', { timeoutMs: Number.NaN }],
      ['timeoutMs', { timeoutMs: 1.5 }],
      ['timeoutMs', { timeoutMs: '5' }],
      ['timeoutMs', { timeoutMs: 2 ** 31 }],
      ['timeoutMs', { timeoutMs: null }],
      ['signal', { signal: {} }],
      ['signal', { signal: 'abort' }],
      ['signal', { signal: { aborted: true } }],
      ['signal', { signal: new AbortController() }],
    ])('a wrong %s is refused by name: %o', async (name, options) => {
      const given = options as object;
      const key = uniqueName();
      for (const call of [
        () => client.get(key).options(given).string(),
        () => client.get(key).options(given).exec(),
        () => client.get(key).options(given).buffer(),
        () => client.put(key).value('v').options(given).exec(),
        () => client.put(key).value('v').options(given).getPrevious(),
        () => client.getAll().prefix(key).options(given).keys(),
        () => client.delete().key(key).options(given).exec(),
        () => client.kv.range({ key: Buffer.from(key) }, given),
        () => client.maintenance.status(given),
      ]) {
        // Not thrown from the call itself: a promise is what the caller handles.
        const promise = call();
        await expect(promise).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
        await expect(promise).rejects.toThrow(`options.${name}`);
      }
      expect(await client.get(key).string()).toBeNull();
    });
  });

  describe('a signal', () => {
    it('that has fired refuses every call unsent, with its reason as the cause', async () => {
      const key = uniqueName();
      const reason = new Error('enough');
      const options = { signal: AbortSignal.abort(reason) };
      for (const call of [
        client.put(key).value('v').options(options).exec(),
        client.get(key).options(options).string(),
        client.get(key).options(options).exec(),
        client.getAll().options(options).keys(),
        client.delete().key(key).options(options).exec(),
        client.if(key, 'Version', '==', 0).then(client.put(key).value('v')).options(options).commit(),
      ]) {
        await expect(call).rejects.toBeInstanceOf(GRPCCancelledError);
        await expect(call).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: reason, outcomeUnknown: false });
      }
      expect(await client.get(key).string()).toBeNull();
    });

    it('that fires in the tick of the call, or while it is under way, ends it; the outcome of a write is unknown', async () => {
      const ns = client.namespace(`${uniqueName()}/`);
      const now = new AbortController();
      const calls = Array.from({ length: 500 }, (_, i) => ns.put(`a${i}`).value('v').options(now).exec());
      const reads = Array.from({ length: 500 }, () => ns.get('k').options(now).string());
      now.abort();
      for (const call of calls) {
        await expect(call).rejects.toMatchObject({ code: 'ERR_ABORTED', outcomeUnknown: true, retryable: false });
      }
      for (const read of reads)
        await expect(read).rejects.toMatchObject({ code: 'ERR_ABORTED', outcomeUnknown: false });
      const later = new AbortController();
      const under = Array.from({ length: 500 }, (_, i) =>
        ns
          .put(`b${i}`)
          .value('v')
          .options(later)
          .exec()
          .then(
            () => 'done',
            (error: { code?: string; outcomeUnknown?: boolean }) => `${error.code} ${error.outcomeUnknown}`,
          ),
      );
      setImmediate(() => later.abort());
      const ends = await Promise.all(under);
      expect(ends.filter((end) => end !== 'done' && end !== 'ERR_ABORTED true')).toEqual([]);
      const { kvs } = await ns.getAll().prefix('b').exec();
      expect(kvs.length).toBeGreaterThanOrEqual(ends.filter((end) => end === 'done').length);
      expect(kvs.every((kv) => kv.version === '1')).toBe(true);
    });

    it('that fires after the answer does nothing, and thousands of calls share one without a warning', async () => {
      const warnings: Error[] = [];
      const warn = (warning: Error) => warnings.push(warning);
      process.on('warning', warn);
      const controller = new AbortController();
      const key = uniqueName();
      await client.put(key).value('v').options(controller);
      const values = await Promise.all(
        Array.from({ length: 2000 }, () => client.get(key).options({ signal: controller.signal }).string()),
      );
      controller.abort();
      await new Promise((resolve) => setImmediate(resolve));
      process.off('warning', warn);
      expect(values.every((value) => value === 'v')).toBe(true);
      expect(warnings).toEqual([]);
      expect(await client.get(key).string()).toBe('v');
    });
  });

  it('over maxInFlight calls wait; a signal, a timeout and close() reach those that wait too', async () => {
    etcd.freeze();
    const few = new Etcd3({ hosts: [...etcd.hosts], maxInFlight: 2 });
    try {
      const stuck = [few.get('a').string(), few.get('b').string()];
      const controller = new AbortController();
      const aborted = few.put('c').value('v').options(controller).exec();
      const late = few.put('d').value('v').options({ timeoutMs: 200 }).exec();
      const deadline = few
        .get('e')
        .options({ deadline: Date.now() + 200 })
        .string();
      const closed = few.put('f').value('v').exec();
      for (const call of [...stuck, aborted, late, deadline, closed]) call.catch(() => {});
      controller.abort(new Error('enough'));
      await expect(aborted).rejects.toMatchObject({ code: 'ERR_ABORTED', outcomeUnknown: false });
      const start = performance.now();
      await expect(late).rejects.toMatchObject({ code: 'ERR_TIMEOUT', outcomeUnknown: false });
      await expect(deadline).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
      expect(performance.now() - start).toBeLessThan(inTime(3000));
      await few.close();
      for (const call of [...stuck, closed]) await expect(call).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    } finally {
      etcd.thaw();
      await few.close();
    }
    for (const key of ['c', 'd', 'f']) expect(await client.get(key).string()).toBeNull();
  });

  it('over maxInFlight nothing is lost, and the wait counts', async () => {
    const few = new Etcd3({ hosts: [...etcd.hosts], maxInFlight: 8 });
    const ns = few.namespace(`${uniqueName()}/`);
    await Promise.all(
      Array.from({ length: 1000 }, (_, i) => ns.put(`k${i}`).value(String(i)).options({ timeoutMs: 30_000 })),
    );
    const values = await Promise.all(Array.from({ length: 1000 }, (_, i) => ns.get(`k${i}`).number()));
    expect(values).toEqual(values.map((_, i) => i));
    await few.close();
  });

  it('an answer above the limit is refused once, and harms no other call', async () => {
    const small = new Etcd3({ hosts: [...etcd.hosts], maxMessageBytes: 64 * 1024, groupGets: false });
    const ns = small.namespace(`${uniqueName()}/`);
    await ns.put('large').value('x'.repeat(100_000));
    await ns.put('small').value('s');
    const { attempts } = small.metrics();
    const beside = Array.from({ length: 200 }, () => ns.get('small').string());
    const large = ns.get('large').string();
    const after = Array.from({ length: 200 }, () => ns.get('small').string());
    await expect(large).rejects.toBeInstanceOf(GRPCResourceExhastedError);
    await expect(large).rejects.toMatchObject({ code: 'ERR_RESOURCE_EXHAUSTED', grpcCode: 8, retryable: false });
    await expect(large).rejects.toThrow(/maxMessageBytes|message length too large/);
    expect(new Set(await Promise.all([...beside, ...after]))).toEqual(new Set(['s']));
    expect(small.metrics().attempts - attempts).toBe(401);
    await small.close();
  });

  it('a list of 50,000 keys does not hold the event loop in one piece', async () => {
    const ns = client.namespace(`${uniqueName()}/`);
    for (let from = 0; from < 50_000; from += 100) {
      const ops = Array.from({ length: 100 }, (_, i) => ns.put(`k${from + i}`).value('x'.repeat(50)));
      await ns
        .if('none', 'Version', '==', 0)
        .then(...ops)
        .commit();
    }
    const turns = { count: 0, on: true };
    const turn = () => {
      turns.count++;
      if (turns.on) setImmediate(turn);
    };
    setImmediate(turn);
    const all = await ns.getAll().strings();
    turns.on = false;
    expect(Object.keys(all)).toHaveLength(50_000);
    // Turns of the loop while it came, and not only before it came: as many chunks as there are at least.
    expect(turns.count).toBeGreaterThan(50);
  });
});
