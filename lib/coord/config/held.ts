/** A configuration that is open: its last good value, for all who have opened it. */

import { isDeepStrictEqual } from 'node:util';
import { describe, type Log } from '../../common/logger.js';
import { outcomeOf } from '../../common/waiting.js';
import type { InvalidConfigError } from '../errors.js';
import type { CacheFile } from './cache.js';
import type { Resolved } from './definition.js';
import type { Entry } from './entry.js';
import { type Evaluated, evaluate, type Judged, type Layers, refused, type Valid } from './evaluate.js';
import { evaluateRecord, isRecord, layersIn, sameLayers } from './records.js';

/** Who hears of what becomes of it. */
export interface Hears<T> {
  /** Rejects where the value must not come. Nothing has changed yet, and others may still refuse it. */
  asked(next: T, previous: T, signal: AbortSignal): Promise<unknown>;
  changed(next: T, previous: T): void;
  rejected(error: InvalidConfigError): void;
  told(event: 'stale' | 'fresh' | 'reset'): void;
  ended(): void;
}

/** What a `ConfigRef` shows: a configuration, or a part of one. */
export interface Shown<T> {
  readonly key: string;
  /** The last good value. */
  readonly valid: Valid<T> | undefined;
  readonly revision: bigint;
  readonly stale: boolean;
  readonly rejected: InvalidConfigError | undefined;
  readonly hearers: Set<Hears<T>>;
}

/** What a snapshot makes of it: first all of them `apply`, then all of them `tell`. */
export interface Step {
  apply(): void;
  tell(): void;
}

export class Held<T> implements Shown<T> {
  readonly resolved: Resolved<T>;
  /** How many have it open, or are about to. */
  users = 0;
  readonly hearers = new Set<Hears<T>>();
  /** Whether the store can't vouch for it. */
  stale = true;
  rejected: InvalidConfigError | undefined;
  revision = 0n;
  /** What is wrong with the last-known-good file, if it was asked and something is. */
  fileProblem: string | undefined;
  readonly #file: CacheFile | undefined;
  readonly #applied: () => void;
  readonly #log: Log;
  readonly #limitMs: number;
  #valid: Valid<T> | undefined;
  /** What was evaluated last, whatever came of it. */
  #seen: Layers | undefined;
  /** Hides the secrets of the value. */
  #hide = (text: string): string => text;
  /** Of a record: what its entries came to. */
  #entries: ReadonlyMap<string, Judged> | undefined;

  /** `applied` is called after each value that was accepted or refused. */
  constructor(resolved: Resolved<T>, file: CacheFile | undefined, applied: () => void, log: Log, limitMs: number) {
    this.resolved = resolved;
    this.#file = file;
    this.#applied = applied;
    this.#log = log;
    this.#limitMs = limitMs;
  }

  get key(): string {
    return this.resolved.key;
  }

  /** The last good value; `undefined` before the first. */
  get valid(): Valid<T> | undefined {
    return this.#valid;
  }

