// What the checker finds of lists of names: histories in which one thing went wrong, or nearly did.

import { describe, expect, it } from 'vitest';
import { check } from './check.js';
import { type Entry, THE_NAMES } from './history.js';
import { found, names, none, only } from './judged.js';
import { BOUNDS, type Made, NAME, ORIGIN, well } from './made.js';

const all = { [NAME]: 2 };

describe('named', () => {
  /** Watcher 1 tells of no names at `at`, and of all a moment later. */
  const blinks = (at: number, made: Made = well()) =>
    made.add(names('watcher 1', at, {}), names('watcher 1', at + 100, all)).history();

  it('a name that is missing for a moment, though an instance of it stood all along', () => {
    const violation = only('named', blinks(24_600));
    expect(violation).toMatchObject({ who: 'watcher 1', of: NAME, at: ORIGIN + 24_600 });
    expect(violation.says).toBe(
      'watcher 1 told at 24.600 s of names without orders and did not call them stale, though a of registrar 1 had been registered since 0.110 s, and nothing harmed it since 23.600 s.',
    );
  });
  it('what is told after the end is not judged: everybody leaves', () => {
    const left = (at: number) => {
      const made = well().die('registrar 1', 50_020, 'left').die('registrar 2', 50_020, 'left');
      return made.add(names('watcher 1', at, {}), names('watcher 1', at + 1, all)).history();
    };
    none(left(50_005));
    only('named', left(49_990));
  });
  it('is told of once, and again when it was there in between', () => {
    const made = () => well().add(names('watcher 1', 24_600, {}), names('watcher 1', 24_650, { users: 1 }));
    expect(
      found(
        made()
          .add(names('watcher 1', 24_700, all))
          .history(),
      ),
    ).toHaveLength(1);
    expect(found(blinks(24_800, made().add(names('watcher 1', 24_700, all))))).toHaveLength(2);
  });
  it('a list that says that it is stale, until it says that it is fresh', () => {
    const stale = (more: Entry[]) =>
      well()
        .add(names('watcher 1', 24_600, {}, true), ...more, names('watcher 1', 24_800, all))
        .history();
    none(stale([]));
    const fresh: Entry = { kind: 'fresh', at: 24_700, who: 'watcher 1', name: THE_NAMES };
    only('named', stale([fresh]));
    only('named', blinks(24_600, well().add({ ...fresh, kind: 'stale', at: 24_000 })));
  });
  it('an instance that has not stood for as long as a list may be old excuses it', () => {
    const young = (at: number) => {
      const made = well().deregister('registrar 2', 'b', 19_000).deregister('registrar 1', 'a', 19_100);
      return blinks(at, made.register('registrar 1', 'a', 22_005, 3).register('registrar 2', 'b', 22_900, 3));
    };
    none(young(22_014 + BOUNDS.deliveryMs));
    only('named', young(22_015 + BOUNDS.deliveryMs));
  });
  it('one that is deregistered or withdrawn stands no longer', () => {
    const made = () => well().deregister('registrar 2', 'b', 24_600);
    none(
      made()
        .withdraw('registrar 1', 'a', 24_600)
        .add(names('watcher 1', 24_605, {}))
        .history(),
    );
    only('named', blinks(24_605, made().withdraw('registrar 1', 'a', 24_900)));
  });
  it('harm to each of its processes excuses it, not harm to one of them', () => {
    const harmed = (...whom: string[]) => blinks(24_600, well().fault(20_000, 20_700, whom));
    none(harmed('registrar 1', 'registrar 2'));
    only('named', harmed('registrar 1'));
    // In all the time that the list may be old, nothing harms it.
    only('named', blinks(24_600, well().fault(19_000, 19_599, ['registrar 1', 'registrar 2'])));
  });
  it('one that it must outlive excuses nothing', () => {
    only('named', blinks(24_600, well().fault(20_000, 20_700, ['registrar 1', 'registrar 2'], { survivable: true })));
  });
  it('a list of a watcher that is harmed may be older', () => {
    const harmed = (from: number, at: number) => {
      const made = well().deregister('registrar 2', 'b', 19_000).deregister('registrar 1', 'a', 19_100);
      made.register('registrar 1', 'a', 24_000, 3).register('registrar 2', 'b', 24_050, 3);
      return blinks(at, made.fault(from, 26_000, ['watcher 1']));
    };
    none(harmed(25_000, 24_010 + BOUNDS.staleMs - 1));
    only('named', harmed(25_000, 24_010 + BOUNDS.staleMs));
  });
  it('a watcher that could do nothing is not blamed', () => {
    none(blinks(24_600, well().fault(23_000, 24_500, ['watcher 1'], { mute: true })));
    none(blinks(24_600, well().add({ kind: 'hiccup', at: 24_000, until: 24_500 })));
  });
  it('names that nobody has registered are nobody else’s', () => {
    none(well().deregister('registrar 2', 'b', 20_000).deregister('registrar 1', 'a', 20_000).history());
  });
});

