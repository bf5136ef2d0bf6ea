/** A stream of a service as its low-level client hands it out. */

import { Emitter } from '../../common/emitter.js';
import type { Failure } from '../../common/failure.js';
import { Share, took } from '../../common/turns.js';
import type { StreamHandle } from '../../native.js';
import { fromFailure, statusNumber } from '../errors.js';
import type { IDuplexStream, StreamStatus } from '../rpc/calls.js';
import { decode, encode } from '../rpc/codec.js';
import type { RpcMethod } from '../rpc/methods.js';

/**
 * A stream in the terms of etcd's own messages. It opens with the first `write()` (with its one request: `snapshot`, `rangeStream`), on whichever
 * member takes it, with a token that is renewed if need be. It is not opened again when it breaks: whoever speaks the
 * protocol knows where to go on.
 *
 * Events: `data` for each answer; then `end`, or `error` with a typed error; last `status`. Answers, and the end behind
 * them, wait for the first listener of `data`; other events for their own first one. A failure that nobody listens to harms
 * nobody.
 *
 * @internal
 */
export class RpcStream extends Emitter implements IDuplexStream<unknown, unknown> {
  readonly #method: RpcMethod;
  readonly #handle: StreamHandle;
  readonly #release: () => void;
  readonly #share = new Share((most) => this.#read(most));
  #over = false;
  /** Somebody listens to the answers, or has. */
  #flows = false;

  constructor(method: RpcMethod, handle: StreamHandle, release: () => void) {
    super();
    this.#method = method;
    this.#handle = handle;
    this.#release = release;
  }

  /** Sends a request. One that can't be encoded throws; after the end it is dropped. */
  write(item: unknown): void {
    this.send(encode(this.#method.request, item));
  }

  /** Sends a request in bytes. */
  send(body: Uint8Array): void {
    if (this.#over) return;
    if (!this.#handle.write(body)) {
      // Ended by the program, or it writes faster than etcd reads for thousands of requests.
      this.#finish({ code: 'ERR_ABORTED', message: 'too many requests wait to be sent', grpcCode: 8 });
    }
  }

  /** No request follows. */
  end(): void {
    this.#handle.end();
  }

  /** Ends the stream at once; `error` then says that it was cancelled. */
  cancel(): void {
    if (this.#over) return;
    this.#finish({ code: 'ERR_ABORTED', message: 'Cancelled on client', details: 'Cancelled on client' });
  }

  /** @internal */
  protected override listens(event: string | symbol): void {
    if (event !== 'data' || this.#flows) return;
    this.#flows = true;
    // In a turn of its own: who has just begun to listen may add more.
    queueMicrotask(() => this.notify());
  }

  /** The native side has something. */
  notify(): void {
    this.#share.wake();
  }

  /** Takes answers, once somebody wants them; says whether there may be more. */
  #read(most: number): boolean {
    if (this.#over) return false;
    const messages = this.#flows ? this.#handle.take(most) : [];
    took(messages.length);
    for (const message of messages) {
      if (this.#over) return false; // a listener has cancelled it
      this.#tell(message);
    }
    if (messages.length > 0) return !this.#over;
    const end = this.#handle.over();
    if (end) this.#finish(end.failure ?? undefined);
    return false;
  }

  #tell(message: Uint8Array): void {
    let answer: unknown;
    try {
      answer = decode(this.#method.response, message);
    } catch (cause) {
      this.#finish({ code: 'ERR_INTERNAL', message: 'an answer of etcd cannot be read', cause });
      return;
    }
    this.deliver('data', answer);
  }

  #finish(failure: Failure | undefined): void {
    this.#over = true;
    this.#handle.cancel();
    this.#release();
    const status: StreamStatus = {
      code: failure ? statusNumber(failure) : 0,
      details: failure ? (failure.details ?? '') : 'OK',
    };
    // In a turn of its own: a program that cancels is not called from within.
    queueMicrotask(() => {
      if (failure) this.tell('error', fromFailure(failure, `${this.#method.service}.${this.#method.name}`));
      else this.tell('end');
      this.tell('status', status);
    });
  }
}
