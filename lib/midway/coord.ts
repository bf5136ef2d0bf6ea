/** The configurations of an application, in the store that the key `coord` names. */

import {
  ApplicationContext,
  createCustomPropertyDecorator,
  type IMidwayContainer,
  Init,
  MidwayConfigService,
  MidwayDecoratorService,
  Provide,
  Scope,
  ScopeEnum,
} from '@midwayjs/core';
import { invalid, isRecord } from '../common/shape.js';
import type { ConfigDef, ConfigListener, Coord, ConfigRef as CoordConfigRef } from '../coord/index.js';
import { type AnyConfigDef, Configurations, definitionOf, definitionsOf } from '../frameworks/configurations.js';
import { CoordMethods } from '../frameworks/coord-methods.js';
import type { LeaderMark } from '../frameworks/leader-only.js';
import type { TickMark } from '../frameworks/once-per-tick.js';
import { explained } from '../frameworks/open.js';
import { hasPlace, openCoord } from '../frameworks/open-coord.js';
import type { ClientFactory } from './client-factory.js';
import type { CoordConfig } from './config.js';
import { configOf, loggerOf } from './container.js';
import { ETCDServiceFactory } from './etcd.js';
import { RegistryServiceFactory } from './registry-factory.js';

/** Where the value of a configuration goes in the configuration of the application. */
interface Placed {
  readonly def: AnyConfigDef;
  readonly as: string;
}

/** The client of coord, and the configurations that the key `coord` names. */
@Provide()
@Scope(ScopeEnum.Singleton)
export class CoordService {
  /** @internal */
  @ApplicationContext()
  container!: IMidwayContainer;

  #configurations: Configurations | undefined;
  #methods: CoordMethods | undefined;
  #placed: readonly Placed[] = [];

  /** @internal */
  @Init()
  async init(): Promise<void> {
    if (!hasCoord(this.container)) throw noCoord();
    const { config, ...given } = configOf<CoordConfig>(this.container, 'coord');
    try {
      const { all, placed } = listed(config);
      // Midway drops what is `undefined`: a place that is missing is not to be the memory.
      const coord = await openCoord(
        'coord',
        { coord: hasPlace(given) ? given : { ...given, url: undefined } },
        loggerOf(this.container),
        {
          registry: async (name) => found(await this.container.getAsync(RegistryServiceFactory), 'registry', name),
          etcd: async (name) => found(await this.container.getAsync(ETCDServiceFactory), 'etcd', name),
        },
      );
      // Until the application has started nothing of it is to keep the process alive: a start that fails ends it.
      coord.registry.unref();
      this.#configurations = await Configurations.open(coord, all);
      this.#methods = new CoordMethods(coord, loggerOf(this.container));
      this.#placed = placed;
    } catch (error) {
      throw String((error as Error).message).startsWith('coord: ') ? error : explained('coord', error);
    }
  }

  /** The client: `coord.config` reads, writes and follows what has no definition. */
  get coord(): Coord {
    return this.#opened().coord;
  }

  /**
   * A configuration of `coord.config`: the same as `@ConfigRef()` gives. It is the application's: the component closes it.
   *
   * @throws `ERR_INVALID_ARGUMENT` for a definition that is not there.
   */
  ref<T>(definition: ConfigDef<T>): CoordConfigRef<T> {
    return this.#opened().ref('definition', definition);
  }

  /** The keys of configurations whose value may be out of date, because the store can't be reached. */
  get stale(): string[] {
    return this.#opened().stale;
  }

  /** The keys of configurations whose latest value was refused: the one before it is in use. */
  get rejected(): string[] {
    return this.#opened().rejected;
  }

  /** The elections of `@LeaderOnly()` in which this instance leads now. */
  get leads(): string[] {
    return this.methods.leadership.leads;
  }

  /** The elections of `@LeaderOnly()` for which the store does not let this instance stand, because a right is missing for instance. */
  get refusedElections(): string[] {
    return this.methods.leadership.refused;
  }

