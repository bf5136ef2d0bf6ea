/** The registry as a module of Nest. */

import { type DynamicModule, Inject, Module, Optional } from '@nestjs/common';
import { ModulesContainer } from '@nestjs/core';
import type { RegistryOptions, SharedClient, UrlOptions } from '../index.js';
import type { AsyncOptions, ModuleExtras } from './async-options.js';
import { type ClientKind, type ClientTokens, checkGiven, ofFactory, ofOptions, refusesBare } from './client-module.js';
import {
  checkedSelf,
  Definitions,
  explained,
  getEtcdToken,
  getRegistryOptionsToken,
  getRegistryServiceToken,
  getRegistryToken,
  invalid,
  openRegistry,
  Registry,
  RegistryHealthIndicator,
  type RegistryOnEtcd,
  RegistryResident,
  RegistryService,
  type SelfOptions,
  SelfRegistration,
} from './shared/index.js';

/** Options of a `RegistryModule`. */
export interface RegistryModuleOptions {
  /**
   * The registry, as `connect()` takes it: a URL, options, or both. Default: the environment variable `ROLLCALL_REGISTRY`, else
   * the memory of this process. Written down and yet `undefined` or empty it fails the start.
   *
   * `{ etcd: 'default' }` shares the connection of the client of that name of `EtcdModule`. With `forRootAsync()` inject the
   * client, and give it as `{ client }`.
   */
  registry?: string | URL | UrlOptions | RegistryOptions | RegistryOnEtcd | undefined;
  /**
   * `true`: start although the registry can't be reached, and register when it can. Default false: the start fails unless
   * the registry answers within its `connectTimeoutMs`.
   */
  lazy?: boolean | undefined;
  /** How the application itself is registered. Default: it is not. */
  register?: SelfOptions | false | undefined;
}

/** What a class for `useClass` and `useExisting` has. */
export interface RegistryOptionsFactory {
  createRegistryOptions(name?: string): RegistryModuleOptions | Promise<RegistryModuleOptions>;
}

/** Options of `RegistryModule.forRootAsync()`. */
export interface RegistryModuleAsyncOptions extends AsyncOptions<RegistryModuleOptions, RegistryOptionsFactory> {}

// Programs write their health indicators into `providers`, and so this one: then it is that of the default registry.
Inject(getRegistryServiceToken())(RegistryHealthIndicator, undefined, 0);
Optional()(RegistryHealthIndicator, undefined, 1);
Inject(ModulesContainer)(RegistryHealthIndicator, undefined, 1);

/** Its hooks run first at the start. Has the providers. */
@Module({})
class RegistryCoreModule {}

/** Its hooks run last at the start. */
@Module({})
class RegistryEdgeModule {}

/**
 * Connects an application to a registry, and puts it there: once it listens, and until just before it stops.
 *
 * Gives `RegistryService`, `Registry` (the client itself) and `RegistryHealthIndicator` to all modules. Call it once for each
 * registry, in the root module. The same options again are the same client; others fail the start, as does the class alone.
 */
@Module({})
export class RegistryModule {
  /** @internal */
  constructor(given?: unknown, modules?: ModulesContainer) {
    checkGiven(RegistryModule, 'RegistryModule', given, modules);
  }

  /** Options that are known. */
  static forRoot(options: RegistryModuleOptions & ModuleExtras = {}): DynamicModule {
    return ofOptions(REGISTRY, options);
  }

  /** Options that are made by the program, of its `ConfigService` for instance. */
  static forRootAsync(options: RegistryModuleAsyncOptions): DynamicModule {
    return ofFactory(REGISTRY, 'createRegistryOptions', options);
  }
}

const selfOf = (tokens: ClientTokens) => `${tokens.service}:self`;
const etcdTokenOf = (tokens: ClientTokens) => `${tokens.service}:etcd`;

refusesBare(RegistryModule, 'RegistryModule');

const REGISTRY: ClientKind = {
  modules: { whole: RegistryModule, first: RegistryCoreModule, last: RegistryEdgeModule },
  title: 'RegistryModule',
  logName: 'Registry',
  tokens: { options: getRegistryOptionsToken, client: getRegistryToken, service: getRegistryServiceToken },
  definitions: new Definitions(),
  classes: { client: Registry, service: RegistryService, health: RegistryHealthIndicator },

  providers: (tokens, { where, log }, known?: RegistryModuleOptions) => [
    {
      // Known before anything is made, or not injected: Nest orders by what it injects.
      provide: etcdTokenOf(tokens),
      inject: etcdNameOf(known).map((name) => ({ token: getEtcdToken(name), optional: true })),
      useFactory: (etcd?: SharedClient) => etcd ?? false, // something must be provided
    },
    {
      provide: tokens.client,
      inject: [tokens.options, tokens.only, etcdTokenOf(tokens)],
      useFactory: async (given: RegistryModuleOptions, _: unknown, etcd: SharedClient | false) => {
        checked(where, given);
        const registry = await openRegistry(where, given, log, (name) => etcd || noEtcd(name, known !== undefined));
        // Until the application has started nothing of it is to keep the process alive: a start that fails ends it.
        return registry.unref();
      },
    },
    {
      provide: selfOf(tokens),
      inject: [tokens.client, tokens.options],
      useFactory: (registry: Registry, { register, lazy = false }: RegistryModuleOptions) => {
        if (!register) return false; // something must be provided
        const signalHint = 'call app.enableShutdownHooks()';
        return new SelfRegistration({ registry, options: register, background: lazy, signalHint, log });
      },
    },
    {
      provide: tokens.service,
      inject: [tokens.client, selfOf(tokens)],
      useFactory: (registry: Registry, self: SelfRegistration | false) =>
        new RegistryService(registry, self || undefined, log),
    },
    {
      provide: tokens.health,
      inject: [tokens.service, ModulesContainer],
      useFactory: (service: RegistryService, modules: ModulesContainer) =>
        new RegistryHealthIndicator(service, modules),
    },
  ],

  resident: {
    inject: (tokens) => [tokens.client, selfOf(tokens), tokens.service],
    make: (application, registry: Registry, self: SelfRegistration | false, service: RegistryService) =>
      new RegistryResident({ ...application, registry, service, self: self || undefined }),
  },
};

/** The name of the etcd client that options of `forRoot()` ask for; what is wrong with them is said at the start. */
function etcdNameOf(known: RegistryModuleOptions | undefined): string[] {
  const { etcd } = (known?.registry ?? {}) as { etcd?: unknown };
  return typeof etcd === 'string' ? [etcd] : [];
}

function noEtcd(name: string, isKnown: boolean): never {
  throw invalid(
    'registry.etcd',
    isKnown
      ? `there is no etcd client "${name}": import EtcdModule.forRoot(…) for it in the root module`
      : 'a name is for forRoot(): in forRootAsync() inject the client, by getEtcdToken(), and give it as { client }',
  );
}

function checked(where: string, options: RegistryModuleOptions): void {
  try {
    if (typeof options !== 'object' || options === null) throw new TypeError('expected options');
    if (options.register) checkedSelf(options.register);
  } catch (error) {
    throw explained(where, error);
  }
}
