// rollcall/uid: what ids are made of, and what is told of them.
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { ClockError, createUid, parseUuidv7, type Uid, uuidv7 } from 'rollcall/uid';
import { describe, expect, test, vi } from 'vitest';
import { client, failure, HOLDING, inMemory, PLACES, placed, until } from '../coord/kit.js';
import { uniqueName } from '../support/process.js';
import { expectGrowing, layoutOf, made, ROOT, SERVICE, settable } from './uid-kit.js';

const EPOCH = 1_288_834_974_657;
const fixed = (more: object = {}): Promise<Uid> => createUid({ workerId: 5, logger: false, ...more });

describe('what an id is made of', () => {
  test.each([
    undefined,
    { timeBits: 42, workerBits: 5, seqBits: 16 },
    { timeBits: 53, workerBits: 5, seqBits: 5 },
    { timeBits: 39, workerBits: 22, seqBits: 2 },
    { timeBits: 40, workerBits: 1, seqBits: 22 },
  ])('the layout %o', async (layout) => {
    const epoch = layout?.timeBits === 39 ? Date.UTC(2026, 0) : EPOCH;
    const { timeBits, workerBits, seqBits } = layout ?? { timeBits: 41, workerBits: 10, seqBits: 12 };
    const workerId = 2 ** workerBits - 1;
    const uid = await createUid({ workerId, layout, epoch, logger: false, maxAheadMs: 60_000 });
    const before = Date.now();
    const id = uid.next();
    const time = Number(id >> BigInt(63 - timeBits));
    expect(Number((id >> BigInt(seqBits)) & BigInt(workerId))).toBe(workerId);
    expect(time + epoch).toBeGreaterThanOrEqual(before);
    expect(uid.parse(id)).toEqual({
      at: new Date(time + epoch),
      workerId,
      sequence: Number(id & BigInt(2 ** seqBits - 1)),
    });
    expect(uid.parse(String(id))).toEqual(uid.parse(id));
    const ids = [id];
    for (let i = 0; i < 3000; i++) ids.push(uid.next(), BigInt(uid.nextString()), ...uid.nextMany(1 + (i % 7)));
    expectGrowing(ids);
    expect(uid.validUntil).toBe(Number.POSITIVE_INFINITY);
    await uid.close();
    expect(uid.validUntil).toBe(0);
  });

  test('digits are those of the number, for each sequence of a millisecond', async (finish) => {
    const [one, other] = [await fixed(), await fixed()];
    const clock = settable(finish);
    const now = Date.now();
    // Digits are made in rows of ten million: those milliseconds count in which a row ends in the middle.
    const first = (ms: number) => (BigInt(ms - EPOCH) << 22n) | (5n << 12n);
    const near = (ms: number) => 10_000_000n - (first(ms) % 10_000_000n) < 4000n;
    const all = Array.from({ length: 50_000 }, (_, i) => now + i).filter((ms) => near(ms) || ms % 10_000 === 0);
    expect(all.filter(near).length).toBeGreaterThan(3);
    for (const ms of all) {
      clock.at(ms);
      for (let i = 0; i < 4096; i++) {
        const digits = one.nextString();
        if (digits !== String(other.next())) expect(digits).toBe(String(first(ms) + BigInt(i)));
      }
    }
    const young = { epoch: Date.now() - 1, layout: layoutOf(1), workerId: 0 };
    expect((await fixed(young)).nextString()).toMatch(/^[1-9]\d*$/);
  });

  test('many at once are as one after the other', async (finish) => {
    const [one, other] = [await fixed(), await fixed()];
    settable(finish).at(Date.now());
    const many = [...one.nextMany(3), ...one.nextMany(10_000), ...one.nextMany(1)];
    expect(many).toEqual(Array.from({ length: 10_004 }, () => other.next()));
  });
});

