/** The same key to the same instance. */

import { integer, invalid, kindOf, onlyKnown, optional } from '../../common/shape.js';
import { hashOf } from './hash.js';
import { Ring } from './ring.js';
import type { Candidate, Change, Picker, Skip, Strategy, Tools } from './types.js';

/** Options of `consistentHash()`. */
export interface ConsistentHashOptions {
  /**
   * Points of each instance on the ring, from 1 to 1,000: more are more even, and dearer to change. Default 100, and 40
   * where there are more than 2,000 instances; crossing that moves keys.
   */
  points?: number | undefined;
  /** How much more than the mean of the calls in flight one may have, from 1.01 to 100; `false`: any. Default 1.25. */
  bound?: number | false | undefined;
}

/** Where there are more instances than this, each has fewer points. */
const MANY = 2000;

/** A ring holds up to 2^20 owners. */
const MOST = 2 ** 20;

class HashPicker implements Picker {
  private readonly ring: Ring;
  private readonly slots: (Candidate | undefined)[] = [];

  constructor(
    private candidates: readonly Candidate[],
    private readonly tools: Tools,
    private readonly points: number | undefined,
    private readonly bound: number,
  ) {
    this.ring = new Ring(
      this.pointsFor(candidates.length),
      candidates.map(({ instance }) => instance.id),
    );
    this.settle();
  }

  pick(key: string | undefined, skip?: Skip): Candidate {
    const { ring, slots } = this;
    const left = Math.max(1, skip?.left ?? this.candidates.length);
    const most =
      this.bound === 0 ? Number.POSITIVE_INFINITY : Math.ceil((this.bound * (this.tools.inFlight() + 1)) / left);
    let home: Candidate | undefined;
    let point = ring.find(hashOf(key ?? ''));
    for (let looks = ring.size; looks > 0; looks--) {
      const candidate = slots[ring.owner(point)] as Candidate;
      point = ring.next(point);
      if (skip?.has(candidate)) continue;
      if (candidate.load.inFlight < most) return candidate;
      home ??= candidate;
    }
    return home ?? (this.candidates[0] as Candidate);
  }

  update({ candidates, added, removed, updated }: Change): boolean {
    if (this.pointsFor(candidates.length) !== this.ring.points) return false;
    const id = ({ instance }: Candidate) => instance.id;
    this.candidates = candidates;
    if (this.ring.change(removed.map(id), added.map(id))) this.settle();
    else
      for (const candidate of [...added, ...updated]) this.slots[this.ring.slot(id(candidate)) as number] = candidate;
    return true;
  }

  explain({ load }: Candidate): string {
    return `${load.inFlight} in flight`;
  }

  private pointsFor(count: number): number {
    return this.points ?? (count > MANY ? 40 : 100);
  }

  private settle(): void {
    this.slots.length = 0;
    for (const candidate of this.candidates) this.slots[this.ring.slot(candidate.instance.id) as number] = candidate;
  }
}

/**
 * The key of a pick decides: the same one gives the same instance, for as long as that one is there and not overloaded.
 * When one of n comes or goes, one nth of the keys moves, and no key between two that stay. Weights don't count. One that
 * has `bound` times the mean of the calls in flight already passes the key on to the next on the ring.
 *
 * Source: consistent hashing (Karger and others, 1997) with bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2016).
 *
 * @throws `ERR_INVALID_ARGUMENT`
 */
export function consistentHash(options?: ConsistentHashOptions): Strategy {
  const given = optional('options', options);
  onlyKnown('options', given, ['points', 'bound']);
  const points =
    given.points === undefined ? undefined : integer('options.points', given.points, 0, { min: 1, max: 1000 });
  const bound = boundOf(given.bound);
  return Object.freeze({
    name: 'consistentHash',
    keyed: true,
    bind: (candidates: readonly Candidate[], tools: Tools) => {
      if (candidates.length > MOST)
        throw invalid('strategy', `consistentHash takes up to ${MOST} instances: use subset`);
      return new HashPicker(candidates, tools, points, bound);
    },
  });
}

function boundOf(value: unknown): number {
  if (value === undefined) return 1.25;
  if (value === false) return 0;
  if (typeof value === 'number' && value >= 1.01 && value <= 100) return value;
  const got = typeof value === 'number' ? value : kindOf(value);
  throw invalid('options.bound', `expected false or a number from 1.01 to 100, got ${got}`);
}
