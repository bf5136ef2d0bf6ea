/** A strategy of rollcall in the place of a load balancer of Midway. */

import { now } from '../../common/clock.js';
import type { Log } from '../../common/logger.js';
import { invalid } from '../../common/shape.js';
import type { ServiceInstance, Strategy } from '../../index.js';
import { Balancer } from '../../service/balance.js';
import { lag } from '../../service/lag.js';
import { Tickets } from '../../service/ticket.js';
import { View } from '../../service/view.js';
import type { InstanceBalancer } from '../config.js';

/** Midway tells nothing of how a call went. */
const UNKNOWN = { error: { name: 'AbortError' } };
const QUIET = { ejected: () => {}, restored: () => {}, panic: () => {} };
const SILENT = { write: () => {} } as unknown as Log;
/** Services whose turns are kept, as those that are followed. */
const KEPT = 256;

interface Kept {
  readonly balancer: Balancer;
  readonly view: View;
}

/**
 * A strategy of rollcall as Midway's load balancer: `loadBalancer: new StrategyBalancer(weighted())`. Each service is chosen from by
 * itself. Instances of weight 0, and those without an endpoint that could be called, are not chosen: where all are such,
 * `NoInstanceError`. The strategy does not hear how calls went, which Midway does not tell.
 */
export class StrategyBalancer implements InstanceBalancer {
  readonly #strategy: Strategy;
  readonly #kept = new Map<string, Kept>();

  /** @throws `ERR_INVALID_ARGUMENT` for one that goes by a key, which Midway does not have. */
  constructor(strategy: Strategy) {
    if (strategy.keyed) throw invalid('loadBalancer', `${strategy.name} goes by a key, and Midway has none for a call`);
    this.#strategy = strategy;
  }

  select(instances: ServiceInstance[]): ServiceInstance {
    const { balancer, view } = this.#of(instances[0]?.name ?? '');
    const { list } = balancer;
    const isSame = list.length === instances.length && list.every((instance, n) => instance === instances[n]);
    if (!isSame) balancer.setList(instances);
    const { instance, done } = view.pick(undefined);
    done(UNKNOWN);
    return instance;
  }

  #of(name: string): Kept {
    const known = this.#kept.get(name);
    if (known) return known;
    if (this.#kept.size === KEPT) this.#kept.clear();
    const tools = { now, random: Math.random, lag, log: SILENT };
    const balancer = new Balancer(name, { outlier: false, warmUpMs: 0, allowLocal: true }, tools, QUIET);
    const view = new View(balancer, new Tickets(balancer), { filters: [], strategy: this.#strategy });
    this.#kept.set(name, { balancer, view });
    return { balancer, view };
  }
}
