/**
 * Rules by their names that can change while they are used, wherever they come from: an object, what changes it, or a store of
 * `rollcall/coord`. Who imports this has not loaded `rollcall/coord` by that.
 */

import type { Log } from '../common/logger.js';
import { invalid, isRecord, record, text } from '../common/shape.js';
import type { Coord, StandardResult, StandardSchema } from './index.js';

/** Something that has rules and changes, such as a `ConfigRef`. */
export interface NamedRef {
  readonly value: unknown;
  subscribe(listener: () => void): () => void;
}

/** Rules that lie in a store, each below `path` by its name, such as `users.json`. */
export interface StoredNamed {
  readonly coord: Pick<Coord, 'config'>;
  readonly path: string;
}

/** What the rules are. */
export interface NamedKind<R> {
  /** The option that they are given by, such as `options.policies`. */
  readonly option: string;
  /** One of them and all of them, such as `policy` and `policies`, and what they are of, such as `breakers`. */
  readonly one: string;
  readonly many: string;
  readonly of: string;
  /** @throws `ERR_INVALID_ARGUMENT` that begins with the path. */
  parse(path: string, value: unknown): R;
  /** Whether a value is no rule but an object of rules by their names. Default: none is. */
  isGroup?(value: unknown): value is Readonly<Record<string, unknown>>;
}

/** Who hears of them. */
export interface NamedHearer {
  readonly log: Log;
  changed(): void;
  /** `name` is empty where it is about all. */
  refused(name: string, error: Error): void;
}

/** What names of files end with. */
const FILE = /\.json$/;

/** What is known of the rules. One that is wrong is refused by itself: the one before it stays. */
export class Named<R> {
  readonly #kind: NamedKind<R>;
  readonly #hearer: NamedHearer;
  #byName: ReadonlyMap<string, R> = new Map();
  #ready: Promise<void> = Promise.resolve();
  #isClosed = false;
  #end = () => {};
  /** Changes when any rule does. */
  version = 0;

  /** @throws `ERR_INVALID_ARGUMENT` of a source that is none, and of rules that are given as they are. */
  constructor(kind: NamedKind<R>, hearer: NamedHearer, source: unknown) {
    this.#kind = kind;
    this.#hearer = hearer;
    if (source === undefined) return;
    if (isRef(source)) this.#follow(source);
    else if (this.#isStored(source)) this.#open(source);
    else this.#replace(kind.option, source);
  }

  get(name: string): R | undefined {
    return this.#byName.get(name);
  }

  get all(): ReadonlyMap<string, R> {
    return this.#byName;
  }

  /** Resolves when those of a store were read; at once without. @throws as `config.open()`. */
  ready(): Promise<void> {
    return this.#ready;
  }

  /** Hears of no others any more. */
  close(): void {
    this.#isClosed = true;
    this.#end();
  }

  /** Takes others in the place of all. Without `refused` it throws what is wrong with one. */
  #replace(path: string, value: unknown, refused?: (name: string, error: Error) => void): void {
    const { of, many, parse } = this.#kind;
    const next = new Map<string, R>();
    for (const [name, at, one] of this.#flat(path, record(path, value, `${many} by the names of ${of}`))) {
      try {
        if (next.has(name)) throw invalid(at, `there is another ${this.#kind.one} of that name`);
        next.set(name, parse(at, one));
      } catch (error) {
        if (!refused) throw error;
        const before = this.#byName.get(name);
        if (before !== undefined && !next.has(name)) next.set(name, before);
        refused(name, error as Error);
      }
    }
    this.#byName = next;
    this.version++;
  }

  /** Each rule: its name, its path, and it. */
  #flat(path: string, all: Readonly<Record<string, unknown>>): (readonly [string, string, unknown])[] {
    return Object.entries(all).flatMap(([key, value]) => {
      if (!this.#kind.isGroup?.(value)) return [[key.replace(FILE, ''), `${path}.${key}`, value] as const];
      return Object.entries(value).map(([name, one]) => [name, `${path}.${key}.${name}`, one] as const);
    });
  }

  #follow(ref: NamedRef): void {
    const read = () => {
      try {
        this.#replace(this.#kind.many, ref.value, (name, error) => this.#refused(name, error));
        this.#hearer.changed();
      } catch (error) {
        this.#refused('', error as Error); // not a record at all: all stay
      }
    };
    read();
    this.#end = ref.subscribe(read);
  }

  #refused(name: string, error: Error): void {
    const { one, of } = this.#kind;
    this.#hearer.log.write('warn', `a ${one} of ${of} was refused, the one before it stays: ${error.message}`);
    this.#hearer.refused(name, error);
  }

  #open({ coord, path }: StoredNamed): void {
    text(`${this.#kind.option}.path`, path);
    this.#ready = this.#openStored(coord, `${path.replace(/\/+$/, '')}/`);
    this.#ready.catch((error: Error) => {
      const { many, of } = this.#kind;
      this.#hearer.log.write('error', `the ${many} of ${of} can't be read: ${error.message}`);
    });
  }

  async #openStored(coord: Pick<Coord, 'config'>, key: `${string}/`): Promise<void> {
    const { defineConfig } = require('./index.js') as typeof import('./index.js'); // who has a coord has loaded it
    const ref = await coord.config.open(defineConfig({ key, schema: this.#schema() }));
    if (this.#isClosed) return ref.close();
    ref.on('rejected', (error) => this.#hearer.refused(error.issues[0]?.entry ?? '', error)); // coord has logged it
    this.#follow(ref);
    const unfollow = this.#end;
    this.#end = () => {
      unfollow();
      ref.close();
    };
  }

  /** Judges each file before it is taken. The rules of a group are judged one by one when it is: one is not to hold up the others. */
  #schema(): StandardSchema<unknown, unknown> {
    const { one, parse } = this.#kind;
    const validate = (value: unknown): StandardResult<unknown> => {
      try {
        if (!this.#kind.isGroup?.(value)) parse(one, value);
        return { value };
      } catch (error) {
        return { issues: [{ message: (error as Error).message }] };
      }
    };
    return { '~standard': { version: 1, vendor: 'rollcall', validate } };
  }

  #isStored(value: unknown): value is StoredNamed {
    const { coord, path } = record(this.#kind.option, value) as Partial<StoredNamed>;
    return typeof path === 'string' && typeof coord?.config?.open === 'function';
  }
}

function isRef(value: unknown): value is NamedRef {
  return isRecord(value) && typeof value.subscribe === 'function' && 'value' in value;
}
