// What the checker finds: each rule on a history in which one thing went wrong, and on one in which it nearly did.

import { describe, expect, it } from 'vitest';
import { check, RULES } from './check.js';
import type { Entry } from './history.js';
import { found, list, names, none, only } from './judged.js';
import { BOUNDS, Made, NAME, ORIGIN, well } from './made.js';

const without = (made: Made, is: (entry: Entry) => boolean) => made.history().filter((entry) => !is(entry));

it('a run in which all goes well has no violations', () => none(well().history()));

it('the same history has the same violations, in whatever order it stands', () => {
  const history = well().holds('a', 20_000).holds('a', 22_000, 2).history();
  const told = history.map((entry) => JSON.stringify(entry));
  expect(check([...history])).toEqual(check(history));
  expect(history.map((entry) => JSON.stringify(entry))).toEqual(told); // and the history stays as it was
});

describe('sound', () => {
  it('an empty history', () => expect(only('sound', []).says).toBe('The history is empty.'));
  it('no beginning, or two', () => {
    const history = well().history();
    only('sound', history.slice(1));
    only('sound', [...history, history[0] as Entry]);
  });
  it.each(['end', 'calm'])('no %s', (kind) => {
    only(
      'sound',
      without(well(), (entry) => entry.kind === kind),
    );
  });
  it('an entry without a time', () => {
    only('sound', [...well().history(), { kind: 'stale', at: Number.NaN, who: 'watcher 1', name: NAME }]);
  });
  it('fewer than twenty reads', () => {
    const last = (count: number) => {
      const history = well().history();
      const kept = new Set(history.filter(({ kind }) => kind === 'truth').slice(-count));
      return history.filter((entry) => entry.kind !== 'truth' || kept.has(entry));
    };
    only('sound', last(19));
    none(last(20));
  });
  it('no read in the calm', () => {
    only(
      'sound',
      without(well(), (entry) => entry.kind === 'truth' && entry.at >= ORIGIN + 40_000),
    );
    none(without(well(), (entry) => entry.kind === 'truth' && entry.at > ORIGIN + 40_000));
  });
  it('a process that tells nothing', () => {
    expect(only('sound', well().start('watcher 3', 3).history()).who).toBe('watcher 3');
    const again = well().die('registrar 2', 10_000, 'killed').holds('b', 14_000).start('registrar 2', 20_000);
    expect(only('sound', again.history())).toMatchObject({ who: 'registrar 2', at: ORIGIN + 20_000 });
  });
  it('a life too short to tell anything is none', () => {
    none(
      well()
        .die('registrar 2', 20_000, 'killed')
        .holds('b', 24_000)
        .start('registrar 2', 21_000)
        .die('registrar 2', 21_100, 'killed')
        .history(),
    );
  });
  it('a process that nobody started, no process at all', () => {
    only(
      'sound',
      without(well(), (entry) => entry.kind === 'started' && entry.who === 'watcher 2'),
    );
    const made = new Made();
    expect(only('sound', made.history()).says).toBe('No process was started.');
  });
  it('a process whose time falls', () => {
    const history = well().history();
    const told = history.findIndex((entry) => entry.kind === 'list' && entry.who === 'watcher 1');
    only('sound', [...history, history[told] as Entry]);
    // A look is written when it ends.
    const look = history.findLastIndex(({ kind }) => kind === 'holding');
    none([...history.slice(0, look), ...history.slice(look + 1), history[look] as Entry]);
  });
  it('a call that was settled and never began', () => {
    only('sound', well().add({ kind: 'settled', at: 30_000, who: 'watcher 1', id: 99 }).history());
  });
  it('a fault that ends before it begins', () => {
    only('sound', well().fault(20_000, 19_000, ['watcher 1']).history());
  });
});

