// What a store promises to whoever reads, writes and follows it, on each of them.
import { ConflictError, type Coord, type Entry } from 'rollcall/coord';
import { describe, expect, test } from 'vitest';
import { uniqueName } from '../support/process.js';
import { client, countUp, failure, PLACES, placed, until } from './kit.js';

describe.each(PLACES)('%s', (_, start) => {
  const place = placed(start);
  let base: string;

  const begin = async (finish: Parameters<typeof client>[0]): Promise<Coord> => {
    base = `/config/${uniqueName('suite')}`;
    return await client(finish, place.url);
  };
  const shown = (entries: Iterable<Entry>) =>
    [...entries].map(({ key, value }) => `${key.slice(base.length)} ${value}`);

  test('what was written is read: text as it is, all else as JSON', async (finish) => {
    const { config } = await begin(finish);
    expect(await config.raw(`${base}/a`)).toBeNull();
    const revision = await config.set(`${base}/a`, { max: 1, list: [true, null] });
    const entry = { key: `${base}/a`, value: '{"max":1,"list":[true,null]}', isText: true, revision };
    expect(await config.raw(`${base}/a`)).toEqual(entry);
    expect(Object.isFrozen(await config.raw(`${base}/a`))).toBe(true);
    expect(await config.set(`${base}/b`, 'grüße, 世界')).toBeGreaterThan(revision);
    await config.set(`${base}-else/c`, 3);
    expect(shown(await config.list(`${base}/`))).toEqual(['/a {"max":1,"list":[true,null]}', '/b grüße, 世界']);
    expect(await config.delete(`${base}/a`)).toBe(true);
    expect(await config.delete(`${base}/a`)).toBe(false);
    expect(shown(await config.list(`${base}/`))).toEqual(['/b grüße, 世界']);
  });

  test('a write by revision is made once, and who comes late gets what stands there', async (finish) => {
    const { config } = await begin(finish);
    const key = `${base}/a`;
    const first = await config.set(key, 1, { ifRevision: 0 });
    const late = await failure(config.set(key, 2, { ifRevision: 0n }));
    expect(late).toBeInstanceOf(ConflictError);
    expect(late).toMatchObject({ code: 'ERR_CONFLICT', operation: 'set', key, retryable: false });
    expect(late.current).toEqual({ key, value: '1', isText: true, revision: first });
    const second = await config.set(key, 2, { ifRevision: first });
    expect(await failure(config.delete(key, { ifRevision: first }))).toMatchObject({ code: 'ERR_CONFLICT' });
    expect(await config.delete(key, { ifRevision: second })).toBe(true);
    expect(await failure(config.set(key, 3, { ifRevision: second }))).toMatchObject({ current: null });
  });

  test('two who count one up by revision lose nothing', async (finish) => {
    const coord = await begin(finish);
    const other = await client(finish, place.url);
    const key = `${base}/counter`;
    await coord.config.set(key, 0);
    const each = 100;
    const conflicts = await Promise.all([coord, coord, other].map((one) => countUp(one, key, each)));
    expect((await coord.config.raw(key))?.value).toBe(String(3 * each));
    expect(Math.max(...conflicts)).toBeGreaterThan(0);
  });

  test('changes at once are of one revision, or none is made', async (finish) => {
    const { config } = await begin(finish);
    const [a, b, c] = ['a', 'b', 'c'].map((name) => `${base}/${name}`) as [string, string, string];
    const first = await config.setAll({ [a]: 1, [b]: 1 });
    expect((await config.list(`${base}/`)).map(({ revision }) => revision)).toEqual([first, first]);
    const conflict = await failure(config.setAll({ [a]: 2, [c]: 2 }, { ifRevisions: { [b]: first, [c]: first } }));
    expect(conflict).toMatchObject({ code: 'ERR_CONFLICT', key: c, current: null });
    expect(shown(await config.list(`${base}/`))).toEqual(['/a 1', '/b 1']);
    const second = await config.setAll({ [a]: null, [b]: 2, [c]: 'x' }, { ifRevisions: { [a]: first } });
    expect(shown(await config.list(`${base}/`))).toEqual(['/b 2', '/c x']);
    expect(second).toBeGreaterThan(first);
  });

  test('a key that is followed: what stands there, each change, and that it is gone', async (finish) => {
    const { config } = await begin(finish);
    const key = `${base}/a`;
    const watcher = config.watch(key);
    const next = async () => (await watcher.next()).value as Entry | null;
    expect(await next()).toBeNull();
    const revision = await config.set(key, 'one');
    expect(await next()).toEqual({ key, value: 'one', isText: true, revision });
    expect(watcher.revision).toBeGreaterThanOrEqual(revision);
    await config.set(`${base}/ab`, 'no news here');
    await config.set(key, 'two');
    expect((await next())?.value).toBe('two');
    await config.delete(key);
    expect(await next()).toBeNull();
    const pending = watcher.next();
    watcher.stop();
    expect(await pending).toEqual({ done: true, value: undefined });
  });

  test('a prefix that is followed: whole snapshots, and what did not change is the same object', async (finish) => {
    const { config } = await begin(finish);
    await config.setAll({ [`${base}/a`]: 1, [`${base}/b`]: 1 });
    const abort = new AbortController();
    const watcher = config.watchPrefix(`${base}/`, { signal: abort.signal });
    const next = async () => (await watcher.next()).value as ReadonlyMap<string, Entry>;
    const before = await next();
    expect(shown(before.values())).toEqual(['/a 1', '/b 1']);
    await config.set(`${base}/c`, 1);
    const after = await next();
    expect(shown(after.values())).toEqual(['/a 1', '/b 1', '/c 1']);
    expect(after.get(`${base}/a`)).toBe(before.get(`${base}/a`));
    abort.abort();
    expect((await watcher.next()).done).toBe(true);
  });

  test('no snapshot holds half of a transaction, under load', async (finish) => {
    const { config } = await begin(finish);
    const other = await client(finish, place.url, { settleMs: 0 });
    const names = ['x', 'y', 'z'];
    const write = (n: number) => config.setAll(Object.fromEntries(names.map((name) => [`${base}/${name}`, n])));
    await write(0);
    const rounds = 400;
    let [snapshots, last] = [0, -1];
    const follow = async () => {
      for await (const entries of other.config.watchPrefix(`${base}/`)) {
        const values = new Set([...entries.values()].map(({ value }) => value));
        expect([entries.size, values.size]).toEqual([names.length, 1]);
        const [value] = [...values].map(Number) as [number];
        expect(value).toBeGreaterThan(last); // never back in time
        last = value;
        snapshots++;
        if (value === rounds) return;
      }
    };
    const following = follow();
    for (let n = 1; n <= rounds; n++) await write(n);
    await following;
    expect(snapshots).toBeGreaterThan(3);
  });

  test('an outage makes it stale; what was missed is one snapshot, and it is fresh again', async (finish) => {
    const { config } = await begin(finish);
    const bare = await client(finish, place.url, { history: 0 });
    await config.setAll({ [`${base}/a`]: 1, [`${base}/b`]: 1, [`${base}/c`]: 1 });
    const told: string[] = [];
    const watcher = config.watchPrefix(`${base}/`);
    watcher
      .on('stale', () => told.push('stale'))
      .on('fresh', () => told.push('fresh'))
      .on('reset', () => told.push('reset'));
    await watcher.next();
    const pending = watcher.next();
    await place.away();
    await until('the watcher to be stale', () => told.includes('stale'));
    expect(watcher.stale).toBe(true);
    // Who keeps history fails at the read before the write, so in the time of that.
    const late = await failure(config.set(`${base}/a`, 2, { timeoutMs: 300 }));
    expect(late).toMatchObject({
      code: expect.stringMatching(/TIMEOUT|UNAVAILABLE/),
      operation: 'set',
      retryable: true,
    });
    expect(late).not.toHaveProperty('outcomeUnknown');
    const refused = await failure(bare.config.set(`${base}/a`, 2, { timeoutMs: 300 }));
    expect(refused).toMatchObject({ code: 'ERR_UNAVAILABLE', operation: 'set', retryable: true });
    expect(refused).not.toHaveProperty('outcomeUnknown');
    await place.back();
    const other = await client(finish, place.url);
    await other.config.setAll({ [`${base}/a`]: 2, [`${base}/b`]: null, [`${base}/c`]: null });
    // More than half is gone, by intent: nothing of it is held back, and no state between the two is seen.
    const { value } = await pending;
    expect(shown((value as ReadonlyMap<string, Entry>).values())).toEqual(['/a 2']);
    await until('the watcher to be fresh', () => told.includes('fresh'));
    expect(watcher.stale).toBe(false);
    expect(told).toEqual(['stale', 'fresh']);
  });

  test('a store that lost its data is told, before what is read there', async (finish) => {
    const { config } = await begin(finish);
    await config.set(`${base}/a`, 1);
    const told: string[] = [];
    const watcher = config.watch(`${base}/a`).on('reset', () => told.push('reset'));
    const next = async () => told.push(String(((await watcher.next()).value as Entry | null)?.value));
    await next();
    const pending = next();
    await place.wipe();
    await pending;
    expect(told).toEqual(['1', 'reset', 'undefined']);
    expect(await config.set(`${base}/a`, 2)).toBeLessThan(10n); // it counts anew
    await next();
    expect(told).toEqual(['1', 'reset', 'undefined', '2']);
  });

  test('the end of the client ends what is followed and refuses what comes later', async (finish) => {
    const coord = await begin(finish);
    const pending = coord.config.watchPrefix(`${base}/`);
    await pending.next();
    const next = pending.next();
    await coord.close();
    expect((await next).done).toBe(true);
    for (const call of [
      coord.config.raw(`${base}/a`),
      coord.config.set(`${base}/a`, 1),
      coord.config.watch(`${base}/a`).next(),
    ]) {
      expect(await failure(call)).toMatchObject({ code: 'ERR_CLOSED' });
    }
    await coord.close();
  });
});
