/** Changes of configuration: by revision, all or none, with what they replace kept. */

import { now } from '../../common/clock.js';
import { outcomeOf } from '../../common/waiting.js';
import { aborted, TimeoutError } from '../../errors.js';
import { ConflictError } from '../errors.js';
import { only, under } from '../keys.js';
import type { Change, Committed, Expected, Limits, Store } from '../store.js';
import type { Entry } from './entry.js';
import { type Authorship, historyOf, isKept, moving } from './history.js';

/** What a change has come to. */
export interface Written {
  readonly revision: bigint;
  /** Whether one of the keys that it deleted was there. */
  readonly deleted: boolean;
}

export class Writer {
  readonly #store: Store;
  readonly #keep: number;
  /** By key, when the last write of it that began here is over. */
  readonly #turns = new Map<string, Promise<unknown>>();

  /** `keep`: how many versions there are of a key at the most; 0: none are kept. */
  constructor(store: Store, keep: number) {
    this.#store = store;
    this.#keep = keep;
  }

  /**
   * Makes `changes`, if all of `expected` hold. What they replace is read before, and must still stand there: if somebody else
   * changes it in between it is read again, until the time is over. Writes of this client to one key go one after the other,
   * for they would be in each other's way.
   */
  async write(
    operation: string,
    expected: Expected[],
    changes: Change[],
    by: Authorship,
    limits: Limits,
  ): Promise<Written> {
    const kept = this.#keep > 0 ? changes.filter(({ key }) => isKept(key)) : [];
    if (kept.length === 0) {
      const done = await this.#store.commit(operation, expected, changes, limits);
      if (done.conflict) throw conflict(operation, expected, done);
      return { revision: done.revision, deleted: done.deleted > 0 };
    }
    const deadline = now() + limits.timeoutMs;
    const keys = kept.map(({ key }) => key);
    const before = Promise.all(keys.map((key) => this.#turns.get(key)));
    let over = () => {};
    const mine = new Promise<void>((resolve) => {
      over = resolve;
    });
    for (const key of keys) this.#turns.set(key, mine);
    try {
      const turn = await outcomeOf(before, limits.signal, limits.timeoutMs);
      if (turn === 'aborted') throw aborted(limits.signal, operation);
      if (turn === 'expired') {
        const message = `${operation}: other writes of this client to ${keys[0]} took ${limits.timeoutMs} ms: nothing was changed`;
        throw new TimeoutError(message, { operation, key: keys[0] });
      }
      return await this.#write(operation, expected, changes, { kept, by, limits, deadline });
    } finally {
      over();
      for (const key of keys) if (this.#turns.get(key) === mine) this.#turns.delete(key);
    }
  }

  async #write(
    operation: string,
    expected: Expected[],
    changes: Change[],
    { kept, by, limits, deadline }: { kept: Change[]; by: Authorship; limits: Limits; deadline: number },
  ): Promise<Written> {
    const keys = kept.map(({ key }) => key);
    for (;;) {
      const left = { ...limits, timeoutMs: Math.ceil(deadline - now()) };
      if (left.timeoutMs <= 0) {
        const message = `${operation}: others have changed ${keys[0]} again and again for ${limits.timeoutMs} ms: nothing was changed`;
        throw new TimeoutError(message, { operation, key: keys[0] });
      }
      // Apart, so that who may not read one of them is told which.
      const [current, records] = await Promise.all([
        this.#store.read(operation, keys.map(only), left),
        this.#store.read(operation, keys.map(historyOf).map(under), left),
      ]);
      const there = new Map(current.map((entry) => [entry.key, entry]));
      // What is not there and is deleted is no change.
      const moves = kept.filter(({ key, value }) => value !== null || there.has(key));
      const moved = moves.flatMap(({ key }) => moving(key, there.get(key) ?? null, records, this.#keep, by));
      const named = new Set(expected.map(({ key }) => key));
      const stays = keys
        .filter((key) => !named.has(key))
        .map((key): Expected => ({ key, revision: Number(there.get(key)?.revision ?? 0n) }));
      const done = await this.#store.commit(operation, [...expected, ...stays], [...changes, ...moved], {
        ...limits,
        timeoutMs: Math.max(Math.ceil(deadline - now()), 1),
      });
      if (!done.conflict) {
        const deleted = changes.some(({ key, value }) => value === null && there.has(key));
        return { revision: done.revision, deleted };
      }
      if (differing(expected, done) >= 0) throw conflict(operation, expected, done);
    }
  }
}

/** The first of `expected` that does not hold; -1: all do. */
function differing(expected: readonly Expected[], { conflict }: Committed): number {
  return expected.findIndex(({ revision }, place) => BigInt(revision) !== (conflict?.[place]?.revision ?? 0n));
}

function conflict(operation: string, expected: readonly Expected[], done: Committed): ConflictError {
  const place = Math.max(differing(expected, done), 0);
  const { key, revision } = expected[place] as Expected;
  const there: Entry | null = done.conflict?.[place] ?? null;
  const is = there ? `was written at revision ${there.revision}` : 'is not there';
  const wanted = revision === 0 ? 'expected not to be there' : `expected at revision ${revision}`;
  return new ConflictError(`${operation}: ${key} ${is}, ${wanted}: nothing was changed`, {
    operation,
    key,
    current: there,
    ...(there && { revision: String(there.revision) }),
  });
}
