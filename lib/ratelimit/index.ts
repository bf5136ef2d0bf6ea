/** rollcall/ratelimit: how much of something a subject may have in a time. Enter at `createRateLimiter()`. */

export type { IoRedisLike, NodeRedisLike, RedisLike } from '../common/redis.js';
export { createRateLimiter } from './create.js';
export type { Decision } from './decision.js';
export { type RateLimitedDetails, RateLimitedError } from './errors.js';
export type { HeaderStyle } from './headers.js';
export type { InstancesSource } from './instances.js';
export type { RateLimiter } from './limiter.js';
export type { AllowOptions, RateLimiterEvents, RateLimiterOptions, RulesRef, StoredRules } from './options.js';
export type { RateMode, RateRule } from './rule.js';
