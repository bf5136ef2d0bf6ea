import { describe, expect, test } from 'vitest';
import { wantedOf } from './main.js';
import { cast, plan } from './schedule.js';

const REPAIR_MS = 17_000;

describe('the plan', () => {
  test('of one seed is always the same, of another seed another', () => {
    expect(plan(7, 'etcd', 3, REPAIR_MS)).toEqual(plan(7, 'etcd', 3, REPAIR_MS));
    expect(plan(8, 'etcd', 3, REPAIR_MS)).not.toEqual(plan(7, 'etcd', 3, REPAIR_MS));
  });

  test.each(['etcd', 'consul', 'zookeeper'] as const)(
    'of %s harms one thing at a time, and all is healed before the end',
    (backend) => {
      const known = new Set(cast(backend).map(({ who }) => who));
      for (let seed = 1; seed <= 30; seed++) {
        const { deeds, quietFromMs } = plan(seed, backend, 3, REPAIR_MS);
        expect(quietFromMs).toBeLessThanOrEqual(3 * 60_000 - REPAIR_MS);
        const busy = new Map<string, number>();
        for (const deed of deeds) {
          const target = deed.to === 'actor' ? deed.who : deed.to;
          if (deed.to === 'actor') expect(known).toContain(deed.who);
          // It is wanted back whatever is done to it.
          if (deed.what === 'restore') continue;
          expect(deed.at, `${JSON.stringify(deed)} of seed ${seed}`).toBeGreaterThanOrEqual(busy.get(target) ?? 0);
          expect(deed.at + deed.lastsMs).toBeLessThanOrEqual(quietFromMs);
          busy.set(target, deed.at + deed.lastsMs);
        }
      }
    },
  );

  test('in the end nobody is left out of traffic', () => {
    for (let seed = 1; seed <= 30; seed++) {
      const out = new Set<string>();
      for (const deed of plan(seed, 'etcd', 3, REPAIR_MS).deeds) {
        if (deed.to !== 'actor') continue;
        if (deed.what === 'withdraw') out.add(deed.who);
        if (deed.what === 'restore') out.delete(deed.who);
      }
      expect([...out], `seed ${seed}`).toEqual([]);
    }
  });

  test('ten seeds of three minutes do everything that can be done', () => {
    const done = new Set<string>();
    for (let seed = 1; seed <= 10; seed++) {
      for (const deed of plan(seed, 'etcd', 3, REPAIR_MS).deeds)
        done.add(`${deed.what} ${'which' in deed ? deed.which : deed.to}`);
    }
    for (const what of ['kill', 'freeze']) {
      for (const which of ['member 1', 'member 2', 'member 3', 'leader', 'two', 'all'])
        expect(done).toContain(`${what} ${which}`);
    }
    for (const what of ['black hole', 'lost answers', 'lost requests', 'reset', 'refused', 'latency']) {
      expect(done).toContain(`${what} links`);
    }
    for (const what of ['kill', 'freeze', 'block', 'update', 'reregister', 'withdraw', 'restore', 'remove', 'revoke']) {
      expect(done).toContain(`${what} actor`);
    }
    expect(done).toContain('move the leader cluster');
    expect(done).toContain('compact cluster');
  });
});

describe('what is wanted', () => {
  test('three minutes of etcd with a seed of its own, by default', () => {
    const { backend, minutes, seeds } = wantedOf({});
    expect([backend, minutes, seeds.length]).toEqual(['etcd', 3, 1]);
  });

  test('a range of seeds', () => {
    expect(wantedOf({ SEED: '3-5', BACKEND: 'consul', MINUTES: '1.5' })).toEqual({
      backend: 'consul',
      minutes: 1.5,
      naive: false,
      seeds: [3, 4, 5],
    });
  });

  test.each([
    [{ SEED: 'x' }, /SEED=x: give a whole number/],
    [{ SEED: '9-2' }, /SEED=9-2/],
    [{ SEED: '1-2-3' }, /SEED=1-2-3/],
    [{ MINUTES: '0.2' }, /MINUTES=0.2: give a number from 1 on/],
    [{ MINUTES: 'long' }, /MINUTES=long/],
    [{ BACKEND: 'redis' }, /BACKEND=redis: give one of etcd, consul, zookeeper/],
  ])('%j is refused with what to change', (env, message) => {
    expect(() => wantedOf(env)).toThrow(message);
  });
});
