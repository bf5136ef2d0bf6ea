/** Leases: keys that go when their owner does. */

import { onAbort } from '../../common/abort.js';
import { Emitter } from '../../common/emitter.js';
import { integer, MAX_MS } from '../../common/shape.js';
import { InvalidArgumentError } from '../../errors.js';
import { type CancelHandle, type LeaseHandle, type NativeLeaseEvent, native } from '../../native.js';
import { int64 } from '../check.js';
import {
  ClientClosedError,
  type EtcdClientError,
  EtcdLeaseInvalidError,
  fromFailure,
  GRPCDeadlineExceededError,
  GRPCUnavailableError,
  leaseGone,
} from '../errors.js';
import type { Keyspace, Scope } from '../kv/keyspace.js';
import { PutBuilder } from '../kv/put.js';
import { type CallOptions, resolveCallOptions } from '../rpc/calls.js';
import { LeaseClient } from '../rpc/clients.js';
import type { ILeaseKeepAliveResponse } from '../rpc/messages.js';
import type { Connection } from '../transport/connection.js';
import { abortFailure } from '../transport/failure.js';
import { timeLeft } from '../transport/options.js';

/** How a lease stands. */
export enum LeaseState {
  /** Asked for, not yet granted. */
  Pending = 0,
  /** Granted, and its time is not over. */
  Alive = 1,
  /** Lost, revoked, released, or never granted. */
  Revoked = 2,
}

/**
 * Options of a lease. Those of a call (`timeoutMs`, `deadline`, `signal`) are for the grant. `timeoutMs` is then the
 * default for `revoke()` and `keepaliveOnce()` too.
 */
export interface ILeaseOptions extends CallOptions {
  /**
   * Whether the lease is renewed by itself. Default true. One that is not is lost at its deadline unless
   * `keepaliveOnce()` moves that.
   */
  autoKeepAlive?: boolean;
  /**
   * Revoke the lease when the JavaScript thread has been blocked for so long, in milliseconds; the lease is then lost. At
   * least 100. Default 0: a blocked thread keeps its leases, since they are renewed on another one.
   */
  stallTimeoutMs?: number;
}

/** The events of a lease. */
export interface LeaseEvents {
  lost: [error: EtcdClientError];
  keepaliveEstablished: [];
  keepaliveFired: [];
  keepaliveSucceeded: [response: ILeaseKeepAliveResponse];
  keepaliveFailed: [error: EtcdClientError];
}

/** How long the leases of a client may take to be revoked when it is closed, in milliseconds. */
const CLOSE_MS = 800;

/**
 * A lease: keys that are put under it are deleted when it ends. It is granted at once, and renewed every third of its time
 * to live, on a thread of its own: a busy or blocked JavaScript thread does not lose it.
 *
 * ```js
 * const lease = client.lease(10);
 * lease.once('lost', (error) => console.error('this program is no longer listed', error));
 * await lease.put(`hosts/${hostname()}`).value('up');
 * ```
 *
 * `lost` comes at most once: when the grant fails, when etcd says that the lease is gone (noticed by the next renewal, so
 * within a third of its time), or when it was not renewed until its deadline, which is reckoned from the sending of the
 * last request that was answered. At that moment etcd has not yet let it go, as a rule: whoever stops then has stopped
 * before anybody else can begin. `revoked()` and `isValid()` look at the deadline themselves, and are right before the
 * event has been delivered, also after the process was suspended. A loss that nobody has heard is told to the first listener.
 *
 * It keeps the process alive until it ends, unless the client was told `unref()`. `client.close()` revokes it.
 *
 * On a client with `mock()` the grant, the revocation and puts go to the mock's `exec`; `keepaliveOnce()` goes to its
 * `withConnection`. Nothing is renewed by itself then, and there is no deadline.
 */
