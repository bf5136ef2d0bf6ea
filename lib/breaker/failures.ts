/** What counts as a failure of who was called, and what is the caller's own. */

/** Codes of gRPC that say something about the request, not about the server: OK, CANCELLED, and those of a caller's mistake. */
const OF_THE_CALLER = new Set([0, 1, 3, 5, 6, 7, 9, 10, 11, 16]);
/** Codes of this package that do. */
const OURS =
  /^ERR_(INVALID_ARGUMENT|ABORTED|CONFLICT|NOT_FOUND|ALREADY_EXISTS|PERMISSION_DENIED|UNAUTHENTICATED|CLOSED|OUT_OF_RANGE|RATE_LIMITED|IN_PROGRESS|KEY_REUSED)$/;

/**
 * The default of `isFailure`: everything but an `AbortError`, codes of gRPC such as `INVALID_ARGUMENT` and `NOT_FOUND`, errors of this
 * package that say the same, and errors with an HTTP `status` or `statusCode` below 500.
 */
export function isFailure(error: unknown): boolean {
  if (typeof error !== 'object' || error === null) return true;
  const { name, code, status, statusCode } = error as Record<string, unknown>;
  if (name === 'AbortError') return false;
  if (typeof code === 'number' && code >= 0 && code <= 16) return !OF_THE_CALLER.has(code);
  if (typeof code === 'string' && OURS.test(code)) return false;
  const http = status ?? statusCode;
  return !(typeof http === 'number' && http >= 400 && http < 500);
}

/** A response of `fetch()`, or one of its shape, with a status of 500 or above: it is given, and counts as a failure. */
export function isFailedResult(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const { status, headers } = value as Record<string, unknown>;
  return typeof status === 'number' && status >= 500 && typeof headers === 'object';
}
