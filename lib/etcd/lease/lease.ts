/** Leases: keys that go when their owner does. */

import { Emitter } from '../../common/emitter.js';
import { integer } from '../../common/shape.js';
import { InvalidArgumentError } from '../../errors.js';
import { int64, leaseTtl } from '../check.js';
import { ClientClosedError, type EtcdClientError, EtcdLeaseInvalidError, fromFailure } from '../errors.js';
import type { Keyspace, Scope } from '../kv/keyspace.js';
import { PutBuilder } from '../kv/put.js';
import type { CallOptions } from '../rpc/calls.js';
import type { ILeaseKeepAliveResponse } from '../rpc/messages.js';
import type { Connection } from '../transport/connection.js';
import { waited } from '../transport/waiting.js';
import { failed, type Keeper, type Kept, type News } from './keeper.js';
import { MockKeeper } from './mock-keeper.js';
import { NativeKeeper } from './native-keeper.js';

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
  autoKeepAlive?: boolean | undefined;
  /**
   * Revoke the lease when the JavaScript thread has been blocked for so long, in milliseconds; the lease is then lost. At
   * least 100. Default 0: a blocked thread keeps its leases, since they are renewed on another one.
   */
  stallTimeoutMs?: number | undefined;
}

/** The events of a lease. */
export interface LeaseEvents {
  lost: [error: EtcdClientError];
  keepaliveEstablished: [];
  keepaliveFired: [];
  keepaliveSucceeded: [response: ILeaseKeepAliveResponse];
  keepaliveFailed: [error: EtcdClientError];
}

