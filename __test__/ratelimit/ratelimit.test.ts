// A limiter by itself: whom it lets through, what a change of its rules leaves as it was, and what it refuses to take.
import { createRateLimiter, type Decision, RateLimitedError, type RateRule } from 'rollcall/ratelimit';
import { describe, expect, it, vi } from 'vitest';
import { changing } from '../support/changing.js';
import { admitted, clock, limiter, local } from './kit.js';

const send = (rate: number, capacity: number) => ({ send: local(rate, capacity) });

it('lets a burst through, then by the rate, and says when to come again', (finish) => {
  const { now, pass } = clock();
  const limits = limiter(finish, { rules: send(10, 5), now });
  expect(limits.allowNow('a', 'send')).toEqual({
    allowed: true,
    limit: 5,
    remaining: 4,
    retryAfterMs: 0,
    resetMs: 100,
    rule: 'send',
    by: 'local',
  });
  expect(admitted(limits, 10)).toBe(4);
  const refused = limits.allowNow('a', 'send');
  expect(refused).toMatchObject({ allowed: false, remaining: 0, retryAfterMs: 100, resetMs: 500 });
  expect(admitted(limits, 10, 'b'), 'another subject').toBe(5);
  pass(refused.retryAfterMs - 1);
  expect(admitted(limits, 3)).toBe(0);
  pass(1);
  expect(admitted(limits, 3), 'when it said').toBe(1);
  pass(10_000);
  expect(admitted(limits, 10), 'never more than the capacity').toBe(5);
});

it('loses and gives nothing by fractions of tokens, however often it is asked', (finish) => {
  for (const [rate, step] of [
    [3, 1000 / 3],
    [0.7, 1000 / 0.7],
    [999_983, 0.37],
  ] as const) {
    const { now, pass } = clock();
    const limits = limiter(finish, { rules: send(rate, 1), now });
    let through = 0;
    for (let i = 0; i < 30_000; i++) {
      if (limits.allowNow('a', 'send').allowed) through++;
      pass(step);
    }
    const most = 1 + (now() - 5) * (rate / 1000);
    expect(through).toBeLessThanOrEqual(most);
    expect(through).toBe(30_000); // a step is at least a token
  }
});

it('lets who waits as long as it said through, however slow a rate', (finish) => {
  for (const rate of [1e-5, 0.001, 0.01 / 3, 0.01, 0.07, 1 / 3, 7.7]) {
    const { now, pass } = clock();
    const limits = limiter(finish, { rules: send(rate, 3), now });
    for (let i = 0; i < 3000; i++) {
      const cost = 0.5 + (i % 7) * 0.4;
      const { allowed, retryAfterMs } = limits.allowNow('a', 'send', cost);
      if (allowed) continue;
      pass(retryAfterMs);
      expect(limits.allowNow('a', 'send', cost), `${cost} by ${rate}`).toMatchObject({ allowed: true });
      pass((i % 13) / 7);
    }
  }
});

it('takes a cost, fractions too, and looks without taking by none', async (finish) => {
  const { now } = clock();
  const limits = limiter(finish, { rules: send(1, 10), now });
  expect(limits.allowNow('a', 'send', 2.5).remaining).toBe(7);
  expect(limits.allowNow('a', 'send', 0)).toMatchObject({ allowed: true, remaining: 7 });
  expect(limits.allowNow('a', 'send', 8)).toMatchObject({ allowed: false, retryAfterMs: 500 });
  expect((await limits.allow('a', 'send', 7.5)).remaining).toBe(0);
});

it('keeps what is consumed when a rule changes: nobody gets a fresh bucket, nor loses one', (finish) => {
  const { now, pass } = clock();
  const rules = changing<Record<string, RateRule>>(send(100, 50));
  const limits = limiter(finish, { rules, now });
  expect(admitted(limits, 40)).toBe(40);
  rules.set(send(10, 50));
  expect(limits.rules().send).toMatchObject({ rate: 10, capacity: 50 });
  expect(admitted(limits, 50), 'the ten that were left').toBe(10);
  pass(1000);
  expect(admitted(limits, 50)).toBe(10);
  rules.set(send(10, 20)); // 50 are consumed, which is more than there now may be
  pass(3000);
  expect(admitted(limits, 50)).toBe(0);
  pass(1000);
  expect(admitted(limits, 50)).toBe(10);
  rules.set(send(1000, 100));
  expect(admitted(limits, 200), 'the 80 more that it may have now').toBe(80);
  pass(50);
  expect(admitted(limits, 200)).toBe(50);
});

