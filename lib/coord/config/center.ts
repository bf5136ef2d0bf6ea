/** The configuration of a client: read, written, followed, opened. */

import { fromNative } from '../../common/failure.js';
import { integer, invalid, kindOf, optional, record, shown, text, wellFormed } from '../../common/shape.js';
import { outcomeOf } from '../../common/waiting.js';
import { aborted, UnavailableError } from '../../errors.js';
import { checked } from '../../registry/call.js';
import { type CallOptions, signalOf, type WatchOptions } from '../../registry/call-options.js';
import { InvalidConfigError, NotFoundError } from '../errors.js';
import { KEY_MOST, keyOf, only, prefixOf, under } from '../keys.js';
import type { Identity } from '../options.js';
import type { Change, Expected, Limits, Store } from '../store.js';
import { type Applied, appliedOf, Reporter, reportsOf, type State } from './applied.js';
import { Cache } from './cache.js';
import { agree, type ConfigDef, isDefinition, type Resolved, resolve } from './definition.js';
import { difference } from './diff.js';
import type { Entries, Entry } from './entry.js';
import { type Began, Following } from './following.js';
import { Held } from './held.js';
import { type Authorship, HISTORY_LONGER, historyOf, type Version, versionsOf } from './history.js';
import { ConfigRef } from './ref.js';
import { isKeyOf, shownVersions } from './secret.js';
import { writtenAs } from './text.js';
import { ConfigWatcher } from './watcher.js';
import { Writer } from './writer.js';

/** What is said of a change, for `history()`. */
export interface ChangeOptions extends CallOptions {
  /** Why it is made; 4096 characters at the most. Default: none. */
  comment?: string | undefined;
  /** Who makes it. Default: `instance` of the client. */
  author?: string | undefined;
}

/** Options of `history()`. */
export interface HistoryOptions extends CallOptions {
  /** The newest so many. Default: all that are kept. */
  limit?: number | undefined;
}

/** Options of `diff()`. */
export interface DiffOptions extends CallOptions {
  /** Of what the key is a layer or an entry: its `secret` is not shown. Default: what this client has opened of it. */
  definition?: ConfigDef<unknown> | undefined;
}

/** Options of `set()` and `delete()`. */
export interface SetOptions extends ChangeOptions {
  /** Only if the key was written last at this revision; 0: only if there is none. Default: whatever is there. */
  ifRevision?: bigint | number | undefined;
}

/** Options of `setAll()`. */
export interface SetAllOptions extends ChangeOptions {
  /** Only if each of these keys was written last at its revision; 0: only if there is none. They need not be among those that change. */
  ifRevisions?: Readonly<Record<string, bigint | number>> | undefined;
}

/** Options of `open()`. */
export type OpenOptions = WatchOptions;

type AnyHeld = Held<unknown>;

/** The options that say of a change who and why. */
const BY = ['comment', 'author'] as const;
/** How long the end of a client waits for its report to be taken away, at the most. */
const LEAVE_MS = 1000;
/** The longest of them. */
const SAID_MOST = 4096;

interface Open {
  readonly held: AnyHeld;
  readonly following: Following;
  readonly began: Promise<Began>;
}

/**
 * The configuration that a store keeps, of `coord.config`. A value is JSON, or text; a key is a path such as
 * `/config/prod/orders/limits`.
 *
 * Everything here rejects with `ERR_UNSUPPORTED` on a registry that keeps no configuration, with `ERR_CLOSED` after the end,
 * and, as every call, with `ERR_INVALID_ARGUMENT`, `ERR_TIMEOUT`, `ERR_UNAVAILABLE`, `ERR_PERMISSION_DENIED`,
 * `ERR_UNAUTHENTICATED` and `ERR_ABORTED`. Reads are tried again until `timeoutMs`. Writes are, where it is certain that
 * nothing was written; where that is not known, the error has `outcomeUnknown`.
 */
export class ConfigCenter {
  readonly #store: Store;
  readonly #identity: Identity;
  readonly #open = new Map<string, Open>();
  readonly #followings = new Map<string, Following>();
  /** The definitions with secrets that were opened, by their keys: what is known of them outlives that. */
  readonly #secret = new Map<string, ConfigDef<unknown>>();
  readonly #cache: Cache | undefined;
  readonly #writer: Writer;
  readonly #reporter: Reporter | undefined;

