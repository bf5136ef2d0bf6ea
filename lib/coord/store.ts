/** The store of a client, as coord has it: reads, transactions, and what is followed. */

import type { Log } from '../common/logger.js';
import { abortSignal, onlyKnown, optional } from '../common/shape.js';
import { AbortedError, aborted, type RollcallError } from '../errors.js';
import type { NativeCommit, NativeRange } from '../native.js';
import { call, checked, closedError } from '../registry/call.js';
import type { CallOptions } from '../registry/call-options.js';
import type { Inside } from '../registry/inside.js';
import { callTimeout } from '../registry/options.js';
import { Feeds } from '../registry/watcher.js';
import type { Asked } from '../registry/watches.js';
import { ENTRIES, EntriesWatcher, type Entry, entryOf } from './config/entry.js';

/** What must be so for a transaction to be made: the revision of a key, 0 where there is none. */
export interface Expected {
  readonly key: string;
  readonly revision: number;
}

/** A key and what is written there; `null` deletes it. */
export interface Change {
  readonly key: string;
  readonly value: string | null;
}

/** What became of a transaction. */
export interface Committed {
  readonly revision: bigint;
  readonly deleted: number;
  /** Where nothing was changed: what stands at the keys that were expected otherwise, in their order. */
  readonly conflict: readonly (Entry | null)[] | undefined;
}

/** The options of one call, completed. */
export interface Limits {
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
}

export class Store {
  readonly log: Log;
  readonly connectTimeoutMs: number;
  readonly timeoutMs: number;
  readonly #inside: Inside;
  readonly #feeds = new Feeds(ENTRIES);
  readonly #settleMs: number;
  #isClosed = false;

  constructor(inside: Inside, settleMs: number) {
    this.#inside = inside;
    this.#settleMs = settleMs;
    this.log = inside.log;
    this.connectTimeoutMs = inside.connectTimeoutMs;
    this.timeoutMs = inside.timeoutMs;
  }

  /** The options of a call, those of its own kind taken from `known`. */
  limits(options: CallOptions | undefined, known: readonly string[] = []): Limits {
    const given = optional('options', options);
    onlyKnown('options', given, ['timeoutMs', 'signal', ...known]);
    return {
      timeoutMs: callTimeout(given.timeoutMs, this.timeoutMs),
      signal: abortSignal('options.signal', given.signal),
    };
  }

  /** What stands in some ranges, at one moment. */
  async read(operation: string, ranges: NativeRange[], limits: Limits): Promise<readonly Entry[]> {
    return (await this.readAt(operation, ranges, limits)).entries;
  }

  /** The same, and the revision of the store at that moment. */
  async readAt(
    operation: string,
    ranges: NativeRange[],
    { timeoutMs, signal }: Limits,
  ): Promise<{ readonly entries: readonly Entry[]; readonly revision: bigint }> {
    this.refuseClosed(operation);
    const { pairs, revision } = await call(operation, signal, (cancel) =>
      this.#inside.client.readPairs(ranges, timeoutMs, cancel),
    );
    return { entries: Object.freeze(pairs.map(entryOf)), revision: BigInt(revision) };
  }

  /** All of `changes`, if all of `expected` hold, or nothing. */
  async commit(
    operation: string,
    expected: Expected[],
    changes: Change[],
    { timeoutMs, signal }: Limits,
  ): Promise<Committed> {
    this.refuseClosed(operation, signal);
    const { client } = this.#inside;
    let done: NativeCommit;
    try {
      done = await call(operation, signal, (cancel) => client.commitPairs(expected, changes, timeoutMs, cancel));
    } catch (error) {
      const { code, message, cause } = error as RollcallError;
      // It was under way.
      if (code === 'ERR_ABORTED') throw new AbortedError(message, { operation, cause, outcomeUnknown: true });
      throw error;
    }
    return {
      revision: BigInt(done.revision),
      deleted: done.deleted,
      conflict: done.conflict?.map((pair) => (pair ? entryOf(pair) : null)),
    };
  }

  /** Follows some ranges: whole lists, each of one revision. Throws what no time changes. */
  follow(operation: string, ranges: NativeRange[], asked: Asked): EntriesWatcher {
    const { client, watches } = this.#inside;
    const open = () => client.followPairs(ranges, this.#settleMs);
    const whole = { ...asked, operation };
    return checked(operation, () =>
      watches.follow(JSON.stringify(ranges), this.#feeds, open, EntriesWatcher.follow, whole, this.#closedBy()),
    );
  }

  /** Keeps the process alive until what it gives is called. */
  hold(): () => void {
    const subject = {};
    this.#inside.holds.add(subject);
    return () => this.#inside.holds.delete(subject);
  }

  refuseClosed(operation: string, signal?: AbortSignal): void {
    const why = this.#closedBy();
    if (why !== undefined) throw closedError(operation, why);
    if (signal?.aborted) throw aborted(signal, operation);
  }

  close(): void {
    this.#isClosed = true;
  }

  #closedBy(): string | undefined {
    return this.#isClosed ? 'coord is closed' : this.#inside.closedBy();
  }
}
