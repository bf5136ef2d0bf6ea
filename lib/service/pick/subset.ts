/** Of many instances a few, so that a caller keeps few connections. */

import { integer, onlyKnown, record, text } from '../../common/shape.js';
import { liveFilter } from './filters.js';
import { hashOf, mixed } from './hash.js';
import type { Candidate, Filter } from './types.js';

/** Options of a subset. */
export interface SubsetOptions {
  /** How many instances; those that are set aside don't count. */
  size: number;
  /** Callers with the same key have the same subset. Default: of this process alone. */
  key?: string | undefined;
}

/**
 * The `size` instances that rank highest for the key. When one leaves, one other takes its place; all others stay.
 *
 * Source: rendezvous hashing (Thaler and Ravishankar, 1998), as gRPC's proposal A68 chooses subsets, with a random key of
 * the client by default. It runs once for each change, over all instances.
 *
 * @throws `ERR_INVALID_ARGUMENT`
 */
export function subset(options: SubsetOptions, ownKey: () => string): Filter {
  const given = record('subset', options);
  onlyKnown('subset', given, ['size', 'key']);
  const size = integer('subset.size', given.size ?? 0, 0, { min: 1, max: 1_000_000 });
  const seed = hashOf(text('subset.key', given.key) ?? ownKey());
  return liveFilter('subset', (candidates) => highest(candidates, size, seed));
}

function highest(candidates: readonly Candidate[], size: number, seed: number): readonly Candidate[] {
  const rank = (id: string) => mixed(hashOf(id) ^ seed);
  const ranks: number[] = [];
  let last: Candidate['instance'] | undefined;
  for (const { instance, load } of candidates) {
    if (instance === last || load.ejected) continue;
    last = instance;
    ranks.push(rank(instance.id));
  }
  if (ranks.length <= size) return candidates;
  // Those that are set aside stay where they rank above the last one: they are asked again when their time is over.
  const least = Float64Array.from(ranks).sort()[ranks.length - size] as number;
  return candidates.filter(({ instance }) => rank(instance.id) >= least);
}
