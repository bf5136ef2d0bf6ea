/** What the clients of the services call through: options, contexts, streams. */

import { Emitter } from '../../common/emitter.js';
import type { Nothing, Requests, Stream } from './services.js';

/** Options of one call. */
export interface CallOptions {
  /** When the call is given up, as a date or in milliseconds since 1970. The earlier of it and `timeoutMs` counts. */
  deadline?: Date | number | undefined;
  /** How long the call may take, retries included, in milliseconds; 0 for no limit. Default: that of the client. */
  timeoutMs?: number | undefined;
  /** Gives the call up when it fires. */
  signal?: AbortSignal | undefined;
  /** Without effect, as all below: they steer the inside of grpc-js, and are accepted for programs that set them. */
  host?: string | undefined;
  parent?: unknown;
  propagate_flags?: number;
  credentials?: unknown;
  interceptors?: unknown[] | undefined;
  interceptor_providers?: unknown[];
}

/** Options for every call, or what makes them, called once for each attempt. What a call itself sets goes before. */
export type CallOptionsFactory = CallOptions | ((context: CallContext) => CallOptions);

/** A call under way, for `defaultCallOptions`. */
export type CallContext = {
  [S in keyof Requests]: {
    [M in keyof Requests[S]]: Requests[S][M] extends Stream
      ? { service: S; method: M; isStream: true }
      : Requests[S][M] extends Nothing
        ? { service: S; method: M; isStream: false }
        : { service: S; method: M; isStream: false; params: Requests[S][M] };
  }[keyof Requests[S]];
}[keyof Requests];

/** What the clients call through: a connection, or what `mock()` puts in its place. */
export interface ICallable<T> {
  /** One call with one answer. */
  exec<T>(service: keyof Requests, method: string, params: unknown, options?: CallOptions): Promise<T>;
  /** Runs `fn` with the means to open a stream of a service: `client` has its streaming methods. */
  withConnection<R>(
    service: keyof Requests,
    fn: (args: { resource: T; client: object; metadata: object }) => Promise<R> | R,
  ): Promise<R>;
  /** Says that a stream of `resource` failed. */
  markFailed(resource: T, error: Error): void;
  /** The options of every call. */
  readonly callOptionsFactory: CallOptionsFactory | undefined;
}

/** How a stream ended, in the terms of grpc. */
export interface StreamStatus {
  /** The number of the status; 0 is success. */
  code: number;
  details: string;
  metadata?: unknown;
}

/** What a stream answers. */
export interface IResponseStream<T> {
  on(event: 'data', fn: (item: T) => void): this;
  /** No answer follows. */
  on(event: 'end', fn: () => void): this;
  /** After `end` or `error`. */
  on(event: 'status', fn: (status: StreamStatus) => void): this;
  /** The stream failed; no answer follows. */
  on(event: 'error', fn: (err: Error) => void): this;
}

/** What a stream takes. */
export interface IRequestStream<T> {
  write(item: T): void;
  /** No request follows; answers may. */
  end(): void;
  /** Ends the stream at once. It then emits `error`, a `GRPCCancelledError`. */
  cancel(): void;
}

/** A stream that takes requests and answers. */
export interface IDuplexStream<T, R> extends IRequestStream<T>, IResponseStream<R> {}

/** The streaming methods of a `client` that `withConnection` hands out. */
type Streams = Record<string, (...args: unknown[]) => unknown>;

/**
 * Opens a stream of a service for a client. `request` is that of a method that takes one only.
 *
 * @internal
 */
export async function openStream<R extends { on(event: 'error', fn: (error: Error) => void): unknown }>(
  callable: ICallable<unknown>,
  context: CallContext & { isStream: true },
  options: CallOptions | undefined,
  request?: object,
): Promise<R> {
  return callable.withConnection(context.service, async ({ resource, client, metadata }) => {
    const resolved = resolveCallOptions(options, callable.callOptionsFactory, context);
    const open = (client as Streams)[context.method] as (...args: unknown[]) => R | Promise<R>;
    const stream = await open.call(client, ...(request ? [request] : []), metadata, resolved);
    // Of a mock: a failure without a listener of the program must not end the process. Our own streams keep it.
    if (!(stream instanceof Emitter)) stream.on('error', (error) => callable.markFailed(resource, error));
    return stream;
  });
}

/**
 * The options of one attempt: those of the call over those of the client.
 *
 * @internal
 */
export function resolveCallOptions(
  options: CallOptions | undefined,
  defaults: CallOptionsFactory | undefined,
  context: CallContext,
): CallOptions | undefined {
  if (defaults === undefined) return options;
  const resolved = typeof defaults === 'function' ? defaults(context) : defaults;
  return options ? { ...resolved, ...options } : resolved;
}
