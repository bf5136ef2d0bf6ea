/** A part of a configuration, as `select()` opens it. */

import { isDeepStrictEqual } from 'node:util';
import { describe, type Log } from '../../common/logger.js';
import type { InvalidConfigError } from '../errors.js';
import type { Valid } from './evaluate.js';
import type { Hears, Shown } from './held.js';
import { frozen } from './merge.js';

/** What was picked, and of which value. */
interface Picked<T, U> {
  readonly of: T;
  readonly part: U;
}

export class Part<T, U> implements Shown<U> {
  readonly hearers = new Set<Hears<U>>();
  readonly #whole: Shown<T>;
  readonly #pick: (value: T) => U;
  readonly #log: Log;
  readonly #hears: Hears<T>;
  #now: Picked<T, U>;
  /** What was asked about last, which may come. */
  #next: Picked<T, U> | undefined;

  /** Throws what `pick` throws with the value now. */
  constructor(whole: Shown<T>, pick: (value: T) => U, log: Log) {
    this.#whole = whole;
    this.#pick = pick;
    this.#log = log;
    this.#now = this.#picked(whole.valid?.value as T);
    // What was told last: `#now` is another one as soon as somebody looks.
    let told = this.#now.part;
    this.#hears = {
      asked: async (next, _, signal) => {
        this.#next = this.#picked(next);
        const [part, before] = [this.#next.part, this.#now.part];
        if (part !== before) await Promise.all([...this.hearers].map((one) => one.asked(part, before, signal)));
      },
      changed: () => {
        const { part } = this.#latest();
        const previous = told;
        told = part;
        if (part !== previous) this.#each((one) => one.changed(part, previous));
      },
      rejected: (error) => this.#each((one) => one.rejected(error)),
      told: (event) => this.#each((one) => one.told(event)),
      ended: () => this.#each((one) => one.ended()),
    };
    whole.hearers.add(this.#hears);
  }

  get key(): string {
    return this.#whole.key;
  }

  get valid(): Valid<U> {
    const hide = (text: string) => this.#whole.valid?.hide(text) ?? text;
    return { value: this.#latest().part, source: this.#whole.valid?.source ?? 'default', hide };
  }

  get revision(): bigint {
    return this.#whole.revision;
  }

  get stale(): boolean {
    return this.#whole.stale;
  }

  get rejected(): InvalidConfigError | undefined {
    return this.#whole.rejected;
  }

  end(): void {
    this.#whole.hearers.delete(this.#hears);
  }

  /** What is picked of the value now. */
  #latest(): Picked<T, U> {
    const of = this.#whole.valid?.value as T;
    if (of === this.#now.of) return this.#now;
    if (of === this.#next?.of) this.#now = this.#next;
    else {
      // It was opened after all had been asked.
      try {
        this.#now = this.#picked(of);
      } catch (error) {
        this.#now = { of, part: this.#now.part };
        this.#log.write('error', `a part of the configuration ${this.key} stays as it was: ${describe(error)}`);
      }
    }
    this.#next = undefined;
    return this.#now;
  }

  /** What says the same is the same object. */
  #picked(of: T): Picked<T, U> {
    const part = frozen(this.#pick(of));
    const before = this.#now as Picked<T, U> | undefined; // none yet in the constructor
    return { of, part: before && isDeepStrictEqual(before.part, part) ? before.part : part };
  }

  #each(hear: (one: Hears<U>) => void): void {
    for (const one of [...this.hearers]) hear(one);
  }
}
