/** Some folders of the store, followed once for all configurations whose layers lie there: they change in the same turn. */

import { outcomeOf } from '../../common/waiting.js';
import { closedError } from '../../registry/call.js';
import { under } from '../keys.js';
import type { Store } from '../store.js';
import { isRecordKey } from './definition.js';
import { type Entries, type EntriesWatcher, entriesAt, revisionOf } from './entry.js';
import type { Held } from './held.js';

type AnyHeld = Held<unknown>;

/** What came of the first look. */
export type Began =
  | { readonly is: 'ready' }
  /** Nothing is known of the store, and the file or the default does. */
  | { readonly is: 'without' }
  /** Nothing is known of the store yet. */
  | { readonly is: 'silent' }
  | { readonly is: 'failed'; readonly error: unknown };

export class Following {
  readonly #store: Store;
  readonly #watcher: EntriesWatcher;
  readonly #held = new Set<AnyHeld>();
  /** Settles with the first list, or with what there is in its place. */
  readonly #first: Promise<{ readonly error: unknown } | undefined>;
  #applied: Entries | undefined;
  /** One thing at a time, in order. */
  #turn: Promise<unknown> = Promise.resolve();
  #isOver = false;

  constructor(store: Store, folders: readonly string[]) {
    this.#store = store;
    const reset = () => this.#queue(() => this.#tell('reset'));
    this.#watcher = store.follow('open', folders.map(under), { keepsAlive: false, reset });
    this.#watcher.on('stale', () => this.#queue(() => this.#turned(true)));
    this.#watcher.on('fresh', () => {
      // What is fresh is what was read: that comes first.
      this.#queue(() => this.#apply());
      this.#queue(() => this.#turned(false));
    });
    this.#first = new Promise((resolve) => {
      const ended = (error: unknown) => resolve({ error });
      this.#run(() => resolve(undefined)).then(() => ended(closedError('open', 'it was closed')), ended);
    });
  }

  /** Takes a configuration in, and waits for its first value, `connectTimeoutMs` at the most. */
  async join(held: AnyHeld): Promise<Began> {
    this.#held.add(held);
    const first = await outcomeOf(this.#first, undefined, this.#store.connectTimeoutMs);
    return await this.#queue(async () => {
      if (held.valid) return { is: 'ready' };
      if (first === 'aborted' || first === 'expired') {
        return (await held.startWithout()) ? { is: 'without' } : { is: 'silent' };
      }
      if (first.value) return { is: 'failed', error: first.value.error };
      await this.#apply();
      await this.#applyTo([held]); // the others know this list
      if (!held.valid) await held.startFromFile(); // what lies there was refused: what was good before stays
      return { is: 'ready' };
    });
  }

  /** Lets a configuration go. Says whether none is left. */
  leave(held: AnyHeld): boolean {
    this.#held.delete(held);
    if (this.#held.size > 0) return false;
    this.stop();
    return true;
  }

  stop(): void {
    this.#isOver = true;
    this.#watcher.stop();
    for (const held of this.#held) held.end();
    this.#held.clear();
  }

  async #run(began: () => void): Promise<void> {
    for await (const _ of this.#watcher) {
      began();
      await this.#queue(() => this.#apply());
    }
    this.stop();
  }

  /** The latest list, if it is another one than the last. */
  async #apply(): Promise<void> {
    const list = this.#watcher.current;
    if (!list || list === this.#applied) return;
    this.#applied = list;
    await this.#applyTo([...this.#held]);
  }

  /** First all are evaluated, then all change, then all hear of it. */
  async #applyTo(some: readonly AnyHeld[]): Promise<void> {
    const list = this.#applied ?? [];
    const layers = new Set(some.flatMap((held) => held.resolved.layers));
    const entries = entriesAt(list, layers, [...layers].filter(isRecordKey));
    const steps = await Promise.all(some.map((held) => held.prepare(entries, revisionOf(list))));
    if (this.#isOver) return;
    const wasUnknown = some.filter((held) => held.stale && !this.#watcher.stale);
    for (const step of steps) step?.apply();
    for (const held of some) held.stale = this.#watcher.stale;
    for (const step of steps) step?.tell();
    for (const held of wasUnknown) held.tell('fresh');
  }

  #turned(isStale: boolean): void {
    for (const held of this.#held) {
      // Before its first value of the store there is nothing to be stale.
      if (held.stale === isStale) continue;
      held.stale = isStale;
      held.tell(isStale ? 'stale' : 'fresh');
    }
  }

  #tell(event: 'reset'): void {
    for (const held of this.#held) held.tell(event);
  }

  #queue<R>(work: () => R | Promise<R>): Promise<R> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {});
    return done;
  }
}
