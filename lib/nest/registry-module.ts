/** The registry as a module of Nest. */

import { type DynamicModule, Inject, Logger, Module, type Provider } from '@nestjs/common';
import { HttpAdapterHost, ModulesContainer } from '@nestjs/core';
import type { RegistryOptions } from '../index.js';
import { type AsyncOptions, assembled, asyncProviders, type ModuleExtras } from './async-options.js';
import {
  checkedSelf,
  endsOf,
  explained,
  getRegistryOptionsToken,
  getRegistryServiceToken,
  getRegistryToken,
  isDefault,
  openRegistry,
  placeAtEnds,
  Registry,
  RegistryHealthIndicator,
  RegistryResident,
  RegistryService,
  type SelfOptions,
  SelfRegistration,
} from './shared/index.js';

/** Options of a `RegistryModule`. */
export interface RegistryModuleOptions {
  /**
   * The registry, as `connect()` takes it: a URL or options. Default: the environment variable `ROLLCALL_REGISTRY`, else
   * the memory of this process. Written down and yet `undefined` or empty it fails the start.
   */
  registry?: string | URL | RegistryOptions | undefined;
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

/** Its hooks run first at the start. Has the providers. */
@Module({})
class RegistryCoreModule {}

/** Its hooks run last at the start. */
@Module({})
class RegistryEdgeModule {}

/**
 * Connects an application to a registry, and puts it there: once it listens, and until just before it stops.
 *
 * Gives `RegistryService`, `Registry` (the client itself) and `RegistryHealthIndicator`. Call it once for each registry:
 * Nest makes a client for each call.
 */
@Module({})
export class RegistryModule {
  /** Options that are known. */
  static forRoot(options: RegistryModuleOptions & ModuleExtras = {}): DynamicModule {
    const { name, isGlobal, ...rest } = options;
    return make({ name, isGlobal }, [{ provide: getRegistryOptionsToken(name), useValue: rest }]);
  }

  /** Options that are made by the program, of its `ConfigService` for instance. */
  static forRootAsync(options: RegistryModuleAsyncOptions): DynamicModule {
    const token = getRegistryOptionsToken(options.name);
    const providers = asyncProviders('RegistryModule', token, 'createRegistryOptions', options);
    return make(options, providers, options.imports);
  }
}

function make(extras: ModuleExtras, options: Provider[], imports?: DynamicModule['imports']): DynamicModule {
  const { name } = extras;
  const where = isDefault(name) ? 'RegistryModule' : `RegistryModule "${name}"`;
  const log = new Logger(isDefault(name) ? 'Registry' : `Registry:${name}`);
  const optionsToken = getRegistryOptionsToken(name);
  const clientToken = getRegistryToken(name);
  const serviceToken = getRegistryServiceToken(name);
  const selfToken = `${serviceToken}:self`;
  const residentToken = `${serviceToken}:resident`;
  const healthToken = isDefault(name) ? RegistryHealthIndicator : `${serviceToken}:health`;

  const providers: Provider[] = [
    ...options,
    {
      provide: clientToken,
      inject: [optionsToken],
      useFactory: async (given: RegistryModuleOptions) => {
        checked(where, given);
        const registry = await openRegistry(where, given, log);
        // Until the application has started nothing of it is to keep the process alive: a start that fails ends it.
        return registry.unref();
      },
    },
    {
      provide: selfToken,
      inject: [clientToken, optionsToken],
      useFactory: (registry: Registry, { register, lazy = false }: RegistryModuleOptions) =>
        // Something must be provided.
        register
          ? new SelfRegistration({
              registry,
              options: register,
              background: lazy,
              signalHint: 'call app.enableShutdownHooks()',
              log,
            })
          : false,
    },
    {
      provide: serviceToken,
      inject: [clientToken, selfToken],
      useFactory: (registry: Registry, self: SelfRegistration | false) =>
        new RegistryService(registry, self || undefined, log),
    },
    { provide: healthToken, inject: [serviceToken], useFactory: (service) => new RegistryHealthIndicator(service) },
    {
      provide: residentToken,
      inject: [clientToken, selfToken, serviceToken, HttpAdapterHost, ModulesContainer],
      useFactory: (
        registry: Registry,
        self: SelfRegistration | false,
        service: RegistryService,
        host: HttpAdapterHost,
        modules: ModulesContainer,
      ) => {
        placeAtEnds(modules.values(), RegistryCoreModule, RegistryEdgeModule);
        const adapter = () => host.httpAdapter;
        return endsOf(
          new RegistryResident({ where, name, registry, service, self: self || undefined, modules, adapter, log }),
        );
      },
    },
    { provide: `${residentToken}:first`, inject: [residentToken], useFactory: ({ first }) => first },
  ];
  const aliases: Provider[] = isDefault(name)
    ? [
        { provide: Registry, useExisting: clientToken },
        { provide: RegistryService, useExisting: serviceToken },
      ]
    : [];
  return assembled(RegistryModule, { first: RegistryCoreModule, last: RegistryEdgeModule }, extras, {
    imports,
    providers: [...providers, ...aliases],
    exports: [
      optionsToken,
      clientToken,
      serviceToken,
      residentToken,
      healthToken,
      ...(isDefault(name) ? [Registry, RegistryService] : []),
    ],
    last: { provide: `${residentToken}:last`, inject: [residentToken], useFactory: ({ last }) => last },
  });
}

function checked(where: string, options: RegistryModuleOptions): void {
  try {
    if (typeof options !== 'object' || options === null) throw new TypeError('expected options');
    if (options.register) checkedSelf(options.register);
  } catch (error) {
    throw explained(where, error);
  }
}
