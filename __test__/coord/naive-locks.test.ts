// Why the hard tests of locks and cron jobs are hard; see naive.test.ts.
import { expect, test } from 'vitest';
import { within } from '../support/process.js';
import { noting } from './cron-kit.js';
import { client, failure, until } from './kit.js';
import { leaseOf } from './locks-kit.js';
import { begin, linked } from './naive-kit.js';

test('a release that deletes the key of the lock by its name takes it from who has it by then (etcd#22082)', async (finish) => {
  const { server, etcd, coord } = await begin(finish);
  const acquire = async () =>
    (await etcd.if('/toy', 'Create', '==', 0).then(etcd.put('/toy').value('mine')).commit()).succeeded;
  const release = () => etcd.delete().key('/toy');
  expect(await acquire()).toBe(true);
  await release(); // whose answer is lost
  expect(await acquire()).toBe(true);
  await release(); // so it is tried again
  expect(await server.get('/toy')).toBeNull();
  const old = await coord.lock.acquire('job');
  await old.release();
  const held = await coord.lock.acquire('job');
  await old.release();
  expect([held.isHeld, await server.keys('/locks/')]).toEqual([true, [held.key]]);
});

test('who waits for the one before it alone has a lock that it lost while it waited (etcd#16221)', async (finish) => {
  const { server, etcd, coord } = await begin(finish);
  const leases = [etcd.lease(60), etcd.lease(60)] as const;
  await leases[0].put('/toy/1').value('');
  await leases[1].put('/toy/2').value('');
  const gone: string[] = [];
  const watcher = await etcd.watch().key('/toy/1').create();
  watcher.on('delete', () => gone.push('it is my turn'));
  await leases[1].revoke();
  await leases[0].revoke();
  await until('its turn', () => gone.length === 1);
  expect(await server.keys('/toy/')).toEqual([]); // it acts, and anybody may take the lock
  const held = await coord.lock.acquire('job');
  const waits = coord.lock.acquire('job', { timeoutMs: 0 }).catch(({ code }) => code);
  await until('it to wait', async () => (await server.keys('/locks/job/')).length === 2);
  const own = (await server.keys('/locks/job/')).find((key) => key !== held.key) as string;
  await server.revoke(leaseOf({ key: own }));
  await held.release();
  expect(await waits).toBe('ERR_LOCK_LOST');
});

test('readers and writers who look first, and then count themselves in: one of each is inside', async (finish) => {
  const { etcd, coord } = await begin(finish);
  const nobody = async (of: string) => (await etcd.get(of)) === null;
  const mayEnter = { reader: await nobody('/toy/writers'), writer: await nobody('/toy/readers') };
  if (mayEnter.reader) await etcd.put('/toy/readers').value(1);
  if (mayEnter.writer) await etcd.put('/toy/writers').value(1);
  expect(mayEnter).toEqual({ reader: true, writer: true });
  const { read, write } = coord.lock.readWrite('page');
  const held = await Promise.all([read.tryAcquire(), write.tryAcquire()]);
  expect(held.filter((one) => one !== null)).toHaveLength(1);
});

test('a writer who enters where the count of readers is 0: there is always one of them', async (finish) => {
  const { server, etcd, coord } = await begin(finish);
  const count = async (by: number) => etcd.put('/toy/readers').value(Number(await etcd.get('/toy/readers')) + by);
  const enters = async () => {
    const write = etcd.put('/toy/writer').value('mine');
    return (await etcd.if('/toy/readers', 'Value', '==', 0).then(write).commit()).succeeded;
  };
  await count(+1);
  for (let later = 0; later < 5; later++) {
    expect(await enters()).toBe(false);
    await count(+1);
    await count(-1); // who was there before
  }
  expect(await enters()).toBe(false);
  const { read, write } = coord.lock.readWrite('page');
  const first = await read.acquire();
  const writes = write.acquire({ timeoutMs: 0 });
  await until('the writer to wait', async () => (await server.keys('/locks/page/')).length === 2);
  const reads = read.acquire({ timeoutMs: 0 });
  await until('the reader to wait', async () => (await server.keys('/locks/page/')).length === 3);
  await first.release();
  const writer = await within(writes, 5000, 'the writer');
  expect((await server.keys('/locks/page/')).length).toBe(2); // who came later waits
  await writer.release();
  expect((await within(reads, 5000, 'the reader')).token).toBeGreaterThan(writer.token);
});

