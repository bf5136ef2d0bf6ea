/** A configuration that is open: its last good value, for all who have opened it. */

import { isDeepStrictEqual } from 'node:util';
import type { Log } from '../../common/logger.js';
import type { InvalidConfigError } from '../errors.js';
import type { Resolved } from './definition.js';
import type { Entry } from './entry.js';
import { type Evaluated, evaluate, type Layers, type Valid } from './evaluate.js';

/** Where a value is from: `store` when a layer lies there, else the default and the environment. */
export type ConfigSource = 'store' | 'default';

/** Who hears of what becomes of it. */
export interface Hears<T> {
  changed(next: T, previous: T): void;
  rejected(error: InvalidConfigError): void;
  told(event: 'stale' | 'fresh' | 'reset'): void;
  ended(): void;
}

/** What a snapshot makes of it: first all of them `apply`, then all of them `tell`. */
export interface Step {
  apply(): void;
  tell(): void;
}

export class Held<T> {
  readonly resolved: Resolved<T>;
  /** How many have it open, or are about to. */
  users = 0;
  readonly hearers = new Set<Hears<T>>();
  /** Whether the store can't vouch for it. */
  stale = true;
  rejected: InvalidConfigError | undefined;
  revision = 0n;
  readonly #log: Log;
  readonly #limitMs: number;
  #valid: Valid<T> | undefined;
  /** What was evaluated last, whatever came of it. */
  #seen: Layers | undefined;

  constructor(resolved: Resolved<T>, log: Log, limitMs: number) {
    this.resolved = resolved;
    this.#log = log;
    this.#limitMs = limitMs;
  }

  /** The last good value; `undefined` before the first. */
  get valid(): Valid<T> | undefined {
    return this.#valid;
  }

  /** What a snapshot makes of it; `undefined`: nothing that matters to it has changed. Never rejects. */
  async prepare(entries: ReadonlyMap<string, Entry>, revision: bigint): Promise<Step | undefined> {
    const layers = this.resolved.layers.map((key) => entries.get(key));
    const seen = this.#seen;
    if (seen && layers.every((entry, place) => entry === seen[place])) return undefined;
    const evaluated = await evaluate(this.resolved, layers, revision, this.#limitMs);
    return this.#step(evaluated, revision, layers);
  }

  /** Does with the default, until something is known of the store. Says whether that does. */
  async startWithout(): Promise<boolean> {
    if (this.resolved.def.default === undefined) return false;
    const none = this.resolved.layers.map(() => undefined);
    const evaluated = await evaluate(this.resolved, none, 0n, this.#limitMs);
    if ('refused' in evaluated) return false;
    this.#valid = evaluated;
    return true;
  }

  #step(evaluated: Evaluated<T>, revision: bigint, layers: Layers): Step {
    const before = this.#valid;
    if ('refused' in evaluated) {
      const error = evaluated.refused;
      return {
        apply: () => {
          this.#seen = layers;
          this.rejected = error;
        },
        tell: () => {
          if (!before) return; // who opens it is told
          this.#log.write('warn', `a configuration was refused, and the one before it stays: ${error.message}`);
          this.#each((one) => one.rejected(error));
        },
      };
    }
    // What says the same is the same object.
    const isNews = !before || !isDeepStrictEqual(before.value, evaluated.value);
    return {
      apply: () => {
        this.#seen = layers;
        this.rejected = undefined;
        this.revision = revision;
        this.#valid = isNews ? evaluated : { ...evaluated, value: before.value };
      },
      tell: () => {
        if (before && isNews) this.#each((one) => one.changed(evaluated.value, before.value));
      },
    };
  }

  tell(event: 'stale' | 'fresh' | 'reset'): void {
    this.#each((one) => one.told(event));
  }

  end(): void {
    this.#each((one) => one.ended());
  }

  #each(hear: (one: Hears<T>) => void): void {
    for (const one of [...this.hearers]) hear(one);
  }
}
