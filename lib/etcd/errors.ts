/** The errors of `rollcall/etcd`: the classes of etcd3 with its names and texts, all below `RollcallError`. */

import { type Failure, readFailure } from '../common/failure.js';
import { brand, type ErrorCode, type ErrorDetails, hide, RollcallError } from '../errors.js';

/**
 * On the errors that may go away by themselves: `RecoverableError in error`. It belongs to the class; whether this one
 * call may be sent again without being applied twice says `retryable`.
 */
export const RecoverableError: unique symbol = Symbol.for('rollcall.etcd.recoverable');

/**
 * Whether the error may go away by itself: a failure of the network or of a member. For fault handling of one's own.
 */
export const isRecoverableError = (error: Error): boolean => RecoverableError in error;

/** What was wrong with one endpoint. */
export interface TriedEndpoint {
  /** `host:port`. */
  readonly host: string;
  readonly message: string;
}

/** What an error tells besides its message. */
export interface EtcdErrorDetails extends ErrorDetails {
  /** Default: the status that the class stands for. */
  grpcCode?: number | undefined;
  /** The server's own text. Default: empty. */
  details?: string | undefined;
  /** What came with the status. */
  metadata?: unknown;
  /** Default false. */
  outcomeUnknown?: boolean | undefined;
  /** Default: none. */
  tried?: readonly TriedEndpoint[] | undefined;
}

/** What a class stands for. On its prototype, so that a constructor is only written where its arguments differ. */
const TRAITS = Symbol('traits');

interface Traits {
  readonly code: ErrorCode;
  readonly grpcCode: number;
}

/** What all errors of `rollcall/etcd` have in common. */
export class EtcdClientError extends RollcallError {
  /** The number of grpc's status; -1 when the error is no failed call. */
  readonly grpcCode: number;
  /** The server's own text, such as `etcdserver: role name not found`; empty when it said nothing. */
  readonly details: string;
  /** What came with the status of grpc; usually nothing. */
  readonly metadata: unknown;
  /** Whether a write may have been applied although the call failed. Read the key before doing it again. */
  override readonly outcomeUnknown: boolean;
  /** What was wrong with each endpoint that was tried. Empty when a server answered. */
  readonly tried: readonly TriedEndpoint[];

  constructor(message: string, details: EtcdErrorDetails = {}) {
    const traits = (new.target.prototype as unknown as { [TRAITS]: Traits })[TRAITS];
    super(traits.code, message, { ...details, retryable: details.retryable ?? false });
    this.grpcCode = details.grpcCode ?? traits.grpcCode;
    this.details = details.details ?? '';
    this.metadata = details.metadata;
    this.outcomeUnknown = details.outcomeUnknown ?? false;
    this.tried = details.tried ?? [];
  }
}

/** Something in the client is not as it must be: a fault of this package. */
export class ClientRuntimeError extends EtcdClientError {
  declare readonly code: 'ERR_INTERNAL';
  constructor(message: string, details?: EtcdErrorDetails) {
    super(`${message} Please report this error to the authors of rollcall.`, details);
  }
}

/** A method was called after `close()`, or was under way then. */
export class ClientClosedError extends EtcdClientError {
  declare readonly code: 'ERR_CLOSED';
  constructor(namespace: string, details?: EtcdErrorDetails) {
    super(`Tried to call a ${namespace} method on etcd3, but the client was already closed`, details);
  }
}

/** A call failed, and nothing more is known. The base of all classes that stand for a status of grpc. */
export class GRPCGenericError extends EtcdClientError {}

/** Never thrown. It is here for programs that name it. */
export class GRPCProtocolError extends GRPCGenericError {
  declare readonly code: 'ERR_GRPC_PROTOCOL';
}

/** The server, or something on the way to it, broke. */
export class GRPCInternalError extends GRPCGenericError {
  declare readonly code: 'ERR_GRPC_INTERNAL';
  declare readonly [RecoverableError]: true;
}

/** The call was given up. When its signal fired, `cause` is the reason and `name` is `AbortError`. */
export class GRPCCancelledError extends GRPCGenericError {
  declare readonly code: 'ERR_ABORTED';
  declare readonly [RecoverableError]: true;
}

