/** One native client, shared by an `Etcd3` and its namespaces: every call and everything that lives longer goes through it. */

import { onAbort } from '../../common/abort.js';
import type { Borrower, Lender } from '../../common/lending.js';
import type { LogLevel } from '../../common/logger.js';
import { describe } from '../../common/logger.js';
import { MAX_MS } from '../../common/shape.js';
import { Share, took } from '../../common/turns.js';
import type { ClientHandle, EtcdHandle, NativeEtcdClientOptions, NativeEvent, NativeOptions } from '../../native.js';
import { native } from '../../native.js';
import { plainError } from '../check.js';
import { ClientClosedError, fromFailure } from '../errors.js';
import {
  type CallContext,
  type CallOptions,
  type CallOptionsFactory,
  type ICallable,
  resolveCallOptions,
} from '../rpc/calls.js';
import { decode, encode } from '../rpc/codec.js';
import type { IResponseHeader } from '../rpc/messages.js';
import { METHODS, methodOf, type RpcMethod, readsOnly, takesLong } from '../rpc/methods.js';
import { type Call, GROUPS, NEEDS_LEADER, type PlainRequest, POINT, READS } from './call.js';
import type { Chunk } from './chunk.js';
import { abortFailure, CLOSED, expired, tooLarge } from './failure.js';
import { FaultHandling } from './fault-handling.js';
import { type IOptions, type SettledOptions, settleOptions, timeLeft } from './options.js';
import { Pages } from './pages.js';
import { RpcStream } from './stream.js';

/** Something that goes on by itself, until it is ended. */
export interface Live {
  /** Ends it; what has to be waited for is awaited, and bounded in time by whoever writes it. Must not throw. */
  end(): void | Promise<void>;
}

/** The numbers that the native side has for methods, by our place in `METHODS`. */
let numbers: readonly number[] | undefined;

function numberOf(method: RpcMethod): number {
  numbers ??= (() => {
    const paths = native().etcdMethods();
    return METHODS.map(({ path }) => paths.indexOf(path));
  })();
  return numbers[method.index] as number;
}

const RANGE = methodOf('KV', 'range') as RpcMethod;
const PUT = methodOf('KV', 'put') as RpcMethod;

/** @internal */
export class Connection implements ICallable<unknown>, Lender {
  /** Private, so that a program that prints its client does not print its password. */
  readonly #options: SettledOptions;
  readonly callOptionsFactory: CallOptionsFactory | undefined;

  readonly #faults: FaultHandling;
  #handle: EtcdHandle | undefined;
  #pages: Pages | undefined;
  #mock: Partial<ICallable<unknown>> | undefined;
  #closing: Promise<void> | undefined;

  readonly #receivers = new Map<number, (event: NativeEvent) => void>();
  #lastId = 0;
  readonly #live = new Set<Live>();
  readonly #borrowers = new Set<Borrower>();
  #wanted = true;
  #busy = false;
  /** Calls under way that don't go through the pages. */
  #working = 0;
  #alive = false;
  readonly #share = new Share((most) => this.#events(most));

  /** Checks the options. Does no I/O: the native client is made at the first use. */
  constructor(options: IOptions) {
    this.#options = settleOptions(options);
    const { hostNames, faultHandling, defaultCallOptions } = this.#options;
    this.callOptionsFactory = defaultCallOptions;
    this.#faults = new FaultHandling(hostNames, faultHandling, defaultCallOptions);
  }

  get options(): SettledOptions {
    return this.#options;
  }

  /** Whether `close()` was called. */
  get closed(): boolean {
    return this.#closing !== undefined;
  }

  /** Whether calls go to a mock. */
  get mocked(): boolean {
    return this.#mock !== undefined;
  }

  /** The addon's side of this client. */
  get native(): EtcdHandle {
    if (this.closed) throw new ClientClosedError('client');
    return this.#open();
  }

  // --- calls

