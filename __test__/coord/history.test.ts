// What stood at a key before, and how it comes back: on each store.
import { ConflictError, type Coord, type Version } from 'rollcall/coord';
import { describe, expect, test } from 'vitest';
import { uniqueName } from '../support/process.js';
import { client, type Finish, failure, inMemory, PLACES, placed } from './kit.js';

describe.each(PLACES)('%s', (_, start) => {
  const place = placed(start);

  async function begin(finish: Finish, more = {}): Promise<{ config: Coord['config']; key: string }> {
    const { config } = await client(finish, place.url, { instance: 'a', ...more });
    return { config, key: `/config/${uniqueName('history')}/limits` };
  }
  const shown = (versions: readonly Version[]) =>
    versions.map(({ revision, value, comment, author }) => [revision, value, comment, author]);

  test('each version is known, with who wrote it and why; and that it was gone', async (finish) => {
    const { config, key } = await begin(finish);
    const from = Date.now();
    const first = await config.set(key, { max: 1 }, { comment: 'the first' });
    const second = await config.set(key, { max: 2 }, { author: 'ann', ifRevision: first });
    await config.delete(key, { comment: 'not needed' });
    const versions = await config.history(key);
    const gone = versions[0]?.revision as bigint;
    expect(gone).toBeGreaterThan(second);
    expect(shown(versions)).toEqual([
      [gone, null, 'not needed', 'a'],
      [second, '{"max":2}', undefined, 'ann'],
      [first, '{"max":1}', 'the first', 'a'],
      [0n, null, undefined, undefined],
    ]);
    const last = await config.set(key, { max: 3 });
    expect(shown(await config.history(key, { limit: 3 }))).toEqual([
      [last, '{"max":3}', undefined, 'a'],
      [gone, null, 'not needed', 'a'],
      [second, '{"max":2}', undefined, 'ann'],
    ]);
    const [now, before] = await config.history(key);
    expect([now?.isCurrent, before?.isCurrent, Object.isFrozen(now)]).toEqual([true, false, true]);
    expect(now?.at?.getTime()).toBeGreaterThanOrEqual(from);
    // A key whose history lies in the same folder has its own.
    await config.set(`${key}/@canary=true`, 1);
    expect((await config.history(key)).length).toBe(5);
    expect(await config.delete(key)).toBe(true);
    expect(await config.delete(key)).toBe(false);
  });

  test('a version comes back, if nobody changes the key meanwhile, and that is a version too', async (finish) => {
    const { config, key } = await begin(finish);
    const first = await config.set(key, { max: 1, list: [1] });
    const second = await config.set(key, { max: 2, list: [1] });
    expect(await config.diff(key, first, second)).toBe(
      ' {\n-  "max": 1,\n+  "max": 2,\n   "list": [\n     1\n   ]\n }',
    );
    expect(await config.diff(key, 0, first)).toBe('+{\n+  "max": 1,\n+  "list": [\n+    1\n+  ]\n+}');
    const third = await config.rollback(key, first);
    expect((await config.raw(key))?.value).toBe('{"max":1,"list":[1]}');
    expect(await config.diff(key, first, third)).toBe('');
    expect(shown(await config.history(key, { limit: 1 }))).toEqual([
      [third, '{"max":1,"list":[1]}', `rollback to ${first}`, 'a'],
    ]);
    await config.rollback(key, 0n, { comment: 'all of it' });
    expect(await config.raw(key)).toBeNull();
    await config.rollback(key, second);
    expect((await config.raw(key))?.value).toBe('{"max":2,"list":[1]}');
    const none = await failure(config.rollback(key, second + 1_000_000n));
    expect(none).toMatchObject({ code: 'ERR_NOT_FOUND', operation: 'rollback', key, retryable: false });
  });

  test('what others wrote is kept when it is replaced', async (finish) => {
    const { config, key } = await begin(finish);
    const other = await client(finish, place.url, { history: 0 });
    await config.set(key, 1, { comment: 'one' });
    const theirs = await other.config.set(key, 2);
    const ours = await config.set(key, 3, { comment: 'three' });
    // Nobody has kept the first, whose place they took; its comment is not given to theirs.
    expect(shown(await config.history(key))).toEqual([
      [ours, '3', 'three', 'a'],
      [theirs, '2', undefined, undefined],
      [0n, null, undefined, undefined],
    ]);
  });

  test('changes at once are kept at once, and a conflict keeps nothing', async (finish) => {
    const { config, key } = await begin(finish);
    const [one, two] = [`${key}/one`, `${key}/two`];
    const first = await config.setAll({ [one]: 1, [two]: 1 }, { comment: 'both' });
    expect(await failure(config.setAll({ [one]: 2, [two]: 2 }, { ifRevisions: { [two]: 0 } }))).toBeInstanceOf(
      ConflictError,
    );
    const second = await config.setAll({ [one]: 3, [two]: null }, { ifRevisions: { [two]: first } });
    expect(shown(await config.history(one))).toEqual([
      [second, '3', undefined, 'a'],
      [first, '1', 'both', 'a'],
      [0n, null, undefined, undefined],
    ]);
    expect((await config.history(two)).map(({ value }) => value)).toEqual([null, '1', null]);
  });

  test('two who write at once lose nothing of it, and neither fails', async (finish) => {
    const { config, key } = await begin(finish);
    const other = await client(finish, place.url, { instance: 'b' });
    const writes = Array.from({ length: 20 }, (_, n) => (n % 2 ? config : other.config).set(key, n));
    const revisions = await Promise.all(writes);
    expect(new Set(revisions).size).toBe(20);
    const versions = await config.history(key);
    expect(versions.map(({ revision }) => revision)).toEqual([...revisions.sort((a, b) => Number(b - a)), 0n]);
    expect(new Set(versions.map(({ value }) => value)).size).toBe(21);
  });

  test('so many are kept as the client says', async (finish) => {
    const { config, key } = await begin(finish, { history: 3 });
    for (let n = 1; n <= 10; n++) await config.set(key, n);
    expect((await config.history(key)).map(({ value }) => value)).toEqual(['10', '9', '8', '7']);
    expect((await config.list(`/config-history${key}/`)).length).toBe(3);
  });
});

