/** Elections: one leader among many candidates, and who it is. */

import { Emitter } from '../../common/emitter.js';
import { UnsupportedError } from '../../errors.js';
import { type CampaignHandle, type NativeLeader, native, type ObserverHandle } from '../../native.js';
import { leaseTtl, unexpected, valueBytes } from '../check.js';
import { ClientClosedError, fromFailure, type NotCampaigningError } from '../errors.js';
import { SingleRangeBuilder } from '../kv/get.js';
import { MultiRangeBuilder } from '../kv/get-all.js';
import type { Scope } from '../kv/keyspace.js';
import type { CallOptions } from '../rpc/calls.js';
import type { ICompare } from '../rpc/messages.js';
import type { Connection } from '../transport/connection.js';
import { dueBy, waited } from '../transport/waiting.js';
import { CLOSING_MS, errorOf, type IStallOptions, notCampaigning, stallMs, stillCreated, thrown } from './settings.js';

/** Options of a campaign. */
export interface ICampaignOptions extends IStallOptions {
  /**
   * Whether a campaign whose lease or key is lost begins again by itself, with a new lease at the end of the queue.
   * Then it emits `lost` in place of `error` for each term that it led, and `elected` for the next one; `error` only when
   * etcd refuses for good, such as `EtcdPermissionDeniedError`. Programs then need no code to try again. Default: false, as in etcd3.
   */
  keepCampaigning?: boolean | undefined;
}

/** Options of an election. */
export interface IElectionOptions {
  /**
   * Where the keys of the candidates lie and how they are named. All processes of an election have to agree.
   *
   * - `etcd3`, the default: `election/<name>/<lease id in decimal>`, as the npm package etcd3.
   * - `go`: `<name>/<lease id in hexadecimal>`, as etcd's Go client and `etcdctl elect`.
   */
  layout?: 'etcd3' | 'go' | undefined;
}

/** What may be the id of a lease, in decimal or hexadecimal. */
const LEASE_ID = /^-?[1-9a-f][0-9a-f]{0,18}$/;

/** Who listens late hears how it stands, and not what is over. */
const OBSERVER_VOIDS = { change: ['change'], disconnected: ['disconnected'] };
const CAMPAIGN_VOIDS = { elected: ['elected', 'lost'], lost: ['elected', 'lost'], error: ['elected', 'lost'] };

/**
 * Follows the leader of an election, from `election.observe()`. It keeps the process alive until `cancel()`.
 *
 * Events: `change` with the value of the leader, or `undefined` when there is none: first what was found, then whenever
 * the value differs; several changes at once, such as during an outage, are one. `disconnected` when the connection was
 * lost, once for each time, and what is known may be old until it has been read again, which happens by itself. `error`
 * when the first reading fails or etcd refuses; nothing follows. The newest event of each kind waits for its first listener;
 * an `error` that nobody hears is logged.
 */
export class ElectionObserver extends Emitter {
  readonly #connection: Connection;
  readonly #handle: ObserverHandle | undefined;
  readonly #id: number;
  readonly #letGo: () => void = () => {};
  #known: NativeLeader | null | undefined;
  #over = false;
  #heard: (() => void) | undefined;

  /** @param namespace that of the candidates' keys. */
  constructor(namespace: Scope) {
    super(OBSERVER_VOIDS);
    const { connection } = namespace;
    this.#connection = connection;
    this.#id = connection.listen(({ kind, failure }) => {
      if (this.#over) return;
      if (kind === 'leader') this.#changed();
      else if (kind === 'leaderUnknown') this.tell('disconnected', fromFailure(failure, 'observe'));
      else if (kind === 'observerFailed') this.#fail(fromFailure(failure, 'observe'));
    });
    try {
      notMocked(connection, 'observe');
      this.#handle = native().ObserverHandle.open(connection.native, this.#id, namespace.prefix);
      this.#letGo = connection.hold({ end: () => this.#end() });
    } catch (error) {
      queueMicrotask(() => this.#over || this.#fail(error as Error));
    }
  }

