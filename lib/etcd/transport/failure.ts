/**
 * Why a call failed, before it is an error: as the native side says it, and what is found on this side.
 *
 * @internal
 */

/** Why a call failed, as the native side says it. */
export interface Failure {
  code: string;
  message: string;
  grpcCode: number;
  details: string;
  retryable: boolean;
  outcomeUnknown: boolean;
  tried: readonly { host: string; message: string }[];
  endpoint?: string | null;
  key?: string | null;
  /** Decimal. */
  revision?: string | null;
  /** What lies below, outermost first. */
  causes?: readonly string[];
  cause?: unknown;
}

/** A failure that is found before anything is sent. */
function unsent(failure: Pick<Failure, 'code' | 'message' | 'grpcCode'> & Partial<Failure>): Failure {
  return { details: '', retryable: false, outcomeUnknown: false, tried: [], ...failure };
}

/** Of a call of a closed client. */
export const CLOSED: Failure = unsent({ code: 'ERR_CLOSED', message: 'the client was closed', grpcCode: -1 });

/** Of a call whose signal fired. */
export function abortFailure(signal: AbortSignal, outcomeUnknown: boolean): Failure {
  const message = 'the call was aborted';
  return unsent({ code: 'ERR_ABORTED', message, grpcCode: 1, outcomeUnknown, cause: signal.reason });
}

/** Of a call whose time was over before it was sent. */
export function expired(): Failure {
  return unsent({
    code: 'ERR_TIMEOUT',
    message: 'the deadline of the call had passed before it was sent',
    grpcCode: 4,
    details: 'Deadline exceeded',
    retryable: true,
  });
}

/** Of a call whose request exceeds the limit of the client. */
export function tooLarge(bytes: number): Failure {
  return unsent({
    code: 'ERR_INVALID_ARGUMENT',
    message: `the request of ${bytes} bytes is larger than grpc.max_send_message_length allows`,
    grpcCode: 8,
    details: 'Attempted to send a message larger than the limit of the client',
  });
}