  /** One call. What it rejects with is a typed error whose stack shows the caller. */
  async exec<T>(service: CallContext['service'], name: string, params: unknown, options?: CallOptions): Promise<T> {
    const ended = this.#options.observe?.begin({ service, method: name });
    if (!ended) return await this.#exec<T>(service, name, params, options);
    try {
      const answer = await this.#exec<T>(service, name, params, options);
      ended();
      return answer;
    } catch (error) {
      ended(error as Error);
      throw error;
    }
  }

  async #exec<T>(service: CallContext['service'], name: string, params: unknown, options?: CallOptions): Promise<T> {
    const mock = this.#mock;
    if (mock) return (await (mock.exec as ICallable<unknown>['exec'])(service, name, params)) as T;
    const method = methodOf(service, name);
    if (!method) throw plainError(`etcd has no method ${service}.${name}`);
    if (this.closed) throw new ClientClosedError(service);
    const body = encode(method.request, params ?? {}); // wrong arguments are refused before anything is sent
    if (body.length > this.#options.maxRequestBytes) throw fromFailure(tooLarge(body.length), `${service}.${name}`);
    try {
      const context = { service, method: name, params, isStream: false } as unknown as CallContext;
      const answer = this.#faults.active
        ? await this.#faults.exec(context, options, (host, resolved) =>
            this.#attempt(method, params, body, resolved, host),
          )
        : await this.#raw(method, params, body, resolveCallOptions(options, this.callOptionsFactory, context), -1);
      return decode(method.response, answer) as T;
    } catch (failure) {
      throw errorOf(failure, method, params);
    }
  }

  /** One attempt for a policy, which decides by the class of the error. */
  async #attempt(
    method: RpcMethod,
    params: unknown,
    body: Uint8Array,
    options: CallOptions | undefined,
    host: number,
  ): Promise<Buffer> {
    try {
      return await this.#raw(method, params, body, options, host);
    } catch (failure) {
      throw errorOf(failure, method, params);
    }
  }

  /** Whether the quick paths may be taken: nothing stands between the builders and the native side. */
  get #isPlain(): boolean {
    return !this.#mock && !this.#faults.active && !this.#options.observe && !this.closed;
  }

  /** A plain read of one key, or `undefined` when it has to go by `exec`. */
  quickGet(plain: PlainRequest, wantsBytes: boolean): Promise<string | Buffer | null> | undefined {
    if (!this.#isPlain) return undefined;
    const flags = READS | POINT | NEEDS_LEADER | GROUPS;
    const call = this.#quickCall(RANGE, flags, plain.options);
    return call && this.#calls().get(call, plain.prefix, plain.key, wantsBytes);
  }

  /** A plain write of one key, or `undefined` when it has to go by `exec`. */
  quickPut(plain: PlainRequest, value: string | Buffer): Promise<IResponseHeader> | undefined {
    if (!this.#isPlain) return undefined;
    // By its longest, for what it is in bytes is not known here: `exec` decides.
    if ((plain.prefix.length + plain.key.length + value.length) * 3 > this.options.maxRequestBytes - 16)
      return undefined;
    const call = this.#quickCall(PUT, POINT | NEEDS_LEADER, plain.options);
    return call && this.#calls().put(call, plain.prefix, plain.key, value);
  }

  /** A range whose key-values come in chunks, or `undefined` when it has to go by `exec`. */
  quickList(
    request: { serializable?: boolean } & object,
    options: CallOptions | undefined,
    each: (chunk: Chunk) => void,
  ): Promise<void> | undefined {
    if (!this.#isPlain) return undefined;
    const body = encode(RANGE.request, request);
    if (body.length > this.options.maxRequestBytes) return undefined;
    const call = this.#quickCall(RANGE, READS | (request.serializable ? 0 : NEEDS_LEADER), options);
    return call && this.#calls().list(call, body, each);
  }

  /** `undefined` when its time is over before it begins: `exec` says so. */
  #quickCall(method: RpcMethod, flags: number, options: CallOptions | undefined): Call | undefined {
    const given = options ?? (this.callOptionsFactory as CallOptions | undefined);
    if (given === undefined) {
      return { method: numberOf(method), flags, timeoutMs: this.#options.timeoutMs, member: -1, signal: undefined };
    }
    const resolved = resolveCallOptions(options, this.callOptionsFactory, undefined as never);
    const left = timeLeft(resolved, this.#options.timeoutMs, 'options');
    if (left !== undefined && left <= 0) return undefined;
    return { method: numberOf(method), flags, timeoutMs: left ?? 0, member: -1, signal: resolved?.signal };
  }

  #raw(
    method: RpcMethod,
    params: unknown,
    body: Uint8Array,
    options: CallOptions | undefined,
    member: number,
  ): Promise<Buffer> {
    const left = timeLeft(options, takesLong(method, params) ? 0 : this.#options.timeoutMs, 'options');
    if (left !== undefined && left <= 0) return Promise.reject(expired());
    const reads = readsOnly(method, params);
    let flags = reads ? READS : 0;
    if (needsLeader(method, params)) flags |= NEEDS_LEADER;
    if (method === PUT || method.name === 'txn') flags |= POINT;
    const call: Call = { method: numberOf(method), flags, timeoutMs: left ?? 0, member, signal: options?.signal };
    return this.#calls().raw(call, body);
  }

  // --- streams

  /** Runs `fn` with the means to open a stream: `client` has the streaming methods of the service. */
  async withConnection<R>(
    service: CallContext['service'],
    fn: (args: { resource: unknown; client: object; metadata: object }) => Promise<R> | R,
  ): Promise<R> {
    const mock = this.#mock;
    if (mock) return await (mock.withConnection as ICallable<unknown>['withConnection'])(service, fn);
    if (this.closed) throw new ClientClosedError(service);
    const client: Record<string, (...args: unknown[]) => RpcStream> = {};
    for (const method of METHODS) {
      if (method.service !== service || method.kind === 'unary') continue;
      client[method.name] = (...args: unknown[]) => {
        const options = args.at(-1) as CallOptions | undefined;
        if (method.kind === 'both') return this.#stream(method, undefined, options);
        // A stream that takes one request takes it here, before anything is opened: it may be wrong.
        const request = encode(method.request, args[0]);
        const stream = this.#stream(method, args[0], options);
        stream.send(request);
        return stream;
      };
    }
    return await fn({ resource: this, client, metadata: {} });
  }

  /** A stream that failed has failed alone: nothing else of the connection is touched. */
  markFailed(): void {}

  #stream(method: RpcMethod, params: unknown, options: CallOptions | undefined): RpcStream {
    const { signal } = options ?? {};
    const left = timeLeft(options, 0, 'options');
    // Refused at once, for an error would be emitted before anybody could listen.
    const refused = signal?.aborted ? abortFailure(signal, false) : left !== undefined && left <= 0 && expired();
    if (refused) throw fromFailure(refused, `${method.service}.${method.name}`);
    let stream: RpcStream;
    const id = this.listen(() => stream.notify());
    const open = left ?? (this.#options.timeoutMs || MAX_MS);
    const handle = native().StreamHandle.open(
      this.native,
      id,
      numberOf(method),
      method.kind === 'answers',
      method.service === 'Watch' || needsLeader(method, params),
      open,
    );
    const release = this.hold({ end: () => stream.cancel() });
    const unlisten = signal && onAbort(signal, () => stream.cancel());
    stream = new RpcStream(method, handle, () => {
      this.unlisten(id);
      unlisten?.();
      release();
    });
    return stream;
  }

  // --- the mock

  mock<T extends Partial<ICallable<unknown>>>(callable: T): T {
    this.#mock = callable;
    return callable;
  }

  unmock(): void {
    this.#mock = undefined;
  }

  // --- what lives longer than a call

  /** Routes native events: `receive` gets those of the id that this gives. */
  listen(receive: (event: NativeEvent) => void): number {
    const id = ++this.#lastId;
    this.#receivers.set(id, receive);
    return id;
  }

  unlisten(id: number): void {
    this.#receivers.delete(id);
  }

  /** While it is held, `thing` keeps the process alive, and `close()` ends it. Gives what lets it go. */
  hold(thing: Live): () => void {
    this.#live.add(thing);
    this.#keepAlive();
    return () => {
      if (this.#live.delete(thing)) this.#keepAlive();
    };
  }

  /** A registry on this connection: the native side of one. It keeps the process alive by itself. */
  openRegistry(options: NativeOptions, wake: () => void): ClientHandle {
    return this.native.openRegistry(options, wake);
  }

  lendTo(borrower: Borrower): () => void {
    this.#borrowers.add(borrower);
    return () => this.#borrowers.delete(borrower);
  }

  /** A call is under way that doesn't go through the pages: it keeps the process alive, as any. Gives what ends it. */
  work(): () => void {
    this.#working += 1;
    this.#keepAlive();
    return () => {
      this.#working -= 1;
      this.#keepAlive();
    };
  }

  ref(): void {
    this.#wanted = true;
    this.#keepAlive();
  }

  unref(): void {
    this.#wanted = false;
    this.#keepAlive();
  }

  /** What the native side has counted so far. */
  metrics(): ReturnType<EtcdHandle['metrics']> {
    return this.#open().metrics();
  }

  /** Ends everything; see `Etcd3.close()`. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await undefined; // `closed` is true from here on, for what is ended below
    const ends = [
      ...[...this.#borrowers].map((borrower) => () => borrower.lenderCloses()),
      ...[...this.#live].map((thing) => () => thing.end()),
    ];
    const ending = ends.map(async (end) => {
      try {
        await end();
      } catch (error) {
        this.#options.log.write('error', `something did not end well: ${describe(error)}`);
      }
    });
    this.#pages?.close(() => CLOSED);
    await Promise.all(ending);
    this.#live.clear();
    await this.#handle?.close().catch(() => {}); // it has no reason to fail, and nobody to tell it to
    this.#keepAlive();
  }

  #open(): EtcdHandle {
    if (this.#handle) return this.#handle;
    // Weakly: the native side holds these functions to the end of the thread.
    const self = new WeakRef(this);
    this.#handle = native().EtcdHandle.open(
      nativeOptions(this.#options, this.#tokenTime()),
      () => {
        const connection = self.deref();
        if (connection) connection.#pages?.drain();
      },
      () => {
        const connection = self.deref();
        if (connection) connection.#share.wake();
      },
    );
    return this.#handle;
  }

  /** How long the exchange of the password for a token may take: known now, or asked of the program for each. */
  #tokenTime(): TokenTime {
    const { auth, defaultCallOptions: defaults } = this.#options;
    const none: TokenTime = { tokenTimeoutMs: null, tokenDeadlineMs: null, tokenListener: null };
    if (auth?.callOptions === undefined) return none;
    const { username: name, password, callOptions } = auth;
    const context: CallContext = {
      service: 'Auth',
      method: 'authenticate',
      isStream: false,
      params: { name, password },
    };
    const timeOf = (pick: (resolved: CallOptions) => CallOptions) => {
      const own = resolveCallOptions(undefined, callOptions, context);
      const left = timeLeft(pick(resolveCallOptions(own, defaults, context) ?? {}), 0, 'options.auth.callOptions');
      return left === undefined ? null : Math.max(0, left);
    };
    if (typeof callOptions !== 'function' && typeof defaults !== 'function') {
      const left = timeOf(({ deadline }) => ({ deadline }));
      const tokenDeadlineMs = left === null ? null : Date.now() + left;
      return { ...none, tokenDeadlineMs, tokenTimeoutMs: timeOf(({ timeoutMs }) => ({ timeoutMs })) };
    }
    const tokenListener = this.listen(({ kind, text }) => {
      if (kind !== 'tokenTime') return;
      let ms: number | null = null;
      let failure: string | null = null;
      try {
        ms = timeOf((resolved) => resolved);
      } catch (error) {
        failure = `options.auth.callOptions failed: ${(error as Error | null)?.message ?? String(error)}`;
      }
      this.#handle?.tokenTime(Number(text), ms, failure);
    });
    return { ...none, tokenListener };
  }

  #calls(): Pages {
    this.#pages ??= new Pages(
      this.#open(),
      (busy) => {
        this.#busy = busy;
        this.#keepAlive();
      },
      this.#options.maxInFlight,
    );
    return this.#pages;
  }

  /** Events that have come, `most` of them; says whether there may be more. */
  #events(most: number): boolean {
    const events = this.#handle?.events(most) ?? [];
    took(events.length);
    for (const event of events) {
      try {
        if (event.kind === 'log') this.#options.log.write(event.level as LogLevel, event.text ?? '');
        else this.#receivers.get(event.id)?.(event);
      } catch (error) {
        // A listener of the program threw. The other events are not to be lost with it, and it is not ours to swallow.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
    return events.length === most;
  }

  #keepAlive(): void {
    const busy = this.#busy || this.#working > 0;
    const inUse = busy || this.#live.size > 0;
    if (inUse) IN_USE.add(this);
    else IN_USE.delete(this);
    const alive = busy || (this.#wanted && inUse);
    if (alive === this.#alive) return;
    this.#alive = alive;
    if (alive) this.#open().ref();
    else this.#handle?.unref();
  }
}

type TokenTime = Pick<NativeEtcdClientOptions, 'tokenTimeoutMs' | 'tokenDeadlineMs' | 'tokenListener'>;

function nativeOptions(options: SettledOptions, tokenTime: TokenTime): NativeEtcdClientOptions {
  return {
    hosts: [...options.hosts],
    username: options.auth?.username ?? null,
    password: options.auth?.password ?? null,
    ...tokenTime,
    tls: options.tls,
    connectTimeoutMs: options.dialTimeoutMs,
    timeoutMs: OWN_MS,
    keepAliveMs: options.keepAliveMs,
    keepAliveTimeoutMs: options.keepAliveTimeoutMs,
    keepAliveWhileIdle: options.keepAliveWhileIdle,
    maxMessageBytes: options.maxMessageBytes,
    groupGets: options.groupGets,
    authority: options.authority,
    userAgent: options.userAgent,
    logLevel: options.log.level,
  };
}

/** Time for what the client does by itself (opening a stream, renewing a token), in milliseconds. */
const OWN_MS = 10_000;

/**
 * Connections with a call under way or with something that lives: the native side knows them weakly, and a program may
 * have let go of its client while it awaits an answer.
 */
const IN_USE = new Set<Connection>();

/** What a failed call rejects with. What a policy, a factory of options or a getter of the program threw is left as it is. */
function errorOf(failure: unknown, { service, name }: RpcMethod, params: unknown): unknown {
  const isForeign = failure instanceof Error && !('retryable' in failure);
  return isForeign ? failure : fromFailure(failure, `${service}.${name}`, leaseOf(params));
}

/** Whether a member that has no leader is to refuse at once: not where a member answers by itself. */
function needsLeader({ service }: RpcMethod, params: unknown): boolean {
  if (service === 'KV') return !(params as { serializable?: boolean } | undefined)?.serializable;
  return service === 'Lease';
}

/** The lease that a request is about, for the message of its error. */
function leaseOf(params: unknown): string | undefined {
  const { ID, lease } = (params ?? {}) as { ID?: unknown; lease?: unknown };
  const id = ID ?? lease;
  return id === undefined || id === null ? undefined : String(id);
}
