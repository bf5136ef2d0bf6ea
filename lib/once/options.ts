/** What `createOnce()` and its calls are asked with, checked. */

import { createHash } from 'node:crypto';
import {
  abortSignal,
  boolean,
  choice,
  integer,
  invalid,
  kindOf,
  MAX_MS,
  onlyKnown,
  optional,
  shown,
  wellFormed,
} from '../common/shape.js';
import type { CoordOnce } from './coord.js';
import type { Codec } from './exact.js';
import { EXACT } from './exact.js';
import type { MemoryOnce } from './memory.js';
import type { RedisOnce } from './redis.js';
import type { Ask } from './steps.js';
import type { OnceStore } from './store.js';

/** How a `Once` is made. */
export interface OnceOptions {
  /** Where it is kept what was done: of `memoryOnce()`, `redisOnce()` or `coordOnce()`. It belongs to this one `Once`. */
  store: MemoryOnce | RedisOnce | CoordOnce;
  /** What all keys begin with in the store, at most 64 bytes. Default `idempotent:`. */
  prefix?: string | undefined;
  /** Turns results into text and back. Default: JSON, which refuses what it does not give back as it was. */
  codec?: Codec | undefined;
  /** The largest result that is kept, in bytes, at least 1. Default 262,144; in coord 65,536. */
  maxResultBytes?: number | undefined;
  /** Where to log; `false` for silence. Default: `console`. */
  logger?: unknown;
}

/** Whose key it is. */
export interface ScopeOptions {
  /** Keeps the same key of others apart, such as the id of a user; 1 to 256 bytes. Default: none, one for all. */
  scope?: string | undefined;
}

/** How to run something once. */
export interface RunOptions extends ScopeOptions {
  /** What the call is about, such as the body of a request: the same key with another is refused. A digest is kept. Default: none. */
  fingerprint?: string | Uint8Array | undefined;
  /** While somebody else runs it: wait for what comes of it, or reject with `ERR_IN_PROGRESS`. Default `join`. */
  whenRunning?: 'join' | 'reject' | undefined;
  /**
   * How long to wait for somebody else who runs it, in milliseconds, at least 1, from when the store has said so; then `ERR_IN_PROGRESS`.
   * Default 30,000.
   */
  joinTimeoutMs?: number | undefined;
  /**
   * For how long a run is its runner's without a sign of life, in milliseconds, 1000 to 3,600,000; in coord in whole seconds. It is renewed
   * as long as it runs. Default 30,000.
   */
  lockMs?: number | undefined;
  /**
   * When its runner died: run it again, or reject with `ERR_OUTCOME_UNKNOWN` until `resolve()` or `clear()`. What was begun with
   * `unknown` nobody runs again. Default `retry`.
   */
  afterCrash?: 'retry' | 'unknown' | undefined;
  /** Which errors of the function are kept, and given to all who call until the time is over. Default: none, the next call runs it. */
  cacheErrors?: ((error: unknown) => boolean) | undefined;
  /**
   * When the store can't be asked: reject, before anything was run, or run it all the same, maybe twice. Default `reject`.
   */
  onStoreFailure?: 'reject' | 'run' | undefined;
  /** Ends the wait of this call. What runs goes on, and is recorded. */
  signal?: AbortSignal | undefined;
}

/** The options of one call, completed. */
export interface Call extends Ask {
  /** The key as the store has it. */
  readonly at: string;
  readonly joinTimeoutMs: number;
  readonly cacheErrors: ((error: unknown) => boolean) | undefined;
  readonly onStoreFailure: 'reject' | 'run';
  readonly signal: AbortSignal | undefined;
}

/** The options of a `Once`, completed. */
export interface Plan {
  readonly store: OnceStore;
  readonly prefix: string;
  readonly codec: Codec;
  readonly maxResultBytes: number;
}

const OPTIONS = ['store', 'prefix', 'codec', 'maxResultBytes', 'logger'] as const;
const RUN = [
  ...['fingerprint', 'scope', 'whenRunning', 'joinTimeoutMs', 'lockMs'],
  ...['afterCrash', 'cacheErrors', 'onStoreFailure', 'signal'],
];
const [KEY_MOST, SCOPE_MOST, PREFIX_MOST] = [256, 256, 64];

/** What all stores are; their pages do not tell it. */
const contractOf = (store: OnceOptions['store']): OnceStore => store;

