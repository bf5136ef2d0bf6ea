/** What an application does once, of the key `once`, and requests that are answered once by their `Idempotency-Key`. */

import { ApplicationContext, type IMidwayContainer, Init, Provide, Scope, ScopeEnum } from '@midwayjs/core';
import { invalid } from '../common/shape.js';
import {
  type Answer,
  answerOnce,
  type IdempotentOptions,
  idempotencyOf,
  KEPT_HEADERS,
  openOnce,
} from '../frameworks/idempotency.js';
import type { Once, Run, RunOptions } from '../once/index.js';
import type { OnceConfig } from './config.js';
import { configOf, loggerOf } from './container.js';
import { coordOf, isGiven, madeOf, notGiven } from './recipes.js';

/** The `Once` of the key `once`. */
@Provide()
@Scope(ScopeEnum.Singleton)
export class OnceService {
  /** @internal */
  @ApplicationContext()
  container!: IMidwayContainer;

  /** The whole of it: `clear()`, `resolve()`, `inspect()`. The component closes it. */
  once!: Once;

  /** @internal */
  @Init()
  async init(): Promise<void> {
    if (!isGiven(this.container, 'once')) throw notGiven('once');
    const config = configOf<OnceConfig>(this.container, 'once');
    const made = await madeOf(this.container, 'once', config, ['redis', 'store']);
    this.once = await openOnce('once', made, loggerOf(this.container), coordOf(this.container));
  }

  /** As `once.do()`: runs `fn`, unless that was done for this key within `ttlMs`. @throws as it. */
  async do(key: string, ttlMs: number, fn: (run: Run) => unknown, options?: RunOptions): Promise<'ran' | 'done'> {
    return await this.once.do(key, ttlMs, fn, options);
  }

  /** As `once.execute()`: gives what `fn` gave for this key, and runs it if that was not done within `ttlMs`. @throws as it. */
  async execute<T>(key: string, ttlMs: number, fn: (run: Run) => T | Promise<T>, options?: RunOptions): Promise<T> {
    return await this.once.execute(key, ttlMs, fn, options);
  }

  /** @internal */
  async close(): Promise<void> {
    await this.once.close();
  }
}

/** The context of koa, as far as it matters here. */
interface KoaContext {
  readonly method: string;
  readonly originalUrl: string;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly request: { readonly body?: unknown };
  readonly response: { readonly _explicitStatus?: boolean; get(name: string): string };
  readonly requestContext: { getAsync<T>(type: new () => T): Promise<T> };
  body: unknown;
  status: number;
  set(name: string, value: string): unknown;
  /** `false`: the program writes `res` itself. */
  readonly respond?: boolean;
  readonly res: { readonly headersSent: boolean };
}

/**
 * A middleware of koa: requests with the same `Idempotency-Key` are answered once, as the draft of the IETF of this header has it. The first runs
 * what comes after it, and all others get its status, its body, `Location` and the headers of its content, with
 * `Idempotent-Replayed: true`, for `ttlMs` (a day); those that come while it runs wait for it (`whenRunning: 'reject'`: 409 at once). A request without the header is refused
 * with 400 (`required`), the key of another request with 422, and while the store is away nothing is run: 503. A client that goes away in the
 * middle ends nothing: it asks again, with the same key. What throws is run again by the next request.
 *
 * Give `scope`, by which the keys of one user are not those of another. Needs the key `once`. An answer that is a stream is not kept.
 *
 * ```ts
 * @Post('/', { middleware: [idempotent({ scope: (ctx) => ctx.state.user.id })] })
 * ```
 *
 * @throws `ERR_INVALID_ARGUMENT` that names the option.
 */
// biome-ignore lint/suspicious/noExplicitAny: the context of koa, which the program annotates
export function idempotent<Context = any>(options?: IdempotentOptions<Context>) {
  const idempotency = idempotencyOf<Context>('idempotent', options);
  // biome-ignore lint/suspicious/noExplicitAny: Midway has one type for the middlewares of all its frameworks
  return async (context: any, next: any): Promise<unknown> => {
    const ctx = context as KoaContext;
    if (typeof ctx.set !== 'function' || !ctx.requestContext)
      throw invalid('idempotent', 'expected koa as the framework');
    const { once, container } = await ctx.requestContext.getAsync(OnceService);
    const asked = {
      method: ctx.method,
      url: ctx.originalUrl,
      key: ctx.headers['idempotency-key'],
      body: ctx.request.body,
    };
    const run = async (): Promise<Answer> => {
      const body: unknown = (await next()) ?? ctx.body;
      if (body !== undefined && body !== null) ctx.body = body;
      const kept = KEPT_HEADERS.map((header) => [header, ctx.response.get(header)] as const);
      return {
        status: ctx.response._explicitStatus ? ctx.status : undefined,
        headers: Object.fromEntries(kept.filter(([, set]) => set)),
        body,
        isWritten: ctx.respond === false || ctx.res.headersSent,
      };
    };
    const { status, headers, body, isWritten } = await answerOnce(
      once,
      idempotency,
      context,
      asked,
      run,
      loggerOf(container),
    );
    if (isWritten) return body;
    if (body !== undefined) ctx.body = body;
    for (const [header, value] of Object.entries(headers)) ctx.set(header, value);
    if (status !== undefined) ctx.status = status;
    return body;
  };
}
