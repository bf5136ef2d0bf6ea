import { describe, expect, it } from 'vitest';
import { metadata, scheme, secure, version, zone } from '../../lib/service/pick/filters.js';
import { warmth } from '../../lib/service/pick/slow-start.js';
import { subset } from '../../lib/service/pick/subset.js';
import type { Candidate, Filter } from '../../lib/service/pick/types.js';
import { candidate, candidates, idOf } from './kit.js';

const ids = (filter: Filter, list: readonly Candidate[]) => filter(list).map(({ instance }) => instance.id);
const inZone = (id: string, own: string) => candidate(id, 100, { metadata: { zone: own } });

describe('filters', () => {
  it('version(): what is in the range; other texts are in none', () => {
    const list = ['1.0.0', '1.4.2', 'v1.9', '2.0.0', 'main', ''].map((of, n) =>
      candidate(`${n}`, 100, { version: of }),
    );
    expect(ids(version('^1.4'), list)).toEqual(['1', '2']);
    expect(ids(version('*'), list)).toEqual(['0', '1', '2', '3']);
    expect(() => version('main')).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', message: expect.stringMatching(/^range: /) }),
    );
  });

  it('metadata(): values, or a function', () => {
    const list = [
      candidate('a', 100, { metadata: { tier: 'gold', x: '1' } }),
      candidate('b', 100, { metadata: { tier: 'gold' } }),
      candidate('c'),
    ];
    expect(ids(metadata({ tier: 'gold', x: '1' }), list)).toEqual(['a']);
    expect(ids(metadata({}), list)).toEqual(['a', 'b', 'c']);
    expect(
      ids(
        metadata(({ tier }, { id }) => tier === undefined || id === 'b'),
        list,
      ),
    ).toEqual(['b', 'c']);
    expect(() => metadata({ weight: 5 } as never)).toThrow(/^metadata\.weight: expected a string, got number/);
    expect(() => metadata([] as never)).toThrow(/^metadata: /);
  });

  it('scheme() and secure()', () => {
    const list = ['grpc', 'grpcs', 'http', 'https'].map((of) => candidate(of, 100, { endpoints: [`${of}://h:1`] }));
    expect(ids(scheme('GRPC', 'http'), list)).toEqual(['grpc', 'http']);
    expect(ids(secure(), list)).toEqual(['grpcs', 'https']);
    expect(ids(secure(false), list)).toEqual(['grpc', 'http']);
    expect(() => scheme()).toThrow(/^scheme: /);
    expect(() => scheme('grpc:')).toThrow(/^scheme\[0\]: expected a scheme without its colon/);
  });

  describe('zone()', () => {
    const near = ['a', 'b'].map((id) => inZone(id, 'near'));
    const far = (count: number) => Array.from({ length: count }, (_, n) => inZone(`far${n}`, 'far'));

    it('takes its own while they are enough of a fair share', () => {
      expect(ids(zone('near'), [...near, ...far(6)])).toEqual(['a', 'b']); // 2 of 8 in two zones: half of a share of 4
      expect(ids(zone('near'), [...near, ...far(7)])).toHaveLength(9);
      expect(ids(zone('near', { minShare: 0.4 }), [...near, ...far(8)])).toEqual(['a', 'b']);
    });

    it('takes all when its own are too few, or none', () => {
      expect(ids(zone('near'), [...near.slice(0, 1), ...far(1)])).toHaveLength(2);
      expect(ids(zone('near', { min: 1 }), [...near.slice(0, 1), ...far(1)])).toEqual(['a']);
      expect(ids(zone('nowhere', { min: 0, minShare: 0 }), far(3))).toHaveLength(3);
    });

    it('does not count those that are set aside, and runs again when that changes', () => {
      const list = [...near, ...far(2)];
      expect(zone('near').live).toBe(true);
      expect(ids(zone('near'), list)).toEqual(['a', 'b']);
      (near[0] as { load: { ejected: boolean } }).load.ejected = true;
      expect(ids(zone('near'), list)).toHaveLength(4);
    });

    it('refuses what can not be right', () => {
      expect(() => zone(undefined as never)).toThrow(/^zone: /);
      expect(() => zone('a', { minShare: 2 })).toThrow(/^options\.minShare: expected a number from 0 to 1, got 2/);
      expect(() => zone('a', { mim: 2 } as never)).toThrow(/did you mean "min"/);
    });
  });

  it('subset(): the same for the same key; one leaves, one comes, all others stay', () => {
    const list = candidates(200);
    const own = () => 'own';
    const chosen = ids(subset({ size: 20, key: 'k' }, own), list);
    expect(chosen).toHaveLength(20);
    expect(ids(subset({ size: 20, key: 'k' }, own), [...list].reverse()).sort()).toEqual(chosen);
    expect(ids(subset({ size: 20, key: 'other' }, own), list)).not.toEqual(chosen);
    const without = list.filter(({ instance }) => instance.id !== chosen[3]);
    const next = ids(subset({ size: 20, key: 'k' }, own), without);
    expect(chosen.filter((id) => next.includes(id))).toHaveLength(19);
    // Each is in about a tenth of the subsets of many keys.
    const hits = new Map<string, number>();
    for (let key = 0; key < 1000; key++) {
      for (const id of ids(subset({ size: 20, key: `${key}` }, own), list)) hits.set(id, (hits.get(id) ?? 0) + 1);
    }
    expect(Math.min(...hits.values())).toBeGreaterThan(55);
    expect(Math.max(...hits.values())).toBeLessThan(150);
  });

  it('subset(): those that are set aside stay, and others take their place meanwhile', () => {
    const list = candidates(50);
    const run = subset({ size: 5 }, () => 'own');
    const chosen = ids(run, list);
    const first = list.find(({ instance }) => instance.id === chosen[0]);
    (first as { load: { ejected: boolean } }).load.ejected = true;
    const now = ids(run, list);
    expect(now).toHaveLength(6);
    expect(chosen.every((id) => now.includes(id))).toBe(true);
    expect(
      ids(
        subset({ size: 100 }, () => ''),
        list,
      ),
    ).toHaveLength(50);
    expect(() => subset({} as never, () => '')).toThrow(/^subset\.size: /);
  });

  it('slow start grows from a tenth to the whole', () => {
    expect([0, 500, 1000, 5000, 10_000, 99_999].map((age) => warmth(100, 100 + age, 10_000))).toEqual([
      0.1, 0.1, 0.1, 0.5, 1, 1,
    ]);
    expect(warmth(Number.NEGATIVE_INFINITY, 0, 10_000)).toBe(1);
    expect(idOf(7)).toBe('i00007');
  });
});
