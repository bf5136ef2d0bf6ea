/** The options of calls over HTTP, checked and completed. */

import { abortSignal, boolean, integer, invalid, kindOf, onlyKnown, optional, shown, text } from '../common/shape.js';
import type { HttpOptions } from '../service/http.js';

/** The options of one user of a service, complete. */
export interface HttpSettings {
  readonly retries: number;
  /** 0: for ever. */
  readonly timeoutMs: number;
  /** 0: none of its own. */
  readonly perTryTimeoutMs: number;
  readonly failedStatuses: readonly number[];
}

/** How one call is tried. */
export interface CallSettings extends HttpSettings {
  readonly key: string | undefined;
  readonly idempotent: boolean | undefined;
  readonly signal: AbortSignal | undefined;
  readonly redirect: 'follow' | 'manual' | 'error';
}

/** What is left for the built-in `fetch`. */
export type Rest = Omit<RequestInit, 'method' | 'headers' | 'body' | 'signal' | 'redirect'>;

const HTTP_OPTIONS = [
  'retries',
  'timeoutMs',
  'perTryTimeoutMs',
  'failedStatuses',
] as const satisfies readonly (keyof HttpOptions)[];
const CALL_OPTIONS = ['key', 'retries', 'timeoutMs', 'perTryTimeoutMs', 'idempotent'];
/** What a `fetch()` knows by itself. */
const FETCH_OPTIONS = [
  ...['method', 'headers', 'body', 'signal', 'redirect', 'duplex', 'keepalive', 'referrer', 'referrerPolicy'],
  ...['integrity', 'cache', 'credentials', 'mode', 'window', 'priority'],
];
const INIT_OPTIONS = [...FETCH_OPTIONS, ...CALL_OPTIONS];
const REDIRECTS = ['follow', 'manual', 'error'] as const;
const MOST_RETRIES = 100;

export const HTTP_DEFAULTS: HttpSettings = Object.freeze({
  retries: 2,
  timeoutMs: 30_000,
  perTryTimeoutMs: 0,
  failedStatuses: Object.freeze([502, 503, 504]),
});

/** Checks how instances are called. */
export function httpSettings(path: string, value: unknown): HttpSettings {
  const given = optional(path, value);
  onlyKnown(path, given, HTTP_OPTIONS);
  return Object.freeze({
    ...tries(path, given, HTTP_DEFAULTS),
    failedStatuses: statuses(`${path}.failedStatuses`, given.failedStatuses),
  });
}

/** The path of a call, which begins at the host. */
export function checkPath(path: unknown): string {
  const expected = 'expected a path that begins with "/", such as "/orders/7"';
  if (typeof path !== 'string') throw invalid('path', `${expected}, got ${kindOf(path)}`);
  if (path.startsWith('/')) return path;
  const problem = /^[a-z][a-z0-9+.-]*:/i.test(path)
    ? 'got a whole URL: the service is in the place of its scheme, host and port, so write what follows them'
    : 'got a string that begins otherwise';
  throw invalid('path', `${expected}, ${problem}`);
}

/** What a call says of itself. */
export interface CheckedInit {
  readonly how: CallSettings;
  readonly method: string;
  /** `undefined`: none. */
  readonly headers: Headers | undefined;
  readonly body: RequestInit['body'];
  readonly rest: Rest;
}

/** Of calls that say nothing of themselves. */
const silent = new WeakMap<HttpSettings, CheckedInit>();

/** Checks what a call says of itself. What remains for the built-in `fetch` it checks by itself. */
export function checkInit(init: unknown, defaults: HttpSettings): CheckedInit {
  if (init === undefined) {
    const known = silent.get(defaults) ?? Object.freeze(checkInit({}, defaults));
    silent.set(defaults, known);
    return known;
  }
  const given = optional('init', init);
  if (given.dispatcher !== undefined) {
    throw invalid('init.dispatcher', 'a call by name goes through the dispatcher of the built-in fetch; leave it out');
  }
  onlyKnown('init', given, INIT_OPTIONS);
  const { key, retries, timeoutMs, perTryTimeoutMs, idempotent, signal, headers, body, redirect, ...others } = given;
  const { method = 'GET', ...rest } = others as RequestInit;
  const how = {
    key: text('init.key', key),
    ...tries('init', { retries, timeoutMs, perTryTimeoutMs }, defaults),
    failedStatuses: defaults.failedStatuses,
    idempotent: idempotent === undefined ? undefined : boolean('init.idempotent', idempotent, false),
    signal: abortSignal('init.signal', signal ?? undefined),
    redirect: redirectOf(redirect),
  };
  return { how, method, headers: headersOf(headers), body: body as RequestInit['body'], rest };
}

function redirectOf(value: unknown): CallSettings['redirect'] {
  if (value === undefined) return 'follow';
  const found = REDIRECTS.find((known) => known === value);
  if (!found) throw invalid('init.redirect', `expected "follow", "manual" or "error", got another ${kindOf(value)}`);
  return found;
}

function headersOf(value: unknown): Headers | undefined {
  if (value === undefined) return undefined;
  try {
    const headers = new Headers(value as ConstructorParameters<typeof Headers>[0]);
    headers.delete('host'); // of the address in any case: not every Node.js lets `fetch` send another one
    return headers;
  } catch {
    // What it says shows the value, which may be a secret.
    throw invalid(
      'init.headers',
      'expected headers as fetch takes them: names that are tokens, values of Latin characters',
    );
  }
}

function tries(path: string, given: Record<string, unknown>, defaults: HttpSettings) {
  return {
    retries: integer(`${path}.retries`, given.retries, defaults.retries, { min: 0, max: MOST_RETRIES }),
    timeoutMs: integer(`${path}.timeoutMs`, given.timeoutMs, defaults.timeoutMs, { min: 0 }),
    perTryTimeoutMs: integer(`${path}.perTryTimeoutMs`, given.perTryTimeoutMs, defaults.perTryTimeoutMs, { min: 0 }),
  };
}

function statuses(path: string, value: unknown): readonly number[] {
  if (value === undefined) return HTTP_DEFAULTS.failedStatuses;
  if (!Array.isArray(value)) throw invalid(path, `expected an array of statuses, got ${kindOf(value)}`);
  return Object.freeze(
    value.map((status: unknown, n) => {
      if (typeof status === 'number' && Number.isInteger(status) && status >= 100 && status <= 599) return status;
      throw invalid(`${path}[${n}]`, `expected a status from 100 to 599, got ${shown(status)}`);
    }),
  );
}