describe('the names, as any list', () => {
  /** With these in the place of what watcher 1 tells of the names from 20 s on. */
  const instead = (made: Made, ...told: Entry[]) => {
    const kept = new Set(told.map(({ at }) => at + ORIGIN));
    const isReplaced = (entry: Entry) =>
      entry.kind === 'list' && entry.name === THE_NAMES && entry.who === 'watcher 1' && entry.at > ORIGIN + 20_000;
    return made
      .add(...told)
      .history()
      .filter((entry) => !isReplaced(entry) || kept.has(entry.at));
  };
  const gone = () => well().deregister('registrar 2', 'b', 20_000).deregister('registrar 1', 'a', 20_010);

  it('go with the last instance, in time', () => {
    none(gone().history());
    none(instead(gone(), names('watcher 1', 21_400, {})));
    const [violation] = check(instead(gone(), names('watcher 1', 23_000, {})));
    expect(violation).toMatchObject({ rule: 'watching', who: 'watcher 1', of: THE_NAMES, at: ORIGIN + 22_000 });
    expect(violation?.says).toContain('tells a wrong list of the names from 22.000 s to 22.504 s');
  });
  it('come back with the first', () => {
    const back = () => gone().register('registrar 1', 'a', 30_000, 3).register('registrar 2', 'b', 30_010, 2);
    none(back().history());
    const violations = check(instead(back(), names('watcher 1', 20_100, {})));
    expect(violations.map(({ rule, of }) => [rule, of])).toEqual([['watching', THE_NAMES]]);
    expect(violations[0]?.says).toContain('orders is absent, not 2');
  });
  it('say how many there are, where the registry does', () => {
    const counts = (count: number) =>
      well()
        .history()
        .map(
          (entry): Entry =>
            entry.kind === 'list' && entry.name === THE_NAMES ? { ...entry, list: { [NAME]: count } } : entry,
        );
    none(counts(0));
    expect(found(counts(3))).toHaveLength(2);
  });
  it('a count that falls is none that goes back', () => none(well().deregister('registrar 2', 'b', 20_000).history()));
  it('a watcher that ends with others', () => {
    const violations = check(
      well()
        .add(names('watcher 1', 49_600, { ...all, users: 1 }))
        .history(),
    );
    expect(violations.map(({ rule, says }) => [rule, says])).toEqual([
      ['watching', "watcher 1 ends with a list of the names that is not the servers': users is 1, not absent."],
    ]);
  });
  it('a watcher that ends', () => {
    const ended: Entry = { kind: 'ended', at: 20_000, who: 'watcher 1', name: THE_NAMES };
    expect(only('watching', well().add(ended).history()).says).toContain('The watcher of the names of watcher 1 ended');
  });
  it('a watcher that tells of none', () => {
    const silent = well()
      .history()
      .filter((entry) => !(entry.kind === 'list' && entry.name === THE_NAMES));
    expect(check(silent).map(({ rule, of }) => [rule, of])).toEqual([
      ['watching', THE_NAMES],
      ['watching', THE_NAMES],
    ]);
  });
});
