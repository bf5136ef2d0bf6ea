/** Keys that stand for as long as this program can reach etcd: under a lease that is asked for anew when it is lost. */

import { after } from '../../common/clock.js';
import { Emitter } from '../../common/emitter.js';
import { type EtcdClientError, EtcdLeaseInvalidError } from '../errors.js';
import { DeleteBuilder } from '../kv/delete.js';
import { SingleRangeBuilder } from '../kv/get.js';
import type { Scope } from '../kv/keyspace.js';
import { ComparatorBuilder } from '../kv/txn.js';
import type { CallOptions } from '../rpc/calls.js';
import { type ILeaseOptions, Lease } from './lease.js';

/** The events of a lasting lease. */
export interface LastingLeaseEvents {
  lost: [error: EtcdClientError];
  restored: [report: IRestored];
}

/** What came of putting the keys again. */
export interface IRestored {
  /** The lease that they are under now. */
  lease: Lease;
  /** Keys that are written again. */
  restored: string[];
  /** Keys that somebody else had written meanwhile: left alone, and forgotten. */
  taken: string[];
  /** Keys that etcd refused, and why: forgotten. */
  refused: { key: string; error: Error }[];
}

/** Options of a lasting lease. */
export interface ILastingLeaseOptions extends ILeaseOptions {
  /** The time to live of each lease, in seconds, from 1 on. */
  ttlSeconds: number;
}

/** Who listens late hears how it stands, and not what is over. */
const VOIDS = { lost: ['lost', 'restored'], restored: ['lost', 'restored'] };

/** How many leases that were lost are remembered: what still stands under them is ours. */
const FORMER = 8;

/** Between two tries to put a key again, in milliseconds. */
const PAUSE_MS = 100;

type MaybePassing = Error & { retryable?: boolean; outcomeUnknown?: boolean };

const pause = (ms: number) => new Promise<void>((resolve) => void after(ms, resolve));

/**
 * A row of leases, one after the other: when one is lost, for instance because etcd could not be reached for its time to
 * live, the next is asked for until there is one, and the keys are put again under it. A program that holds a lease to be
 * the only one of its kind (a lock, a leader) must not do so: it needs to know that it was not the one in between.
 *
 * ```js
 * const lasting = new LastingLease(client, { ttlSeconds: 10 });
 * await lasting.put('hosts/a', 'up');
 * lasting.on('restored', ({ taken }) => console.log('listed again', taken));
 * ```
 *
 * `lost` comes for every lease that is lost, then `restored` once the keys stand again. A key that somebody else has
 * written meanwhile is left to them. Who listens late is told the newer of the two, unless somebody has heard it. It ends by `revoke()` and with its client. Options are those of a lease; `timeoutMs`,
 * `deadline` and `signal` are for the first grant alone. When a grant is refused, or the first one fails, `lost` comes and nothing follows.
 */
export class LastingLease extends Emitter {
  readonly #namespace: Scope;
  readonly #ttl: number;
  readonly #options: ILeaseOptions;
  readonly #values = new Map<string, string | Buffer | number>();
  #current: Lease;
  /** The ids of the last leases that were lost. */
  #former: string[] = [];
  #over = false;

  /** @throws `ERR_INVALID_ARGUMENT`, also a RangeError, for a time to live that is missing or below 1. */
  constructor(namespace: Scope, options: ILastingLeaseOptions);
  /**
   * @param ttl in seconds.
   * @throws `ERR_INVALID_ARGUMENT`, also a RangeError, for one that is missing or below 1.
   */
  constructor(namespace: Scope, ttl: number, options?: ILeaseOptions);
  constructor(namespace: Scope, ttl: number | ILastingLeaseOptions, more: ILeaseOptions = {}) {
    super(VOIDS);
    const { ttlSeconds, ...options } = typeof ttl === 'object' && ttl !== null ? ttl : { ttlSeconds: ttl, ...more };
    const { deadline: _deadline, signal: _signal, timeoutMs: _timeoutMs, ...lasting } = options;
    this.#namespace = namespace;
    this.#ttl = ttlSeconds;
    this.#options = lasting;
    this.#current = new Lease(namespace.connection, namespace.keyspace, ttlSeconds, options);
    this.#follow(this.#current);
  }

  /** The lease of now; it may be lost, or not yet granted. */
  get lease(): Lease {
    return this.#current;
  }

  /** Whether the lease of now is valid. */
  isValid(): boolean {
    return this.#current.isValid();
  }

