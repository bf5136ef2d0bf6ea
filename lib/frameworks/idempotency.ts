/** Requests that are answered once, by their `Idempotency-Key`: what Nest and Midway have in common. */

import { createHash } from 'node:crypto';
import type { RedisLike } from '../common/redis.js';
import { boolean, choice, integer, invalid, isRecord, kindOf, onlyKnown, optional } from '../common/shape.js';
import { InvalidArgumentError, RollcallError } from '../errors.js';
import type { Once, OnceCoord, OnceOptions, RunOptions } from '../once/index.js';
import type { AppLogger } from './logger.js';
import { explained } from './open.js';
import type { FindCoord } from './recipes.js';
import { refusedAs } from './refusals.js';

/** Not before a program has it: what it does not use is not loaded. */
const onceModule = () => require('../once/index.js') as typeof import('../once/index.js');

/** Where an application keeps what was done, and how. */
export interface OnceSettings extends Omit<OnceOptions, 'store'> {
  /** What `memoryOnce()`, `redisOnce()` or another store of `rollcall/once` gives. This, or one of `redis` and `coord`. */
  store?: OnceOptions['store'] | undefined;
  /** A client of ioredis or node-redis. It stays the program's, to close when the application has stopped. */
  redis?: RedisLike | undefined;
  /** The name of a client of coord of the application, `default` for the default one, or a client: it is kept in that store. */
  coord?: string | OnceCoord | undefined;
  /** With `redis` and `coord`: how long it may take to answer, in milliseconds. Default as of `redisOnce()` and `coordOnce()`. */
  storeTimeoutMs?: number | undefined;
}

/** Makes what an application does once; `where` is how messages call the module. */
export async function openOnce(
  where: string,
  options: OnceSettings,
  log: AppLogger,
  findCoord: FindCoord,
): Promise<Once> {
  try {
    const { redis, coord, storeTimeoutMs, ...given } = optional('options', options) as Partial<OnceSettings>;
    if ([given.store, redis, coord].filter((one) => one !== undefined).length !== 1) {
      throw invalid('options.store', 'expected one of store, such as memoryOnce(), redis, a client of it, and coord');
    }
    if (given.store !== undefined && storeTimeoutMs !== undefined) {
      throw invalid('options.storeTimeoutMs', 'expected with redis or coord: a store has its own');
    }
    const { createOnce, redisOnce, coordOnce } = onceModule();
    let { store } = given;
    if (redis !== undefined) store = redisOnce(redis, { storeTimeoutMs });
    else if (coord !== undefined) {
      const client = typeof coord === 'string' ? await findCoord(coord) : coord;
      store = coordOnce(client, { storeTimeoutMs });
    }
    return createOnce({ logger: log, ...given, store } as OnceOptions);
  } catch (error) {
    throw explained(where, error);
  }
}

/** Which requests are answered once, and how. `Request` is the one of the framework. */
export interface IdempotentOptions<Request>
  extends Pick<RunOptions, 'whenRunning' | 'joinTimeoutMs' | 'lockMs' | 'afterCrash'> {
  /** For how long an answer is given again, in milliseconds, 1 ms to ten years. Default 86,400,000: a day. */
  ttlMs?: number | undefined;
  /**
   * Whose key it is, such as the id of the user, at most 256 bytes: without it who uses the key of somebody else, and the same body, is given
   * that answer. One that gives nothing fails the request. Default: none, one for all.
   */
  scope?: ((request: Request) => string | Promise<string>) | undefined;
  /** Whether a request without the header is refused, with 400; else it is answered as if this were not here. Default true. */
  required?: boolean | undefined;
  /** What the key is for: the same key with another one is refused, with 422. Default: the method, the path with its query, and the body as parsed. */
  fingerprint?: ((request: Request) => string | Uint8Array) | undefined;
}

/** The options, completed. */
export interface Idempotency<Request> {
  readonly ttlMs: number;
  readonly scope: ((request: Request) => unknown) | undefined;
  readonly required: boolean;
  readonly fingerprint: ((request: Request) => string | Uint8Array) | undefined;
  readonly run: RunOptions;
}

const KNOWN = ['ttlMs', 'scope', 'required', 'fingerprint', 'whenRunning', 'joinTimeoutMs', 'lockMs', 'afterCrash'];
const TEN_YEARS_MS = 315_360_000_000;

