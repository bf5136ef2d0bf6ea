/** A watch, and the events that it tells. */

import { onAbort } from '../../common/abort.js';
import { Emitter } from '../../common/emitter.js';
import { Share, share, took } from '../../common/turns.js';
import { UnsupportedError } from '../../errors.js';
import { type EtcdWatchHandle, native } from '../../native.js';
import { int64 } from '../check.js';
import { abortedRead, ClientClosedError, CompactedError, EtcdError, fromFailure } from '../errors.js';
import type { Keyspace } from '../kv/keyspace.js';
import { FilterType } from '../rpc/enums.js';
import type { IEvent, IKeyValue, IRangeResponse, IWatchCreateRequest, IWatchResponse } from '../rpc/messages.js';
import type { Connection } from '../transport/connection.js';
import type { Backoff, BackoffFactory } from '../transport/fault-handling.js';
import { type WatchChange, WatchIterator, type WatchList, watchChange, watchedKey } from './iterator.js';
import { CONNECTING, CREATED, DISCONNECTED, END, RESPONSE, Records, SETTLED } from './records.js';

const OPERATION = 'Watch.watch';

/** Who is told that the native side has something, by the ids of the watches of a client. */
type Board = Map<number, () => void>;

const boards = new WeakMap<Connection, Board>();
let lastId = 0;

/** One for each client, made with its first watch: a wake-up of its own for watches is cheaper than an event for each. */
function boardOf(connection: Connection): Board {
  const known = boards.get(connection);
  if (known) return known;
  const board: Board = new Map();
  const tell = (id: number) => {
    try {
      board.get(id)?.();
    } catch (error) {
      rethrow(error); // the other watches are not to be lost with it
    }
  };
  const pauses = pausesOf(connection.options.faultHandling.watchBackoff);
  connection.native.watchesTell((ids) => {
    if (typeof ids === 'number') tell(ids);
    else for (const id of ids) tell(id);
  }, pauses);
  boards.set(connection, board);
  return board;
}

/** The most pauses that are asked of a backoff: by then it is at its longest. */
const PAUSES = 32;
/** The longest pause, in milliseconds: an hour. */
const PAUSE_MOST_MS = 3_600_000;

/** The pauses of a backoff, or of what makes one, asked for once: the native side waits, not JavaScript. */
function pausesOf(given: Backoff | BackoffFactory | undefined): number[] {
  const pauses: number[] = [];
  let backoff = given && 'duration' in given ? given : given?.next(undefined);
  // One that is over keeps its last pause.
  while (backoff && pauses.length < PAUSES) {
    const { duration } = backoff;
    pauses.push(Number.isFinite(duration) ? Math.min(Math.max(duration, 0), PAUSE_MOST_MS) : 0);
    backoff = backoff.next(undefined);
  }
  return pauses;
}

/** What a listener of the program threw is not ours to swallow. */
function rethrow(error: unknown): void {
  queueMicrotask(() => {
    throw error;
  });
}

/** How often the list after a gap is tried to be read before the watch fails. Each try goes over all members. */
const LIST_TRIES = 3;

/** How a watch ends besides by itself. */
export interface WatchOptions {
  /** Cancels the watch when it fires. A `create()` that is waiting rejects with `GRPCCancelledError`. */
  signal?: AbortSignal;
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
  readonly #listenId = ++lastId;
  readonly #board: Board;
  readonly #release: () => void;
  readonly #unlisten: () => void = () => {};
  #handle: EtcdWatchHandle;

  #id: string | null = null;
  /** Where it would resume: digits, or `undefined` before the first connection. */
  #next: string | undefined;
  /** What the program has written to `request.start_revision`, until it is used. */
  #written: string | undefined;
  #isConnected = false;

  /** What is being read. */
  #records: Records | undefined;
  /** How many changes of the response that is being read are left, and what is told after the last of them. */
  #changes = 0;
  #answered: (() => void) | undefined;
  /** Those told so far, when somebody listens to `data`. */
  #events: IEvent[] | undefined;
  readonly #share = new Share((most) => this.#read(most));
  /** Something waits on the native side. */
  #ready = false;
  #reading = false;
  /** Whether somebody wants changes: nobody yet; since this turn of the event loop; they are handed out. */
  #audience: 'none' | 'come' | 'served' = 'none';
  /** Nothing is read while the list after a gap is being read. */
  #held = false;
  /** That list, when nobody wants it yet. */
  #deferred: (() => void) | undefined;
  /** `create()` waits. */
  #opening: ((failure?: () => unknown) => void) | undefined;
  readonly #opened: Promise<(() => unknown) | undefined>;
  /** Between a gap and the list after it: the watch only waits for a connection. */
  #listing = false;

