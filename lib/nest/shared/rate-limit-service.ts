/** The rate limits of an application. */

import type { AllowOptions, Decision, RateLimiter, RateRule } from '../../ratelimit/index.js';
import { madeByModule } from './by-module.js';

/** The limiter that `RateLimitModule` has made. */
export class RateLimitService {
  /** The whole of it: its events, `rules()`, `headers()`. The module closes it. */
  readonly limiter: RateLimiter;

  /** @internal */
  constructor(limiter: RateLimiter) {
    madeByModule(limiter, 'RateLimitService', 'RateLimitModule');
    this.limiter = limiter;
  }

  /** As `limiter.allow()`: whether the subject may have `cost` tokens of the rule, which are then taken. @throws as it. */
  async allow(subject: string, rule: string, cost?: number, options?: AllowOptions): Promise<Decision> {
    return await this.limiter.allow(subject, rule, cost, options);
  }

  /** As `limiter.take()`: the same for who wants an error in the place of a refusal. @throws `RateLimitedError`, and as it. */
  async take(subject: string, rule: string, cost?: number, options?: AllowOptions): Promise<Decision> {
    return await this.limiter.take(subject, rule, cost, options);
  }

  /** For `limit` of a throttler of `@nestjs/throttler`: the capacity of the rule as it is then; 0 without the rule. */
  limitOf(rule: string): () => number {
    return () => Math.floor(this.#rule(rule)?.capacity ?? 0);
  }

  /** For `ttl` of such a throttler: how long an empty bucket takes to be full, in milliseconds; a second without the rule. */
  ttlOf(rule: string): () => number {
    return () => {
      const found = this.#rule(rule);
      return found ? Math.min(Math.ceil((found.capacity / found.rate) * 1000), Number.MAX_SAFE_INTEGER) : 1000;
    };
  }

  #rule(name: string): RateRule | undefined {
    const rules = this.limiter.rules();
    return Object.hasOwn(rules, name) ? rules[name] : undefined;
  }
}

/** What `@nestjs/throttler` 6 wants to know of a request; times in seconds. */
export interface ThrottlerRecord {
  totalHits: number;
  timeToExpire: number;
  isBlocked: boolean;
  timeToBlockExpire: number;
}

/**
 * `storage` of `@nestjs/throttler` 6: what its guard asks is decided by the rule of the throttler's name, as it is then. So the limits
 * change without a restart, and count in Redis if the rule says so.
 *
 * ```ts
 * ThrottlerModule.forRootAsync({
 *   inject: [RateLimitService],
 *   useFactory: (rates: RateLimitService) => ({
 *     throttlers: [{ name: 'send', limit: rates.limitOf('send'), ttl: rates.ttlOf('send') }],
 *     storage: new RollcallThrottlerStorage(rates),
 *   }),
 * })
 * ```
 */
export class RollcallThrottlerStorage {
  readonly #limiter: RateLimiter;

  constructor({ limiter }: Pick<RateLimitService, 'limiter'>) {
    this.#limiter = limiter;
  }

  /** Called by the guard. `limit` is for its headers; `ttl` and `blockDuration` are the rule's to say. */
  async increment(
    key: string,
    _ttl: number,
    limit: number,
    _blockDuration: number,
    throttlerName: string,
  ): Promise<ThrottlerRecord> {
    const { allowed, remaining, resetMs, retryAfterMs } = await this.#limiter.allow(key, throttlerName);
    return {
      totalHits: allowed ? Math.max(0, limit - remaining) : limit + 1,
      timeToExpire: Math.ceil(resetMs / 1000),
      isBlocked: !allowed,
      timeToBlockExpire: Math.ceil(retryAfterMs / 1000),
    };
  }
}
