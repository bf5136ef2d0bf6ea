// What a configuration promises to the program that has opened it: on memory, since nothing of it is the store's.
import { MemoryServer } from 'rollcall';
import { type ConfigRef, connectCoord, defineConfig, InvalidConfigError } from 'rollcall/coord';
import { describe, expect, test } from 'vitest';
import { uniqueName } from '../support/process.js';
import { anything, client, failure, inMemory, limits, schemaOf, until } from './kit.js';

const key = '/config/{env}/{service}/limits';
const at = {
  global: '/config/global/limits',
  env: '/config/dev/global/limits',
  own: '/config/dev/orders/limits',
  canary: '/config/dev/orders/limits/@canary=true',
  instance: '/config/dev/orders/limits/@instance=a',
};
const definition = defineConfig({ key, schema: limits, default: { max: 1 } });
const untyped = defineConfig({ key, schema: anything });

/** What a ref tells, in order. */
function heard<T>(ref: ConfigRef<T>): unknown[] {
  const told: unknown[] = [];
  ref.on('change', (next) => told.push(next)).on('rejected', ({ issues }) => told.push(issues[0]?.message));
  for (const event of ['stale', 'fresh', 'reset'] as const) ref.on(event, () => told.push(event));
  return told;
}

describe('layers', () => {
  test('lie over each other, the lowest first, and one that is deleted brings back what is below', async (finish) => {
    const { config } = await inMemory(finish, { instance: 'a', labels: { canary: 'true' } });
    const ref = await config.open(definition);
    expect([ref.value, ref.source, ref.revision, ref.key]).toEqual([{ max: 1 }, 'default', 0n, at.own]);
    const places = [at.global, at.env, at.own, at.canary, at.instance];
    for (const [n, place] of places.entries()) {
      const revision = await config.set(place, { max: n + 2, [`from${n}`]: true });
      await until(place, () => ref.value.max === n + 2);
      expect([ref.revision, ref.source]).toEqual([revision, 'store']);
    }
    expect(ref.value).toEqual({ max: 6, from0: true, from1: true, from2: true, from3: true, from4: true });
    for (const [n, place] of [...places.entries()].reverse()) {
      await config.delete(place);
      await until(`no ${place}`, () => ref.value.max === n + 1);
      expect(ref.value).not.toHaveProperty(`from${n}`);
    }
    expect([ref.value, ref.source]).toEqual([{ max: 1 }, 'default']);
  });

  test('merge objects, replace lists, and delete by null', async (finish) => {
    const { config } = await inMemory(finish);
    await config.setAll({
      [at.global]: { db: { host: 'a', port: 1, options: { ssl: true } }, list: [1, { x: null }], gone: 1 },
      [at.own]: { db: { port: 2, options: null }, list: [{ y: 1 }], gone: null },
    });
    const ref = await config.open(untyped);
    expect(ref.value).toEqual({ db: { host: 'a', port: 2 }, list: [{ y: 1 }] });
    await config.set(at.own, 'null');
    await until('all of it deleted', () => ref.value === undefined);
    const replace = defineConfig({ key: '/other/{service}/limits', schema: anything, merge: 'replace' });
    await config.setAll({ '/other/global/limits': { a: 1 }, '/other/orders/limits': { b: null } });
    expect((await config.open(replace)).value).toEqual({ b: null });
  });

  test('of a label belong to those who have it', async (finish) => {
    const url = `memory://${uniqueName('coord')}`;
    const plain = await (await client(finish, url)).config.open(definition);
    const other = await (await client(finish, url, { labels: { canary: 'false' } })).config.open(definition);
    const canary = await client(finish, url, { labels: { zone: 'b', canary: 'true' } });
    const ref = await canary.config.open(definition);
    await canary.config.setAll({ [at.own]: { max: 2 }, [at.canary]: { max: 3 } });
    await until('the change', () => plain.value.max === 2 && other.value.max === 2 && ref.value.max === 3);
    await canary.config.set('/config/dev/orders/limits/@zone=b', { max: 4 });
    await until('the label of the later name', () => ref.value.max === 4);
    expect([plain.value.max, other.value.max]).toEqual([2, 2]);
  });

  test('of the environment are the highest, as text', async (finish) => {
    process.env.COORD_TEST_URL = 'postgres://x';
    finish.onTestFinished(() => {
      delete process.env.COORD_TEST_URL;
    });
    const { config } = await inMemory(finish);
    await config.set(at.own, { db: { url: 'y', pool: 3 } });
    const env = { 'db.url': 'COORD_TEST_URL', 'db.none': 'COORD_TEST_NONE' };
    const ref = await config.open(defineConfig({ key, schema: anything, env }));
    expect(ref.value).toEqual({ db: { url: 'postgres://x', pool: 3 } });
  });

  test('of the program', async (finish) => {
    const { config } = await inMemory(finish);
    await config.setAll({ '/base/{a': 1, [at.global]: { max: 9 }, '/base/orders': { a: 1 }, [at.own]: { b: 2 } });
    const layers = ['/base/{service}'];
    const ref = await config.open(defineConfig({ key, schema: anything, layers }));
    expect(ref.value).toEqual({ a: 1, b: 2 });
  });

  test('that change in one transaction, in different folders, are seen together', async (finish) => {
    const { config } = await inMemory(finish, { settleMs: 0 });
    const halves = schemaOf((value) => ({ value: value as { low?: number; high?: number } }));
    const layered = await config.open(defineConfig({ key, schema: halves }));
    const low = await config.open(defineConfig({ key: '/config/{env}/{service}/low', schema: anything }));
    let mixed = 0;
    layered.on('change', ({ low: a, high: b }) => {
      if (a !== b || low.value !== b) mixed++;
    });
    for (let n = 1; n <= 300; n++) {
      await config.setAll({ [at.global]: { low: n }, [at.own]: { high: n }, '/config/dev/orders/low': n });
    }
    await until('the last', () => layered.value.low === 300);
    expect(mixed).toBe(0);
  });
});

