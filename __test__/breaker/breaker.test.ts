// A breaker by itself: when it opens, whom it lets try, what counts, and what a change of its policy leaves as it was.
import { setTimeout as sleep } from 'node:timers/promises';
import { type Breaker, BreakerOpenError, type Breakers, createBreakers, type Policy } from 'rollcall/breaker';
import { expect, it, onTestFinished, vi } from 'vitest';
import { changing as changingValue } from '../support/changing.js';
import { waitFor } from '../support/process.js';

const boom = new Error('boom');
const fails = () => Promise.reject(boom);
const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => undefined,
    (error) => error,
  );

/** Policies that change. */
const changing = (first: Record<string, unknown>) => changingValue(first as Record<string, Policy>);

const one = (policy: Policy, options = {}) =>
  createBreakers({ default: policy, logger: false, ...options }).get('users');

async function opened(breaker: Breaker, failures = 5): Promise<void> {
  for (let i = 0; i < failures; i++) expect(await failure(breaker.do(fails))).toBe(boom);
  expect(breaker.state).toBe('open');
}

/** Calls that end when they are told to. */
function pending() {
  const ends: { resolve(value: unknown): void; reject(error: unknown): void }[] = [];
  return {
    ends,
    call: () => new Promise((resolve, reject) => void ends.push({ resolve, reject })),
  };
}

it('opens after failures in a row, refuses without a call, and says when to come again', async () => {
  const breaker = one({ failureThreshold: 3, openStateTimeout: '1m' });
  expect(breaker.state).toBe('closed');
  await failure(breaker.do(fails));
  await failure(breaker.do(fails));
  expect(await breaker.do(() => 'fine')).toBe('fine');
  expect(breaker.stats.consecutiveFailures).toBe(0);
  await opened(breaker, 3);
  let calls = 0;
  const refused = await failure(breaker.do(() => ++calls));
  expect(refused).toBeInstanceOf(BreakerOpenError);
  expect(refused).toMatchObject({ code: 'ERR_BREAKER_OPEN', breaker: 'users', retryable: true, operation: 'do' });
  expect(refused.retryAfterMs).toBeGreaterThan(50_000);
  expect(refused.retryAfterMs).toBeLessThanOrEqual(60_000);
  expect(refused.message).toMatch(/^breaker users is open; it may let a call through in \d+ ms$/);
  expect(calls).toBe(0);
  expect(await breaker.do(() => 'none', { fallback: (error) => error.code })).toBe('ERR_BREAKER_OPEN');
});

it('of 100 callers exactly so many try it while it is half open, and so many successes close it', async () => {
  const breaker = one({ failureThreshold: 1, openStateTimeout: 20, successThreshold: 3, maxProbes: 2 });
  await opened(breaker, 1);
  await sleep(25);
  const { ends, call } = pending();
  const all = Array.from({ length: 100 }, () => failure(breaker.do(call)));
  await waitFor(() => ends.length > 0, { what: 'a call' });
  expect([ends.length, breaker.state, breaker.stats.probes]).toEqual([2, 'half-open', 2]);
  for (const { resolve } of ends) resolve(1);
  const errors = (await Promise.all(all)).filter(Boolean);
  expect(errors.length).toBe(98);
  expect(errors.every(({ code, retryAfterMs }) => code === 'ERR_BREAKER_OPEN' && retryAfterMs <= 20)).toBe(true);
  expect([breaker.state, breaker.stats.successes]).toEqual(['half-open', 2]);
  await breaker.do(() => 1);
  expect(breaker.state).toBe('closed');
});

it('a failure of one that tries opens it anew, and the others do not count any more', async () => {
  const breaker = one({ failureThreshold: 1, openStateTimeout: 20, successThreshold: 2 });
  await opened(breaker, 1);
  await sleep(25);
  const { ends, call } = pending();
  const all = [failure(breaker.do(call)), failure(breaker.do(call))];
  await waitFor(() => ends.length === 2, { what: 'both' });
  ends[0]?.reject(boom);
  expect(await all[0]).toBe(boom);
  expect(breaker.state).toBe('open');
  ends[1]?.resolve(1);
  await all[1];
  expect([breaker.state, breaker.stats.successes]).toEqual(['open', 0]);
});

it('what began before it opened changes nothing when it ends', async () => {
  const breaker = one({ failureThreshold: 1, openStateTimeout: 20, successThreshold: 1 });
  const { ends, call } = pending();
  const late = [failure(breaker.do(call)), failure(breaker.do(call))];
  await opened(breaker, 1);
  await sleep(25);
  await breaker.do(() => 1);
  expect(breaker.state).toBe('closed');
  ends[0]?.reject(boom);
  ends[1]?.reject(boom);
  await Promise.all(late);
  expect([breaker.state, breaker.stats.consecutiveFailures]).toEqual(['closed', 0]);
});

