// What befalls holders and etcd, and what becomes of the locks. SIZE=full is the size of `make hard`.
import { setTimeout as sleep } from 'node:timers/promises';
import { defineConfig, type Held, LockLostError } from 'rollcall/coord';
import { Etcd3 } from 'rollcall/etcd';
import { describe, expect, test } from 'vitest';
import { etcdctl } from '../etcd/recipes.js';
import { ETCD_VERSIONS, type EtcdCluster, startEtcd } from '../support/etcd.js';
import { inTime, said, within } from '../support/process.js';
import { startTcpProxy } from '../support/tcp.js';
import { client, type Finish, FULL, failure, limits, until } from './kit.js';
import { expectAtMost, holder, intervals, leaseOf } from './locks-kit.js';

const minutes = (count: number) => count * 60_000;

async function begin(finish: Finish, options: Parameters<typeof startEtcd>[0] = {}): Promise<EtcdCluster> {
  const server = await startEtcd(options);
  finish.onTestFinished(() => server.close());
  return server;
}

/** Every token that was written to a register, in the order of etcd. */
async function register(finish: Finish, server: EtcdCluster, key: string): Promise<bigint[]> {
  const etcd = new Etcd3({ hosts: [...server.hosts] });
  finish.onTestFinished(() => etcd.close());
  const tokens: bigint[] = [];
  const watcher = await etcd.watch().key(key).create();
  watcher.on('put', ({ value }) => tokens.push(BigInt(value.toString())));
  return tokens;
}

function expectGrowing(tokens: readonly bigint[]): void {
  for (const [i, token] of tokens.entries()) {
    if (i > 0) expect(token, `the token of write ${i}`).toBeGreaterThanOrEqual(tokens[i - 1] as bigint);
  }
}