describe('the clock', () => {
  test('set back by an hour: ids go on, and as many as before', async (finish) => {
    const uid = await fixed();
    const clock = settable(finish);
    const before = uid.next();
    clock.by(-3_600_000);
    const ids = uid.nextMany(1_000_000);
    expect(ids[0]).toBeGreaterThan(before);
    expectGrowing(ids);
    expect(uid.parse(ids.at(-1) as bigint).at.getTime()).toBeLessThan(Date.now() + 3_600_000 + 6000);
  });

  test('set back, with `error`: ERR_CLOCK until it is where it was', async (finish) => {
    const uid = await fixed({ clockBack: 'error' });
    const clock = settable(finish);
    const told: number[] = [];
    uid.on('clock', (by) => told.push(by));
    const now = Date.now();
    clock.at(now);
    const before = uid.next();
    clock.at(now - 50);
    const error = await failure((async () => uid.next())());
    expect(error).toBeInstanceOf(ClockError);
    expect(error).toMatchObject({ code: 'ERR_CLOCK', offMs: -50, retryable: true, operation: 'next' });
    expect(told).toEqual([-50]);
    clock.at(now);
    expect(uid.next()).toBeGreaterThan(before);
  });

  test('set back, with `wait`: the call waits, but not for longer than maxAheadMs', async (finish) => {
    const uid = await fixed({ clockBack: 'wait', maxAheadMs: 100 });
    const clock = settable(finish);
    const before = uid.next();
    clock.by(-40);
    expect(uid.next()).toBeGreaterThan(before);
    expect(uid.parse(uid.next()).at.getTime()).toBeLessThanOrEqual(Date.now());
    clock.by(-3_600_000);
    expect(() => uid.next()).toThrow(ClockError);
  });

  test('set back once more while `wait` waits: no longer than maxAheadMs', async (finish) => {
    const uid = await fixed({ clockBack: 'wait', maxAheadMs: 200 });
    const clock = settable(finish);
    const now = Date.now();
    clock.at(now);
    uid.next();
    let looks = 0;
    vi.mocked(Date.now).mockImplementation(() => now - (looks++ < 2 ? 50 : 150)); // where it stands
    const began = performance.now();
    expect(() => uid.next()).toThrow(ClockError);
    expect(performance.now() - began).toBeGreaterThan(40);
  });

  test('behind, with `error`: told once until it has been there again', async (finish) => {
    const uid = await fixed({ clockBack: 'error' });
    const clock = settable(finish);
    const told: number[] = [];
    uid.on('clock', (by) => told.push(by));
    const now = Date.now();
    for (const by of [0, -50, -60, 1, -30]) {
      clock.at(now + by);
      for (let i = 0; i < 3; i++) await failure((async () => uid.next())()).catch(() => {});
    }
    expect(told).toEqual([-50, -31]);
  });

  test('set back, and more are made than fit: as fast as the time', async (finish) => {
    const uid = await fixed({ maxAheadMs: 20, layout: { timeBits: 53, workerBits: 5, seqBits: 5 } });
    const clock = settable(finish);
    uid.next();
    clock.by(-3_600_000);
    uid.nextMany(32 * 25); // ahead by all that they may be
    const at = () => uid.parse(uid.next()).at.getTime();
    /** How many milliseconds were lost of 300. */
    const lost = () => {
      const [first, began] = [at(), performance.now()];
      uid.nextMany(32 * 300);
      return performance.now() - began - (at() - first);
    };
    // A busy machine may take some of it, but not of each.
    let least = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 10 && least >= 10; round++) least = Math.min(least, lost());
    expect(least).toBeLessThan(10);
  });

  test('jumped ahead by a year: ERR_CLOCK, without a store too; and told, as is one that was set back', async (finish) => {
    const uid = await fixed();
    const clock = settable(finish);
    const told: number[] = [];
    uid.on('clock', (by) => told.push(Math.round(by / 1000)));
    uid.next();
    clock.by(365 * 86_400_000);
    for (let i = 0; i < 3; i++) expect(() => uid.next()).toThrow(ClockError);
    clock.by(0);
    uid.next();
    expect(told).toEqual([365 * 86_400]);
    clock.by(-3_600_000);
    await uid.ready();
    expect(told).toEqual([365 * 86_400, -3600]);
    await uid.ready();
    expect(told.length).toBe(2);
  });

  test('more than fit: they are ahead by maxAheadMs, and then as fast as the time', async () => {
    const uid = await fixed({ maxAheadMs: 20, layout: { timeBits: 53, workerBits: 5, seqBits: 5 } });
    let exhausted = 0;
    uid.on('exhausted', () => exhausted++);
    const start = performance.now();
    const ids = uid.nextMany(32 * 120);
    const took = performance.now() - start;
    expect(took, '120 ms of ids, of which 20 may be ahead').toBeGreaterThan(95);
    expect(exhausted).toBeGreaterThan(0);
    expect(uid.parse(ids.at(-1) as bigint).at.getTime()).toBeLessThanOrEqual(Date.now() + 21);
  });
});

