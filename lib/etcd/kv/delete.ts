/** Deleting one key or many. */

import { InvalidArgumentError } from '../../errors.js';
import { type Bytes, bytes } from '../check.js';
import { keyMissing } from '../errors.js';
import type { IDeleteRangeRequest, IDeleteRangeResponse, IKeyValue, IRequestOp } from '../rpc/messages.js';
import { type Rangable, Range } from './range.js';
import { type IOperation, LazyRequest } from './request.js';

/**
 * Deletes one key or a range. Awaiting it means `exec()`. It selects nothing until `key`, `prefix`, `range`, `inRange` or
 * `all` was called; without one of them it rejects, and nothing is sent.
 *
 * A delete is sent again only when it has surely not been applied. When that can't be known (the connection broke or the
 * time ran out after it was sent) it rejects, and `outcomeUnknown` of the error is true.
 */
export class DeleteBuilder extends LazyRequest<IDeleteRangeResponse> implements IOperation {
  #key: Bytes | undefined;
  #range: Range | undefined;

  /**
   * Selects one key. A later call takes the place of an earlier one.
   *
   * @throws InvalidArgumentError for what is not a string or a Buffer, and when a range is selected already.
   */
  key(value: string | Buffer): this {
    if (this.#range) throw both();
    this.#key = typeof value === 'string' ? value : bytes(value, 'delete().key()');
    return this;
  }

  /** Selects all keys that begin with a prefix. The empty prefix selects every key of the namespace. */
  prefix(value: string | Buffer): this {
    return this.#select(Range.prefix(value));
  }

  /** Selects a range, within the namespace. */
  range(range: Range): this {
    return this.#select(Range.from(range));
  }

  /** Selects every key of the namespace; without a namespace, of the whole store. */
  all(): this {
    return this.prefix('');
  }

  /** Selects a range, or what stands for one, within the namespace. A string or a Buffer alone means that one key. */
  inRange(r: Rangable): this {
    return this.#select(Range.from(r));
  }

  /** Deletes, and resolves with what was deleted. The keys in it keep the prefix of the namespace. */
  async getPrevious(): Promise<IKeyValue[]> {
    const { prev_kvs } = await this.#run({ prev_kv: true });
    return prev_kvs;
  }

  /** Deletes, and resolves with etcd's answer; `deleted` in it, a decimal string, says how many keys there were. */
  exec(): Promise<IDeleteRangeResponse> {
    return this.#run();
  }

  /** The delete as an operation of a transaction. Sends nothing. Rejects when nothing is selected. */
  async op(): Promise<IRequestOp> {
    return { request_delete_range: this.#request() };
  }

  /** @internal */
  protected override send(): Promise<IDeleteRangeResponse> {
    return this.#run();
  }

  async #run(form?: IDeleteRangeRequest): Promise<IDeleteRangeResponse> {
    return await this.caller.exec<IDeleteRangeResponse>('KV', 'deleteRange', this.#request(form), this.callOptions);
  }

  #select(range: Range): this {
    if (this.#key !== undefined) throw both();
    this.#range = range;
    return this;
  }

  /** The request as etcd takes it: the only place that makes it. */
  #request(form?: IDeleteRangeRequest): IDeleteRangeRequest {
    const selected = this.#range ? this.keyspace.range(this.#range) : { key: this.keyspace.key(this.#key ?? '') };
    if (selected.key.length === 0 || (this.#key === undefined && !this.#range)) {
      throw keyMissing('delete() needs .key() with a key that is not empty, .prefix(), .range(), .inRange() or .all()');
    }
    return { ...selected, ...form };
  }
}

function both(): InvalidArgumentError {
  return new InvalidArgumentError('delete(): both a key and a range are selected; use one delete() for each');
}
