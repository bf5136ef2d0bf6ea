/**
 * Rules by their names that can change while they are used, wherever they come from: an object, what changes it, or a store of
 * `rollcall/coord`. Who imports this has not loaded `rollcall/coord` by that.
 */

import type { Log } from '../common/logger.js';
import { invalid, isRecord, kindOf, record, text } from '../common/shape.js';
import { pause } from '../common/waiting.js';
import type { RollcallError } from '../errors.js';
import type { ConfigDef, Coord, InvalidConfigError, StandardResult, StandardSchema } from './index.js';

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
/** How long a store that was away is left alone before it is asked again, in milliseconds. */
const AGAIN_MS = 1000;

/** What is opened of a store: rules by the names of files. */
interface Opened {
  readonly definition: ConfigDef<Readonly<Record<string, unknown>>>;
  users: number;
}

/** What is open of each client, by its key: a client opens a key in one way at a time, so those who name one share it. */
const opened = new WeakMap<object, Map<string, Opened>>();

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

  /** Resolves when those of a store were read; at once without. A store that can't be reached is asked again after that. @throws as `config.open()`. */
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
    const end: unknown = ref.subscribe(read);
    if (typeof end !== 'function') {
      throw invalid(this.#kind.option, `expected subscribe() to give a function that ends it, got ${kindOf(end)}`);
    }
    this.#end = end as () => void;
  }

  #refused(name: string, error: Error): void {
    const { one, of } = this.#kind;
    this.#hearer.log.write('warn', `a ${one} of ${of} was refused, the one before it stays: ${error.message}`);
    this.#hearer.refused(name, error);
  }

  #open({ coord, path }: StoredNamed): void {
    const key = `${path.replace(/\/+$/, '')}/` as const;
    const all = opened.get(coord.config) ?? new Map<string, Opened>();
    const one = all.get(key) ?? { definition: this.#defined(key), users: 0 };
    opened.set(coord.config, all.set(key, one));
    one.users++;
    const leave = () => {
      if (--one.users === 0) all.delete(key);
    };
    this.#ready = this.#openStored(coord, one.definition, leave);
    this.#ready.catch((error: Error) => {
      const { many, of } = this.#kind;
      this.#hearer.log.write('error', `the ${many} of ${of} can't be read: ${error.message}`);
      void this.#openAgain(coord, one.definition, leave, error);
    });
  }

  #defined(key: `${string}/`): Opened['definition'] {
    const { defineConfig } = require('./index.js') as typeof import('./index.js'); // who has a coord has loaded it
    try {
      return defineConfig({ key, schema: this.#schema() });
    } catch (error) {
      const problem = (error as Error).message.replace(/^definition\.key: /, '');
      throw invalid(`${this.#kind.option}.path`, problem, error);
    }
  }

  async #openStored(coord: Pick<Coord, 'config'>, definition: Opened['definition'], leave: () => void): Promise<void> {
    const ref = await coord.config.open(definition);
    if (this.#isClosed) {
      ref.close();
      leave();
      return;
    }
    const tell = this.#refusals();
    ref.on('rejected', tell); // coord has logged it
    this.#follow(ref);
    const unfollow = this.#end;
    this.#end = () => {
      this.#end = () => {};
      unfollow();
      ref.close();
      leave();
    };
    if (ref.rejected) tell(ref.rejected);
    if (this.#isClosed) this.#end(); // by who was told of them
  }

  /** A store that was away at the start is asked until it is there: its rules are not to be missed for as long as the program runs. */
  async #openAgain(
    coord: Pick<Coord, 'config'>,
    definition: Opened['definition'],
    leave: () => void,
    why: Error,
  ): Promise<void> {
    let error = why;
    while ((error as RollcallError).retryable) {
      await pause(AGAIN_MS);
      if (this.#isClosed) break;
      this.#ready = this.#openStored(coord, definition, leave);
      try {
        return await this.#ready;
      } catch (another) {
        error = another as Error;
      }
    }
    leave();
  }

  /** Tells of each file that is refused, once for what is wrong with it: an error names all that are. */
  #refusals(): (error: InvalidConfigError) => void {
    let known = new Map<string, string>();
    return (error) => {
      const wrong = new Map<string, string>();
      for (const { entry = '', path, message } of error.issues) {
        wrong.set(entry, `${wrong.get(entry) ?? ''}${path}: ${message}\n`);
      }
      const news = [...wrong.keys()].filter((entry) => known.get(entry) !== wrong.get(entry));
      known = wrong;
      // One that is wrong again in the same way.
      for (const entry of news.length > 0 ? news : wrong.keys()) this.#hearer.refused(entry.replace(FILE, ''), error);
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
    const { option } = this.#kind;
    const { coord, path } = record(option, value) as Partial<StoredNamed>;
    const hasStore = typeof coord?.config?.open === 'function';
    if (!hasStore && typeof path !== 'string') return false;
    if (!hasStore) throw invalid(`${option}.coord`, `expected a client of rollcall/coord, got ${kindOf(coord)}`);
    if (text(`${option}.path`, path) === undefined) throw invalid(`${option}.path`, 'expected a string, got undefined');
    return true;
  }
}

function isRef(value: unknown): value is NamedRef {
  return isRecord(value) && typeof value.subscribe === 'function' && 'value' in value;
}