test('who is told that more are made than fit may make ids too: none twice', async () => {
  const uid = await fixed({ maxAheadMs: 2, layout: { timeBits: 53, workerBits: 5, seqBits: 5 } });
  const ids: bigint[] = [];
  let told = 0;
  uid.on('exhausted', () => {
    told++;
    ids.push(uid.next());
  });
  for (let i = 0; i < 1000; i++) ids.push(uid.next());
  expect(told).toBeGreaterThan(0);
  expectGrowing(ids);
});

describe.each(HOLDING)('%s', (_, start) => {
  const place = placed(start);

  test("a worker id is one process's, is extended, and is given back with what was stamped last", async (finish) => {
    const service = uniqueName('orders');
    const [one, other] = [
      await made(finish, place.url, { service, windowMs: 1500 }),
      await made(finish, place.url, { service }),
    ];
    expect(one.workerId).not.toBe(other.workerId);
    const renewed: number[] = [];
    one.on('renewed', (validUntil) => renewed.push(validUntil));
    const first = one.validUntil;
    await until('its window to be extended twice', () => renewed.length >= 2);
    expect(one.validUntil).toBeGreaterThan(first);
    const last = one.next();
    await one.close();
    await one.close();
    expect(() => one.next()).toThrow('it is closed');
    expect(() => one.nextMany(2)).toThrow('it is closed');
    expect(await failure(one.ready())).toMatchObject({ code: 'ERR_CLOSED' });
    const coord = await client(finish, place.url);
    const entries = await coord.config.list(`/im-infra/allocators/${service}/`);
    const keys = entries.map(({ key }) => key.split('/').slice(-2).join('/'));
    const [n, m] = [one.workerId || 1024, other.workerId || 1024];
    expect(new Set(keys)).toEqual(new Set([`ids/${m}`, `until/${m}`, `until/${n}`]));
    const { value } = entries.find(({ key }) => key.endsWith(`until/${n}`)) as { value: string };
    expect(JSON.parse(value).until).toBe(one.parse(last).at.getTime());
  });

  test('coord is closed first: the worker id is given back with it', async (finish) => {
    const service = uniqueName('orders');
    const coord = await client(finish, place.url);
    const uid = await createUid({ coord, service, layout: layoutOf(1), logger: false });
    uid.next();
    await coord.close();
    expect(() => uid.next()).toThrow('it is closed');
    const [two, three] = [
      await made(finish, place.url, { service, layout: layoutOf(1) }),
      await made(finish, place.url, { service, layout: layoutOf(1) }),
    ];
    expect(new Set([two.workerId, three.workerId])).toEqual(new Set([0, 1]));
    expect(await failure(createUid({ coord, service }))).toMatchObject({ code: 'ERR_CLOSED' });
  });

  test('the store is away for longer than the window: ERR_UNAVAILABLE, ready() waits, and ids come back', async (finish) => {
    const uid = await made(finish, place.url, { service: uniqueName('orders'), windowMs: 2000 });
    const before = uid.next();
    await place.away();
    await until('the end of the window', () => Date.now() > uid.validUntil);
    expect(await failure((async () => uid.next())())).toMatchObject({ code: 'ERR_UNAVAILABLE', retryable: true });
    const signal = AbortSignal.timeout(50);
    expect(await failure(uid.ready({ signal }))).toMatchObject({ code: 'ERR_ABORTED' });
    await place.back();
    await uid.ready({ timeoutMs: 30_000 });
    expect(uid.next()).toBeGreaterThan(before);
  });
});