it('refuses a rule that is wrong by itself: the one before it stays', (finish) => {
  const { now } = clock();
  const rules = changing<Record<string, RateRule>>({ send: local(1, 3), read: local(1, 5) });
  const limits = limiter(finish, { rules, now });
  const told: string[] = [];
  limits.on('refused', (name, error) => told.push(`${name}: ${error.message}`));
  let changes = 0;
  limits.on('rules', () => changes++);
  rules.set({ send: { mode: 'local', rate: 'ten', capacity: 5 }, read: local(1, 7), more: local(-1, 5) });
  expect(told).toEqual([
    'send: rules.send.rate: expected a number above 0, up to 1000000, got string',
    'more: rules.more.rate: expected a number above 0, up to 1000000, got -1',
  ]);
  expect(changes).toBe(1);
  expect([admitted(limits, 9), admitted(limits, 9, 'a', 'read'), admitted(limits, 9, 'a', 'more')]).toEqual([3, 7, 0]);
  rules.set('none');
  expect(told.at(-1)).toBe(': rules: expected rules by the names of rate limits, got string');
  expect(Object.keys(limits.rules())).toEqual(['send', 'read']);
  limits.close();
  expect(rules.listeners.size).toBe(0);
});

it('denies by a name that no rule has, as the guide says, unless it is told otherwise', (finish) => {
  const { now } = clock();
  const denying = limiter(finish, { rules: {}, now });
  expect(denying.allowNow('a', 'nosuch')).toEqual({
    allowed: false,
    limit: 0,
    remaining: 0,
    retryAfterMs: 1000,
    resetMs: 1000,
    rule: 'nosuch',
    by: 'unknown',
  });
  expect(admitted(limiter(finish, { rules: {}, unknownRule: 'allow', now }), 9)).toBe(9);
  const shared = limiter(finish, { rules: {}, unknownRule: local(1, 2), now });
  expect(admitted(shared, 9, 'a', 'one')).toBe(2);
  expect(admitted(shared, 9, 'a', 'two'), 'each name by itself').toBe(2);
  expect(shared.allowNow('a', 'two').rule).toBe('two');
});

it('lets everything through by a rule in the shadow, and tells what it would have refused', (finish) => {
  const { now } = clock();
  const limits = limiter(finish, { rules: { send: local(1, 2, { shadow: true }) }, now });
  const told: [Decision, string][] = [];
  limits.on('rejected', (...args) => told.push(args));
  expect(admitted(limits, 5)).toBe(5);
  expect(told).toHaveLength(3);
  expect(told[0]).toMatchObject([{ allowed: false, retryAfterMs: 1000, rule: 'send' }, 'a']);
});

it('rejects where an error is wanted, with what a caller needs', async (finish) => {
  const { now } = clock();
  const limits = limiter(finish, { rules: send(2, 1), now });
  expect((await limits.take('a', 'send')).remaining).toBe(0);
  const error = await limits.take('a', 'send').catch((error: unknown) => error);
  expect(error).toBeInstanceOf(RateLimitedError);
  expect(error).toMatchObject({
    name: 'RateLimitedError',
    code: 'ERR_RATE_LIMITED',
    retryable: true,
    retryAfterMs: 500,
    rule: 'send',
    operation: 'take',
    decision: { allowed: false },
  });
});

