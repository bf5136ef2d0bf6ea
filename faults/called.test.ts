// What the checker finds of calls by name: histories in which one thing went wrong, or nearly did.

import { describe, expect, it } from 'vitest';
import { check, figures } from './check.js';
import { found, none, only } from './judged.js';
import { type CallOptions, type Made, NAME, ORIGIN, well } from './made.js';
import { ASIDE_MS, PER_TRY_MS } from './rules/called.js';

const FAILS: CallOptions = { takes: 5, error: 'ERR_UNAVAILABLE: it broke' };

/** A run with a caller, whose call of `at` goes wrong, and one that doesn't. */
const calls = (what: 'fetch' | 'post', at: number, options: CallOptions = FAILS, made: Made = well()) => {
  made.start('caller 1', 5).call('caller 1', what, NAME, 6000);
  made.call('caller 1', what, NAME, at, options);
  return made;
};

/** Registrar 2 dies, and its next life begins. */
const killed = (at: number, again: number, made: Made = well()) =>
  made
    .fault(at, again, ['registrar 2'], { what: 'kill' })
    .die('registrar 2', at + 10, 'killed')
    .start('registrar 2', again)
    .register('registrar 2', 'b', again + 300, 2);

/** A registrar is stopped. */
const frozen = (who: string, at: number, until: number, made: Made = well()) =>
  made.fault(at, until, [who], { what: 'freeze', mute: true });

describe('called', () => {
  it.each(['fetch', 'post'] as const)('a %s that fails while instances stand and run', (what) => {
    const violation = only('called', calls(what, 20_000).history());
    expect(violation).toMatchObject({ who: 'caller 1', of: NAME, at: ORIGIN + 20_000 });
    expect(violation.says).toBe(
      `The ${what} of orders that caller 1 called at 20.000 s failed at 20.005 s (ERR_UNAVAILABLE: it broke), though a of registrar 1 stood there since 0.110 s and answered.`,
    );
  });

  it('one that is settled when the run is over', () => none(calls('post', 49_998).history()));

  it('no fault of the servers or the network excuses it', () => {
    const all = ['registrar 1', 'registrar 2', 'watcher 1', 'watcher 2', 'caller 1'];
    const harmed = calls('post', 20_000).fault(18_000, 22_000, all, { servers: true });
    only('called', harmed.history());
    // Nor the time of the repairs after it.
    only('called', calls('post', 24_000).fault(18_000, 22_000, all).history());
  });

  it('a read that lacks every instance since then, or the word of their processes, excuses it', () => {
    const all = ['registrar 1', 'registrar 2', 'caller 1', 'watcher 1', 'watcher 2'];
    const lost = (of: string, who: string, made: Made) =>
      made.add({ kind: 'event', at: 19_000, who, of, event: 'lost' } as const);
    const one = lost('a', 'registrar 1', calls('post', 20_000).fault(18_000, 22_000, all, { servers: true }));
    only('called', one.history());
    none(lost('b', 'registrar 2', one).history());
    const gone = calls('post', 20_000).fault(18_000, 22_000, all, { servers: true });
    gone.holds('a', 18_900).holds('a', 19_600, 2).holds('b', 18_900).holds('b', 19_600, 1);
    none(gone.history());
  });

  it('an instance that has not stood for as long as a list may be old', () => {
    const young = (at: number) =>
      calls('post', at, FAILS, well().deregister('registrar 1', 'a', 19_000).deregister('registrar 2', 'b', 19_100))
        .register('registrar 1', 'a', 22_000, 3)
        .history();
    none(young(23_009));
    only('called', young(23_010));
  });

  it('nor does it count when its caller could do nothing', () => {
    const stopped = (at: number) => calls('post', at).fault(18_000, 19_500, ['caller 1'], { mute: true });
    none(stopped(20_500).history());
    only('called', stopped(20_501).history());
  });

  describe('when an instance is killed', () => {
    it('it may cost what was in flight and may not be sent again', () => {
      none(calls('post', 20_000, { ...FAILS, takes: 500 }, killed(20_400, 24_000)).history());
      none(calls('post', 20_408, FAILS, killed(20_400, 24_000)).history());
    });
    it('not what may be', () => {
      only('called', calls('fetch', 20_000, { ...FAILS, takes: 500 }, killed(20_400, 24_000)).history());
    });
    it('nor what was called afterwards', () => {
      only('called', calls('post', 20_411, FAILS, killed(20_400, 24_000)).history());
    });
    it('nor when it is there again', () =>
      only('called', calls('post', 26_000, FAILS, killed(20_400, 24_000)).history()));
  });

  describe('when an instance is stopped', () => {
    const slow = { ...FAILS, takes: PER_TRY_MS };
    /** So many calls that fail one after the other. */
    const many = (count: number, made: Made) => {
      calls('post', 20_000, slow, made);
      for (let i = 1; i < count; i++) made.call('caller 1', 'post', NAME, 20_000 + i * 100, slow);
      return made.history();
    };
    const MOST = 5 + 2 + Math.ceil(6000 / ASIDE_MS);

    it('it may cost as many calls as it takes to be set aside, and one each time it is tried', () => {
      none(many(MOST, frozen('registrar 2', 19_000, 25_000)));
      const violation = only('called', many(MOST + 1, frozen('registrar 2', 19_000, 25_000)));
      expect(violation.says).toContain(
        'the 10th for registrar 2, which served nothing from 19.000 s to 25.000 s; 9 is the most.',
      );
    });
    it('more when another one was away as well, which may be set aside in its place', () => {
      const both = (until: number) => frozen('registrar 2', 19_000, 25_000, frozen('registrar 1', until - 1000, until));
      const edge = 19_000 - ASIDE_MS - PER_TRY_MS - 1000;
      const three = (made: Made) => made.start('registrar 3', 3).register('registrar 3', 'c', 300, 1);
      none(many(MOST + 1, three(both(edge + 1))));
      only('called', many(MOST + 1, three(both(edge - 1))));
    });
    it('not what may be sent again', () => {
      only('called', calls('fetch', 20_000, slow, frozen('registrar 2', 19_000, 25_000)).history());
    });
    it('nor afterwards', () => {
      none(calls('post', 26_000, FAILS, frozen('registrar 2', 19_000, 25_000)).history());
      only('called', calls('post', 26_001, FAILS, frozen('registrar 2', 19_000, 25_000)).history());
    });
  });

  it('more instances away than a call can try excuse it', () => {
    const away = (count: number) => {
      const made = well();
      for (let i = 3; i <= 6; i++) made.start(`registrar ${i}`, 3).register(`registrar ${i}`, `r${i}`, 300, 1);
      for (let i = 1; i <= count; i++) frozen(`registrar ${i}`, 19_000, 25_000, made);
      return calls('fetch', 20_000, FAILS, made).history();
    };
    only('called', away(2));
    none(away(3));
  });

  it('a run that excuses every call has judged none', () => {
    const made = well().start('caller 1', 5);
    made.fault(10_000, 11_000, ['caller 1'], { mute: true }).call('caller 1', 'fetch', NAME, 10_500);
    only('sound', made.history());
    none(made.call('caller 1', 'fetch', NAME, 20_000) ? made.history() : []);
  });

  it('figures count what was judged', () => {
    const history = calls('post', 20_000).history();
    expect(found(history)).toHaveLength(1);
    expect(figures(history).byName).toEqual({ count: 2, judged: 2, failed: 1 });
    expect(check(history)[0]?.until).toBe(ORIGIN + 20_005);
  });
});
