// What befalls who makes ids, and that none is made twice. SIZE=full is the size of `make hard`.
import { setTimeout as sleep } from 'node:timers/promises';
import { ClockError, createUid, NoWorkerIdError, type Uid } from 'rollcall/uid';
import { describe, expect, test } from 'vitest';
import { client, FULL, failure, until } from '../coord/kit.js';
import { ETCD_VERSIONS } from '../support/etcd.js';
import { inTime, type Script, said } from '../support/process.js';
import { seeded } from '../support/random.js';
import { startToxiproxy } from '../support/toxiproxy.js';
import {
  begin,
  counted,
  duplicates,
  expectGrowing,
  files,
  type Line,
  layoutOf,
  made,
  maker,
  type Order,
  ROOT,
  runsOf,
  SERVICE,
  settable,
} from './uid-kit.js';

const HOUR = 3_600_000;
const YEAR = 365 * 24 * HOUR;

/** A slot and a time to live that are soon over. */
const SHORT = { windowMs: 3000, ttlMs: 2000 };

/** Makes an id each millisecond until it throws: the last one, when that was asked for, and when the one that failed was. */
function exhaust(uid: Uid): { last: bigint; begun: number; failed: number; error: Error & { code?: string } } {
  let last = 0n;
  for (let begun = 0; ; ) {
    let now = Date.now();
    while (now === begun) now = Date.now();
    try {
      last = uid.next();
      begun = now;
    } catch (error) {
      return { last, begun, failed: Date.now(), error: error as Error };
    }
  }
}

/** What the key of a slot says. */
const untilOf = async (server: { get(key: string): Promise<string | null> }, n: number): Promise<number> =>
  JSON.parse((await server.get(`${ROOT}/until/${n}`)) ?? '{}').until;

test('processes that are killed, stopped and started anew on the same slots, some with a clock that is behind: no id twice', async (finish) => {
  const server = await begin(finish);
  const [processes, each] = FULL ? [16, 10_000_000] : [16, 250_000];
  const file = files(finish);
  const random = seeded(7);
  const layout = layoutOf(4);
  const started: string[] = [];
  const live = new Set<Script<Line>>();
  let killed = 0;
  const left = () => processes * each - counted(started.flatMap(runsOf));
  const start = () => {
    const name = file(`${started.length}.ids`);
    started.push(name);
    const back = random() < 0.3 ? HOUR : 0;
    const order: Order = { url: server.url, file: name, most: each, layout, back, pauseMs: FULL ? 2 : 5, ...SHORT };
    const script = maker(finish, order);
    live.add(script);
    void script.exit.then(() => live.delete(script));
  };
  for (let i = 0; i < processes; i++) start();
  while (left() > 0) {
    await sleep(400);
    const scripts = [...live];
    const one = scripts[Math.floor(random() * scripts.length)];
    if (one && random() < 0.5) {
      one.kill('SIGKILL');
      killed++;
    } else if (one) {
      one.kill('SIGSTOP');
      setTimeout(() => one.kill('SIGCONT'), random() * 2.5 * SHORT.windowMs);
    }
    while (live.size < processes && left() > 0) start();
  }
  for (const script of live) script.kill('SIGKILL');
  const runs = started.flatMap(runsOf);
  expect(counted(runs)).toBeGreaterThanOrEqual(processes * each);
  expect(killed).toBeGreaterThan(3);
  expect(duplicates(runs)).toBe(0);
});

test('the clock is set back an hour between the end and the next start: the first id is greater than all before', async (finish) => {
  const server = await begin(finish);
  const clock = settable(finish);
  const layout = layoutOf(1);
  await made(finish, server.url, { layout }); // has the one slot, so that both have the other
  const before = await made(finish, server.url, { layout });
  const last = before.nextMany(10_000).at(-1) as bigint;
  const { workerId } = before;
  await before.close();
  clock.by(-HOUR);
  const after = await made(finish, server.url, { layout });
  expect(after.workerId).toBe(workerId);
  expect(after.next()).toBeGreaterThan(last);
  expectGrowing(after.nextMany(100_000));
});