it('one that tries it and never ends does not hold it for ever', async () => {
  const breaker = one({ failureThreshold: 1, openStateTimeout: 20, successThreshold: 1 });
  await opened(breaker, 1);
  await sleep(25);
  const { call } = pending();
  void breaker.do(call);
  expect((await failure(breaker.do(() => 1))).message).toContain('half open, and enough calls try');
  await sleep(25);
  expect(await failure(breaker.do(() => 1))).toMatchObject({ code: 'ERR_BREAKER_OPEN', retryAfterMs: 20 });
  await sleep(25);
  expect(await breaker.do(() => 1)).toBe(1);
  expect(breaker.state).toBe('closed');
});

it('one that never ends is a failure after its time, also where there is room for another', async () => {
  const breaker = one({ failureThreshold: 1, openStateTimeout: 20, successThreshold: 1, maxProbes: 2 });
  await opened(breaker, 1);
  await sleep(25);
  breaker.acquire(); // and never told
  await sleep(25);
  expect(await failure(breaker.do(() => 1))).toMatchObject({ code: 'ERR_BREAKER_OPEN', retryAfterMs: 20 });
});

it('who is told that it is half open may call: one that opens it anew by that is not called through', async () => {
  const breakers = createBreakers({
    default: { failureThreshold: 1, openStateTimeout: 20, successThreshold: 1 },
    logger: false,
  });
  const breaker = breakers.get('users');
  await opened(breaker, 1);
  await sleep(25);
  breakers.on('state', ({ to }) => {
    if (to === 'half-open') breaker.acquire().done({ error: boom });
  });
  let calls = 0;
  expect(await failure(breaker.do(() => ++calls))).toMatchObject({ code: 'ERR_BREAKER_OPEN' });
  expect([calls, breaker.state, breaker.stats.probes]).toEqual([0, 'open', 0]);
});

it('a policy that changes while it is open leaves its state, and its time counts from when it opened', async () => {
  const ref = changing({ users: { failureThreshold: 2, openStateTimeout: '1h' } });
  const breakers = createBreakers({ policies: ref, logger: false });
  const breaker = breakers.get('users');
  const { ends, call } = pending();
  const flying = failure(breaker.do(call));
  await opened(breaker, 2);
  ref.set({ users: { failureThreshold: 10, openStateTimeout: '30m' } });
  expect(breaker.state).toBe('open');
  const refused = await failure(breaker.do(() => 1));
  expect(refused.retryAfterMs).toBeLessThanOrEqual(1_800_000);
  ends[0]?.resolve(1);
  await flying;
  expect(breaker.state).toBe('open');
  ref.set({ users: { openStateTimeout: 1, successThreshold: 1 } });
  await sleep(5);
  expect(await breaker.do(() => 1)).toBe(1);
  breakers.close();
  expect(ref.listeners.size).toBe(0);
});

it('a window keeps what it has counted when its rules change', async () => {
  const ref = changing({ users: { failureThreshold: 100, window: { type: 'count', size: 10, failureRate: 0.9 } } });
  const breaker = createBreakers({ policies: ref, logger: false }).get('users');
  for (let i = 0; i < 8; i++) await failure(breaker.do(i % 2 === 0 ? fails : () => 1));
  expect(breaker.stats).toMatchObject({ calls: 8, failures: 4 });
  ref.set({ users: { failureThreshold: 100, window: { type: 'count', size: 20, minCalls: 9, failureRate: 0.5 } } });
  expect(breaker.state).toBe('closed');
  await failure(breaker.do(fails));
  expect(breaker.state).toBe('open');
});

it('a window that shrinks has the latest', async () => {
  const window = (size: number, minCalls = size) => ({
    users: { failureThreshold: 100, window: { type: 'count' as const, size, minCalls, failureRate: 1 } },
  });
  const ref = changing(window(10));
  const breaker = createBreakers({ policies: ref, logger: false }).get('users');
  for (let i = 0; i < 13; i++) await failure(breaker.do((i > 0 && i < 10) || i === 12 ? fails : () => 1));
  expect(breaker.stats).toMatchObject({ calls: 10, failures: 8 });
  ref.set(window(3));
  expect(breaker.stats).toMatchObject({ calls: 3, failures: 1 });
});

