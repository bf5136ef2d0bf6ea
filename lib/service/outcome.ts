/** What an error says of the instance that was called. */

import { type ErrorBag, isCausedBy } from '../common/causes.js';
import type { Outcome } from './ejector.js';

/** Nobody listens there, or nobody can be reached: no call was made. */
const REFUSED = new Set(['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'EHOSTDOWN', 'UND_ERR_CONNECT_TIMEOUT']);
/** The caller did not want to know any more. */
const CANCELLED = new Set<unknown>(['ABORT_ERR', 'ERR_ABORTED', 'ERR_CANCELED', 'UND_ERR_ABORTED']);
/** Of gRPC: an instance that answers with any other is alive. */
const [GRPC_CANCELLED, GRPC_DEADLINE, GRPC_UNAVAILABLE] = [1, 4, 14];

/** Whether who made a call has ended it: it says nothing of who was called. */
export function isCancelled({ code, name }: { readonly code?: unknown; readonly name?: unknown }): boolean {
  return name === 'AbortError' || CANCELLED.has(code) || code === GRPC_CANCELLED;
}

const isRefused = ({ code }: ErrorBag): boolean => typeof code === 'string' && REFUSED.has(code);

/** What came of a call, by what it was told to have ended with. `failed` has the last word where it is given. */
export function outcomeOf(error: unknown, failed: boolean | undefined): Outcome {
  if (failed === false) return 'success';
  if (error === undefined || error === null) return failed ? 'failure' : 'success';
  if (isCausedBy(error, isRefused)) return 'refused';
  if (failed) return 'failure';
  if (isCancelled(error as object)) return 'cancelled';
  const { code } = error as ErrorBag;
  if (typeof code === 'number' && code >= 1 && code <= 16 && Number.isInteger(code)) {
    return code === GRPC_DEADLINE || code === GRPC_UNAVAILABLE ? 'failure' : 'success';
  }
  return 'failure';
}
