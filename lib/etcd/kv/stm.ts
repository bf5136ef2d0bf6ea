/** Software transactions: reads and writes in a function that runs again when others interfere. */

import { InvalidArgumentError } from '../../errors.js';
import { bytes, plainError } from '../check.js';
import { STMConflictError } from '../errors.js';
import type { CallOptions } from '../rpc/calls.js';
import { DeleteBuilder } from './delete.js';
import { SingleRangeBuilder } from './get.js';
import type { Keyspace } from './keyspace.js';
import { PutBuilder } from './put.js';
import type { Caller } from './request.js';
import { Attempt, type Checks } from './stm-attempt.js';

/** How far a software transaction is kept apart from what others write meanwhile. */
export enum Isolation {
  /**
   * All reads see the store at one revision, that of the first read. At the commit neither what was read nor what is
   * written may have changed since. The default.
   */
  SerializableSnapshot = 0,
  /** All reads see the store at one revision. At the commit nothing that was read may have changed. */
  Serializable = 1,
  /** Each read sees the store as it is then. At the commit nothing that was read may have changed. */
  RepeatableReads = 2,
  /** Each read sees the store as it is then. Nothing is checked: only the writes are one transaction. */
  ReadCommitted = 3,
}

/** How a software transaction runs. */
export interface ISTMOptions {
  /** How often it runs again after a conflict. Default: 3. */
  retries: number;
  /** Keys, within the namespace, that are read at the start of each run, before they are asked for. Default: none. */
  prefetch: string[];
  /** Default: `Isolation.SerializableSnapshot`. */
  isolation: Isolation;
  /** Options of the commit, and of the reads that have none of their own by `tx.get(key).options()`. */
  callOptions?: CallOptions | undefined;
}

const CHECKS: Readonly<Record<Isolation, Checks>> = {
  [Isolation.SerializableSnapshot]: { pinned: true, reads: true, writes: true },
  [Isolation.Serializable]: { pinned: true, reads: true, writes: false },
  [Isolation.RepeatableReads]: { pinned: false, reads: true, writes: false },
  [Isolation.ReadCommitted]: { pinned: false, reads: false, writes: false },
};

/**
 * A software transaction: `transact()` runs a function that reads and writes by way of the `tx` it is given, and then
 * commits all its writes as one transaction. If others have changed meanwhile what the isolation level protects, nothing
 * is written, and the function runs again.
 *
 * ```js
 * await client.stm().transact(async (tx) => {
 *   const [from, to] = await Promise.all([tx.get('account/1').number(), tx.get('account/2').number()]);
 *   if (from < 42) throw new Error('not enough');
 *   await Promise.all([tx.put('account/1').value(from - 42), tx.put('account/2').value(to + 42)]);
 * });
 * ```
 *
 * What is not read and written through `tx` is no part of it. The function should do nothing else that can't be done
 * twice. Reads see the writes and deletes that came before them in the same run, and a key is fetched once in a run. All
 * reads ask the cluster, not one member alone, so that they are never behind; `serializable(true)` asks one member.
 */
export class SoftwareTransaction {
  readonly #options: ISTMOptions;
  readonly #keyspace: Keyspace;
  readonly #caller: Caller;
  /** The run that `get()`, `put()` and `delete()` belong to; only in the objects that `transact()` hands out. */
  #attempt: Attempt | undefined;
  /** The runs under way of the object that `transact()` is called on. */
  readonly #running = new Set<Attempt>();

  /** @internal */
  constructor(options: Partial<ISTMOptions>, keyspace: Keyspace, caller: Caller) {
    const { retries = 3, prefetch = [], isolation = Isolation.SerializableSnapshot, callOptions } = options;
    if (!Number.isInteger(retries) && retries !== Number.POSITIVE_INFINITY) {
      throw new InvalidArgumentError(`stm({ retries }): expected a whole number, got ${String(retries)}`);
    }
    if (!Object.hasOwn(CHECKS, isolation)) throw plainError(`Unknown isolation level "${String(isolation)}"`);
    this.#options = { retries, prefetch, isolation, callOptions };
    this.#keyspace = keyspace;
    this.#caller = caller;
  }

  /**
   * Runs the function and commits; after a conflict again, up to `retries` times more. Several calls may be under way at
   * once, each with a `tx` of its own.
   *
   * Resolves with what the function returned in the run that was committed. Rejects with what the function threw (nothing
   * is written then), with `STMConflictError` when the retries are used up, and with what the commit failed with: it is
   * sent again only when it has surely not been applied, and `outcomeUnknown` of the error is true when that can't be
   * known.
   */
  async transact<T>(fn: (tx: this) => T | PromiseLike<T>): Promise<T> {
    const { retries, prefetch, isolation, callOptions } = this.#options;
    const ahead = prefetch.map((key) => this.#keyspace.key(bytes(key, 'stm({ prefetch })')));
    for (let left = retries; ; left--) {
      const attempt = new Attempt(this.#caller, CHECKS[isolation], callOptions);
      this.#running.add(attempt);
      try {
        attempt.prefetch(ahead);
        const value = await fn(this.#within(attempt) as this);
        attempt.end();
        await attempt.commit(callOptions);
        return value;
      } catch (error) {
        if (left <= 0 || !(error instanceof STMConflictError || attempt.snapshotLost)) throw error;
      } finally {
        attempt.end();
        this.#running.delete(attempt);
      }
    }
  }

  /**
   * Reads one key, in the transaction. A read at a revision, and filters by revision, are not supported and reject. In the
   * answer to a read of what the transaction itself wrote there is no header, and revisions are 0.
   */
  get(key: string | Buffer): SingleRangeBuilder {
    return new SingleRangeBuilder(this.#current(), this.#keyspace, key);
  }

  /** Writes one key at the commit. `lease()` and `getPrevious()` are not supported and reject. */
  put(key: string | Buffer): PutBuilder {
    return new PutBuilder(this.#current(), this.#keyspace, key);
  }

  /**
   * Deletes one key or a range at the commit; `deleted` in its answer means nothing. `getPrevious()` is not supported and
   * rejects. With `Isolation.SerializableSnapshot`, which can't check a whole range, the commit rejects when a range was
   * deleted and something was read.
   */
  delete(): DeleteBuilder {
    return new DeleteBuilder(this.#current(), this.#keyspace);
  }

  #within(attempt: Attempt): SoftwareTransaction {
    const tx = new SoftwareTransaction(this.#options, this.#keyspace, this.#caller);
    tx.#attempt = attempt;
    return tx;
  }

  #current(): Attempt {
    if (this.#attempt) return this.#attempt;
    const [only, ...others] = this.#running;
    if (only && others.length === 0) return only;
    throw plainError(
      only
        ? 'Several software transactions are under way: use the tx that transact() gives to your function.'
        : 'A software transaction reads and writes only inside the function that is given to transact().',
    );
  }
}
