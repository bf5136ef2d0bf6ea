// What the checker finds of locks and elections: each rule on a history in which one thing went wrong, or nearly did.

import { describe, expect, it } from 'vitest';
import type { Entry } from './history.js';
import { none, only } from './judged.js';
import { BOUNDS, LOCK, ORIGIN, well } from './made.js';

describe('one-holder', () => {
  const look = (who: string, at: number, token: number, kind: 'held' | 'holding' = 'holding'): Entry => {
    return { kind, at, who, of: LOCK, token };
  };
  it('a holder who looks after somebody else has won', () => {
    const won = 9111; // candidate 2
    none(
      well()
        .add(look('candidate 1', won, 11))
        .history(),
    );
    const violation = only(
      'one-holder',
      well()
        .add(look('candidate 1', won + 1, 11), look('candidate 1', won + 2, 11))
        .history(),
    );
    expect(violation).toMatchObject({ who: 'candidate 1', of: LOCK, at: ORIGIN + won + 1 });
    expect(violation.says).toContain(
      'still held locks/one with token 11 at 9.112 s, 1.0 ms after candidate 2 had won token 12',
    );
  });
  it('another lock is another matter', () => {
    none(well().add({ kind: 'held', at: 9500, who: 'candidate 1', of: 'locks/two', token: 3 }).history());
  });
  it('a token that is held twice', () => {
    expect(only('one-holder', well().term('candidate 1', LOCK, 12, 16_000, 17_000).history()).says).toContain(
      'Token 12',
    );
    only('one-holder', well().term('candidate 2', LOCK, 12, 16_000, 17_000).history());
    only(
      'one-holder',
      well()
        .add(look('candidate 1', 10_000, 12))
        .history(),
    );
  });
  it('tokens that fall', () => {
    none(well().term('candidate 1', LOCK, 13, 16_000, 17_000).history());
    expect(only('one-holder', well().term('candidate 1', LOCK, 5, 16_000, 17_000).history()).says).toContain(
      'Tokens of locks/one fall',
    );
  });
  it('who was told late that it had won, though another has won since', () => {
    const made = well();
    made.call('candidate 1', 'acquire', LOCK, 15_100, { takes: 2000 });
    made.term('candidate 2', LOCK, 14, 16_000, 18_000);
    expect(only('one-holder', made.add(look('candidate 1', 17_101, 13, 'held')).history()).says).toContain(
      'won locks/one with token 13',
    );
  });
  it('who was robbed of its term has the TTL to learn of it', () => {
    const robbed = (at: number) =>
      well()
        .fault(9050, 9060, ['candidate 1'], { ended: { of: LOCK, token: 11 } })
        .add(look('candidate 1', at, 11))
        .history();
    none(robbed(9060 + BOUNDS.ttlMs));
    only('one-holder', robbed(9061 + BOUNDS.ttlMs));
  });
  it('where any term may have been ended, each has the TTL to learn of it, from the healing on', () => {
    const robbed = (at: number, ended: { of?: string } = {}) =>
      well()
        .fault(8000, 9200, ['candidate 1'], { ended })
        .add(look('candidate 1', at, 11))
        .history();
    none(robbed(9200 + BOUNDS.ttlMs));
    only('one-holder', robbed(9199));
    only('one-holder', robbed(9201 + BOUNDS.ttlMs));
    only('one-holder', robbed(9300, { of: 'another lock' }));
  });
});
