/** The rate limits of an application, of the key `rateLimit`. */

import {
  ApplicationContext,
  Guard,
  type IGuard,
  type IMidwayContainer,
  Init,
  Provide,
  Scope,
  ScopeEnum,
} from '@midwayjs/core';
import { invalid } from '../common/shape.js';
import { expectInstance } from '../frameworks/methods.js';
import {
  openRateLimiter,
  type RateLimitOf,
  type RateLimitOptions,
  rateLimitOf,
  takeFor,
} from '../frameworks/rate-limits.js';
import type { AllowOptions, Decision, RateLimiter } from '../ratelimit/index.js';
import type { RateLimitConfig } from './config.js';
import { configOf, loggerOf } from './container.js';
import { coordOf, isGiven, madeOf, notGiven } from './recipes.js';
import { RegistryServiceFactory } from './registry-factory.js';

/** The limiter of the key `rateLimit`. */
@Provide()
@Scope(ScopeEnum.Singleton)
export class RateLimitService {
  /** @internal */
  @ApplicationContext()
  container!: IMidwayContainer;

  /** The whole of it: its events, `rules()`, `headers()`. The component closes it. */
  limiter!: RateLimiter;

  /** @internal */
  @Init()
  async init(): Promise<void> {
    const { container } = this;
    if (!isGiven(container, 'rateLimit')) throw notGiven('rateLimit');
    const config = configOf<RateLimitConfig>(container, 'rateLimit');
    const made = await madeOf(container, 'rateLimit', config, ['redis']);
    this.limiter = await openRateLimiter('rateLimit', made, loggerOf(container), {
      coord: coordOf(container),
      registry: async (name = 'default') => {
        const factory = await container.getAsync(RegistryServiceFactory);
        if (factory.has(name)) return factory.get(name);
        throw invalid(
          'registry',
          `there is no client "${name}": give it in registry.clients, or "default" as registry.client`,
        );
      },
    });
  }

  /** As `limiter.allow()`: whether the subject may have `cost` tokens of the rule, which are then taken. @throws as it. */
  async allow(subject: string, rule: string, cost?: number, options?: AllowOptions): Promise<Decision> {
    return await this.limiter.allow(subject, rule, cost, options);
  }

  /** As `limiter.take()`: the same for who wants an error in the place of a refusal. @throws `RateLimitedError`, and as it. */
  async take(subject: string, rule: string, cost?: number, options?: AllowOptions): Promise<Decision> {
    return await this.limiter.take(subject, rule, cost, options);
  }

  /** @internal */
  close(): void {
    this.limiter.close();
  }
}

/** The context of koa or gRPC, and the request of express, as far as it matters here. */
interface Context {
  readonly ip?: unknown;
  readonly res?: { set?(name: string, value: string): unknown };
  set?(name: string, value: string): unknown;
}

/** By the prototype of a class and the name of its method. */
const limits = new WeakMap<object, Map<string | symbol, RateLimitOf<unknown>[]>>();

/**
 * A request to the method takes `cost` tokens (1) of the rule for who asks (`by`; the address of who calls); one that finds too few is refused
 * by `RateLimitGuard`, which must stand before it: with 429, over gRPC with `RESOURCE_EXHAUSTED`. Responses over HTTP have the headers `RateLimit-Policy` and
 * `RateLimit`, and `Retry-After` where they refuse. Several of them are asked from below.
 *
 * ```ts
 * @Controller('/messages')
 * @UseGuard(RateLimitGuard)                     // or app.useGuard(RateLimitGuard)
 * export class Messages {
 *   @Post('/')
 *   @RateLimit('send', { by: (ctx) => `user:${ctx.state.user.id}` })
 *   async send() {}
 * }
 * ```
 *
 * @throws `ERR_INVALID_ARGUMENT` that names the option.
 */
// biome-ignore lint/suspicious/noExplicitAny: the context of a framework, which the program annotates
export function RateLimit<Of = any>(rule: string, options?: RateLimitOptions<Of>): MethodDecorator {
  return (target, key) => {
    expectInstance('@RateLimit', target, key);
    const path = `@RateLimit on ${target.constructor.name}.${String(key)}`;
    const own = limits.get(target) ?? new Map<string | symbol, RateLimitOf<unknown>[]>();
    own.set(key, [...(own.get(key) ?? []), rateLimitOf<Of>(path, rule, options) as RateLimitOf<unknown>]);
    limits.set(target, own);
  };
}

/** Lets a request through that has the tokens which `@RateLimit()` of its method asks for; one without `@RateLimit()` always. */
@Guard()
export class RateLimitGuard implements IGuard<unknown> {
  /** @internal */
  @ApplicationContext()
  container!: IMidwayContainer;

  /** @throws `RateLimitedError`, which `RefusalFilter` answers; `ERR_INVALID_ARGUMENT` without the key `rateLimit`. */
  async canActivate(context: unknown, type: new (...args: never[]) => unknown, method: string): Promise<boolean> {
    const all = limitsOf(type, method);
    if (all.length === 0) return true;
    const { limiter } = await this.container.getAsync(RateLimitService);
    const { ip } = context as Context;
    const address = typeof ip === 'string' ? ip : undefined;
    const set = setterOf(context as Context);
    for (const limit of all) await takeFor(limiter, limit, { context, address, set });
    return true;
  }
}

/** Those of a method, also of a class that it is inherited from. */
function limitsOf(type: new (...args: never[]) => unknown, method: string): readonly RateLimitOf<unknown>[] {
  for (let at = type.prototype as object | null; at; at = Object.getPrototypeOf(at)) {
    const found = limits.get(at)?.get(method);
    if (found) return found;
    if (Object.hasOwn(at, method)) return []; // another method of this name
  }
  return [];
}

function setterOf(context: Context): ((name: string, value: string) => unknown) | undefined {
  // Of express it is the request, which has its response.
  if (typeof context.res?.set === 'function') return (name, value) => context.res?.set?.(name, value);
  return typeof context.set === 'function' ? (name, value) => context.set?.(name, value) : undefined;
}
