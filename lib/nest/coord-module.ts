/** The store of configuration as a module of Nest. */

import { type DynamicModule, Inject, Module, Optional } from '@nestjs/common';
import { ModulesContainer } from '@nestjs/core';
import type { ConfigDef, Coord, CoordIdentity, CoordOptions } from '../coord/index.js';
import type { RegistryOptions } from '../index.js';
import type { AsyncOptions, ModuleExtras } from './async-options.js';
import { type ClientKind, type ClientTokens, checkGiven, ofFactory, ofOptions, refusesBare } from './client-module.js';
import {
  type AnyConfigDef,
  Configurations,
  CoordHealthIndicator,
  CoordMethods,
  CoordResident,
  CoordService,
  type CoordTarget,
  configToken,
  Definitions,
  definitionOf,
  definitionsOf,
  explained,
  getCoordOptionsToken,
  getCoordServiceToken,
  getCoordToken,
  getEtcdToken,
  getRegistryToken,
  invalid,
  methodsToken,
  openCoord,
  readOnce,
  sharedOf,
} from './shared/index.js';

/** Options of a `CoordModule`. */
export interface CoordModuleOptions {
  /**
   * The store, and who this process is, as `connectCoord()` takes it: a URL, options, or both. Default: the environment variable
   * `ROLLCALL_COORD`, else `ROLLCALL_REGISTRY`, else the memory of this process. Written down and yet `undefined` or empty it
   * fails the start, unless one of the variables is set.
   *
   * `{ registry: 'default' }` and `{ etcd: 'default' }` share the connection of the client of that name of `RegistryModule` and
   * `EtcdModule`. With `forRootAsync()` inject the client, and give it in the place of its name.
   */
  coord?: CoordTarget | undefined;
  /**
   * `true`: start although the store can't be reached, with the defaults of the definitions; one that has none fails the start
   * after `connectTimeoutMs`. Default false: the start fails unless the store answers within `connectTimeoutMs`.
   */
  lazy?: boolean | undefined;
}

/** What stands beside the options, and beside a factory of them. */
export interface CoordModuleExtras extends ModuleExtras {
  /**
   * What is opened at the start, and closed at the end. One that can't be opened, because what lies there is refused for
   * instance, fails the start. Default: none.
   */
  config?: readonly AnyConfigDef[] | undefined;
}

/** What a class for `useClass` and `useExisting` has. */
export interface CoordOptionsFactory {
  createCoordOptions(name?: string): CoordModuleOptions | Promise<CoordModuleOptions>;
}

/** Options of `CoordModule.forRootAsync()`. */
export interface CoordModuleAsyncOptions
  extends AsyncOptions<CoordModuleOptions, CoordOptionsFactory>,
    CoordModuleExtras {}

// Programs write their health indicators into `providers`, and so this one: then it is that of the default client.
Inject(getCoordServiceToken())(CoordHealthIndicator, undefined, 0);
Optional()(CoordHealthIndicator, undefined, 1);
Inject(ModulesContainer)(CoordHealthIndicator, undefined, 1);

/** Its hooks run first at the start. Has the providers. */
@Module({})
class CoordCoreModule {}

/** Its hooks run last at the start. */
@Module({})
class CoordEdgeModule {}

/**
 * The configurations of an application: open before the application starts, closed after everything else has stopped.
 *
 * Gives each of `config` under `configToken(definition)`, which `@InjectConfig(definition)` injects, and `CoordService`, `COORD_CLIENT` (the
 * `Coord` itself) and `CoordHealthIndicator` to all modules. Call it once for each store, in the root module. The same
 * options again are the same client; others fail the start, as does the class alone.
 */
@Module({})
export class CoordModule {
  /** @internal */
  constructor(given?: unknown, modules?: ModulesContainer) {
    checkGiven(CoordModule, 'CoordModule', given, modules);
  }

  /**
   * Options that are known.
   *
   * @throws `ERR_INVALID_ARGUMENT` for `config` that is no list of definitions, or has two of a key that say different things.
   */
  static forRoot(options: CoordModuleOptions & CoordModuleExtras = {}): DynamicModule {
    return ofOptions(COORD, checkedConfig('forRoot', options));
  }

  /** Options that are made by the program, of its `ConfigService` for instance. @throws as `forRoot()`. */
  static forRootAsync(options: CoordModuleAsyncOptions): DynamicModule {
    return ofFactory(COORD, 'createCoordOptions', checkedConfig('forRootAsync', options));
  }
}