it('a window of a time that shrinks has the latest', async () => {
  const window = (size: number) => ({
    users: { failureThreshold: 100, window: { type: 'time' as const, size, minCalls: 100, failureRate: 1 } },
  });
  const ref = changing(window(1_000_000));
  const breaker = createBreakers({ policies: ref, logger: false }).get('users');
  await failure(breaker.do(fails));
  await sleep(1100);
  await failure(breaker.do(fails));
  ref.set(window(1000));
  expect(breaker.stats.calls).toBeGreaterThan(0);
  await waitFor(() => breaker.stats.calls === 0, { what: 'it to be forgotten' });
});

it('opens by a share of the calls of a time, and forgets those that are older', async () => {
  const window = { type: 'time' as const, size: 1000, minCalls: 4, failureRate: 0.5 };
  const breaker = one({ failureThreshold: 100, window });
  await failure(breaker.do(fails));
  await failure(breaker.do(fails));
  await sleep(1050);
  for (let i = 0; i < 3; i++) await breaker.do(() => 1);
  await failure(breaker.do(fails));
  expect([breaker.state, breaker.stats.calls, breaker.stats.failures]).toEqual(['closed', 4, 1]);
  await failure(breaker.do(fails));
  await failure(breaker.do(fails));
  expect(breaker.state).toBe('open');
});

it('opens by calls that are slow, whatever became of them', async () => {
  const window = { type: 'count' as const, size: 3, slowCallMs: 5, slowRate: 0.6 };
  const breaker = one({ window });
  await breaker.do(() => 1);
  await breaker.do(() => sleep(15));
  expect(breaker.state).toBe('closed');
  await breaker.do(() => sleep(15));
  expect([breaker.state, breaker.stats.openForMs >= 0]).toEqual(['open', true]);
});

it('a call that takes too long is a failure, and hears of it; one that its caller ends is neither', async () => {
  const breaker = one({ failureThreshold: 1, timeoutMs: 20 });
  const aborting = new AbortController();
  const aborted = failure(breaker.do(() => new Promise(() => {}), { signal: aborting.signal }));
  aborting.abort(new Error('gone'));
  expect(await aborted).toMatchObject({ code: 'ERR_ABORTED', cause: { message: 'gone' } });
  expect(breaker.state).toBe('closed');
  expect(await failure(breaker.do(() => 1, { signal: aborting.signal }))).toMatchObject({ code: 'ERR_ABORTED' });
  let heard: unknown;
  const late = await failure(
    breaker.do(({ signal }) => {
      signal.addEventListener('abort', () => {
        heard = signal.reason;
      });
      return new Promise(() => {});
    }),
  );
  expect(late).toMatchObject({ code: 'ERR_TIMEOUT', message: 'breaker users: the call took longer than 20 ms' });
  expect(heard).toBe(late);
  expect(breaker.state).toBe('open');
});

it.each([
  ['AbortError', new DOMException('x', 'AbortError')],
  ['ERR_ABORTED', Object.assign(new Error('x'), { code: 'ERR_ABORTED' })],
  ['ERR_CANCELED, of axios', Object.assign(new Error('x'), { code: 'ERR_CANCELED' })],
  ['CANCELLED, of gRPC', Object.assign(new Error('x'), { code: 1 })],
])('a call that its caller has ended counts neither way: %s', async (_, error) => {
  const ends = () => Promise.reject(error);
  const breaker = one({ failureThreshold: 3, openStateTimeout: 20, successThreshold: 2 });
  for (const call of [fails, fails, ends]) await failure(breaker.do(call));
  expect(breaker.stats.consecutiveFailures).toBe(2);
  await opened(breaker, 1);
  await sleep(25);
  for (let i = 0; i < 3; i++) expect(await failure(breaker.do(ends))).toBe(error);
  expect([breaker.state, breaker.stats.successes, breaker.stats.probes]).toEqual(['half-open', 0, 0]);
  const judged = one({ failureThreshold: 1 }, { isFailure: () => true });
  await failure(judged.do(ends));
  expect(judged.state, 'unless it is told to').toBe('open');
});

it.each([
  ['a plain error', new Error('x'), true],
  ['what is no error', 'x', true],
  ['a broken connection', Object.assign(new Error('x'), { code: 'ECONNRESET' }), true],
  ['gRPC UNAVAILABLE', Object.assign(new Error('x'), { code: 14 }), true],
  ['gRPC DEADLINE_EXCEEDED', Object.assign(new Error('x'), { code: 4 }), true],
  ['gRPC NOT_FOUND', Object.assign(new Error('x'), { code: 5 }), false],
  ['gRPC INVALID_ARGUMENT', Object.assign(new Error('x'), { code: 3 }), false],
  ['HTTP 503', Object.assign(new Error('x'), { status: 503 }), true],
  ['HTTP 404', Object.assign(new Error('x'), { statusCode: 404 }), false],
  ['an abort', Object.assign(new Error('x'), { name: 'AbortError' }), false],
])('by default %s is a failure or not', async (_, error, isFailure) => {
  const breaker = one({ failureThreshold: 1 });
  await failure(breaker.do(() => Promise.reject(error)));
  expect(breaker.state).toBe(isFailure ? 'open' : 'closed');
});