it('writes the headers that drafts of the IETF and older APIs have', (finish) => {
  const { now } = clock();
  const limits = limiter(finish, { rules: { 'a "b"': local(10, 25), send: local(10, 25) }, now });
  const through = limits.allowNow('a', 'send');
  expect(limits.headers(through)).toEqual({ 'RateLimit-Policy': '"send";q=25;w=3', RateLimit: '"send";r=24;t=1' });
  expect(limits.headers(through, 'draft-7')).toEqual({
    'RateLimit-Policy': '25;w=3',
    RateLimit: 'limit=25, remaining=24, reset=1',
  });
  admitted(limits, 25);
  const refused = limits.allowNow('a', 'send');
  expect(limits.headers(refused)).toEqual({
    'RateLimit-Policy': '"send";q=25;w=3',
    RateLimit: '"send";r=0;t=3',
    'Retry-After': '1',
  });
  const before = Math.floor(Date.now() / 1000);
  const legacy = limits.headers(refused, 'legacy');
  expect(legacy).toMatchObject({ 'X-RateLimit-Limit': '25', 'X-RateLimit-Remaining': '0', 'Retry-After': '1' });
  expect(Number(legacy['X-RateLimit-Reset']) - before).toBeGreaterThanOrEqual(2);
  expect(Number(legacy['X-RateLimit-Reset']) - before).toBeLessThanOrEqual(5);
  expect(limits.headers(limits.allowNow('a', 'a "b"')).RateLimit).toBe('"a \\"b\\"";r=24;t=1');
  expect(limits.headers(limits.allowNow('a', 'nosuch'))).toEqual({ 'Retry-After': '1' });
  expect(() => limits.headers(refused, 'draft-9' as never)).toThrow('style: expected "draft-8" or "draft-7"');
});

it('goes on where the clock is set back by ten seconds: nobody waits longer than the burst takes', (finish) => {
  const { now, pass } = clock();
  const limits = limiter(finish, { rules: send(10, 5), now });
  pass(60_000);
  expect(admitted(limits, 9)).toBe(5);
  pass(-10_000);
  expect(limits.allowNow('a', 'send').retryAfterMs).toBe(100);
  pass(500);
  expect(admitted(limits, 9)).toBe(5);
});

it('does not ask the clock on the wall', (finish) => {
  vi.useFakeTimers({ now: Date.now(), toFake: ['Date'] });
  finish.onTestFinished(() => void vi.useRealTimers());
  const limits = limiter(finish, { rules: send(0.1, 5) });
  expect(admitted(limits, 9)).toBe(5);
  vi.setSystemTime(Date.now() + 3_600_000);
  expect(admitted(limits, 9)).toBe(0);
  vi.setSystemTime(Date.now() - 7_200_000);
  expect(limits.allowNow('a', 'send').retryAfterMs).toBeLessThanOrEqual(10_000);
});

it('believes fewer instances when there were no more of them for five seconds', (finish) => {
  const { now, pass } = clock();
  let instances: unknown[] = [];
  const has = (count: number) => {
    instances = Array(count).fill(0);
  };
  has(5);
  const cache = {
    ready: async () => {},
    release() {},
    get instances() {
      return instances;
    },
  };
  const registry = { registry: { service: () => cache as never }, service: 'orders' };
  const limits = limiter(finish, { rules: { send: { mode: 'shared', rate: 1, capacity: 60 } }, registry, now });
  const count = () => 60 / limits.allowNow('a', 'send', 0).limit;
  expect(count()).toBe(5);
  has(4);
  expect(count()).toBe(5);
  pass(4900);
  has(1);
  expect(count()).toBe(5);
  pass(100);
  expect(count(), 'four were no more for as long, one was not').toBe(4);
  pass(4000);
  has(3);
  expect(count()).toBe(4);
  pass(900);
  expect(count(), 'three at the most, one of them for a while').toBe(3);
  has(2);
  has(6);
  expect(count(), 'more count at once').toBe(6);
  pass(60_000);
  expect(count()).toBe(6);
  limits.close();
  has(9);
  expect(count(), 'it goes on with what it has').toBe(6);
});

it('leaves nothing behind where it can’t be made', () => {
  const rules = changing({});
  const make = (more: object) => () => createRateLimiter({ rules, logger: false, ...more } as never);
  expect(make({ registry: { registry: {}, service: 'a' } })).toThrow('options.registry.registry');
  expect(rules.listeners.size).toBe(0);
  let released = 0;
  const registry = { service: () => ({ instances: [], release: () => released++ }) };
  expect(make({ rules: { send: 1 }, registry: { registry, service: 'a' } })).toThrow('options.rules.send');
  expect(released).toBe(1);
  const endless = { value: {}, subscribe: () => ({ unsubscribe() {} }) };
  expect(make({ rules: endless })).toThrow(
    'options.rules: expected subscribe() to give a function that ends it, got object',
  );
});

