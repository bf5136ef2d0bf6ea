/** A watch, and the events that it tells. */

import { onAbort } from '../../common/abort.js';
import { Emitter } from '../../common/emitter.js';
import { Share, share, took } from '../../common/turns.js';
import { UnsupportedError } from '../../errors.js';
import { type EtcdWatchHandle, type NativeWatchFailure, native } from '../../native.js';
import { int64 } from '../check.js';
import { abortedCall, ClientClosedError, CompactedError, EtcdError, fromFailure } from '../errors.js';
import type { Keyspace } from '../kv/keyspace.js';
import { FilterType } from '../rpc/enums.js';
import type { IKeyValue, IRangeResponse, IWatchCreateRequest, IWatchResponse } from '../rpc/messages.js';
import type { Connection } from '../transport/connection.js';
import { Board, rethrow } from './board.js';
import { type WatchChange, WatchIterator, type WatchList, watchChange, watchedKey } from './iterator.js';
import { type Failed, Opening } from './opening.js';
import {
  type Answer,
  CONNECTING,
  CREATED,
  type Created,
  DISCONNECTED,
  END,
  RESPONSE,
  Records,
  SETTLED,
} from './records.js';

const OPERATION = 'Watch.watch';

/** How often the list after a gap is tried to be read before the watch fails. Each try goes over all members. */
const LIST_TRIES = 3;

/** How a watch ends besides by itself. */
export interface WatchOptions {
  /** Cancels the watch when it fires. A `create()` that is waiting rejects with `GRPCCancelledError`. */
  signal?: AbortSignal | undefined;
  /**
   * How long a `create()` waits until etcd has confirmed the watch, in milliseconds; then the watch is cancelled. Default: until
   * it is.
   */
  timeoutMs?: number | undefined;
}

/**
 * What is watched, and how, besides the request itself.
 *
 * @internal
 */
export interface Shape extends WatchOptions {
  readonly progress: boolean;
  readonly relist: boolean;
  /** `create()` waits for it. */
  readonly awaited: boolean;
}

/** Where a watch is. */
type State =
  /** Changes come, or will when there is a connection. */
  | 'watching'
  /** Changes are lost. A watch from now on waits for a connection, which is what the native side can do best. */
  | 'gap'
  /** There is a connection, and what is there is being read. Nothing else is read meanwhile. */
  | 'listing'
  /** It has ended, for whatever reason. */
  | 'over';

/** Who wants changes. */
type Audience =
  /** Nobody has asked yet. */
  | 'none'
  /** Somebody has, in this turn of the event loop; others may come with them. */
  | 'come'
  /** They are handed out. */
  | 'served';

/** The events that bring what is watched: who listens to one of them wants the watch to be read. */
const CHANGES: readonly (string | symbol)[] = ['put', 'delete', 'data', 'list'];

/** Who listens late hears how the connection stands, and not what is over. */
const VOIDS = {
  connecting: ['connecting', 'connected'],
  connected: ['connecting', 'connected', 'disconnected'],
  disconnected: ['connecting', 'connected', 'disconnected'],
};

/**
 * A watch. It is told by events, or read by `for await (const change of watcher)`:
 *
 * - With listeners of `put`, `delete` or `data` the events come as they are; a listener that throws makes an uncaught
 *   exception, and neither the watch nor the other listeners are harmed.
 * - `for await` takes no more than the program has time for. `break` cancels the watch. It ends when the watch is cancelled
 *   or the client is closed, and throws what `error` would tell. A program that does both goes at the pace of the slower.
 *
 * Nothing is handed out before the program begins: with the first listener of `put`, `delete`, `data` or `list`, or the first
 * `watcher[Symbol.asyncIterator]()`. What comes before that waits, and what comes behind it, a disconnection or the end of
 * the watch, waits with it. Reading begins in a later turn of the event loop, so that everything added by then gets
 * everything. Who joins later gets what is handed out from then on, and every listener and iterator gets all of it. Once
 * begun, what comes while nobody listens and nobody iterates is lost to the program.
 *
 * What a program has no time for waits in memory, at most about 4 MiB or 16,384 events for each watch; then the watch is
 * cancelled on the server, without a word, and made anew from there when there is room.
 *
 * Keys and values are views of the batch that they came in: copy what is kept for long.
 */
