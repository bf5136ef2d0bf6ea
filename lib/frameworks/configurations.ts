/** The configurations that an application has open, and who hears of them before they change. */

import { invalid, kindOf } from '../common/shape.js';
import type { ConfigDef, ConfigListener, ConfigRef, Coord } from '../coord/index.js';
import { keptAlive } from './alive.js';

/** Not before a program has a definition: what it does not use is not loaded. */
const definitions = () => require('../coord/config/definition.js') as typeof import('../coord/config/definition.js');

/** A configuration of whatever type. */
// biome-ignore lint/suspicious/noExplicitAny: of whatever type; ConfigDef<unknown> would take no ConfigDef<Limits>
export type AnyConfigDef = ConfigDef<any>;

/** What `defineConfig()` gives. @throws `ERR_INVALID_ARGUMENT` */
export function definitionOf<T>(path: string, value: ConfigDef<T>): ConfigDef<T> {
  if (definitions().isDefinition(value)) return value;
  throw invalid(path, `expected what defineConfig() of rollcall/coord gives, got ${kindOf(value)}`);
}

/** Whether two definitions of one key say the same. */
export const agree = (a: AnyConfigDef, b: AnyConfigDef): boolean => a === b || definitions().agree(a, b);

/** A list of definitions, each key once. @throws `ERR_INVALID_ARGUMENT` */
export function definitionsOf(path: string, value: unknown): AnyConfigDef[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw invalid(path, `expected an array of definitions, got ${kindOf(value)}`);
  const all = value.map((each, place) => definitionOf(`${path}[${place}]`, each as AnyConfigDef));
  return all.filter((one, place) => {
    const first = all.findIndex(({ key }) => key === one.key);
    if (agree(all[first] as AnyConfigDef, one)) return first === place;
    throw invalid(`${path}[${place}]`, `expected one definition of ${one.key}, got another one than ${path}[${first}]`);
  });
}

/** What is open of a definition. */
interface Open {
  readonly def: AnyConfigDef;
  // biome-ignore lint/suspicious/noExplicitAny: of the type of its definition
  readonly ref: ConfigRef<any>;
  /** Its value when it was opened. */
  readonly first: unknown;
}

/** All configurations of one client. */
export class Configurations {
  readonly coord: Coord;
  readonly #open: ReadonlyMap<string, Open>;

  private constructor(coord: Coord, open: readonly Open[]) {
    this.coord = coord;
    this.#open = new Map(open.map((one) => [one.def.key, one]));
  }

  /** Opens all of them. Where one of them can't be opened, `coord` is closed. */
  static async open(coord: Coord, all: readonly AnyConfigDef[]): Promise<Configurations> {
    try {
      const open = async (def: AnyConfigDef): Promise<Open> => {
        const ref = await coord.config.open(def);
        return { def, ref, first: ref.value };
      };
      return new Configurations(coord, await keptAlive(() => Promise.all(all.map(open))));
    } catch (error) {
      await coord.close();
      throw error;
    }
  }

  /** @throws `ERR_INVALID_ARGUMENT` where it is not among those that were opened. */
  ref<T>(path: string, definition: ConfigDef<T>): ConfigRef<T> {
    return this.#find(path, definition).ref;
  }

  /**
   * Has `hear` called before each change; what it throws refuses the value. If the value has changed since it was `first`, by
   * default since it was opened, that is told at once, and what is thrown then is thrown here.
   */
  async follow<T>(
    path: string,
    definition: ConfigDef<T>,
    hear: ConfigListener<T>,
    first?: { value: T },
  ): Promise<void> {
    const open = this.#find(path, definition);
    const ref: ConfigRef<T> = open.ref;
    let told = first ? first.value : (open.first as T);
    const tell: ConfigListener<T> = async (next, previous, context) => {
      await hear(next, previous, context);
      told = next;
    };
    try {
      while (!Object.is(ref.value, told)) await tell(ref.value, told, { signal: new AbortController().signal });
    } finally {
      ref.beforeChange(tell);
      // What others were being asked about when this one joined them.
      ref.subscribe(async (next, _previous, context) => {
        if (!Object.is(next, told)) await tell(next, told, context);
      });
    }
  }

  /** The keys of those whose value may be out of date. */
  get stale(): string[] {
    return this.#keys(({ ref }) => ref.stale);
  }

  /** The keys of those whose latest value was refused. */
  get rejected(): string[] {
    return this.#keys(({ ref }) => ref.rejected !== undefined);
  }

  #keys(fits: (open: Open) => boolean): string[] {
    return [...this.#open.values()].filter(fits).map(({ ref }) => ref.key);
  }

  #find(path: string, definition: AnyConfigDef): Open {
    const { key } = definitionOf(path, definition);
    const open = this.#open.get(key);
    if (!open) throw invalid(path, `expected one that is opened at the start: give the definition of ${key} in config`);
    if (agree(open.def, definition)) return open;
    throw invalid(path, `expected the definition of ${key} that is given in config, got another one of this key`);
  }
}
