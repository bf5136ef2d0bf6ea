/** Locks: etcd3's, and the one with a queue. */

import { Etcd3 as Theirs } from 'etcd3';
import {
  Etcd3,
  EtcdLeaseInvalidError,
  EtcdLockFailedError,
  GRPCCancelledError,
  GRPCDeadlineExceededError,
  type Mutex,
} from 'rollcall/etcd';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ETCD_VERSIONS, type EtcdCluster, startEtcd } from '../support/etcd.js';
import { said, uniqueName, waitFor, within } from '../support/process.js';
import { block, candidate, connect, etcdctl, gone } from './recipes.js';

describe.each(ETCD_VERSIONS)('etcd %s', (version) => {
  let etcd: EtcdCluster;
  beforeAll(async () => {
    etcd = await startEtcd({ version });
  });
  afterAll(() => etcd.close());

  /** Both kinds with the same face. */
  const kinds: [string, (client: Etcd3, key: string, ttl?: number) => Mutex][] = [
    ['Lock', (client, key, ttl = 10) => client.lock(key).ttl(ttl) as unknown as Mutex],
    ['Mutex', (client, key, ttl = 10) => client.mutex(key, { ttl })],
  ];

  it.for(kinds)('%s: of two acquire() at once one is refused, and release() gives back', async ([, make], test) => {
    const client = connect(test, etcd.hosts);
    for (let round = 0; round < 5; round++) {
      const key = uniqueName();
      const lock = make(client, key, 30);
      const settled = await Promise.allSettled([lock.acquire(), lock.acquire()]);
      expect(settled.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
      expect(lock.isHeld).toBe(true);
      await lock.release();
      expect(await client.getAll().prefix(key).keys()).toEqual([]);
    }
  });

  it('takes and refuses as etcd3 does, and etcd3 with it', async (test) => {
    const client = connect(test, etcd.hosts);
    const theirs = new Theirs({ hosts: etcd.hosts as string[] });
    test.onTestFinished(() => theirs.close());
    const key = uniqueName();
    const lock = client.lock(key);
    expect(await lock.leaseId()).toBeNull();
    expect(() => lock.release()).toThrow('Attempted to release a lock which was not acquired');
    expect(await lock.acquire()).toBe(lock);
    expect(() => lock.ttl(5)).toThrow('Cannot set a lock TTL after acquiring the lock');
    const { kvs } = await client.get(key).exec();
    expect(kvs[0]?.value.toString()).toBe('');
    expect(await lock.leaseId()).toBe(kvs[0]?.lease);
    expect(lock.revision).toBe(BigInt(kvs[0]?.create_revision as string));
    await expect(theirs.lock(key).acquire()).rejects.toThrow(`Failed to acquire a lock on ${key}`);
    await expect(client.lock(key).acquire()).rejects.toThrow(EtcdLockFailedError);
    await expect(lock.acquire(), 'of itself').rejects.toThrow(`Failed to acquire a lock on ${key}`);
    expect(lock.isHeld).toBe(true);
    await Promise.all([lock.release(), lock.release()]);
    expect(await client.get(key)).toBeNull();
    const other = theirs.lock(key);
    await other.acquire();
    await expect(lock.acquire()).rejects.toThrow(EtcdLockFailedError);
    await lock.release();
    await other.release();
    await lock.acquire(); // again, with another lease
    await lock.release();
  });

  it('runs a function under the lock and tells what it tells', async (test) => {
    const client = connect(test, etcd.hosts);
    for (const [, make] of kinds) {
      const key = uniqueName();
      const seen = await make(client, key).do(async (signal) => {
        expect(signal.aborted).toBe(false);
        expect(
          await make(client, key)
            .acquire({ timeoutMs: 100 })
            .catch((error) => error),
        ).toBeInstanceOf(Error);
        return 'value';
      });
      expect(seen).toBe('value');
      const failure = new Error('from inside');
      await expect(make(client, key).do(() => Promise.reject(failure))).rejects.toBe(failure);
      await gone(etcd, key);
    }
  });

  it('says by signal, by error and by the clock that it is lost', async (test) => {
    const client = connect(test, etcd.hosts);
    for (const [, make] of kinds) {
      for (const harm of ['revoke', 'delete'] as const) {
        const lock = make(client, uniqueName(), 60);
        await lock.do(async (signal) => {
          const [key] = await etcd.keys(String((lock.guard().key as Buffer).toString()));
          if (harm === 'revoke') await etcd.revoke((await etcd.leaseOf(key as string)) as string);
          else await etcd.del(key as string);
          await waitFor(() => signal.aborted);
          expect(signal.reason).toBeInstanceOf(harm === 'revoke' ? EtcdLeaseInvalidError : EtcdLockFailedError);
          expect(lock.isHeld).toBe(false);
          const write = await client.if(lock.guard()).then(client.put('x').value(1)).commit();
          expect(write.succeeded).toBe(false);
        });
      }
    }
  });

  it('serves who waits in turn: no update is lost, and tokens grow', async (test) => {
    const key = uniqueName();
    const turns: bigint[] = [];
    const worker = async (client: Etcd3) => {
      for (let i = 0; i < 10; i++) {
        const mutex = client.mutex(key, { ttl: 10 });
        await mutex.do(async () => {
          const before = Number((await client.get(`${key}-n`)) ?? 0);
          turns.push(mutex.revision as bigint);
          await client
            .if(mutex.guard())
            .then(client.put(`${key}-n`).value(before + 1))
            .commit();
        });
      }
    };
    const clients = [1, 2, 3].map(() => connect(test, etcd.hosts));
    await Promise.all([...clients, ...clients].map(worker));
    expect(await etcd.get(`${key}-n`)).toBe('60');
    expect(turns).toEqual([...turns].sort((a, b) => (a < b ? -1 : 1)));
    expect(await etcd.keys(`${key}/`)).toEqual([]);
  });

  it('excludes etcdctl lock, and is excluded by it', async (test) => {
    const client = connect(test, etcd.hosts);
    const name = uniqueName();
    const held = await client.mutex(name, { ttl: 10 }).acquire();
    expect(held.key).toBe(`${name}/${held.leaseId?.toString(16)}`);
    const ctl = etcdctl(test, etcd, 'lock', name, '--', 'sh', '-c', 'echo "{\\"has\\": true}"; sleep 1');
    await waitFor(async () => (await etcd.keys(`${name}/`)).length === 2);
    const third = client.mutex(name, { ttl: 10 });
    const waits = third.acquire();
    await waitFor(async () => (await etcd.keys(`${name}/`)).length === 3);
    expect(ctl.seen).toEqual([]);
    await held.release();
    await ctl.line((line) => line.has === true, { what: 'etcdctl to hold the lock' });
    expect(third.isHeld).toBe(false);
    await within(waits, 5000, 'the end of etcdctl');
    expect(third.revision).toBeGreaterThan(held.revision as bigint);
    await third.release();
  });

  it('waits for no key that is no candidate, as etcdctl lock does', async (test) => {
    const client = connect(test, etcd.hosts);
    const name = uniqueName();
    const below = await client.mutex(`${name}/eu`).acquire();
    await client.put(`${name}/readme`).value('text');
    const held = await within(client.mutex(name).acquire(), 5000, 'the lock');
    const ctl = etcdctl(test, etcd, 'lock', name, '--', 'echo', '{"has": true}');
    await waitFor(async () => (await etcd.keys(`${name}/`)).length === 4);
    const third = client.mutex(name);
    const waits = third.acquire();
    await waitFor(async () => (await etcd.keys(`${name}/`)).length === 5);
    await held.release();
    await client.put(`${name}/x`).value(''); // time for etcdctl to hear of it
    expect([ctl.seen, third.isHeld], 'etcdctl waits, and we for etcdctl').toEqual([[], false]);
    await client.delete().key(`${name}/readme`);
    await below.release();
    await ctl.line((line) => line.has === true, { what: 'etcdctl to hold the lock' });
    await within(waits, 5000, 'the end of etcdctl');
    await third.release();
  });

  it('gives its place back when its time is over, its signal fires, or it is released', async (test) => {
    const client = connect(test, etcd.hosts);
    const key = uniqueName();
    const held = await client.mutex(key).acquire();
    await expect(client.mutex(key).acquire({ timeoutMs: 200 })).rejects.toThrow(GRPCDeadlineExceededError);
    const abort = new AbortController();
    const reason = new Error('enough');
    const aborted = expect(client.mutex(key).acquire({ signal: abort.signal })).rejects.toMatchObject({
      name: 'AbortError',
      cause: reason,
    });
    const released = client.mutex(key);
    const given = expect(released.acquire()).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await waitFor(async () => (await etcd.keys(`${key}/`)).length === 3);
    await expect(released.acquire(), 'twice at once').rejects.toThrow(EtcdLockFailedError);
    abort.abort(reason);
    await aborted;
    await expect(client.mutex(key).acquire({ signal: abort.signal })).rejects.toMatchObject({ cause: reason });
    await released.release();
    await given;
    expect(await client.mutex(key).tryAcquire()).toBe(false);
    await waitFor(async () => (await etcd.keys(`${key}/`)).length === 1);
    await held.release();
    const other = client.mutex(key);
    expect(await other.tryAcquire()).toBe(true);
    await other[Symbol.asyncDispose]();
    expect(await etcd.keys(key)).toEqual([]);
  });

  it('goes on with a lock by its lease', async (test) => {
    const [one, two] = [connect(test, etcd.hosts), connect(test, etcd.hosts)];
    const key = uniqueName();
    const held = await one.mutex(key).acquire();
    const again = await two.mutex(key).attach(held.leaseId as bigint);
    expect([again.revision, again.key]).toEqual([held.revision, held.key]);
    await again.release();
    await waitFor(() => held.signal.aborted);
    await expect(two.mutex(key).attach('12345')).rejects.toThrow();
    expect(await etcd.keys(key)).toEqual([]);
  });

  it('survives a blocked thread of 5 s with a time to live of 2 s', async (test) => {
    const client = connect(test, etcd.hosts);
    const locks = kinds.map(([, make]) => make(client, uniqueName(), 2));
    await Promise.all(locks.map((lock) => lock.acquire()));
    block(5000);
    expect(locks.map((lock) => lock.isHeld)).toEqual([true, true]);
    await Promise.all(locks.map((lock) => lock.release()));
  });

  it('is given up for a blocked thread that is to give up, and stays lost', async (test) => {
    const client = connect(test, etcd.hosts);
    const [key, name] = [uniqueName(), uniqueName()];
    const lock = await client.lock(key).options({ stallTimeoutMs: 500 }).acquire();
    const mutex = await client.mutex(name, { stallTimeoutMs: 500 }).acquire();
    block(1500);
    expect([lock.isHeld, mutex.isHeld]).toEqual([false, false]);
    await waitFor(() => lock.signal.aborted && mutex.signal.aborted);
    expect(mutex.signal.reason.message).toContain('silent');
    await gone(etcd, key);
    await gone(etcd, name);
  });

  it('is not acquired by a thread that hears of it when it is lost already', async (test) => {
    const client = connect(test, etcd.hosts);
    const options = { stallTimeoutMs: 500 };
    const [key, name] = [uniqueName(), uniqueName()];
    const refused = [client.lock(key).options(options).acquire(), client.mutex(name, options).acquire()].map(
      (acquired) => expect(acquired).rejects.toMatchObject({ name: 'EtcdLeaseInvalidError' }),
    );
    block(1500);
    await Promise.all(refused);
    await gone(etcd, key);
    await gone(etcd, name);
  });

  it('is lost to a process that was stopped, before it acts', async (test) => {
    const name = uniqueName();
    const order = { hosts: etcd.hosts, name, ttl: 2, mode: 'mutex' } as const;
    const old = candidate(test, order);
    await said(old, 'acts');
    old.kill('SIGSTOP');
    const client = connect(test, etcd.hosts);
    const next = await within(client.mutex(name).acquire(), 10_000, 'the next holder');
    const woken = Date.now();
    old.kill('SIGCONT');
    expect((await said(old, 'woke', woken)).acts).toBe(false);
    await said(old, 'stops', woken);
    expect((await said(old, 'error', woken)).name).toBe('EtcdLeaseInvalidError');
    old.send({ write: `${name}-w` });
    expect((await said(old, 'wrote')).succeeded).toBe(false);
    expect(old.seen.filter(({ event, at }) => event === 'acts' && at >= woken)).toEqual([]);
    await next.release();
  });

  it('is released with its client', async () => {
    const client = new Etcd3({ hosts: [...etcd.hosts] });
    const key = uniqueName();
    const [lock, mutex] = [client.lock(key), client.mutex(key)];
    await Promise.all([lock.acquire(), mutex.acquire()]);
    const waits = client.mutex(key).acquire();
    waits.catch(() => {});
    await waitFor(async () => (await etcd.keys(key)).length === 3);
    await within(client.close(), 2000, 'close');
    await expect(waits).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    expect([lock.isHeld, mutex.isHeld, mutex.signal.aborted]).toEqual([false, false, false]);
    await gone(etcd, key);
    await expect(client.lock(key).acquire()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });

  it('honours the options of its calls', async (test) => {
    const client = connect(test, etcd.hosts);
    const past = client.lock(uniqueName()).options({ deadline: Date.now() - 1000 });
    await expect(past.acquire()).rejects.toThrow(GRPCDeadlineExceededError);
    const fired = client.lock(uniqueName()).options({ signal: AbortSignal.abort() });
    await expect(fired.acquire()).rejects.toThrow(GRPCCancelledError);
    await past.release(); // there is nothing, and that is fine
  });
});

it('goes through a mock as etcd3 does', async (test) => {
  const client = connect(test, ['127.0.0.1:1']);
  const calls: string[] = [];
  let succeeded = true;
  client.mock({
    exec: async (service: string, method: string) => {
      calls.push(`${service}.${method}`);
      return { ID: '7', TTL: '30', succeeded, header: { revision: '5' }, responses: [] } as never;
    },
  });
  const lock = client.lock('a');
  expect(await lock.do(() => [lock.revision, lock.isHeld])).toEqual([5n, true]);
  expect(calls).toEqual(['Lease.leaseGrant', 'KV.txn', 'Lease.leaseRevoke']);
  succeeded = false;
  await expect(client.lock('a').acquire()).rejects.toThrow('Failed to acquire a lock on a');
  expect(calls.slice(3)).toEqual(['Lease.leaseGrant', 'KV.txn', 'Lease.leaseRevoke']);
});