export class Watcher<E = WatchChange> extends Emitter {
  /**
   * What is asked of etcd, at first and after each lost connection. `start_revision` says where the watch would resume.
   * A value written to it counts from the next creation on.
   */
  readonly request: IWatchCreateRequest;

  readonly #connection: Connection;
  readonly #keyspace: Keyspace;
  readonly #shape: Shape;
  readonly #listenId = Board.newId();
  readonly #board: Board;
  readonly #release: () => void;
  readonly #unlisten: () => void = () => {};
  #handle: EtcdWatchHandle;

  #state: State = 'watching';
  #audience: Audience = 'none';
  readonly #iterators = new Set<WatchIterator<E>>();
  readonly #opening: Opening;
  #ending: Promise<void> | undefined;

  /** While it is on a stream: its id there. */
  #id: string | null = null;
  /** Where it would resume: digits, or `undefined` before the first connection. */
  #next: string | undefined;
  /** What the program has written to `request.start_revision`, until it is used. */
  #written: string | undefined;
  #isConnected = false;

  readonly #share = new Share((most) => this.#read(most));
  #isReading = false;
  /** Something waits on the native side. */
  #isReady = false;
  /** What was taken from there, and the response in it that is being told. */
  #records: Records | undefined;
  #answer: Answer | undefined;
  /** The list after a gap, when nobody wants it yet. */
  #deferred: (() => void) | undefined;