describe('registered', () => {
  const gone = (from: number, to: number) => well().holds('a', from).holds('a', to, 2);

  it('an instance that is not there, told of once', () => {
    const violation = only('registered', gone(20_000, 22_000).history());
    expect(violation).toMatchObject({ who: 'registrar 1', of: 'a', at: ORIGIN + 20_000, until: ORIGIN + 21_504 });
    expect(violation.says).toBe(
      'a is not in the registry, though registrar 1 registered it at 0.110 s: from 20.000 s to 21.504 s (4 reads); no fault had touched it.',
    );
  });
  it('a second loss is told of again', () => {
    expect(found(gone(20_000, 22_000).holds('a', 24_000).holds('a', 25_000, 2).history())).toHaveLength(2);
  });
  it('one that is not there between two reads was not seen', () => none(gone(20_010, 20_400).history()));
  it('a fault and the time of its repair excuse it', () => {
    const made = (until: number) => gone(15_000, 22_000).fault(14_000, until, ['registrar 1']).history();
    none(made(21_500 - BOUNDS.repairMs));
    expect(only('registered', made(21_499 - BOUNDS.repairMs))).toMatchObject({ at: ORIGIN + 21_500 });
  });
  it('a fault of another process excuses nothing', () => {
    only('registered', gone(20_000, 22_000).fault(19_000, 22_000, ['registrar 2']).history());
  });
  it('a hiccup excuses it', () =>
    none(gone(20_000, 22_000).add({ kind: 'hiccup', at: 19_000, until: 20_000 }).history()));
  it('a number that is older than what was settled', () => {
    expect(
      only('registered', well().holds('a', 20_000, 1).holds('a', 20_800, 2).history().filter(noList(20_000))).says,
    ).toContain('number 1, though 2 was settled');
  });
  it('a number that nobody called', () => {
    expect(only('registered', well().holds('b', 20_000, 5).history()).says).toContain('though 1 is the largest');
  });
  it('an update that is not settled, or failed, may show or not', () => {
    for (const shows of [1, 2]) {
      for (const outcome of [{ open: true }, { error: 'TIMEOUT' }]) {
        const made = well();
        made.call('registrar 2', 'update', 'b', 47_000, { n: 2, ...outcome });
        none(made.holds('b', 47_100, shows).history());
      }
    }
  });
  it('a register() that failed, or is not settled, makes no life', () => {
    for (const outcome of [{ open: true }, { error: 'TIMEOUT' }]) {
      const made = well();
      made.call('registrar 2', 'register', 'c', 46_000, { n: 1, ...outcome });
      none(made.history());
      none(made.holds('c', 47_000, 1).history());
    }
  });
  it('nothing is asked of an instance once deregister() was called', () => {
    const made = well();
    made.call('registrar 2', 'deregister', 'b', 20_000, { error: 'TIMEOUT', takes: 5000 });
    none(made.holds('b', 20_100).holds('b', 22_000, 1).history());
  });
  it('a read that is under way when the life begins or ends says nothing', () => {
    const made = well().start('registrar 3', 3);
    made.call('registrar 3', 'register', 'c', 5990, { n: 1, takes: 11 }); // the read of 6000 is asked before
    made.call('registrar 3', 'deregister', 'c', 6503); // the read of 6500 is answered at 6504
    none(made.history());
  });
});

/** Without the lists of the second after `at`, which a watcher may leave out. */
const noList = (at: number) => (entry: Entry) =>
  !(entry.kind === 'list' && entry.at >= ORIGIN + at && entry.at <= ORIGIN + at + 1000);

describe('a fault that a registration must outlive', () => {
  const gone = (more: (made: Made) => Made) => more(well().holds('a', 20_500).holds('a', 21_500, 2)).history();
  const survivable = { survivable: true };

  it('excuses nothing when it comes alone', () => {
    only(
      'registered',
      gone((made) => made.fault(20_000, 21_000, ['registrar 1'], survivable)),
    );
  });

  it('excuses what follows when another one comes within a TTL, before or after', () => {
    const both = (at: number, until: number) =>
      gone((made) =>
        made.fault(20_000, 21_000, ['registrar 1'], survivable).fault(at, until, ['registrar 1'], survivable),
      );
    none(both(15_000, 15_000));
    none(both(26_000, 26_500));
    only('registered', both(14_000, 14_999));
    only('registered', both(26_001, 26_500));
  });

  it('excuses nothing when the other one touches somebody else', () => {
    const other = (made: Made) => made.fault(20_200, 20_900, ['registrar 2'], survivable);
    only(
      'registered',
      gone((made) => other(made.fault(20_000, 21_000, ['registrar 1'], survivable))),
    );
  });
});

