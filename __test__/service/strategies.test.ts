import { describe, expect, it } from 'vitest';
import { changeOf } from '../../lib/service/diff.js';
import { LoadRecord } from '../../lib/service/load.js';
import { consistentHash } from '../../lib/service/pick/consistent-hash.js';
import { hashOf, mixed } from '../../lib/service/pick/hash.js';
import { leastLoaded } from '../../lib/service/pick/least-loaded.js';
import { random } from '../../lib/service/pick/random.js';
import { Ring } from '../../lib/service/pick/ring.js';
import { roundRobin } from '../../lib/service/pick/round-robin.js';
import type { Candidate, Change } from '../../lib/service/pick/types.js';
import { weighted } from '../../lib/service/pick/weighted.js';
import { weightedRandom } from '../../lib/service/pick/weighted-random.js';
import { seeded } from '../support/random.js';
import { candidate, candidates, counted, fits, idOf, type TestCandidate, tools } from './kit.js';

const change = (before: readonly Candidate[], next: readonly Candidate[]) => changeOf(before, next) as Change;

/** The owners of all points, in their order. */
function around(ring: Ring, ids: ReadonlySet<string>) {
  const names = new Map([...ids].map((id) => [ring.slot(id), id]));
  const owners = [];
  for (let left = ring.size, place = ring.find(0); left > 0; left--, place = ring.next(place))
    owners.push(names.get(ring.owner(place)));
  return owners;
}

describe('random() and weightedRandom()', () => {
  it.each([1, 2, 3, 10, 100])('random: chi-square over %i', (count) => {
    const list = candidates(count);
    const counts = [...counted(random(), list, 100_000, count).values()];
    if (count > 1)
      expect(
        fits(
          counts,
          counts.map(() => 100_000 / count),
        ),
      ).toBe(true);
    expect(counts.reduce((sum, one) => sum + one, 0)).toBe(100_000);
  });

  it.each<[string, number, (n: number) => number]>([
    ['5/1/1', 3, (n) => (n === 0 ? 5 : 1)],
    ['100/1', 2, (n) => (n === 0 ? 100 : 1)],
    ['3 to 100', 10, (n) => 3 + Math.round((n * 97) / 9)],
    ['50 to 149', 100, (n) => 50 + n],
    ['equal', 7, () => 100],
    ['fractions', 3, (n) => [0.1, 0.2, 0.7][n] as number],
  ])('weighted: chi-square with %s', (_, count, weight) => {
    const list = candidates(count, weight);
    const sum = list.reduce((all, one) => all + one.weight, 0);
    const counts = counted(weightedRandom(), list, 200_000, count);
    expect(
      fits(
        [...counts.values()],
        list.map((one) => (one.weight / sum) * 200_000),
      ),
    ).toBe(true);
  });

  it('the check itself finds a wrong distribution', () => {
    expect(fits([340, 330, 330], [333, 333, 333])).toBe(true);
    expect(fits([5000, 4500, 4500], [4667, 4667, 4667])).toBe(false);
  });
});

describe('roundRobin()', () => {
  it('goes round, and goes on with whose turn it was when the list changes', () => {
    const list = candidates(4);
    const picker = roundRobin().bind(list, { ...tools(1), random: () => 0 });
    expect([0, 1, 2, 3, 4].map(() => picker.pick(undefined).instance.id)).toEqual([0, 1, 2, 3, 0].map(idOf));
    const next = [list[0], candidate('i00000a'), list[2], list[3]] as Candidate[]; // the next one is gone
    expect(picker.update?.(change(list, next))).toBe(true);
    expect([0, 1, 2, 3].map(() => picker.pick(undefined).instance.id)).toEqual([
      'i00002',
      'i00003',
      'i00000',
      'i00000a',
    ]);
  });
});

