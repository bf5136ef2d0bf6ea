/**
 * Failures of calls that are found on this side, in the form that the native side has for its own.
 *
 * @internal
 */

import type { Failure } from '../../common/failure.js';

/** Of a call of a closed client. */
export const CLOSED: Failure = { code: 'ERR_CLOSED', message: 'the client was closed' };

/** Of a call whose signal fired. */
export function abortFailure(signal: AbortSignal, outcomeUnknown: boolean): Failure {
  const message = 'the call was aborted';
  return { code: 'ERR_ABORTED', message, outcomeUnknown, cause: signal.reason };
}

/** Of a call whose time was over before it was sent. */
export function expired(): Failure {
  return {
    code: 'ERR_TIMEOUT',
    message: 'the deadline of the call had passed before it was sent',
    details: 'Deadline exceeded',
    retryable: true,
  };
}

/** Of a call whose request exceeds the limit of the client. */
export function tooLarge(bytes: number): Failure {
  return {
    code: 'ERR_INVALID_ARGUMENT',
    message: `the request of ${bytes} bytes is larger than grpc.max_send_message_length allows`,
    grpcCode: 8,
    details: 'Attempted to send a message larger than the limit of the client',
  };
}