  readonly #iterators = new Set<WatchIterator<E>>();
  #over = false;
  #ending: Promise<void> | undefined;

  /** @internal */
  constructor(connection: Connection, keyspace: Keyspace, request: IWatchCreateRequest, shape: Shape) {
    super(VOIDS);
    if (connection.mocked) {
      throw new UnsupportedError(`${OPERATION}: a mocked client has no watches; unmock() it, or mock the watcher`);
    }
    this.#connection = connection;
    this.#keyspace = keyspace;
    this.#board = boardOf(connection);
    this.#shape = shape;
    this.#written = request.start_revision === undefined ? undefined : String(request.start_revision);
    this.request = Object.defineProperty({ ...request }, 'start_revision', {
      configurable: true,
      enumerable: true,
      get: () => this.#written ?? this.#next,
      set: (revision: string | number | bigint | undefined) => this.#rewind(revision),
    });
    this.#opened = shape.awaited
      ? new Promise((resolve) => {
          this.#opening = resolve;
        })
      : Promise.resolve(undefined);
    this.#handle = this.#open(BigInt(this.#written ?? 0), shape.awaited);
    this.#board.set(this.#listenId, () => {
      this.#ready = true;
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
    if (this.#over) {
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
  opened(): Promise<(() => unknown) | undefined> {
    return this.#opened;
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
    if (!this.#over) this.#handle.rewind(BigInt(digits));
  }

  // --- who wants changes

  /** Somebody does. Served in a turn of its own, for others may be about to come. */
  #begin(): void {
    if (this.#audience !== 'none' || this.#over) return;
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
    if (this.#reading) return false;
    this.#reading = true;
    let left = most;
    try {
      while (!this.#over && !this.#held) {
        if (left <= 0) left = share();
        if (left === 0) return true;
        if (!this.#records) {
          if (!this.#ready || this.#isBusy()) return false;
          this.#ready = false;
          const batch = this.#handle.take();
          if (!batch) return false;
          this.#records = new Records(batch, this.#keyspace.prefix.length);
        }
        if (this.#changes > 0) {
          if (this.#isBusy()) return false;
          left -= this.#tellChanges(this.#records, left);
          continue;
        }
        const kind = this.#records.peek();
        if (kind === RESPONSE && this.#audience !== 'served' && this.#records.peekCount() > 0) {
          this.#settle(); // etcd has taken the watch
          return false;
        }
        if (kind === undefined) this.#records = undefined;
        else this.#record(this.#records, kind);
      }
      return false;
    } finally {
      this.#reading = false;
    }
  }

  /** Whether somebody who iterates has not yet taken what is there. */
  #isBusy(): boolean {
    for (const iterator of this.#iterators) if (iterator.busy) return true;
    return false;
  }

  #record(records: Records, kind: number): void {
    records.skip(1);
    if (kind === RESPONSE) this.#response(records);
    else if (kind === CREATED) this.#created(records);
    else if (kind === CONNECTING) this.#connecting();
    else if (kind === SETTLED) this.#settle();
    else if (kind === DISCONNECTED) this.#disconnected();
    else if (kind === END) this.#ended();
  }

  #response(records: Records): void {
    const fragment = records.number() === 1;
    const count = records.number();
    const next = records.digits();
    this.#changes = count;
    this.#events = undefined;
    if (this.listenerCount('data') > 0 && (count > 0 || this.#shape.progress)) {
      const events: IEvent[] = [];
      const watch_id = records.digits();
      const header = records.header();
      this.#events = events;
      this.#answered = () => {
        this.#next = next;
        this.deliver('data', {
          header,
          watch_id,
          created: false,
          canceled: false,
          compact_revision: '0',
          cancel_reason: '',
          fragment,
          events,
        });
      };
    } else {
      records.skip(10);
      this.#answered = () => {
        this.#next = next;
      };
    }
    if (count === 0) this.#answered();
  }

  /** Tells of at most `most` changes of a response, and of the whole after the last one. Says how many. */
  #tellChanges(records: Records, most: number): number {
    const events = this.#events;
    const puts = this.listenerCount('put') > 0;
    const deletes = this.listenerCount('delete') > 0;
    const iterates = this.#iterators.size > 0;
    let count = this.#changes;
    if (events || puts || deletes || iterates) {
      count = Math.min(count, most);
      for (let i = 0; i < count; i++) {
        const change = records.change();
        const { deleted, kv, previous } = change;
        events?.push({ type: deleted ? 'Delete' : 'Put', kv, prev_kv: previous as IKeyValue });
        if (iterates) this.#give(watchChange(change) as E);
        if (deleted ? deletes : puts) this.#tellChange(deleted ? 'delete' : 'put', kv, previous);
        if (this.#over) return count; // cancelled by a listener
      }
      took(count);
    } else {
      records.skipChanges(count);
    }
    this.#changes -= count;
    if (this.#changes === 0) this.#answered?.();
    return count;
  }

  #connecting(): void {
    if (!this.#isConnected && !this.#listing) this.tell('connecting', this.request);
  }

  #created(records: Records): void {
    records.skip(1);
    const next = records.digits();
    const watch_id = records.digits();
    const header = records.header();
    if (this.#listing) {
      this.#held = true;
      void this.#list();
      return;
    }
    this.#id = watch_id;
    this.#next = next;
    this.#written = undefined;
    if (this.#isConnected) return;
    this.#isConnected = true;
    this.tell('connected', {
      header,
      watch_id,
      created: true,
      canceled: false,
      compact_revision: '0',
      cancel_reason: '',
      fragment: false,
      events: [],
    });
  }

  #disconnected(): void {
    const { failure } = this.#failure();
    this.#id = null;
    if (this.#listing) return;
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

  #failure(): NativeFailure {
    return JSON.parse(this.#handle.failure() as string) as NativeFailure;
  }

  // --- waiting for who called create()

  /** Lets `create()` go on, which tells the program that it is connected. */
  #settle(): void {
    const opening = this.#opening;
    if (!opening) return;
    this.#opening = undefined;
    this.forget('connecting', 'connected', 'disconnected');
    opening();
  }

  // --- the list after a gap

  /** Changes are lost. Waits for a connection by a watch from now on, which is what the native side can do best. */
  #gap(): void {
    this.#listing = true;
    this.#id = null;
    this.#reopen(0n);
  }

  #reopen(start: bigint): void {
    this.#handle.stop();
    this.#records = undefined;
    this.#changes = 0;
    this.#ready = false;
    this.#held = false;
    this.#handle = this.#open(start, false);
  }

  async #list(): Promise<void> {
    const { key, range_end } = this.request;
    for (let tries = 1; ; tries++) {
      try {
        const answer = await this.#connection.exec<IRangeResponse>('KV', 'range', { key, range_end });
        if (this.#over) return;
        this.#listed(answer);
        return;
      } catch (error) {
        if (this.#over) return;
        if (tries < LIST_TRIES && (error as { retryable?: boolean }).retryable) continue;
        this.#fail(() => error);
        return;
      }
    }
  }

  #listed({ header, kvs }: IRangeResponse): void {
    const revision = BigInt(header.revision);
    for (const kv of kvs) kv.key = this.#keyspace.strip(kv.key);
    this.#listing = false;
    this.#next = String(revision + 1n);
    this.#reopen(revision + 1n);
    const tell = () => {
      if (this.#iterators.size > 0) {
        this.#give({ type: 'list', revision, keys: kvs.map(watchedKey) } satisfies WatchList as E);
      }
      this.deliver('list', kvs, revision);
    };
    this.#settle();
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
    if (this.#over) return false;
    this.#over = true;
    this.#id = null;
    this.#isConnected = false;
    this.#records = undefined;
    this.#deferred = undefined;
    this.#handle.stop();
    this.#board.delete(this.#listenId);
    this.#release();
    this.#unlisten();
    return true;
  }

  /** By the program. */
  #end(): Promise<void> {
    this.#ending ??= (async () => {
      if (!this.#stop()) return;
      for (const iterator of this.#iterators) iterator.finish();
      this.#iterators.clear();
      this.#opening?.(() => abortedRead(AbortSignal.abort(), OPERATION));
      await undefined; // who has just called can still add a listener
      this.tell('end');
    })();
    return this.#ending;
  }

  /** The client was closed. */
  async #closed(): Promise<void> {
    this.#opening?.(() => new ClientClosedError('Watch'));
    this.#opening = undefined;
    await this.#end();
  }

  async #aborted(signal: AbortSignal): Promise<void> {
    this.#opening?.(() => abortedRead(signal, OPERATION));
    this.#opening = undefined;
    await this.#end();
  }

  /** By etcd. */
  #fail(failure: () => unknown): void {
    if (!this.#stop()) return;
    this.#ending = Promise.resolve();
    const opening = this.#opening;
    if (opening) {
      opening(failure);
      return;
    }
    const heard = this.#iterators.size > 0;
    for (const iterator of this.#iterators) iterator.finish(failure);
    this.#iterators.clear();
    this.tellError(failure(), 'a watch is over', this.#connection.options.log, heard);
  }
}

/** As `failure()` of the native side gives it. */
interface NativeFailure {
  readonly kind: 'disconnected' | 'compacted' | 'history' | 'closed' | 'refused';
  readonly compactRevision: string;
  readonly failure: { readonly message: string };
}