/** The server failed without saying why. */
export class GRPCUnknownError extends GRPCGenericError {
  declare readonly code: 'ERR_GRPC_UNKNOWN';
  declare readonly [RecoverableError]: true;
}

/** The request is wrong, whatever the state of the server. */
export class GRPCInvalidArgumentError extends GRPCGenericError {
  declare readonly code: 'ERR_INVALID_ARGUMENT';
}

/** No answer in time. */
export class GRPCDeadlineExceededError extends GRPCGenericError {
  declare readonly code: 'ERR_TIMEOUT';
  declare readonly [RecoverableError]: true;
}

/** There is no such thing, for instance a member. */
export class GRPCNotFoundError extends GRPCGenericError {
  declare readonly code: 'ERR_NOT_FOUND';
}

/** There is one already. */
export class GRPCAlreadyExistsError extends GRPCGenericError {
  declare readonly code: 'ERR_ALREADY_EXISTS';
}

/** Too much: the store's quota, the requests under way, or the size of a message. The name is spelt as in etcd3. */
export class GRPCResourceExhastedError extends GRPCGenericError {
  declare readonly code: 'ERR_RESOURCE_EXHAUSTED';
  declare readonly [RecoverableError]: true;
}

/** The server is not in a state to do that. */
export class GRPCFailedPreconditionError extends GRPCGenericError {
  declare readonly code: 'ERR_FAILED_PRECONDITION';
}

/** The server gave the call up. */
export class GRPCAbortedError extends GRPCGenericError {
  declare readonly code: 'ERR_GRPC_ABORTED';
  declare readonly [RecoverableError]: true;
}

/** The server does not know the method: it is too old, or no etcd. */
export class GRPCNotImplementedError extends GRPCGenericError {
  declare readonly code: 'ERR_NOT_IMPLEMENTED';
}

/** The revision has been compacted, or is still to come. */
export class GRPCOutOfRangeError extends GRPCGenericError {
  declare readonly code: 'ERR_OUT_OF_RANGE';
}

/** The store of the cluster is corrupt. */
export class GRPCDataLossError extends GRPCGenericError {
  declare readonly code: 'ERR_DATA_LOSS';
}

/** No endpoint could be reached, or the cluster cannot answer now. `tried` says what was wrong with each endpoint. */
export class GRPCUnavailableError extends GRPCGenericError {
  declare readonly code: 'ERR_UNAVAILABLE';
  declare readonly [RecoverableError]: true;
}

/** The call needs a user, or the server does not accept the one it has. */
export class GRPCUnauthenticatedError extends GRPCGenericError {
  declare readonly code: 'ERR_UNAUTHENTICATED';
}

/** What etcd refused without a code, and watches that it cancelled. */
export class EtcdError extends EtcdClientError {
  declare readonly code: 'ERR_ETCD' | 'ERR_COMPACTED';
}

/** What etcd says of a revision that it no longer has. */
const COMPACTED = 'etcdserver: mvcc: required revision has been compacted';

/**
 * A watch was to begin, or a read to take place, before the oldest revision that etcd still has: changes are lost. Read
 * the keys anew, and watch from the revision of that answer + 1.
 */
export class CompactedError extends EtcdError {
  declare readonly code: 'ERR_COMPACTED';
  /** The oldest revision that etcd still has; `0n` when it did not say: after a read. */
  readonly compactRevision: bigint;

  /** `compactRevision` 0: unknown. */
  constructor(compactRevision: bigint | number | string, details?: EtcdErrorDetails) {
    const oldest = BigInt(compactRevision);
    super(oldest > 0n ? `Watcher canceled: ${COMPACTED}; the oldest one left is ${oldest}` : COMPACTED, {
      details: COMPACTED,
      ...details,
    });
    this.compactRevision = oldest;
  }
}

/** The lease has expired, was revoked, or never was. Its keys are gone. */
export class EtcdLeaseInvalidError extends EtcdClientError {
  declare readonly code: 'ERR_LEASE_INVALID';
  /** Without an id, which etcd's own text does not hold, the message leaves it out. */
  constructor(leaseID?: string, details?: EtcdErrorDetails) {
    super(`${leaseID ? `Lease ${leaseID}` : 'The lease'} is expired or revoked`, details);
  }
}