test('a lock that lasts until a loss is told, or for so long after an answer: held, while the next one has it', async (finish) => {
  const { server, link, etcd, coord } = await linked(finish);
  const [job, other] = [await coord.lock.acquire('job', { ttlMs: 2000 }), await client(finish, server.url)];
  const toy = { isTold: false, until: 0 };
  const watcher = await etcd.watch().key('/toy').create();
  watcher.on('delete', () => {
    toy.isTold = true;
  });
  const renewals = await etcd.leaseClient.leaseKeepAlive();
  renewals.on('data', ({ TTL }) => {
    toy.until = performance.now() + Number(TTL) * 1000;
  });
  link.hold('down'); // what is asked arrives, and what is answered does not
  const lease = await server.grant(2);
  await server.put('/toy', 'mine', lease);
  renewals.write({ ID: String(BigInt(`0x${lease}`)) });
  const next = await within(other.lock.acquire('job', { timeoutMs: 0 }), 15_000, 'the next one');
  await until('the toy to be free', async () => (await server.get('/toy')) === null);
  expect([toy.isTold, job.isHeld, next.isHeld]).toEqual([false, false, true]);
  await until('the signal', () => job.signal.aborted);
  await server.put('/toy', 'that of the next');
  link.release();
  await until('the answer', () => toy.until > 0);
  expect(toy.until).toBeGreaterThan(performance.now());
  expect(job.isHeld).toBe(false);
  renewals.end();
});

test('a withLock that ends as its function does: done, though somebody else has had the lock meanwhile', async (finish) => {
  const { server, etcd, coord } = await begin(finish);
  const withLock = async (work: (lease: string) => Promise<string>) => {
    const lease = etcd.lease(60);
    await lease.put('/toy').value('mine');
    try {
      return await work(lease.id.toString(16));
    } finally {
      await lease.revoke();
    }
  };
  const toy = withLock(async (lease) => {
    await server.revoke(lease);
    const next = etcd.put('/toy').value('that of the next');
    expect((await etcd.if('/toy', 'Create', '==', 0).then(next).commit()).succeeded).toBe(true);
    return 'done';
  });
  expect(await toy).toBe('done');
  const lost = coord.lock.withLock('job', async (held) => {
    await server.revoke(leaseOf(held));
    const next = await coord.lock.acquire('job');
    await next.release();
    await until('the loss', () => !held.isHeld);
    return 'done';
  });
  expect(await failure(lost)).toMatchObject({ code: 'ERR_LOCK_LOST' });
});

test('a lock around each tick of a job: who comes to it later runs it again', async (finish) => {
  const { etcd, coord } = await begin(finish);
  const ahead = noting(coord, 'job', { now: () => Date.now() + 3000 });
  await until('a tick', () => ahead.ran.length > 0);
  await ahead.job.stop();
  const tick = ahead.ran.at(-1)?.at as number;
  const toy: number[] = [];
  const run = async () => {
    const claim = etcd.put(`/toy/${tick}`).value('mine');
    const { succeeded } = await etcd.if(`/toy/${tick}`, 'Create', '==', 0).then(claim).commit();
    if (!succeeded) return;
    toy.push(tick);
    await etcd.delete().key(`/toy/${tick}`);
  };
  await run(); // of whom the clock is ahead
  await run(); // of whom it is right
  expect(toy).toEqual([tick, tick]);
  const began = Date.now();
  const right = noting(coord, 'job', { now: () => tick - 200 + Date.now() - began });
  await until('the next tick', () => right.ran.length > 0);
  await right.job.stop();
  expect(right.ran[0]).toMatchObject({ at: tick + 1000, missed: [] });
});
