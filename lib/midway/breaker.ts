/** The circuit breakers of an application, of the key `breakers`. */

import { ApplicationContext, type IMidwayContainer, Init, Provide, Scope, ScopeEnum } from '@midwayjs/core';
import type { Breaker as BreakerOfName, Breakers } from '../breaker/index.js';
import { BREAKER_SIGNAL, type BreakerMethodOptions, breakerMethod, openBreakers } from '../frameworks/breakers.js';
import type { BreakersConfig } from './config.js';
import { configOf, loggerOf } from './container.js';
import { coordOf, isGiven, notGiven } from './recipes.js';
import { served } from './served.js';

/** The breakers of the key `breakers`. */
@Provide()
@Scope(ScopeEnum.Singleton)
export class BreakerService {
  /** @internal */
  @ApplicationContext()
  container!: IMidwayContainer;

  /** All of them: their events, and the interceptors for gRPC and undici. */
  breakers!: Breakers;

  /** @internal */
  @Init()
  async init(): Promise<void> {
    if (!isGiven(this.container, 'breakers')) throw notGiven('breakers');
    const config = configOf<BreakersConfig>(this.container, 'breakers');
    this.breakers = await openBreakers('breakers', config, loggerOf(this.container), coordOf(this.container));
  }

  /** The breaker of this name, made at the first call. */
  get(name: string): BreakerOfName {
    return this.breakers.get(name);
  }

  /** @internal */
  close(): void {
    this.breakers.close();
  }
}

/**
 * The method is called through the breaker of this name: what it throws counts, and reaches the caller. A call that is refused rejects with
 * a `BreakerOpenError` without running, or gives what `fallback` gives. After `timeoutMs` of the policy it rejects with
 * `ERR_TIMEOUT`; a parameter with `@BreakerSignal()` hears of that.
 *
 * In classes of every scope, above or below other decorators. Without the key `breakers` the application does not start.
 *
 * ```ts
 * @Breaker('grpc:users')
 * async user(id: string, @BreakerSignal() signal?: AbortSignal) {}
 * ```
 *
 * @throws `ERR_INVALID_ARGUMENT`.
 */
export function Breaker(name: string, options?: BreakerMethodOptions) {
  return served('@Breaker', 'breakers', (place, of) => ({ method: breakerMethod(place, name, options, of) }));
}

/** The parameter gets the signal of a call through `@Breaker()`. Whoever calls the method leaves it out. */
export function BreakerSignal(): ParameterDecorator {
  return (target, key, index) => BREAKER_SIGNAL.mark(target, key, index);
}
