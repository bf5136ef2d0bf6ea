/** How many processes share a rule: the live instances of a service. */

import { invalid, kindOf, onlyKnown, record, text } from '../common/shape.js';
import type { Registry } from '../index.js';

/** Where the live instances are known. */
export interface InstancesSource {
  readonly registry: Pick<Registry, 'service'>;
  /** The name that this service registers by. */
  readonly service: string;
}

/** A smaller number is believed after so long: who has left may be back, and who grows takes nothing from anybody. */
const SHRINK_MS = 5000;

/** @internal The number of instances. One that grows counts at once, one that was no larger for 5 s then; a list that is stale or empty says nothing. */
export interface Instances {
  count(now: number): number;
  ready(): Promise<void>;
  close(): void;
}

const ALONE: Instances = { count: () => 1, ready: async () => {}, close() {} };

/** @internal @throws `ERR_INVALID_ARGUMENT` that names the option. */
export function instancesOf(value: unknown): Instances {
  if (value === undefined) return ALONE;
  const given = record('options.registry', value);
  onlyKnown('options.registry', given, ['registry', 'service']);
  const { registry } = given as Partial<InstancesSource>;
  if (typeof registry !== 'object') {
    throw invalid('options.registry.registry', `expected a registry, got ${kindOf(registry)}`);
  }
  if (typeof registry?.service !== 'function') {
    throw invalid('options.registry.registry', 'expected a registry, got an object without service()');
  }
  const service = text('options.registry.service', given.service);
  if (service === undefined) throw invalid('options.registry.service', 'expected a string, got undefined');
  return new Live(registry.service(service));
}

class Live implements Instances {
  readonly #cache: ReturnType<Registry['service']>;
  #list: readonly unknown[] = [];
  #count = 1;
  #isClosed = false;
  /** Smaller numbers to come, each smaller than the one before it, and when they are believed. */
  #smaller: { readonly count: number; readonly at: number }[] = [];

  constructor(cache: ReturnType<Registry['service']>) {
    this.#cache = cache;
  }

  count(now: number): number {
    const list = this.#isClosed ? this.#list : this.#cache.instances;
    if (list !== this.#list) this.#take(list, now);
    for (let next = this.#smaller[0]; next && now >= next.at; next = this.#smaller[0]) {
      this.#count = next.count;
      this.#smaller.shift();
    }
    return this.#count;
  }

  async ready(): Promise<void> {
    await this.#cache.ready();
  }

  close(): void {
    this.#isClosed = true; // others may go on with the list
    this.#cache.release();
  }

  #take(list: readonly unknown[], now: number): void {
    this.#list = list;
    const count = list.length;
    if (count === 0) return; // who asks is one of them, so it is not the whole truth
    if (count >= this.#count) {
      this.#count = count;
      this.#smaller = [];
      return;
    }
    // It has been no more than this for as long as it was to be fewer.
    const since = this.#smaller.find((next) => next.count <= count)?.at ?? now + SHRINK_MS;
    this.#smaller = [...this.#smaller.filter((next) => next.count > count), { count, at: since }];
  }
}