/** Where a lease is. Of one that is alive the deadline counts besides. */
type State =
  /** Asked for. */
  | 'pending'
  | 'alive'
  /** By the program or the end of its client: nothing more is told. */
  | 'givenUp'
  /** Not granted, expired, or revoked by somebody else. */
  | 'lost';

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
  /** None of a lease that could not even be asked for. */
  readonly #keeper: Keeper | undefined;
  #state: State = 'pending';
  #id: string | undefined;
  /** Of one that is lost: why. */
  #loss: Error | undefined;
  readonly #grant: Promise<string>;
  /** Until the grant is answered. */
  #settle: { resolve(id: string): void; reject(error: Error): void } | undefined;
  /** The end that `close()` of the client brought. */
  #ending: Promise<void> | undefined;
  /** Revocations under way: until they are done it keeps the process alive. */
  #revoking = 0;
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
    if (attachTo === undefined) leaseTtl(ttl);
    const { autoKeepAlive, stallTimeoutMs: stall, ...callOptions } = options ?? {};
    const stallTimeoutMs = integer('options.stallTimeoutMs', stall, 0, { min: 100, zeroIsOff: true });
    this.#connection = connection;
    this.#keyspace = keyspace;
    this.#asked = Math.ceil(ttl);
    const { deadline: _deadline, signal: _signal, ...defaults } = callOptions;
    this.#defaults = defaults;
    this.#grant = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.#grant.catch(() => {}); // told by `lost`; whoever calls grant() is told as well
    const kept: Kept = { grant: this.#grant, hear: (news) => this.#hear(news), end: () => this.#end() };
    if (connection.mocked) {
      this.#keeper = new MockKeeper(connection, ttl, callOptions, kept);
      return;
    }
    const asked = { ttl: attachTo === undefined ? this.#asked : 0, attachTo, insists, stallTimeoutMs };
    const renewsItself = autoKeepAlive !== false;
    try {
      this.#keeper = new NativeKeeper(connection, { ...asked, renewsItself }, callOptions, kept);
      this.#id = this.#keeper.id;
    } catch (failure) {
      if (failure instanceof InvalidArgumentError) throw failure;
      // As a grant that fails: whoever is to hear of it has yet to listen.
      queueMicrotask(() => this.#refused(fromFailure(failure, 'Lease.leaseGrant')));
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
    if (this.#state === 'pending') return LeaseState.Pending;
    return this.#state === 'alive' && this.#keeper?.isAlive() ? LeaseState.Alive : LeaseState.Revoked;
  }

  /** Its id, also before it is granted; `0n` when a mock has not yet said one. */
  get id(): bigint {
    return BigInt(this.#id ?? 0);
  }

  /** Its time to live in seconds: what was asked for, then what etcd granted, which may be more. */
  get ttl(): number {
    return this.#keeper?.ttl ?? this.#asked;
  }

  /** Whether it is granted, not given up, and its deadline has not passed. */
  isValid(): boolean {
    return this.state === LeaseState.Alive;
  }

  /** What is left until its deadline in milliseconds; 0 when it is not valid. Of a mocked lease `Infinity`. */
  get remainingMs(): number {
    return this.isValid() ? (this.#keeper?.remainingMs() ?? 0) : 0;
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
   * Rejects with what `lost` carried when it could not be granted. `timeoutMs` and a `signal` end the wait alone: those of
   * the lease itself end the grant.
   */
  async grant(options?: CallOptions): Promise<string> {
    return await waited(this.#grant, options, 'Lease.leaseGrant');
  }

  /**
   * Ends the lease and deletes its keys. It is never sent before the grant was answered. One that is gone, or was not
   * granted, is a success. Tried again on other members. No `lost` follows.
   *
   * Rejects when etcd could not be told; the lease is renewed no more in any case, and expires.
   */
  async revoke(options: CallOptions = this.#defaults): Promise<void> {
    if (this.#ending) return await waited(this.#ending, options, 'Lease.leaseRevoke');
    this.#giveUp();
    this.#revoking += 1;
    try {
      await this.#keeper?.revoke(options);
    } catch (failure) {
      throw failed(failure, 'leaseRevoke', options, this.#id);
    } finally {
      this.#revoking -= 1;
      this.#over();
    }
  }

  /** Stops renewing the lease, which ends when its time is over. `client.close()` leaves it alone. */
  release(): void {
    this.#giveUp();
    this.#keeper?.orphan();
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
    const keeper = this.#keeper;
    try {
      if (!keeper) throw await this.#grant; // which rejects
      return await keeper.keepaliveOnce(options);
    } catch (failure) {
      if (failure instanceof ClientClosedError) throw failure;
      keeper?.look(); // the loss, when that is what it failed by
      if (this.#loss) throw this.#loss;
      throw failure instanceof EtcdLeaseInvalidError ? this.#lose(failure) : failure;
    }
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
    this.#keeper?.tellRenewals();
  }

  #hear(news: News): void {
    switch (news.kind) {
      case 'granted':
        this.#granted(news.id);
        return;
      case 'refused':
        this.#refused(news.error);
        return;
      case 'lost':
        this.#lose(news.error, true);
        return;
    }
    if (this.#state === 'lost' || this.#state === 'givenUp') return;
    switch (news.kind) {
      case 'established':
        this.#tell('keepaliveEstablished');
        break;
      case 'fired':
        this.#tell('keepaliveFired');
        break;
      case 'succeeded':
        this.#tell('keepaliveSucceeded', news.response);
        break;
      case 'failed':
        this.#tell('keepaliveFailed', news.error);
    }
  }

  #granted(id: string): void {
    this.#id = id;
    if (this.#state === 'pending') this.#state = 'alive';
    this.#settle?.resolve(id);
    this.#settle = undefined;
    if (this.#state !== 'alive') this.#over();
  }

  #refused(error: Error): void {
    this.#settle?.reject(error);
    this.#settle = undefined;
    if (this.#state === 'pending') this.#lose(error);
    else this.#over();
  }

  /** The error that the lease was lost by: this one, unless it was lost before. Of one that was given up nothing is told. */
  #lose(error: Error, isRenewal = false): Error {
    if (this.#loss) return this.#loss;
    if (this.#state === 'givenUp') return error;
    this.#state = 'lost';
    this.#loss = error;
    this.#keeper?.orphan();
    this.#over();
    const told = error as EtcdClientError; // or whatever a mock rejects with
    if (isRenewal) this.#tell('keepaliveFailed', told);
    this.#tell('lost', told);
    return error;
  }

  #giveUp(): void {
    if (this.#state !== 'lost') this.#state = 'givenUp';
  }

  /** Nothing more happens to it, once the grant is answered and revocations are done. */
  #over(): void {
    if (!this.#settle && this.#revoking === 0) this.#keeper?.over();
  }

  /** The client is closed. */
  #end(): Promise<void> {
    this.#ending ??= (async () => {
      this.#giveUp();
      await this.#keeper?.close();
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

  async #exec<T>(service: 'KV', method: string, params: unknown, options: CallOptions | undefined): Promise<T> {
    const keeper = this.#keeper;
    if (this.#state === 'alive' && keeper && !keeper.isAlive()) {
      keeper.look(); // as a rule this holds the reason
      this.#lose(keeper.loss());
    }
    if (this.#loss) throw this.#loss;
    try {
      return await this.#connection.exec<T>(service, method, params, options);
    } catch (error) {
      throw error instanceof EtcdLeaseInvalidError ? this.#lose(error) : error;
    }
  }
}
