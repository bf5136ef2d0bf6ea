/**
 * Breakers before the calls of a gRPC client: an interceptor of `@grpc/grpc-js` 1.10 and later. It needs no module of it, for
 * what stands between a client and its call is told by shape.
 */

import { invalid, kindOf } from '../common/shape.js';
import type { Breaker, Permit } from './breaker.js';

/** What is needed of the metadata of a call. */
type Metadata = object;

interface Status {
  readonly code: number;
  readonly details: string;
  readonly metadata: Metadata;
}

interface Listener {
  onReceiveMetadata?(metadata: Metadata): void;
  onReceiveMessage?(message: unknown): void;
  onReceiveStatus?(status: Status): void;
}

/** A call of grpc-js, between a client and the channel. */
interface Call {
  cancelWithStatus(status: number, details: string): void;
  getPeer(): string;
  getAuthContext?(): unknown;
  start(metadata: Metadata, listener?: Listener): void;
  sendMessageWithContext(context: unknown, message: unknown): void;
  sendMessage(message: unknown): void;
  startRead(): void;
  halfClose(): void;
}

/** What grpc-js gives an interceptor of the options of a call. */
interface CallOptions {
  readonly method_definition?: { readonly path?: string };
}

/** An interceptor of grpc-js, for `interceptors` of a client or a call. */
// biome-ignore lint/suspicious/noExplicitAny: grpc-js has types of its own in each version
export type GrpcInterceptor = (options: any, nextCall: (options: any) => any) => any;

/** How a call is named: `grpc:<service>:<method>`, by the name of a service, or by the path of the method. */
export type GrpcName = string | ((path: string) => string);

const UNAVAILABLE = 14;
const CANCELLED = 1;

/** @param breakerOf the breaker of a name. */
export function grpcInterceptor(breakerOf: (name: string) => Breaker, name: GrpcName | undefined): GrpcInterceptor {
  if (name !== undefined && typeof name !== 'string' && typeof name !== 'function') {
    throw invalid('name', `expected a string or a function, got ${kindOf(name)}`);
  }
  const nameOf = typeof name === 'function' ? name : (path: string) => ofPath(path, name);
  return (options: CallOptions, nextCall: (options: CallOptions) => Call) =>
    new GuardedCall(breakerOf(nameOf(options.method_definition?.path ?? '')), () => nextCall(options));
}

/** `/orders.v1.Orders/Get` is `grpc:orders.v1.Orders:Get`. */
function ofPath(path: string, service: string | undefined): string {
  const at = path.lastIndexOf('/');
  return `grpc:${service ?? path.slice(path.startsWith('/') ? 1 : 0, at)}:${path.slice(at + 1)}`;
}

/**
 * A call that is made when the breaker lets it. One that it refuses ends with `UNAVAILABLE`, without a call below: nothing of
 * it, such as its deadline, is left.
 */
class GuardedCall implements Call {
  readonly #breaker: Breaker;
  readonly #make: () => Call;
  #call: Call | undefined;

  constructor(breaker: Breaker, make: () => Call) {
    this.#breaker = breaker;
    this.#make = make;
  }

  start(metadata: Metadata, listener?: Listener): void {
    let permit: Permit;
    try {
      permit = this.#breaker.acquire();
    } catch (error) {
      const { message } = error as Error;
      const none = new (metadata.constructor as new () => Metadata)();
      queueMicrotask(() => listener?.onReceiveStatus?.({ code: UNAVAILABLE, details: message, metadata: none }));
      return;
    }
    try {
      this.#begin(metadata, listener, permit);
    } catch (error) {
      permit.done({ aborted: true }); // nobody was called
      throw error;
    }
  }

  #begin(metadata: Metadata, listener: Listener | undefined, permit: Permit): void {
    this.#call = this.#make();
    this.#call.start(metadata, {
      onReceiveMetadata: (received) => listener?.onReceiveMetadata?.(received),
      onReceiveMessage: (message) => listener?.onReceiveMessage?.(message),
      onReceiveStatus: (status) => {
        const { code, details } = status;
        const error = code === 0 ? undefined : Object.assign(new Error(details), { code });
        permit.done({ error, aborted: code === CANCELLED });
        listener?.onReceiveStatus?.(status);
      },
    });
  }

  cancelWithStatus(status: number, details: string): void {
    this.#call?.cancelWithStatus(status, details);
  }

  getPeer(): string {
    return this.#call?.getPeer() ?? '';
  }

  getAuthContext(): unknown {
    return this.#call?.getAuthContext?.() ?? null;
  }

  sendMessageWithContext(context: unknown, message: unknown): void {
    this.#call?.sendMessageWithContext(context, message);
  }

  sendMessage(message: unknown): void {
    this.#call?.sendMessage(message);
  }

  startRead(): void {
    this.#call?.startRead();
  }

  halfClose(): void {
    this.#call?.halfClose();
  }
}
