// Whoever has opened a configuration can refuse a value, for all; and a part of one is a configuration of its own.
import { type ConfigRef, defineConfig } from 'rollcall/coord';
import { expect, test } from 'vitest';
import { failure, inMemory, limits, schemaOf, until } from './kit.js';

const key = '/config/dev/orders/limits';
const definition = defineConfig({ key, schema: limits, default: { max: 1 } });

/** The values that a ref tells of, and its refusals. */
function heard<T>(ref: ConfigRef<T>): unknown[] {
  const told: unknown[] = [];
  ref.subscribe((next) => told.push(next));
  ref.on('rejected', ({ issues }) => told.push(issues[0]?.message));
  return told;
}

test('a value that one refuses is seen by nobody, and is a refusal like any other', async (finish) => {
  const { config } = await inMemory(finish, { settleMs: 0 });
  const refs = await Promise.all([1, 2, 3].map(() => config.open(definition)));
  const [a, b, c] = refs as [ConfigRef<{ max: number }>, ConfigRef<{ max: number }>, ConfigRef<{ max: number }>];
  const why = new Error('no pool of three');
  const asked: unknown[] = [];
  a.beforeChange(({ max }, previous) => {
    asked.push([max, previous.max, refs.map(({ value }) => value.max)]);
  });
  b.beforeChange(async ({ max }) => {
    if (max === 3) throw why;
  });
  const told = refs.map(heard);
  let revision = 0n;
  for (const max of [2, 3]) {
    revision = await config.set(key, { max });
    await until(`${max}`, () => told.every(({ length }) => length === max - 1));
  }
  expect(refs.map(({ value }) => value)).toEqual([{ max: 2 }, { max: 2 }, { max: 2 }]);
  const message = 'beforeChange() refused it: no pool of three';
  expect(told).toEqual(refs.map(() => [{ max: 2 }, message]));
  expect(c.rejected).toMatchObject({ code: 'ERR_INVALID_CONFIG', key, revision: String(revision), cause: why });
  await config.set(key, { max: 4 });
  await until('the next one', () => told.every(({ length }) => length === 3));
  expect([refs.map(({ value }) => value.max), c.rejected]).toEqual([[4, 4, 4], undefined]);
  // Each time before anything has changed, and of the last good value.
  expect(asked).toEqual([
    [2, 1, [1, 1, 1]],
    [3, 2, [2, 2, 2]],
    [4, 2, [2, 2, 2]],
  ]);
});

test('who gives no answer refuses, after its time; who has left is not asked', async (finish) => {
  const { config } = await inMemory(finish, { settleMs: 0, timeoutMs: 200 });
  const ref = await config.open(definition);
  const told = heard(ref);
  let given: AbortSignal | undefined;
  const end = ref.beforeChange((_next, _previous, { signal }) => {
    given = signal;
    return new Promise(() => {});
  });
  const abort = new AbortController();
  ref.beforeChange(
    () => {
      throw new Error('it is not asked');
    },
    { signal: abort.signal },
  );
  abort.abort();
  await config.set(key, { max: 2 });
  await until('the refusal', () => told.length === 1);
  expect([told, given?.aborted, ref.value]).toEqual([
    ['beforeChange() gave no answer within 200 ms'],
    true,
    { max: 1 },
  ]);
  end();
  await config.set(key, { max: 3 });
  await until('the change', () => ref.value.max === 3);
});

interface Shape {
  db: { pool: number };
  rate: number;
}
const shape = defineConfig({
  key,
  schema: schemaOf((value) => ({ value: value as Shape })),
  default: { db: { pool: 1 }, rate: 1 },
});

test('a part changes only when it says something else, and closes by itself', async (finish) => {
  const { config } = await inMemory(finish, { settleMs: 0 });
  const whole = await config.open(shape);
  const db = whole.select(({ db }) => db);
  const pool = db.select(({ pool }) => pool);
  const told = [whole, db, pool].map((ref) => heard<unknown>(ref as ConfigRef<unknown>));
  const first = db.value;
  await config.set(key, { rate: 2 });
  await until('the whole', () => told[0]?.length === 1);
  expect([told[1], told[2], db.value === first, db.revision === whole.revision]).toEqual([[], [], true, true]);
  await config.set(key, { db: { pool: 5 } });
  await until('the part', () => told[2]?.length === 1);
  expect([told[1], told[2], db.value, Object.isFrozen(db.value)]).toEqual([[{ pool: 5 }], [5], { pool: 5 }, true]);
  expect([db.key, db.source, db.stale, db.rejected]).toEqual([key, 'store', false, undefined]);
  whole.close();
  db.close();
  await config.set(key, { db: { pool: 6 } });
  await until('the part of the part', () => pool.value === 6);
  expect([whole.value.db.pool, db.value.pool, told[2]]).toEqual([5, 5, [5, 6]]);
  expect([whole.select(({ rate }) => rate).value, whole.select(({ rate }) => rate).closed]).toEqual([1, true]);
  pool.close();
  // Nothing of it is open any more, so another definition of the key can be.
  expect(await config.get(defineConfig({ key, schema: limits, default: { max: 7 } }))).toMatchObject({ max: 7 });
});

test('who has a part is asked when that changes; a part that can not be picked refuses the value', async (finish) => {
  const { config } = await inMemory(finish, { settleMs: 0 });
  const whole = await config.open(shape);
  const pool = whole.select(({ db }) => db.pool);
  const asked: number[] = [];
  pool.beforeChange((next) => {
    asked.push(next);
    if (next > 9) throw new Error('too many');
  });
  const told = heard(whole);
  const rounds = [{ rate: 2 }, { db: { pool: 10 } }, { db: null }, { db: { pool: 3 } }];
  for (const [place, value] of rounds.entries()) {
    await config.set(key, value);
    await until(`round ${place}`, () => told.length === place + 1);
  }
  expect(told).toEqual([
    { db: { pool: 1 }, rate: 2 },
    'beforeChange() refused it: too many',
    expect.stringContaining('beforeChange() refused it: Cannot read properties of undefined'),
    { db: { pool: 3 }, rate: 1 },
  ]);
  expect([asked, pool.value]).toEqual([[10, 3], 3]);
  expect(() => whole.select(({ db }) => (db as unknown as { none: { x: number } }).none.x)).toThrow(TypeError);
});

test('get() has the value now, by the rules of open()', async (finish) => {
  const { config } = await inMemory(finish);
  await config.set(key, { max: 5 });
  expect(await config.get(definition)).toEqual({ max: 5 });
  await config.set(key, 'bad');
  expect(await failure(config.get(definition))).toMatchObject({ code: 'ERR_INVALID_CONFIG', operation: 'open' });
});

test('hooks that are none are refused', async (finish) => {
  const { config } = await inMemory(finish);
  const ref = await config.open(definition);
  const none = 1 as never;
  expect(() => ref.beforeChange(none)).toThrow('check: expected a function, got number');
  expect(() => ref.beforeChange(() => {}, { sgnal: 1 } as never)).toThrow('options.sgnal: unknown option');
  expect(() => ref.select(none)).toThrow('pick: expected a function, got number');
});
