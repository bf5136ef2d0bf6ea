/** What locks are asked for with, checked. */

import { abortSignal, integer, invalid, kindOf, onlyKnown, optional, text } from '../../common/shape.js';
import { native } from '../../native.js';
import { stallTimeout } from '../../registry/options.js';

/** How a lock is held. */
export interface LockOptions {
  /**
   * The time to live of its lease, in milliseconds, which etcd rounds up to whole seconds. It renews itself; so long a lock
   * stays at most whose holder has died. Default 15000, at least 1000. What the store grants counts: etcd no less than 2 s as a
   * rule.
   */
  ttlMs?: number | undefined;
  /**
   * Gives the lock up when the event loop was blocked for so many milliseconds, at least 100; 0: never, and it is renewed
   * however long the loop is blocked. Default 0.
   */
  stallTimeoutMs?: number | undefined;
  /** What others see of the holder: the value of its key. Default: empty, as Go's client has it. */
  name?: string | undefined;
}

/** How long to wait for a lock. */
export interface AcquireOptions {
  /** In milliseconds; 0: as long as it takes. Default: `timeoutMs` of the client, 5000 unless it was given. */
  timeoutMs?: number | undefined;
  /** Gives the place in the queue back when it fires. */
  signal?: AbortSignal | undefined;
}

/** What a lock is held with, completed. */
export interface Holding {
  readonly ttlMs: number;
  readonly stallTimeoutMs: number;
  readonly value: string;
}

/** How long to wait, completed. */
export interface Waiting {
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
}

const HOLDING = ['ttlMs', 'stallTimeoutMs', 'name'] as const;
const WAITING = ['timeoutMs', 'signal'] as const;

type Bag = Readonly<Record<string, unknown>>;

export function holding(options: unknown): Holding {
  const given = optional('options', options);
  onlyKnown('options', given, HOLDING);
  return holdingOf(given);
}

export function waiting(options: unknown, timeoutMs: number): Waiting {
  const given = optional('options', options);
  onlyKnown('options', given, WAITING);
  return waitingOf(given, timeoutMs);
}

/** Both, for a lock that is made and acquired in one. */
export function both(options: unknown, timeoutMs: number): [Holding, Waiting] {
  const given = optional('options', options);
  onlyKnown('options', given, [...HOLDING, ...WAITING]);
  return [holdingOf(given), waitingOf(given, timeoutMs)];
}

function holdingOf(given: Bag): Holding {
  return {
    ttlMs: integer('options.ttlMs', given.ttlMs, 15_000, { min: 1000 }),
    stallTimeoutMs: stallTimeout(given.stallTimeoutMs, 0),
    value: text('options.name', given.name) ?? '',
  };
}

function waitingOf(given: Bag, timeoutMs: number): Waiting {
  return {
    timeoutMs: integer('options.timeoutMs', given.timeoutMs, timeoutMs, { min: 1, zeroIsOff: true }),
    signal: abortSignal('options.signal', given.signal),
  };
}

/** Something that says how many may hold a semaphore, such as a `ConfigRef<number>`. */
export interface PermitsRef {
  readonly value: number;
  /** Calls `listener` after each change of the value, until what it returns is called. Without it waiters hear of no change. */
  subscribe?(listener: () => void): () => void;
}

/** Tells of each other number of a semaphore, until what it gives is called; nothing: there will be none. */
export type FollowPermits = (tell: (permits: number) => void) => (() => void) | undefined;

/** How many may hold a semaphore at a time. */
export function permitsOf(value: unknown): number {
  if (value === undefined) throw invalid('permits', 'expected a whole number from 1 to 1000, got undefined');
  return integer('permits', value, 1, { min: 1, max: 1000 });
}

/** The folder of the keys of a lock: below `folder`, or the path itself where the name begins with a slash. */
export function pathOf(path: string, folder: string, value: unknown): string {
  if (typeof value !== 'string') throw invalid(path, `expected a string, got ${kindOf(value)}`);
  const name = text(path, value) as string;
  const whole = name.startsWith('/') ? name : `${folder}${name}`;
  const problem = native().problemOfStoreKey(`${whole}/w-${'f'.repeat(16)}`);
  if (problem !== null) throw invalid(path, problem);
  return whole;
}
