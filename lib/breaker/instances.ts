/** A breaker for each instance of a service that is called by name. */

import { invalid, kindOf } from '../common/shape.js';
import type { ServiceCache } from '../service/cache.js';
import type { CallResult, Picked } from '../service/ticket.js';
import type { PickOptions } from '../service/view.js';
import type { Breaker, Permit, Told } from './breaker.js';
import { BreakerOpenError } from './errors.js';

/** Picks instances of a service whose breakers let calls through. */
export interface InstanceBreakers {
  /**
   * As `pick()` of the service, from those whose breakers let a call through. `done()` tells the service and the breaker.
   *
   * @throws `ERR_BREAKER_OPEN` of whoever may be called the soonest, where all that fit are refused; what `pick()` throws.
   */
  pick(options?: PickOptions): Picked;
}

/** What picks: `registry.service(name)`, and whatever has its shape. */
export type PickedFrom = Pick<ServiceCache, 'name' | 'pick'>;

export function instanceBreakers(get: (name: string) => Breaker, service: unknown): InstanceBreakers {
  const from = service as Partial<PickedFrom> | null | undefined;
  if (typeof from?.pick !== 'function' || typeof from.name !== 'string') {
    throw invalid('service', `expected a service, as registry.service() gives one, got ${kindOf(service)}`);
  }
  const { name } = from as PickedFrom;
  return {
    pick(options) {
      let refused: Set<string> | undefined;
      let soonest: BreakerOpenError | undefined;
      for (;;) {
        const picked = another(from as PickedFrom, refused ? { ...options, exclude: refused } : options, soonest);
        const permit = acquired(get(`${name}/${picked.instance.id}`));
        if (!(permit instanceof BreakerOpenError))
          return { ...picked, done: (result) => ended(picked, permit, result) };
        picked.done({ error: new DOMException('its breaker is open', 'AbortError') }); // counts for nothing: nobody was called
        if (refused?.has(picked.instance.id)) throw soonest ?? permit; // a strategy that takes no exclusion
        refused ??= new Set(options?.exclude); // what is wrong with it pick() has said
        refused.add(picked.instance.id);
        if (!soonest || permit.retryAfterMs < soonest.retryAfterMs) soonest = permit;
      }
    },
  };
}

/** One that was not refused before. When there is none, the reason is that they were refused. */
function another(from: PickedFrom, options: PickOptions | undefined, soonest: BreakerOpenError | undefined): Picked {
  try {
    return from.pick(options);
  } catch (error) {
    throw soonest && (error as { code?: unknown }).code === 'ERR_UNAVAILABLE' ? soonest : error;
  }
}

function acquired(breaker: Breaker): Permit | BreakerOpenError {
  try {
    return breaker.acquire();
  } catch (error) {
    if (error instanceof BreakerOpenError) return error;
    throw error;
  }
}

function ended(picked: Picked, permit: Permit, result: CallResult | undefined): void {
  let isTold = false;
  try {
    picked.done(result);
    isTold = true;
  } finally {
    const { error, failed } = result ?? {};
    const told: Told = isTold ? { error, failed } : { aborted: true }; // what is wrong with it the service has said
    permit.done(told);
  }
}