  /** Whether a leader is known. False before the first reading. */
  get hasLeader(): boolean {
    return Boolean(this.#known);
  }

  /** The fencing token of the leader: the create revision of its key. */
  get revision(): bigint | undefined {
    return this.#known?.revision;
  }

  /** The key of the leader, with the prefix of the namespace. */
  get key(): string | undefined {
    return this.#known?.key.toString();
  }

  override on(event: 'change', handler: (value: string | undefined) => void): this;
  override on(event: 'disconnected', handler: (value: Error) => void): this;
  override on(event: 'error', handler: (value: Error) => void): this;
  // biome-ignore lint/suspicious/noExplicitAny: as EventEmitter has it
  override on(event: string | symbol, handler: (...args: any[]) => void): this {
    return super.on(event, handler);
  }

  /** The value of the leader as last read; `undefined` when there is none, or none known yet. */
  leader(encoding?: BufferEncoding): string | undefined;
  leader(encoding: 'buffer'): Buffer | undefined;
  leader(encoding: BufferEncoding | 'buffer' = 'utf8'): string | Buffer | undefined {
    const value = this.#known?.value;
    return encoding === 'buffer' ? value : value?.toString(encoding);
  }

  /** Stops; no event follows. Harmless a second time. */
  async cancel(): Promise<void> {
    if (!this.#over) this.forgetAll();
    this.#end();
  }

  /** The same as `cancel()`. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#end();
  }

  #changed(): void {
    const before = this.#known;
    const now = this.#handle?.leader() ?? null;
    this.#known = now;
    const isNew = before === undefined || !now !== !before || (now && before && !now.value.equals(before.value));
    if (isNew) this.tell('change', now?.value.toString());
  }

  /**
   * Calls `heard` when it is over without having failed, as by the end of the client.
   *
   * @internal
   */
  whenOver(heard: () => void): void {
    this.#heard = heard;
  }

  #fail(error: Error): void {
    this.#heard = undefined;
    this.#end();
    this.tellError(error, 'an observer of an election is over', this.#connection.options.log);
  }

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#handle?.close();
    this.#connection.unlisten(this.#id);
    this.#letGo();
    this.#heard?.();
  }
}

interface Waiter {
  resolve(): void;
  reject(error: Error): void;
}

/**
 * One candidate of an election, from `election.campaign()`. It lives exactly as long as its one lease and keeps the
 * process alive until it ends.
 *
 * Events: `elected` when it leads; `error` when its lease or its key is lost, or etcd can't be asked for a lease: the
 * campaign has failed, and nothing follows. With `keepCampaigning` also `lost`, with the reason, when it led and does not
 * any more; `elected` and `lost` alternate. Nothing is emitted after `resign()`. An event that nobody has heard, by a
 * listener or by `wait()`, is given to its first listener: of `elected` and `lost` the newer one. An `error` that nobody
 * hears is logged, and stands: `wait()` and `proclaim()` reject.
 *
 * It never says `elected` before etcd has shown its own key to be there and to be the oldest, while its lease is good. It
 * notices at once when its key is deleted or its lease revoked, and within the time to live when etcd is out of reach.
 * There are never two who lead by `isLeader`, which goes by the clock of the process at each look: it is false from the
 * moment on until which etcd has promised the lease. Who resigns or fails revokes the lease. What is left is a process that is stopped
 * between looking and writing; against that guard the writing: `client.if(campaign.guard()).then(…).commit()`. A key that
 * is deleted by hand makes another leader at once, before this one can know.
 */
export class Campaign extends Emitter {
  readonly #connection: Connection;
  readonly #handle: CampaignHandle | undefined;
  readonly #id: number;
  readonly #letGo: () => void = () => {};
  readonly #waiters = new Set<Waiter>();
  /** `elected` was told, and no end of it. */
  #told = false;
  /** Why it is over: `true` for `resign()`. */
  #over: Error | true | undefined;
  #resigned: Promise<void> | undefined;