test('stores without leases: ERR_UNSUPPORTED', async (finish) => {
  for (const [name, start] of PLACES.filter(([name]) => !HOLDING.some(([holding]) => holding === name))) {
    const place = await start();
    finish.onTestFinished(() => place.close());
    expect(await failure(made(finish, place.url)), name).toMatchObject({ code: 'ERR_UNSUPPORTED' });
  }
});

test('the event loop is blocked past the window: it was extended meanwhile', async (finish) => {
  const uid = await made(finish, `memory://${uniqueName('uid')}`, { windowMs: 1000 });
  const { validUntil } = uid;
  const sleeper = new Int32Array(new SharedArrayBuffer(4));
  Atomics.wait(sleeper, 0, 0, 1500);
  expect(Date.now()).toBeGreaterThan(validUntil);
  uid.next();
  expect(uid.validUntil).toBeGreaterThan(validUntil);
});

test('what was looked at before it was told is told all the same: another worker id, and its window', async (finish) => {
  const coord = await inMemory(finish);
  const uid = await createUid({ coord, service: SERVICE, windowMs: 1000, logger: false });
  const told: unknown[] = [];
  uid.on('moved', (change) => told.push(change)).on('renewed', (validUntil) => told.push(validUntil));
  const from = uid.workerId;
  const theirs = { until: Date.now() + 1000, nonce: 'of a clone', holder: 'a clone' };
  await coord.config.set(`${ROOT}/until/${from || 1024}`, JSON.stringify(theirs));
  const end = performance.now() + 10_000;
  // Nothing is told before this turn of the event loop is over.
  while (uid.workerId === from && performance.now() < end) expect(uid.validUntil).toBeGreaterThan(0);
  const { workerId: to, validUntil } = uid;
  expect([to === from, told]).toEqual([false, []]);
  await until('it to be told', () => told.length >= 2);
  expect(told.slice(0, 2)).toEqual([{ from, to }, validUntil]);
});

test('who listens late hears of the latest window alone', async (finish) => {
  const coord = await inMemory(finish);
  const uid = await createUid({ coord, service: SERVICE, windowMs: 1000, logger: false });
  let changes = 0;
  for (let last = uid.validUntil; changes < 3; await sleep(20)) {
    if (uid.validUntil !== last) changes++;
    last = uid.validUntil;
  }
  const told: number[] = [];
  uid.on('renewed', (validUntil) => told.push(validUntil));
  await Promise.resolve();
  await Promise.resolve();
  expect(told).toHaveLength(1); // the last of those three may be yet to come
});

test("a record that can't be read is not taken for a slot that is free", async (finish) => {
  const coord = await inMemory(finish);
  await coord.config.set(`${ROOT}/until/1`, 'soon');
  const layout = layoutOf(1);
  const uid = await createUid({ coord, service: SERVICE, layout, logger: false });
  expect(uid.workerId).toBe(0); // of slot 2
  const error = await failure(createUid({ coord, service: SERVICE, layout, logger: false }));
  expect(error.holders).toContain("1: what stands at its key can't be read");
});

test('the holder before was ahead of our clock: `borrow` goes on after it, `error` and ready() wait for the clock', async (finish) => {
  const coord = await inMemory(finish);
  const layout = layoutOf(1);
  const until = Date.now() + 400;
  const record = JSON.stringify({ until, nonce: 'of another', holder: 'another' });
  for (const n of [1, 2]) await coord.config.set(`${ROOT}/until/${n}`, record);
  const options = { coord, service: SERVICE, layout, logger: false };
  const [borrows, waits] = [await createUid(options), await createUid({ ...options, clockBack: 'error' })];
  expect(borrows.parse(borrows.next()).at.getTime()).toBe(until + 1);
  expect(await failure((async () => waits.next())())).toMatchObject({ code: 'ERR_CLOCK' });
  await waits.ready();
  expect(Date.now()).toBeGreaterThanOrEqual(until);
  expect(waits.parse(waits.next()).at.getTime()).toBeGreaterThan(until);
});