describe.each(ETCD_VERSIONS)('etcd %s', (version) => {
  test('a lock that is free takes two questions, whatever its kind; one that is not is refused after as many', async (finish) => {
    const server = await begin(finish, { version });
    const coord = await client(finish, server.url);
    const METHODS = ['LeaseGrant', 'Txn', 'Range', 'Put'];
    const cost = async (work: () => Promise<unknown>) => {
      const before = await Promise.all(METHODS.map((method) => server.calls(method)));
      await work();
      const after = await Promise.all(METHODS.map((method) => server.calls(method)));
      return Object.fromEntries(METHODS.map((method, i) => [method, (after[i] as number) - (before[i] as number)]));
    };
    const { read, write } = coord.lock.readWrite('page');
    for (const lock of [
      coord.lock.mutex('job'),
      coord.lock.semaphore('pool', 3),
      read,
      read,
      coord.lock.semaphore('pool', 3),
    ]) {
      expect(await cost(() => lock.acquire())).toEqual({ LeaseGrant: 1, Txn: 1, Range: 0, Put: 0 });
    }
    const refused = () => write.tryAcquire().then((held) => expect(held).toBeNull());
    expect(await cost(refused)).toEqual({ LeaseGrant: 1, Txn: 1, Range: 0, Put: 0 });
  });

  test('etcdctl lock, which is concurrency.Mutex of Go, and a mutex exclude each other', async (finish) => {
    const server = await begin(finish, { version });
    const coord = await client(finish, server.url);
    const held = await coord.lock.acquire('job', { name: 'ours' });
    expect(await server.get(held.key)).toBe('ours');
    expect(await server.leaseOf(held.key)).toBe(leaseOf(held));
    const ctl = etcdctl(finish, server, 'lock', '/locks/job', '--', 'sh', '-c', 'echo "{\\"has\\": true}"; sleep 1');
    await until('etcdctl to wait', async () => (await server.keys('/locks/job/')).length === 2);
    const third = coord.lock.acquire('job', { timeoutMs: 0 });
    await until('all to wait', async () => (await server.keys('/locks/job/')).length === 3);
    expect(await coord.lock.tryAcquire('job')).toBeNull();
    expect(ctl.seen).toEqual([]);
    await held.release();
    await ctl.line((line) => line.has === true, { what: 'etcdctl to hold the lock' });
    expect(await coord.lock.tryAcquire('job')).toBeNull();
    const last = await within(third, 5000, 'the end of etcdctl');
    expect(last.token).toBeGreaterThan(held.token);
    await last.release();
    expect(await server.keys('/locks/')).toEqual([]);
    const leases = await server.leases();
    for (const one of [held, last]) expect(leases).not.toContain(leaseOf(one));
  });

  test('a key that is deleted, a lease that is revoked: told, and somebody else has it', async (finish) => {
    const server = await begin(finish, { version });
    const [coord, other] = [await client(finish, server.url), await client(finish, server.url)] as const;
    for (const [kind, end] of [
      ['deleted', (held: Held) => server.del(held.key)],
      ['revoked', (held: Held) => server.revoke(leaseOf(held))],
    ] as const) {
      const held = await coord.lock.acquire(kind);
      const next = other.lock.acquire(kind, { timeoutMs: 0 });
      await until('the other to wait', async () => (await server.keys(`/locks/${kind}/`)).length === 2);
      await end(held);
      await until('the signal', () => held.signal.aborted);
      expect(held.isHeld).toBe(false);
      expect(held.signal.reason).toMatchObject({ code: 'ERR_LOCK_LOST', token: held.token, key: held.key });
      expect((await within(next, 5000, 'the other')).token).toBeGreaterThan(held.token);
      await held.release();
    }
  });

  test('the lease of a waiting writer is revoked, then the holder leaves: the writer does not get it (etcd#16221)', async (finish) => {
    const server = await begin(finish, { version });
    const coord = await client(finish, server.url);
    const { read, write } = coord.lock.readWrite('page');
    const holds = await write.acquire();
    const waits = failure(write.acquire({ timeoutMs: 0 }));
    await until('it to wait', async () => (await server.keys('/locks/page/w-')).length === 2);
    const key = (await server.keys('/locks/page/w-')).find((one) => one !== holds.key) as string;
    await server.revoke(key.slice(key.lastIndexOf('-') + 1));
    await holds.release();
    expect(await waits).toMatchObject({ code: 'ERR_LOCK_LOST' });
    const reader = await read.acquire();
    expect(await write.tryAcquire()).toBeNull();
    await reader.release();
  });

  test('withLock that loses in the middle rejects, though its function resolves', async (finish) => {
    const server = await begin(finish, { version });
    const coord = await client(finish, server.url);
    const lost = coord.lock.withLock('job', async (held) => {
      await server.revoke(leaseOf(held));
      await until('the loss', () => !held.isHeld);
      return 'done';
    });
    expect(await failure(lost)).toBeInstanceOf(LockLostError);
  });

  test('the answer of a release is lost, and the lock acquired anew: the old release takes nothing of it (etcd#22082)', async (finish) => {
    const server = await begin(finish, { version });
    const link = await startTcpProxy(server.hosts[0] as string);
    finish.onTestFinished(() => link.close());
    const coord = await client(finish, `etcd://${link.host}`, { timeoutMs: 2000 });
    for (let round = 0; round < (FULL ? 20 : 3); round++) {
      const held = await coord.lock.acquire('job', { timeoutMs: 10_000 });
      const lost = link.loseNextAnswer();
      const released = held.release().catch(() => {});
      await lost;
      const again = await coord.lock.acquire('job', { timeoutMs: 10_000 });
      await released;
      await held.release().catch(() => {});
      expect([again.isHeld, await server.keys('/locks/')]).toEqual([true, [again.key]]);
      expect(again.token).toBeGreaterThan(held.token);
      await again.release();
    }
  });

  test('etcd is frozen while a lock is held: told before its time to live after the last renewal that was sent', async (finish) => {
    const server = await begin(finish, { version });
    const coord = await client(finish, server.url);
    const held = await coord.lock.acquire('job', { ttlMs: 3000 });
    // The deadline as the server has it begins when it gets what was sent; so it is not before ours.
    const frozen = performance.now();
    server.freeze();
    finish.onTestFinished(() => server.thaw());
    const limit = frozen + held.remainingMs;
    await until('the signal', () => held.signal.aborted);
    expect(performance.now()).toBeLessThan(limit + inTime(300));
    expect(limit - frozen).toBeLessThanOrEqual(3000);
    server.thaw();
    await until('its lease to be ended', async () => (await server.leases()).length === 0);
  });
});

test('a holder is stopped past its time: the next gets it, the first thing the old one says is the loss, and its write is refused', async (finish) => {
  const server = await begin(finish);
  const order = { url: server.url, key: 'job', ttlMs: 2000, register: '/register' };
  const written = await register(finish, server, '/register');
  const old = holder(finish, order);
  const first = await said(old, 'held');
  process.kill(old.pid, 'SIGSTOP');
  const next = holder(finish, order);
  const second = await said(next, 'held');
  expect(BigInt(second.token as string)).toBeGreaterThan(BigInt(first.token as string));
  await until('a write of the next', () => written.at(-1) === BigInt(second.token as string));
  const seen = old.seen.length;
  process.kill(old.pid, 'SIGCONT');
  await said(old, 'lost');
  const after = old.seen.slice(seen);
  expect(after.filter(({ event, acts }) => event === 'held' || event === 'acts' || acts === true)).toEqual([]);
  const refused = await old.line(({ event, succeeded }) => event === 'refusedWrite' && succeeded === false);
  expect(refused.token).toBe(first.token);
  await until('more writes', () => written.length > 20);
  expectGrowing(written);
});