describe('a value', () => {
  test('is one that the schema has made, frozen all the way down', async (finish) => {
    const { config } = await inMemory(finish);
    const schema = schemaOf(async (value) => ({ value: { ...(value as object), list: [{ made: new Date(0) }] } }));
    const fallback = { max: 1, deep: { list: [1] } };
    const { value } = await config.open(defineConfig({ key, schema, default: fallback }));
    expect(value).toEqual({ max: 1, deep: { list: [1] }, list: [{ made: new Date(0) }] });
    const inner = value as { deep: { list: number[] }; list: object[] };
    for (const part of [value, inner.deep, inner.deep.list, inner.list, inner.list[0]])
      expect(Object.isFrozen(part)).toBe(true);
    expect(Object.isFrozen(fallback.deep)).toBe(false); // the program's own
  });

  test('that is refused is never seen: the last good one stays, and the refusal says where', async (finish) => {
    const { config } = await inMemory(finish, { settleMs: 0 });
    const ref = await config.open(definition);
    const told = heard(ref);
    const accepted = await config.set(at.own, { max: 2 });
    await until('the first', () => told.length === 1);
    const revision = await config.set(at.own, { max: 'many' });
    await until('the refusal', () => told.length === 2);
    expect([ref.value, ref.revision]).toEqual([{ max: 2 }, accepted]);
    expect(ref.rejected).toBeInstanceOf(InvalidConfigError);
    expect(ref.rejected).toMatchObject({
      code: 'ERR_INVALID_CONFIG',
      key: at.own,
      revision: String(revision),
      issues: [{ message: 'expected a whole number', path: 'max' }],
      message: `${at.own}, at revision ${revision} of the store: max: expected a whole number`,
    });
    await config.set(at.env, '{"max": 3'); // of a layer below, and no JSON
    await until('the second refusal', () => told.length === 3);
    await config.delete(at.env);
    await until('the refusal of what is left', () => told.length === 4);
    await config.set(at.own, { max: 4 });
    await until('the next good one', () => told.length === 5);
    expect(ref.rejected).toBeUndefined();
    expect(told).toEqual([
      { max: 2 },
      'expected a whole number',
      'expected a whole number',
      'expected a whole number',
      { max: 4 },
    ]);
  });

  test('of ten updates of which two fail is each of the eight others, in order', async (finish) => {
    const { config } = await inMemory(finish, { settleMs: 0 });
    const ref = await config.open(definition);
    const told = heard(ref);
    for (let n = 1; n <= 10; n++) {
      await config.set(at.own, { max: n === 4 || n === 7 ? 'bad' : n + 100 });
      await until(`update ${n}`, () => told.length === n);
    }
    const bad = 'expected a whole number';
    const max = (n: number) => ({ max: n + 100 });
    expect(told).toEqual([max(1), max(2), max(3), bad, max(5), max(6), bad, max(8), max(9), max(10)]);
  });

  test('that says the same is the same object, and no change', async (finish) => {
    const { config } = await inMemory(finish, { settleMs: 0 });
    await config.set(at.own, { max: 2, more: { a: 1 } });
    const ref = await config.open(definition);
    const told = heard(ref);
    const { value } = ref;
    const revision = await config.set(at.own, '{ "more": {"a": 1}, "max": 2 }');
    await until('the revision', () => ref.revision === revision);
    expect(ref.value).toBe(value);
    expect(told).toEqual([]);
  });

  test.each([
    [
      'throws',
      () => {
        throw new Error('on purpose');
      },
      'the schema failed: on purpose',
    ],
    ['rejects', () => Promise.reject(new Error('on purpose')), 'the schema failed: on purpose'],
    [
      'throws nothing',
      () => {
        throw undefined;
      },
      'the schema failed: undefined',
    ],
    ['gives nothing', () => undefined, 'the schema failed:'],
    ['gives no reason', () => ({ issues: [] }), 'the schema refused it without a reason'],
    ['never answers', () => new Promise(() => {}), 'the schema gave no answer within 200 ms'],
  ])('of a schema that %s is refused, and nothing else is harmed', async (_, fails, message) => {
    const finish = { onTestFinished: (fn: () => unknown) => void ends.push(fn) };
    const ends: (() => unknown)[] = [];
    const { config } = await inMemory(finish, { settleMs: 0, timeoutMs: 200 });
    const schema = schemaOf((value) => ((value as { max: number }).max > 1 ? (fails() as never) : { value }));
    const ref = await config.open(defineConfig({ key, schema, default: { max: 1 } }));
    const beside = await config.open(defineConfig({ key: '/config/{env}/{service}/beside', schema: anything }));
    await config.setAll({ [at.own]: { max: 2 }, '/config/dev/orders/beside': 1 });
    await until('the refusal', () => ref.rejected);
    expect(ref.rejected?.issues[0]?.message).toContain(message);
    expect([ref.value, beside.value]).toEqual([{ max: 1 }, 1]);
    await config.set(at.own, { max: 0 });
    await until('the next good one', () => (ref.value as { max: number }).max === 0);
    for (const end of ends) await end();
  });

  test.each([
    ['no JSON', '{"max":', 'expected JSON'],
    ['a prototype', '{"max":1,"__proto__":{"admin":true}}', 'expected another name than "__proto__"'],
    ['as deep as it goes', `${'['.repeat(5000)}${']'.repeat(5000)}`, 'expected at most 100 levels'],
  ])('whose text is %s is refused', async (_, text, message) => {
    const coord = await connectCoord({
      url: `memory://${uniqueName('coord')}`,
      env: 'dev',
      service: 'orders',
      logger: false,
    });
    await coord.config.set(at.own, text);
    const refused = await failure(coord.config.open(defineConfig({ key, schema: limits, format: 'json' })));
    expect(refused).toMatchObject({ code: 'ERR_INVALID_CONFIG', operation: 'open', key: at.own });
    expect(refused.message).toContain(message);
    expect(refused.message.length).toBeLessThan(300);
    await coord.close();
  });

  test('is JSON, or text: by the format, by the end of the key, by what it is', async (finish) => {
    const { config } = await inMemory(finish);
    const read = async (name: string, text: string, format?: 'json' | 'text' | 'auto') => {
      await config.set(`/formats/of-${name}/${name}`, text); // a folder each, which nobody follows yet
      return (await config.open(defineConfig({ key: `/formats/of-${name}/${name}`, schema: anything, format }))).value;
    };
    expect(await read('a', '12')).toBe(12);
    expect(await read('b', 'twelve')).toBe('twelve');
    expect(await read('c.txt', '12')).toBe('12');
    expect(await read('d', '12', 'text')).toBe('12');
    expect(await read('e.json', '{"a":1}')).toEqual({ a: 1 });
    expect(await failure(read('f.json', 'twelve'))).toMatchObject({ code: 'ERR_INVALID_CONFIG' });
  });
});