export function planOf(given: Readonly<Record<string, unknown>>): Plan {
  onlyKnown('options', given, OPTIONS);
  const store = given.store as Partial<OnceStore> | null | undefined;
  if (typeof store?.swap !== 'function' || typeof store.keep !== 'function') {
    throw invalid(
      'options.store',
      `expected what memoryOnce(), redisOnce() or coordOnce() gives, got ${kindOf(store)}`,
    );
  }
  const codec = (given.codec ?? EXACT) as Partial<Codec>;
  if (typeof codec.encode !== 'function' || typeof codec.decode !== 'function') {
    throw invalid('options.codec', 'expected an object with encode() and decode()');
  }
  const most = (store as OnceStore).maxResultBytes;
  return {
    store: contractOf(store as OnceOptions['store']),
    prefix: bytes('options.prefix', given.prefix ?? 'idempotent:', 0, PREFIX_MOST),
    codec: codec as Codec,
    maxResultBytes: integer('options.maxResultBytes', given.maxResultBytes, most, { min: 1, max: 512 * 1024 * 1024 }),
  };
}

/** The key as the store has it. One with a scope is never the same as one without, or with another. */
export function placeOf(prefix: string, key: unknown, scope: unknown): string {
  const own = bytes('key', key, 1, KEY_MOST);
  if (scope === undefined) return prefix + (own.startsWith('@') ? `@${own}` : own);
  const of = bytes('options.scope', scope, 1, SCOPE_MOST);
  return `${prefix}@${of.length}:${of}:${own}`;
}

/** The options of `clear()`, `resolve()` and `inspect()`. */
export function scoped(prefix: string, key: unknown, options: unknown, known: readonly string[] = []) {
  const given = optional('options', options);
  onlyKnown('options', given, ['scope', ...known]);
  return { given, at: placeOf(prefix, key, given.scope), force: boolean('options.force', given.force, false) };
}

export function callOf(operation: string, prefix: string, key: unknown, ttlMs: unknown, options: unknown): Call {
  const given = optional('options', options);
  onlyKnown('options', given, RUN);
  const at = placeOf(prefix, key, given.scope);
  if (ttlMs === undefined) throw invalid('ttlMs', 'expected a whole number, got undefined');
  const { cacheErrors } = given;
  if (cacheErrors !== undefined && typeof cacheErrors !== 'function') {
    throw invalid('options.cacheErrors', `expected a function, got ${kindOf(cacheErrors)}`);
  }
  return {
    operation,
    key: key as string,
    at,
    ttlMs: integer('ttlMs', ttlMs, 0, { min: 1, max: TTL_MOST_MS }),
    lockMs: integer('options.lockMs', given.lockMs, 30_000, { min: 1000, max: 3_600_000 }),
    joinTimeoutMs: integer('options.joinTimeoutMs', given.joinTimeoutMs, 30_000, { min: 1, max: MAX_MS }),
    fingerprint: digestOf(given.fingerprint),
    whenRunning: choice('options.whenRunning', given.whenRunning, ['join', 'reject'], 'join'),
    afterCrash: choice('options.afterCrash', given.afterCrash, ['retry', 'unknown'], 'retry'),
    onStoreFailure: choice('options.onStoreFailure', given.onStoreFailure, ['reject', 'run'], 'reject'),
    cacheErrors: cacheErrors as Call['cacheErrors'],
    signal: abortSignal('options.signal', given.signal),
  };
}

/** Ten years. */
const TTL_MOST_MS = 10 * 366 * 86_400_000;

function digestOf(value: unknown): string | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'string' && !(ArrayBuffer.isView(value) && value.constructor.name !== 'DataView')) {
    throw invalid('options.fingerprint', `expected a string or bytes, got ${shown(value)}`);
  }
  // Lone surrogates all have the same bytes, and so would the digests of texts that differ.
  if (typeof value === 'string') wellFormed('options.fingerprint', value);
  return createHash('sha256')
    .update(value as string | Uint8Array)
    .digest('base64url');
}

function bytes(path: string, value: unknown, least: number, most: number): string {
  if (typeof value !== 'string') throw invalid(path, `expected a string, got ${kindOf(value)}`);
  const length = value.length > most ? value.length : Buffer.byteLength(value);
  if (length < least) throw invalid(path, 'expected a string that is not empty');
  if (length > most) throw invalid(path, `expected at most ${most} bytes, got ${Buffer.byteLength(value)}`);
  return wellFormed(path, value);
}