/**
 * For `ConfigModule.forRoot({ load: [coordLoader(orders)] })` of `@nestjs/config`: the value of a configuration at the start. Give
 * it a place of its own by `registerAs('orders', coordLoader(orders))`; without one the value must be an object.
 *
 * It is read once, by a connection of its own that is closed then: `ConfigModule` injects nothing into what it loads. So it is
 * not replaced by `useMemoryRegistry()`, and does not change; `@InjectConfig()` gives what does.
 *
 * @param target as `connectCoord()` takes it. Default: `ROLLCALL_COORD`, else `ROLLCALL_REGISTRY`, else the memory of this process.
 * @throws `ERR_INVALID_ARGUMENT` for what `defineConfig()` has not given; what is returned rejects as `connectCoord()` and
 *   `coord.config.get()` do.
 */
export function coordLoader<T>(
  definition: ConfigDef<T>,
  target?: string | URL | CoordOptions | (RegistryOptions & CoordIdentity),
): () => Promise<T> {
  const def = definitionOf('definition', definition);
  return async () => {
    try {
      return await readOnce<T>(target, def);
    } catch (error) {
      throw explained('coordLoader', error);
    }
  };
}

function checkedConfig<Options extends CoordModuleExtras>(method: string, options: Options): Options {
  try {
    return { ...options, config: definitionsOf('config', options?.config) };
  } catch (error) {
    throw explained(`CoordModule.${method}`, error);
  }
}

const sharedTokenOf = (tokens: ClientTokens) => `${tokens.service}:shared`;
const configsTokenOf = (tokens: ClientTokens) => `${tokens.service}:config`;

refusesBare(CoordModule, 'CoordModule');

const COORD: ClientKind = {
  modules: { whole: CoordModule, first: CoordCoreModule, last: CoordEdgeModule },
  title: 'CoordModule',
  logName: 'Coord',
  tokens: { options: getCoordOptionsToken, client: getCoordToken, service: getCoordServiceToken },
  definitions: new Definitions(),
  classes: { service: CoordService, health: CoordHealthIndicator },

  providers: (tokens, { where, log }, known?: CoordModuleOptions) => [
    {
      // Known before anything is made, or not injected: Nest orders by what it injects.
      provide: sharedTokenOf(tokens),
      inject: sharedTokens(known).map((token) => ({ token, optional: true })),
      useFactory: (client?: unknown) => client ?? false, // something must be provided
    },
    {
      provide: tokens.client,
      inject: [tokens.options, tokens.only, sharedTokenOf(tokens)],
      useFactory: (given: CoordModuleOptions, _: unknown, shared: never) => {
        const find = (kind: 'registry' | 'etcd') => (name: string) =>
          shared || noClient(kind, name, known !== undefined);
        return openCoord(where, given ?? {}, log, { registry: find('registry'), etcd: find('etcd') });
      },
    },
    {
      provide: tokens.service,
      inject: [tokens.client, configsTokenOf(tokens)],
      useFactory: async (coord: Coord, all: readonly AnyConfigDef[]) => {
        try {
          return new CoordService(await Configurations.open(coord, all), new CoordMethods(coord, log));
        } catch (error) {
          throw explained(where, error);
        }
      },
    },
    {
      provide: tokens.health,
      inject: [tokens.service, ModulesContainer],
      useFactory: (service: CoordService, modules: ModulesContainer) => new CoordHealthIndicator(service, modules),
    },
  ],

  extra: 'config',
  features: (tokens, given: CoordModuleExtras) => {
    const { config = [], name } = given;
    return [
      // Not as values: Nest 10 writes those out, and these are schemas.
      { provide: configsTokenOf(tokens), useFactory: () => config },
      { provide: methodsToken(name), useExisting: tokens.service },
      ...config.map((definition) => ({
        provide: configToken(definition, name),
        inject: [tokens.service],
        useFactory: (service: CoordService) => service.ref(definition),
      })),
    ];
  },

  resident: {
    inject: ({ service }) => [service],
    make: (application, service: CoordService) => new CoordResident({ ...application, service }),
  },
};

/** The token of the client that options of `forRoot()` share; what is wrong with them is said at the start. */
function sharedTokens(known: CoordModuleOptions | undefined): string[] {
  const shared = known && sharedOf(known);
  if (!shared) return [];
  return [shared.kind === 'etcd' ? getEtcdToken(shared.name) : getRegistryToken(shared.name)];
}

function noClient(kind: 'registry' | 'etcd', name: string, isKnown: boolean): never {
  const module = kind === 'etcd' ? 'EtcdModule' : 'RegistryModule';
  const token = kind === 'etcd' ? 'getEtcdToken()' : 'getRegistryToken()';
  throw invalid(
    `coord.${kind}`,
    isKnown
      ? `there is no client "${name}": import ${module}.forRoot(…) for it in the root module`
      : `a name is for forRoot(): in forRootAsync() inject the client, by ${token}, and give it in the place of its name`,
  );
}
