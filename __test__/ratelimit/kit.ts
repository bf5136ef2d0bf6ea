// Limiters for tests: clocks that tests turn, and clients of Redis that end with their test.
import { Redis } from 'ioredis';
import { createClient } from 'redis';
import { createRateLimiter, type RateLimiter, type RateLimiterOptions, type RateRule } from 'rollcall/ratelimit';
import type { Finish } from '../coord/kit.js';

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

/** The clients of Redis that programs have. */
export const CLIENTS = {
  async ioredis({ onTestFinished }: Finish, url: string) {
    const client = new Redis(url, { retryStrategy: () => 50 });
    client.on('error', () => {});
    onTestFinished(() => client.disconnect());
    await client.ping();
    return client;
  },
  async 'node-redis'({ onTestFinished }: Finish, url: string) {
    const client = createClient({ url, socket: { reconnectStrategy: 50 } });
    client.on('error', () => {});
    await client.connect();
    onTestFinished(() => client.destroy());
    return client;
  },
} as const;
