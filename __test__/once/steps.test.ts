// The states of a key as values: what each call comes to in each of them, without a store, a clock or a process.
import { describe, expect, test } from 'vitest';
import { type Done, type Failed, NOTHING, type Running, recordOf, type Seen, textOf } from '../../lib/once/record.js';
import { type Ask, claimed, ended, isOpen, judge } from '../../lib/once/steps.js';

const ask: Ask = {
  operation: 'execute',
  key: 'k',
  ttlMs: 1000,
  lockMs: 100,
  fingerprint: 'a',
  whenRunning: 'join',
  afterCrash: 'retry',
};
const seen = (record: Seen['record'], isAlive = false): Seen => ({ version: 7n, record, isAlive, expiresInMs: 1000 });
const running: Running = claimed(ask, 3, 'n');
const done = ended(running, 'n', { state: 'done', result: '1' }) as Done;
const failed = ended(running, 'n', {
  state: 'failed',
  error: { name: 'RangeError', message: 'no', fields: { code: 'NO' } },
}) as Failed;
const begun = () => true;
const of = (state: Seen, more: Partial<Ask> = {}, wasBegun: (nonce: string) => boolean = begun) => {
  const verdict = judge({ ...ask, ...more }, state, wasBegun);
  return verdict.is === 'refused' ? (verdict.error as Error & { code?: string }).code : verdict;
};

describe('a call', () => {
  const alive = seen(running, true);
  const dead = seen(running);
  test.each([
    ['nothing', NOTHING, {}, { is: 'run', attempt: 1 }],
    ['what is over', { ...NOTHING, version: 7n }, {}, { is: 'run', attempt: 1 }],
    ['a run', alive, {}, { is: 'wait' }],
    ['a run, not to be waited for', alive, { whenRunning: 'reject' }, 'ERR_IN_PROGRESS'],
    ['a run of something else', alive, { fingerprint: 'b' }, 'ERR_KEY_REUSED'],
    ['a run, not said of what', alive, { fingerprint: undefined }, { is: 'wait' }],
    ['a run that died', dead, {}, { is: 'run', attempt: 4 }],
    ['a run that died, not to be waited for', dead, { whenRunning: 'reject' }, { is: 'run', attempt: 4 }],
    ['a run that died, not to be run again', dead, { afterCrash: 'unknown' }, 'ERR_OUTCOME_UNKNOWN'],
    ['a run that died, of something else', dead, { fingerprint: 'b' }, 'ERR_KEY_REUSED'],
    ['a run that died and was not to be run again', seen({ ...running, isUnknown: true }), {}, 'ERR_OUTCOME_UNKNOWN'],
    ['what was done', seen(done), {}, { is: 'done', record: done }],
    ['what was done, not to be waited for', seen(done), { whenRunning: 'reject' }, { is: 'done', record: done }],
    ['something else that was done', seen(done), { fingerprint: 'b' }, 'ERR_KEY_REUSED'],
    ['what failed and is kept', seen(failed), {}, 'NO'],
    ['something else that failed', seen(failed), { fingerprint: 'b' }, 'ERR_KEY_REUSED'],
  ] as const)('that comes to %s', (_, state, more, expected) => {
    expect(of(state, more)).toEqual(expected);
  });

  test('that comes to a claim of its own process that was never begun has its place, whoever it was for', () => {
    for (const state of [alive, dead, seen({ ...running, isUnknown: true })]) {
      expect(of(state, { fingerprint: 'b', afterCrash: 'unknown' }, () => false)).toEqual({ is: 'run', attempt: 3 });
    }
    expect(of(seen(done), {}, () => false)).toEqual({ is: 'done', record: done });
  });
});

test('a run keeps what it is about and its time to the end; who wrote it is another', () => {
  expect(running).toMatchObject({
    state: 'running',
    attempt: 3,
    nonce: 'n',
    ttlMs: 1000,
    lockMs: 100,
    fingerprint: 'a',
  });
  expect(done).toEqual({ state: 'done', result: '1', nonce: 'n', ttlMs: 1000, fingerprint: 'a' });
  expect(claimed({ ...ask, fingerprint: undefined, afterCrash: 'unknown' }, 1, 'n')).toMatchObject({ isUnknown: true });
});

test('only what nobody runs, or has no result, can be resolved', () => {
  const refused = ended(running, 'n', { state: 'done', refused: 'too large' });
  expect([NOTHING, seen(running, true), seen(running), seen(done), seen(failed), seen(refused)].map(isOpen)).toEqual([
    false,
    false,
    true,
    false,
    false,
    true,
  ]);
});

test('records are read as they were written, and what is none is none', () => {
  for (const record of [running, done, failed]) expect(recordOf(textOf(record))).toEqual(record);
  const { nonce, ...anonymous } = done;
  const wrong = [
    ...['', '1', 'null', '{}', '[]', '{"state":"done"}', textOf(done).slice(1)],
    ...[
      anonymous,
      { ...done, state: 'dome' },
      { ...done, ttlMs: 0 },
      { ...done, result: 1 },
      { ...done, fingerprint: 1 },
    ],
    ...[
      { ...running, attempt: 0 },
      { ...running, lockMs: '1' },
      { ...failed, error: {} },
    ],
  ].map((text) => (typeof text === 'string' ? text : JSON.stringify(text)));
  for (const text of wrong) expect(recordOf(text), text).toBe(undefined);
});
