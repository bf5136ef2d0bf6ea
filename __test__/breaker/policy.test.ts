// What a policy is written as, and what is refused: the guide's texts, Go's numbers, and mistakes.
import { createBreakers } from 'rollcall/breaker';
import { describe, expect, it } from 'vitest';

const make = (policy: unknown) => createBreakers({ default: policy as never, logger: false });

/** How long a breaker with this policy stays open. */
async function openFor(openStateTimeout: unknown): Promise<number> {
  const breaker = make({ failureThreshold: 1, openStateTimeout, force: 'open' }).get('a');
  return await breaker
    .do(() => 0)
    .then(
      () => 0,
      ({ retryAfterMs }) => retryAfterMs,
    );
}

it.each([
  ['1m', 60_000],
  ['1m30s', 90_000],
  ['500ms', 500],
  ['1.5h', 5_400_000],
  ['2500us', 3],
  ['1000000µs', 1000],
  [60_000_000_000, 60_000],
  [1_000_000_000, 1000],
  [1500, 1500],
  [86_400_000, 86_400_000],
])('openStateTimeout %s is %d ms', async (value, ms) => {
  expect(await openFor(value)).toBe(ms);
});

describe('refused, with what to do', () => {
  const duration = 'expected milliseconds, nanoseconds from 1e9 on, or a duration such as "1m30s"';
  it.each<[unknown, string]>([
    ['x', 'options.default: expected a policy, got string'],
    [{ failureTreshold: 1 }, 'options.default.failureTreshold: unknown option; did you mean "failureThreshold"?'],
    [{ failureThreshold: 0 }, 'options.default.failureThreshold: expected a whole number from 1 to 1000000, got 0'],
    [
      { failureThreshold: '5' },
      'options.default.failureThreshold: expected a whole number from 1 to 1000000, got string',
    ],
    [{ openStateTimeout: 'soon' }, `options.default.openStateTimeout: ${duration}, got another text`],
    [{ openStateTimeout: '' }, `options.default.openStateTimeout: ${duration}, got another text`],
    [{ openStateTimeout: '-1m' }, `options.default.openStateTimeout: ${duration}, got another text`],
    [{ openStateTimeout: '1m ' }, `options.default.openStateTimeout: ${duration}, got another text`],
    [{ openStateTimeout: '9'.repeat(100_000) }, `options.default.openStateTimeout: ${duration}, got another text`],
    [{ openStateTimeout: Number.NaN }, `options.default.openStateTimeout: ${duration}, got another text`],
    [{ openStateTimeout: 0 }, `options.default.openStateTimeout: ${duration}, from 1 ms to a day, got 0 ms`],
    [
      { openStateTimeout: 500_000_000 },
      `options.default.openStateTimeout: ${duration}, from 1 ms to a day, got 500000000 ms`,
    ],
    [{ openStateTimeout: true }, `options.default.openStateTimeout: ${duration}, got boolean`],
    [{ force: 'shut' }, 'options.default.force: expected "open" or "closed", got "shut"'],
    [{ window: { type: 'count' } }, 'options.default.window.size: expected a whole number from 1 to 10000, got null'],
    [
      { window: { type: 'count', size: 5 } },
      'options.default.window: expected failureRate, or slowCallMs: nothing of it would open the breaker',
    ],
    [
      { window: { type: 'count', size: 5, failureRate: 50 } },
      'options.default.window.failureRate: expected a number above 0, up to 1, got 50',
    ],
    [
      { window: { type: 'count', size: 5, failureRate: 0.5, minCalls: 6 } },
      'options.default.window.minCalls: expected at most size, which is 5, got 6',
    ],
    [
      { window: { type: 'time', size: 1000, slowRate: 0.5 } },
      'options.default.window.slowRate: expected slowCallMs beside it, which says what is slow',
    ],
  ])('%j', (policy, message) => {
    expect(() => make(policy)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', message }));
  });

  it.each<[unknown, string]>([
    [{ maxKeys: 0 }, 'options.maxKeys: expected a whole number from 1 to 1000000, got 0'],
    [{ isFailure: 'always' }, 'options.isFailure: expected a function, got string'],
    [{ policies: 'a' }, 'options.policies: expected an object, got string'],
    [{ policies: { a: { force: 1 } } }, 'options.policies.a.force: expected "open" or "closed", got number'],
    [{ polices: {} }, 'options.polices: unknown option; did you mean "policies"?'],
  ])('%j', (options, message) => {
    expect(() => createBreakers({ logger: false, ...(options as object) })).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', message }),
    );
  });

  it('names that are none, functions that are none, options that are unknown', async () => {
    const breakers = make({});
    for (const name of ['', undefined, 5]) {
      expect(() => breakers.get(name as string)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }));
    }
    const breaker = breakers.get('a');
    await expect(breaker.do(5 as never)).rejects.toMatchObject({ message: 'fn: expected a function, got number' });
    await expect(breaker.do(() => 1, { fallbak: 1 } as never)).rejects.toMatchObject({
      message: 'options.fallbak: unknown option; did you mean "fallback"?',
    });
    await expect(breaker.do(() => 1, { fallback: 1 } as never)).rejects.toMatchObject({
      message: 'options.fallback: expected a function, got number',
    });
  });
});
