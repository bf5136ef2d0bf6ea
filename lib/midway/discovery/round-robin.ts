/** One instance after the other. */

import type { ServiceInstance } from '../../index.js';
import type { InstanceBalancer } from '../config.js';

/** More services than this are not counted each by itself. */
const MAX_COUNTERS = 1000;

/** Each service by itself, and whatever becomes of its list: that of Midway gives `undefined` when the list shrinks. */
export class RoundRobin implements InstanceBalancer {
  readonly #turns = new Map<string, number>();

  select(instances: ServiceInstance[]): ServiceInstance {
    const name = instances[0]?.name ?? '';
    const turn = this.#turns.get(name) ?? 0;
    if (this.#turns.size >= MAX_COUNTERS && !this.#turns.has(name)) this.#turns.clear();
    this.#turns.set(name, (turn + 1) % Number.MAX_SAFE_INTEGER);
    return instances[turn % instances.length] as ServiceInstance;
  }
}
