// What the tests of picking share: candidates without a registry, a clock that stands still, chance with a seed.

import type { ServiceInstance } from '../../lib/registry/instance.js';
import { parseEndpoint } from '../../lib/service/endpoint.js';
import { LoadRecord } from '../../lib/service/load.js';
import type { Candidate, Strategy, Tools } from '../../lib/service/pick/types.js';
import { seeded } from '../support/random.js';

export function instance(id: string, more: Partial<ServiceInstance> = {}): ServiceInstance {
  return { id, name: 'orders', version: '1.0.0', metadata: {}, endpoints: [`grpc://${id}.test:9000`], ...more };
}

export interface TestCandidate extends Candidate {
  readonly load: LoadRecord;
}

export function candidate(id: string, weight = 100, more: Partial<ServiceInstance> = {}): TestCandidate {
  const of = instance(id, more);
  const endpoint = parseEndpoint(of.endpoints[0] as string);
  if (!endpoint) throw new Error('no endpoint');
  return { instance: of, endpoint, weight, bornAt: Number.NEGATIVE_INFINITY, load: new LoadRecord() };
}

export const idOf = (n: number): string => `i${String(n).padStart(5, '0')}`;
export const candidates = (count: number, weight: (n: number) => number = () => 100): TestCandidate[] =>
  Array.from({ length: count }, (_, n) => candidate(idOf(n), weight(n)));

/** A clock that is set by hand, chance with a seed, and the sum of what is under way. */
export function tools(seed: number, list: () => readonly Candidate[] = () => []): Tools & { clock: number } {
  const random = seeded(seed);
  const made = {
    clock: 1_000_000,
    now: () => made.clock,
    random,
    inFlight: () => list().reduce((sum, { load }) => sum + load.inFlight, 0),
  };
  return made;
}

/** How often each was picked. */
export function counted(
  strategy: Strategy,
  list: readonly Candidate[],
  picks: number,
  seed = 1,
): Map<Candidate, number> {
  const picker = strategy.bind(list, tools(seed));
  const counts = new Map<Candidate, number>(list.map((one) => [one, 0]));
  for (let pick = 0; pick < picks; pick++) {
    const picked = picker.pick(undefined);
    counts.set(picked, (counts.get(picked) ?? 0) + 1);
  }
  return counts;
}

/**
 * Whether counts fit what is expected of them, by chi-square. The bound is the quantile of 0.9999 (Wilson and Hilferty):
 * with a fixed seed the outcome is always the same.
 */
export function fits(counts: readonly number[], expected: readonly number[]): boolean {
  const chi = counts.reduce(
    (sum, count, place) => sum + (count - (expected[place] as number)) ** 2 / (expected[place] as number),
    0,
  );
  const degrees = counts.length - 1;
  const ninth = 2 / (9 * degrees);
  return chi <= degrees * (1 - ninth + 3.719 * Math.sqrt(ninth)) ** 3;
}