  /** What a snapshot makes of it; `undefined`: nothing that matters to it has changed. Never rejects. */
  async prepare(entries: ReadonlyMap<string, Entry>, revision: bigint): Promise<Step | undefined> {
    const layers = layersIn(this.resolved, entries);
    if (this.#seen && sameLayers(layers, this.#seen)) return undefined;
    let evaluated = await this.#evaluate(layers, revision);
    if (!this.#entries && 'partly' in evaluated && evaluated.partly?.refused) {
      // What was good before stays, be it that of another process.
      this.#entries = await this.#entriesOfFile();
      if (this.#entries) evaluated = await this.#evaluate(layers, revision);
    }
    return this.#step(await this.#approved(evaluated, revision), revision, layers);
  }

  #evaluate(layers: Layers, revision: bigint): Promise<Evaluated<T>> {
    if (!isRecord(this.resolved)) return evaluate(this.resolved, layers, revision, this.#limitMs);
    return evaluateRecord(this.resolved, layers, revision, this.#limitMs, this.#entries);
  }

  /** What the last-known-good file has of a record. */
  async #entriesOfFile(): Promise<ReadonlyMap<string, Judged> | undefined> {
    try {
      const kept = await this.#file?.load(this.#limitMs);
      const evaluated = kept && (await this.#evaluate(kept.layers, kept.revision));
      return evaluated && 'partly' in evaluated ? evaluated.partly?.entries : undefined;
    } catch (error) {
      this.#log.write('warn', (error as Error).message);
      return undefined;
    }
  }

  /** Asks all hearers about a value that is another one, at once. The first that refuses it decides. */
  async #approved(evaluated: Evaluated<T>, revision: bigint): Promise<Evaluated<T>> {
    const before = this.#valid;
    if ('refused' in evaluated || !before || isDeepStrictEqual(before.value, evaluated.value)) return evaluated;
    const over = new AbortController();
    const ask = async (one: Hears<T>) => await one.asked(evaluated.value, before.value, over.signal);
    const no = (why: string, cause?: unknown) => {
      const message = before.hide(evaluated.hide(why));
      return refused(
        this.key,
        revision,
        [{ message, path: '' }],
        this.resolved.def.secret.length > 0 ? undefined : cause,
      );
    };
    try {
      const answers = Promise.all([...this.hearers].map(ask));
      const outcome = await outcomeOf(answers, undefined, this.#limitMs);
      if (outcome === 'expired') return no(`beforeChange() gave no answer within ${this.#limitMs} ms`);
      return evaluated;
    } catch (error) {
      return no(`beforeChange() refused it: ${describe((error as Error | null)?.message ?? error)}`, error);
    } finally {
      over.abort();
    }
  }

  /** Does with what was good last, or with the default, until something is known of the store. Says whether that does. */
  async startWithout(): Promise<boolean> {
    if (await this.startFromFile()) return true;
    if (this.resolved.def.default === undefined) return false;
    const evaluated = await this.#evaluate(layersIn(this.resolved, new Map()), 0n);
    if ('refused' in evaluated) return false;
    this.#entries = evaluated.partly?.entries;
    this.#hide = evaluated.hide;
    this.#valid = evaluated;
    return true;
  }

  /**
   * Does with the last-known-good file. Says whether that does: it is read as it lay in the store, so the schema of today has
   * accepted it, and what is wrong with it is logged.
   */
  async startFromFile(): Promise<boolean> {
    if (!this.#file) return false;
    try {
      const kept = await this.#file.load(this.#limitMs);
      if (!kept) {
        this.fileProblem = `there is no last-known-good file ${this.#file.path}`;
        return false;
      }
      const evaluated = await this.#evaluate(kept.layers, kept.revision);
      const why = 'refused' in evaluated ? evaluated.refused : evaluated.partly?.refused;
      if (why) this.fileProblem = `the last-known-good file ${this.#file.path}: ${why.message}`;
      if ('refused' in evaluated) throw new Error(this.fileProblem);
      if (why) this.#log.write('warn', this.fileProblem as string);
      this.#entries = evaluated.partly?.entries;
      this.revision = kept.revision;
      this.#hide = evaluated.hide;
      this.#valid = { value: evaluated.value, source: 'file', hide: evaluated.hide };
      return true;
    } catch (error) {
      this.fileProblem = (error as Error).message;
      this.#log.write('warn', this.fileProblem);
      return false;
    }
  }

  #step(evaluated: Evaluated<T>, revision: bigint, layers: Layers): Step {
    const before = this.#valid;
    // Of a later revision than there is: the file is of another store, or of this one before it was set back.
    const isBack = before?.source === 'file' && revision < this.revision;
    if ('refused' in evaluated) {
      const error = evaluated.refused;
      return {
        apply: () => {
          this.#seen = layers;
          this.rejected = error;
          this.#applied();
        },
        tell: () => {
          if (!before) return; // who opens it is told
          if (isBack) this.tell('reset');
          this.#log.write('warn', `a configuration was refused, and the one before it stays: ${error.message}`);
          this.#each((one) => one.rejected(error));
        },
      };
    }
    const { partly } = evaluated;
    // What says the same is the same object.
    const isNews = !before || !isDeepStrictEqual(before.value, evaluated.value);
    return {
      apply: () => {
        this.#seen = layers;
        this.rejected = partly?.refused;
        this.revision = revision;
        this.#entries = partly?.entries;
        // The value before it may be shown as well: listeners are told both.
        const hidden = this.#hide;
        this.#hide = evaluated.hide;
        const hide = (text: string) => hidden(evaluated.hide(text));
        this.#valid = { ...evaluated, hide, ...(!isNews && { value: before.value }) };
        this.#file?.keep({ layers: partly?.layers ?? layers, revision });
        this.#applied();
      },
      tell: () => {
        if (isBack) this.tell('reset');
        if (before && isNews) this.#each((one) => one.changed(evaluated.value, before.value));
        const why = partly?.refused;
        if (!why || !partly.isNews) return;
        this.#log.write('warn', `entries of a configuration were refused, and those before them stay: ${why.message}`);
        this.#each((one) => one.rejected(why));
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
