/** The error that only `rollcall/breaker` has. */

import { brand, type ErrorDetails, RollcallError } from '../errors.js';

/** What a `BreakerOpenError` tells. */
export interface BreakerOpenDetails extends ErrorDetails {
  /** The breaker that refused. */
  breaker: string;
  /** After how many milliseconds it may let a call through again. */
  retryAfterMs: number;
}

/** A breaker refused a call. Nothing was called. */
export class BreakerOpenError extends RollcallError {
  declare readonly code: 'ERR_BREAKER_OPEN';
  /** The name of the breaker that refused. */
  readonly breaker: string;
  /**
   * After how many milliseconds it may let a call through again. Of a breaker that is held open by `force`, and of one whose
   * probes are on their way, how long it waits as a rule: nobody knows when they end.
   */
  readonly retryAfterMs: number;

  constructor(message: string, { breaker, retryAfterMs, ...details }: BreakerOpenDetails) {
    super('ERR_BREAKER_OPEN', message, { retryable: true, ...details });
    this.breaker = breaker;
    this.retryAfterMs = retryAfterMs;
  }
}

brand(BreakerOpenError, 'BreakerOpenError');