it('tells times that headers can have, also of a rate next to nothing', (finish) => {
  const { now } = clock();
  for (const rate of [1e-300, Number.MIN_VALUE]) {
    const limits = limiter(finish, { rules: send(rate, 1), now });
    expect(limits.allowNow('a', 'send', 0)).toMatchObject({ allowed: true, resetMs: 0 });
    expect(admitted(limits, 2)).toBe(1);
    const refused = limits.allowNow('a', 'send');
    expect(refused.retryAfterMs).toBe(Number.MAX_SAFE_INTEGER);
    for (const style of ['draft-8', 'draft-7', 'legacy'] as const) {
      const numbers = Object.values(limits.headers(refused, style))
        .join()
        .match(/\d+|NaN|Infinity|e\+/g);
      for (const number of numbers ?? []) expect(number).toMatch(/^\d{1,15}$/);
    }
  }
});

it('counts each name that no rule has by itself, whatever is in it', (finish) => {
  const { now } = clock();
  const limits = limiter(finish, { rules: {}, unknownRule: local(1, 1), now });
  for (const [subject, rule] of [
    ['b\nc', 'a'],
    ['c', 'a\nb'],
    ['1:b', 'a'],
    ['b', 'a1:'],
  ] as const) {
    expect(limits.allowNow(subject, rule).allowed).toBe(true);
    expect(limits.allowNow(subject, rule).allowed).toBe(false);
  }
});

describe('a full map', () => {
  it('has room again at once, however few there may be', (finish) => {
    const { now, pass } = clock();
    const limits = limiter(finish, { rules: send(1, 1), maxKeys: 4, now });
    let full = 0;
    limits.on('full', () => full++);
    for (let round = 0; round < 100; round++) {
      for (let i = 0; i < 4; i++) expect(admitted(limits, 2, `${'user'.repeat(i)}:${round}`)).toBe(1);
      pass(1000);
    }
    expect(full).toBe(0);
  });

  it('gives all for whom there is no room one bucket together, tells it once, and has room again in time', (finish) => {
    const { now, pass } = clock();
    const limits = limiter(finish, { rules: send(1, 2), maxKeys: 100, now });
    const full: string[] = [];
    limits.on('full', (rule) => full.push(rule));
    for (let i = 0; i < 100; i++) expect(admitted(limits, 3, `user:${i}`)).toBe(2);
    let through = 0;
    for (let i = 0; i < 1000; i++) through += admitted(limits, 1, `other:${i}`);
    expect(through).toBe(2);
    expect(full).toEqual(['send']);
    expect(admitted(limits, 1, 'user:7'), 'who is known stays so').toBe(0);
    pass(2000); // all is back
    for (let i = 0; i < 50; i++) expect(admitted(limits, 3, `new:${i}`), `new:${i}`).toBe(2);
    for (let i = 0; i < 200; i++) admitted(limits, 3, `newer:${i}`);
    expect(full, 'full again').toEqual(['send', 'send']);
  });

  it('holds no more than it may in a stream of ever new subjects', (finish) => {
    const { now, pass } = clock();
    const limits = limiter(finish, { rules: send(1000, 1), maxKeys: 1000, now });
    let full = 0;
    limits.on('full', () => full++);
    for (let i = 0; i < 100_000; i++) {
      if (i % 500 === 0) pass(1); // each lives for a millisecond: 500 at a time
      expect(limits.allowNow(`user:${i}`, 'send').allowed).toBe(true);
    }
    expect(full).toBe(0);
  });
});

