/** The rate limits of an application, and what of its requests is limited. */

import { createHash } from 'node:crypto';
import { choice, invalid, isRecord, kindOf, onlyKnown, optional } from '../common/shape.js';
import type { Coord } from '../coord/index.js';
import type { Decision, HeaderStyle, RateLimitedError, RateLimiter, RateLimiterOptions } from '../ratelimit/index.js';
import type { Registry } from '../registry/registry.js';
import type { AppLogger } from './logger.js';
import { explained } from './open.js';
import { type FindCoord, readied, stored } from './recipes.js';

/** The longest subject of a limiter, in UTF-16 code units. */
const LONGEST = 512;

/** Not before a program has limits: what it does not use is not loaded. */
const rateLimitModule = () => require('../ratelimit/index.js') as typeof import('../ratelimit/index.js');

/** Rules in the store of a client of coord of the application. */
export interface RulesOfApplication {
  /** Such as `/config/{env}/{service}/ratelimit/`. */
  path: string;
  /** The name of the client of coord, or a client. Default: the default one. */
  coord?: string | Pick<Coord, 'config'> | undefined;
}

/** A registry of the application, where the live instances of this service are known. */
export interface InstancesOfApplication {
  /** The name that this service registers by. */
  service: string;
  /** The name of the registry, or a registry. Default: the default one. */
  registry?: string | Pick<Registry, 'service'> | undefined;
}

/** How an application is limited: as `createRateLimiter()` takes it, with what the application has by its name. */
export interface RateLimitSettings extends Omit<RateLimiterOptions, 'rules' | 'registry' | 'now'> {
  /** Rules by their names, what changes them, or where they lie in the store. */
  rules: RateLimiterOptions['rules'] | RulesOfApplication;
  /** Where the live instances of this service are known, for rules that are `shared`. Default: nowhere. */
  registry?: InstancesOfApplication | undefined;
}

/** Finds a registry of the application, or says why there is none. */
export type FindRegistry = (name: string | undefined) => Registry | Promise<Registry>;

/** Makes the limiter of a module, and reads its rules; `where` is how messages call the module. */
export async function openRateLimiter(
  where: string,
  options: RateLimitSettings,
  log: AppLogger,
  find: { readonly coord: FindCoord; readonly registry: FindRegistry },
): Promise<RateLimiter> {
  try {
    const given = optional('options', options);
    const rules = await stored('options.rules', given.rules, find.coord);
    const registry = await instances(given.registry, find.registry);
    const all = { logger: log, ...given, rules, registry } as RateLimiterOptions;
    return await readied(rateLimitModule().createRateLimiter(all));
  } catch (error) {
    throw explained(where, error);
  }
}

async function instances(given: unknown, find: FindRegistry): Promise<unknown> {
  if (!isRecord(given)) return given;
  const { registry, ...rest } = given;
  if (registry !== undefined && typeof registry !== 'string') return given;
  return { ...rest, registry: await find(registry) };
}

/** Of which requests so much is asked, and how. `Context` is what the framework gives. */
export interface RateLimitOptions<Context> {
  /** Who asks, such as `user:42`. Default: the address of who calls over HTTP, as the framework says it; else all together. */
  by?: ((context: Context) => string | Promise<string>) | undefined;
  /** How many tokens a request takes, or what says so. Default 1. */
  cost?: number | ((context: Context) => number | Promise<number>) | undefined;
  /** How the headers of a response over HTTP are written; `false`: `Retry-After` alone. Default `draft-8`. */
  headers?: HeaderStyle | false | undefined;
}

/** The options, completed. */
export interface RateLimitOf<Context> {
  readonly rule: string;
  readonly by: ((context: Context) => unknown) | undefined;
  readonly cost: number | ((context: Context) => unknown);
  readonly headers: HeaderStyle | false;
}

/** @throws `ERR_INVALID_ARGUMENT` that names the option. */
export function rateLimitOf<Context>(
  path: string,
  rule: unknown,
  options: RateLimitOptions<Context> | undefined,
): RateLimitOf<Context> {
  try {
    if (typeof rule !== 'string' || rule === '') throw invalid('rule', 'expected the name of a rule, such as "send"');
    const given = optional('options', options);
    onlyKnown('options', given, ['by', 'cost', 'headers']);
    const { by, cost = 1, headers } = given;
    if (by !== undefined && typeof by !== 'function')
      throw invalid('options.by', `expected a function, got ${kindOf(by)}`);
    if (typeof cost !== 'function' && !(typeof cost === 'number' && cost >= 0)) {
      throw invalid('options.cost', `expected a number from 0, or a function, got ${kindOf(cost)}`);
    }
    return {
      rule,
      by: by as RateLimitOf<Context>['by'],
      cost: cost as RateLimitOf<Context>['cost'],
      headers:
        headers === false
          ? false
          : choice<HeaderStyle>('options.headers', headers, ['draft-8', 'draft-7', 'legacy'], 'draft-8'),
    };
  } catch (error) {
    throw explained(path, error);
  }
}

/** A request, as far as it matters here. */
export interface Limited<Context> {
  readonly context: Context;
  /** Of who calls; `undefined` where it is not known. */
  readonly address: string | undefined;
  /** Sets a header of the response, where it has some. */
  set?(name: string, value: string): unknown;
}

/** Takes what a request costs. @throws `RateLimitedError`, `ERR_INVALID_ARGUMENT`. */
export async function takeFor<Context>(
  limiter: RateLimiter,
  { rule, by, cost, headers }: RateLimitOf<Context>,
  { context, address, set }: Limited<Context>,
): Promise<void> {
  const subject = subjectOf(by ? await by(context) : (address ?? 'all'));
  const tokens = typeof cost === 'function' ? await cost(context) : cost;
  const tell = (decision: Decision | undefined) => {
    if (!set || headers === false || !decision) return;
    for (const [name, value] of Object.entries(limiter.headers(decision, headers))) set(name, value);
  };
  try {
    tell(await limiter.take(subject, rule, tokens as number));
  } catch (error) {
    tell((error as Partial<RateLimitedError>).decision);
    throw error;
  }
}

/** What is longer than a limiter takes, such as a token, by its digest. */
function subjectOf(value: unknown): string {
  if (typeof value !== 'string' || value === '') {
    throw invalid(
      'options.by',
      `expected a string that is not empty, got ${value === '' ? 'an empty one' : kindOf(value)}`,
    );
  }
  return value.length > LONGEST ? createHash('sha256').update(value).digest('base64url') : value;
}
