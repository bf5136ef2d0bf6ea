import { describe, expect, it } from 'vitest';
import { RetryBudget } from '../../lib/service/budget.js';
import { Ejector, OUTLIER_DEFAULTS, type Outcome, type OutlierSettings } from '../../lib/service/ejector.js';
import { LagMeter } from '../../lib/service/lag.js';
import { LoadRecord } from '../../lib/service/load.js';
import { outcomeOf } from '../../lib/service/outcome.js';

function ejecting(count: number, options: Partial<OutlierSettings> = {}) {
  const loads = Array.from({ length: count }, () => new LoadRecord());
  const known = new Set(loads);
  const time = { now: 1000 };
  const ejector = new Ejector({ ...OUTLIER_DEFAULTS, ...options }, () => time.now);
  const note = (n: number, outcome: Outcome, { times = 1, startedAt = time.now, isProbe = false } = {}) => {
    const verdicts = [];
    for (let time = 0; time < times; time++) {
      verdicts.push(...ejector.note(loads[n] as LoadRecord, outcome, known, startedAt, isProbe));
    }
    return verdicts.map(({ load, reason }) => `${loads.indexOf(load as LoadRecord)} ${reason ?? 'back'}`);
  };
  const out = () => loads.flatMap((load, n) => (load.ejected ? [n] : []));
  return { loads, known, time, ejector, note, out };
}

