// What is promised of doing things once, on every store.
import { setTimeout as sleep } from 'node:timers/promises';
import { KeyReusedError, type Once, type Run, TakenOverError } from 'rollcall/once';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { failure, until } from '../coord/kit.js';
import { uniqueName } from '../support/process.js';
import { gate, onceOf, type Place, SHARED, STORES } from './kit.js';

const TTL_MS = 60_000;
const places = new Map<string, Place>();

beforeAll(async () => {
  await Promise.all(SHARED.map(async ([name, start]) => places.set(name, await start())));
});
afterAll(() => Promise.all([...places.values()].map((place) => place.close())));

/** A function that counts, and ends when it is told to. */
function counting(): { fn: (run: Run) => Promise<number>; runs: Run[]; end(): void; begun: Promise<void> } {
  const runs: Run[] = [];
  const [over, begun] = [gate(), gate()];
  const fn = async (run: Run) => {
    runs.push(run);
    begun.open();
    await over.passed;
    return runs.length;
  };
  return { fn, runs, end: over.open, begun: begun.passed };
}

const never = () => {
  throw new Error('it is not to be run');
};

describe.each(STORES)('%s', (name, storeOf) => {
  const key = () => uniqueName('key');
  const make = async (finish: Parameters<typeof storeOf>[0]): Promise<Once> =>
    onceOf(finish, await storeOf(finish, places));

  test('who comes while it runs waits for it, and who comes later is given what came of it', async (finish) => {
    const once = await make(finish);
    const at = key();
    const { fn, runs, end, begun } = counting();
    const all = Array.from({ length: 20 }, () => once.execute(at, TTL_MS, fn));
    await begun;
    const late = once.do(at, TTL_MS, never);
    expect((await once.inspect(at))?.state).toBe('running');
    end();
    expect(await Promise.all(all)).toEqual(Array(20).fill(1));
    expect(await late).toBe('done');
    expect(runs.length).toBe(1);
    expect(await once.execute(at, TTL_MS, never)).toBe(1);
    expect(await once.inspect(at)).toMatchObject({ state: 'done', result: 1 });
    expect((await once.inspect(at))?.expiresInMs).toBeGreaterThan(TTL_MS - 10_000);
    expect(await once.inspect(key())).toBe(null);
  });

  test('do() tells whether it ran, and keeps no result', async (finish) => {
    const once = await make(finish);
    const at = key();
    expect(await once.do(at, TTL_MS, () => 10n)).toBe('ran');
    expect(await once.do(at, TTL_MS, never)).toBe('done');
    expect(await once.execute(at, TTL_MS, never)).toBe(undefined);
  });

  test('what fails is run again by the next call; who waits here is told of the failure', async (finish) => {
    const once = await make(finish);
    const at = key();
    const { open, passed } = gate();
    const failing = () => passed.then(() => Promise.reject(new RangeError('no stock')));
    const both = [once.execute(at, TTL_MS, failing), once.execute(at, TTL_MS, never)].map(failure);
    await until('its run', async () => (await once.inspect(at))?.state === 'running');
    open();
    for (const error of await Promise.all(both)) expect(error).toBeInstanceOf(RangeError);
    expect(await once.inspect(at)).toBe(null);
    expect(await once.execute(at, TTL_MS, () => 2)).toBe(2);
  });

  test('a failure that is to be kept is given to all who call', async (finish) => {
    const once = await make(finish);
    const at = key();
    const thrown = Object.assign(new RangeError('no stock'), { code: 'NO_STOCK', status: 409, secret: {} });
    const cacheErrors = (error: unknown) => (error as { status?: number }).status === 409;
    expect(await failure(once.execute(at, TTL_MS, () => Promise.reject(thrown), { cacheErrors }))).toBe(thrown);
    const again = await failure(once.execute(at, TTL_MS, never));
    expect(again).toMatchObject({ name: 'RangeError', message: 'no stock', code: 'NO_STOCK', status: 409 });
    expect(Object.keys(again)).toEqual(['code', 'status']);
    expect((await once.inspect(at))?.state).toBe('failed');
    const throwing = () => {
      throw new Error('the judge');
    };
    const other = key();
    expect(await failure(once.do(other, TTL_MS, () => Promise.reject(thrown), { cacheErrors: throwing }))).toBe(thrown);
    expect(await once.inspect(other)).toBe(null);
  });

  test('of a failure that is larger than what is kept, the beginning is kept', async (finish) => {
    const once = await make(finish);
    const at = key();
    const thrown = Object.assign(new RangeError('m'.repeat(2 << 20)), { code: 'LARGE' });
    const call = () => once.do(at, TTL_MS, () => Promise.reject(thrown), { cacheErrors: () => true });
    expect(await failure(call())).toBe(thrown);
    expect(await failure(once.do(at, TTL_MS, never))).toMatchObject({ name: 'RangeError', message: 'm'.repeat(1000) });
  });

  test('whatever is thrown comes to who calls, also what can’t be read, and the next call runs it', async (finish) => {
    const once = await make(finish);
    const throwing = () => {
      throw new Error('not to be read');
    };
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    const all: unknown[] = [
      ...[undefined, Symbol('thrown'), Object.create(null), { message: Object.create(null) }, proxy],
      ...['message', 'name', 'field'].map((name) =>
        Object.defineProperty(new Error('a'), name, { get: throwing, enumerable: true }),
      ),
    ];
    for (const thrown of all) {
      for (const isKept of [false, true]) {
        const at = key();
        const call = once.execute(at, TTL_MS, () => Promise.reject(thrown), { cacheErrors: () => isKept });
        const told = await call.then(
          () => 'nothing',
          (error: unknown) => [error],
        );
        expect(Array.isArray(told) && Object.is(told[0], thrown)).toBe(true);
        if (isKept) expect(await failure(once.execute(at, TTL_MS, never))).toBeInstanceOf(Error);
        else expect(await once.execute(at, TTL_MS, () => 'well')).toBe('well');
      }
    }
  });

  test('the same key for something else is refused, while it runs and later, and nothing is run', async (finish) => {
    const once = await make(finish);
    const at = key();
    const { fn, end, begun } = counting();
    const first = once.execute(at, TTL_MS, fn, { fingerprint: 'amount=10' });
    const atOnce = failure(once.execute(at, TTL_MS, never, { fingerprint: 'amount=20' })); // before anything is claimed
    await begun;
    const other = { fingerprint: 'amount=10000' };
    for (const error of [await atOnce, await failure(once.execute(at, TTL_MS, never, other))]) {
      expect(error).toBeInstanceOf(KeyReusedError);
      expect(error).toMatchObject({ code: 'ERR_KEY_REUSED', retryable: false, key: at });
    }
    end();
    await first;
    expect(await failure(once.execute(at, TTL_MS, never, other))).toMatchObject({ code: 'ERR_KEY_REUSED' });
    const same = { fingerprint: Buffer.from('amount=10') };
    expect(await once.execute(at, TTL_MS, never, same)).toBe(1);
  });

  test('who does not want to wait is told at once, who waits too long is told then, and who leaves stops nothing', async (finish) => {
    const once = await make(finish);
    const at = key();
    const { fn, runs, end, begun } = counting();
    const leaving = new AbortController();
    const left = failure(once.execute(at, TTL_MS, fn, { signal: leaving.signal }));
    await begun;
    const refused = await failure(once.do(at, TTL_MS, never, { whenRunning: 'reject' }));
    expect(refused).toMatchObject({ code: 'ERR_IN_PROGRESS', retryable: true, retryAfterMs: 1000 });
    expect(await failure(once.do(at, TTL_MS, never, { joinTimeoutMs: 50 }))).toMatchObject({ code: 'ERR_IN_PROGRESS' });
    const waiting = new AbortController();
    const waits = failure(once.do(at, TTL_MS, never, { signal: waiting.signal }));
    waiting.abort();
    const gone = await waits;
    expect(gone).toMatchObject({ code: 'ERR_ABORTED' });
    expect(gone.outcomeUnknown).toBe(undefined);
    leaving.abort(new Error('the client hung up'));
    expect(await left).toMatchObject({ code: 'ERR_ABORTED', outcomeUnknown: true, cause: leaving.signal.reason });
    expect(runs[0]?.signal.aborted).toBe(false);
    const late = once.execute(at, TTL_MS, never);
    end();
    expect(await late).toBe(1);
  });

  test('tokens grow, through clear() and the end of the time, and the record is forgotten then', async (finish) => {
    const once = await make(finish);
    const at = key();
    const tokens: bigint[] = [];
    const fn = ({ token, attempt }: Run) => {
      expect(attempt).toBe(1);
      tokens.push(token);
    };
    await once.do(at, TTL_MS, fn);
    expect(await once.clear(at)).toBe(true);
    expect(await once.clear(at)).toBe(false);
    await once.do(at, 100, fn);
    await until('the end of its time', async () => (await once.inspect(at)) === null);
    expect(await once.do(at, TTL_MS, fn)).toBe('ran');
    expect(tokens).toEqual(tokens.toSorted((a, b) => Number(a - b)));
    expect(new Set(tokens).size).toBe(3);
    expect(tokens[0]).toBeGreaterThan(0n);
  });

  test('clear() while it runs is refused, and with force that run is lost and what came of it dropped', async (finish) => {
    const once = await make(finish);
    const at = key();
    const { fn, runs, end, begun } = counting();
    const lost = failure(once.execute(at, TTL_MS, fn));
    await begun;
    expect(await failure(once.clear(at))).toMatchObject({ code: 'ERR_IN_PROGRESS', key: at });
    expect(await once.clear(at, { force: true })).toBe(true);
    if (places.has(name)) {
      const other = onceOf(finish, await storeOf(finish, places));
      expect(await other.do(at, TTL_MS, () => {})).toBe('ran');
    }
    end();
    const error = await lost;
    expect(error).toBeInstanceOf(TakenOverError);
    expect(error).toMatchObject({ code: 'ERR_TAKEN_OVER', token: runs[0]?.token, key: at });
  });

  test('the time of a key ends while it runs: nobody else runs it', async (finish) => {
    const once = await make(finish);
    const at = key();
    const { fn, runs, end, begun } = counting();
    const slow = once.execute(at, 20, fn, { lockMs: 1000 });
    await begun;
    await sleep(1500); // beyond its time, and beyond a lock that would not be renewed
    expect(await failure(once.do(at, 20, never, { whenRunning: 'reject' }))).toMatchObject({ code: 'ERR_IN_PROGRESS' });
    end();
    expect(await slow).toBe(1);
    expect(runs[0]?.signal.aborted).toBe(false);
  });

  test('keys of other scopes are other keys', async (finish) => {
    const once = await make(finish);
    const at = key();
    const ran = async (scope?: string, of = at) => await once.do(of, TTL_MS, () => {}, { scope });
    expect(await Promise.all([ran(), ran('a'), ran('b'), ran(undefined, `@1:a:${at}`)])).toEqual(Array(4).fill('ran'));
    expect(await ran('a')).toBe('done');
    expect(await once.clear(at, { scope: 'a' })).toBe(true);
    expect(await ran('b')).toBe('done');
    expect(await ran('a')).toBe('ran');
  });

  test('keys of any characters are told apart', async (finish) => {
    const once = await make(finish);
    const names = [
      '.',
      '..',
      '/',
      '//',
      'a/b',
      'a%2fb',
      '订单/一',
      ' ',
      '\n',
      '\0',
      `${'/'.repeat(255)}`,
      '€'.repeat(85),
    ];
    const scope = key();
    for (const one of names) expect(await once.do(one, TTL_MS, () => {}, { scope })).toBe('ran');
    for (const one of names) expect(await once.do(one, TTL_MS, never, { scope })).toBe('done');
  });

  test('results come back as they were, or are refused by name: then it is done, without a result', async (finish) => {
    const once = await make(finish);
    const cycle: Record<string, unknown> = {};
    cycle.again = cycle;
    const good = [undefined, null, 0, -1.5, '', 'ü\ud800', true, [], [[null]], {}, { a: { b: [1, 'x'] }, 'c d': null }];
    for (const value of good) {
      const at = key();
      expect(await once.execute(at, TTL_MS, () => value)).toEqual(value);
      expect(await once.execute(at, TTL_MS, never)).toEqual(value);
    }
    class Rows extends Array<number> {}
    const wrong: [unknown, string][] = [
      [10n, 'result: expected what JSON gives back as it was, got a bigint'],
      [{ at: new Date(0) }, 'result.at: expected what JSON gives back as it was, got a Date'],
      [[1, { a: undefined }], 'result[1].a: expected what JSON gives back as it was, got undefined'],
      [{ 'a b': () => {} }, 'result[…]: expected what JSON gives back as it was, got a function'],
      [cycle, 'result.again: expected what JSON gives back as it was, got what it lies in itself'],
      [[Number.NaN], 'result[0]: expected what JSON gives back as it was, got NaN'],
      [new Array(1), 'result[0]: expected what JSON gives back as it was, got undefined'],
      [new Map(), 'result: expected what JSON gives back as it was, got a Map'],
      [Buffer.from('x'), 'result: expected what JSON gives back as it was, got a Buffer'],
      [Rows.of(1), 'result: expected what JSON gives back as it was, got a Rows'],
      [
        Object.defineProperty([1], 'toJSON', { value: () => 'x' }),
        'result: expected what JSON gives back as it was, got an array',
      ],
      [Object.assign([1], { [Symbol('count')]: 1 }), 'result: expected what JSON gives back as it was, got an array'],
      [
        Object.defineProperty({}, 'hidden', { value: 1 }),
        'result: expected what JSON gives back as it was, got an object',
      ],
      ['x'.repeat(300 * 1024), 'result: expected at most'],
    ];
    for (const [value, message] of wrong) {
      const at = key();
      const errors = [
        await failure(once.execute(at, TTL_MS, () => value)),
        await failure(once.execute(at, TTL_MS, never)),
      ];
      for (const error of errors) {
        expect(error).toMatchObject({ code: 'ERR_INVALID_ARGUMENT', message: expect.stringContaining(message) });
        expect(error.message).toContain('It was done');
      }
      expect(await once.do(at, TTL_MS, never)).toBe('done');
      expect((await once.inspect(at))?.refused).toContain(message);
      expect(await once.resolve(at, 'by hand')).toBe(true);
      expect(await once.execute(at, TTL_MS, never)).toBe('by hand');
      expect(await once.resolve(at, 'again')).toBe(false);
    }
  });

  test('close() ends the waits, waits for what runs, and takes no more', async (finish) => {
    const once = await make(finish);
    const at = key();
    const { fn, end, begun } = counting();
    const running = once.execute(at, TTL_MS, fn);
    await begun;
    const waits = failure(once.execute(at, TTL_MS, never));
    const closing = once.close();
    expect(await waits).toMatchObject({ code: 'ERR_CLOSED' });
    for (const late of [once.do(at, TTL_MS, never), once.clear(at), once.resolve(at), once.inspect(at)]) {
      expect(await failure(late as Promise<unknown>)).toMatchObject({ code: 'ERR_CLOSED' });
    }
    end();
    expect(await running).toBe(1);
    await closing;
    await once.close();
  });
});