/** @throws `ERR_INVALID_ARGUMENT` that names the option. */
export function idempotencyOf<Request>(
  path: string,
  options: IdempotentOptions<Request> | undefined,
): Idempotency<Request> {
  try {
    const given = optional('options', options);
    onlyKnown('options', given, KNOWN);
    const { joinTimeoutMs, lockMs, scope, fingerprint } = given;
    for (const [name, value] of Object.entries({ scope, fingerprint })) {
      if (value !== undefined && typeof value !== 'function') throw invalid(`options.${name}`, 'expected a function');
    }
    const most = { min: 1, max: TEN_YEARS_MS };
    return {
      ttlMs: integer('options.ttlMs', given.ttlMs, 86_400_000, most),
      scope: scope as Idempotency<Request>['scope'],
      required: boolean('options.required', given.required, true),
      fingerprint: fingerprint as Idempotency<Request>['fingerprint'],
      run: {
        whenRunning: choice<'join' | 'reject'>('options.whenRunning', given.whenRunning ?? 'join', ['join', 'reject']),
        joinTimeoutMs: integer('options.joinTimeoutMs', joinTimeoutMs, 30_000, { min: 1 }),
        lockMs: integer('options.lockMs', lockMs, 30_000, { min: 1000, max: 3_600_000 }),
        afterCrash: choice<'retry' | 'unknown'>('options.afterCrash', given.afterCrash ?? 'retry', [
          'retry',
          'unknown',
        ]),
      },
    };
  } catch (error) {
    throw explained(path, error);
  }
}

/** A request, as far as it matters here. */
export interface Asked {
  readonly method: string;
  /** The path with its query. */
  readonly url: string;
  /** The header `Idempotency-Key`. */
  readonly key: unknown;
  readonly body: unknown;
}

/** An answer, by the framework. */
export interface Answer {
  readonly status: number | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: unknown;
  /** It is written by other means, now or later. */
  readonly isWritten?: boolean;
}

/** Which headers that the program has set are given again. */
export const KEPT_HEADERS = ['content-type', 'content-language', 'content-location', 'location', 'link', 'etag'];
/** Says that an answer is given again. */
export const REPLAYED = 'Idempotent-Replayed';

/** What the keys of requests begin with: whoever asks chooses them, and is not to choose one of the program's own. */
const OF_REQUESTS = '#';

/** An answer as it is kept. */
interface Kept {
  readonly status?: number;
  readonly headers: Readonly<Record<string, string>>;
  /** What the framework was given, as JSON, text or base64; none of these: nothing. `lost`: what can't be kept. */
  readonly json?: string;
  readonly text?: string;
  readonly base64?: string;
  readonly lost?: true;
  /** It was an object that says itself what JSON makes of it, such as a `Date`, or bytes that are no `Buffer`: frameworks answer those in another way. */
  readonly isObject?: true;
}

/**
 * Gives what `answer` gave when it was called for this key, and calls it if it was not. What it throws is not kept: the next request runs it
 * again. A client that goes away in the middle ends nothing.
 *
 * @throws refusals: 400 without a key where one is needed, 409 while it runs and where its outcome is not known, 422 for a key that was used
 * for something else, 503 where the store can't be asked; what `answer` throws.
 */
export async function answerOnce<Request>(
  once: Once,
  { ttlMs, scope, required, fingerprint, run }: Idempotency<Request>,
  request: Request,
  asked: Asked,
  answer: () => Promise<Answer>,
  log: AppLogger,
): Promise<Answer> {
  const key = keyOf(asked.key);
  if (key === undefined && !required) return await answer();
  if (key === undefined) throw badRequest('the header Idempotency-Key is missing');
  let own: Answer | undefined;
  let thrown: unknown;
  const work = async () => {
    try {
      own = await answer();
    } catch (error) {
      thrown = error;
      throw error;
    }
    return keptOf(own);
  };
  const how = {
    ...run,
    scope: scope && scopeOf(await scope(request)),
    fingerprint: fingerprint?.(request) ?? fingerprintOf(asked),
  };
  try {
    const kept = await once.execute(OF_REQUESTS + key, ttlMs, work, how);
    return own ?? replayOf(kept);
  } catch (error) {
    if (error === thrown) throw error;
    // It was done, whatever became of its record: who is told so does not ask again.
    if (!own || (error as { code?: unknown }).code === 'ERR_TAKEN_OVER') throw mapped(error);
    log.warn(`the answer to a request with an Idempotency-Key was not kept: ${(error as Error).message}`);
    return own;
  }
}

