import { expect, test } from 'vitest';
import { check } from './check.js';
import type { Entry } from './history.js';
import { type Made, well } from './made.js';

const OF = 'jobs/1';
const ran = (who: string, at: number, attempt: number, token: number): Entry => ({
  kind: 'ran',
  at,
  who,
  of: OF,
  attempt,
  token,
});
const did = (who: string, at: number, token: number): Entry => ({ kind: 'did', at, who, of: OF, token });
const found = (made: Made) => check(made.history()).map(({ rule, of, says }) => [rule, of, says]);
const two = () => well().start('doer 1', 50).start('doer 2', 60);

test('a job that is run once, and one that is taken over, are as they should be', () => {
  expect(found(two().add(ran('doer 1', 1000, 1, 5), did('doer 1', 1500, 5), did('doer 2', 1501, 5)))).toEqual([]);
  const taken = [ran('doer 1', 1000, 1, 5), ran('doer 2', 8000, 2, 9), did('doer 2', 9000, 9), did('doer 1', 9500, 9)];
  expect(found(two().add(...taken))).toEqual([]);
});

test('a run beside another one, with no takeover, is one too many', () => {
  const both = two().add(ran('doer 1', 1000, 1, 5), ran('doer 2', 1100, 1, 6), did('doer 1', 1500, 6));
  expect(found(both)).toEqual([
    [
      'once',
      OF,
      'doer 2 ran jobs/1 at 1.100 s as attempt 1 with token 6, though doer 1 had run it as attempt 1 with token 5 at 1.000 s.',
    ],
  ]);
});

test('the end of a run that was taken over may not be recorded', () => {
  const late = [ran('doer 1', 1000, 1, 5), ran('doer 2', 8000, 2, 9), did('doer 2', 9000, 9), did('doer 1', 9500, 5)];
  expect(found(two().add(...late))).toEqual([
    [
      'once',
      OF,
      'doer 1 was given the result of token 5 of jobs/1 at 9.500 s, though doer 2 ran it with token 9 at 8.000 s.',
    ],
  ]);
});