describe('bad input', () => {
  const limits = createRateLimiter({ rules: send(1, 5), logger: false });
  const rule = (fields: object) => ({ rules: { send: { mode: 'local', rate: 1, capacity: 1, ...fields } } });
  const anything = (value: unknown) => value as never;

  it.each<[string, unknown, string]>([
    ['nothing', undefined, 'options.rules: expected rules by their names, got undefined'],
    ['a list of rules', { rules: [] }, 'options.rules: expected an object, got array'],
    ['another option', { rules: {}, redi: {} }, 'options.redi: unknown option; did you mean "redis"?'],
    [
      'a negative rate',
      rule({ rate: -1 }),
      'options.rules.send.rate: expected a number above 0, up to 1000000, got -1',
    ],
    ['no rate at all', rule({ rate: 0 }), 'options.rules.send.rate: expected a number above 0, up to 1000000, got 0'],
    ['letters for a rate', rule({ rate: '10' }), 'options.rules.send.rate: expected a number above 0'],
    [
      'a rate beyond all',
      rule({ rate: Number.POSITIVE_INFINITY }),
      'options.rules.send.rate: expected a number above 0',
    ],
    ['a rate that is no number', rule({ rate: Number.NaN }), 'options.rules.send.rate: expected a number above 0'],
    [
      'half a token',
      rule({ capacity: 0.5 }),
      'options.rules.send.capacity: expected a number from 1 to 1000000000, got 0.5',
    ],
    [
      'another mode',
      rule({ mode: 'locals' }),
      'options.rules.send.mode: expected "local" or "shared" or "distributed"',
    ],
    ['another field', rule({ burst: 5 }), 'options.rules.send.burst: unknown'],
    ['another failure', rule({ onStoreFailure: 'open' }), 'options.rules.send.onStoreFailure: expected "local" or'],
    ['no Redis', rule({ mode: 'distributed' }), 'options.rules.send.mode: "distributed" needs options.redis'],
    ['no registry', rule({ mode: 'shared' }), 'options.rules.send.mode: "shared" needs options.registry'],
    ['another Redis', { rules: {}, redis: {} }, 'options.redis: expected a client of ioredis or node-redis'],
    [
      'another registry',
      { rules: {}, registry: { registry: {}, service: 'a' } },
      'options.registry.registry: expected a',
    ],
    [
      'no service',
      { rules: {}, registry: { registry: { service() {} } } },
      'options.registry.service: expected a string',
    ],
    ['no wait', { rules: {}, storeTimeoutMs: 0 }, 'options.storeTimeoutMs: expected a whole number from 1'],
    ['no keys', { rules: {}, maxKeys: 0 }, 'options.maxKeys: expected a whole number from 1'],
    ['another answer', { rules: {}, unknownRule: 'maybe' }, 'options.unknownRule: expected "deny" or "allow"'],
    ['another rule', { rules: {}, unknownRule: { mode: 'local' } }, 'options.unknownRule.rate: expected a number'],
  ])('%s', (_, options, message) => {
    expect(() => createRateLimiter(anything(options))).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
    );
    expect(() => createRateLimiter(anything(options))).toThrow(message);
  });

  it.each<[string, unknown[], string]>([
    ['no subject', [undefined, 'send'], 'subject: expected a string of 1 to 512 characters, got undefined'],
    ['an empty subject', ['', 'send'], 'subject: expected a string of 1 to 512 characters, got 0'],
    [
      'a subject of 1 MB',
      ['x'.repeat(1 << 20), 'send'],
      'subject: expected a string of 1 to 512 characters, got 1048576',
    ],
    ['no rule', ['a', 7], 'rule: expected a string of 1 to 512 characters, got number'],
    ['a negative cost', ['a', 'send', -1], 'cost: expected a number of 0 or more, got -1'],
    ['a cost that is no number', ['a', 'send', Number.NaN], 'cost: expected a number of 0 or more, got NaN'],
    ['letters for a cost', ['a', 'send', '1'], 'cost: expected a number of 0 or more, got string'],
    ['more than there ever is', ['a', 'send', 6], 'cost: expected at most the capacity of the rule, which is 5, got 6'],
  ])('%s', async (_, args, message) => {
    const call = args as [string, string, number?];
    expect(() => limits.allowNow(...call)).toThrow(message);
    await expect(limits.allow(...call)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT', message });
    await expect(limits.take(...call)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT', message });
  });

  it.each<[unknown, string]>([
    [undefined, 'decision: expected what allow() gives, got undefined'],
    [null, 'decision: expected what allow() gives, got null'],
    ['send', 'decision: expected what allow() gives, got string'],
    [{}, 'decision.rule: expected a string, got undefined'],
    [{ rule: 'send' }, 'decision.limit: expected a number, got undefined'],
    [{ rule: 'send', limit: 1, remaining: '1' }, 'decision.remaining: expected a number, got string'],
  ])('headers of %o', (decision, message) => {
    expect(() => limits.headers(anything(decision))).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', message }),
    );
  });

  it('an end that is none, and one that has come', async () => {
    await expect(limits.allow('a', 'send', 1, anything({ signal: 7 }))).rejects.toThrow('options.signal: expected an');
    await expect(limits.allow('a', 'send', 1, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'ERR_ABORTED',
    });
    expect(() => limits.on(anything('reject'), () => {})).toThrow('did you mean "rejected"?');
  });
});
