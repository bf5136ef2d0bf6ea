/** What a registry follows: its watchers, of whatever kind, and how one begins. */

import { fromNative } from '../common/failure.js';
import type { Log } from '../common/logger.js';
import { aborted } from '../errors.js';
import { closedError } from './call.js';
import type { Holds } from './holds.js';
import type { Teller } from './observe.js';
import type { Feeds, Handle, ListWatcher, WatcherSource } from './watcher.js';

/** What is asked of a watch. */
export interface Asked extends Pick<WatcherSource<unknown>, 'signal' | 'refused' | 'reset'> {
  /** Whether it keeps the process alive. Default true. */
  readonly keepsAlive?: boolean | undefined;
  /** What errors call it. Default: what the kind of the feeds does. */
  readonly operation?: string | undefined;
}

export class Watches {
  readonly #watchers = new Map<number, ListWatcher<unknown>>();
  readonly #holds: Holds;
  readonly #log: Log;
  readonly #teller: Teller | undefined;

  constructor(holds: Holds, log: Log, teller: Teller | undefined) {
    this.#holds = holds;
    this.#log = log;
    this.#teller = teller;
  }

  /**
   * Begins to follow `name`, one of `feeds`: `open` asks the native side, `follow` makes the watcher. `why`: the registry is
   * closed. Throws what no time changes; all else shows in the first `next()`.
   */
  follow<T, H extends Handle, W extends ListWatcher<T>>(
    name: string,
    feeds: Feeds<T, H>,
    open: () => H,
    follow: (source: WatcherSource<T>) => W,
    { keepsAlive = true, operation = feeds.kind.operation, ...asked }: Asked,
    why: string | undefined,
  ): W {
    const kind = operation === feeds.kind.operation ? feeds.kind : { ...feeds.kind, operation };
    const common = { ...asked, kind, log: this.#log };
    const ended = kind.observed && this.#teller?.begin(kind.observed, name || undefined);
    const isKnown = ended !== undefined && feeds.known(name) !== undefined;
    const over = (failure?: unknown) => {
      ended?.(failure ?? aborted(asked.signal, operation), 0);
      return follow({ ...common, failure, released() {} });
    };
    if (why !== undefined) return over(closedError(operation, why));
    if (asked.signal?.aborted) return over();

    let handle: H;
    try {
      handle = open();
    } catch (error) {
      const failure = fromNative(error, operation);
      // What no time changes is told at once.
      if (failure.code !== 'ERR_INVALID_ARGUMENT' && failure.code !== 'ERR_UNSUPPORTED') return over(failure);
      ended?.(failure, 0);
      throw failure;
    }
    const following = feeds.join(name, handle);
    const released = (watcher: object) => {
      this.#watchers.delete(following.id);
      this.#holds.delete(watcher);
    };
    const first = ended && ((error?: unknown) => ended(error, isKnown ? 0 : following.attempts()));
    const watcher = follow({ ...common, following, released, first });
    this.#watchers.set(following.id, watcher);
    if (keepsAlive) this.#holds.add(watcher);
    return watcher;
  }

  /** What the native side reports of one of them. */
  notify(id: number, kind: string): void {
    this.#watchers.get(id)?.notify(kind);
  }

  /** Ends all of them. */
  stop(): void {
    for (const watcher of [...this.#watchers.values()]) watcher.stop();
  }
}