describe('weighted()', () => {
  const cases: [string, number, (n: number) => number][] = [
    ['5/1/1', 3, (n) => (n === 0 ? 5 : 1)],
    ['100/1', 2, (n) => (n === 0 ? 100 : 1)],
    ['3 to 100', 10, (n) => 3 + Math.round((n * 97) / 9)],
    ['50 to 149', 100, (n) => 50 + n],
    ['one of 10,000 among 1s', 200, (n) => (n === 7 ? 10_000 : 1)], // by deadlines: strides would miss 190 times a pick
    ['equal', 5, () => 100],
    ['one alone', 1, () => 3],
  ];

  /** Counts from the last mark on, and the longest wait in fair periods; after every pick. */
  class Watch {
    picks = 0;
    readonly counts = new Map<string, number>();
    readonly last = new Map<string, number>();
    error = 0;
    wait = 0;
    see(list: readonly Candidate[], id: string, sum: number) {
      this.picks++;
      this.counts.set(id, (this.counts.get(id) ?? 0) + 1);
      const { weight } = list.find(({ instance }) => instance.id === id) as Candidate;
      this.wait = Math.max(this.wait, ((this.picks - (this.last.get(id) ?? 0)) * weight) / sum);
      this.last.set(id, this.picks);
      for (const one of list.length > 20 ? [] : list) this.judge(one, sum);
    }
    judge({ instance, weight }: Candidate, sum: number) {
      this.error = Math.max(this.error, Math.abs((this.counts.get(instance.id) ?? 0) - (this.picks * weight) / sum));
    }
  }

  it.each(cases)('with %s every count is within 2 of its share, and nobody waits 2.5 periods', (_, count, weight) => {
    const list = candidates(count, weight);
    const sum = list.reduce((all, one) => all + one.weight, 0);
    for (const seed of [1, 2, 3]) {
      const picker = weighted().bind(list, tools(seed));
      const watch = new Watch();
      for (let pick = 0; pick < 20_000; pick++) watch.see(list, picker.pick(undefined).instance.id, sum);
      for (const one of list) watch.judge(one, sum);
      expect(watch.error).toBeLessThanOrEqual(2);
      expect(watch.wait).toBeLessThanOrEqual(2.5);
    }
  });

  it('a change of weights or of members gives nobody a turn twice and makes nobody wait anew', () => {
    const random = seeded(7);
    let list: TestCandidate[] = candidates(12, (n) => 50 + 10 * n);
    const picker = weighted().bind(list, tools(7));
    /** What each is owed: its share of every pick less what it had. */
    const owed = new Map<string, number>();
    for (let round = 0; round < 400; round++) {
      const sum = list.reduce((all, one) => all + one.weight, 0);
      for (let pick = 0; pick < 1 + Math.floor(random() * 40); pick++) {
        for (const { instance, weight } of list) owed.set(instance.id, (owed.get(instance.id) ?? 0) + weight / sum);
        const { id } = picker.pick(undefined).instance;
        owed.set(id, (owed.get(id) as number) - 1);
      }
      let next = [...list];
      const kind = random();
      if (kind < 0.5) {
        const at = Math.floor(random() * next.length); // another weight for one
        next[at] = candidate((next[at] as TestCandidate).instance.id, 20 + Math.floor(random() * 200));
      } else if (kind < 0.75 && next.length > 6) {
        const [gone] = next.splice(Math.floor(random() * next.length), 1);
        owed.delete((gone as TestCandidate).instance.id);
      } else {
        next.push(candidate(`n${String(round).padStart(4, '0')}`, 20 + Math.floor(random() * 200)));
        next = next.sort((a, b) => (a.instance.id < b.instance.id ? -1 : 1));
      }
      expect(picker.update?.(change(list, next))).toBe(true);
      list = next;
    }
    // The rounding of each change adds up by chance; anew each time, it would be one turn for each of 400 changes.
    expect(Math.max(...[...owed.values()].map(Math.abs))).toBeLessThan(12);
  });
});

