/** The breakers of an application. */

import type { Breaker, Breakers } from '../../breaker/index.js';
import { madeByModule } from './by-module.js';

/** The breakers that `BreakerModule` has made. */
export class BreakerService {
  /** All of them: their events, and the interceptors for gRPC and undici. */
  readonly breakers: Breakers;

  /** @internal */
  constructor(breakers: Breakers) {
    madeByModule(breakers, 'BreakerService', 'BreakerModule');
    this.breakers = breakers;
  }

  /** The breaker of this name, made at the first call. */
  get(name: string): Breaker {
    return this.breakers.get(name);
  }
}
