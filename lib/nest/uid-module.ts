/** Ids as a module of Nest. */

import { type DynamicModule, Module } from '@nestjs/common';
import type { ModulesContainer } from '@nestjs/core';
import type { AsyncOptions, ModuleExtras } from './async-options.js';
import { checkGiven, ofFactory, ofOptions, refusesBare } from './client-module.js';
import { recipeKind } from './recipe-module.js';
import {
  coordNameOf,
  getUidOptionsToken,
  getUidServiceToken,
  openUid,
  UidService,
  type UidSettings,
} from './shared/index.js';

/** Options of a `UidModule`: those of `createUid()`, where `{ service }` alone takes a worker id of the store of the `CoordModule`. */
export type UidModuleOptions = UidSettings;

/** What a class for `useClass` and `useExisting` has. */
export interface UidOptionsFactory {
  createUidOptions(name?: string): UidModuleOptions | Promise<UidModuleOptions>;
}

/** Options of `UidModule.forRootAsync()`. */
export interface UidModuleAsyncOptions extends AsyncOptions<UidModuleOptions, UidOptionsFactory> {}

/** Its hooks run first at the start. Has the providers. */
@Module({})
class UidCoreModule {}

/** Its hooks run last at the start. */
@Module({})
class UidEdgeModule {}

/**
 * The ids of an application, of `rollcall/uid`: there is a worker id before it starts, and it is given back when everything else has stopped.
 *
 * Gives `UidService` to all modules. Call it once for each kind of ids, in the root module. The same options again are the same ids; others
 * fail the start, as does the class alone. It needs a `CoordModule`, unless the worker id is given.
 */
@Module({})
export class UidModule {
  /** @internal */
  constructor(given?: unknown, modules?: ModulesContainer) {
    checkGiven(UidModule, 'UidModule', given, modules);
  }

  /** Options that are known. What is wrong with them fails the start, as does what `createUid()` rejects with. */
  static forRoot(options: UidModuleOptions & ModuleExtras): DynamicModule {
    return ofOptions(UIDS, options ?? {});
  }

  /** Options that are made by the program, of its `ConfigService` for instance. */
  static forRootAsync(options: UidModuleAsyncOptions): DynamicModule {
    return ofFactory(UIDS, 'createUidOptions', options);
  }
}

refusesBare(UidModule, 'UidModule');

const UIDS = recipeKind<UidModuleOptions, UidService>({
  modules: { whole: UidModule, first: UidCoreModule, last: UidEdgeModule },
  title: 'UidModule',
  logName: 'Uid',
  tokens: { options: getUidOptionsToken, service: getUidServiceToken },
  service: UidService,
  uses: ['coord'],
  needs: (known) => ({ coord: coordNameOf(known) }),
  open: async ({ where, log }, options, { coord }) => new UidService(await openUid(where, options, log, coord)),
  close: ({ uid }) => uid.close(),
});
