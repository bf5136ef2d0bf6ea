/** Saying what to watch: `client.watch()`. */

import { int64, unexpected } from '../check.js';
import { abortedCall, keyMissing } from '../errors.js';
import type { Keyspace } from '../kv/keyspace.js';
import { type Rangable, Range } from '../kv/range.js';
import { FilterType } from '../rpc/enums.js';
import type { IWatchCreateRequest } from '../rpc/messages.js';
import type { Connection } from '../transport/connection.js';
import { waited } from '../transport/waiting.js';
import type { WatchChange, WatchList } from './iterator.js';
import { Watcher, type WatchOptions } from './watcher.js';

/** Which filter leaves only one kind of change. */
const ONLY = { put: FilterType.Nodelete, delete: FilterType.Noput } as const;

/**
 * Says what to watch: `client.watch().prefix('jobs/').create()`.
 *
 * A watch goes on through lost connections, members that die or fall silent, and tokens that run out: it is created anew
 * after the last change that was delivered. Changes come in the order of their revisions, none is left out, and none comes
 * twice. A peer that is silent is noticed within `keepAliveMs` + `keepAliveTimeoutMs` by pings, and within twice
 * `keepAliveMs` when it answers those only. All watches of a client and its namespaces share one stream.
 */
export class WatchBuilder<E = WatchChange> {
  readonly #connection: Connection;
  readonly #keyspace: Keyspace;
  readonly #request: IWatchCreateRequest = { progress_notify: true };
  #range: Range | undefined;
  #progress = true;
  #relist = false;

  /** @internal */
  constructor(connection: Connection, keyspace: Keyspace) {
    this.#connection = connection;
    this.#keyspace = keyspace;
  }

  /** Watches one key. */
  key(key: string | Buffer): this {
    this.#range = new Range(key);
    return this;
  }

  /** Watches all keys that begin with `value`; with the empty prefix, all keys of the namespace. */
  prefix(value: string | Buffer): this {
    return this.inRange(Range.prefix(value));
  }

  /** Watches the keys of a range. */
  inRange(r: Rangable): this {
    this.#range = Range.from(r);
    return this;
  }

  /**
   * Leaves out what is not named; with both named, or none, nothing is left out. The server does it.
   *
   * @throws Error for another word than `'put'` and `'delete'`.
   */
  only(...operations: ('put' | 'delete')[]): this {
    for (const operation of operations) {
      if (!Object.hasOwn(ONLY, operation)) throw unexpected(operation, 'only()', Object.keys(ONLY));
    }
    const kinds = [...new Set(operations)];
    // Both filters together would leave nothing.
    this.#request.filters = kinds.length === 1 ? kinds.map((kind) => ONLY[kind]) : [];
    return this;
  }

  /**
   * The same as `only()`, which is the opposite of what its name says.
   *
   * @deprecated Use `only()`.
   */
  ignore(...operations: ('put' | 'delete')[]): this {
    return this.only(...operations);
  }

  /** Each change brings the key as it was before, as the second argument of `put` and `delete`, and as `previous`. */
  withPreviousKV(): this {
    this.#request.prev_kv = true;
    return this;
  }

  /**
   * Begins with the changes of this revision, which may be of the past, instead of now; 0 is now. Digits are kept: a
   * number beyond 2^53 goes as string or bigint.
   *
   * @throws InvalidArgumentError for what is not a 64-bit number.
   */
  startRevision(revision: string | number | bigint): this {
    this.#request.start_revision = String(int64(revision, 'startRevision()'));
    return this;
  }

  /**
   * Whether `data` also tells, without events, how far the watch is while nothing changes. The server does so every ten
   * minutes unless it is set otherwise. Default: true, as in etcd3. The watch itself uses it in any case.
   */
  withProgressNotify(on = true): this {
    this.#progress = on;
    return this;
  }

  /**
   * Hands a large answer over in the parts that it comes in, `fragment` being true in all but the last; a revision may
   * then be cut in two. Default: whole revisions, of at most `maxMessageBytes`.
   */
  withFragment(): this {
    this.#request.fragment = true;
    return this;
  }

  /**
   * What to do when the history has a gap, because changes were compacted before they were delivered, or the store was
   * restored from an older state: reads everything that is there, tells it by a `list` event, and watches on from its
   * revision. Default: the watch ends with an `error`, after a compaction a `CompactedError`.
   */
  withRelist(): WatchBuilder<E | WatchList> {
    this.#relist = true;
    return this;
  }

  /**
   * Begins to watch and does not wait; what becomes of it is told by events.
   *
   * @throws GRPCInvalidArgumentError when no key was given, ClientClosedError after `close()`, UnsupportedError while the
   * client is mocked.
   */
  watcher(options?: WatchOptions): Watcher<E> {
    return this.#make({ ...options, awaited: false });
  }

  /**
   * Begins to watch, and resolves once etcd has confirmed it; changes wait until the program listens or iterates. While no member can be reached it goes on trying: give it `timeoutMs` or a `signal`.
   *
   * @throws CompactedError when the start revision is compacted, `EtcdPermissionDeniedError` when the range may not be
   * watched, and whatever else etcd refuses it with; other watches are not touched. Also what `watcher()` throws.
   */
  async create(options?: WatchOptions): Promise<Watcher<E>> {
    if (options?.signal?.aborted) throw abortedCall(options.signal, 'Watch.watch');
    const watcher = this.#make({ ...options, awaited: true });
    let failure: Awaited<ReturnType<typeof watcher.opened>>;
    try {
      failure = await waited(watcher.opened(), { timeoutMs: options?.timeoutMs }, 'Watch.watch');
    } catch (error) {
      await watcher.cancel();
      throw error;
    }
    if (failure) throw failure(); // made here, so that its stack shows the caller
    return watcher;
  }

  #make(how: WatchOptions & { awaited: boolean }): Watcher<E> {
    const range = this.#range;
    if (!range || range.start.length === 0) {
      throw keyMissing('watch() needs .key() with a key that is not empty, .prefix() or .inRange()');
    }
    const request = { ...this.#request, ...this.#keyspace.range(range) };
    return new Watcher<E>(this.#connection, this.#keyspace, request, {
      ...how,
      progress: this.#progress,
      relist: this.#relist,
    });
  }
}
