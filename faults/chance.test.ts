// The checker finds nothing in histories that are made by chance and sound, and is quick with long ones.

import { describe, expect, it } from 'vitest';
import { seeded } from '../__test__/support/random.js';
import { check } from './check.js';
import { BOUNDS, LOCK, Made, NAME } from './made.js';

describe('a history that was made by chance', () => {
  /** Registrars that are cut off, killed and started again; watchers that lose touch; a lock that goes round. */
  function byChance(seed: number): Made {
    const random = seeded(seed);
    const between = (least: number, most: number) => least + Math.floor(random() * (most - least));
    const made = new Made({ calm: 80_000, end: 90_000, seed });
    for (let i = 1; i <= between(2, 6); i++) {
      const [who, id] = [`registrar ${i}`, `instance-${i}`];
      made.start(who, i);
      let n = 1;
      made.register(who, id, between(10, 900), n);
      for (let at = between(2000, 8000); at < 60_000; at += between(9000, 20_000)) {
        const what = between(0, 4);
        if (what === 0) made.register(who, id, at, ++n, 'update');
        if (what === 1) {
          const until = at + between(100, 4000);
          made.fault(at, until, [who]).add({ kind: 'event', at: at + 50, who, of: id, event: 'lost' });
          made.holds(id, at + 40).holds(id, until + between(0, BOUNDS.repairMs), n);
        }
        if (what === 2) {
          made.die(who, at, 'killed').holds(id, at + between(0, 5500));
          made.start(who, at + 6000).register(who, id, at + 6100, ++n);
        }
        if (what === 3) made.deregister(who, id, at).register(who, id, at + between(20, 2000), ++n);
      }
    }
    for (let i = 1; i <= between(1, 4); i++) {
      const [at, length] = [between(5000, 50_000), between(1000, 9000)];
      made.start(`watcher ${i}`, i).watch(`watcher ${i}`, 20, 90_000, [{ at, until: at + length }]);
      made.fault(at, at + length, [`watcher ${i}`]);
      made.call(`watcher ${i}`, 'get', NAME, at + 10, { takes: between(10, 6000), error: 'TIMEOUT' });
    }
    made.start('candidate 1', 1).start('candidate 2', 2);
    let token = 1;
    for (let at = 1000; at < 70_000; at += between(3000, 6000)) {
      token += between(1, 9);
      made.term(`candidate ${between(1, 3)}`, LOCK, token, at, at + between(100, 2900));
    }
    return made;
  }
  it.each(Array.from({ length: 40 }, (_, i) => i + 1))('has no violations: %i', (seed) => {
    expect(check(byChance(seed).history())).toEqual([]);
  });
});

it('a history of a hundred thousand entries is judged within seconds', () => {
  const made = new Made({ calm: 170_000, end: 180_000 });
  for (let i = 1; i <= 10; i++) {
    made.start(`registrar ${i}`, i).register(`registrar ${i}`, `id-${i}`, 100 + i, 1);
    for (let j = 1; j <= 150; j++) made.register(`registrar ${i}`, `id-${i}`, 1000 * j + i, j + 1, 'update');
  }
  for (let i = 1; i <= 5; i++) {
    made.start(`watcher ${i}`, i).watch(`watcher ${i}`, 500);
    for (let at = 1000; at < 170_000; at += 20) made.call(`watcher ${i}`, 'get', NAME, at);
  }
  const history = made.history();
  expect(history.length).toBeGreaterThan(90_000);
  const began = performance.now();
  expect(check(history)).toEqual([]);
  expect(performance.now() - began).toBeLessThan(10_000);
});
