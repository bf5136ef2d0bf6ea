/** Records in the memory of this process: for one process, and for tests. */

import { now } from '../common/clock.js';
import { integer, onlyKnown, optional } from '../common/shape.js';
import { UnavailableError } from '../errors.js';
import { NOTHING, type OnceRecord, type Seen } from './record.js';
import type { Swapped } from './store.js';

/** Options of `memoryOnce()`. */
export interface MemoryOnceOptions {
  /** The most keys, at least 1. When it is full of what still counts, nothing new is run: `ERR_UNAVAILABLE`. Default 100,000. */
  maxKeys?: number | undefined;
}

interface Kept {
  readonly version: bigint;
  readonly record: OnceRecord;
  /** By the monotonic clock; of a running one never. */
  readonly expires: number;
}

/** How many records are looked at with each change, whether they are over. */
const LOOKED_AT = 2;
/** How long after all were looked at in vain they are not looked at again, in milliseconds. */
const FULL_MS = 1000;

/** Records in memory, for `createOnce()`. Made by `memoryOnce()`. */
export class MemoryOnce {
  /** @internal */
  readonly maxResultBytes = 256 * 1024;
  readonly #maxKeys: number;
  readonly #kept = new Map<string, Kept>();
  #version = 0n;
  #next = this.#kept.entries();
  #fullSince = Number.NEGATIVE_INFINITY;

  /** @internal */
  constructor(options: MemoryOnceOptions | undefined) {
    const given = optional('options', options);
    onlyKnown('options', given, ['maxKeys']);
    this.#maxKeys = integer('options.maxKeys', given.maxKeys, 100_000, { min: 1, max: 10_000_000 });
  }

  /** @internal */
  open(): void {}

  /** @internal */
  async read(_operation: string, key: string): Promise<Seen> {
    return this.#seen(key);
  }

  /** @internal */
  async swap(operation: string, key: string, { version }: Seen, next: OnceRecord | null): Promise<Swapped> {
    const seen = this.#seen(key);
    if (seen.version !== version) return { seen };
    this.#look(LOOKED_AT);
    if (next === null) {
      this.#kept.delete(key);
      return { version: 0n };
    }
    if (version === 0n) this.#makeRoom(operation);
    const expires = next.state === 'running' ? Number.POSITIVE_INFINITY : now() + next.ttlMs;
    this.#kept.set(key, { version: ++this.#version, record: next, expires });
    return { version: this.#version };
  }

  /** @internal */
  keep(): (isSettled: boolean) => void {
    return () => {};
  }

  /** @internal */
  async close(): Promise<void> {
    this.#kept.clear();
  }

  #seen(key: string): Seen {
    const kept = this.#kept.get(key);
    const left = kept ? kept.expires - now() : 0;
    if (!kept || left <= 0) {
      this.#kept.delete(key);
      return NOTHING;
    }
    const { version, record } = kept;
    return { version, record, isAlive: record.state === 'running', expiresInMs: Math.min(left, record.ttlMs) };
  }

  #makeRoom(operation: string): void {
    if (this.#kept.size < this.#maxKeys) return;
    if (now() - this.#fullSince >= FULL_MS) {
      this.#look(2 * this.#kept.size);
      if (this.#kept.size < this.#maxKeys) return;
      this.#fullSince = now();
    }
    throw new UnavailableError(`${operation}: all ${this.#maxKeys} keys of the memory are taken: see maxKeys`, {
      operation,
    });
  }

  /** Forgets what is over among the next so many. */
  #look(count: number): void {
    for (let left = count; left > 0; left--) {
      const { value, done } = this.#next.next();
      if (done) this.#next = this.#kept.entries();
      else if (value[1].expires <= now()) this.#kept.delete(value[0]);
    }
  }
}
