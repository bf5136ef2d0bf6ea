/** What all request builders share: they are sent when awaited, and can be operations of a transaction. */

import type { CallOptions } from '../rpc/calls.js';
import type { IRangeRequest, IRequestOp, IResponseHeader } from '../rpc/messages.js';
import type { PlainRequest } from '../transport/call.js';
import type { Chunk } from '../transport/chunk.js';
import type { Keyspace } from './keyspace.js';

/** What can be an operation of a transaction: every builder of `get`, `getAll`, `put` and `delete`. */
export interface IOperation {
  /** The operation as etcd takes it, with the keys of its namespace. Sends nothing. */
  op(): Promise<IRequestOp>;
}

/**
 * Who sends requests of the service KV: the connection of a client, an attempt of a software transaction, a lease that
 * looks at the answers of its puts.
 *
 * @internal
 */
export interface Caller {
  exec<T>(service: 'KV', method: string, params: unknown, options?: CallOptions): Promise<T>;
  /**
   * The value of one key by the shortest way; `undefined` when the read has to go by `exec`. Rejects with what the native
   * side reported.
   */
  quickGet?(plain: PlainRequest, wantsBytes: boolean): Promise<string | Buffer | null> | undefined;
  /** Writes one key by the shortest way; otherwise like `quickGet`. */
  quickPut?(plain: PlainRequest, value: string | Buffer): Promise<IResponseHeader> | undefined;
  /** Hands the key-values of a range to `each`, which must not throw, by the shortest way; otherwise like `quickGet`. */
  quickList?(
    request: IRangeRequest,
    options: CallOptions | undefined,
    each: (chunk: Chunk) => void,
  ): Promise<void> | undefined;
}

/**
 * A request that is sent when it is awaited. Every `await`, `then()` and `catch()` sends it anew: keep the promise that
 * `exec()` gives to look at one answer several times. There is no `finally()`.
 */
export abstract class LazyRequest<T> implements PromiseLike<T> {
  /** @internal */
  protected readonly caller: Caller;
  /** @internal */
  protected readonly keyspace: Keyspace;
  /** @internal */
  protected callOptions: CallOptions | undefined;

  /** @internal */
  constructor(caller: Caller, keyspace: Keyspace) {
    this.caller = caller;
    this.keyspace = keyspace;
  }

  /**
   * Options of this request: `timeoutMs`, `deadline`, `signal`. They take the place of earlier ones; `undefined` takes
   * them away. They don't count for a request that is an operation of a transaction, which has its own.
   */
  options(options: CallOptions | undefined): this {
    this.callOptions = options;
    return this;
  }

  /** Sends the request. */
  // biome-ignore lint/suspicious/noThenProperty: what makes it awaitable
  then<R = T, V = never>(
    onFulfilled?: ((value: T) => R | PromiseLike<R>) | null,
    // biome-ignore lint/suspicious/noExplicitAny: as Promise has it, so that handlers may name their type
    onRejected?: ((error: any) => V | PromiseLike<V>) | null,
  ): Promise<R | V> {
    return this.send().then(onFulfilled, onRejected);
  }

  /** Sends the request. */
  // biome-ignore lint/suspicious/noExplicitAny: as above
  catch<R = never>(onRejected?: ((error: any) => R | PromiseLike<R>) | null): Promise<T | R> {
    return this.send().catch(onRejected);
  }

  /**
   * The request for a key alone; `undefined` when the key is empty, which `exec` refuses.
   *
   * @internal
   */
  protected plain(key: string | Buffer): PlainRequest | undefined {
    const { prefix } = this.keyspace;
    return key.length + prefix.length === 0 ? undefined : { prefix, key, options: this.callOptions };
  }

  /**
   * What awaiting the builder means.
   *
   * @internal
   */
  protected abstract send(): Promise<T>;
}