it('a run in which everything is excused has judged nothing', () => {
  only('sound', well().fault(1, 49_000, ['registrar 1', 'registrar 2']).history());
});

describe('dead', () => {
  const DIED = 20_000;
  const DEADLINE = DIED + BOUNDS.ttlMs + BOUNDS.removalMs;
  const died = (gone: number, how: 'killed' | 'crashed' = 'killed') =>
    well().die('registrar 2', DIED, how).holds('b', gone);

  it('an instance that outlives its process for too long', () => {
    none(died(DEADLINE + 1).history()); // it is there at the deadline itself
    const violation = only('dead', died(DEADLINE + 1000).history());
    expect(violation).toMatchObject({ who: 'registrar 2', of: 'b', at: ORIGIN + DEADLINE + 500 });
    expect(violation.says).toContain('registrar 2 was killed at 20.000 s and had to be gone by 26.000 s');
  });
  it('a fault of the servers moves the deadline, and the next one moves it again', () => {
    const made = (gone: number) =>
      died(gone)
        .fault(25_000, 27_000, [], { servers: true }) // to 33 s
        .fault(32_900, 33_500, [], { servers: true }) // to 39.5 s
        .fault(39_501, 39_900, [], { servers: true }) // too late
        .history();
    none(made(39_501));
    only('dead', made(40_001));
  });
  it('a hiccup moves the deadline', () => {
    none(
      died(DEADLINE + 1000)
        .add({ kind: 'hiccup', at: 20_500, until: 21_000 })
        .history(),
    );
  });
  it('no other fault does, nor one that was over', () => {
    only(
      'dead',
      died(DEADLINE + 501)
        .fault(21_000, 24_000, ['registrar 2'])
        .history(),
    );
    only(
      'dead',
      died(DEADLINE + 501)
        .fault(18_000, 19_999, [], { servers: true })
        .history(),
    );
  });
  it('one that is registered anew may stay', () => {
    none(died(22_001).start('registrar 2', 21_000).register('registrar 2', 'b', 22_000, 2).history());
  });
  it('a register() that failed may have left it there', () => {
    const made = (gone: number) => {
      const made = well().die('registrar 2', DIED, 'killed').holds('b', DIED);
      made.call('registrar 2', 'register', 'c', 19_000, { error: 'TIMEOUT', n: 1 });
      return made.holds('c', 19_000, 1).holds('c', gone).history();
    };
    none(made(DEADLINE));
    only('dead', made(DEADLINE + 501));
  });
  it('who left may leave it there for good, as long as it deregistered nothing', () => {
    none(well().die('registrar 2', 30_000, 'left').history());
  });
});

describe('deregistered', () => {
  it('an instance that is still there', () => {
    const violation = only(
      'deregistered',
      well().deregister('registrar 2', 'b', 19_000).holds('b', 19_005, 1).holds('b', 20_001).history(),
    );
    expect(violation).toMatchObject({ who: 'registrar 2', of: 'b', at: ORIGIN + 19_500, until: ORIGIN + 20_004 });
  });
  it('a read that was asked before deregister() returned says nothing', () => {
    const made = well();
    made.call('registrar 2', 'deregister', 'b', 19_000, { takes: 1000 });
    none(made.holds('b', 20_001).history());
  });
  it('one that is registered anew may be there', () => {
    none(well().deregister('registrar 2', 'b', 19_000).register('registrar 2', 'b', 19_200, 2).history());
  });
  it('a deregister() that failed promises nothing', () => {
    const made = well();
    made.call('registrar 2', 'deregister', 'b', 19_000, { error: 'TIMEOUT' });
    none(made.history());
  });
  it('one that comes back when its process is dead is told of once', () => {
    const made = well().deregister('registrar 2', 'b', 19_000).die('registrar 2', 19_100, 'killed');
    only('deregistered', made.holds('b', 26_000, 1).holds('b', 27_000).history());
  });
});