test('a listener that throws changes nothing', async (finish) => {
  const lines: string[] = [];
  const logger = { error: (line: string) => lines.push(line) };
  const coord = await inMemory(finish);
  const uid = await createUid({ coord, service: SERVICE, windowMs: 1000, logger });
  uid.on('renewed', () => {
    throw new Error('mine');
  });
  await until('it to be logged', () => lines.length > 0);
  expect(lines[0]).toContain('a listener of "renewed" failed');
  uid.next();
});

describe('bad input', () => {
  const coord = { slots: { take: () => Promise.reject(new Error('it was asked')) } };
  test.each([
    ['options', undefined],
    ['options', { coord, workerId: 1 }],
    ['options.coord', {}],
    ['options.coord', { coord: {}, service: 'a' }],
    ['options.service', { coord }],
    ['options.service', { coord, service: 5 }],
    ['options.windowMs', { coord, service: 'a', windowMs: 999 }],
    ['options.windowMs', { coord, service: 'a', windowMs: 3_600_001 }],
    ['options.ttlMs', { coord, service: 'a', ttlMs: 10 }],
    ['options.timeoutMs', { coord, service: 'a', timeoutMs: 0 }],
    ['options.signal', { coord, service: 'a', signal: 1 }],
    ['options.holder', { coord, service: 'a', holder: '' }],
    ['options.workerid', { workerid: 1, coord, service: 'a' }],
    ['options.workerId', { workerId: -1 }],
    ['options.workerId', { workerId: 1024 }],
    ['options.workerId', { workerId: '1' }],
    ['options.windowMs', { workerId: 1, windowMs: 5000 }],
    ['options.layout', { workerId: 1, layout: { timeBits: 41, workerBits: 10, seqBits: 13 } }],
    ['options.layout', { workerId: 1, layout: 5 }],
    ['options.layout.seqBits', { workerId: 1, layout: { timeBits: 41, workerBits: 10, seqBits: 0 } }],
    ['options.layout.timeBits', { workerId: 1, layout: { timeBits: 38, workerBits: 13, seqBits: 12 } }],
    ['options.layout.timebits', { workerId: 1, layout: { timebits: 41 } }],
    ['options.epoch', { workerId: 1, epoch: Date.now() + 86_400_000 }],
    ['options.epoch', { workerId: 1, epoch: new Date(Number.NaN) }],
    ['options.epoch', { workerId: 1, epoch: -1 }],
    ['options.epoch', { workerId: 1, epoch: '2020' }],
    ['options.epoch', { workerId: 1, epoch: 0, layout: { timeBits: 39, workerBits: 12, seqBits: 12 } }],
    ['options.clockBack', { workerId: 1, clockBack: 'borow' }],
    ['options.maxAheadMs', { workerId: 1, maxAheadMs: 0 }],
    ['options.logger', { workerId: 1, logger: 5 }],
  ])('%s: %o', async (path, options) => {
    const error = await failure(createUid(options as never));
    expect(error).toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    expect(error.message).toMatch(new RegExp(`^${path.replace('.', '\\.')}: `));
  });

  test('of methods', async () => {
    const uid = await fixed();
    for (const bad of [0, 1_000_001, 1.5, '3']) expect(() => uid.nextMany(bad as number)).toThrow('count: ');
    for (const bad of [-1n, 1n << 63n, 5, '', '12x', '9'.repeat(20)])
      expect(() => uid.parse(bad as bigint)).toThrow('id: ');
    expect(() => uid.on('moves' as never, () => {})).toThrow('did you mean "moved"?');
    expect(await failure(uid.ready({ timeoutMs: 0 }))).toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    await uid.ready();
  });

  test('of a slot', async (finish) => {
    const { slots } = await inMemory(finish);
    const options = { service: SERVICE, slots: 4, windowMs: 1000, ttlMs: 1000, holder: 'a' };
    const user = { changed() {}, ended: () => ({ generation: 0, last: 0 }) };
    const limits = { timeoutMs: 1000 };
    for (const [path, ...given] of [
      ['options', undefined, user, limits],
      ['options', null, user, limits],
      ['options.service', { ...options, service: undefined }, user, limits],
      ['options.slots', { ...options, slots: undefined }, user, limits],
      ['options.slots', { ...options, slots: 2 ** 22 + 1 }, user, limits],
      ['options.windowMs', { ...options, windowMs: undefined }, user, limits],
      ['options.ttlMs', { ...options, ttlMs: 999 }, user, limits],
      ['options.holder', { ...options, holder: undefined }, user, limits],
      ['options.holder', { ...options, holder: 5 }, user, limits],
      ['options.holder', { ...options, holder: '\ud800' }, user, limits],
      ['options.holder', { ...options, holder: 'x'.repeat(1_000_000) }, user, limits],
      ['user', options, undefined, limits],
      ['user.changed', options, {}, limits],
      ['user.ended', options, { changed() {} }, limits],
      ['limits', options, user, undefined],
      ['limits.timeoutMs', options, user, {}],
      ['limits.timeoutMs', options, user, { timeoutMs: '5' }],
      ['limits.signal', options, user, { ...limits, signal: 5 }],
    ] as const) {
      const error = await failure(slots.take(...(given as unknown as Parameters<typeof slots.take>)));
      expect(error, path).toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
      expect(error.message).toMatch(new RegExp(`^${path.replace('.', '\\.')}: `));
    }
  });

  test('a service that is no part of a key', async (finish) => {
    const there = await inMemory(finish);
    for (const service of ['a/b', '..', 'x'.repeat(2000)]) {
      expect(await failure(createUid({ coord: there, service })), service).toMatchObject({
        code: 'ERR_INVALID_ARGUMENT',
      });
    }
  });
});

