/** What counts as a failure of who was called, and what is the caller's own. */

import { isCancelled } from '../service/outcome.js';

/** Codes of gRPC that say something about the request, not about the server: OK, and those of a caller's mistake. */
const OF_THE_CALLER = new Set([0, 3, 5, 6, 7, 9, 10, 11, 16]);
/** Codes of this package that do. */
const OURS =
  /^ERR_(INVALID_ARGUMENT|CONFLICT|NOT_FOUND|ALREADY_EXISTS|PERMISSION_DENIED|UNAUTHENTICATED|CLOSED|OUT_OF_RANGE|RATE_LIMITED|IN_PROGRESS|KEY_REUSED)$/;

/** Whether who made the call has ended it, by what it threw: then it counts neither way. */
export function isEnded(error: unknown): boolean {
  try {
    return typeof error === 'object' && error !== null && isCancelled(error);
  } catch {
    return false; // of an error that can't be read
  }
}

/**
 * The default of `isFailure`: everything but what a caller has ended, such as an `AbortError`, codes of gRPC such as `INVALID_ARGUMENT` and `NOT_FOUND`, errors of this
 * package that say the same, and errors with an HTTP `status` or `statusCode` below 500.
 */
export function isFailure(error: unknown): boolean {
  if (typeof error !== 'object' || error === null) return true;
  if (isCancelled(error)) return false;
  const { code, status, statusCode } = error as Record<string, unknown>;
  if (typeof code === 'number' && code >= 0 && code <= 16) return !OF_THE_CALLER.has(code);
  if (typeof code === 'string' && OURS.test(code)) return false;
  const http = status ?? statusCode;
  return !(typeof http === 'number' && http >= 400 && http < 500);
}

/** A response of `fetch()`, or one of its shape, with a status of 500 or above: it is given, and counts as a failure. */
export function isFailedResult(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  try {
    const { status, headers } = value as Record<string, unknown>;
    return typeof status === 'number' && status >= 500 && typeof headers === 'object';
  } catch {
    return false; // no response: a value of the program that can't be read, and is given as it is
  }
}
