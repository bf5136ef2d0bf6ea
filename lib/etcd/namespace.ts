/** Keys under a common prefix, and everything that can be done with them. */

import { int64 } from './check.js';
import { BatchBuilder } from './kv/batch.js';
import { DeleteBuilder } from './kv/delete.js';
import { SingleRangeBuilder } from './kv/get.js';
import { MultiRangeBuilder } from './kv/get-all.js';
import { Keyspace } from './kv/keyspace.js';
import { PutBuilder } from './kv/put.js';
import { type Rangable, Range } from './kv/range.js';
import { type ISTMOptions, SoftwareTransaction } from './kv/stm.js';
import { ComparatorBuilder, type Comparison, type comparator } from './kv/txn.js';
import { type ILeaseOptions, Lease } from './lease/lease.js';
import { Election, type IElectionOptions } from './recipes/election.js';
import { Lock } from './recipes/lock.js';
import { type IMutexOptions, Mutex } from './recipes/mutex.js';
import type { CallOptions } from './rpc/calls.js';
import { KVClient, LeaseClient, WatchClient } from './rpc/clients.js';
import type { CompareTarget } from './rpc/enums.js';
import type { ICompare } from './rpc/messages.js';
import type { Connection } from './transport/connection.js';
import { WatchBuilder } from './watch/builder.js';

/** What is left of a lease. */
export interface ILeaseTimeToLive {
  id: bigint;
  /** What is left. */
  ttlSeconds: number;
  /** What was granted. */
  grantedTtlSeconds: number;
  /** The same as `ttlSeconds`, by its older name. */
  ttl: number;
  /** The same as `grantedTtlSeconds`, by its older name. */
  grantedTtl: number;
  /** The keys of the lease that lie in the namespace, in order, without its prefix. Empty unless they were asked for. */
  keys: Buffer[];
}

/**
 * A part of the store: all keys that begin with a prefix, named without it. `client.namespace('user1/')` makes one; the
 * client itself is the one with the empty prefix.
 *
 * Every method puts the prefix before the keys it is given. In answers it is taken off again by `getAll()`, by watches and
 * by `timeToLive()`; it stays in `get().exec()`, in `getPrevious()` of puts and deletes, and in what transactions answer.
 * The raw clients know no namespace. An empty key, which is refused elsewhere, means the prefix itself in a namespace;
 * `getAll()` and `delete().all()` don't reach it.
 *
 * A namespace has no connections, streams or credentials of its own: it shares those of its client, and ends with it.
 */
export class Namespace {
  /** What is put before all keys. */
  readonly prefix: Buffer;
  /** The service KV as it is. Takes and gives whole keys. */
  readonly kv: KVClient;
  /** The service Lease as it is. */
  readonly leaseClient: LeaseClient;
  /** The service Watch as it is. Takes and gives whole keys. */
  readonly watchClient: WatchClient;
  /** @internal */
  readonly connection: Connection;
  /** @internal */
  readonly keyspace: Keyspace;

  protected constructor(prefix: Buffer, connection: unknown) {
    this.prefix = prefix;
    this.keyspace = new Keyspace(prefix);
    this.connection = connection as Connection;
    this.kv = new KVClient(this.connection);
    this.leaseClient = new LeaseClient(this.connection);
    this.watchClient = new WatchClient(this.connection);
  }

  /** Reads one key: `await client.get('a')`, `.string()`, `.json()`, `.number()`, `.buffer()`, `.exists()`. */
  get(key: string | Buffer): SingleRangeBuilder {
    return new SingleRangeBuilder(this.connection, this.keyspace, key);
  }

  /** Reads many keys, at first all of the namespace: `.prefix('a/').strings()`, or page by page with `for await`. */
  getAll(): MultiRangeBuilder {
    return new MultiRangeBuilder(this.connection, this.keyspace);
  }

  /** Writes one key: `await client.put('a').value(1)`. */
  put(key: string | Buffer): PutBuilder {
    return new PutBuilder(this.connection, this.keyspace, key);
  }