describe('watching', () => {
  it('a watcher that ended', () => {
    const ended = (at: number) =>
      well().add({ kind: 'ended', at, who: 'watcher 1', name: NAME, error: 'GONE' }).history();
    expect(only('watching', ended(20_000)).says).toBe(
      'The watcher of orders of watcher 1 ended at 20.000 s with GONE.',
    );
    none(ended(50_000));
  });
  it('a number that falls from list to list, also when the instance was absent in between', () => {
    const falls = (number: number) =>
      well().add(
        list('watcher 1', 20_010, { b: 1 }),
        list('watcher 1', 20_020, { a: number, b: 1 }),
        list('watcher 1', 20_030, { a: 2, b: 1 }),
      );
    expect(only('watching', falls(1).history()).says).toContain('a with number 1 at 20.020 s, after 2 at 10.025 s');
    none(falls(2).history());
  });
  it('a new life may tell what an old one knew better', () => {
    const made = well().die('watcher 1', 20_000, 'killed').start('watcher 1', 20_050);
    made.add(list('watcher 1', 20_060, { a: 1, b: 1 }), list('watcher 1', 20_070, { a: 2, b: 1 }));
    none(made.add(names('watcher 1', 20_080, { [NAME]: 2 })).history());
  });
  it('a last list that is not the truth', () => {
    const ends = (more: Entry[]) =>
      well()
        .add(list('watcher 1', 49_600, { a: 2 }), ...more)
        .history();
    expect(only('watching', ends([])).says).toBe(
      "watcher 1 ends with a list of orders that is not the servers': b is absent, not 1.",
    );
    none(ends([list('watcher 1', 49_900, { a: 2, b: 1 })]));
  });
  it('a last list that is stale', () => {
    const stale: Entry = { kind: 'stale', at: 49_000, who: 'watcher 1', name: NAME };
    expect(only('watching', well().add(stale).history()).says).toContain('still calls its list of orders stale');
    only(
      'watching',
      well()
        .add(list('watcher 1', 49_000, { a: 2, b: 1 }, true))
        .history(),
    );
    none(
      well()
        .add(stale, { ...stale, kind: 'fresh', at: 49_100 })
        .history(),
    );
  });
  it('what changes after the last read is not held against a watcher', () => {
    none(well().deregister('registrar 1', 'a', 49_800).history());
    none(well().die('registrar 1', 49_800, 'left').holds('a', 49_810).history());
  });
  it('a name of which a watcher never tells', () => {
    const history = well().history();
    const told = (at: number) =>
      ['watcher 1', 'watcher 2'].map((who) => names(who, ORIGIN + at + 20, { [NAME]: 2, users: 1 }));
    const more = (at: number) => [
      ...history.map((entry) =>
        entry.kind === 'truth' && entry.at >= ORIGIN + at
          ? { ...entry, names: { ...entry.names, users: { u: 1 } } }
          : entry,
      ),
      ...told(at),
    ];
    expect(check(more(20_000)).map(({ rule, of }) => [rule, of])).toEqual([
      ['watching', 'users'],
      ['watching', 'users'],
    ]);
    none(history.map((entry) => (entry.kind === 'truth' ? { ...entry, names: { ...entry.names, users: {} } } : entry)));
  });
  it('a watcher that was started just before the end need not have told anything', () => {
    const late = (at: number) => {
      const made = well()
        .die('watcher 1', at - 500, 'killed')
        .start('watcher 1', at);
      made.call('watcher 1', 'get', NAME, at + 10);
      return made.add(names('watcher 1', at + 10, { [NAME]: 2 })).history();
    };
    none(late(49_501 - BOUNDS.repairMs));
    only('watching', late(49_500 - BOUNDS.repairMs));
  });

  /** Watcher 1 does not tell that b goes at 20,005, before it tells so at `tells`. */
  const lags = (tells: number, more: (made: Made) => Made = (made) => made) => {
    const made = well().watch('watcher 3', 50).start('watcher 3', 3).deregister('registrar 2', 'b', 20_000);
    const late = (entry: Entry) =>
      entry.kind === 'list' && entry.name === NAME && entry.who === 'watcher 1' && entry.at > ORIGIN + 20_000;
    return more(made.add(list('watcher 1', tells, { a: 2 })))
      .history()
      .filter((entry) => !late(entry) || entry.at >= ORIGIN + tells);
  };
  it('a list that stays wrong for longer than the delivery takes', () => {
    none(lags(21_499)); // the read of 20.5 s is the first with the new list
    none(lags(21_500));
    const violation = only('watching', lags(23_000));
    expect(violation).toMatchObject({ who: 'watcher 1', of: NAME, at: ORIGIN + 22_000, until: ORIGIN + 22_504 });
    expect(violation.says).toContain('had held theirs for 1000 ms: b is 1, not absent');
  });
  it('a watcher that says that it is stale', () => {
    const stale: Entry = { kind: 'stale', at: 21_000, who: 'watcher 1', name: NAME };
    none(lags(30_000, (made) => made.add(stale)));
    only(
      'watching',
      lags(30_000, (made) => made.add(stale, { ...stale, kind: 'fresh', at: 25_100 })),
    );
  });
  it('a watcher that is harmed has longer to say so', () => {
    const harmed = (made: Made) => made.fault(19_000, 30_000, ['watcher 1']);
    none(lags(24_000, harmed));
    expect(only('watching', lags(24_001, harmed)).says).toContain('had held theirs for 3000 ms');
  });
  it('a watcher that could do nothing is not blamed', () => {
    none(lags(29_000, (made) => made.fault(19_500, 28_900, ['watcher 1'], { mute: true })));
    none(lags(29_000, (made) => made.add({ kind: 'hiccup', at: 20_200, until: 28_900 })));
  });
  it('a list that is wrong for a moment, while nothing is harmed', () => {
    const blinks = (made: Made) =>
      made.add(list('watcher 1', 24_990, {}), list('watcher 1', 25_010, { a: 2, b: 1 })).history();
    only('watching', blinks(well()));
    // A fault may take away and give back between two reads.
    none(blinks(well().fault(24_000, 24_500, ['registrar 1'])));
  });
  it('one that is wrong to the end is told of once', () => {
    expect(only('watching', lags(60_000)).says).toContain('from 22.000 s to the end');
  });
});