describe('ejection', () => {
  it('comes with five failures in a row, not with four and a success', () => {
    const { note, out } = ejecting(4);
    expect(note(0, 'failure', { times: 4 })).toEqual([]);
    note(0, 'success');
    expect(note(0, 'failure', { times: 4 })).toEqual([]);
    expect(note(0, 'failure')).toEqual(['0 failures']);
    expect(out()).toEqual([0]);
  });

  it('comes with one refused connection, for 1 s, then 2, up to 30', () => {
    const { note, loads, time, ejector } = ejecting(4);
    const [load] = loads as [LoadRecord];
    expect(note(0, 'refused')).toEqual(['0 refused']);
    for (const seconds of [1, 2, 4, 8, 16, 30, 30]) {
      expect(load.until - time.now).toBe(seconds * 1000);
      expect(ejector.due).toBe(load.until);
      time.now = load.until - 1;
      expect(ejector.probe(load)).toBe(false);
      time.now++;
      expect(ejector.probe(load)).toBe(true);
      note(0, 'refused', { isProbe: true });
    }
    time.now = load.until;
    ejector.probe(load);
    expect(note(0, 'success', { isProbe: true })).toEqual(['0 back']);
    expect(note(0, 'refused')).toEqual(['0 refused']);
    expect(load.until - time.now).toBe(1000); // it begins anew
  });

  it('takes longer each time, and forgives with each sweep that passes well', () => {
    const { note, loads, time, ejector } = ejecting(4);
    const [load] = loads as [LoadRecord];
    note(0, 'failure', { times: 5 });
    for (const times of [1, 2, 3]) {
      expect(load.until - time.now).toBe(times * 30_000);
      time.now = load.until;
      expect(ejector.probe(load)).toBe(true);
      note(0, 'failure', { isProbe: true });
    }
    load.times = 100;
    time.now = load.until;
    ejector.probe(load);
    note(0, 'failure', { isProbe: true });
    expect(load.until - time.now).toBe(300_000);
    time.now = load.until;
    ejector.probe(load);
    note(0, 'success', { isProbe: true });
    const { times } = load;
    time.now += 10_000;
    note(1, 'success');
    expect(load.times).toBe(times - 1);
  });

  it('ends with one call alone that may try, whose outcome decides', () => {
    const { note, loads, time, ejector, out } = ejecting(4);
    const [load] = loads as [LoadRecord];
    note(0, 'failure', { times: 5 });
    const before = time.now - 1;
    expect(note(0, 'success', { startedAt: before })).toEqual([]); // it had begun before
    time.now = load.until;
    expect(ejector.due).toBeLessThanOrEqual(time.now);
    expect(ejector.probe(load)).toBe(true);
    expect(ejector.probe(load)).toBe(false);
    expect(ejector.due).toBeGreaterThan(time.now);
    note(0, 'cancelled', { isProbe: true }); // says nothing: the next may try
    expect(ejector.probe(load)).toBe(true);
    ejector.dropProbe(load); // was forgotten: the same
    expect(ejector.probe(load)).toBe(true);
    time.now += 30_000; // nothing is heard of it
    expect(ejector.probe(load)).toBe(true);
    expect(note(0, 'success', { isProbe: true })).toEqual(['0 back']);
    expect([out(), ejector.due]).toEqual([[], Number.POSITIVE_INFINITY]);
  });

  it.each([
    [1, 0],
    [2, 1],
    [3, 1],
    [4, 2],
    [10, 5],
  ])('of %i at most %i are out', (count, most) => {
    const { note, out } = ejecting(count);
    for (let n = 0; n < count; n++) note(n, 'refused');
    expect(out()).toHaveLength(most);
  });

  it('never takes the last, whatever maxEjected is, and nobody with 0', () => {
    const all = ejecting(10, { maxEjected: 1 });
    for (let n = 0; n < 10; n++) all.note(n, 'refused');
    expect(all.out()).toHaveLength(9);
    const none = ejecting(10, { maxEjected: 0 });
    none.note(0, 'refused');
    expect(none.out()).toEqual([]);
  });

  it('one that left makes room, and comes back as it was', () => {
    const { note, loads, known, ejector, out } = ejecting(2);
    const [load] = loads as [LoadRecord];
    note(0, 'refused');
    ejector.forget(load);
    known.delete(load);
    expect(ejector.due).toBe(Number.POSITIVE_INFINITY);
    known.add(load);
    ejector.remember(load);
    expect(ejector.due).toBe(load.until);
    expect(out()).toEqual([0]);
    known.delete(loads[1] as LoadRecord);
    note(1, 'refused'); // of one that is gone: nothing
    expect(out()).toEqual([0]);
  });

  it('by success rate: who is far below its peers, of five with 100 calls each', () => {
    const { note, time, out } = ejecting(6);
    for (let n = 0; n < 6; n++) {
      for (let call = 0; call < 100; call++) note(n, n === 3 && call % 3 === 0 ? 'failure' : 'success');
    }
    expect(out()).toEqual([]);
    time.now += 10_000;
    expect(note(0, 'success')).toEqual(['3 success rate']);
    const few = ejecting(4);
    for (let n = 0; n < 4; n++) {
      for (let call = 0; call < 100; call++) few.note(n, n === 3 && call % 3 === 0 ? 'failure' : 'success');
    }
    few.time.now += 10_000;
    expect(few.note(0, 'success')).toEqual([]);
  });

  it('by the share of failures: 85 % of 50 calls', () => {
    const { note, time, out } = ejecting(6, { consecutiveFailures: 0, successRateFactor: false });
    for (let n = 0; n < 6; n++) {
      for (let call = 0; call < 60; call++) note(n, n === 2 && call % 10 !== 0 ? 'failure' : 'success');
    }
    time.now += 10_000;
    expect(note(0, 'success')).toEqual(['2 failure share']);
    expect(out()).toEqual([2]);
  });
});