/**
 * A lease that was lost, and why the native side says so. Lost by our own clock, without an answer of etcd, it says so in
 * the words of etcd3, which programs look for.
 *
 * @internal
 */
export function leaseGone(id: string | undefined, why: string, details: EtcdErrorDetails): EtcdLeaseInvalidError {
  const error = new EtcdLeaseInvalidError(id, details);
  if (why.includes('not renewed')) error.message += ': our lease has expired';
  return error;
}

/** There is a role of that name. */
export class EtcdRoleExistsError extends EtcdClientError {
  declare readonly code: 'ERR_ROLE_EXISTS';
}

/** There is a user of that name. */
export class EtcdUserExistsError extends EtcdClientError {
  declare readonly code: 'ERR_USER_EXISTS';
}

/** The user has not got the role that is to be taken away. */
export class EtcdRoleNotGrantedError extends EtcdClientError {
  declare readonly code: 'ERR_ROLE_NOT_GRANTED';
}

/** There is no such role. */
export class EtcdRoleNotFoundError extends EtcdClientError {
  declare readonly code: 'ERR_ROLE_NOT_FOUND';
}

/** There is no such user. */
export class EtcdUserNotFoundError extends EtcdClientError {
  declare readonly code: 'ERR_USER_NOT_FOUND';
}

/** Somebody else holds the lock. */
export class EtcdLockFailedError extends EtcdClientError {
  declare readonly code: 'ERR_LOCK_FAILED';
}

/** User name or password is wrong. */
export class EtcdAuthenticationFailedError extends EtcdClientError {
  declare readonly code: 'ERR_UNAUTHENTICATED';
}

/**
 * The token is wrong or has expired. The client gets a new one by itself; this is what remains when that did not help.
 */
export class EtcdInvalidAuthTokenError extends EtcdClientError {
  declare readonly code: 'ERR_UNAUTHENTICATED';
}

/** The user may not do that. */
export class EtcdPermissionDeniedError extends EtcdClientError {
  declare readonly code: 'ERR_PERMISSION_DENIED';
}

/** The server ended the stream of a watch without an error. The watch resumes. */
export class EtcdWatchStreamEnded extends EtcdClientError {
  declare readonly code: 'ERR_WATCH_STREAM_ENDED';
  constructor(details?: EtcdErrorDetails) {
    super('The etcd watch stream was unexpectedly ended', details);
  }
}

/** The campaign is over: resigned, or its lease was lost. */
export class NotCampaigningError extends EtcdClientError {
  declare readonly code: 'ERR_NOT_CAMPAIGNING';
}

/** Others kept changing what the transaction had read, until its retries were used up. */
export class STMConflictError extends EtcdClientError {
  declare readonly code: 'ERR_STM_CONFLICT';
  constructor(details?: EtcdErrorDetails) {
    super('A conflict occurred executing the software transaction', details);
  }
}

type AnyClass = abstract new (...args: never[]) => EtcdClientError;

