/** Rate limits as a module of Nest. */

import {
  type CanActivate,
  type DynamicModule,
  type ExecutionContext,
  Inject,
  Module,
  type Type,
  UseGuards,
} from '@nestjs/common';
import type { ModulesContainer } from '@nestjs/core';
import type { AsyncOptions, ModuleExtras } from './async-options.js';
import { checkGiven, ofFactory, ofOptions, refusesBare } from './client-module.js';
import { recipeKind } from './recipe-module.js';
import {
  coordNameOf,
  getRateLimitOptionsToken,
  getRateLimitServiceToken,
  namedApart,
  openRateLimiter,
  type RateLimitOf,
  type RateLimitOptions,
  RateLimitService,
  type RateLimitSettings,
  rateLimitOf,
  recipeToken,
  takeFor,
} from './shared/index.js';

/** Options of a `RateLimitModule`: those of `createRateLimiter()`, where `rules: { path }` are those in the store of the `CoordModule`. */
export interface RateLimitModuleOptions extends RateLimitSettings {}

/** What a class for `useClass` and `useExisting` has. */
export interface RateLimitOptionsFactory {
  createRateLimitOptions(name?: string): RateLimitModuleOptions | Promise<RateLimitModuleOptions>;
}

/** Options of `RateLimitModule.forRootAsync()`. */
export interface RateLimitModuleAsyncOptions extends AsyncOptions<RateLimitModuleOptions, RateLimitOptionsFactory> {}

/** Its hooks run first at the start. Has the providers. */
@Module({})
class RateLimitCoreModule {}

/** Its hooks run last at the start. */
@Module({})
class RateLimitEdgeModule {}

/**
 * The rate limits of an application, of `rollcall/ratelimit`: their rules are read before it starts, and followed to its end.
 *
 * Gives `RateLimitService` to all modules, lets `@RateLimit()` work, and answers what it refuses with 429 and `Retry-After`, over gRPC
 * with `RESOURCE_EXHAUSTED` (`RefusalFilter`). Call it once, in the root module. The same options again are the same limits; others fail
 * the start, as does the class alone. It needs no `CoordModule` unless its rules lie there, and no `RegistryModule` unless rules are `shared`.
 */
@Module({})
export class RateLimitModule {
  /** @internal */
  constructor(given?: unknown, modules?: ModulesContainer) {
    checkGiven(RateLimitModule, 'RateLimitModule', given, modules);
  }

  /** Options that are known. What is wrong with them fails the start. */
  static forRoot(options: RateLimitModuleOptions & ModuleExtras): DynamicModule {
    return ofOptions(RATE_LIMITS, options ?? {});
  }

  /** Options that are made by the program, with its client of Redis for instance. */
  static forRootAsync(options: RateLimitModuleAsyncOptions): DynamicModule {
    return ofFactory(RATE_LIMITS, 'createRateLimitOptions', options);
  }
}

refusesBare(RateLimitModule, 'RateLimitModule');

const NEEDED = '@RateLimit needs';

const RATE_LIMITS = recipeKind<RateLimitModuleOptions, RateLimitService>({
  modules: { whole: RateLimitModule, first: RateLimitCoreModule, last: RateLimitEdgeModule },
  title: 'RateLimitModule',
  logName: 'RateLimit',
  tokens: { options: getRateLimitOptionsToken, service: getRateLimitServiceToken },
  service: RateLimitService,
  decorators: NEEDED,
  uses: ['coord', 'registry'],
  needs: ({ rules, registry }) => {
    const of = registry?.registry;
    return { coord: coordNameOf(rules as object | undefined), registry: typeof of === 'string' ? of : undefined };
  },
  open: async ({ where, log }, options, clients) =>
    new RateLimitService(await openRateLimiter(where, options, log, clients)),
  close: ({ limiter }) => limiter.close(),
});

/** Of which requests so much is asked, how, and of which module. */
export interface RateLimitDecoratorOptions extends RateLimitOptions<ExecutionContext> {
  /** The name of the `RateLimitModule`. Default: the default one. */
  limiter?: string | undefined;
}

/** What requests of Express and Fastify have. */
interface HttpRequest {
  readonly ip?: string;
}

/** What responses of Express and replies of Fastify have. */
interface HttpResponse {
  header?(name: string, value: string): unknown;
}

/**
 * A request takes `cost` tokens (1) of the rule for who asks (`by`; the address of who calls); one that finds too few is refused before the method runs: over HTTP
 * with 429, over gRPC with `RESOURCE_EXHAUSTED`. Responses over HTTP have the headers `RateLimit-Policy` and `RateLimit`, and `Retry-After` where they refuse.
 *
 * A guard: on controllers and their methods, several of them too, after the guards that stand before it, such as the one that knows the user. Nest says
 * at the start what to import where there is no `RateLimitModule`.
 *
 * ```ts
 * @Post()
 * @RateLimit('send', { by: (context) => `user:${context.switchToHttp().getRequest().user.id}` })
 * send() {}
 * ```
 *
 * @throws `ERR_INVALID_ARGUMENT` that names the option.
 */
export function RateLimit(rule: string, options?: RateLimitDecoratorOptions) {
  const [limiter, how] = namedApart('@RateLimit', options, 'limiter');
  return UseGuards(guardOf(recipeToken('RateLimitModule', NEEDED, limiter), rateLimitOf('@RateLimit', rule, how)));
}

/** A guard for one limit: a class, which Nest makes where it is used. */
function guardOf(token: string, limit: RateLimitOf<ExecutionContext>): Type<CanActivate> {
  class RateLimitGuard implements CanActivate {
    readonly #service: RateLimitService;

    constructor(service: RateLimitService) {
      this.#service = service;
    }

    async canActivate(context: ExecutionContext): Promise<boolean> {
      const isHttp = context.getType() === 'http';
      const http = context.switchToHttp();
      const response = isHttp ? http.getResponse<HttpResponse>() : undefined;
      await takeFor(this.#service.limiter, limit, {
        context,
        address: isHttp ? http.getRequest<HttpRequest>().ip : undefined,
        set: (name, value) => response?.header?.(name, value),
      });
      return true;
    }
  }
  Inject(token)(RateLimitGuard, undefined, 0);
  return RateLimitGuard;
}
