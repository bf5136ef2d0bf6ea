// Answers of the store that are lost, one at a time: of a claim, of an end, and both written and not. The store itself is there, and so is
// the process, which goes on with other things.
import { UnavailableError } from 'rollcall';
import type { Coord } from 'rollcall/coord';
import { coordOnce, redisOnce } from 'rollcall/once';
import { describe, expect, test } from 'vitest';
import { client, type Finish, failure, until } from '../coord/kit.js';
import { startEtcd } from '../support/etcd.js';
import { uniqueName } from '../support/process.js';
import { redisClient, startRedis } from '../support/redis.js';
import { gate, onceOf, type Store } from './kit.js';

const TTL_MS = 60_000;
/** So long that whoever waits for a lock to be over fails. */
const LOCK_MS = 50_000;

type Fate = 'is answered' | 'is lost' | 'is done, and its answer lost';
/** What becomes of a change of the store, by the text that it writes. */
interface Fates {
  of: (text: string) => Fate;
}

async function fated<T>(fate: Fate, send: () => Promise<T>): Promise<T> {
  if (fate === 'is answered') return await send();
  if (fate !== 'is lost') await send();
  throw new UnavailableError('the answer was lost', { outcomeUnknown: true });
}

async function onEtcd(finish: Finish) {
  const server = await startEtcd();
  finish.onTestFinished(() => server.close());
  const lossy = await client(finish, server.url);
  const fates: Fates = { of: () => 'is answered' };
  const config = new Proxy(lossy.config, {
    get(target, name) {
      if (name !== 'setAll') return (target[name as 'raw'] as () => unknown).bind(target);
      return (changes: Record<string, string | null>, options: object) =>
        fated(fates.of(JSON.stringify(changes)), () => target.setAll(changes, options));
    },
  }) as Coord['config'];
  const other = coordOnce(await client(finish, server.url));
  return { fates, store: coordOnce({ config, lock: lossy.lock }), other: other as Store };
}

async function onRedis(finish: Finish) {
  const server = await startRedis();
  finish.onTestFinished(() => server[Symbol.asyncDispose]());
  const fates: Fates = { of: () => 'is answered' };
  const client = (await redisClient(finish, 'ioredis', server.url)) as { evalsha: unknown; eval: unknown };
  const lossy = {
    evalsha: (...all: string[]) =>
      fated(fates.of(all.join(' ')), () =>
        (client.evalsha as (...a: string[]) => Promise<unknown>).call(client, ...all),
      ),
    eval: (...all: string[]) => (client.eval as (...a: string[]) => Promise<unknown>).call(client, ...all),
  };
  const other = redisOnce((await redisClient(finish, 'ioredis', server.url)) as never);
  return { fates, store: redisOnce(lossy as never), other: other as Store };
}