describe('consistentHash()', () => {
  const keys = Array.from({ length: 20_000 }, (_, n) => `user-${n}`);
  const owners = (list: readonly Candidate[], points = 100) => {
    const picker = consistentHash({ bound: false, points }).bind(list, tools(1));
    return keys.map((key) => picker.pick(key).instance.id);
  };

  it('one more of n takes 1/n of the keys in the mean, and no key moves between two that stay', () => {
    const all = candidates(21);
    const before = owners(all.slice(0, 20));
    const moved: number[] = [];
    for (const { instance } of all.slice(0, 20)) {
      // Over all members: how much of the keys each has, which is what moves when it leaves.
      const without = all.slice(0, 20).filter((one) => one.instance !== instance);
      const after = owners(without);
      const changed = keys.flatMap((_, n) => (before[n] === after[n] ? [] : [n]));
      expect(changed.every((n) => before[n] === instance.id)).toBe(true);
      moved.push(changed.length / keys.length);
    }
    expect(moved.reduce((sum, one) => sum + one, 0) / moved.length).toBeLessThanOrEqual(1.05 / 20);
    expect(Math.max(...moved)).toBeLessThan(1.6 / 20);
    const joined = owners(all);
    expect(keys.every((_, n) => joined[n] === before[n] || joined[n] === idOf(20))).toBe(true);
  });

  it('a ring changed in place is the ring made at once, whatever went before', () => {
    const random = seeded(3);
    const now = new Set(Array.from({ length: 300 }, (_, n) => idOf(n)));
    const ring = new Ring(40, [...now]);
    for (let step = 0; step < 200; step++) {
      const removed = [...now].filter(() => random() < 0.02);
      const added = Array.from({ length: Math.floor(random() * 8) }, () =>
        idOf(300 + Math.floor(random() * 5000)),
      ).filter((id, place, all) => !now.has(id) && all.indexOf(id) === place);
      ring.change(removed, added);
      for (const id of removed) now.delete(id);
      for (const id of added) now.add(id);
    }
    const fresh = new Ring(40, [...now]);
    expect(ring.size).toBe(fresh.size);
    expect(around(ring, now)).toEqual(around(fresh, now));
  });

  it('a ring whose points crowd in one place works as any other', () => {
    // As the ring has it: the first point of an id.
    const hash = (id: string) => mixed(hashOf(id) + (hashOf(id, 0x9e3779b9) | 1));
    const ids: string[] = [];
    for (let n = 0; ids.length < 1500; n++) if (hash(`c${n}`) < 2 ** 24) ids.push(`c${n}`);
    const ring = new Ring(1, ids.slice(0, 900));
    for (const id of ids.slice(900)) ring.change([], [id]);
    for (const id of ids.slice(0, 300)) ring.change([id], []);
    const left = new Set(ids.slice(300));
    expect(ring.size).toBe(1200);
    expect(around(ring, left)).toEqual(around(new Ring(1, [...left]), left));
  });

  it('a picker that lived through changes agrees with a new one on every key', () => {
    let list: readonly Candidate[] = candidates(50);
    const old = consistentHash({ bound: false }).bind(list, tools(1));
    const random = seeded(5);
    for (let step = 0; step < 60; step++) {
      const next = list.filter(() => random() > 0.03).concat(candidate(`n${String(step).padStart(3, '0')}`));
      expect(old.update?.(change(list, next))).toBe(true);
      list = next;
    }
    const fresh = consistentHash({ bound: false }).bind(list, tools(2));
    expect(keys.map((key) => old.pick(key))).toEqual(keys.map((key) => fresh.pick(key)));
  });

  it('the bound of the load holds at every step, and passes keys on along the ring', () => {
    const list = candidates(20);
    const picker = consistentHash({ bound: 1.25 }).bind(
      list,
      tools(1, () => list),
    );
    const random = seeded(9);
    const flying: Candidate[] = [];
    for (let step = 0; step < 5000; step++) {
      if (flying.length > 0 && random() < 0.4) {
        const [done] = flying.splice(Math.floor(random() * flying.length), 1);
        (done as Candidate).load.inFlight--;
        continue;
      }
      const picked = picker.pick(random() < 0.5 ? 'hot' : `k${Math.floor(random() * 1000)}`);
      picked.load.inFlight++;
      flying.push(picked);
      expect(picked.load.inFlight).toBeLessThanOrEqual(Math.ceil((1.25 * flying.length) / 20));
    }
  });

  it('those that are skipped are passed over, and their keys come back', () => {
    const list = candidates(10);
    const picker = consistentHash({ bound: false }).bind(list, tools(1));
    const home = picker.pick('k');
    const skip = { left: 9, has: (one: Candidate) => one === home };
    expect(picker.pick('k', skip)).not.toBe(home);
    expect(picker.pick('k')).toBe(home);
    expect(picker.pick('k', { left: 0, has: () => true })).toBeDefined();
  });

  it.each([{ bound: 1 }, { bound: 'x' }, { points: 0 }, { point: 1 }])('refuses %j', (options) => {
    expect(() => consistentHash(options as never)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }));
  });
});

