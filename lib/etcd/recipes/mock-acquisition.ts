/** The acquisition of a lock on a client with `mock()`: by two calls. The lease is not kept alive, and nothing is lost. */

import type { Keyspace } from '../kv/keyspace.js';
import { PutBuilder } from '../kv/put.js';
import { ComparatorBuilder } from '../kv/txn.js';
import type { CallOptions } from '../rpc/calls.js';
import type { ICompare, ILeaseGrantResponse } from '../rpc/messages.js';
import type { Connection } from '../transport/connection.js';
import { type Acquisition, isTaken, NEVER, notAcquired } from './acquisition.js';

/** What is asked for. */
interface Wanted {
  readonly key: string | Buffer;
  /** In seconds. */
  readonly ttl: number;
  readonly options: CallOptions | undefined;
}

/** @internal */
export class MockAcquisition implements Acquisition {
  readonly signal = NEVER;
  readonly #connection: Connection;
  readonly #keyspace: Keyspace;
  readonly #wanted: Wanted;
  /** While it is held. */
  #held: { lease: string; revision: bigint } | undefined;

  constructor(connection: Connection, keyspace: Keyspace, wanted: Wanted) {
    this.#connection = connection;
    this.#keyspace = keyspace;
    this.#wanted = wanted;
  }

  get leaseId(): string | undefined {
    return this.#held?.lease;
  }

  get revision(): bigint | undefined {
    return this.#held?.revision;
  }

  get isHeld(): boolean {
    return this.#held !== undefined;
  }

  async acquire(): Promise<void> {
    const { key, ttl, options } = this.#wanted;
    const connection = this.#connection;
    const { ID: lease } = await connection.exec<ILeaseGrantResponse>('Lease', 'leaseGrant', { TTL: ttl });
    const answer = await new ComparatorBuilder(connection, this.#keyspace)
      .and(key, 'Create', '==', 0)
      .then(new PutBuilder(connection, this.#keyspace, key).value('').lease(lease))
      .options(options)
      .commit();
    if (answer.succeeded) {
      this.#held = { lease, revision: BigInt(answer.header?.revision ?? 0) };
      return;
    }
    await connection.exec('Lease', 'leaseRevoke', { ID: lease }).catch(() => {}); // it expires
    throw isTaken(String(key));
  }

  /** A mock need not tell revisions. */
  guard(): ICompare {
    throw notAcquired();
  }

  async release(): Promise<void> {
    const held = this.#held;
    this.#held = undefined;
    if (held) await this.#connection.exec('Lease', 'leaseRevoke', { ID: held.lease }, this.#wanted.options);
  }
}
