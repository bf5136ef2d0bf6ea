/** What is done once, as a module of Nest, and requests that are answered once by their `Idempotency-Key`. */

import {
  applyDecorators,
  type CallHandler,
  type DynamicModule,
  type ExecutionContext,
  Inject,
  Logger,
  Module,
  type NestInterceptor,
  SetMetadata,
  type Type,
  UseInterceptors,
} from '@nestjs/common';
import type { ModulesContainer } from '@nestjs/core';
import { from, lastValueFrom, type Observable } from 'rxjs';
import type { AsyncOptions, ModuleExtras } from './async-options.js';
import { checkGiven, ofFactory, ofOptions, refusesBare } from './client-module.js';
import { recipeKind } from './recipe-module.js';
import {
  type Answer,
  answerOnce,
  coordNameOf,
  getOnceOptionsToken,
  getOnceServiceToken,
  type IdempotentOptions,
  idempotencyOf,
  invalid,
  KEPT_HEADERS,
  namedApart,
  OnceService,
  type OnceSettings,
  openOnce,
  recipeToken,
} from './shared/index.js';

/** Options of an `OnceModule`: those of `createOnce()`, where `redis` or `coord` alone is enough for a store. */
export interface OnceModuleOptions extends OnceSettings {}

/** What a class for `useClass` and `useExisting` has. */
export interface OnceOptionsFactory {
  createOnceOptions(name?: string): OnceModuleOptions | Promise<OnceModuleOptions>;
}

/** Options of `OnceModule.forRootAsync()`. */
export interface OnceModuleAsyncOptions extends AsyncOptions<OnceModuleOptions, OnceOptionsFactory> {}

/** Its hooks run first at the start. Has the providers. */
@Module({})
class OnceCoreModule {}

/** Its hooks run last at the start. */
@Module({})
class OnceEdgeModule {}

/**
 * What an application does once, of `rollcall/once`, in memory, in Redis, or where a store of its own is given.
 *
 * Gives `OnceService` to all modules, and lets `@Idempotent()` work. When all else has stopped it waits for what runs, ten seconds at
 * the most; a client of Redis stays the program's. Call it once, in the root module. The same options again are the same; others
 * fail the start, as does the class alone.
 */
@Module({})
export class OnceModule {
  /** @internal */
  constructor(given?: unknown, modules?: ModulesContainer) {
    checkGiven(OnceModule, 'OnceModule', given, modules);
  }

  /** Options that are known. What is wrong with them fails the start. */
  static forRoot(options: OnceModuleOptions & ModuleExtras): DynamicModule {
    return ofOptions(ONCE, options ?? {});
  }

  /** Options that are made by the program, with its client of Redis for instance. */
  static forRootAsync(options: OnceModuleAsyncOptions): DynamicModule {
    return ofFactory(ONCE, 'createOnceOptions', options);
  }
}

refusesBare(OnceModule, 'OnceModule');

const NEEDED = '@Idempotent needs';

const ONCE = recipeKind<OnceModuleOptions, OnceService>({
  modules: { whole: OnceModule, first: OnceCoreModule, last: OnceEdgeModule },
  title: 'OnceModule',
  logName: 'Once',
  tokens: { options: getOnceOptionsToken, service: getOnceServiceToken },
  service: OnceService,
  decorators: NEEDED,
  uses: ['coord'],
  needs: (known) => ({ coord: coordNameOf(known) }),
  open: async ({ where, log }, options, { coord }) => new OnceService(await openOnce(where, options, log, coord)),
  close: ({ once }) => once.close(),
});

/** Which requests are answered once, how, and of which module. */
// biome-ignore lint/suspicious/noExplicitAny: the request of Express or Fastify, which the program annotates
export interface IdempotentDecoratorOptions<Request = any> extends IdempotentOptions<Request> {
  /** The name of the `OnceModule`. Default: the default one. */
  once?: string | undefined;
}

/** On a method: how its requests are answered once. */
const IDEMPOTENT = 'rollcall:idempotent';

/**
 * Requests with the same `Idempotency-Key` are answered once, as the draft of the IETF of this header has it: the first runs the method,
 * and all others get its status, its body, `Location` and the headers of its content, with `Idempotent-Replayed: true`, for `ttlMs` (a day); those that
 * come while it runs wait for it (`whenRunning: 'reject'`: 409 at once). A request without the header is refused with 400
 * (`required`), the key of another request with 422, and while the store is away nothing is run: 503. A client that goes away in the middle ends nothing: it asks again,
 * with the same key. A method that throws is run again by the next request.
 *
 * Give `scope`, by which the keys of one user are not those of another. On methods of controllers, or on a controller; for HTTP, by Express and Fastify. An answer that is a stream,
 * or written by `@Res()`, is not kept. Interceptors around it see on a replay what JSON has of the answer: put one that goes by classes,
 * such as `ClassSerializerInterceptor`, on the method, above.
 *
 * ```ts
 * @Post()
 * @Idempotent({ scope: (request) => request.user.id })
 * create(@Body() order: Order) {}
 * ```
 *
 * @throws `ERR_INVALID_ARGUMENT` that names the option.
 */