  /** @internal */
  get methods(): CoordMethods {
    if (this.#methods) return this.#methods;
    throw notOpen();
  }

  /**
   * The application has started, with these methods of leaders and of ticks.
   *
   * @internal
   */
  started(leaders: Iterable<LeaderMark>, ticks: Iterable<TickMark>): void {
    this.methods.ticks.start(ticks);
    this.methods.leadership.start(leaders);
    this.coord.registry.ref();
  }

  /**
   * What goes into the configuration of the application.
   *
   * @internal
   */
  values(): object {
    const values: Record<string, unknown> = {};
    for (const { def, as } of this.#placed) {
      const parts = as.split('.');
      let at = values;
      for (const part of parts.slice(0, -1)) {
        at[part] = isRecord(at[part]) ? at[part] : {};
        at = at[part] as Record<string, unknown>;
      }
      at[parts.at(-1) as string] = this.ref(def).value;
    }
    return values;
  }

  /** @internal */
  async follow(path: string, definition: AnyConfigDef, hear: ConfigListener<unknown>, first: unknown): Promise<void> {
    await this.#opened().follow(path, definition, hear, { value: first });
  }

  /** @internal */
  async close(): Promise<void> {
    await this.#methods?.over();
    await this.#configurations?.coord.close();
  }

  #opened(): Configurations {
    if (this.#configurations) return this.#configurations;
    throw notOpen();
  }
}

export const notOpen = () => invalid('coord', 'it is not open yet');

/** Whether the configuration names a store. */
export const hasCoord = (container: IMidwayContainer): boolean =>
  container.get(MidwayConfigService).getConfiguration('coord') !== undefined;

export const noCoord = () => invalid('coord', 'not in the configuration: give it, such as { url, config: [limits] }');

function found<Client>(factory: ClientFactory<Client>, kind: string, name: string): Client {
  if (factory.has(name)) return factory.get(name);
  throw invalid(
    `coord.${kind}`,
    `there is no client "${name}": give it in ${kind}.clients, or "default" as ${kind}.client`,
  );
}

function listed(config: unknown): { all: AnyConfigDef[]; placed: Placed[] } {
  if (!Array.isArray(config)) return { all: definitionsOf('config', config), placed: [] };
  const placed: Placed[] = [];
  const definitions = config.map((each: unknown, place) => {
    if (!isRecord(each) || !('definition' in each)) return each;
    const def = definitionOf(`config[${place}].definition`, each.definition as AnyConfigDef);
    const { as } = each;
    const isPath = typeof as === 'string' && as !== '' && as.split('.').every((part) => part && part !== '__proto__');
    if (!isPath) throw invalid(`config[${place}].as`, 'expected a place in the configuration, such as "redis.client"');
    placed.push({ def, as });
    return def;
  });
  return { all: definitionsOf('config', definitions), placed };
}

const REF = 'rollcall:configRef';

/**
 * The property is a configuration of `coord.config`, a `ConfigRef`: `limits.value` is its value now. Reading it throws
 * `ERR_INVALID_ARGUMENT` where the definition is not there.
 *
 * ```ts
 * @ConfigRef(limits)
 * readonly limits: ConfigRef<Limits>;
 * ```
 *
 * @throws `ERR_INVALID_ARGUMENT` for what `defineConfig()` has not given.
 */
export function ConfigRef<T>(definition: ConfigDef<T>): PropertyDecorator {
  return createCustomPropertyDecorator(REF, { def: definitionOf('definition', definition) });
}

/** A configuration that is open: that of `rollcall/coord`. */
export type ConfigRef<T> = CoordConfigRef<T>;

interface Marked {
  readonly name: string | symbol;
  readonly def: AnyConfigDef;
}

/** By the prototype of a class: what Midway puts in the place of a method is called as well. */
const marked = new WeakMap<object, Marked[]>();

/**
 * The method is called with the next value and the one before it, before a configuration changes, once the object is made. If it
 * throws, or its promise rejects or takes longer than `timeoutMs` of the client, the value is refused: `ref.value` stays
 * everywhere, `ref.rejected` and the log say why.
 *
 * Others are asked at the same time, and may refuse what this one accepts: what can't be taken back belongs into
 * `ref.subscribe()`, which comes after the change. For classes of which there is one: in others it is without effect, and the
 * log warns. Midway makes an object when it is asked for first.
 *
 * @throws `ERR_INVALID_ARGUMENT` for what `defineConfig()` has not given. One that is not in `coord.config` is said in the log.
 */
export function OnConfigChange<T>(definition: ConfigDef<T>) {
  const def = definitionOf('definition', definition);
  return (target: object, name: string | symbol, descriptor: { value?: ConfigListener<T> }): void => {
    if (typeof target === 'function' || typeof descriptor?.value !== 'function') {
      throw new TypeError(`@OnConfigChange on ${String(name)}: expected a method that is not static`);
    }
    marked.set(target, [...(marked.get(target) ?? []), { name, def }]);
  };
}

function marksOf(instance: object): Marked[] {
  const all: Marked[] = [];
  for (let at = Object.getPrototypeOf(instance); at; at = Object.getPrototypeOf(at))
    all.push(...(marked.get(at) ?? []));
  return all;
}

/** What the types of Midway leave out of a container. Its hooks of the same names are called for one component alone. */
interface Makes {
  onObjectCreated(hear: (instance: unknown, options: { definition: { scope?: unknown } }) => void): void;
  onObjectInit(hear: (instance: unknown, options: { definition: object }) => void): void;
}

/**
 * Lets `@ConfigRef` and `@OnConfigChange` work in what is made from here on. `service` gives the service of the application.
 */
export async function decorate(container: IMidwayContainer, service: () => CoordService): Promise<void> {
  const decorators = await container.getAsync(MidwayDecoratorService);
  decorators.registerPropertyHandler(REF, (_property: string, { def }: { def: AnyConfigDef }) => service().ref(def));
  /** The one object of a class, and the values when it was made, until it is initialized. */
  const made = new WeakMap<object, { one: Record<string | symbol, ConfigListener<unknown>>; first: unknown[] }>();
  const valuesOf = (marks: Marked[]) => marks.map(({ def }) => service().ref(def).value);
  const attempt = (path: string, work: () => unknown) => {
    const failed = (error: unknown) => loggerOf(container).error(`${path}: ${(error as Error).message}`);
    try {
      void Promise.resolve(work()).catch(failed);
    } catch (error) {
      failed(error);
    }
  };
  const pathOf = (instance: object) => `@OnConfigChange on ${instance.constructor.name}`;
  const makes = container as unknown as Makes;
  makes.onObjectCreated((instance, { definition }) => {
    const marks = isObject(instance) ? marksOf(instance) : [];
    if (marks.length === 0) return;
    if (definition.scope !== ScopeEnum.Singleton) {
      const why =
        'without effect, since there is one for each request or each user; put it into a class of @Scope(ScopeEnum.Singleton)';
      loggerOf(container).warn(`${pathOf(instance as object)}: ${why}`);
      return;
    }
    const one = instance as Record<string | symbol, ConfigListener<unknown>>;
    attempt(pathOf(one), () => made.set(definition, { one, first: valuesOf(marks) }));
  });
  // Midway 4 names another object than that of the definition.
  makes.onObjectInit((_, { definition }) => {
    const { one, first } = made.get(definition) ?? {};
    if (!one || !first) return;
    made.delete(definition);
    marksOf(one).forEach(({ name, def }, place) => {
      const path = `${pathOf(one)}.${String(name)}`;
      const hear: ConfigListener<unknown> = (...args) => one[name]?.(...args);
      attempt(path, () => service().follow(path, def, hear, first[place]));
    });
  });
}

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null;
