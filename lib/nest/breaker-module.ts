/** Circuit breakers as a module of Nest. */

import { type DynamicModule, Module } from '@nestjs/common';
import type { ModulesContainer } from '@nestjs/core';
import type { AsyncOptions, ModuleExtras } from './async-options.js';
import { checkGiven, ofFactory, ofOptions, refusesBare } from './client-module.js';
import { recipeKind } from './recipe-module.js';
import { served } from './served.js';
import {
  BREAKER_SIGNAL,
  type BreakerMethodOptions,
  type BreakerOptions,
  BreakerService,
  breakerMethod,
  coordNameOf,
  getBreakerOptionsToken,
  getBreakerServiceToken,
  namedApart,
  openBreakers,
  recipeToken,
} from './shared/index.js';

/** Options of a `BreakerModule`: those of `createBreakers()`, where `policies: { path }` are those in the store of the `CoordModule`. */
export interface BreakerModuleOptions extends BreakerOptions {}

/** What a class for `useClass` and `useExisting` has. */
export interface BreakerOptionsFactory {
  createBreakerOptions(name?: string): BreakerModuleOptions | Promise<BreakerModuleOptions>;
}

/** Options of `BreakerModule.forRootAsync()`. */
export interface BreakerModuleAsyncOptions extends AsyncOptions<BreakerModuleOptions, BreakerOptionsFactory> {}

/** Its hooks run first at the start. Has the providers. */
@Module({})
class BreakerCoreModule {}

/** Its hooks run last at the start. */
@Module({})
class BreakerEdgeModule {}

/**
 * The circuit breakers of an application, of `rollcall/breaker`: their policies are read before it starts, and followed to its end.
 *
 * Gives `BreakerService` to all modules, lets `@Breaker()` work, and answers what a breaker refuses with 503 and `Retry-After`, over gRPC
 * with `UNAVAILABLE` (`RefusalFilter`). Call it once, in the root module. The same options again are the same breakers; others fail
 * the start, as does the class alone. It needs no `CoordModule` unless its policies lie there.
 */
@Module({})
export class BreakerModule {
  /** @internal */
  constructor(given?: unknown, modules?: ModulesContainer) {
    checkGiven(BreakerModule, 'BreakerModule', given, modules);
  }

  /** Options that are known. What is wrong with them fails the start. */
  static forRoot(options: BreakerModuleOptions & ModuleExtras = {}): DynamicModule {
    return ofOptions(BREAKERS, options ?? {});
  }

  /** Options that are made by the program, of its `ConfigService` for instance. */
  static forRootAsync(options: BreakerModuleAsyncOptions): DynamicModule {
    return ofFactory(BREAKERS, 'createBreakerOptions', options);
  }
}

refusesBare(BreakerModule, 'BreakerModule');

const NEEDED = '@Breaker needs';

const BREAKERS = recipeKind<BreakerModuleOptions, BreakerService>({
  modules: { whole: BreakerModule, first: BreakerCoreModule, last: BreakerEdgeModule },
  title: 'BreakerModule',
  logName: 'Breakers',
  tokens: { options: getBreakerOptionsToken, service: getBreakerServiceToken },
  service: BreakerService,
  decorators: NEEDED,
  uses: ['coord'],
  needs: ({ policies }) => ({ coord: coordNameOf(policies as object | undefined) }),
  open: async ({ where, log }, options, { coord }) =>
    new BreakerService(await openBreakers(where, options, log, coord)),
  close: ({ breakers }) => breakers.close(),
});

/** How a method is called through a breaker, and of which breakers it is. */
export interface BreakerDecoratorOptions extends BreakerMethodOptions {
  /** The name of the `BreakerModule`. Default: the default one. */
  breakers?: string | undefined;
}

/**
 * The method is called through the breaker of this name: what it throws counts, and reaches the caller. A call that is refused rejects with
 * a `BreakerOpenError` without running, or gives what `fallback` gives. After `timeoutMs` of the policy it rejects with
 * `ERR_TIMEOUT`; a parameter with `@BreakerSignal()` hears of that.
 *
 * In providers and controllers of every scope, above or below other decorators. Nest says at the start what to import where there is
 * no `BreakerModule`.
 *
 * ```ts
 * @Breaker('grpc:users')
 * async user(id: string, @BreakerSignal() signal?: AbortSignal) {}
 * ```
 *
 * @throws `ERR_INVALID_ARGUMENT`.
 */
export function Breaker(name: string, options?: BreakerDecoratorOptions) {
  const [breakers, how] = namedApart('@Breaker', options, 'breakers');
  const token = recipeToken('BreakerModule', NEEDED, breakers);
  return served<BreakerService>('@Breaker', { token, module: 'BreakerModule' }, (place, serviceOf) =>
    breakerMethod(place, name, how, (self) => serviceOf(self).breakers),
  );
}

/** The parameter gets the signal of a call through `@Breaker()`. Whoever calls the method leaves it out. */
export function BreakerSignal(): ParameterDecorator {
  return (target, key, index) => BREAKER_SIGNAL.mark(target, key, index);
}