test('three permits among five processes, and two that hold are killed: never four, and three again', async (finish) => {
  const server = await begin(finish);
  const order = { url: server.url, key: 'pool', kind: 'semaphore' as const, permits: 3, ttlMs: 2000 };
  const began = Date.now();
  const all = Array.from({ length: 5 }, () => ({ script: holder(finish, order), end: Number.POSITIVE_INFINITY }));
  const held = () =>
    all.filter(({ script, end }) => end > Date.now() && script.seen.some(({ event }) => event === 'held'));
  await until('three to hold', () => held().length === 3);
  for (const one of held().slice(0, 2)) {
    one.end = Date.now();
    one.script.kill('SIGKILL');
  }
  const killed = Date.now();
  await until('three to hold again', () => held().length === 3);
  expect(Date.now() - killed).toBeLessThan(inTime(2000 + 2000));
  expect(
    all.filter(({ script, end }) => end > Date.now() && script.seen.some(({ event }) => event === 'held')),
  ).toHaveLength(3);
  const now = Date.now();
  expectAtMost(
    3,
    all.flatMap(({ script, end }, i) => intervals(`${i}`, script.seen, Math.min(end, now))),
  );
  expect(began).toBeLessThan(killed);
});

test('permits 3, 1, 5 by configuration: never more hold, who waits goes by the latest number, and who holds by its own', async (finish) => {
  const server = await begin(finish);
  const coords = [await client(finish, server.url), await client(finish, server.url)] as const;
  const key = '/config/dev/orders/permits';
  const definition = defineConfig({ key, schema: limits, default: { max: 3 } });
  const pools = await Promise.all(
    coords.map(async ({ config, lock }) => {
      const ref = await config.open(definition);
      return {
        ref,
        semaphore: lock.semaphore(
          'pool',
          ref.select(({ max }) => max),
        ),
      };
    }),
  );
  const set = async (max: number) => {
    await coords[0].config.set(key, { max });
    await until(`${max}`, () => pools.every(({ ref }) => ref.value.max === max));
  };
  let [holding, most, turns, stopped] = [0, 0, 0, false];
  // One that does not outlive this: how many began to wait under which number.
  const began = new Map<number, number>();
  const works = async (i: number) => {
    const { semaphore, ref } = pools[i % 2] as (typeof pools)[number];
    while (!stopped) {
      const number = ref.value.max;
      began.set(number, (began.get(number) ?? 0) + 1);
      await semaphore.withLock(
        async () => {
          most = Math.max(most, ++holding);
          await sleep(5 + Math.random() * 10);
          holding--;
          turns++;
        },
        { timeoutMs: 0 },
      );
      began.set(number, (began.get(number) as number) - 1);
    }
  };
  const working = Promise.all(Array.from({ length: 12 }, (_, i) => works(i)));
  const reached = async (number: number, rounds: number) => {
    // Those who began by another number are through.
    await until('the others', () => [...began].every(([one, count]) => one === number || count === 0));
    const from = turns;
    most = holding;
    await until('turns', () => turns - from >= rounds);
    return most;
  };
  const rounds = FULL ? 200 : 50;
  expect(await reached(3, rounds)).toBe(3);
  for (let round = 0; round < (FULL ? 3 : 1); round++) {
    await set(1);
    expect(await reached(1, rounds)).toBe(1);
    await set(5);
    expect(await reached(5, rounds)).toBe(5);
  }
  stopped = true;
  await working;
  // Who waits by 1 is let in when the number is raised, and lowering it takes nothing away.
  await set(1);
  const semaphore = pools[0]?.semaphore as NonNullable<(typeof pools)[0]>['semaphore'];
  const first = await semaphore.acquire();
  const waits = [semaphore.acquire({ timeoutMs: 0 }), semaphore.acquire({ timeoutMs: 0 })];
  await until('both to wait', async () => (await server.keys('/locks/pool/')).length === 3);
  await set(5);
  const held = [first, ...(await within(Promise.all(waits), 5000, 'who waited by 1'))];
  await set(1);
  expect(await semaphore.tryAcquire()).toBeNull();
  expect(held.map(({ isHeld }) => isHeld)).toEqual([true, true, true]);
  for (const one of held) await one.release();
}, 300_000);

