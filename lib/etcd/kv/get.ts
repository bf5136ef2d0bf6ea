/** Reading: what all reads share, and the read of one key. */

import { type Bytes, bytes, int64 } from '../check.js';
import { fromFailure, keyMissing } from '../errors.js';
import type { IRangeRequest, IRangeResponse, IRequestOp } from '../rpc/messages.js';
import type { Keyspace } from './keyspace.js';
import { type Caller, type IOperation, LazyRequest } from './request.js';

/**
 * A read of the store. A read changes nothing, so it is tried again, on other members as well, until its time is over;
 * what it rejects with is what etcd refused, or what the last tries of the endpoints came to.
 */
export abstract class RangeBuilder<T> extends LazyRequest<T> implements IOperation {
  /**
   * What was set besides the key; `undefined` while nothing was, which is the common case.
   *
   * @internal
   */
  protected filters: IRangeRequest | undefined;

  /**
   * Reads at a revision of the past instead of now. One that etcd has compacted, or that is yet to come, rejects with
   * `GRPCOutOfRangeError`.
   *
   * @throws InvalidArgumentError for what is not a 64-bit number; numbers beyond 2^53 go as string or bigint.
   */
  revision(rev: number | string | bigint): this {
    return this.filter('revision', int64(rev, 'revision()'));
  }

  /** Lets a member answer from its own store, without asking the others: quicker, and perhaps behind. Default: false. */
  serializable(serializable: boolean): this {
    return this.filter('serializable', serializable);
  }

  /** Leaves out keys that were last changed before a revision. */
  minModRevision(rev: number | string | bigint): this {
    return this.filter('min_mod_revision', int64(rev, 'minModRevision()'));
  }

  /** Leaves out keys that were last changed after a revision. */
  maxModRevision(rev: number | string | bigint): this {
    return this.filter('max_mod_revision', int64(rev, 'maxModRevision()'));
  }

  /** Leaves out keys that were made before a revision. */
  minCreateRevision(rev: number | string | bigint): this {
    return this.filter('min_create_revision', int64(rev, 'minCreateRevision()'));
  }

  /** Leaves out keys that were made after a revision. */
  maxCreateRevision(rev: number | string | bigint): this {
    return this.filter('max_create_revision', int64(rev, 'maxCreateRevision()'));
  }

  /** The read as an operation of a transaction. Sends nothing. Rejects when the key is missing. */
  async op(): Promise<IRequestOp> {
    return { request_range: this.request() };
  }

  /** @internal */
  protected filter<K extends keyof IRangeRequest>(name: K, value: IRangeRequest[K]): this {
    this.filters ??= {};
    this.filters[name] = value;
    return this;
  }

  /**
   * The request as etcd takes it: the only place that makes it. `form` is what one way of reading adds, without being
   * kept.
   *
   * @internal
   */
  protected abstract request(form?: IRangeRequest): IRangeRequest;

  /** @internal */
  protected async range(form?: IRangeRequest): Promise<IRangeResponse> {
    return await this.caller.exec<IRangeResponse>('KV', 'range', this.request(form), this.callOptions);
  }
}

/** Reads one key. Awaiting it means `string()`. */
export class SingleRangeBuilder extends RangeBuilder<string | null> {
  readonly #key: Bytes;

  /** @internal */
  constructor(caller: Caller, keyspace: Keyspace, key: Bytes) {
    super(caller, keyspace);
    this.#key = typeof key === 'string' ? key : bytes(key, 'get()');
  }

  /** The value parsed as JSON; `null` when there is no such key. Rejects with a `SyntaxError` when it is not JSON. */
  async json(): Promise<unknown> {
    const text = await this.string();
    return text === null ? null : JSON.parse(text);
  }

  /** The value as text; `null` when there is no such key. */
  async string(encoding: BufferEncoding = 'utf8'): Promise<string | null> {
    const quick = encoding === 'utf8' ? this.#quick(false) : undefined;
    if (quick) {
      try {
        return (await quick) as string | null;
      } catch (failure) {
        throw fromFailure(failure, 'KV.range'); // made here, so that its stack shows the caller
      }
    }
    const { kvs } = await this.range();
    return kvs[0] === undefined ? null : kvs[0].value.toString(encoding);
  }

  /** The value as a number, `NaN` when it is none; `null` when there is no such key. */
  async number(): Promise<number | null> {
    const text = await this.string();
    return text === null ? null : Number(text);
  }

  /** The value as it is; `null` when there is no such key. */
  async buffer(): Promise<Buffer | null> {
    const quick = this.#quick(true);
    if (quick) {
      try {
        return (await quick) as Buffer | null;
      } catch (failure) {
        throw fromFailure(failure, 'KV.range');
      }
    }
    const { kvs } = await this.range();
    return kvs[0] === undefined ? null : kvs[0].value;
  }

  /** Whether the key exists. The value is not fetched. */
  async exists(): Promise<boolean> {
    const { count } = await this.range({ keys_only: true });
    return count !== '0';
  }

  /** etcd's whole answer. The key in it keeps the prefix of the namespace, unlike in `getAll().exec()`. */
  exec(): Promise<IRangeResponse> {
    return this.range();
  }

  /** The value by the shortest way; `undefined` when there is none for this read. */
  #quick(wantsBytes: boolean): Promise<string | Buffer | null> | undefined {
    if (this.filters !== undefined || this.caller.quickGet === undefined) return undefined;
    const plain = this.plain(this.#key);
    return plain && this.caller.quickGet(plain, wantsBytes);
  }

  /** @internal */
  protected override send(): Promise<string | null> {
    return this.string();
  }

  /** @internal */
  protected override request(form?: IRangeRequest): IRangeRequest {
    const key = this.keyspace.key(this.#key);
    if (key.length === 0) throw keyMissing('get() needs a key that is not empty');
    return { key, limit: 1, ...this.filters, ...form };
  }
}