describe('uuidv7', () => {
  test('each is greater than the one before, of the right form, and made now', () => {
    const before = Date.now();
    const uuids = Array.from({ length: 200_000 }, () => uuidv7());
    const after = Date.now();
    for (const [i, uuid] of uuids.entries()) {
      if (i > 0 && uuid <= (uuids[i - 1] as string)) expect(uuid).toBe(`greater than ${uuids[i - 1]}`);
    }
    for (const uuid of uuids.slice(0, 1000)) {
      expect(uuid).toMatch(/^[\da-f]{8}-[\da-f]{4}-7[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/);
    }
    const [first, last] = [uuids[0], uuids.at(-1)].map((uuid) => parseUuidv7(uuid as string).at.getTime());
    expect(first).toBeGreaterThanOrEqual(before);
    expect(last).toBeLessThanOrEqual(after);
    expect(new Set(uuids.map((uuid) => uuid.slice(-12))).size).toBe(uuids.length);
  });

  test('in order while the clock is set back', (finish) => {
    const before = uuidv7();
    settable(finish).by(-3_600_000);
    const [one, other] = [uuidv7(), uuidv7()];
    expect([before, one, other]).toEqual([before, one, other].sort());
    expect(other).not.toBe(one);
  });

  test('a clock before 1970: of the right form, and in order', async () => {
    // In a thread that has made none yet.
    const program = `
      Date.now = () => -5;
      const { uuidv7 } = require('rollcall/uid');
      require('node:worker_threads').parentPort.postMessage([uuidv7(), uuidv7()]);`;
    const [uuids] = (await once(new Worker(program, { eval: true }), 'message')) as [string[]];
    expect(uuids.map((uuid) => parseUuidv7(uuid).at.getTime())).toEqual([0, 0]);
    expect(uuids).toEqual([...uuids].sort());
  });

  test('what RFC 9562 shows, and what is none', () => {
    expect(parseUuidv7('017F22E2-79B0-7CC3-98C4-DC0C0C07398F').at).toEqual(new Date('2022-02-22T19:22:22.000Z'));
    for (const bad of ['', '017f22e2-79b0-4cc3-98c4-dc0c0c07398f', '017f22e279b07cc398c4dc0c0c07398f', 5, null]) {
      expect(() => parseUuidv7(bad as string)).toThrow('uuid: ');
    }
  });
});