  /**
   * Writes a key under the lease and remembers it. One that rejects is not remembered; while the lease is lost it waits for
   * the next one, within the options of the call.
   */
  async put(key: string, value: string | Buffer | number, options?: CallOptions): Promise<void> {
    await this.#current.put(key).value(value).options(options).exec();
    this.#values.set(key, value);
  }

  /** Deletes a key and forgets it. */
  async delete(key: string, options?: CallOptions): Promise<void> {
    this.#values.delete(key);
    const { connection, keyspace } = this.#namespace;
    await new DeleteBuilder(connection, keyspace).key(key).options(options).exec();
  }

  /** Ends it, and deletes the keys. As `Lease.revoke()`. */
  async revoke(options?: CallOptions): Promise<void> {
    this.#over = true;
    await this.#current.revoke(options);
  }

  /** The same as `revoke()`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.revoke();
  }

  /** A lease was lost, and the next one is being asked for; or a grant was refused. */
  override on(event: 'lost', handler: (error: EtcdClientError) => void): this;
  /** The keys stand again, under another lease. */
  override on(event: 'restored', handler: (report: IRestored) => void): this;
  override on(event: string | symbol, handler: (...args: never[]) => void): this;
  override on(event: string | symbol, handler: (...args: never[]) => void): this {
    return super.on(event, handler as (...args: unknown[]) => void);
  }

  #follow(lease: Lease): void {
    lease.on('lost', (error) => {
      // Anything else is a grant that was refused, and would be again.
      if (!this.#over && error instanceof EtcdLeaseInvalidError) {
        const { connection, keyspace } = this.#namespace;
        this.#former = [String(lease.id), ...this.#former].slice(0, FORMER);
        this.#current = new Lease(connection, keyspace, this.#ttl, this.#options, { insists: true });
        this.#follow(this.#current);
        void this.#restore(this.#current);
      }
      this.tell('lost', error);
    });
  }

  /** Puts everything again under a new lease, unless that is lost as well: then the next one does. */
  async #restore(lease: Lease): Promise<void> {
    const report: IRestored = { lease, restored: [], taken: [], refused: [] };
    try {
      await lease.grant();
      await Promise.all([...this.#values.keys()].map((key) => this.#again(lease, key, report)));
    } catch {
      return;
    }
    if (!this.#over && lease.isValid()) this.tell('restored', report);
  }

  async #again(lease: Lease, key: string, report: IRestored): Promise<void> {
    for (;;) {
      const value = this.#values.get(key);
      if (value === undefined) return; // deleted meanwhile
      try {
        const stands = await this.#claim(lease, key, value);
        if (stands === undefined) continue;
        (stands ? report.restored : report.taken).push(key);
        if (!stands) this.#values.delete(key);
        return;
      } catch (failure) {
        // With the lease this ends too. Else it is tried again, unless etcd answers and it was a refusal.
        const answers = await this.#answers(lease);
        const error = failure as MaybePassing;
        if (answers && !error.retryable && !error.outcomeUnknown) {
          report.refused.push({ key, error });
          this.#values.delete(key);
          return;
        }
        await pause(PAUSE_MS);
      }
    }
  }

  /** Whether etcd answers a renewal now; false when that may pass. Rejects when the lease is over. */
  async #answers(lease: Lease): Promise<boolean> {
    try {
      await lease.keepaliveOnce();
      return true;
    } catch (failure) {
      if (lease.revoked() || !(failure as MaybePassing).retryable) throw failure;
      return false;
    }
  }

  /** Whether the key is ours now; `undefined` when it changed while it was being looked at. */
  async #claim(lease: Lease, key: string, value: string | Buffer | number): Promise<boolean | undefined> {
    const put = lease.put(key).value(value);
    const { connection, keyspace } = this.#namespace;
    const fresh = await new ComparatorBuilder(connection, keyspace).and(key, 'Create', '==', 0).then(put).commit();
    if (fresh.succeeded) return true;
    const { kvs } = await new SingleRangeBuilder(connection, keyspace, key).exec();
    const held = kvs[0]?.lease;
    if (held === undefined) return undefined;
    if (held === String(lease.id)) return true; // by a put whose answer was lost
    // Lost by our clock alone, a lease may stand for a while yet.
    if (!this.#former.includes(held)) return false;
    const taken = await new ComparatorBuilder(connection, keyspace).and(key, 'Lease', '==', held).then(put).commit();
    return taken.succeeded ? true : undefined;
  }
}
