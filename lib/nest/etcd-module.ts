/** The etcd client as a module of Nest. */

import { type DynamicModule, Inject, Module, Optional } from '@nestjs/common';
import { ModulesContainer } from '@nestjs/core';
import type { IOptions } from '../etcd/index.js';
import type { AsyncOptions, ModuleExtras } from './async-options.js';
import { type ClientKind, checkGiven, ofFactory, ofOptions, refusesBare } from './client-module.js';
import {
  Definitions,
  ETCD_CLIENT,
  Etcd3,
  EtcdHealthIndicator,
  EtcdResident,
  EtcdService,
  getEtcdOptionsToken,
  getEtcdServiceToken,
  getEtcdToken,
  openEtcd,
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
Optional()(EtcdHealthIndicator, undefined, 1);
Inject(ModulesContainer)(EtcdHealthIndicator, undefined, 1);

/** Its hooks run first at the start. Has the providers. */
@Module({})
class EtcdCoreModule {}

/** Its hooks run last at the start. */
@Module({})
class EtcdEdgeModule {}

/**
 * An etcd client for an application: connected before the application starts, closed after everything else has stopped.
 *
 * Gives the client, under `ETCD_CLIENT` and its class `Etcd3`, `EtcdService` and `EtcdHealthIndicator`, to all
 * modules. Call it once for each client, in the root module. The same options again are the same client; others fail the
 * start, as does the class alone.
 */
@Module({})
export class EtcdModule {
  /** @internal */
  constructor(given?: unknown, modules?: ModulesContainer) {
    checkGiven(EtcdModule, 'EtcdModule', given, modules);
  }

  /** Options that are known. */
  static forRoot(options: EtcdModuleOptions & ModuleExtras): DynamicModule {
    return ofOptions(ETCD, options ?? {});
  }

  /** Options that are made by the program, of its `ConfigService` for instance. */
  static forRootAsync(options: EtcdModuleAsyncOptions): DynamicModule {
    return ofFactory(ETCD, 'createEtcdOptions', options);
  }
}

refusesBare(EtcdModule, 'EtcdModule');

const ETCD: ClientKind = {
  modules: { whole: EtcdModule, first: EtcdCoreModule, last: EtcdEdgeModule },
  title: 'EtcdModule',
  logName: 'Etcd',
  tokens: { options: getEtcdOptionsToken, client: getEtcdToken, service: getEtcdServiceToken },
  definitions: new Definitions(),
  classes: { client: Etcd3, service: EtcdService, health: EtcdHealthIndicator },

  providers: ({ only, options, client, service, health }, { where, log }) => [
    { provide: client, inject: [options, only], useFactory: (given: EtcdModuleOptions) => openEtcd(where, given, log) },
    { provide: service, inject: [client], useFactory: (etcd: Etcd3) => new EtcdService(etcd, log) },
    {
      provide: health,
      inject: [client, ModulesContainer],
      useFactory: (etcd: Etcd3, modules: ModulesContainer) => new EtcdHealthIndicator(etcd, modules),
    },
  ],

  resident: {
    inject: ({ client, service, options }) => [client, service, options],
    make: (application, client: Etcd3, service: EtcdService, options: EtcdModuleOptions) =>
      new EtcdResident({ ...application, client, service, options }),
  },
};