test('two MiB of a key are kept at the most, and no value of more than 256 KiB', async (finish) => {
  const { config } = await inMemory(finish);
  const key = '/config/large';
  for (let n = 0; n < 20; n++) await config.set(key, String(n).padEnd(200_000, 'x'));
  const large = await config.set(key, 'y'.repeat(256 * 1024 + 1));
  await config.set(key, 'small');
  const kept = await config.list('/config-history/config/large/');
  expect(kept.reduce((sum, { value }) => sum + value.length, 0)).toBeLessThanOrEqual(2 * 1024 * 1024);
  expect(kept.length).toBe(11);
  expect((await config.history(key))[1]).toMatchObject({ revision: large, value: undefined });
  const none = await failure(config.rollback(key, large));
  expect([none.code, none.message]).toEqual([
    'ERR_NOT_FOUND',
    `rollback: version ${large} of ${key} was not kept: it is too large, or no text`,
  ]);
});

test('what others have put among the records is left out', async (finish) => {
  const { config } = await inMemory(finish);
  await config.set('/config/a', 1);
  const folder = '/config-history/config/a/@/';
  await config.setAll({
    [`${folder}x`]: 1,
    [`${folder}0000000000000009`]: 'no JSON',
    [`${folder}0000000000000008/b`]: '{}',
  });
  await config.set('/config/a', 2);
  expect((await config.history('/config/a')).map(({ value }) => value)).toEqual(['2', '1', null]);
});

test('what can not be kept is refused, by the name of the argument', async (finish) => {
  const { config } = await inMemory(finish);
  const refused = async (promise: Promise<unknown>, message: string) =>
    expect((await failure(promise)).message).toContain(message);
  await refused(config.set(`/${'x'.repeat(1000)}`, 1), 'key: expected at most 990 bytes, or no history');
  await refused(config.set('/a', 1, { comment: 1 as never }), 'options.comment: ');
  await refused(
    config.set('/a', 1, { comment: 'x'.repeat(4097) }),
    'options.comment: expected at most 4096 characters',
  );
  await refused(config.delete('/a', { author: '\ud800' }), 'options.author: ');
  await refused(config.history('/a', { limit: 0 }), 'options.limit: ');
  await refused(config.diff('/a', -1, 0), 'from: expected a whole number');
  await refused(config.rollback('/a', undefined as never), 'to: expected a revision');
  const bare = await inMemory(finish, { history: 0 });
  await refused(bare.config.set('/a', 1, { comment: 'x' }), 'options.comment: expected none');
  await bare.config.set(`/${'x'.repeat(1000)}`, 1);
});

test('a thousand writes of one client to one key at once go one after the other, and all are made', async (finish) => {
  const { config } = await inMemory(finish);
  const key = '/config/a';
  const revisions = await Promise.all(Array.from({ length: 1000 }, (_, n) => config.set(key, n)));
  expect(new Set(revisions.map(String)).size).toBe(1000);
  expect((await config.raw(key))?.value.toString()).toBe('999');
});