  /**
   * @param namespace that of the candidates' keys.
   * @param ttl of the lease, in seconds: how long a leader that has died goes on being it at most.
   * @throws RangeError for a ttl below 1.
   */
  constructor(
    namespace: Scope,
    value: string | Buffer,
    ttl: number,
    options: ICampaignOptions & IElectionOptions = {},
  ) {
    super(CAMPAIGN_VOIDS);
    const { connection } = namespace;
    this.#connection = connection;
    const settings = {
      prefix: namespace.prefix,
      naming: options.layout === 'go' ? ('hex' as const) : ('decimal' as const),
      value: valueBytes(value, 'campaign()'),
      ttlMs: leaseTtl(ttl) * 1000,
      again: options.keepCampaigning ?? false,
      stallTimeoutMs: stallMs(options, 'campaign'),
    };
    this.#id = connection.listen(({ kind }) => {
      if (this.#over) return;
      if (kind === 'elected') this.#elected();
      else if (kind === 'termLost') this.#lost();
      else if (kind === 'campaignFailed') this.#fail(this.#failure());
    });
    try {
      notMocked(connection, 'campaign');
      this.#handle = native().CampaignHandle.open(connection.native, this.#id, settings);
      this.#letGo = connection.hold(this);
    } catch (error) {
      queueMicrotask(() => this.#over || this.#fail(error as Error));
    }
  }

  /** Whether it leads at this moment, by the clock: look before every act, and go by `guard()` where it matters. */
  get isLeader(): boolean {
    return !this.#over && (this.#handle?.isLeading() ?? false);
  }

  /**
   * The fencing token: the create revision of its key, higher than that of any leader before. `undefined` before the key
   * is there; with `keepCampaigning` another one in each term.
   */
  get revision(): bigint | undefined {
    return this.#handle?.revision() ?? undefined;
  }

  override on(event: 'elected', handler: () => void): this;
  override on(event: 'error', handler: (error: Error) => void): this;
  override on(event: 'lost', handler: (error: Error) => void): this;
  // biome-ignore lint/suspicious/noExplicitAny: as EventEmitter has it
  override on(event: string | symbol, handler: (...args: any[]) => void): this {
    return super.on(event, handler);
  }