test(
  'readers and writers: never a reader beside a writer, and a writer waits for those before it alone',
  async (finish) => {
    const server = await begin(finish);
    const readers = FULL ? 50 : 8;
    const untilAt = Date.now() + (FULL ? 30_000 : 3000);
    const coords = [await client(finish, server.url), await client(finish, server.url)];
    let [reading, writing, reads, writes, wrong, overtaken] = [0, 0, 0, 0, 0, 0];
    const tokens: bigint[] = [];
    let youngest = 0n; // of the readers who have been in
    const read = async (i: number) => {
      const lock = coords[i % 2]?.lock.readWrite('page').read;
      while (Date.now() < untilAt) {
        await lock?.withLock(
          async ({ token }) => {
            reading++;
            if (writing > 0) wrong++;
            if (token > youngest) youngest = token;
            await sleep(Math.random() * 20);
            reading--;
            reads++;
          },
          { timeoutMs: 0 },
        );
      }
    };
    const write = async () => {
      const lock = coords[0]?.lock.readWrite('page').write;
      while (Date.now() < untilAt) {
        await lock?.withLock(
          async ({ token }) => {
            writing++;
            if (writing > 1 || reading > 0) wrong++;
            if (youngest > token) overtaken++;
            tokens.push(token);
            await sleep(5);
            writing--;
            writes++;
          },
          { timeoutMs: 0 },
        );
        await sleep(100);
      }
    };
    await Promise.all([...Array.from({ length: readers }, (_, i) => read(i)), write(), write()]);
    expect([wrong, overtaken]).toEqual([0, 0]);
    expect(
      [reads, writes].every((count) => count > 5),
      `${reads} reads, ${writes} writes`,
    ).toBe(true);
    expectGrowing(tokens);
  },
  minutes(2),
);

test(
  'processes that are killed, stopped and cut off: nobody holds beside another, tokens grow, no late write gets through',
  async (finish) => {
    const server = await begin(finish);
    const span = FULL ? 60_000 : 7000;
    const count = FULL ? 12 : 4;
    const written = await register(finish, server, '/register');
    const links = await Promise.all(
      Array.from({ length: count }, async () => {
        const link = await startTcpProxy(server.hosts[0] as string);
        finish.onTestFinished(() => link.close());
        return link;
      }),
    );
    const start = (i: number) => ({
      link: links[i] as (typeof links)[number],
      end: Number.POSITIVE_INFINITY,
      script: holder(finish, {
        url: `etcd://${links[i]?.host}`,
        key: 'job',
        ttlMs: 2000,
        register: '/register',
        loops: true,
      }),
    });
    const all = links.map((_, i) => start(i));
    await Promise.all(all.map(({ script }) => said(script, 'held')));
    const until = Date.now() + span;
    while (Date.now() < until) {
      const ctl = etcdctl(
        finish,
        server,
        'lock',
        '/locks/job',
        '--',
        'sh',
        '-c',
        'echo "{\\"has\\": true}"; sleep 0.1',
      );
      const i = Math.floor(Math.random() * count);
      const victim = all.findLast(({ link }) => link === links[i]) as (typeof all)[number];
      const what = Math.floor(Math.random() * 3);
      if (what === 0) {
        victim.script.kill('SIGKILL');
        victim.end = Date.now();
        all.push(start(i));
      } else if (what === 1) {
        process.kill(victim.script.pid, 'SIGSTOP');
        await sleep(2500);
        process.kill(victim.script.pid, 'SIGCONT');
      } else {
        victim.link.setEnabled(false);
        await sleep(Math.random() * 2500);
        victim.link.setEnabled(true);
      }
      await ctl.line((line) => line.has === true, { what: 'etcdctl to get its turn' });
    }
    for (const { script } of all) script.kill('SIGKILL');
    const now = Date.now();
    const held = all.flatMap(({ script, end }, i) => intervals(`${i}`, script.seen, Math.min(end, now)));
    // A process that was stopped says that it stops when it goes on; what it says of the time before is not to be had from it.
    const stopped = (who: string) => all[Number(who)]?.script.seen.some(({ event }) => event === 'woke');
    expectAtMost(
      1,
      held.filter(({ who }) => !stopped(who)),
    );
    expect(held.length).toBeGreaterThan(10);
    expect(written.length).toBeGreaterThan(10);
    expectGrowing(written);
    for (const { script } of all) {
      const stops = script.seen.filter(({ event, silent }) => event === 'woke' && (silent as number) > 2100);
      for (const { acts } of stops) expect(acts, 'the first look after a stop').toBe(false);
    }
  },
  minutes(3),
);
