/**
 * Records in the store of `rollcall/coord`. There is no clock that all agree on, so none says whether a runner lives: a lease does. Every
 * process holds one for each `lockMs` that it runs something with, a record names it, and whoever takes over says in the same
 * transaction that it is gone. The token of a run is the revision at which it was claimed.
 */

import { createHash } from 'node:crypto';
import type { Log } from '../common/logger.js';
import { integer, invalid, kindOf, onlyKnown, optional } from '../common/shape.js';
import type { ConflictError, Coord, Entry } from '../coord/index.js';
import { BadRecordError, type RollcallError, UnavailableError } from '../errors.js';
import { type Lease, Leases } from './leases.js';
import { NOTHING, type OnceRecord, type Running, recordOf, type Seen, textOf } from './record.js';
import type { Swapped } from './store.js';
import { FOLDER, Sweeper } from './sweeper.js';

/** What is needed of a client of `rollcall/coord`. */
export type OnceCoord = Pick<Coord, 'config' | 'lock'>;

/** Options of `coordOnce()`. */
export interface CoordOnceOptions {
  /** How long an answer of the store is waited for, in milliseconds, at least 1. Default: `timeoutMs` of the client. */
  storeTimeoutMs?: number | undefined;
}

/** How much longer than its time what was interrupted is kept: nobody knows until when it ran. */
const INTERRUPTED_MS = 86_400_000;

/** Records in the store of `rollcall/coord`, for `createOnce()`. Made by `coordOnce()`. */
export class CoordOnce {
  /** @internal */
  readonly maxResultBytes = 64 * 1024;
  readonly #config: OnceCoord['config'];
  readonly #leases: Leases;
  readonly #sweeper: Sweeper;
  /** What each call of the store is given. */
  readonly #limits: { readonly timeoutMs?: number };
  readonly #claims = new WeakMap<Running, Lease>();

  /** @internal */
  constructor(coord: OnceCoord, options: CoordOnceOptions | undefined) {
    if (typeof coord?.config?.setAll !== 'function' || typeof coord.lock?.tryAcquire !== 'function') {
      throw invalid('coord', `expected a client of rollcall/coord, got ${kindOf(coord)}`);
    }
    const given = optional('options', options);
    onlyKnown('options', given, ['storeTimeoutMs']);
    const timeoutMs = integer('options.storeTimeoutMs', given.storeTimeoutMs, 0, { min: 1 });
    this.#limits = timeoutMs === 0 ? {} : { timeoutMs };
    this.#config = coord.config;
    this.#leases = new Leases(coord, this.#limits);
    this.#sweeper = new Sweeper(coord.config);
  }

  /** @internal */
  open(_log: Log): void {}

  /** @internal */
  async read(operation: string, key: string): Promise<Seen> {
    return await this.#seen(operation, key, await this.#config.raw(pathOf(key), this.#limits));
  }

  /** @internal */
  async swap(operation: string, key: string, seen: Seen, next: OnceRecord | null): Promise<Swapped> {
    if (next?.state === 'running') return await this.#claim(operation, key, seen, next);
    const text = next && textOf({ ...next, expires: Date.now() + next.ttlMs });
    return await this.#commit(operation, key, seen, text);
  }

  async #claim(operation: string, key: string, seen: Seen, next: Running): Promise<Swapped> {
    let expected = seen;
    if (seen.version === 0n) {
      // Most who come to a key that is there want its record alone: no lease is held for them.
      expected = await this.read(operation, key);
      if (expected.record) return { seen: expected };
    }
    const lease = await this.#leases.enter(next.lockMs);
    let isClaimed = false;
    try {
      const expires = Date.now() + next.ttlMs + INTERRUPTED_MS;
      const text = textOf({ ...next, owner: lease.owner, expires });
      const swapped = await this.#commit(operation, key, expected, text);
      if (!swapped.seen) {
        if (!lease.held.isHeld) throw lostLease(operation, key);
        this.#claims.set(next, lease);
        isClaimed = true;
      }
      this.#sweeper.tick();
      return swapped;
    } catch (error) {
      if ((error as RollcallError).outcomeUnknown) this.#leases.retire(lease);
      throw error;
    } finally {
      // Else it is in use until its run is over: what others have under it is not to end it before that begins.
      if (!isClaimed) this.#leases.leave(lease);
    }
  }

  /** @internal */
  keep(_key: string, _version: bigint, record: Running, lost: (why: string) => void): (isSettled: boolean) => void {
    return this.#leases.keep(this.#claims.get(record) as Lease, lost);
  }

  /** @internal */
  async close(): Promise<void> {
    this.#sweeper.close();
    await this.#leases.close();
  }

  /** Writes what is to stand there, if what was seen does, and the lease of its runner is gone where it was seen to be. */
  async #commit(operation: string, key: string, seen: Seen, text: string | null): Promise<Swapped> {
    const path = pathOf(key);
    const { record } = seen;
    const dead = record?.state === 'running' && !seen.isAlive ? record.owner : undefined;
    const ifRevisions = {
      [path]: seen.version,
      ...(dead !== undefined && { [dead]: 0 }),
    };
    try {
      const version = await this.#config.setAll({ [path]: text }, { ...this.#limits, ifRevisions });
      return { version: text === null ? 0n : version };
    } catch (error) {
      const { code, key: differs, current } = error as Partial<ConflictError>;
      if (code !== 'ERR_CONFLICT') throw error;
      if (differs === path) return { seen: await this.#seen(operation, key, current ?? null) };
      return { seen: { ...seen, isAlive: true } };
    }
  }

  async #seen(operation: string, key: string, entry: Entry | null): Promise<Seen> {
    if (!entry) return NOTHING;
    const record = recordOf(entry.value);
    if (!record || typeof record.expires !== 'number') {
      throw new BadRecordError(`${operation}: what stands at the key is no record of rollcall/once`, {
        operation,
        key,
      });
    }
    const owner = record.state === 'running' ? record.owner : undefined;
    const isAlive = owner !== undefined && (await this.#leases.isAlive(owner));
    const left = record.expires - Date.now();
    const version = entry.revision;
    if (left <= 0 && !isAlive) return { ...NOTHING, version };
    return { version, record, isAlive, expiresInMs: Math.max(left, 0) };
  }
}

/** The claim stands, and whoever comes may take it over: nothing was run. */
const lostLease = (operation: string, key: string): UnavailableError =>
  new UnavailableError(`${operation}: the lease of this process was lost`, { operation, key, outcomeUnknown: true });

/** The longest name that stands for itself, in bytes. */
const NAME_MOST = 800;

/** Where the record of a key lies: in one of 4096 folders, so that what is over can be looked for in small shares. */
function pathOf(key: string): string {
  const digest = createHash('sha256').update(key).digest('hex');
  const name = key.replace(/[%/\p{Cc}]|^\.{1,2}$/gu, (text) => [...text].map(percent).join(''));
  return `${FOLDER}${digest.slice(0, 3)}/${Buffer.byteLength(name) > NAME_MOST ? `%sha256-${digest}` : name}`;
}

const percent = (char: string): string => `%${char.charCodeAt(0).toString(16).padStart(2, '0')}`;