describe('who opens', () => {
  test('what lies nowhere is told so, where the schema wants something', async (finish) => {
    const { config } = await inMemory(finish);
    const refused = await failure(config.open(defineConfig({ key, schema: limits })));
    expect(refused).toMatchObject({ code: 'ERR_INVALID_CONFIG', operation: 'open', key: at.own });
    expect(refused.message).toContain(`nothing lies at ${at.global}, ${at.env}, ${at.own}, and there is no default`);
    expect((await config.open(untyped)).value).toBeUndefined();
  });

  test('a deletion of what the schema wants is refused', async (finish) => {
    const { config } = await inMemory(finish);
    await config.set(at.own, { max: 5 });
    const ref = await config.open(defineConfig({ key, schema: limits }));
    await config.delete(at.own);
    await until('the refusal', () => ref.rejected);
    expect([ref.value, ref.source]).toEqual([{ max: 5 }, 'store']);
  });

  test('the same shares it, and each closes its own', async (finish) => {
    const { config } = await inMemory(finish, { settleMs: 0 });
    const [a, b] = await Promise.all([
      config.open(definition),
      config.open(defineConfig({ key, schema: limits, default: { max: 1 } })),
    ]);
    const told = heard(b);
    a.close();
    await config.set(at.own, { max: 2 });
    await until('the change', () => b.value.max === 2);
    expect([a.value, a.closed, told]).toEqual([{ max: 1 }, true, [{ max: 2 }]]);
    b.close();
    b.close();
    await config.set(at.own, { max: 3 });
    expect((await config.open(definition)).value).toEqual({ max: 3 });
    expect(b.value).toEqual({ max: 2 });
  });

  test('another definition of a key that is open is refused', async (finish) => {
    const { config } = await inMemory(finish);
    const ref = await config.open(definition);
    for (const other of [
      defineConfig({ key, schema: anything, default: { max: 1 } }),
      defineConfig({ key, schema: limits, default: { max: 2 } }),
      defineConfig({ key, schema: limits, default: { max: 1 }, merge: 'replace' }),
      defineConfig({ key: '/config/dev/{service}/limits', schema: limits, default: { max: 1 } }),
    ]) {
      const refused = await failure(config.open(other));
      expect(refused).toMatchObject({ code: 'ERR_INVALID_ARGUMENT', operation: 'open' });
      expect(refused.message).toMatch(/^definition: .*another definition/);
    }
    ref.close();
    expect((await config.open(defineConfig({ key, schema: anything, default: 7 }))).value).toBe(7);
  });

  test('hears by subscribe() one at a time, the latest, and by what went before', async (finish) => {
    const { config } = await inMemory(finish, { settleMs: 0 });
    const ref = await config.open(definition);
    const told: [number, number][] = [];
    const signals: AbortSignal[] = [];
    let goOn = () => {};
    const stop = ref.subscribe(async ({ max }, previous, { signal }) => {
      expect(ref.value.max).toBeGreaterThanOrEqual(max);
      told.push([max, previous.max]);
      signals.push(signal);
      await new Promise<void>((resolve) => {
        goOn = resolve;
      });
      throw new Error('what it throws stops nothing');
    });
    for (const max of [2, 3, 4]) {
      await config.set(at.own, { max });
      await until(`max ${max}`, () => ref.value.max === max);
    }
    expect([told, signals.map(({ aborted }) => aborted)]).toEqual([[[2, 1]], [true]]);
    goOn();
    await until('the second', () => told.length === 2);
    expect([told[1], signals[1]?.aborted]).toEqual([[4, 2], false]);
    stop();
    expect(signals[1]?.aborted).toBe(true);
    goOn();
    await config.set(at.own, { max: 5 });
    await until('max 5', () => ref.value.max === 5);
    expect(told.length).toBe(2);
  });

  test('loops over it: the value now, then each change, the latest, until it is closed', async (finish) => {
    const coord = await inMemory(finish, { settleMs: 0 });
    const ref = await coord.config.open(definition);
    const seen: number[] = [];
    const loop = (async () => {
      for await (const { max } of ref) seen.push(max);
    })();
    await until('the first', () => seen.length === 1);
    await coord.config.set(at.own, { max: 2 });
    await until('the second', () => seen.length === 2);
    for await (const { max } of ref) {
      expect(max).toBe(2);
      break;
    }
    await coord.close();
    await loop;
    expect([seen, ref.closed, ref.value]).toEqual([[1, 2], true, { max: 2 }]);
    expect(await failure(coord.config.open(definition))).toMatchObject({ code: 'ERR_CLOSED', operation: 'open' });
  });

  test('is not told of each of a thousand updates while the thread is blocked, but of the last', async (finish) => {
    const url = `memory://${uniqueName('coord')}`;
    const { config } = await client(finish, url, { history: 0 }); // so all are on their way before the thread is blocked
    const ref = await config.open(definition);
    const told = heard(ref);
    const writes = Array.from({ length: 1000 }, (_, n) => config.set(at.own, { max: n + 2 }));
    for (const end = performance.now() + 1500; performance.now() < end; );
    await Promise.all(writes);
    await until('the last', () => ref.value.max === 1001);
    expect(told.length).toBeLessThanOrEqual(2);
  });
});