describe('settled', () => {
  const LATE = 5000 + 1000;
  const takes = (takes: number) => {
    const made = well();
    made.call('watcher 1', 'get', NAME, 20_000, { takes });
    return made;
  };
  it('a call that takes too long', () => {
    none(takes(LATE).history());
    const violation = only('settled', takes(LATE + 1).history());
    expect(violation.says).toBe(
      'The get of orders that watcher 1 called at 20.000 s was settled after 6001 ms; 5000 ms is its time.',
    );
  });
  it('a failure settles a call', () => {
    const made = well();
    made.call('watcher 1', 'get', NAME, 20_000, { error: 'TIMEOUT', takes: LATE });
    none(made.history());
  });
  it('time in which the process could do nothing does not count', () => {
    const frozen = (ms: number) =>
      takes(LATE + 3000)
        .fault(24_000, 24_000 + ms, ['watcher 1'], { mute: true })
        .history();
    none(frozen(3000));
    only('settled', frozen(2999));
    none(
      takes(LATE + 3000)
        .add({ kind: 'hiccup', at: 24_000, until: 27_000 })
        .history(),
    );
    only(
      'settled',
      takes(LATE + 3000)
        .fault(24_000, 28_000, ['watcher 1'])
        .history(),
    );
  });
  it('a call that is never settled', () => {
    const open = (at: number) => {
      const made = well();
      made.call('watcher 1', 'get', NAME, at, { open: true });
      return made;
    };
    expect(only('settled', open(20_000).history()).says).toContain('is not settled after 30000 ms');
    none(open(50_000 - LATE).history()); // the run is over
    none(
      open(20_000)
        .die('watcher 1', 20_000 + LATE, 'killed')
        .history(),
    );
    only(
      'settled',
      open(20_000)
        .die('watcher 1', 20_001 + LATE, 'killed')
        .history(),
    );
  });
});