/** Each class with its name, its code, the status of grpc that it stands for (-1: none) and whether it may go away. */
const CLASSES: readonly (readonly [AnyClass, string, ErrorCode, number, boolean])[] = [
  [ClientRuntimeError, 'ClientRuntimeError', 'ERR_INTERNAL', -1, false],
  [ClientClosedError, 'ClientClosedError', 'ERR_CLOSED', -1, false],
  [GRPCGenericError, 'GRPCGenericError', 'ERR_GRPC', -1, false],
  [GRPCProtocolError, 'GRPCProtocolError', 'ERR_GRPC_PROTOCOL', -1, false],
  [GRPCInternalError, 'GRPCInternalError', 'ERR_GRPC_INTERNAL', 13, true],
  [GRPCCancelledError, 'GRPCCancelledError', 'ERR_ABORTED', 1, true],
  [GRPCUnknownError, 'GRPCUnknownError', 'ERR_GRPC_UNKNOWN', 2, true],
  [GRPCInvalidArgumentError, 'GRPCInvalidArgumentError', 'ERR_INVALID_ARGUMENT', 3, false],
  [GRPCDeadlineExceededError, 'GRPCDeadlineExceededError', 'ERR_TIMEOUT', 4, true],
  [GRPCNotFoundError, 'GRPCNotFoundError', 'ERR_NOT_FOUND', 5, false],
  [GRPCAlreadyExistsError, 'GRPCAlreadyExistsError', 'ERR_ALREADY_EXISTS', 6, false],
  [GRPCResourceExhastedError, 'GRPCResourceExhastedError', 'ERR_RESOURCE_EXHAUSTED', 8, true],
  [GRPCFailedPreconditionError, 'GRPCFailedPreconditionError', 'ERR_FAILED_PRECONDITION', 9, false],
  [GRPCAbortedError, 'GRPCAbortedError', 'ERR_GRPC_ABORTED', 10, true],
  [GRPCNotImplementedError, 'GRPCNotImplementedError', 'ERR_NOT_IMPLEMENTED', 12, false],
  [GRPCOutOfRangeError, 'GRPCOutOfRangeError', 'ERR_OUT_OF_RANGE', 11, false],
  [GRPCDataLossError, 'GRPCDataLossError', 'ERR_DATA_LOSS', 15, false],
  [GRPCUnavailableError, 'GRPCUnavailableError', 'ERR_UNAVAILABLE', 14, true],
  [GRPCUnauthenticatedError, 'GRPCUnauthenticatedError', 'ERR_UNAUTHENTICATED', 16, false],
  [EtcdError, 'EtcdError', 'ERR_ETCD', -1, false],
  [CompactedError, 'CompactedError', 'ERR_COMPACTED', 11, false],
  [EtcdLeaseInvalidError, 'EtcdLeaseInvalidError', 'ERR_LEASE_INVALID', 5, false],
  [EtcdRoleExistsError, 'EtcdRoleExistsError', 'ERR_ROLE_EXISTS', 9, false],
  [EtcdUserExistsError, 'EtcdUserExistsError', 'ERR_USER_EXISTS', 9, false],
  [EtcdRoleNotGrantedError, 'EtcdRoleNotGrantedError', 'ERR_ROLE_NOT_GRANTED', 9, false],
  [EtcdRoleNotFoundError, 'EtcdRoleNotFoundError', 'ERR_ROLE_NOT_FOUND', 9, false],
  [EtcdUserNotFoundError, 'EtcdUserNotFoundError', 'ERR_USER_NOT_FOUND', 9, false],
  [EtcdLockFailedError, 'EtcdLockFailedError', 'ERR_LOCK_FAILED', -1, false],
  [EtcdAuthenticationFailedError, 'EtcdAuthenticationFailedError', 'ERR_UNAUTHENTICATED', 3, false],
  [EtcdInvalidAuthTokenError, 'EtcdInvalidAuthTokenError', 'ERR_UNAUTHENTICATED', 16, false],
  [EtcdPermissionDeniedError, 'EtcdPermissionDeniedError', 'ERR_PERMISSION_DENIED', 7, false],
  [EtcdWatchStreamEnded, 'EtcdWatchStreamEnded', 'ERR_WATCH_STREAM_ENDED', -1, false],
  [NotCampaigningError, 'NotCampaigningError', 'ERR_NOT_CAMPAIGNING', -1, false],
  [STMConflictError, 'STMConflictError', 'ERR_STM_CONFLICT', -1, false],
];

for (const [type, name, code, grpcCode, recoverable] of [
  [EtcdClientError, 'EtcdClientError', 'ERR_GRPC', -1, false] as const,
  ...CLASSES,
]) {
  brand(type, name, { code });
  hide(type.prototype, TRAITS, { code, grpcCode } satisfies Traits);
  if (recoverable) hide(type.prototype, RecoverableError, true);
}

/** The same for a call that its own signal ended: such an error has one name everywhere in Node.js. */
class AbortedCallError extends GRPCCancelledError {}
brand(AbortedCallError, 'AbortError', { kind: 'AbortedCallError' });

type MessageClass = new (message: string, details?: EtcdErrorDetails) => EtcdClientError;