describe('what an error says of the instance', () => {
  const refused = Object.assign(new Error('connect'), { code: 'ECONNREFUSED' });
  it.each<[string, unknown, boolean | undefined, Outcome]>([
    ['nothing', undefined, undefined, 'success'],
    ['an error', new Error('x'), undefined, 'failure'],
    ['a text', 'x', undefined, 'failure'],
    ['a refused connection', refused, undefined, 'refused'],
    ['… as the cause of a fetch', new TypeError('fetch failed', { cause: refused }), undefined, 'refused'],
    ['… of both addresses of a host', new AggregateError([refused, refused]), undefined, 'refused'],
    ['one of two addresses', new AggregateError([refused, new Error('x')]), undefined, 'failure'],
    ['an abort of the caller', new DOMException('x', 'AbortError'), undefined, 'cancelled'],
    ['a deadline', new DOMException('x', 'TimeoutError'), undefined, 'failure'],
    ['gRPC CANCELLED', Object.assign(new Error(), { code: 1 }), undefined, 'cancelled'],
    ['gRPC DEADLINE_EXCEEDED', Object.assign(new Error(), { code: 4 }), undefined, 'failure'],
    ['gRPC NOT_FOUND', Object.assign(new Error(), { code: 5 }), undefined, 'success'],
    ['gRPC UNAVAILABLE', Object.assign(new Error(), { code: 14 }), undefined, 'failure'],
    ['an error that is not its fault', new Error('x'), false, 'success'],
    ['a status 503', undefined, true, 'failure'],
    ['a refused connection, said to be a failure', refused, true, 'refused'],
  ])('%s', (_, error, failed, outcome) => expect(outcomeOf(error, failed)).toBe(outcome));

  it('causes that go in circles end', () => {
    const a = new Error('a') as Error & { cause?: unknown };
    a.cause = a;
    expect(outcomeOf(a, undefined)).toBe('failure');
  });
});

describe('the retry budget', () => {
  it('gives a fifth of the calls and 10 a second, over any window', () => {
    const time = { now: 12_345 };
    const budget = new RetryBudget({}, () => time.now);
    let [calls, retries] = [0, 0];
    for (let tick = 0; tick < 60_000; tick++) {
      time.now++;
      calls++;
      budget.deposit();
      for (let again = 0; again < 3; again++) if (budget.withdraw()) retries++; // everything fails
    }
    expect(retries).toBeLessThanOrEqual(calls * 0.2 + 10 * 60 + 100);
    expect(retries).toBeGreaterThan(calls * 0.2);
  });

  it('forgets calls after its window, and what was taken', () => {
    const time = { now: 0 };
    const budget = new RetryBudget({ ratio: 0.5, minPerSecond: 0, windowMs: 1000 }, () => time.now);
    expect(budget.withdraw()).toBe(false);
    for (let call = 0; call < 4; call++) budget.deposit();
    expect([budget.balance, budget.withdraw(), budget.withdraw(), budget.withdraw()]).toEqual([2, true, true, false]);
    for (let call = 0; call < 4; call++) budget.deposit();
    time.now = 1100;
    expect([budget.balance, budget.withdraw()]).toEqual([0, false]);
  });
});

describe('the lag of the event loop', () => {
  function meter() {
    const time = { now: 10_000 };
    const timers: { at: number; run: () => void }[] = [];
    const lag = new LagMeter(
      () => time.now,
      (ms, run) => timers.push({ at: time.now + ms, run }),
    );
    /** Goes on to a time, with timers on the way or, when the loop is blocked, only at the end. */
    const to = (now: number, blocked = false) => {
      while (!blocked && timers[0] && timers[0].at <= now) {
        lag.wanted = true;
        const next = timers.shift();
        time.now = next?.at ?? now;
        next?.run();
      }
      time.now = now;
    };
    const catchUp = () => timers.shift()?.run();
    return { lag, time, timers, to, catchUp };
  }

  it('is none while the loop runs', () => {
    const { lag, to } = meter();
    lag.want();
    to(12_050);
    expect(lag.within(10_000, 12_050)).toBe(0);
  });

  it('is seen after a block, before and after the late beat', () => {
    const { lag, to, catchUp } = meter();
    lag.want();
    to(11_000);
    to(16_000, true);
    expect(lag.within(11_050, 16_000)).toBe(4900);
    catchUp();
    expect(lag.within(11_050, 16_010)).toBe(4900);
    expect(lag.within(15_900, 16_010)).toBe(100);
    expect(lag.within(16_001, 16_010)).toBe(0);
  });

  it('stops to beat when nobody is interested', () => {
    const { lag, timers, catchUp, time } = meter();
    lag.want();
    lag.want();
    expect(timers).toHaveLength(1);
    time.now += 100;
    catchUp();
    expect(timers).toHaveLength(1);
    time.now += 100;
    catchUp();
    expect(timers).toHaveLength(0);
    lag.want();
    expect(timers).toHaveLength(1);
  });
});