describe('leastLoaded()', () => {
  /** Callers in a closed loop, or one call every so many milliseconds; gives how often each was picked after `from`. */
  function simulate(options: {
    list: TestCandidate[];
    callMs: (one: Candidate, nth: number) => number;
    everyMs: number;
    forMs: number;
    from?: number;
    seed?: number;
    isCancelled?: (n: number) => boolean;
  }) {
    const { list, callMs, everyMs, forMs, from = 0, seed = 1, isCancelled = () => false } = options;
    const clock = tools(seed);
    const start = clock.clock;
    const picker = leastLoaded().bind(list, clock);
    const counts = new Map<Candidate, number>(list.map((one) => [one, 0]));
    const nth = new Map<Candidate, number>();
    const ends: { at: number; one: Candidate; ms: number; cancelled: boolean }[] = [];
    for (let n = 0; n * everyMs < forMs; n++) {
      const now = start + n * everyMs;
      ends.sort((a, b) => a.at - b.at);
      for (let next = ends[0]; next && next.at <= now; next = ends[0]) {
        ends.shift();
        clock.clock = next.at;
        next.one.load.inFlight--;
        if (!next.cancelled) picker.feed?.(next.one, next.ms, false);
      }
      clock.clock = now;
      const one = picker.pick(undefined);
      one.load.inFlight++;
      if (now - start >= from) counts.set(one, (counts.get(one) ?? 0) + 1);
      const ms = callMs(one, nth.get(one) ?? 0);
      nth.set(one, (nth.get(one) ?? 0) + 1);
      ends.push({ at: now + ms, one, ms, cancelled: isCancelled(n) });
    }
    const sum = [...counts.values()].reduce((all, count) => all + count, 0);
    return list.map((one) => (counts.get(one) as number) / sum);
  }

  it('one whose first call was 100 times slower has a fair share over the next 10 s', () => {
    const list = candidates(3);
    const callMs = (one: Candidate, nth: number) => (one === list[0] && nth === 0 ? 150 : 1.5);
    for (const seed of [1, 2, 3, 4, 5]) {
      for (const { load } of list) Object.assign(load, new LoadRecord());
      const [share = 0] = simulate({ list, callMs, everyMs: 2, forMs: 10_150, from: 150, seed });
      expect(share, `seed ${seed}`).toBeGreaterThan(0.75 / 3);
      expect(share, `seed ${seed}`).toBeLessThan(1.25 / 3);
    }
  });

  it('one that comes later has a fair share too, and does not get all calls at once', () => {
    const list = candidates(3);
    const clock = tools(1);
    const picker = leastLoaded().bind(list.slice(0, 2), clock);
    for (const { load } of list.slice(0, 2)) Object.assign(load, { latencyMs: 100, latencyAt: clock.clock });
    picker.feed?.(list[0] as TestCandidate, 100, false);
    expect(picker.update?.(change(list.slice(0, 2), list))).toBe(true);
    for (let call = 0; call < 300; call++) picker.pick(undefined).load.inFlight++; // a burst
    for (const { load } of list) expect(Math.abs(load.inFlight - 100)).toBeLessThan(40);
  });

  it('a burst of 1,000 calls in one tick does not fall on one', () => {
    for (const seed of [1, 2, 3, 4, 5]) {
      const list = candidates(3);
      const picker = leastLoaded().bind(list, tools(seed));
      for (let call = 0; call < 1000; call++) picker.pick(undefined).load.inFlight++;
      for (const { load } of list) {
        expect(load.inFlight).toBeGreaterThan(200);
        expect(load.inFlight).toBeLessThan(460);
      }
    }
  });

  it('one that is three times slower gets less, and is not forgotten', () => {
    const list = candidates(3);
    const [share = 0] = simulate({ list, callMs: (one) => (one === list[0] ? 30 : 10), everyMs: 2, forMs: 60_000 });
    expect(share).toBeGreaterThan(0.01);
    expect(share).toBeLessThan(0.2);
  });

  it('shares follow the weights', () => {
    const list = [candidate('a', 300), candidate('b', 100), candidate('c', 100)];
    const [share = 0] = simulate({ list, callMs: () => 20, everyMs: 0.5, forMs: 20_000 });
    expect(share).toBeGreaterThan(0.45);
    expect(share).toBeLessThan(0.75);
  });

  it('one that fails at once does not look quick', () => {
    const list = candidates(2);
    const clock = tools(1);
    const picker = leastLoaded().bind(list, clock);
    const [good, bad] = list as [TestCandidate, TestCandidate];
    picker.feed?.(good, 50, false);
    picker.feed?.(bad, 0.1, true);
    for (let call = 0; call < 20; call++) expect(picker.pick(undefined)).toBe(good);
    expect(picker.explain?.(bad)).toMatch(/^cost 1\.55 = \(150\.0 \+ 5 ms\) × \(0 in flight \+ 1\) \/ weight 100$/);
  });

  it('calls that were cancelled leave nothing behind', () => {
    const list = candidates(3);
    const shares = simulate({ list, callMs: () => 5, everyMs: 1, forMs: 5000, isCancelled: (n) => n % 2 === 0 });
    expect(Math.min(...shares)).toBeGreaterThan(0.28);
    expect(list.reduce((sum, { load }) => sum + load.inFlight, 0)).toBeLessThan(8);
  });
});
