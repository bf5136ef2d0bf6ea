/** Writing one key. */

import { InvalidArgumentError } from '../../errors.js';
import { type Bytes, bytes, int64, valueBytes } from '../check.js';
import { fromFailure, keyMissing } from '../errors.js';
import type { IKeyValue, IPutRequest, IPutResponse, IRequestOp, IResponseHeader } from '../rpc/messages.js';
import { dueBy, waited } from '../transport/waiting.js';
import type { Keyspace } from './keyspace.js';
import { type Caller, type IOperation, LazyRequest } from './request.js';

/** The id of a lease, as the calls of etcd tell it or by number. */
export type LeaseId = string | number | bigint;

/** What names a lease: its id, the promise of one, or a `Lease`. */
export type LeaseSource = LeaseId | PromiseLike<LeaseId> | { grant(): Promise<LeaseId> };

/**
 * Writes one key. Awaiting it means `exec()`. Without `value()` the value is empty.
 *
 * A put is sent again only when it has surely not been applied. When that can't be known (the connection broke or the
 * time ran out after it was sent) it rejects, and `outcomeUnknown` of the error is true.
 */
export class PutBuilder extends LazyRequest<IPutResponse> implements IOperation {
  readonly #key: Bytes;
  #value: Bytes | undefined;
  #lease: LeaseId | PromiseLike<LeaseId> | undefined;
  #ignoreLease = false;

  /** @internal */
  constructor(caller: Caller, keyspace: Keyspace, key: Bytes) {
    super(caller, keyspace);
    this.#key = typeof key === 'string' ? key : bytes(key, 'put()');
  }

  /**
   * The value. A number is written in decimal.
   *
   * @throws InvalidArgumentError for anything else than a string, a Buffer or a number.
   */
  value(value: string | Buffer | number): this {
    this.#value = typeof value === 'string' ? value : valueBytes(value, 'put().value()');
    return this;
  }

  /**
   * The lease that the key goes with: its id, the promise of an id (awaited before the put is sent, which then rejects as
   * the promise does) or a `Lease`. 0 means none, which is the default.
   */
  lease(lease: LeaseSource): this {
    let id: LeaseId | PromiseLike<LeaseId> | undefined;
    if (typeof lease === 'object' && lease !== null) {
      id = 'grant' in lease ? lease.grant() : lease;
      if (typeof id?.then !== 'function') throw badLease();
      // It is looked at when the put is sent, if ever: until then a failure is nobody's unhandled rejection.
      id.then(undefined, () => {});
    } else if (lease) {
      id = int64(lease, 'put().lease()');
    } else if (lease !== 0 && lease !== 0n && lease !== '' && lease !== undefined && lease !== null) {
      throw badLease();
    }
    this.#lease = id;
    return this;
  }

  /** Keeps the lease that the key has. The key must exist. */
  ignoreLease(): this {
    this.#ignoreLease = true;
    return this;
  }

  /**
   * Writes, and resolves with the key as it was before, together with the header of the answer; of a new key there is
   * only the header. Its `key` keeps the prefix of the namespace.
   */
  async getPrevious(): Promise<IKeyValue & { header: IResponseHeader }> {
    const { prev_kv, header } = await this.#run({ prev_kv: true });
    return { ...prev_kv, header };
  }

  /** Raises the mod revision of the key and keeps its value. The key must exist. */
  touch(): Promise<IPutResponse> {
    return this.#run({ value: undefined, ignore_value: true });
  }

  /** Writes, and resolves with etcd's answer. */
  exec(): Promise<IPutResponse> {
    return this.#run();
  }

  /** The put as an operation of a transaction, once its lease is known. Sends nothing. Rejects when the key is empty. */
  async op(): Promise<IRequestOp> {
    return { request_put: this.#request(await this.#leaseId()) };
  }

  /** @internal */
  protected override send(): Promise<IPutResponse> {
    return this.#run();
  }

  async #run(form?: IPutRequest): Promise<IPutResponse> {
    // Without a lease nothing is awaited here, so that puts are sent in the order in which they were begun.
    if (this.#lease === undefined && !this.#ignoreLease && form === undefined) {
      const plain = this.plain(this.#key);
      const header = plain && this.caller.quickPut?.(plain, this.#value ?? '');
      if (header) {
        try {
          return { header: await header, prev_kv: null as unknown as IKeyValue };
        } catch (failure) {
          throw fromFailure(failure, 'KV.put'); // made here, so that its stack shows the caller
        }
      }
    }
    if (this.#lease === undefined) {
      return await this.caller.exec<IPutResponse>('KV', 'put', this.#request(undefined, form), this.callOptions);
    }
    const options = dueBy(this.callOptions); // the wait for the grant counts
    const lease = await waited(this.#leaseId(), options, 'KV.put');
    return await this.caller.exec<IPutResponse>('KV', 'put', this.#request(lease, form), options);
  }

  async #leaseId(): Promise<string | number | undefined> {
    return this.#lease === undefined ? undefined : int64(await this.#lease, 'put().lease()');
  }

  /** The request as etcd takes it: the only place that makes it. `form` is what one way of writing adds. */
  #request(lease: string | number | undefined, form?: IPutRequest): IPutRequest {
    const request: IPutRequest = { key: this.keyspace.key(this.#key) };
    if (request.key?.length === 0) throw keyMissing('put() needs a key that is not empty');
    if (this.#value !== undefined) request.value = bytes(this.#value, 'put().value()');
    if (lease !== undefined) request.lease = lease;
    if (this.#ignoreLease) request.ignore_lease = true;
    return form === undefined ? request : { ...request, ...form };
  }
}

function badLease(): InvalidArgumentError {
  return new InvalidArgumentError('put().lease(): expected the id of a lease, the promise of one, or a Lease');
}
