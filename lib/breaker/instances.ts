/** A breaker for each instance of a service that is called by name. */

import { invalid, kindOf } from '../common/shape.js';
import type { ServiceCache } from '../service/cache.js';
import type { CallResult, Picked } from '../service/ticket.js';
import type { PickOptions } from '../service/view.js';
import type { Breaker, Permit } from './breaker.js';
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
      const refused = new Set(options?.exclude);
      let soonest: BreakerOpenError | undefined;
      for (;;) {
        const picked = another(
          from as PickedFrom,
          refused.size === 0 ? options : { ...options, exclude: refused },
          soonest,
        );
        const permit = acquired(get(`${name}/${picked.instance.id}`));
        if (!(permit instanceof BreakerOpenError))
          return { ...picked, done: (result) => ended(picked, permit, result) };
        picked.done({ error: new DOMException('its breaker is open', 'AbortError') }); // counts for nothing: nobody was called
        if (refused.has(picked.instance.id)) throw soonest ?? permit; // a strategy that takes no exclusion
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
  const { error, failed } = result ?? {};
  if (failed === false) permit.done();
  else if (failed && error === undefined) permit.done({ error: new Error('the instance is to blame') });
  else if ((error as Error | undefined)?.name === 'AbortError') permit.done({ aborted: true });
  else permit.done({ error });
  picked.done(result);
}