  /** Deletes one key or a range: `await client.delete().key('a')`. */
  delete(): DeleteBuilder {
    return new DeleteBuilder(this.connection, this.keyspace);
  }

  /** Puts and deletes as one transaction, for the price of about one: `await client.batch().put('a', 1).commit()`. */
  batch(): BatchBuilder {
    return new BatchBuilder(this.connection, this.keyspace);
  }

  /**
   * Grants a lease and keeps it alive until it is revoked, released, lost, or the client is closed.
   *
   * @param ttl in seconds, from 1 on.
   * @throws RangeError for a ttl that is missing or below 1.
   */
  lease(ttl: number, options?: ILeaseOptions): Lease {
    return new Lease(this.connection, this.keyspace, ttl, options);
  }

  /** A lock on a key, not yet acquired: etcd3's, which is taken or refused at once. */
  lock(key: string | Buffer): Lock {
    return new Lock(this.connection, this.keyspace, key);
  }

  /** A lock with a queue, not yet acquired: that of etcd's Go client and of `etcdctl lock`. */
  mutex(name: string | Buffer, options?: IMutexOptions): Mutex {
    return new Mutex(this.connection, this.keyspace, name, options);
  }

  /** A software transaction, not yet run. */
  stm(options: Partial<ISTMOptions> = {}): SoftwareTransaction {
    return new SoftwareTransaction(options, this.keyspace, this.connection);
  }

  /**
   * A transaction that begins with a comparison. `Create`, `Mod`, `Version` and `Lease` are compared as numbers, `Value`
   * as bytes. Given a `Range`, every key in it has to meet the condition.
   *
   * A compare in etcd's own form, such as `campaign.guard()` and `lock.guard()` give it, is taken as it is.
   *
   * @throws Error for an unknown column or comparison.
   */
  if(guard: ICompare): ComparatorBuilder;
  if(
    key: string | Buffer | Range,
    column: keyof typeof CompareTarget,
    cmp: keyof typeof comparator,
    value: string | Buffer | number | bigint,
  ): ComparatorBuilder;
  if(...comparison: [ICompare] | Comparison): ComparatorBuilder {
    return new ComparatorBuilder(this.connection, this.keyspace).and(...(comparison as Comparison));
  }

  /** A watch, not yet created. */
  watch(): WatchBuilder {
    return new WatchBuilder(this.connection, this.keyspace);
  }

  /** The same as `Range.from()`. A range belongs to no namespace. */
  range(r: Rangable): Range {
    return Range.from(r);
  }

  /** A namespace within this one. Makes no connection. */
  namespace(prefix: string | Buffer): Namespace {
    return new Namespace(this.keyspace.nested(prefix).prefix, this.connection);
  }

  /**
   * An election, in which this client can campaign or which it can observe.
   *
   * @param ttl of the lease of a candidate, in seconds: how long a leader that has died goes on being it at most.
   *   Default: 60.
   */
  election(name: string, ttl?: number, options?: IElectionOptions): Election {
    return new Election(this, name, ttl, options);
  }

  /**
   * How long a lease has left; `null` when it does not exist. With `keys`, which of its keys lie in this namespace.
   * A read: tried again on other members.
   */
  async timeToLive(
    id: string | number | bigint,
    options: CallOptions & { keys?: boolean } = {},
  ): Promise<ILeaseTimeToLive | null> {
    const { keys = false, ...callOptions } = options;
    const answer = await this.leaseClient.leaseTimeToLive({ ID: int64(id, 'timeToLive()'), keys }, callOptions);
    const ttl = Number(answer.TTL);
    if (ttl < 0) return null;
    return {
      id: BigInt(answer.ID),
      ttlSeconds: ttl,
      grantedTtlSeconds: Number(answer.grantedTTL),
      ttl,
      grantedTtl: Number(answer.grantedTTL),
      // In etcd's own order, which differs from version to version, they would be of no order at all.
      keys: answer.keys
        .filter((key) => this.keyspace.owns(key))
        .map((key) => this.keyspace.strip(key))
        .sort(Buffer.compare),
    };
  }
}