  /**
   * Resolves when it leads, at once if it does. Rejects with the error when it fails, with `NotCampaigningError` when it
   * resigns, at once if it has. With `timeoutMs` or a `signal` the wait ends earlier; the campaign goes on.
   */
  async wait(options?: CallOptions): Promise<this> {
    if (this.#over) throw this.#over === true ? notCampaigning('wait', 'it has resigned') : this.#over;
    if (!(this.#told && this.isLeader)) {
      let waiter: Waiter | undefined;
      const leads = new Promise<void>((resolve, reject) => {
        waiter = { resolve, reject };
        this.#waiters.add(waiter);
      });
      try {
        await waited(leads, options, 'wait');
      } finally {
        this.#waiters.delete(waiter as unknown as Waiter);
      }
    }
    this.isKnown('elected');
    return this;
  }

  /**
   * Changes the value, once the key is there, without giving up the place in the queue. A value that is the present one is
   * not sent. Rejects with `NotCampaigningError` when the campaign is over, or its key or lease turns out to be gone, which
   * ends it. When etcd can't be reached `outcomeUnknown` is true if the value may have been written; the same again settles it. It may have been as well when `timeoutMs` or a
   * `signal` ends the wait.
   */
  async proclaim(value: string | Buffer, options?: CallOptions): Promise<void> {
    const bytes = valueBytes(value, 'proclaim()');
    if (this.#over || !this.#handle) throw this.#notCampaigning('proclaim');
    const done = this.#handle.proclaim(bytes).catch((raw: unknown) => {
      throw thrown(raw, 'proclaim', undefined);
    });
    const failure = await waited(done, options, 'proclaim');
    if (!failure) return;
    const over = failure.reason === 'over';
    throw over ? this.#notCampaigning('proclaim') : errorOf(failure, 'campaign', 'proclaim', this.#handle.lease());
  }

  /** The key, with the prefix of the namespace, as soon as the lease is granted. Rejects when it never is. */
  async getCampaignKey(options?: CallOptions): Promise<string> {
    if (!this.#handle) throw this.#notCampaigning('getCampaignKey');
    const granted = this.#handle.granted().catch((raw: unknown) => {
      throw thrown(raw, 'getCampaignKey', undefined);
    });
    const failure = await waited(granted, options, 'getCampaignKey');
    if (failure) throw errorOf(failure, 'campaign', 'getCampaignKey', this.#handle.lease());
    return (this.#handle.key() as Buffer).toString();
  }

  /**
   * A compare that holds as long as this candidate has its place, and so, of a leader, that it leads:
   * `client.if(campaign.guard()).then(client.put('a').value(1)).commit()`. etcd compares; no clock is asked.
   *
   * @throws NotCampaigningError before the key is there.
   */
  guard(): ICompare {
    const [key, revision] = [this.#handle?.key(), this.#handle?.revision()];
    if (!key || !revision) throw notCampaigning('guard', 'its key is not there yet');
    return stillCreated(key, revision);
  }

  /**
   * Ends the campaign: at once for this process, and for others when the lease is revoked, which this waits for. Rejects
   * when etcd can't be reached; it is tried for ten minutes more, and the lease expires at the latest. `timeoutMs` and a
   * `signal` end the wait alone. Harmless a second time.
   */
  resign(options?: CallOptions): Promise<void> {
    this.#resigned ??= this.#resign(0);
    return options === undefined ? this.#resigned : waited(this.#resigned, options, 'resign');
  }

  /** @internal */
  end(): Promise<void> {
    this.#resigned ??= this.#resign(CLOSING_MS);
    return this.#resigned.catch(() => {}); // what is not revoked in time expires
  }

  /** The same as `resign()`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.resign();
  }

  async #resign(limitMs: number): Promise<void> {
    if (this.#over || !this.#handle) {
      this.#over ??= true;
      return;
    }
    const done = this.#handle.resign(limitMs); // from here on nobody leads
    this.#over = true;
    this.forgetAll();
    this.#connection.unlisten(this.#id);
    this.#settle(notCampaigning('wait', 'it has resigned'));
    try {
      const failure = await done.catch((raw: unknown) => {
        throw thrown(raw, 'resign', undefined);
      });
      if (failure) throw errorOf(failure, 'campaign', 'resign', this.#handle.lease());
    } finally {
      this.#letGo();
    }
  }

  /**
   * Who listens late must not hear that it leads when it does not.
   *
   * @internal
   */
  protected override stands(event: string): boolean {
    return event !== 'elected' || this.isLeader;
  }

  #elected(): void {
    // A process that was stopped gets to hear of it late: what follows then is the loss.
    if (!this.isLeader) return;
    this.#told = true;
    if (this.#waiters.size > 0) this.isKnown('elected');
    this.#settle();
    this.tell('elected');
  }

  #lost(): void {
    const told = this.#told;
    this.#told = false;
    if (told) this.tell('lost', this.#failure());
  }

  #fail(error: Error): void {
    this.#over = error;
    this.#connection.unlisten(this.#id);
    this.#letGo();
    const awaited = this.#waiters.size > 0;
    this.#settle(error);
    this.tellError(error, 'a campaign has failed', this.#connection.options.log, awaited);
  }

  #settle(error?: Error): void {
    for (const { resolve, reject } of this.#waiters) {
      if (error) reject(error);
      else resolve();
    }
    this.#waiters.clear();
  }

  #failure(): Error {
    const failure = this.#handle?.failure();
    if (!failure || (failure.reason === 'over' && this.#connection.closed)) return new ClientClosedError('campaign');
    return errorOf(failure, 'campaign', 'campaign', this.#handle?.lease());
  }

  #notCampaigning(operation: string): NotCampaigningError {
    const cause =
      this.#over === true ? undefined : (this.#over ?? (this.#handle?.failure() ? this.#failure() : undefined));
    return notCampaigning(operation, undefined, cause);
  }
}

/**
 * An election, from `client.election(name)`: any number of processes campaign, one of them leads, and when it resigns, dies
 * or can't reach etcd for the time to live, the one that has waited longest is next.
 *
 * ```js
 * const election = client.election('singleton-job', 10);
 * const campaign = election.campaign(hostname(), { keepCampaigning: true });
 * campaign.on('elected', () => startWork(campaign));
 * campaign.on('lost', () => stopWork());
 * ```
 */
export class Election {
  /** What the keys of all elections begin with, in the default layout. */
  static readonly prefix = 'election';
  readonly name: string;
  /** That of the candidates' keys. */
  readonly #namespace: Scope;
  readonly #ttl: number;
  readonly #layout: IElectionOptions['layout'];

  /**
   * @param ttl of the lease of a candidate, in seconds. Default: 60.
   * @internal
   */
  constructor({ connection, keyspace: parent }: Scope, name: string, ttl = 60, options: IElectionOptions = {}) {
    this.name = name;
    this.#ttl = ttl;
    const { layout = 'etcd3' } = options;
    if (layout !== 'etcd3' && layout !== 'go') throw unexpected(layout, 'the layout of an election', ['etcd3', 'go']);
    this.#layout = layout;
    const keyspace = parent.nested(layout === 'go' ? `${name}/` : `${Election.prefix}/${name}/`);
    this.#namespace = { prefix: keyspace.prefix, connection, keyspace };
  }

  /**
   * Becomes a candidate, at once; without `await`. What becomes of it is told by its events, and by `wait()`.
   *
   * @param value what others learn about the leader.
   * @throws RangeError when the ttl of the election is below 1.
   */
  campaign(value: string | Buffer, options?: ICampaignOptions): Campaign {
    return new Campaign(this.#namespace, value, this.#ttl, { ...options, layout: this.#layout });
  }

  /** The value of the leader; `undefined` when there is none. A read: tried again on other members. */
  async leader(encoding?: BufferEncoding, options?: CallOptions): Promise<string | undefined>;
  async leader(encoding: 'buffer', options?: CallOptions): Promise<Buffer | undefined>;
  async leader(
    encoding: BufferEncoding | 'buffer' = 'utf8',
    options?: CallOptions,
  ): Promise<string | Buffer | undefined> {
    const { connection, keyspace } = this.#namespace;
    const until = dueBy(options);
    const all = new MultiRangeBuilder(connection, keyspace).sort('Create', 'Ascend').limit(1).options(until);
    const { header, kvs } = await all.exec();
    const [oldest] = kvs;
    const leads = !oldest || connection.mocked || isCandidate(oldest.key, oldest.lease);
    const value = leads ? oldest?.value : await oldestCandidate(this.#namespace, header.revision, until);
    return encoding === 'buffer' ? value : value?.toString(encoding);
  }

  /** Follows the leader. Resolves when it is known who leads, or that nobody does; rejects when that can't be found out. */
  async observe(options?: CallOptions): Promise<ElectionObserver> {
    const observer = new ElectionObserver(this.#namespace);
    const known = new Promise<void>((resolve, reject) => {
      observer.once('error', reject);
      observer.whenOver(() => reject(new ClientClosedError('Election')));
      observer.once('change', () => {
        observer.off('error', reject); // a later one is not to be swallowed here
        resolve();
      });
    });
    try {
      await waited(known, options, 'observe');
    } catch (error) {
      await observer.cancel();
      throw error;
    }
    observer.isUnknown('change'); // the first one is in `leader()`; the listener that heard it was ours
    return observer;
  }
}

/**
 * Whether a key is that of a candidate: what follows the prefix is the id of its own lease, as etcd3 or Go writes it.
 * Anything else may lie below the name of an election, another election among it. The same as `counts` in the core.
 */
function isCandidate(name: Buffer, lease: string): boolean {
  const text = name.toString('latin1');
  return lease !== '0' && (text === lease || text === BigInt(lease).toString(16));
}

/** The value of the oldest candidate, by looking through all keys, a page of names at a time. */
async function oldestCandidate(
  { connection, keyspace }: Scope,
  revision: string,
  options: CallOptions | undefined,
): Promise<Buffer | undefined> {
  let oldest: { created: bigint; value: Buffer } | undefined;
  const names = new MultiRangeBuilder(connection, keyspace).revision(revision).options(options).namesOnly();
  for await (const { key, createRevision } of names) {
    if (!LEASE_ID.test(key.toString('latin1')) || (oldest && oldest.created < createRevision)) continue;
    // etcd 3.7 tells no leases with names alone.
    const [kv] = (await new SingleRangeBuilder(connection, keyspace, key).revision(revision).options(options).exec())
      .kvs;
    if (kv && isCandidate(key, kv.lease)) oldest = { created: createRevision, value: kv.value };
  }
  return oldest?.value;
}

/** Campaigns and observers wait for what etcd does: a mock has no such thing. */
function notMocked(connection: Connection, operation: string): void {
  if (!connection.mocked) return;
  throw new UnsupportedError('elections do not go through mock(): give your code a campaign of your own in tests', {
    operation,
  });
}