test('a process that is stopped for twice the window: what it makes when it goes on is not made after its window', async (finish) => {
  const server = await begin(finish);
  const layout = layoutOf(1);
  await made(finish, server.url, { layout, ...SHORT });
  const file = files(finish);
  const order = { url: server.url, most: Number.MAX_SAFE_INTEGER, layout, pauseMs: 1, ...SHORT };
  const old = maker(finish, { ...order, file: file('old') });
  const { worker } = await said(old, 'has');
  await until('some of it', () => counted(runsOf(file('old'))) > 10_000);
  old.kill('SIGSTOP');
  const n = worker === 0 ? 2 : (worker as number);
  const ended = await untilOf(server, n);
  const next = maker(finish, { ...order, file: file('next') });
  expect((await said(next, 'has')).worker).toBe(worker);
  await sleep(2 * SHORT.windowMs);
  const before = counted(runsOf(file('old')));
  old.kill('SIGCONT');
  await said(old, 'away');
  await until('more of the next', () => counted(runsOf(file('next'))) > 10_000);
  next.kill('SIGKILL');

  await until('it to have a slot again', () => counted(runsOf(file('old'))) > before + 10_000);
  old.kill('SIGKILL');
  const runs = [...runsOf(file('old')), ...runsOf(file('next'))];
  expect(duplicates(runs)).toBe(0);
  const uid = await createUid({ workerId: 0, layout, logger: false });
  const at = ({ first }: { first: bigint }) => uid.parse(first).at.getTime();
  const firstOfNext = Math.min(...runsOf(file('next')).map(at));
  expect(firstOfNext, 'the next begins after the window').toBeGreaterThan(ended);
});

describe.each(ETCD_VERSIONS)('etcd %s', (version) => {
  test('etcd is frozen: ids go on until the end of the window, then ERR_UNAVAILABLE at once, and come back', async (finish) => {
    const server = await begin(finish, { version });
    const uid = await made(finish, server.url, SHORT);
    server.freeze();
    const { validUntil } = uid;
    expect(validUntil - Date.now()).toBeGreaterThan(SHORT.windowMs / 2);
    await sleep(validUntil - Date.now() - 300); // the last of it in one go
    const { last, begun, failed, error } = exhaust(uid);
    expect(error.code).toBe('ERR_UNAVAILABLE');
    expect(uid.validUntil).toBe(validUntil);
    expect(uid.parse(last).at.getTime()).toBeLessThanOrEqual(validUntil);
    // The first that was asked for after it failed, however late the machine let us ask.
    expect(begun).toBeLessThanOrEqual(validUntil);
    expect(failed).toBeGreaterThan(validUntil);
    if (failed - begun <= 1) expect(failed).toBe(validUntil + 1);
    const { workerId } = uid;
    const early = await failure(uid.ready({ timeoutMs: 200 }));
    expect(early).toMatchObject({ code: 'ERR_TIMEOUT', operation: 'ready' });
    server.thaw();
    await uid.ready({ timeoutMs: 30_000 });
    expect(uid.next()).toBeGreaterThan(last);
    expect(uid.workerId).toBe(workerId);
  });

  test('the answer to an extension is lost: the slot is kept', async (finish) => {
    const server = await begin(finish, { version });
    const toxiproxy = await startToxiproxy();
    finish.onTestFinished(() => toxiproxy.close());
    const proxy = await toxiproxy.proxy(server.hosts[0] as string);
    const uid = await made(finish, `etcd://${proxy.host}`, { windowMs: 6000, ttlMs: 6000 });
    const moved: unknown[] = [];
    uid.on('moved', (change) => moved.push(change));
    const n = uid.workerId || 1024;
    const first = await untilOf(server, n);
    await proxy.loseAnswers();
    await until('etcd to have it', async () => (await untilOf(server, n)) > first);
    expect(uid.validUntil).toBe(first);
    await proxy.clear();
    await until('the window to be extended', () => uid.validUntil > first + 3000);
    expect(moved).toEqual([]);
    expect(uid.workerId || 1024).toBe(n);
  });

  test('all slots are held: the holders are named; one that was killed is free after its time to live', async (finish) => {
    const server = await begin(finish, { version });
    const layout = layoutOf(2);
    const order = { url: server.url, most: Number.MAX_SAFE_INTEGER, layout, pauseMs: 10, ...SHORT };
    const file = files(finish);
    const dies = maker(finish, { ...order, file: file('dies') });
    await said(dies, 'has');
    const coord = await client(finish, server.url);
    const options = { coord, service: SERVICE, layout, logger: false, ...SHORT };
    const three = await Promise.all([1, 2, 3].map((i) => createUid({ ...options, holder: `holder-${i}` })));
    expect(new Set(three.map(({ workerId }) => workerId)).size).toBe(3);
    const error = await failure(createUid(options));
    expect(error).toBeInstanceOf(NoWorkerIdError);
    expect(error).toMatchObject({ code: 'ERR_NO_WORKER_ID', retryable: true, operation: 'createUid' });
    const holders = error.holders as string[];
    expect(holders).toHaveLength(4);
    for (const name of ['holder-1', 'holder-2', 'holder-3', `(${dies.pid})`]) {
      expect(
        holders.some((holder) => holder.includes(name)),
        name,
      ).toBe(true);
    }
    dies.kill('SIGKILL');
    const killed = Date.now();
    let fifth: Uid | undefined;
    await until('the slot to be free', async () => {
      fifth = await createUid(options).catch(() => undefined);
      return fifth;
    });
    expect(Date.now() - killed).toBeLessThan(inTime(SHORT.ttlMs + 4000));
    const runs = runsOf(file('dies'));
    expect(fifth?.next()).toBeGreaterThan(runs.at(-1)?.first as bigint);
  });

  test('a holder of the layout of Go: no number is held by both, and both read each other', async (finish) => {
    const server = await begin(finish, { version });
    const layout = layoutOf(3);
    const ids: Uid[] = [];
    const go: number[] = [];
    for (let round = 0; round < 4; round++) {
      ids.push(await made(finish, server.url, { layout }));
      // As the allocator of gochat: the first n, from 1 on, whose key is not there, under a lease, with n as its value.
      const lease = (await server.ctl('lease', 'grant', '60')).split(' ')[1] as string;
      const taken = new Set((await server.keys(`${ROOT}/ids/`)).map((key) => Number(key.split('/').at(-1))));
      let n = 1;
      while (taken.has(n)) n++;
      await server.ctl('put', `--lease=${lease}`, `${ROOT}/ids/${n}`, String(n));
      go.push(n);
    }
    const ours = ids.map(({ workerId }) => workerId || 8);
    expect(new Set([...ours, ...go]).size).toBe(8);
    for (const n of ours) {
      expect(await server.get(`${ROOT}/ids/${n}`)).toBe(String(n));
      expect(await server.leaseOf(`${ROOT}/ids/${n}`)).toBeTruthy();
      expect(await server.leaseOf(`${ROOT}/until/${n}`)).toBeFalsy();
    }
    const error = await failure(made(finish, server.url, { layout }));
    expect(error).toMatchObject({ code: 'ERR_NO_WORKER_ID' });
    expect((error.holders as string[]).filter((holder) => holder.endsWith('another program'))).toHaveLength(4);
  });
});

