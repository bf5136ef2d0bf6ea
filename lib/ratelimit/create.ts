/** The way in. What limiters need is loaded with the first of them: a module that only knows their error costs none of it. */

import type { RateLimiter } from './limiter.js';
import type { RateLimiterOptions } from './options.js';

const loaded = () => require('./limiter.js') as typeof import('./limiter.js');

/** @throws `ERR_INVALID_ARGUMENT` that names the option, also of rules that are given as they are. No I/O is waited for. */
export function createRateLimiter(options: RateLimiterOptions): RateLimiter {
  const { RateLimiter } = loaded();
  return new RateLimiter(options);
}
