// What the checker finds of semaphores, of writes under a lock and of configuration: each rule on a history in which one thing
// went wrong, or nearly did.

import { describe, expect, it } from 'vitest';
import type { Entry, Stamp } from './history.js';
import { none, only } from './judged.js';
import { BOUNDS, type Made, well } from './made.js';

const POOL = 'locks/pool';

describe('permits', () => {
  /** A permit of two that is held from here to there; the looks of it, 100 ms apart. */
  const permit = (made: Made, who: string, token: number, from: number, to: number): Made => {
    const held = made.call(who, 'acquire', POOL, from - 20) + 1;
    made.add({ kind: 'held', at: held, who, of: POOL, token, permits: 2 });
    for (let at = held + 100; at <= to; at += 100) made.add({ kind: 'holding', at, who, of: POOL, token });
    return made.add({ kind: 'over', at: to + 50, who, of: POOL, token, why: 'released' });
  };
  const two = () => permit(permit(well(), 'candidate 1', 31, 20_000, 24_000), 'candidate 2', 32, 20_100, 28_000);
  const third = (from: number) => permit(two(), 'watcher 1', 33, from, 30_000);

  it('a third while two hold', () => {
    none(third(24_100).history());
    const { who, of, says } = only('permits', third(23_500).history());
    expect([who, of]).toEqual(['watcher 1', POOL]);
    expect(says).toContain('while candidate 1 (31), candidate 2 (32) held it: 2 is the most');
  });
  it('what was ended behind its holder has the TTL to learn of it', () => {
    const ended = { of: POOL, token: 31 };
    none(third(23_500).fault(23_400, 23_410, ['candidate 1'], { ended }).history());
    only('permits', third(23_500).fault(10_000, 10_010, ['candidate 1'], { ended }).history());
  });
  it('tokens of it grow as well', () => {
    expect(only('one-holder', permit(two(), 'watcher 1', 5, 30_000, 31_000).history()).says).toContain('Token');
  });
});

describe('fenced', () => {
  const wrote = (who: string, at: number, token: number, revision: number, before?: Stamp): Entry => {
    return { kind: 'wrote', at, who, of: 'register', token, revision, ...(before && { before }) };
  };
  it('a write of an older holder after one of a later', () => {
    const made = () => well().add(wrote('candidate 1', 5000, 11, 100), wrote('candidate 2', 10_000, 12, 110));
    none(
      made()
        .add(wrote('candidate 1', 12_000, 11, 105))
        .history(),
    ); // told late
    expect(
      only(
        'fenced',
        made()
          .add(wrote('candidate 1', 12_000, 11, 111))
          .history(),
      ).says,
    ).toContain('with token 11 at revision 111 (candidate 1, 12.000 s), after token 12 at revision 110 (candidate 2)');
  });
  it('one of which the answer was lost, and which the next one found', () => {
    only(
      'fenced',
      well()
        .add(wrote('candidate 1', 5000, 11, 100), wrote('candidate 2', 9500, 12, 110))
        .add(wrote('candidate 2', 9800, 12, 120, { token: 11, revision: 115 }))
        .history(),
    );
  });
});

describe('ids', () => {
  const made = (who: string, at: number, ...runs: [string, number][]): Entry => ({
    kind: 'ids',
    at,
    who,
    of: 'faults',
    runs,
  });
  const history = (...more: Entry[]) =>
    well()
      .add(made('candidate 1', 5000, ['9007199254740993', 100], ['9007199254749000', 10]), ...more)
      .history();
  it('one that another has made', () => {
    none(history(made('candidate 2', 6000, ['9007199254741093', 5], ['9007199254740992', 1])));
    const { who, of, says } = only('ids', history(made('candidate 2', 6000, ['9007199254741092', 5])));
    expect([who, of]).toEqual(['candidate 2', 'faults']);
    expect(says).toContain('made the id 9007199254741092 at 6.000 s, as candidate 1 had at 5.000 s');
  });
  it('one that the same process has made, within a longer run', () => {
    only('ids', history(made('candidate 1', 6000, ['9007199254740995', 1])));
  });
  it('those of another service may be alike', () => {
    none(history({ ...made('candidate 2', 6000, ['9007199254740993', 100]), of: 'others' } as Entry));
  });
});

