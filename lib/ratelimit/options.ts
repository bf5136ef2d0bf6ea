/** What limiters are made of, and what they tell. */

import type { RedisLike } from '../common/redis.js';
import type { Coord } from '../coord/index.js';
import type { RollcallError } from '../errors.js';
import type { Decision } from './decision.js';
import type { InstancesSource } from './instances.js';
import type { RateRule } from './rule.js';

/** Something that has rules and changes, such as a `ConfigRef` of `rollcall/coord`. */
export interface RulesRef {
  readonly value: Readonly<Record<string, RateRule | Readonly<Record<string, RateRule>>>>;
  subscribe(listener: () => void): () => void;
}

/** Rules that lie in the store of `rollcall/coord`: each file below `path` is a rule, such as `send.json`, or an object of rules. */
export interface StoredRules {
  readonly coord: Pick<Coord, 'config'>;
  /** Such as `/config/{env}/{service}/ratelimit/`. */
  readonly path: string;
}

/** How a limiter is made. */
export interface RateLimiterOptions {
  /** Rules by their names: as they are, or what changes them. A `.json` at the end of a name is left out. */
  rules: Readonly<Record<string, RateRule>> | RulesRef | StoredRules;
  /** The program's own client of ioredis, iovalkey or node-redis, for rules that are `distributed`. It stays the program's. */
  redis?: RedisLike | undefined;
  /** Where the live instances of this service are known, for rules that are `shared`, and for those that Redis does not answer of. */
  registry?: InstancesSource | undefined;
  /** What is said where no rule has the name: nobody may, everybody may, or a rule for all such names. Default `deny`. */
  unknownRule?: 'deny' | 'allow' | RateRule | undefined;
  /** How many subjects are kept of each rule, from 1 to 10,000,000: about 100 bytes each. Default 100,000. */
  maxKeys?: number | undefined;
  /** How long a request waits for Redis, from 1 ms to a minute. Default 50. */
  storeTimeoutMs?: number | undefined;
  /** What keys in Redis begin with, up to 256 characters. Programs with the same prefix count together. Default `ratelimit:`. */
  prefix?: string | undefined;
  /** Where to log; `false` for silence. Default: `console`. */
  logger?: unknown;
  /** @internal The monotonic clock, in milliseconds. */
  now?: (() => number) | undefined;
}

/** The events of a limiter. */
export interface RateLimiterEvents {
  /** The rules have changed. */
  rules: [];
  /** A request was refused; by a rule that is in the shadow, it would have been. */
  rejected: [decision: Decision, subject: string];
  /** Redis does not answer: rules that are `distributed` are decided by their `onStoreFailure`. */
  degraded: [error: RollcallError];
  /** Redis answers again. */
  restored: [];
  /** A rule has `maxKeys` subjects: all others have one bucket together. Once, until a tenth is free again. */
  full: [rule: string];
  /** A rule is wrong: the one before it stays. */
  refused: [name: string, error: Error];
}

/** How to ask. */
export interface AllowOptions {
  /** Ends the wait for Redis; what was asked may be taken all the same. */
  signal?: AbortSignal | undefined;
}
