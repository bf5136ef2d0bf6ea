// Locks, the same on every store: who waits for whom, what is told, and what is left.
import { type Coord, type Held, LockLostError } from 'rollcall/coord';
import { describe, expect, test } from 'vitest';
import { changing } from '../support/changing.js';
import { inTime, uniqueName, within } from '../support/process.js';
import { client, failure, HOLDING, placed, until } from './kit.js';

describe.each(HOLDING)('%s', (_, start) => {
  const place = placed(start);

  test('a mutex is held by one at a time, first come, first served, and its tokens grow', async (finish) => {
    const clients = [await client(finish, place.url), await client(finish, place.url)] as const;
    const key = uniqueName();
    const lock = clients[0].lock.mutex(key);
    const first = await lock.acquire();
    expect([first.isHeld, first.signal.aborted, lock.path]).toEqual([true, false, `/locks/${key}`]);
    expect(first.key).toMatch(new RegExp(`^/locks/${key}/[0-9a-f]+$`));
    expect(first.remainingMs).toBeGreaterThan(5000);
    expect(first.remainingMs).toBeLessThanOrEqual(15_000);
    const order: string[] = [];
    const waits: Promise<Held>[] = [];
    for (const name of ['a', 'b', 'c', 'd']) {
      const coord = clients[order.length % 2] as Coord;
      waits.push(
        coord.lock.acquire(key, { timeoutMs: 0, name }).then((held) => {
          order.push(name);
          return held;
        }),
      );
      // Not to be overtaken on the way.
      expect(await failure(coord.lock.acquire(key, { timeoutMs: 150 }))).toMatchObject({ code: 'ERR_TIMEOUT' });
    }
    expect(order).toEqual([]);
    let before = first;
    for (const wait of waits) {
      await before.release();
      expect([before.isHeld, before.remainingMs, before.signal.aborted]).toEqual([false, 0, false]);
      const held = await within(wait, 5000, 'the next');
      expect(held.token).toBeGreaterThan(before.token);
      before = held;
    }
    expect(order).toEqual(['a', 'b', 'c', 'd']);
    await before.release();
    await before.release();
  });

  test('who may not wait is told at once, and leaves no place behind', async (finish) => {
    const coord = await client(finish, place.url);
    const key = uniqueName();
    const held = await coord.lock.tryAcquire(key);
    expect(held?.isHeld).toBe(true);
    expect(await coord.lock.tryAcquire(key)).toBeNull();
    expect(await coord.lock.mutex(key).tryAcquire()).toBeNull();
    await held?.release();
    const again = (await coord.lock.tryAcquire(key)) as Held;
    expect(again.token).toBeGreaterThan(held?.token as bigint);
    await again.release();
  });

  test('a place is given back when its time is over, or its signal fires', async (finish) => {
    const coord = await client(finish, place.url);
    const key = uniqueName();
    const held = await coord.lock.acquire(key);
    expect(await failure(coord.lock.acquire(key, { timeoutMs: 100 }))).toMatchObject({
      code: 'ERR_TIMEOUT',
      operation: 'acquire',
      message: `acquire: /locks/${key}: it was not free in the time given`,
    });
    const abort = new AbortController();
    const reason = new Error('enough');
    const waits = failure(coord.lock.acquire(key, { timeoutMs: 0, signal: abort.signal }));
    setTimeout(() => abort.abort(reason), 50);
    expect(await waits).toMatchObject({ code: 'ERR_ABORTED', cause: reason });
    expect(await failure(coord.lock.acquire(key, { signal: abort.signal }))).toMatchObject({ code: 'ERR_ABORTED' });
    await held.release();
    await (await coord.lock.acquire(key)).release();
  });

  test('withLock gives what its function gives, throws what it throws, and releases', async (finish) => {
    const coord = await client(finish, place.url);
    const key = uniqueName();
    let seen: Held | undefined;
    const value = await coord.lock.withLock(key, async (held) => {
      seen = held;
      expect(await coord.lock.tryAcquire(key)).toBeNull();
      return 7;
    });
    expect([value, seen?.isHeld]).toEqual([7, false]);
    const thrown = new Error('mine');
    const failed = coord.lock.mutex(key).withLock(() => {
      throw thrown;
    });
    expect(await failure(failed)).toBe(thrown);
    await coord.lock.withLock(key, () => {});
  });

  test('readers share, a writer is alone, and those who come later do not overtake it', async (finish) => {
    const coord = await client(finish, place.url);
    const { read, write } = coord.lock.readWrite(uniqueName());
    const [one, two] = [await read.acquire(), await read.acquire()] as const;
    expect(await write.tryAcquire()).toBeNull();
    const order: string[] = [];
    const wait = (lock: typeof read, name: string) =>
      lock.acquire({ timeoutMs: 0 }).then((held) => {
        order.push(name);
        return held;
      });
    const writer = wait(write, 'writer');
    await until('the writer to stand in the queue', async () => {
      const overtook = await read.tryAcquire();
      await overtook?.release();
      return overtook === null;
    });
    const later = [wait(read, 'later'), wait(read, 'later')];
    await one.release();
    expect(await failure(read.acquire({ timeoutMs: 100 })), 'still behind the writer').toMatchObject({
      code: 'ERR_TIMEOUT',
    });
    expect(order).toEqual([]);
    await two.release();
    const writes = await within(writer, 5000, 'the writer');
    expect(order).toEqual(['writer']);
    expect(writes.token).toBeGreaterThan(two.token);
    await writes.release();
    const readers = await within(Promise.all(later), 5000, 'the readers');
    for (const reader of readers) {
      expect(reader.token).toBeGreaterThan(writes.token);
      await reader.release();
    }
    await (await write.acquire()).release();
  });

  test('a semaphore is held by so many, and by more as soon as its number says so', async (finish) => {
    const coord = await client(finish, place.url);
    const permits = { value: 3 };
    const semaphore = coord.lock.semaphore(uniqueName(), permits);
    const held = [await semaphore.acquire(), await semaphore.acquire(), await semaphore.acquire()];
    expect(await semaphore.tryAcquire()).toBeNull();
    permits.value = 4;
    held.push(await semaphore.acquire());
    permits.value = 1;
    expect(await semaphore.tryAcquire()).toBeNull();
    expect(
      held.every(({ isHeld }) => isHeld),
      'lowering evicts nobody',
    ).toBe(true);
    const next = semaphore.acquire({ timeoutMs: 0 });
    for (const one of held.slice(0, 3)) await one.release();
    expect(await semaphore.tryAcquire()).toBeNull();
    expect((held[3] as Held).isHeld).toBe(true);
    await (held[3] as Held).release();
    const last = await within(next, 5000, 'the last');
    const tokens = [...held, last].map(({ token }) => token);
    expect(tokens).toEqual([...tokens].sort((a, b) => Number(a - b)));
    expect(new Set(tokens).size).toBe(5);
    await last.release();
  });

  test('raised while others wait, a semaphore lets as many of them in, in their turn; what is no number changes nothing', async (finish) => {
    const coord = await client(finish, place.url);
    const permits = changing(1);
    const semaphore = coord.lock.semaphore(uniqueName(), permits, { ttlMs: 60_000 }); // nobody looks for 8 s
    const first = await semaphore.acquire();
    const entered: bigint[] = [];
    const waiting = [1, 2, 3].map(async () => {
      const held = await semaphore.acquire({ timeoutMs: 0 });
      entered.push(held.token);
      return held;
    });
    expect(await failure(semaphore.acquire({ timeoutMs: 300 }))).toMatchObject({ code: 'ERR_TIMEOUT' }); // all stand in the queue
    expect(permits.listeners.size).toBe(3);
    permits.set(0);
    permits.set('3');
    permits.set(3);
    await until('two of them', () => entered.length === 2);
    permits.set(1); // evicts nobody
    expect(await semaphore.tryAcquire()).toBeNull();
    expect(entered.length).toBe(2);
    permits.set(4);
    const held = await within(Promise.all(waiting), 3000, 'the third');
    expect(held.every(({ isHeld }) => isHeld)).toBe(true);
    expect(entered.at(-1)).toBe(entered.toSorted((a, b) => Number(a - b)).at(-1)); // who came last
    expect(permits.listeners.size).toBe(0);
    await Promise.all([first, ...held].map((one) => one.release()));
  });

  test('kinds and keys that begin alike do not know of each other', async (finish) => {
    const coord = await client(finish, place.url);
    const key = uniqueName();
    const all = [
      await coord.lock.mutex(key).acquire(),
      await coord.lock.readWrite(key).write.acquire(),
      await coord.lock.semaphore(key, 1).acquire(),
      await coord.lock.mutex(`${key}/below`).acquire(),
      await coord.lock.mutex(`${key}-more`).acquire(),
      await coord.lock.mutex(`/elsewhere/${key}`).acquire(),
    ];
    expect(all.map(({ isHeld }) => isHeld)).toEqual(all.map(() => true));
    expect(all.at(-1)?.key.startsWith(`/elsewhere/${key}/`)).toBe(true);
    await Promise.all(all.map((held) => held.release()));
  });

  test('closing gives back what is held, and ends who waits', async (finish) => {
    const [coord, other] = [await client(finish, place.url), await client(finish, place.url)] as const;
    const key = uniqueName();
    const held = await coord.lock.acquire(key, { ttlMs: 60_000 });
    const waits = failure(coord.lock.acquire(key, { timeoutMs: 0 }));
    const next = other.lock.acquire(key, { timeoutMs: 0 });
    let isAtWork = false;
    const work = async ({ signal }: Held) => {
      isAtWork = true;
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    };
    const under = failure(coord.lock.withLock(`${key}-work`, work));
    await until('the work', () => isAtWork);
    await coord.close();
    const lost = { code: 'ERR_LOCK_LOST', message: expect.stringMatching(/coord was closed$/) };
    expect(await under, 'what was at work under a lock').toMatchObject(lost);
    expect(await waits).toMatchObject({ code: 'ERR_CLOSED', operation: 'acquire' });
    expect([held.isHeld, held.signal.reason]).toEqual([false, expect.objectContaining(lost)]);
    expect(await failure(coord.lock.acquire(key))).toMatchObject({ code: 'ERR_CLOSED', operation: 'acquire' });
    await (await within(next, 5000, 'the other')).release();
  });

  test('lost while the store is away: told no later than it could be vouched for, and withLock rejects', async (finish) => {
    const coord = await client(finish, place.url);
    const key = uniqueName();
    const cause = new Error('of the work');
    let told = 0;
    let vouched = 0;
    const work = async (held: Held) => {
      await place.away();
      vouched = performance.now() + held.remainingMs;
      await new Promise((resolve) => held.signal.addEventListener('abort', resolve, { once: true }));
      told = performance.now();
      expect([held.isHeld, held.remainingMs]).toEqual([false, 0]);
      expect(held.signal.reason).toBeInstanceOf(LockLostError);
      expect(held.signal.reason).toMatchObject({ code: 'ERR_LOCK_LOST', key: held.key, token: held.token });
    };
    try {
      const lost = await failure(coord.lock.withLock(key, work, { ttlMs: 2000 }));
      expect(lost).toMatchObject({ code: 'ERR_LOCK_LOST', retryable: false });
      // A renewal that was under way when it went may have been confirmed.
      expect(told - vouched).toBeLessThan(inTime(700));
      await place.back();
      const thrown = coord.lock.mutex(key, { ttlMs: 2000 }).withLock(
        async (held) => {
          await work(held);
          throw cause;
        },
        { timeoutMs: 10_000 },
      );
      expect(await failure(thrown)).toMatchObject({ code: 'ERR_LOCK_LOST', cause });
    } finally {
      await place.back();
    }
    // It waits for the store as long as it may, and for the key of the lost one as long as that lives.
    await (await coord.lock.acquire(key, { timeoutMs: 15_000 })).release();
  });

  test('without the store a wait ends in its time, and says what is wrong', async (finish) => {
    const coord = await client(finish, place.url);
    await place.away();
    try {
      const error = await failure(coord.lock.acquire(uniqueName(), { timeoutMs: 700 }));
      expect(error.code).toMatch(/^ERR_(UNAVAILABLE|TIMEOUT)$/);
      const waits = coord.lock.acquire(uniqueName(), { timeoutMs: 0 });
      await place.back();
      await (await within(waits, 15_000, 'the store')).release();
    } finally {
      await place.back();
    }
  });

  test('a thread that is blocked keeps its lock, unless it said that it would not', async (finish) => {
    const coord = await client(finish, place.url);
    const [kept, given] = [
      await coord.lock.acquire(uniqueName(), { ttlMs: 1000 }),
      await coord.lock.acquire(uniqueName(), { stallTimeoutMs: 500 }),
    ] as const;
    const end = Date.now() + 4000;
    while (Date.now() < end);
    expect([kept.isHeld, given.isHeld]).toEqual([true, false]);
    await until('the signal', () => given.signal.aborted);
    expect(given.signal.reason).toMatchObject({
      code: 'ERR_LOCK_LOST',
      message: expect.stringMatching(/silent for \d+ ms$/),
    });
    await kept.release();
  });
});
