/** The error that only `rollcall/ratelimit` has. */

import { brand, type ErrorDetails, RollcallError } from '../errors.js';
import type { Decision } from './decision.js';

/** What a `RateLimitedError` tells. */
export interface RateLimitedDetails extends ErrorDetails {
  /** Why. */
  decision: Decision;
}

/** A request was refused by a rule. */
export class RateLimitedError extends RollcallError {
  declare readonly code: 'ERR_RATE_LIMITED';
  /** The name of the rule. */
  readonly rule: string;
  /** After how many milliseconds it may be tried again. */
  readonly retryAfterMs: number;
  /** What was decided: for `limiter.headers()`. */
  readonly decision: Decision;

  constructor(message: string, { decision, ...details }: RateLimitedDetails) {
    super('ERR_RATE_LIMITED', message, { retryable: true, ...details });
    this.rule = decision.rule;
    this.retryAfterMs = decision.retryAfterMs;
    this.decision = decision;
  }
}

brand(RateLimitedError, 'RateLimitedError');