/** What etcd says, and the class that stands for it. Anything else that etcd says goes by the status of grpc. */
const BY_TEXT: readonly (readonly [string, MessageClass])[] = [
  ['etcdserver: role name already exists', EtcdRoleExistsError],
  ['etcdserver: user name already exists', EtcdUserExistsError],
  ['etcdserver: role is not granted to the user', EtcdRoleNotGrantedError],
  ['etcdserver: role name not found', EtcdRoleNotFoundError],
  ['etcdserver: user name not found', EtcdUserNotFoundError],
  ['etcdserver: authentication failed, invalid user ID or password', EtcdAuthenticationFailedError],
  ['etcdserver: permission denied', EtcdPermissionDeniedError],
  ['etcdserver: invalid auth token', EtcdInvalidAuthTokenError],
  ['etcdserver: requested lease not found', EtcdLeaseInvalidError],
];

/** By the number of grpc's status: its name and the class. */
const BY_STATUS: readonly (readonly [string, MessageClass])[] = [
  ['OK', GRPCGenericError],
  ['CANCELLED', GRPCCancelledError],
  ['UNKNOWN', GRPCUnknownError],
  ['INVALID_ARGUMENT', GRPCInvalidArgumentError],
  ['DEADLINE_EXCEEDED', GRPCDeadlineExceededError],
  ['NOT_FOUND', GRPCNotFoundError],
  ['ALREADY_EXISTS', GRPCAlreadyExistsError],
  ['PERMISSION_DENIED', EtcdPermissionDeniedError],
  ['RESOURCE_EXHAUSTED', GRPCResourceExhastedError],
  ['FAILED_PRECONDITION', GRPCFailedPreconditionError],
  ['ABORTED', GRPCAbortedError],
  ['OUT_OF_RANGE', GRPCOutOfRangeError],
  ['UNIMPLEMENTED', GRPCNotImplementedError],
  ['INTERNAL', GRPCInternalError],
  ['UNAVAILABLE', GRPCUnavailableError],
  ['DATA_LOSS', GRPCDataLossError],
  ['UNAUTHENTICATED', GRPCUnauthenticatedError],
];

/** What is said of a message above the limit. */
const TOO_LARGE = /message length too large|larger than max/;

/** The status that a failure without an answer stands for. */
const STATUS_OF_CODE: Readonly<Partial<Record<ErrorCode, number>>> = {
  ERR_ABORTED: 1,
  ERR_INVALID_ARGUMENT: 3,
  ERR_TIMEOUT: 4,
  ERR_PERMISSION_DENIED: 7,
  ERR_RESOURCE_EXHAUSTED: 8,
  ERR_UNSUPPORTED: 12,
  ERR_UNAVAILABLE: 14,
  ERR_UNAUTHENTICATED: 16,
};

function classOfText(text: string): MessageClass | undefined {
  return BY_TEXT.find(([known]) => text.includes(known))?.[1];
}

/** An error of a class; that of a lease has its own text, and its id when that is known. */
function make(type: MessageClass, message: string, details: EtcdErrorDetails, leaseId?: string): EtcdClientError {
  return (type as unknown) === EtcdLeaseInvalidError
    ? new EtcdLeaseInvalidError(leaseId, details)
    : new type(message, details);
}

/** The class for what etcd says: by its text, else `EtcdError`. */
export function castGrpcErrorMessage(message: string): Error {
  return make(classOfText(message) ?? EtcdError, message, { details: withoutStatus(message) });
}

/**
 * The typed error for a plain error of grpc: by its text, then by the number in its `code`. An error that has a class
 * of its own is given back as it is.
 */
export function castGrpcError<T extends Error>(err: T): Error {
  if (err.constructor?.name !== 'Error') return err;
  const { code, details, metadata } = err as { code?: unknown; details?: unknown; metadata?: unknown };
  const status = typeof code === 'number' ? BY_STATUS[code] : undefined;
  const type =
    classOfText(err.message) ??
    (status && code !== 0 ? status[1] : err.message.includes('etcdserver:') ? EtcdError : GRPCGenericError);
  const named = (text: string) => text.replace(/^Error:/, `${(type.prototype as Error).name}:`);
  const cast = make(type, named(err.message), {
    grpcCode: typeof code === 'number' ? code : undefined,
    details: typeof details === 'string' ? details : withoutStatus(err.message),
    metadata,
    cause: err,
  });
  cast.stack = named(String(err.stack));
  return cast;
}