  /** @internal */
  constructor(store: Store, identity: Identity) {
    this.#store = store;
    this.#identity = identity;
    this.#writer = new Writer(store, identity.history);
    if (identity.reportApplied) this.#reporter = new Reporter(store, identity, () => this.#states());
    if (identity.cacheDir !== undefined) this.#cache = new Cache(identity.cacheDir, store.log);
  }

  /**
   * Opens a configuration: resolves with its first value. All who open one key share what is followed, and its value. Where its
   * folders are followed already, that is what is known of them: it may lag behind a `set()` of one's own by `settleMs`.
   *
   * While the store can't be reached it waits for `connectTimeoutMs`. Then it does with the last-known-good file (`cacheDir`), else with
   * the definition's default, `stale`, until the store is there; without either it rejects with `ERR_UNAVAILABLE`. It has no
   * other limit but the signal. Where what lies in the store is refused, it does with the file too, `rejected`.
   *
   * @throws `ERR_INVALID_CONFIG` where what lies there is refused, as it also is where nothing does and the schema wants
   * something; `ERR_INVALID_ARGUMENT` for an option that the key needs, and for another definition of a key that is open;
   * `ERR_UNAVAILABLE`, `ERR_UNSUPPORTED`, `ERR_PERMISSION_DENIED`, `ERR_UNAUTHENTICATED`, `ERR_ABORTED`, `ERR_CLOSED`.
   */
  async open<T>(definition: ConfigDef<T>, options?: OpenOptions): Promise<ConfigRef<T>> {
    const { signal, open } = checked('open', () => {
      const signal = signalOf(options);
      const resolved = resolve(definition, this.#identity);
      this.#store.refuseClosed('open', signal);
      return { signal, open: this.#opened(resolved) };
    });
    const { held } = open;
    held.users++;
    const letGo = this.#store.hold();
    try {
      const outcome = await outcomeOf(open.began, signal);
      if (typeof outcome === 'string') throw aborted(signal, 'open');
      this.#store.refuseClosed('open');
      const began = outcome.value;
      if (began.is === 'failed') throw fromNative(began.error, 'open');
      if (began.is === 'silent') throw await this.#unreached(held);
      if (!held.valid) throw refusedAtStart(held.rejected as InvalidConfigError);
    } catch (error) {
      this.#release(held);
      throw error;
    } finally {
      letGo();
    }
    const users = {
      retain: () => {
        held.users++;
      },
      release: () => this.#release(held),
    };
    return ConfigRef.of(held as unknown as Held<T>, this.#store.log, users);
  }

  /** Opens a configuration for its value now, and closes it. All that is said of `open()` holds, whose errors it has. */
  async get<T>(definition: ConfigDef<T>, options?: OpenOptions): Promise<T> {
    const ref = await this.open(definition, options);
    ref.close();
    return ref.value;
  }

  /**
   * Which revision of a configuration each instance of this service has applied, of those that report (`reportApplied`), sorted by
   * name. One that was killed is there for an hour more: see `at`.
   *
   * @throws `ERR_INVALID_ARGUMENT` without the options that its key needs, and without `service`.
   */
  async applied<T>(definition: ConfigDef<T>, options?: CallOptions): Promise<readonly Applied[]> {
    const { key, folder, limits } = checked('applied', () => ({
      key: resolve(definition, this.#identity).def.key,
      folder: reportsOf(this.#identity),
      limits: this.#store.limits(options),
    }));
    const reports = await this.#store.read('applied', [under(folder)], limits);
    return Object.freeze(appliedOf(key, reports, folder));
  }

  /** What stands at a key, as text; `null`: nothing. One read of the store. */
  async raw(key: string, options?: CallOptions): Promise<Entry | null> {
    const { at, limits } = checked('raw', () => ({ at: keyOf('key', key), limits: this.#store.limits(options) }));
    const [entry] = await this.#store.read('raw', [only(at)], limits);
    return entry ?? null;
  }

  /** What stands below a prefix, sorted by the bytes of the keys, all of one revision. One read of the store. */
  async list(prefix: string, options?: CallOptions): Promise<readonly Entry[]> {
    const { at, limits } = checked('list', () => ({
      at: prefixOf('prefix', prefix),
      limits: this.#store.limits(options),
    }));
    return await this.#store.read('list', [under(at)], limits);
  }

  /**
   * Writes a value: text as it is, all else as JSON. Resolves with the revision of the store at which it was written.
   *
   * @throws `ERR_CONFLICT`, with the current entry, where `ifRevision` does not hold.
   */
  async set(key: string, value: unknown, options?: SetOptions): Promise<bigint> {
    const { change, expected, by, limits } = checked('set', () => {
      const at = this.#writtenKey('key', key);
      return { change: { key: at, value: writtenAs('value', value) }, ...this.#one(at, options) };
    });
    return (await this.#writer.write('set', expected, [change], by, limits)).revision;
  }

  /**
   * Makes changes at once: each key gets its value, `null` deletes. Whoever follows sees all of them or none. Resolves with the
   * revision of the store. (etcd takes 128 changes, unless it was started to take more.)
   *
   * @throws `ERR_CONFLICT`, with the first entry that is another one, where `ifRevisions` do not hold.
   */
  async setAll(changes: Readonly<Record<string, unknown>>, options?: SetAllOptions): Promise<bigint> {
    const { all, expected, by, limits } = checked('setAll', () => {
      const limits = this.#store.limits(options, ['ifRevisions', ...BY]);
      const by = this.#by(options);
      const all = Object.entries(record('changes', changes)).map(([key, value]): Change => {
        const path = `changes[${JSON.stringify(key)}]`;
        return { key: this.#writtenKey(path, key), value: value === null ? null : writtenAs(path, value) };
      });
      if (all.length === 0) throw invalid('changes', 'expected at least one');
      const wanted = record('options.ifRevisions', optional('options', options).ifRevisions ?? {});
      const expected = Object.entries(wanted).map(([key, revision]): Expected => {
        const path = `options.ifRevisions[${JSON.stringify(key)}]`;
        return { key: keyOf(path, key), revision: revisionOf(path, revision) };
      });
      return { all, expected, by, limits };
    });
    return (await this.#writer.write('setAll', expected, all, by, limits)).revision;
  }

  /**
   * Deletes a key. `false`: there was none.
   *
   * @throws `ERR_CONFLICT`, with the current entry, where `ifRevision` does not hold.
   */
  async delete(key: string, options?: SetOptions): Promise<boolean> {
    const { at, expected, by, limits } = checked('delete', () => {
      const at = this.#writtenKey('key', key);
      return { at, ...this.#one(at, options) };
    });
    return (await this.#writer.write('delete', expected, [{ key: at, value: null }], by, limits)).deleted;
  }

  /**
   * What stands at a key and what stood there before, the newest first. It has what was replaced by a client of coord whose
   * `history` is not 0, whoever had written it; what others have replaced it does not know.
   */
  async history(key: string, options?: HistoryOptions): Promise<readonly Version[]> {
    const { at, limits, limit } = checked('history', () => ({
      at: keyOf('key', key),
      limits: this.#store.limits(options, ['limit']),
      limit: integer('options.limit', options?.limit, Number.MAX_SAFE_INTEGER, {
        min: 1,
        max: Number.MAX_SAFE_INTEGER,
      }),
    }));
    return (await this.#versions('history', at, limits)).slice(0, limit);
  }

  /**
   * What makes version `to` of a key of version `from`, line by line: ` ` in front of what is the same, `-` of what only `from` has,
   * `+` of what only `to` has; JSON is laid out before. Empty where they say the same. The secrets of a definition are `…` in it.
   *
   * @throws `ERR_NOT_FOUND` where a version is not known.
   */
  async diff(key: string, from: bigint | number, to: bigint | number, options?: DiffOptions): Promise<string> {
    const { at, revisions, limits, known } = checked('diff', () => {
      const at = keyOf('key', key);
      const given = options?.definition;
      if (given !== undefined && !isDefinition(given)) {
        throw invalid('options.definition', `expected what defineConfig() gives, got ${kindOf(given)}`);
      }
      const all = given ? [given, ...this.#secret.values()] : [...this.#secret.values()];
      return {
        at,
        revisions: [revisionOf('from', from), revisionOf('to', to)] as const,
        limits: this.#store.limits(options, ['definition']),
        known: all.find((def) => def.secret.length > 0 && isKeyOf(def, at)),
      };
    });
    const versions = await this.#versions('diff', at, limits);
    const [before, after] = revisions.map((revision) => versionAt('diff', at, versions, revision));
    const texts = [before?.value as string | null, after?.value as string | null] as const;
    return difference(...(known ? shownVersions(known, at, ...texts) : texts));
  }

  /**
   * Writes what stood at a key at revision `to`, or deletes it where nothing did, if nobody changes it meanwhile. Resolves with the
   * revision of the store at which it was written.
   *
   * @throws `ERR_NOT_FOUND` where that version is not known; `ERR_CONFLICT`.
   */
  async rollback(key: string, to: bigint | number, options?: ChangeOptions): Promise<bigint> {
    const { at, revision, by, limits } = checked('rollback', () => {
      const at = this.#writtenKey('key', key);
      const revision = revisionOf('to', to);
      const limits = this.#store.limits(options, BY);
      return { at, revision, by: this.#by(options), limits };
    });
    const versions = await this.#versions('rollback', at, limits);
    const { value } = versionAt('rollback', at, versions, revision);
    const [current] = versions as [Version];
    const expected = [{ key: at, revision: current.value === null ? 0 : Number(current.revision) }];
    const said = { ...by, comment: by.comment ?? `rollback to ${revision}` };
    return (await this.#writer.write('rollback', expected, [{ key: at, value }], said, limits)).revision;
  }

  /** Follows a key: what stands there, and then each change; `null` is that nothing does. */
  watch(key: string, options?: WatchOptions): ConfigWatcher<Entry | null> {
    const { at, signal } = checked('watch', () => ({ at: keyOf('key', key), signal: signalOf(options) }));
    return ConfigWatcher.of(this.#store, 'watch', [only(at)], signal, ([entry]) => entry ?? null);
  }

  /** Follows all keys below a prefix: whole snapshots, by key, each of one revision of the store. */
  watchPrefix(prefix: string, options?: WatchOptions): ConfigWatcher<ReadonlyMap<string, Entry>> {
    const { at, signal } = checked('watchPrefix', () => ({
      at: prefixOf('prefix', prefix),
      signal: signalOf(options),
    }));
    const mapped = (list: Entries) => new Map(list.map((entry) => [entry.key, entry]));
    return ConfigWatcher.of(this.#store, 'watchPrefix', [under(at)], signal, mapped);
  }

  /**
   * Takes back what is reported of it, before it is closed.
   *
   * @internal
   */
  async leave(): Promise<void> {
    await this.#reporter?.leave(Math.min(this.#store.timeoutMs, LEAVE_MS));
  }

  /** What is open, by the keys of the definitions. */
  #states(): Map<string, State> {
    const held = [...this.#open.values()].map((open) => open.held).filter(({ valid }) => valid);
    return new Map(held.map((one) => [one.resolved.def.key, one]));
  }

  /**
   * Ends everything that is open, and waits until what was good last is on disk.
   *
   * @internal
   */
  async close(): Promise<void> {
    for (const following of [...this.#followings.values()]) following.stop();
    await this.#cache?.settled(this.#store.timeoutMs);
  }

  #one(key: string, options: SetOptions | undefined): { expected: Expected[]; by: Authorship; limits: Limits } {
    const limits = this.#store.limits(options, ['ifRevision', ...BY]);
    const wanted = options?.ifRevision;
    const revision = wanted === undefined ? undefined : revisionOf('options.ifRevision', wanted);
    return { expected: revision === undefined ? [] : [{ key, revision }], by: this.#by(options), limits };
  }

  #by(options: ChangeOptions | undefined): Authorship {
    const said = (name: 'comment' | 'author') => {
      const given = text(`options.${name}`, options?.[name]);
      if (given === undefined) return undefined;
      if (given.length > SAID_MOST) throw invalid(`options.${name}`, `expected at most ${SAID_MOST} characters`);
      return wellFormed(`options.${name}`, given);
    };
    const comment = said('comment');
    if (comment !== undefined && this.#identity.history === 0) {
      throw invalid(
        'options.comment',
        'expected none, for options.history of connectCoord() is 0, so that none is kept',
      );
    }
    return { comment, author: said('author') ?? this.#identity.instance };
  }

  /** A key that is changed: the keys of what is kept of it are longer. */
  #writtenKey(path: string, value: unknown): string {
    const key = keyOf(path, value);
    const most = KEY_MOST - HISTORY_LONGER;
    const bytes = Buffer.byteLength(key);
    if (this.#identity.history === 0 || bytes <= most) return key;
    throw invalid(
      path,
      `expected at most ${most} bytes, or no history (options.history of connectCoord()), got ${bytes}`,
    );
  }

  /** All versions of a key that are known, the newest first. */
  async #versions(operation: string, key: string, limits: Limits): Promise<readonly Version[]> {
    // First the key: what was moved until then is complete.
    const { entries, revision } = await this.#store.readAt(operation, [only(key)], limits);
    const records = await this.#store.read(operation, [under(historyOf(key))], limits);
    return Object.freeze(versionsOf(key, entries[0] ?? null, records, revision));
  }

  /** What is open of a key; begun if nothing is. */
  #opened<T>(resolved: Resolved<T>): Open {
    const known = this.#open.get(resolved.key);
    if (known) {
      if (agree(known.held.resolved.def, resolved.def)) return known;
      throw invalid('definition', `expected what ${resolved.key} was opened with: another definition of it is open`);
    }
    if (resolved.def.secret.length > 0) this.#secret.set(resolved.def.key, resolved.def);
    const folders = resolved.folders.join('\n');
    const following = this.#followings.get(folders) ?? new Following(this.#store, resolved.folders);
    this.#followings.set(folders, following);
    const file = resolved.def.cache ? this.#cache?.of(resolved) : undefined;
    const held = new Held(
      resolved,
      file,
      () => this.#reporter?.changed(),
      this.#store.log,
      this.#store.timeoutMs,
    ) as unknown as AnyHeld;
    const open = { held, following, began: following.join(held) };
    this.#open.set(resolved.key, open);
    return open;
  }

  #release(held: AnyHeld): void {
    if (--held.users > 0) return;
    const { key, folders } = held.resolved;
    const open = this.#open.get(key);
    if (open?.held !== held) return;
    this.#open.delete(key);
    this.#reporter?.changed();
    const all = folders.join('\n');
    if (open.following.leave(held) && this.#followings.get(all) === open.following) this.#followings.delete(all);
  }

  /** The error of a store that said nothing, with what a read of it comes to. */
  async #unreached(held: AnyHeld): Promise<Error> {
    const { connectTimeoutMs } = this.#store;
    const { key, folders } = held.resolved;
    let cause: Error | undefined;
    try {
      await this.#store.read('open', folders.map(under), { timeoutMs: 500, signal: undefined });
    } catch (error) {
      cause = error as Error;
    }
    const why = [cause?.message, held.fileProblem].flatMap((text) => (text ? [`: ${text}`] : [])).join('');
    const message = `open: nothing is known of ${key} after ${connectTimeoutMs} ms (connectTimeoutMs), and it has no default${why}`;
    return new UnavailableError(message, { operation: 'open', key, cause });
  }
}

/** The refusal, with the stack of who opens it. */
function refusedAtStart({ message, key, revision, issues, cause }: InvalidConfigError): InvalidConfigError {
  return new InvalidConfigError(message, { operation: 'open', key, revision, issues, cause });
}

function versionAt(
  operation: string,
  key: string,
  versions: readonly Version[],
  revision: number,
): Version & { value: string | null } {
  const { value, ...rest } = versions.find((version) => version.revision === BigInt(revision)) ?? {};
  if (value !== undefined) return { ...(rest as Version), value };
  const why = 'revision' in rest ? 'was not kept: it is too large, or no text' : 'is not known';
  throw new NotFoundError(`${operation}: version ${revision} of ${key} ${why}`, { operation, key });
}

/** A revision, as the native side takes it. */
function revisionOf(path: string, value: unknown): number {
  if (value === undefined) throw invalid(path, `expected a revision, got ${shown(value)}`);
  if (typeof value !== 'bigint') return integer(path, value, 0, { min: 0, max: Number.MAX_SAFE_INTEGER });
  if (value >= 0n && value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
  throw invalid(path, `expected a revision, got ${value}`);
}