it('a response of 500 and above is given, and a failure', async () => {
  const breaker = one({ failureThreshold: 2 });
  expect((await breaker.do(() => new Response('', { status: 404 }))).status).toBe(404);
  for (let i = 0; i < 2; i++) expect((await breaker.do(() => new Response('', { status: 503 }))).status).toBe(503);
  expect(breaker.state).toBe('open');
});

it('a value that can not be read is given as it is', async () => {
  const value = {
    get status() {
      throw new Error('of the value');
    },
  };
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  for (const policy of [{ failureThreshold: 1 }, { failureThreshold: 1, timeoutMs: 1000 }]) {
    const breaker = one(policy);
    expect(await breaker.do(() => value)).toBe(value);
    const { error } = (await failure(breaker.do(() => Promise.reject({ error: proxy })))) as { error: unknown };
    expect(error).toBe(proxy);
  }
});

it('isFailure that is async has not said that it is none, and ends no process', async () => {
  const lines: string[] = [];
  const logger = { error: (line: string) => lines.push(line) };
  const isFailure = (async () => Promise.reject(new Error('of isFailure'))) as unknown as () => boolean;
  const unhandled: unknown[] = [];
  const hear = (error: unknown) => void unhandled.push(error);
  process.on('unhandledRejection', hear);
  onTestFinished(() => void process.off('unhandledRejection', hear));
  const breaker = one({ failureThreshold: 2 }, { isFailure, logger });
  await opened(breaker, 2);
  await sleep(5);
  expect([unhandled, lines.length]).toEqual([[], 1]);
  expect(lines[0]).toMatch(/isFailure failed, which is said once: .*of isFailure/);
});

it('a permit that is told null for an error is of a success; what is no object is refused', () => {
  const breaker = one({ failureThreshold: 1 });
  breaker.acquire().done({ error: null });
  for (const [wrong, got] of [
    [boom, 'an error: write done({ error })'],
    [null, 'null'],
    ['boom', 'string'],
  ]) {
    expect(() => breaker.acquire().done(wrong as never)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', message: `outcome: expected an object, got ${got}` }),
    );
  }
  expect([breaker.state, breaker.stats.consecutiveFailures]).toEqual(['closed', 0]);
});

it('the signal of a call is its own: what listens to it goes with the call', async () => {
  const breaker = one({});
  const signals = [await breaker.do(({ signal }) => signal), await breaker.do(({ signal }) => signal)];
  expect(signals[0]).not.toBe(signals[1]);
  await breaker.do((context) => expect(context.signal).toBe(context.signal));
});

it('isFailure decides; one that throws has not said that it is none', async () => {
  const isFailure = (error: unknown) => {
    if (error === boom) return false;
    throw new Error('no');
  };
  const breaker = one({ failureThreshold: 1 }, { isFailure });
  await failure(breaker.do(fails));
  expect(breaker.state).toBe('closed');
  await failure(breaker.do(() => Promise.reject(new Error('other'))));
  expect(breaker.state).toBe('open');
});

it('is held open, and held closed, by its policy, and goes on as it was', async () => {
  const ref = changing({});
  const breaker = createBreakers({ policies: ref, logger: false }).get('users');
  ref.set({ users: { force: 'open', openStateTimeout: '2s' } });
  expect(breaker.state).toBe('open');
  expect(await failure(breaker.do(() => 1))).toMatchObject({ retryAfterMs: 2000, message: /held open/ });
  ref.set({ users: { force: null } });
  expect(await breaker.do(() => 1)).toBe(1);
  ref.set({ users: { force: 'closed', failureThreshold: 1 } });
  for (let i = 0; i < 5; i++) expect(await failure(breaker.do(fails))).toBe(boom);
  expect(breaker.state).toBe('closed');
  ref.set({ users: { failureThreshold: 1 } });
  expect(await failure(breaker.do(fails))).toBe(boom);
  expect(breaker.state).toBe('open');
});

