// Limiters for tests: clocks that tests turn, and clients of Redis that are connected.
import { createRateLimiter, type RateLimiter, type RateLimiterOptions, type RateRule } from 'rollcall/ratelimit';
import type { Finish } from '../coord/kit.js';
import { redisClient } from '../support/redis.js';

/** A clock that stands still until it is turned. */
export function clock() {
  let at = 5;
  return {
    now: () => at,
    pass(ms: number) {
      at += ms;
    },
  };
}

/** A limiter that is closed with its test. */
export function limiter({ onTestFinished }: Finish, options: RateLimiterOptions): RateLimiter {
  const made = createRateLimiter({ logger: false, ...options });
  onTestFinished(() => made.close());
  return made;
}

export const local = (rate: number, capacity: number, more: Partial<RateRule> = {}): RateRule => ({
  mode: 'local',
  rate,
  capacity,
  ...more,
});

/** How many of so many requests at once are let through. */
export function admitted(of: RateLimiter, times: number, subject = 'a', rule = 'send'): number {
  let count = 0;
  for (let i = 0; i < times; i++) if (of.allowNow(subject, rule).allowed) count++;
  return count;
}

/** The clients of Redis that programs have, connected. */
export const CLIENTS = {
  async ioredis(finish: Finish, url: string) {
    const client = await redisClient(finish, 'ioredis', url);
    await client.ping();
    return client;
  },
  'node-redis': (finish: Finish, url: string) => redisClient(finish, 'node-redis', url),
} as const;