  /** @internal */
  constructor(connection: Connection, keyspace: Keyspace, request: IWatchCreateRequest, shape: Shape) {
    super(VOIDS);
    if (connection.mocked) {
      throw new UnsupportedError(`${OPERATION}: a mocked client has no watches; unmock() it, or mock the watcher`);
    }
    this.#connection = connection;
    this.#keyspace = keyspace;
    this.#board = Board.of(connection);
    this.#shape = shape;
    this.#written = request.start_revision === undefined ? undefined : String(request.start_revision);
    this.request = Object.defineProperty({ ...request }, 'start_revision', {
      configurable: true,
      enumerable: true,
      get: () => this.#written ?? this.#next,
      set: (revision: string | number | bigint | undefined) => this.#rewind(revision),
    });
    this.#opening = new Opening(shape.awaited);
    this.#handle = this.#open(BigInt(this.#written ?? 0), shape.awaited);
    this.#board.join(this.#listenId, () => {
      this.#isReady = true;
      if (this.#audience === 'come') this.#serve();
      this.#share.wake();
    });
    this.#release = connection.hold({ end: () => this.#closed() });
    const { signal } = shape;
    if (signal?.aborted) void this.#aborted(signal);
    else if (signal) this.#unlisten = onAbort(signal, () => void this.#aborted(signal));
  }

  /** The id of the watch on its stream; `null` while there is none. It changes with every creation. */
  get id(): string | null {
    return this.#id;
  }

  /**
   * The last revision that the watch has seen; `null` before the first connection. A program that starts a watch at it
   * sees one event again, and misses none. Beyond 2^53 it is not exact: `BigInt(watcher.request.start_revision) - 1n` is.
   */
  lastRevision(): number | null {
    if (this.#next === undefined) return null;
    return Math.max(Number(BigInt(this.#next) - 1n), 1);
  }

  /** Ends the watch. Settles always, also while there is no connection and after `close()`, and may be called again. */
  async cancel(): Promise<void> {
    await this.#end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end();
  }

  /** The changes from the first one that was not handed out yet, one by one. See the class. */
  [Symbol.asyncIterator](): AsyncIterableIterator<E> {
    const iterator: WatchIterator<E> = new WatchIterator<E>(
      () => this.#share.wake(),
      () => this.#end(),
    );
    if (this.#isOver) {
      iterator.finish();
    } else {
      this.#iterators.add(iterator);
      this.#begin();
    }
    return iterator;
  }

  /** The create request is sent. */
  override on(event: 'connecting', handler: (req: IWatchCreateRequest) => void): this;
  /** The watch has been created, the first time or after a lost connection. */
  override on(event: 'connected', handler: (res: IWatchResponse) => void): this;
  /** Every answer of etcd, after its events were told one by one. */
  override on(event: 'data', handler: (res: IWatchResponse) => void): this;
  /** A key was written. `previous` is `null` without `withPreviousKV()`. */
  override on(event: 'put', handler: (kv: IKeyValue, previous?: IKeyValue) => void): this;
  /** A key was deleted, or expired. */
  override on(event: 'delete', handler: (kv: IKeyValue, previous?: IKeyValue) => void): this;
  /** The connection is lost, or none can be made: once until the next `connecting`. The watch goes on trying. */
  override on(event: 'disconnected', handler: (error: Error) => void): this;
  /** With `withRelist()`: what is there after a gap. */
  override on(event: 'list', handler: (kvs: IKeyValue[], revision: bigint) => void): this;
  /** The watch was cancelled, or its client closed. Never after `error`. */
  override on(event: 'end', handler: () => void): this;
  /** The watch is over: etcd refuses it. Waits for a listener; is logged when nobody listens and nobody iterates. */
  override on(event: 'error', handler: (error: Error) => void): this;
  // biome-ignore lint/suspicious/noExplicitAny: as EventEmitter has it
  override on(event: string | symbol, handler: (...args: any[]) => void): this;
  // biome-ignore lint/suspicious/noExplicitAny: as EventEmitter has it
  override on(event: string | symbol, handler: (...args: any[]) => void): this {
    return super.on(event, handler);
  }

  /** @internal */
  protected override listens(event: string | symbol): void {
    if (CHANGES.includes(event)) this.#begin();
  }

  /**
   * Whether `create()` has failed: what makes its error.
   *
   * @internal
   */
  opened(): Promise<Failed | undefined> {
    return this.#opening.done;
  }

  /** To be asked anew after each listener: any of them may end the watch. */
  get #isOver(): boolean {
    return this.#state === 'over';
  }

  #open(start: bigint, settle: boolean): EtcdWatchHandle {
    const { key, range_end, prev_kv, filters = [], fragment } = this.request;
    return native().EtcdWatchHandle.open(this.#connection.native, this.#listenId, {
      key: key as Buffer,
      rangeEnd: range_end ?? Buffer.alloc(0),
      startRevision: start,
      prevKv: prev_kv ?? false,
      noPut: filters.includes(FilterType.Noput),
      noDelete: filters.includes(FilterType.Nodelete),
      fragment: fragment ?? false,
      settle,
    });
  }

  #rewind(revision: string | number | bigint | undefined): void {
    const digits = String(int64(revision ?? 0, 'request.start_revision'));
    this.#written = digits;
    if (!this.#isOver) this.#handle.rewind(BigInt(digits));
  }

  // --- who wants changes

  /** Somebody does. Served in a turn of its own, for others may be about to come. */
  #begin(): void {
    if (this.#audience !== 'none' || this.#isOver) return;
    this.#audience = 'come';
    this.#handle.nudge();
  }

  #serve(): void {
    this.#audience = 'served';
    const deferred = this.#deferred;
    this.#deferred = undefined;
    deferred?.();
  }

  // --- reading what etcd tells

  /** Takes changes, `most` before it looks at the clock; says whether there are more for another turn of the event loop. */
  #read(most: number): boolean {
    if (this.#isReading) return false;
    this.#isReading = true;
    let left = most;
    try {
      while (this.#state === 'watching' || this.#state === 'gap') {
        if (left <= 0) left = share();
        if (left === 0) return true;
        if (!this.#records) {
          if (!this.#isReady || this.#isBusy()) return false;
          this.#isReady = false;
          const batch = this.#handle.take();
          if (!batch) return false;
          this.#records = new Records(batch, this.#keyspace.prefix.length);
        }
        if (this.#answer) {
          if (this.#isBusy()) return false;
          left -= this.#tellChanges(this.#records, this.#answer, left);
          continue;
        }
        const kind = this.#records.peek();
        if (kind === RESPONSE && this.#audience !== 'served' && this.#records.peekCount() > 0) {
          this.#isCreated(); // etcd has taken the watch
          return false;
        }
        if (kind === undefined) this.#records = undefined;
        else this.#record(this.#records, kind);
      }
      return false;
    } finally {
      this.#isReading = false;
    }
  }

  /** Whether somebody who iterates has not yet taken what is there. */
  #isBusy(): boolean {
    for (const iterator of this.#iterators) if (iterator.busy) return true;
    return false;
  }

  #record(records: Records, kind: number): void {
    const count = records.peekCount();
    records.skip(1);
    if (kind === RESPONSE) this.#response(records, count);
    else if (kind === CREATED) this.#created(records.created());
    else if (kind === CONNECTING) this.#connecting();
    else if (kind === SETTLED) this.#isCreated();
    else if (kind === DISCONNECTED) this.#disconnected();
    else if (kind === END) this.#ended();
  }

  #response(records: Records, count: number): void {
    const answer = records.answer(this.listenerCount('data') > 0 && (count > 0 || this.#shape.progress));
    if (answer.left > 0) this.#answer = answer;
    else this.#answered(answer);
  }

  /** Tells of at most `most` changes of a response, and of the whole after the last one. Says how many. */
  #tellChanges(records: Records, answer: Answer, most: number): number {
    const events = answer.response?.events;
    const puts = this.listenerCount('put') > 0;
    const deletes = this.listenerCount('delete') > 0;
    const iterates = this.#iterators.size > 0;
    let count = answer.left;
    if (events || puts || deletes || iterates) {
      count = Math.min(count, most);
      for (let i = 0; i < count; i++) {
        const change = records.change();
        const { deleted, kv, previous } = change;
        events?.push({ type: deleted ? 'Delete' : 'Put', kv, prev_kv: previous as IKeyValue });
        if (iterates) this.#give(watchChange(change) as E);
        if (deleted ? deletes : puts) this.#tellChange(deleted ? 'delete' : 'put', kv, previous);
        if (this.#isOver) return count; // cancelled by a listener
      }
      took(count);
    } else {
      records.skipChanges(count);
    }
    answer.left -= count;
    if (answer.left === 0) this.#answered(answer);
    return count;
  }

  /** All changes of a response are told. */
  #answered({ next, response }: Answer): void {
    this.#answer = undefined;
    this.#next = next;
    if (response) this.deliver('data', response);
  }

  #connecting(): void {
    if (!this.#isConnected && this.#state === 'watching') this.tell('connecting', this.request);
  }

  #created({ next, response }: Created): void {
    if (this.#state === 'gap') {
      this.#state = 'listing';
      void this.#list();
      return;
    }
    this.#id = response.watch_id;
    this.#next = next;
    this.#written = undefined;
    if (this.#isConnected) return;
    this.#isConnected = true;
    this.tell('connected', response);
  }

  #disconnected(): void {
    const { failure } = this.#failure();
    this.#id = null;
    if (this.#state !== 'watching') return;
    this.#isConnected = false;
    this.tell('disconnected', fromFailure(failure, OPERATION));
  }

  #ended(): void {
    const { kind, compactRevision, failure } = this.#failure();
    if (kind === 'closed') {
      void this.#closed();
    } else if (this.#shape.relist && (kind === 'compacted' || kind === 'history')) {
      this.#gap();
    } else if (kind === 'compacted') {
      this.#fail(() => new CompactedError(compactRevision, { operation: OPERATION }));
    } else if (kind === 'history') {
      this.#fail(() => new EtcdError(`Watcher canceled: ${failure.message}`, { operation: OPERATION }));
    } else {
      this.#fail(() => fromFailure(failure, OPERATION));
    }
  }

  #failure(): NativeWatchFailure {
    return this.#handle.failure() as NativeWatchFailure;
  }

  /** Lets `create()` go on, which tells the program that it is connected. */
  #isCreated(): void {
    if (this.#opening.settle()) this.forget('connecting', 'connected', 'disconnected');
  }

  // --- the list after a gap

  #gap(): void {
    this.#state = 'gap';
    this.#id = null;
    this.#reopen(0n);
  }

  #reopen(start: bigint): void {
    this.#handle.stop();
    this.#records = undefined;
    this.#answer = undefined;
    this.#isReady = false;
    this.#handle = this.#open(start, false);
  }

  async #list(): Promise<void> {
    const { key, range_end } = this.request;
    for (let tries = 1; ; tries++) {
      try {
        const answer = await this.#connection.exec<IRangeResponse>('KV', 'range', { key, range_end });
        if (this.#isOver) return;
        this.#listed(answer);
        return;
      } catch (error) {
        if (this.#isOver) return;
        if (tries < LIST_TRIES && (error as { retryable?: boolean }).retryable) continue;
        this.#fail(() => error);
        return;
      }
    }
  }

  #listed({ header, kvs }: IRangeResponse): void {
    const revision = BigInt(header.revision);
    for (const kv of kvs) kv.key = this.#keyspace.strip(kv.key);
    this.#state = 'watching';
    this.#next = String(revision + 1n);
    this.#reopen(revision + 1n);
    const tell = () => {
      if (this.#iterators.size > 0) {
        this.#give({ type: 'list', revision, keys: kvs.map(watchedKey) } satisfies WatchList as E);
      }
      this.deliver('list', kvs, revision);
    };
    this.#isCreated();
    if (this.#audience === 'served') tell();
    else this.#deferred = tell;
  }

  // --- telling

  /** As `deliver()`, and for the usual one listener without an array of the arguments: this runs for every event. */
  #tellChange(event: 'put' | 'delete', kv: IKeyValue, previous: IKeyValue | null): void {
    if (this.listenerCount(event) !== 1) {
      this.deliver(event, kv, previous);
      return;
    }
    try {
      super.emit(event, kv, previous);
    } catch (error) {
      rethrow(error);
    }
  }

  #give(item: E): void {
    for (const iterator of this.#iterators) iterator.put(item);
  }

  // --- the end

  /** Frees everything. False when that was done before. */
  #stop(): boolean {
    if (this.#isOver) return false;
    this.#state = 'over';
    this.#id = null;
    this.#isConnected = false;
    this.#records = undefined;
    this.#answer = undefined;
    this.#deferred = undefined;
    this.#handle.stop();
    this.#board.leave(this.#listenId);
    this.#release();
    this.#unlisten();
    return true;
  }

  /** By the program, or by the end of its client. A `create()` that waits is told why. */
  #end(why: Failed = () => abortedCall(AbortSignal.abort(), OPERATION)): Promise<void> {
    this.#ending ??= (async () => {
      if (!this.#stop()) return;
      for (const iterator of this.#iterators) iterator.finish();
      this.#iterators.clear();
      this.#opening.settle(why);
      await undefined; // who has just called can still add a listener
      this.tell('end');
    })();
    return this.#ending;
  }

  /** The client was closed. */
  #closed(): Promise<void> {
    return this.#end(() => new ClientClosedError('Watch'));
  }

  #aborted(signal: AbortSignal): Promise<void> {
    return this.#end(() => abortedCall(signal, OPERATION));
  }

  /** By etcd. */
  #fail(failed: Failed): void {
    if (!this.#stop()) return;
    this.#ending = Promise.resolve();
    if (this.#opening.settle(failed)) return;
    const heard = this.#iterators.size > 0;
    for (const iterator of this.#iterators) iterator.finish(failed);
    this.#iterators.clear();
    this.tellError(failed(), 'a watch is over', this.#connection.options.log, heard);
  }
}