export class Lease extends Emitter {
  readonly #connection: Connection;
  readonly #keyspace: Keyspace;
  readonly #asked: number;
  /** For what follows the grant. */
  readonly #defaults: CallOptions;
  readonly #autoKeepAlive: boolean;
  /** None of a lease that goes to a mock, or of a closed client. */
  readonly #handle: LeaseHandle | undefined;
  readonly #grant: Promise<string>;
  #settle: { resolve(id: string): void; reject(error: Error): void } | undefined;
  #state = LeaseState.Pending;
  #id: string | undefined;
  #loss: Error | undefined;
  /** The end that `close()` of the client brought. */
  #ending: Promise<void> | undefined;
  #letGo: () => void = () => {};
  /** Revocations under way: until they are done it keeps the process alive. */
  #revoking = 0;
  #unlisten: () => void = () => {};
  #hears = false;

  /** @internal */
  constructor(
    connection: Connection,
    keyspace: Keyspace,
    ttl: number,
    options: ILeaseOptions = {},
    { attachTo, insists = false }: { attachTo?: bigint; insists?: boolean } = {},
  ) {
    super();
    if (attachTo === undefined && !(ttl >= 1)) {
      const text = `The TTL in an etcd lease must be at least 1 second. Got: ${ttl}`;
      throw Object.assign(new RangeError(text), { code: 'ERR_INVALID_ARGUMENT' as const });
    }
    const { autoKeepAlive, stallTimeoutMs: stall, ...callOptions } = options ?? {};
    const stallTimeoutMs = integer('options.stallTimeoutMs', stall, 0, { min: 100, zeroIsOff: true });
    this.#connection = connection;
    this.#keyspace = keyspace;
    this.#asked = Math.ceil(ttl);
    const { deadline: _deadline, signal: _signal, ...defaults } = callOptions;
    this.#defaults = defaults;
    this.#autoKeepAlive = autoKeepAlive !== false;
    this.#grant = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.#grant.catch(() => {}); // told by `lost`; whoever calls grant() is told as well
    if (connection.mocked) {
      this.#grantByMock(ttl, callOptions);
      return;
    }
    const { signal } = callOptions;
    try {
      if (signal?.aborted) throw abortFailure(signal, false); // before anything is sent
      const timeoutMs = this.#timeOf(callOptions, 'leaseGrant', { TTL: this.#asked });
      const id = connection.listen(() => this.#take());
      this.#unlisten = () => connection.unlisten(id);
      this.#handle = native().LeaseHandle.open(connection.native, id, {
        ttl: attachTo === undefined ? this.#asked : 0,
        lease: attachTo ?? null,
        renewsItself: this.#autoKeepAlive,
        timeoutMs,
        insists,
        stallTimeoutMs,
      });
    } catch (failure) {
      this.#unlisten();
      if (failure instanceof InvalidArgumentError) throw failure;
      // As a grant that fails: whoever is to hear of it has yet to listen.
      queueMicrotask(() => this.#refused(fromFailure(failure, 'Lease.leaseGrant')));
      return;
    }
    this.#id = this.#handle.leaseId().toString();
    this.#letGo = connection.hold({ end: () => this.#end() });
    const done = connection.work();
    this.#grant.then(done, done);
    if (signal) {
      const unlisten = onAbort(signal, () => this.#handle?.giveUp());
      this.#grant.then(unlisten, unlisten);
    }
  }

  /**
   * Takes over a lease that is there already, of this client or another one, by its id: from here it is renewed, and
   * revoked with the client, as one that was granted here. Its time to live stays as it was granted. Takes one read and
   * one renewal.
   *
   * Rejects with `EtcdLeaseInvalidError` when there is no such lease.
   */
  static async attach(namespace: Scope, id: string | number | bigint, options: ILeaseOptions = {}): Promise<Lease> {
    const { connection, keyspace } = namespace;
    const exact = BigInt(int64(id, 'Lease.attach()'));
    if (connection.mocked) throw new InvalidArgumentError('Lease.attach(): not while the client is mocked');
    const lease = new Lease(connection, keyspace, 0, options, { attachTo: exact });
    await lease.grant();
    return lease;
  }

  /** How it stands. */
  get state(): LeaseState {
    if (this.#state === LeaseState.Alive && this.#handle && !this.#handle.isAlive()) return LeaseState.Revoked;
    return this.#state;
  }

  /** Its id, also before it is granted; `0n` when a mock has not yet said one. */
  get id(): bigint {
    return BigInt(this.#id ?? 0);
  }

  /** Its time to live in seconds: what was asked for, then what etcd granted, which may be more. */
  get ttl(): number {
    return this.#handle?.ttl() ?? this.#asked;
  }

  /** Whether it is granted, not given up, and its deadline has not passed. */
  isValid(): boolean {
    return this.state === LeaseState.Alive;
  }

  /** What is left until its deadline in milliseconds; 0 when it is not valid. Of a mocked lease `Infinity`. */
  get remainingMs(): number {
    if (!this.isValid()) return 0;
    return this.#handle ? (this.#handle.expiresInMs() ?? 0) : Number.POSITIVE_INFINITY;
  }

  /**
   * Its deadline on the clock of this moment; `undefined` when it is not valid, and of a mocked lease. Reckoned by a clock
   * that is never set: look at it anew rather than keeping it.
   */
  get expiresAt(): Date | undefined {
    const left = this.remainingMs;
    return left > 0 && Number.isFinite(left) ? new Date(Date.now() + left) : undefined;
  }

  /**
   * Resolves with the id once the lease is granted, however often it is called. Nothing has to wait for it: `put()` does.
   *
   * Rejects with what `lost` carried when it could not be granted.
   */
  async grant(): Promise<string> {
    return await this.#grant;
  }

  /**
   * Ends the lease and deletes its keys. It is never sent before the grant was answered. One that is gone, or was not
   * granted, is a success. Tried again on other members. No `lost` follows.
   *
   * Rejects when etcd could not be told; the lease is renewed no more in any case, and expires.
   */
  async revoke(options: CallOptions = this.#defaults): Promise<void> {
    if (this.#ending) return await this.#ending;
    this.#close();
    this.#revoking += 1;
    try {
      await this.#revoke(options);
    } catch (failure) {
      throw this.#failure(failure, 'leaseRevoke', options);
    } finally {
      this.#revoking -= 1;
      this.#over();
    }
  }

  /** Stops renewing the lease, which ends when its time is over. `client.close()` leaves it alone. */
  release(): void {
    this.#close();
    this.#handle?.release();
    this.#over();
  }

  /**
   * A put under the lease, which waits for the grant; also as an operation of a transaction.
   *
   * When etcd says that the lease is gone, `lost` is emitted and the put rejects with the same error. Once the lease is
   * lost, puts reject with it without being sent.
   */
  put(key: string | Buffer): PutBuilder {
    const caller = {
      exec: <T>(service: 'KV', method: string, params: unknown, options?: CallOptions) =>
        this.#exec<T>(service, method, params, options),
    };
    return new PutBuilder(caller, this.#keyspace, key).lease(this.#grant);
  }

  /**
   * Renews the lease now, on the stream that all leases of the client share. Tried again on other members until its time
   * or the lease is over, so it always settles.
   *
   * Rejects with what `lost` carried when the lease is gone.
   */
  async keepaliveOnce(options: CallOptions = this.#defaults): Promise<ILeaseKeepAliveResponse> {
    if (!this.#handle) return await this.#keepaliveByMock(options);
    if (this.#connection.closed) throw new ClientClosedError('lease');
    let failure: unknown;
    try {
      const timeoutMs = this.#timeOf(options, 'leaseKeepAlive', undefined);
      const handle = this.#handle;
      const answer = await this.#cancellable(options.signal, (cancel) => handle.keepaliveOnce(timeoutMs, cancel));
      if (answer.answer !== null) return this.#response(answer.answer);
      failure = JSON.parse(answer.failure as string);
    } catch (error) {
      failure = error;
    }
    this.#take(); // the loss, when that is what it failed by
    if (this.#loss) throw this.#loss;
    const error = this.#failure(failure, 'leaseKeepAlive', options);
    throw error instanceof EtcdLeaseInvalidError ? this.#lose(error) : error;
  }

  /** Whether the lease is over, whatever the reason. True from its deadline on, also before `lost` was emitted. */
  revoked(): boolean {
    return this.state === LeaseState.Revoked;
  }

  /** The same as `revoke()`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.revoke();
  }

  /** The lease is over and was not revoked by this program. `revoked()` is true already. At most once. */
  override on(event: 'lost', handler: (error: EtcdClientError) => void): this;
  /** A renewal is about to be sent. */
  override on(event: 'keepaliveFired', handler: () => void): this;
  /** A renewal was answered, and the lease lives. */
  override on(event: 'keepaliveSucceeded', handler: (response: ILeaseKeepAliveResponse) => void): this;
  /** A renewal failed; it is tried again until the lease is lost. */
  override on(event: 'keepaliveFailed', handler: (error: EtcdClientError) => void): this;
  /** There is a stream for the renewals: at first, and again after each failure. */
  override on(event: 'keepaliveEstablished', handler: () => void): this;
  override on(event: string | symbol, handler: (...args: never[]) => void): this;
  override on(event: string | symbol, handler: (...args: never[]) => void): this {
    return super.on(event, handler as (...args: unknown[]) => void);
  }

  // --- what happens to it

  /**
   * Renewals are told of from the first listener on; the loss always.
   *
   * @internal
   */
  protected override listens(event: string | symbol): void {
    if (this.#hears || typeof event !== 'string' || !event.startsWith('keepalive')) return;
    this.#hears = true;
    this.#handle?.tellAll(true);
  }

  #take(): void {
    for (const event of this.#handle?.take() ?? []) this.#hear(event);
  }

  #hear({ kind, text }: NativeLeaseEvent): void {
    switch (kind) {
      case 'granted':
        this.#granted(this.#id as string);
        return;
      case 'refused':
        this.#refused(fromFailure(JSON.parse(text as string), 'Lease.leaseGrant', this.#id));
        return;
      case 'lost':
        this.#lose(this.#gone(text ?? ''), true);
        return;
    }
    if (this.#state === LeaseState.Revoked) return;
    switch (kind) {
      case 'established':
        this.#tell('keepaliveEstablished');
        break;
      case 'fired':
        this.#tell('keepaliveFired');
        break;
      case 'succeeded':
        this.#tell('keepaliveSucceeded', this.#response(text as string));
        break;
      case 'failed':
        this.#tell('keepaliveFailed', new GRPCUnavailableError(text ?? '', { operation: 'Lease.leaseKeepAlive' }));
    }
  }

  #granted(id: string): void {
    this.#id = id;
    const wanted = this.#state === LeaseState.Pending;
    if (wanted) this.#state = LeaseState.Alive;
    this.#settle?.resolve(id);
    this.#settle = undefined;
    if (!wanted) this.#over();
  }

  #refused(error: Error): void {
    const mine = this.#state === LeaseState.Revoked;
    this.#settle?.reject(error);
    this.#settle = undefined;
    if (mine) this.#over();
    else this.#lose(error);
  }

  /** The error that the lease was lost by: this one, unless it was lost before. Of one that was given up nothing is told. */
  #lose(error: Error, isRenewal = false): Error {
    if (this.#loss) return this.#loss;
    if (this.#state === LeaseState.Revoked) return error;
    this.#loss = error;
    this.#state = LeaseState.Revoked;
    this.#handle?.release();
    this.#over();
    const told = error as EtcdClientError; // or whatever a mock rejects with
    if (isRenewal) this.#tell('keepaliveFailed', told);
    this.#tell('lost', told);
    return error;
  }

  /** It is given up by the program. */
  #close(): void {
    this.#state = LeaseState.Revoked;
  }

  /** Nothing more happens to it. */
  #over(): void {
    if (this.#settle) return; // the answer to the grant is to come
    this.#unlisten();
    if (this.#revoking === 0) this.#letGo();
  }

  /** The client is closed. */
  #end(): Promise<void> {
    this.#ending ??= (async () => {
      this.#close();
      await this.#handle?.revoke(CLOSE_MS, null).catch(() => {}); // it expires
      this.#settle?.reject(new ClientClosedError('lease'));
      this.#settle = undefined;
      this.#over();
    })();
    return this.#ending;
  }

  /** The loss waits for who is to hear of it; of renewals there are more to come. */
  #tell<E extends keyof LeaseEvents>(event: E, ...args: LeaseEvents[E]): void {
    if (event === 'lost') this.tell(event, ...args);
    else this.deliver(event, ...args);
  }

  // --- calls

  async #revoke(options: CallOptions): Promise<void> {
    const handle = this.#handle;
    if (handle) {
      const timeoutMs = this.#timeOf(options, 'leaseRevoke', { ID: this.#id });
      const failure = await this.#cancellable(options.signal, (cancel) => handle.revoke(timeoutMs, cancel));
      if (failure !== '') throw JSON.parse(failure);
      return;
    }
    let id: string;
    try {
      id = await this.#grant;
    } catch {
      return; // there is none
    }
    try {
      await this.#connection.exec('Lease', 'leaseRevoke', { ID: id }, options);
    } catch (error) {
      if (!(error instanceof EtcdLeaseInvalidError)) throw error;
    }
  }

  async #exec<T>(service: 'KV', method: string, params: unknown, options: CallOptions | undefined): Promise<T> {
    if (this.#handle && this.#state === LeaseState.Alive && !this.#handle.isAlive()) {
      this.#take(); // as a rule this holds the reason
      this.#lose(this.#gone(this.#handle.failure() ?? 'its lease was not renewed for its time to live'));
    }
    if (this.#loss) throw this.#loss;
    try {
      return await this.#connection.exec<T>(service, method, params, options);
    } catch (error) {
      throw error instanceof EtcdLeaseInvalidError ? this.#lose(error) : error;
    }
  }

  #grantByMock(ttl: number, options: CallOptions): void {
    const granted = this.#connection.exec<{ ID: string }>('Lease', 'leaseGrant', { TTL: ttl }, options);
    granted.then(
      ({ ID }) => this.#granted(ID),
      (error: Error) => this.#refused(error),
    );
  }

  async #keepaliveByMock(options: CallOptions): Promise<ILeaseKeepAliveResponse> {
    const client = new LeaseClient(this.#connection);
    const [stream, id] = await Promise.all([client.leaseKeepAlive(options), this.#grant]);
    const response = await new Promise<ILeaseKeepAliveResponse>((resolve, reject) => {
      stream.on('data', resolve);
      stream.on('error', reject);
      stream.on('end', () => reject(new GRPCUnavailableError('the stream ended without an answer')));
      stream.write({ ID: id });
    });
    stream.end();
    if (response.TTL === '0') throw this.#lose(new EtcdLeaseInvalidError(id));
    return response;
  }

  /** The error for a call that failed; that of an aborted one has the reason of its signal. */
  #failure(failure: unknown, method: string, { signal }: CallOptions): Error {
    const raw = failure as { code?: unknown; message?: unknown } | null;
    const reason = signal?.aborted && raw?.code === 'ERR_ABORTED';
    const told = reason ? { ...raw, message: raw.message, cause: signal.reason } : failure;
    return fromFailure(told, `Lease.${method}`, this.#id);
  }

  #gone(why: string): EtcdLeaseInvalidError {
    return leaseGone(this.#id, why, { operation: 'Lease.leaseKeepAlive', cause: why });
  }

  async #cancellable<T>(
    signal: AbortSignal | undefined,
    start: (cancel: CancelHandle | null) => Promise<T>,
  ): Promise<T> {
    if (!signal) return await start(null);
    const cancel: CancelHandle = new (native().CancelHandle)();
    if (signal.aborted) cancel.cancel();
    const unlisten = onAbort(signal, () => cancel.cancel());
    try {
      return await start(cancel);
    } finally {
      unlisten();
    }
  }

  /** The time of a call in milliseconds, by its options and those of the client. Throws when it is over. */
  #timeOf(options: CallOptions, method: string, params: unknown): number {
    const context = { service: 'Lease', method, params, isStream: method === 'leaseKeepAlive' };
    const resolved = resolveCallOptions(options, this.#connection.callOptionsFactory, context as never);
    const left = timeLeft(resolved, this.#connection.options.timeoutMs, 'options') ?? MAX_MS;
    if (left > 0) return left;
    throw new GRPCDeadlineExceededError('the deadline of the call had passed before it was sent', {
      operation: `Lease.${method}`,
    });
  }

  #response(text: string): ILeaseKeepAliveResponse {
    const [cluster_id = '0', member_id = '0', revision = '0', raft_term = '0', TTL = '0'] = text.split(',');
    return { header: { cluster_id, member_id, revision, raft_term }, ID: this.#id as string, TTL };
  }
}