it('a policy that is wrong is refused and told, those beside it change; one that is gone leaves the default', async () => {
  const ref = changing({
    a: { failureThreshold: 1 },
    'b.json': { failureThreshold: 1 },
    default: { failureThreshold: 7 },
  });
  const breakers = createBreakers({ policies: ref, logger: false });
  const refused: [string, string][] = [];
  breakers.on('refused', (name, error) => refused.push([name, error.message]));
  ref.set({ a: { failureThreshold: 'two' }, default: { failureThreshold: 3 } });
  expect(refused).toEqual([
    ['a', 'policies.a.failureThreshold: expected a whole number from 1 to 1000000, got string'],
  ]);
  await opened(breakers.get('a'), 1);
  await opened(breakers.get('b'), 3);
  ref.set('nothing');
  expect(refused[1]?.[0]).toBe('');
  await opened(breakers.get('c'), 3);
});

it('of 10,000 names it keeps as many as it may, and first those that are not closed', async () => {
  const breakers: Breakers = createBreakers({ maxKeys: 100, default: { failureThreshold: 1 }, logger: false });
  const open = breakers.get('open');
  await opened(open, 1);
  const recent = breakers.get('recent');
  for (let i = 0; i < 10_000; i++) {
    breakers.get(`name ${i}`);
    breakers.get('recent');
  }
  expect(breakers.get('open')).toBe(open);
  expect(breakers.get('recent')).toBe(recent);
  const first = breakers.get('name 9999');
  expect(breakers.get('name 9999')).toBe(first);
});

it('forgets the one that was asked for the longest ago, also by what was asked before there were as many as may be', () => {
  const breakers = createBreakers({ maxKeys: 3, logger: false });
  const [a, b] = [breakers.get('a'), breakers.get('b')];
  breakers.get('a');
  breakers.get('c');
  breakers.get('d');
  expect(breakers.get('a')).toBe(a);
  expect(breakers.get('b')).not.toBe(b);
});

it('a policy without a name is none for others', () => {
  const breakers = createBreakers({ policies: { '.json': { force: 'open' } }, logger: false });
  expect([breakers.get('users').state, breakers.get('/users').state]).toEqual(['closed', 'closed']);
});

it('tells each change of state and each refusal', async () => {
  const breakers = createBreakers({
    default: { failureThreshold: 1, openStateTimeout: 10, successThreshold: 1 },
    logger: false,
  });
  const told: string[] = [];
  breakers.on('state', ({ name, from, to, why }) => told.push(`${name}: ${from} → ${to}, ${why}`));
  breakers.on('rejected', ({ breaker }) => told.push(`${breaker} refused`));
  const breaker = breakers.get('users');
  await opened(breaker, 1);
  await failure(breaker.do(() => 1));
  await sleep(15);
  await breaker.do(() => 1);
  expect(told).toEqual([
    'users: closed → open, 1 calls in a row failed',
    'users refused',
    'users: open → half-open, its time is over',
    'users: half-open → closed, 1 calls succeeded',
  ]);
});

it('a listener that throws is logged, and harms neither the call nor the others; an event that is unknown is refused', async () => {
  const logged: string[] = [];
  const logger = { error: (message: string) => logged.push(message) };
  const breakers = createBreakers({ default: { failureThreshold: 1 }, logger });
  const told: string[] = [];
  breakers.on('state', () => {
    throw new Error('of the listener');
  });
  breakers.on('state', ({ to }) => told.push(to));
  await opened(breakers.get('users'), 1);
  expect(told).toEqual(['open']);
  expect(logged.map((text) => text.split('\n')[0])).toEqual([
    'rollcall: a listener of "state" failed: Error: of the listener',
  ]);
  expect(() => breakers.on('sate' as never, () => {})).toThrow(
    /^event: expected one of "state".*did you mean "state"\?$/,
  );
});

it('goes by the monotonic clock: a wall clock that is set back an hour keeps nothing open', async () => {
  const breaker = one({ failureThreshold: 1, successThreshold: 1, openStateTimeout: 50 });
  vi.useFakeTimers({ toFake: ['Date'] });
  onTestFinished(() => void vi.useRealTimers());
  await opened(breaker, 1);
  vi.setSystemTime(Date.now() - 3_600_000);
  expect(await waitFor(() => breaker.do(() => 'back'), { timeoutMs: 5000 })).toBe('back');
  expect(breaker.state).toBe('closed');
});

it('gives a signal that has fired to a call that asks for it after its time', async () => {
  const breaker = one({ timeoutMs: 10 });
  let context: { readonly signal: AbortSignal } | undefined;
  const late = failure(
    breaker.do((given) => {
      context = given;
      return new Promise(() => {});
    }),
  );
  expect(await late).toMatchObject({ code: 'ERR_TIMEOUT' });
  expect(context?.signal).toMatchObject({ aborted: true, reason: { code: 'ERR_TIMEOUT' } });
});