describe('config', () => {
  const OF = 'limits';
  const seen = (who: string, at: number, n: number, more: Partial<Extract<Entry, { kind: 'config' }>> = {}): Entry => {
    return { kind: 'config', at, who, of: OF, stale: false, revision: 100 + n, values: [n, n, n], ...more };
  };
  /** Two who share it, and three changes, each told of at once. */
  const shared = () => {
    const made = well().start('sharer 1', 50).start('sharer 2', 60);
    for (const [i, at] of [10_000, 20_000, 30_000].entries()) made.call('sharer 1', 'set', OF, at, { n: i + 1 });
    for (const who of ['sharer 1', 'sharer 2']) {
      made.call(who, 'open', OF, 100);
      made.add(seen(who, 200, 0), seen(who, 10_050, 1), seen(who, 20_050, 2));
    }
    return made;
  };
  const ended = () => shared().add(seen('sharer 1', 30_050, 3), seen('sharer 2', 30_060, 3));

  it('all is well', () => none(ended().history()));
  it('some of a change', () => {
    const made = ended().add(seen('sharer 2', 31_000, 4, { values: [4, 4, 3] }));
    expect(only('config', made.history()).says).toContain(
      'saw some of a change of limits at 31.000 s: its keys are 4, 4, 3',
    );
  });
  it('back in time, by its number or by its revision', () => {
    expect(
      only(
        'config',
        ended()
          .add(seen('sharer 2', 32_000, 2))
          .history(),
      ).says,
    ).toContain('saw limits go back at 32.000 s: to 2 of revision 102, after 3 of revision 103');
    only(
      'config',
      ended()
        .add(seen('sharer 2', 32_000, 3, { revision: 99 }))
        .history(),
    );
  });
  it('another number of the same store than somebody else', () => {
    only(
      'config',
      ended()
        .add(seen('sharer 2', 31_000, 4, { revision: 103 }), seen('sharer 1', 32_000, 3, { revision: 110 }))
        .history(),
    );
  });
  it('a store that was set back, which it was not', () => {
    only('config', ended().add({ kind: 'reset', at: 33_000, who: 'sharer 1', of: OF }).history());
  });
  it('a change that one does not hear of', () => {
    const deaf = () => shared().add(seen('sharer 1', 30_050, 3));
    expect(only('config', deaf().history()).says).toContain(
      `sharer 2 has limits at 2 at 31.010 s and does not call it stale, though 3 was written by 30.010 s: ${BOUNDS.deliveryMs} ms is its time`,
    );
    // Harmed, it has the time in which an outage is found; and then it says so, until it has it.
    const harmed = () => deaf().fault(29_500, 33_000, ['sharer 2']);
    none(
      harmed()
        .add(seen('sharer 2', 32_900, 2, { stale: true }), seen('sharer 2', 34_500, 3))
        .history(),
    );
    only(
      'config',
      harmed()
        .add(seen('sharer 2', 33_100, 2, { stale: true }), seen('sharer 2', 34_500, 3))
        .history(),
    );
    none(
      deaf()
        .fault(30_000, 34_000, ['sharer 2'], { mute: true })
        .add(seen('sharer 2', 34_100, 3))
        .history(),
    );
  });
  it('who is stale at the end, or never had it', () => {
    only(
      'config',
      ended()
        .add(seen('sharer 2', 39_000, 3, { stale: true }))
        .history(),
    );
    const made = ended().start('sharer 3', 70);
    made.call('sharer 3', 'open', OF, 100, { error: 'ERR_UNAVAILABLE' });
    expect(only('config', made.history()).says).toContain('sharer 3 has not opened limits since 0.100 s');
  });
});
