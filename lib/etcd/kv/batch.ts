/** Many writes in one transaction. */

import { InvalidArgumentError } from '../../errors.js';
import type { Bytes } from '../check.js';
import type { CallOptions } from '../rpc/calls.js';
import type { IRequestOp, ITxnResponse } from '../rpc/messages.js';
import { DeleteBuilder } from './delete.js';
import type { Keyspace } from './keyspace.js';
import { type LeaseSource, PutBuilder } from './put.js';
import type { Caller } from './request.js';

/** What a put of a batch can have besides its value. */
export interface IBatchPutOptions {
  /** The lease that the key goes with. Default: none. */
  lease?: LeaseSource | undefined;
  /** Keeps the lease that the key has; the key must exist. Default: false. */
  ignoreLease?: boolean | undefined;
}

/** What a batch came to. */
export interface IBatchResult {
  /** The revision at which all of it was written: the mod revision of every key put. */
  revision: bigint;
  /** How many keys the deletes of the batch deleted. */
  deleted: bigint;
}

/**
 * Puts and deletes that are sent as one transaction, which costs about as much as one put:
 *
 * ```js
 * const { revision } = await client.batch().put('a', 1).put('b', 2, { lease }).delete('c').commit();
 * ```
 *
 * It is what its name says, and no mere queue: all of it is applied, at one revision, or nothing is; a key may occur only
 * once; and etcd takes 128 operations at most, unless its `--max-txn-ops` says otherwise.
 */
export class BatchBuilder {
  readonly #caller: Caller;
  readonly #keyspace: Keyspace;
  readonly #keys = new Set<string>();
  readonly #ops: Promise<IRequestOp>[] = [];

  /** @internal */
  constructor(caller: Caller, keyspace: Keyspace) {
    this.#caller = caller;
    this.#keyspace = keyspace;
  }

  /** How many operations there are. */
  get size(): number {
    return this.#ops.length;
  }

  /**
   * Adds a put. A number is written in decimal.
   *
   * @throws InvalidArgumentError when the key is in the batch already, or a key or value is of the wrong type.
   */
  put(key: string | Buffer, value: string | Buffer | number, options: IBatchPutOptions = {}): this {
    const put = new PutBuilder(this.#caller, this.#keyspace, key).value(value);
    if (options.lease !== undefined) put.lease(options.lease);
    if (options.ignoreLease) put.ignoreLease();
    return this.#add(key, put.op());
  }

  /**
   * Adds the delete of one key.
   *
   * @throws InvalidArgumentError when the key is in the batch already, or of the wrong type.
   */
  delete(key: string | Buffer): this {
    return this.#add(key, new DeleteBuilder(this.#caller, this.#keyspace).key(key).op());
  }

  /**
   * Sends the batch; one without operations as well, which changes nothing. A second call sends it again.
   *
   * Rejects with `GRPCInvalidArgumentError` when there are too many operations. It is sent again only when it has surely
   * not been applied; when that can't be known, `outcomeUnknown` of the error is true.
   */
  async commit(options?: CallOptions): Promise<IBatchResult> {
    const success = await Promise.all(this.#ops);
    const request = { compare: [], failure: [], success };
    const { header, responses } = await this.#caller.exec<ITxnResponse>('KV', 'txn', request, options);
    let deleted = 0n;
    for (const { response_delete_range: answer } of responses) if (answer) deleted += BigInt(answer.deleted);
    return { revision: BigInt(header.revision), deleted };
  }

  #add(key: Bytes, op: Promise<IRequestOp>): this {
    op.catch(() => {}); // shows in commit()
    const name = this.#keyspace.key(key).toString('latin1');
    if (this.#keys.has(name)) {
      throw new InvalidArgumentError(`batch(): the key ${JSON.stringify(String(key))} occurs twice`);
    }
    this.#keys.add(name);
    this.#ops.push(op);
    return this;
  }
}
