/** The etcd client as a module of Nest. */

import { type DynamicModule, Inject, Logger, Module, type Provider } from '@nestjs/common';
import { HttpAdapterHost, ModulesContainer } from '@nestjs/core';
import type { IOptions } from '../etcd/index.js';
import { type AsyncOptions, assembled, asyncProviders, type ModuleExtras } from './async-options.js';
import {
  ETCD_CLIENT,
  Etcd3,
  EtcdHealthIndicator,
  EtcdResident,
  EtcdService,
  endsOf,
  getEtcdOptionsToken,
  getEtcdServiceToken,
  getEtcdToken,
  isDefault,
  openEtcd,
  placeAtEnds,
} from './shared/index.js';

/** Options of an `EtcdModule`: those of the client, and these. */
export interface EtcdModuleOptions extends IOptions {
  /** Time for the whole first contact, in milliseconds. Default 10000. */
  connectTimeoutMs?: number | undefined;
  /** `true`: start although etcd can't be reached. Default false: the start fails unless etcd answers in time. */
  lazy?: boolean | undefined;
  /** Called with the client before anybody else has it. */
  onClientCreated?: ((client: Etcd3) => void) | undefined;
  /** Whether the client is closed when the application stops. Default true. */
  closeOnShutdown?: boolean | undefined;
}

/** What a class for `useClass` and `useExisting` has. */
export interface EtcdOptionsFactory {
  createEtcdOptions(name?: string): EtcdModuleOptions | Promise<EtcdModuleOptions>;
}

/** Options of `EtcdModule.forRootAsync()`. */
export interface EtcdModuleAsyncOptions extends AsyncOptions<EtcdModuleOptions, EtcdOptionsFactory> {}

// Programs write their health indicators into `providers`, and so this one: then it is that of the default client.
Inject(ETCD_CLIENT)(EtcdHealthIndicator, undefined, 0);

/** Its hooks run first at the start. Has the providers. */
@Module({})
class EtcdCoreModule {}

/** Its hooks run last at the start. */
@Module({})
class EtcdEdgeModule {}

/**
 * An etcd client for an application: connected before the application starts, closed after everything else has stopped.
 *
 * Gives the client, under `ETCD_CLIENT` and its class `Etcd3`, `EtcdService` and `EtcdHealthIndicator`. Call it once for
 * each client: Nest makes a client for each call.
 */
@Module({})
export class EtcdModule {
  /** Options that are known. */
  static forRoot(options: EtcdModuleOptions & ModuleExtras): DynamicModule {
    const { name, isGlobal, ...rest } = options ?? {};
    return make({ name, isGlobal }, [{ provide: getEtcdOptionsToken(name), useValue: rest }]);
  }

  /** Options that are made by the program, of its `ConfigService` for instance. */
  static forRootAsync(options: EtcdModuleAsyncOptions): DynamicModule {
    const token = getEtcdOptionsToken(options.name);
    const providers = asyncProviders('EtcdModule', token, 'createEtcdOptions', options);
    return make(options, providers, options.imports);
  }
}

function make(extras: ModuleExtras, options: Provider[], imports?: DynamicModule['imports']): DynamicModule {
  const { name } = extras;
  const where = isDefault(name) ? 'EtcdModule' : `EtcdModule "${name}"`;
  const log = new Logger(isDefault(name) ? 'Etcd' : `Etcd:${name}`);
  const optionsToken = getEtcdOptionsToken(name);
  const clientToken = getEtcdToken(name);
  const serviceToken = getEtcdServiceToken(name);
  const residentToken = `${serviceToken}:resident`;
  const healthToken = isDefault(name) ? EtcdHealthIndicator : `${serviceToken}:health`;
  const providers: Provider[] = [
    ...options,
    {
      provide: clientToken,
      inject: [optionsToken],
      useFactory: (given: EtcdModuleOptions) => openEtcd(where, given, log),
    },
    {
      provide: serviceToken,
      inject: [clientToken],
      useFactory: (client: Etcd3) => new EtcdService(client, log),
    },
    { provide: healthToken, inject: [clientToken], useFactory: (client: Etcd3) => new EtcdHealthIndicator(client) },
    {
      provide: residentToken,
      inject: [clientToken, serviceToken, optionsToken, HttpAdapterHost, ModulesContainer],
      useFactory: (
        client: Etcd3,
        service: EtcdService,
        options: EtcdModuleOptions,
        host: HttpAdapterHost,
        modules: ModulesContainer,
      ) => {
        placeAtEnds(modules.values(), EtcdCoreModule, EtcdEdgeModule);
        const adapter = () => host.httpAdapter;
        return endsOf(new EtcdResident({ where, name, client, service, options, modules, adapter, log }));
      },
    },
    { provide: `${residentToken}:first`, inject: [residentToken], useFactory: ({ first }) => first },
    ...(isDefault(name)
      ? [
          { provide: Etcd3, useExisting: clientToken },
          { provide: EtcdService, useExisting: serviceToken },
        ]
      : []),
  ];
  return assembled(EtcdModule, { first: EtcdCoreModule, last: EtcdEdgeModule }, extras, {
    imports,
    providers,
    exports: [
      optionsToken,
      clientToken,
      serviceToken,
      residentToken,
      healthToken,
      ...(isDefault(name) ? [Etcd3, EtcdService] : []),
    ],
    last: { provide: `${residentToken}:last`, inject: [residentToken], useFactory: ({ last }) => last },
  });
}