describe.each([
  ['etcd', onEtcd],
  ['Redis', onRedis],
] as const)('%s', (name, start) => {
  async function both(finish: Finish) {
    const { fates, store, other } = await start(finish);
    const [once, second] = [onceOf(finish, store), onceOf(finish, other)];
    // Whatever is lost, the process does other things all the while.
    await once.do(uniqueName('busy'), TTL_MS, () => {}, { lockMs: LOCK_MS });
    const busy = setInterval(
      () => void once.do(uniqueName('busy'), TTL_MS, () => {}, { lockMs: LOCK_MS }).catch(() => {}),
      50,
    );
    finish.onTestFinished(() => clearInterval(busy));
    return { fates, once, second, key: uniqueName('key') };
  }
  const isOf = (text: string, key: string, state: string) =>
    text.includes(key) && text.replace(/\\/g, '').includes(`"state":"${state}"`);

  test.each(['is lost', 'is done, and its answer lost'] as const)(
    'a claim %s: nothing is run, and it is in nobody’s way',
    async (fate) => {
      const finish = {
        finished: [] as (() => unknown)[],
        onTestFinished: (fn: () => unknown) => void finish.finished.push(fn),
      };
      const { fates, once, second, key } = await both(finish);
      let ran = 0;
      const options = { lockMs: LOCK_MS, afterCrash: 'unknown' } as const;
      fates.of = (text) => (isOf(text, key, 'running') ? fate : 'is answered');
      const error = await failure(once.do(key, TTL_MS, () => void ran++, options));
      expect(error).toMatchObject({ code: 'ERR_UNAVAILABLE', message: expect.stringContaining('nothing was run') });
      expect([error.outcomeUnknown, ran]).toEqual([undefined, 0]);
      fates.of = () => 'is answered';
      await until('its turn', async () => {
        try {
          return (
            (await second.do(key, TTL_MS, () => void ran++, {
              ...options,
              joinTimeoutMs: 1000,
            })) === 'ran'
          );
        } catch {
          return false;
        }
      });
      expect(ran).toBe(1);
      expect(await once.do(key, TTL_MS, () => void ran++)).toBe('done');
      for (const over of finish.finished.reverse()) await over();
    },
  );

  test('claims that had no answer are taken back however many there are', async (finish) => {
    const { fates, once, second, key } = await both(finish);
    const keys = Array.from({ length: 1200 }, (_, i) => `${key}-${i}`);
    let tries = 0;
    fates.of = (text) => {
      if (isOf(text, key, 'running')) return 'is done, and its answer lost';
      if (!text.includes(key)) return 'is answered';
      tries++;
      return 'is lost';
    };
    const all = keys.map((at) => failure(once.do(at, TTL_MS, () => {}, { lockMs: LOCK_MS })));
    for (const error of await Promise.all(all)) expect(error.code).toBe('ERR_UNAVAILABLE');
    await until('it to be tried, and tried again', () => tries > 1);
    fates.of = () => 'is answered';
    await until('all of them', async () => {
      const stand = await Promise.all(keys.map((at) => second.inspect(at)));
      return stand.every((state) => state === null);
    });
  });

  test.each(['leaves', 'closes'])('who %s before it was begun stands in nobody’s way', async (how) => {
    const finished: (() => unknown)[] = [];
    const { once, second, key } = await both({ onTestFinished: (fn) => void finished.push(fn) });
    const leaving = new AbortController();
    let ran = 0;
    const options = { lockMs: LOCK_MS, afterCrash: 'unknown', signal: leaving.signal } as const;
    const error = failure(once.do(key, TTL_MS, () => void ran++, options)); // its claim is under way
    if (how === 'leaves') leaving.abort();
    await once.close();
    expect([(await error).code, ran]).toEqual([how === 'leaves' ? 'ERR_ABORTED' : 'ERR_CLOSED', 0]);
    const attempts: number[] = [];
    const next = second.do(key, TTL_MS, ({ attempt }) => void attempts.push(attempt), { whenRunning: 'reject' });
    expect([await next, attempts]).toEqual(['ran', [1]]);
    for (const over of finished.reverse()) await over();
  });

  test('a claim whose answer was lost is known again by who made it, at once', async (finish) => {
    const { fates, once, key } = await both(finish);
    fates.of = (text) => (isOf(text, key, 'running') ? 'is done, and its answer lost' : 'is answered');
    await failure(once.do(key, TTL_MS, () => {}, { lockMs: LOCK_MS }));
    fates.of = () => 'is answered';
    const attempts: number[] = [];
    const again = once.do(key, TTL_MS, ({ attempt }) => void attempts.push(attempt), {
      afterCrash: 'unknown',
      whenRunning: 'reject',
    });
    expect([await again, attempts]).toEqual(['ran', [1]]);
  });

  test('an end whose answer was lost is recorded once, and known again', async (finish) => {
    const { fates, once, second, key } = await both(finish);
    let lost = 0;
    fates.of = (text) => (isOf(text, key, 'done') && lost++ === 0 ? 'is done, and its answer lost' : 'is answered');
    expect(await once.execute(key, TTL_MS, () => 'mine')).toBe('mine');
    expect(lost).toBeGreaterThan(1);
    expect(await second.execute(key, TTL_MS, () => 'not mine')).toBe('mine');
  });

  test('an end that can’t be recorded: the caller learns, and the next takes over, whatever else its process does', async (finish) => {
    const { fates, once, second, key } = await both(finish);
    // Redis knows a runner by its lock alone, so that one is short.
    const lockMs = name === 'Redis' ? 1000 : LOCK_MS;
    fates.of = (text) => (isOf(text, key, 'done') ? 'is lost' : 'is answered');
    let ran = 0;
    const error = await failure(once.execute(key, TTL_MS, () => ++ran, { lockMs }));
    expect(error).toMatchObject({ code: 'ERR_UNAVAILABLE', outcomeUnknown: true, key });
    const attempts: number[] = [];
    const next = second.execute(
      key,
      TTL_MS,
      ({ attempt }) => {
        attempts.push(attempt);
        return ++ran;
      },
      { joinTimeoutMs: 20_000 },
    );
    expect([await next, attempts]).toEqual([2, [2]]);
  });
});

test('a claim without an answer takes nothing from a claim that is under way beside it', async (finish) => {
  const coord = await client(finish, `memory://${uniqueName('beside')}`);
  const [lost, slow] = ['lost', 'slow'].map(uniqueName) as [string, string];
  const { open: answer, passed: answered } = gate();
  const config = new Proxy(coord.config, {
    get(target, name) {
      if (name !== 'setAll') return (target[name as 'raw'] as () => unknown).bind(target);
      return async (changes: Record<string, string | null>, options: object) => {
        const revision = await target.setAll(changes, options);
        const text = JSON.stringify(changes);
        if (text.includes(lost)) throw new UnavailableError('the answer was lost', { outcomeUnknown: true });
        if (text.includes(slow)) await answered;
        return revision;
      };
    },
  }) as Coord['config'];
  const once = onceOf(finish, coordOnce({ config, lock: coord.lock }));
  const other = onceOf(finish, coordOnce(coord));
  let [ran, isOver] = [0, false];
  const run = once.execute(slow, TTL_MS, async ({ signal }) => {
    ran++;
    await until('its end', () => isOver);
    return signal.aborted;
  });
  await until('its claim', async () => (await other.inspect(slow))?.state === 'running');
  await failure(once.do(lost, TTL_MS, () => {}));
  answer();
  await until('its run', () => ran > 0);
  const refused = await failure(other.do(slow, TTL_MS, () => void ran++, { whenRunning: 'reject' }));
  expect([refused.code, ran]).toEqual(['ERR_IN_PROGRESS', 1]);
  isOver = true;
  expect(await run).toBe(false);
});