/** `5 NOT_FOUND: text` is `text`. */
function withoutStatus(message: string): string {
  return message.replace(/^\d+ [A-Z_]+: /, '');
}

/**
 * The public error for what the native side reported: by etcd's text, then by the status of grpc, then by our code.
 * Call it in the async method itself: its stack is then the caller's.
 *
 * `operation` is the service and the method, such as `KV.put`; `leaseId` the lease that the call was about.
 *
 * @internal
 */
export function fromFailure(raw: unknown, operation: string, leaseId?: string): RollcallError {
  if (raw instanceof RollcallError) return raw;
  const failure = readFailure(raw, operation);
  const { message, details: text, tried } = failure;
  const code = failure.code as ErrorCode | undefined;
  const grpcCode = statusOf(failure.grpcCode, code, text || message);
  const details: EtcdErrorDetails = { ...failure, grpcCode };
  if (code === 'ERR_CLOSED') return new ClientClosedError(operation.split('.')[0] as string, details);
  const known = classOfText(text);
  if (grpcCode === undefined && !known) {
    if (text.includes('etcdserver:')) return new EtcdError(text, details);
    if (code === 'ERR_INTERNAL' || code === undefined) {
      return new ClientRuntimeError(message, { ...details, cause: failure.cause ?? raw });
    }
    return new GRPCGenericError(message, details);
  }
  const [name, type] = (grpcCode === undefined ? undefined : BY_STATUS[grpcCode]) ?? [undefined, GRPCGenericError];
  const shown = text === '' ? withCauses(message, tried) : text;
  const status = grpcCode === undefined ? '' : `${grpcCode}${name ? ` ${name}` : ''}: `;
  const given = code === 'ERR_ABORTED' ? AbortedCallError : type;
  return make(known ?? given, status + shown, details, leaseId);
}

/** The status as etcd3 knows it; `undefined` for none. */
function statusOf(grpcCode: number | undefined, code: ErrorCode | undefined, text: string): number | undefined {
  if (grpcCode === undefined || grpcCode <= 0) return code && STATUS_OF_CODE[code];
  // The native side calls an answer above the limit out of range, which in etcd3 speaks of revisions alone.
  return grpcCode === 11 && TOO_LARGE.test(text) ? 8 : grpcCode;
}

/**
 * The status that a stream which failed so ends with.
 *
 * @internal
 */
export function statusNumber({ grpcCode, code }: Failure): number {
  return grpcCode ?? STATUS_OF_CODE[code as ErrorCode] ?? 13;
}

/** The message with what was wrong with each endpoint, where it does not say so itself. */
function withCauses(message: string, tried: readonly TriedEndpoint[]): string {
  const unsaid = tried.filter((endpoint) => !message.includes(endpoint.message));
  if (unsaid.length === 0) return message;
  return `${message} (${unsaid.map((endpoint) => `${endpoint.host}: ${endpoint.message}`).join('; ')})`;
}

/**
 * The typed error for a read whose revision is gone; `undefined` for any other error.
 *
 * @internal
 */
export function compactedRead(error: unknown): CompactedError | undefined {
  if (!(error instanceof GRPCOutOfRangeError) || !error.details.includes(COMPACTED)) return undefined;
  return new CompactedError(0, { operation: error.operation, grpcCode: error.grpcCode, cause: error });
}

/**
 * Whether an answer was larger than `maxMessageBytes`.
 *
 * @internal
 */
export function isTooLarge(error: unknown): boolean {
  return error instanceof GRPCResourceExhastedError && TOO_LARGE.test(error.message);
}

/**
 * The error of what its signal ended, as the native side makes it for one call.
 *
 * @internal
 */
export function abortedCall(signal: AbortSignal, operation: string): GRPCCancelledError {
  return new AbortedCallError('1 CANCELLED: aborted', { operation, cause: signal.reason });
}

/**
 * The error for a request without a key, as etcd would answer it. Such a request is not sent.
 *
 * @internal
 */
export function keyMissing(problem: string): GRPCInvalidArgumentError {
  const details = 'etcdserver: key is not provided';
  return new GRPCInvalidArgumentError(`3 INVALID_ARGUMENT: ${details}: ${problem}`, { details });
}