// biome-ignore lint/suspicious/noExplicitAny: the request of Express or Fastify, which the program annotates
export function Idempotent<Request = any>(options?: IdempotentDecoratorOptions<Request>) {
  const [once, how] = namedApart('@Idempotent', options, 'once');
  const idempotency = idempotencyOf<Request>('@Idempotent', how);
  return applyDecorators(SetMetadata(IDEMPOTENT, idempotency), UseInterceptors(interceptorOf(once)));
}

const interceptors = new Map<string, Type<NestInterceptor>>();
const log = new Logger('Once');

interface HttpRequest {
  readonly method: string;
  readonly url: string;
  readonly originalUrl?: string;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body?: unknown;
}

/** What responses of Express and replies of Fastify have. */
interface HttpResponse {
  statusCode: number;
  /** Of Express. */
  readonly headersSent?: boolean;
  /** Of Fastify. */
  readonly sent?: boolean;
  getHeader(name: string): unknown;
  header(name: string, value: string): unknown;
  status(code: number): unknown;
}

/** The interceptor of a module: a class, which Nest makes where it is used. */
function interceptorOf(name: string | undefined): Type<NestInterceptor> {
  const token = recipeToken('OnceModule', NEEDED, name);
  const known = interceptors.get(token);
  if (known) return known;
  class IdempotencyInterceptor implements NestInterceptor {
    readonly #service: OnceService;

    constructor(service: OnceService) {
      this.#service = service;
    }

    intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
      if (context.getType() !== 'http') throw invalid('@Idempotent', 'expected a method for HTTP');
      return from(this.#answer(context, next));
    }

    async #answer(context: ExecutionContext, next: CallHandler): Promise<unknown> {
      const request = context.switchToHttp().getRequest<HttpRequest>();
      const response = context.switchToHttp().getResponse<HttpResponse>();
      const { method, url, originalUrl, headers, body } = request;
      const asked = { method, url: originalUrl ?? url, key: headers['idempotency-key'], body };
      let own: Answer | undefined;
      const run = async (): Promise<Answer> => {
        const value: unknown = await lastValueFrom(next.handle(), { defaultValue: undefined });
        const kept = KEPT_HEADERS.map((header) => [header, response.getHeader(header)] as const);
        own = {
          status: response.statusCode,
          headers: Object.fromEntries(
            kept.filter(([, set]) => set !== undefined).map(([header, set]) => [header, String(set)]),
          ),
          body: value,
          isWritten: isWrittenByHand(context) || response.headersSent === true || response.sent === true,
        };
        return own;
      };
      const answer = await answerOnce(this.#service.once, idempotencyIn(context), request, asked, run, log);
      if (answer === own) return own.body; // its headers are set
      for (const [header, value] of Object.entries(answer.headers)) response.header(header, value);
      if (answer.status !== undefined) response.status(answer.status);
      return answer.body;
    }
  }
  Inject(token)(IdempotencyInterceptor, undefined, 0);
  interceptors.set(token, IdempotencyInterceptor);
  return IdempotencyInterceptor;
}

/** What Nest knows of the parameters of a method: `type:index`, where 1 is `@Res()` and 2 `@Next()`; and that `@Res()` has `passthrough`. */
const [PARAMETERS, PASSTHROUGH] = ['__routeArguments__', '__responsePassthrough__'];

/** Whether a method writes its response itself: Nest then writes none, whatever it is given. */
function isWrittenByHand(context: ExecutionContext): boolean {
  const { getMetadata } = Reflect as typeof Reflect & { getMetadata(key: string, target: object, of: string): unknown };
  const of = [context.getClass(), context.getHandler().name] as const;
  const types = Object.keys(Object(getMetadata(PARAMETERS as string, ...of)));
  return types.some((type) => /^[12]:/.test(type)) && getMetadata(PASSTHROUGH as string, ...of) !== true;
}

/** That of the method, else that of its class. */
function idempotencyIn(context: ExecutionContext): ReturnType<typeof idempotencyOf<HttpRequest>> {
  const { getMetadata } = Reflect as typeof Reflect & { getMetadata(key: string, target: object): unknown };
  const found = getMetadata(IDEMPOTENT, context.getHandler()) ?? getMetadata(IDEMPOTENT, context.getClass());
  return found as ReturnType<typeof idempotencyOf<HttpRequest>>;
}