/** The text of a structured header, or what is written without quotes. */
function keyOf(header: unknown): string | undefined {
  const given: unknown = Array.isArray(header) ? header.join(', ') : header;
  if (typeof given !== 'string' || given.trim() === '') return undefined;
  const key = /^"((?:[^"\\]|\\["\\])*)"$/.exec(given.trim())?.[1]?.replace(/\\(.)/g, '$1') ?? given.trim();
  if (key.length === 0 || key.length > 255 || !/^[\x20-\x7e]+$/.test(key)) {
    throw badRequest('the header Idempotency-Key is not 1 to 255 characters of ASCII');
  }
  return key;
}

const badRequest = (message: string) =>
  refusedAs(new InvalidArgumentError(message), {
    status: 400,
    grpc: 3,
    message: `${message[0]?.toUpperCase()}${message.slice(1)}`,
  });

/** Whose key it is. Who has no name is not to share one with all who have none. */
function scopeOf(value: unknown): string {
  const text = value === undefined || value === null || Number.isNaN(value) ? '' : String(value);
  if (text !== '' && !text.startsWith('[object ')) return text;
  throw invalid(
    'options.scope',
    `expected a string that is not empty, got ${value === '' ? 'an empty one' : kindOf(value)}`,
  );
}

/** The same whatever order the fields of the body stand in. */
function fingerprintOf({ method, url, body }: Asked): string {
  const hash = createHash('sha256').update(JSON.stringify([method.toUpperCase(), url]));
  if (typeof body === 'string' || body instanceof Uint8Array) hash.update(body);
  else hash.update(JSON.stringify(body, sorted) ?? '');
  return hash.digest('base64url');
}

function sorted(_: string, value: unknown): unknown {
  if (!isRecord(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function keptOf({ status, headers, body, isWritten }: Answer): Kept {
  const kept = status === undefined ? { headers } : { status, headers };
  if (isWritten || isStream(body)) return { ...kept, lost: true };
  if (body === undefined) return kept;
  if (typeof body === 'string') return { ...kept, text: body };
  if (body instanceof Uint8Array) {
    const base64 = Buffer.from(body).toString('base64');
    return Buffer.isBuffer(body) ? { ...kept, base64 } : { ...kept, base64, isObject: true };
  }
  const json = jsonOf(body);
  if (json === undefined) return { ...kept, lost: true };
  const isOther = typeof body === 'object' && body !== null && !/^[{[]/.test(json);
  return isOther ? { ...kept, json, isObject: true } : { ...kept, json };
}

/** A stream of Node.js or of the web, a file of Nest, a `Blob` or `Response`. */
function isStream(body: unknown): boolean {
  const { pipe, getStream, getReader, arrayBuffer } = Object(body) as Record<string, unknown>;
  return [pipe, getStream, getReader, arrayBuffer].some((one) => typeof one === 'function');
}

/** `undefined`: JSON has no text for it. It was done all the same. */
function jsonOf(body: unknown): string | undefined {
  try {
    return JSON.stringify(body);
  } catch {
    return undefined;
  }
}

function replayOf(kept: Kept): Answer {
  if (kept.lost) throw notKept();
  const { status, headers } = kept;
  return { status, headers: { ...headers, [REPLAYED]: 'true' }, body: bodyOf(kept) };
}

function bodyOf({ json, text, base64, isObject }: Kept): unknown {
  if (base64 !== undefined) {
    const bytes = Buffer.from(base64, 'base64');
    return isObject ? new Uint8Array(bytes) : bytes;
  }
  if (json === undefined) return text;
  const value: unknown = JSON.parse(json);
  return isObject ? { toJSON: () => value } : value;
}

const notKept = (cause?: Error) =>
  refusedAs(new RollcallError('ERR_OUTCOME_UNKNOWN', 'the answer is none that can be kept', { cause }), {
    status: 409,
    grpc: 9,
    message: 'This was done, and its answer is not kept',
  });

/** What the store says, as a refusal. Who waits for the run of another is told what that one throws, as it is. */
function mapped(error: unknown): unknown {
  if (!(error instanceof RollcallError) || error.operation !== 'execute') return error;
  if (error.code === 'ERR_INVALID_ARGUMENT') return notKept(error); // it was larger than what is kept
  if (error.code !== 'ERR_UNAVAILABLE' && error.code !== 'ERR_TIMEOUT') return error;
  const message = 'Whether this was done before can not be asked at the moment';
  return refusedAs(error, { status: 503, grpc: 14, message });
}