describe('a store that can not be reached', () => {
  test('makes it stale, and the value stays; what was missed comes, and it is fresh', async (finish) => {
    const namespace = uniqueName('coord');
    const server = MemoryServer.of(namespace);
    const { config } = await client(finish, `memory://${namespace}`);
    await config.set(at.own, { max: 2 });
    const ref = await config.open(definition);
    const told = heard(ref);
    server.setAway(true);
    await until('stale', () => ref.stale);
    expect(ref.value).toEqual({ max: 2 });
    server.setAway(false);
    for (const max of [3, 4, 5]) await config.set(at.own, { max });
    await until('the last, fresh', () => told.includes('fresh') && ref.value.max === 5);
    // It was written where the store was there again, so it may have been read in between; what is written while it is away comes as
    // one change (faults.test.ts).
    const values = told.filter((one) => one !== 'stale' && one !== 'fresh').map((one) => (one as { max: number }).max);
    expect([ref.stale, told[0], values]).toEqual([false, 'stale', [...values].sort()]);
    const before = told.length;
    server.wipe();
    await until('the default', () => ref.source === 'default');
    expect(told.slice(before)).toEqual(expect.arrayContaining(['reset', { max: 1 }]));
    expect(told.indexOf('reset')).toBeLessThan(told.length - 1);
  });

  test('at the start: it does with the default until it is there, and without one it says who was asked', async (finish) => {
    const namespace = uniqueName('coord');
    const server = MemoryServer.of(namespace);
    server.setAway(true);
    const { config } = await client(finish, `memory://${namespace}`, { lazy: true, connectTimeoutMs: 200 });
    const refused = await failure(config.open(defineConfig({ key: '/config/a', schema: limits })));
    expect(refused).toMatchObject({ code: 'ERR_UNAVAILABLE', operation: 'open', key: '/config/a' });
    expect(refused.message).toContain('the memory server is away');
    const ref = await config.open(definition);
    const told = heard(ref);
    expect([ref.value, ref.stale, ref.source, ref.revision]).toEqual([{ max: 1 }, true, 'default', 0n]);
    server.setAway(false);
    await config.set(at.own, { max: 2 });
    await until('fresh', () => told.includes('fresh'));
    expect([ref.stale, ref.source]).toEqual([false, 'store']);
    expect(told.slice(-2)).toEqual([{ max: 2 }, 'fresh']);
  });

  test('an abort ends the wait of who opens', async (finish) => {
    const namespace = uniqueName('coord');
    MemoryServer.of(namespace).setAway(true);
    const { config } = await client(finish, `memory://${namespace}`, { lazy: true });
    const abort = new AbortController();
    const opening = failure(config.open(definition, { signal: abort.signal }));
    abort.abort(new Error('enough'));
    expect(await opening).toMatchObject({ code: 'ERR_ABORTED', name: 'AbortError', operation: 'open' });
  });
});