describe('flat', () => {
  const grows = (values: object[]) => well().samples('watcher 1', 2000, values).history();
  const from = (count: number, at: number, more: object) =>
    Array.from({ length: count }, (_, i) => (i >= at ? more : {}));
  it.each([
    ['rssMb', 90 + 48, 90 + 49, 'The resident memory of watcher 1 grew from 90 to 139 MB'],
    ['threads', 16, 17, 'The threads of watcher 1 grew from 14 to 17'],
    ['descriptors', 42, 43, 'The descriptors of watcher 1 grew from 30 to 43'],
  ])('%s that grow', (measure, most, more, says) => {
    none(grows(from(10, 5, { [measure]: most })));
    expect(only('flat', grows(from(10, 5, { [measure]: more }))).says).toContain(says);
  });
  it('what was large for a while is no growth', () =>
    none(grows([{}, {}, {}, {}, { rssMb: 900 }, {}, {}, {}, {}, {}])));
  it('the first sample does not count, nor do fewer than six', () => {
    only('flat', grows([{ threads: 90 }, {}, {}, {}, {}, { threads: 90 }]));
    none(grows([{}, {}, {}, {}, { threads: 90 }]));
  });
  it('what a process takes while it is loaded does not count', () => {
    const loads = (settled: number) => {
      const made = well().samples('registrar 3', 17_000, [...Array(4).fill({ threads: 6 }), ...Array(8).fill({})]);
      made.start('registrar 3', 16_000).call('registrar 3', 'connect', 'c', 16_500, { takes: settled - 16_500 });
      return made.history();
    };
    none(loads(20_500));
    only('flat', loads(16_900));
  });
  it('… nor, of one that calls by name, before it has made a hundred calls', () => {
    const grows = (calls: number) => {
      const made = well().start('caller 1', 1000);
      made.call('caller 1', 'connect', '', 1100);
      for (let i = 0; i < calls; i++) made.call('caller 1', 'fetch', NAME, 1200 + i * 40);
      return made.samples('caller 1', 1150, [...Array(5).fill({}), ...Array(7).fill({ rssMb: 150 })]).history();
    };
    none(grows(120));
    only('flat', grows(100));
  });
  it('each life is one of its own', () => {
    const made = well().die('watcher 1', 20_000, 'killed').start('watcher 1', 20_001);
    made.samples('watcher 1', 2000, Array(10).fill({})).samples('watcher 1', 21_000, Array(10).fill({ threads: 90 }));
    none(made.add(list('watcher 1', 21_000, { a: 2, b: 1 }), names('watcher 1', 21_000, { [NAME]: 2 })).history());
  });
});

describe('alive', () => {
  it('a process that died by itself', () => {
    const died = (how: 'crashed' | 'killed') => well().die('candidate 1', 30_000, how, 'SIGSEGV').history();
    expect(only('alive', died('crashed')).says).toBe('candidate 1 died by itself at 30.000 s: SIGSEGV.');
    none(died('killed'));
  });
});

describe('quiet', () => {
  const event = (at: number, event: 'lost' | 'stalled' | 'replaced' | 'restored'): Entry => {
    return { kind: 'event', at, who: 'registrar 1', of: 'a', event, reason: 'expired' };
  };
  it.each(['lost', 'stalled'] as const)('a registration that was %s while nothing harmed it', (what) => {
    const harmed = (at: number) => well().fault(18_000, 19_000, ['registrar 1']).add(event(at, what)).history();
    none(harmed(19_000 + BOUNDS.repairMs));
    expect(only('quiet', harmed(19_001 + BOUNDS.repairMs)).says).toContain(`was ${what} at 23.001 s (expired)`);
  });
  it('one that was lost while its process was mute is told of later', () => {
    const blocked = (lost: number) =>
      well()
        .fault(12_000, 13_000, ['registrar 1'])
        .fault(19_000, 26_000, ['registrar 1'], { mute: true, survivable: true })
        .add(event(lost, 'lost'))
        .history()
        .map((entry) => (entry.kind === 'begin' ? { ...entry, repairMs: 10_000 } : entry));
    none(blocked(26_900));
    only('quiet', blocked(27_001));
  });
  it('a registration that was replaced, whatever happened', () => {
    only('quiet', well().fault(18_000, 19_000, ['registrar 1']).add(event(18_500, 'replaced')).history());
  });
  it('one that was restored', () => none(well().add(event(20_000, 'restored')).history()));
});

it('every rule is named', () => {
  expect(RULES).toEqual([
    ...['sound', 'registered', 'dead', 'deregistered', 'withdrawn', 'watching', 'named'],
    ...['called', 'one-holder', 'permits', 'fenced', 'once', 'config', 'ids', 'settled', 'flat', 'alive', 'quiet'],
  ]);
});
