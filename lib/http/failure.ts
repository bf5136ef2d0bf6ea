/** How a try failed, by what the built-in `fetch` rejects with. */

import { bagOf, type ErrorBag, isCausedBy } from '../common/causes.js';
import { InvalidArgumentError, TimeoutError, UnavailableError } from '../errors.js';

/** What a rejection of `fetch` means. */
export type FailureKind =
  /** No connection was made, so that nothing was sent. */
  | 'unsent'
  /** A connection broke: the instance may have acted on the request. */
  | 'broken'
  /** `fetch` does not take what the program gave it. */
  | 'argument';

/** Codes of undici for what the program gave it. */
const ARGUMENT = new Set(['UND_ERR_INVALID_ARG', 'UND_ERR_NOT_SUPPORTED', 'UND_ERR_REQ_CONTENT_LENGTH_MISMATCH']);

/** Whether undici does not take what the program gave it. */
export function isArgument(error: unknown): boolean {
  return ARGUMENT.has(String(bagOf(error).code));
}

const unsent = new WeakSet<object>();

/** Remembers of an error that nothing was sent, where what it says would not tell. */
export function noteUnsent(error: unknown): void {
  if (typeof error === 'object' && error !== null) unsent.add(error);
}

/**
 * `fetch` rejects with a TypeError for everything. What the network did is its cause; without one it is an argument. A
 * failure counts as unsent only if it says so: of `connect()`, of the look-up of a host, of the time for a connection.
 */
export function kindOfFailure(error: unknown): FailureKind {
  const { cause, code } = bagOf(error);
  if (cause === undefined && code === undefined) return 'argument';
  if (isArgument(cause)) return 'argument';
  return isCausedBy(error, isUnsent) ? 'unsent' : 'broken';
}

function isUnsent(error: ErrorBag): boolean {
  if (unsent.has(error)) return true;
  const { code, syscall, message } = error;
  if (syscall === 'connect' || syscall === 'getaddrinfo' || code === 'UND_ERR_CONNECT_TIMEOUT') return true;
  return message === 'bad port' && code === undefined; // a port that no fetch calls, such as 6000
}

/** A call or a try took too long. */
export function late(service: string, timeoutMs: number, what = 'no answer'): TimeoutError {
  return new TimeoutError(`fetch: ${service}: ${what} within ${timeoutMs} ms`, { operation: 'fetch' });
}

/** `fetch` refuses what the program gave it. What it says may show a value, so that it is the cause alone. */
export function refused(error: unknown): InvalidArgumentError {
  const problem = 'the built-in fetch does not take it: see the cause';
  return new InvalidArgumentError(`init: ${problem}`, { operation: 'fetch', cause: error });
}

/** No try came to an answer. */
export function unavailable(service: string, error: unknown, url: string, retryable: boolean): UnavailableError {
  const cause = bagOf(error).cause ?? error;
  const { message, code } = bagOf(cause);
  const why = (typeof message === 'string' && message) || String(code ?? 'the connection failed');
  const maybe = retryable ? '' : '; the instance may have acted on it';
  const details = { operation: 'fetch', endpoint: url, retryable, cause };
  return new UnavailableError(`fetch: ${service}: ${why}${maybe}`, details);
}