test('coord is closed while a worker id is on its way: it is given back', async (finish) => {
  const server = await begin(finish);
  const toxiproxy = await startToxiproxy();
  finish.onTestFinished(() => toxiproxy.close());
  const proxy = await toxiproxy.proxy(server.hosts[0] as string);
  const coord = await client(finish, `etcd://${proxy.host}`);
  await proxy.addToxic({ type: 'latency', stream: 'downstream', attributes: { latency: 500, jitter: 0 } });
  const taking = failure(createUid({ coord, service: SERVICE, ttlMs: 600_000, logger: false }));
  const held = () => server.keys(`${ROOT}/ids/`);
  await until('etcd to have it', async () => (await held()).length === 1);
  await coord.close(); // its answer is yet to come
  expect(await taking).toMatchObject({ code: 'ERR_CLOSED', operation: 'createUid' });
  expect(await held()).toEqual([]);
});

test('two clones of one state: the one whose window the other has extended takes another slot, and begins after it', async (finish) => {
  const server = await begin(finish);
  const uid = await made(finish, server.url, SHORT);
  const moved: { from: number; to: number }[] = [];
  uid.on('moved', (change) => moved.push(change));
  const n = uid.workerId || 1024;
  const before = uid.next();
  // What the clone writes: the same but for the nonce, which no two draw alike.
  const theirs = { until: Date.now() + SHORT.windowMs, nonce: 'of the clone', holder: 'the clone' };
  await server.put(`${ROOT}/until/${n}`, JSON.stringify(theirs));
  await until('it to move', () => moved.length === 1);
  expect(moved[0]?.from).toBe(n % 1024);
  expect(uid.workerId).toBe(moved[0]?.to);
  expect(uid.workerId).not.toBe(n % 1024);
  expect(uid.next()).toBeGreaterThan(before);
  expect(await untilOf(server, n), 'what the clone has is left').toBe(theirs.until);
});

test('5,000 ids in one millisecond: no two alike, in order, at most 2 ms ahead', async (finish) => {
  const server = await begin(finish);
  const uid = await made(finish, server.url);
  const now = Date.now();
  settable(finish).at(now);
  const ids = Array.from({ length: 5000 }, () => uid.next());
  expectGrowing(ids);
  expect(uid.parse(ids.at(-1) as bigint).at.getTime() - now).toBeLessThanOrEqual(2);
});

test('the clock jumps a year ahead and back: ERR_CLOCK meanwhile, and no id of the year to come', async (finish) => {
  const server = await begin(finish);
  const uid = await made(finish, server.url, SHORT);
  const { until: ended } = { until: Date.now() + HOUR };
  const clock = settable(finish);
  const before = uid.next();
  clock.by(YEAR);
  const end = performance.now() + 1000;
  while (performance.now() < end) {
    expect(() => uid.next()).toThrow(ClockError);
    await sleep(50);
  }
  clock.by(0);
  const after = uid.nextMany(10_000);
  expect(after[0]).toBeGreaterThan(before);
  expect(uid.parse(after.at(-1) as bigint).at.getTime()).toBeLessThan(ended);
  expect(uid.validUntil).toBeLessThan(ended);
});
