/** Every error of the package: one class tree, told apart by `code` or by `instanceof`. */

/** What went wrong, in a word that never changes. */
export type ErrorCode =
  | 'ERR_CLOSED'
  | 'ERR_TIMEOUT'
  | 'ERR_UNAVAILABLE'
  | 'ERR_UNAUTHENTICATED'
  | 'ERR_PERMISSION_DENIED'
  | 'ERR_INVALID_ARGUMENT'
  | 'ERR_REPLACED'
  | 'ERR_BAD_RECORD'
  | 'ERR_ABORTED'
  | 'ERR_UNSUPPORTED'
  | 'ERR_INTERNAL'
  // Of `rollcall/coord` alone.
  | 'ERR_CONFLICT'
  | 'ERR_INVALID_CONFIG'
  | 'ERR_LOCK_LOST'
  // Of `rollcall/breaker` alone.
  | 'ERR_BREAKER_OPEN'
  // Of `rollcall/ratelimit` alone.
  | 'ERR_RATE_LIMITED'
  // Of `rollcall/once` alone.
  | 'ERR_IN_PROGRESS'
  | 'ERR_KEY_REUSED'
  | 'ERR_TAKEN_OVER'
  | 'ERR_OUTCOME_UNKNOWN'
  // Of `rollcall/uid` alone.
  | 'ERR_CLOCK'
  | 'ERR_NO_WORKER_ID'
  // Of `rollcall/etcd` alone, but for `ERR_NOT_FOUND`, which `rollcall/coord` has too.
  | 'ERR_GRPC'
  | 'ERR_GRPC_PROTOCOL'
  | 'ERR_GRPC_INTERNAL'
  | 'ERR_GRPC_UNKNOWN'
  | 'ERR_GRPC_ABORTED'
  | 'ERR_NOT_FOUND'
  | 'ERR_ALREADY_EXISTS'
  | 'ERR_RESOURCE_EXHAUSTED'
  | 'ERR_FAILED_PRECONDITION'
  | 'ERR_NOT_IMPLEMENTED'
  | 'ERR_OUT_OF_RANGE'
  | 'ERR_DATA_LOSS'
  | 'ERR_ETCD'
  | 'ERR_COMPACTED'
  | 'ERR_LEASE_INVALID'
  | 'ERR_ROLE_EXISTS'
  | 'ERR_USER_EXISTS'
  | 'ERR_ROLE_NOT_GRANTED'
  | 'ERR_ROLE_NOT_FOUND'
  | 'ERR_USER_NOT_FOUND'
  | 'ERR_LOCK_FAILED'
  | 'ERR_WATCH_STREAM_ENDED'
  | 'ERR_NOT_CAMPAIGNING'
  | 'ERR_STM_CONFLICT';

/** What an error tells besides its message. */
export interface ErrorDetails {
  /** The method that failed, such as `register`. Default: empty. */
  operation?: string | undefined;
  /** Whether the same call may succeed later. Default: true for ERR_TIMEOUT and ERR_UNAVAILABLE, else false. */
  retryable?: boolean | undefined;
  /** The server that was asked. Default: none. */
  endpoint?: string | undefined;
  /** The key, node or path that it is about. Default: none. */
  key?: string | undefined;
  /** The revision of the registry that it is about, decimal. Default: none. */
  revision?: string | undefined;
  /** Of a write: whether it may have been applied all the same. Default: absent. */
  outcomeUnknown?: boolean | undefined;
  /** What lies below: an error, whose own `cause` goes on, or the reason of an abort. */
  cause?: unknown;
}

/** On every prototype of the tree: the names of its classes. `Symbol.for`, so that two copies of the package agree. */
const KINDS = Symbol.for('rollcall.error.kinds');

type ErrorClass = abstract new (...args: never[]) => Error;

/**
 * Writes the name of a class, and of what it inherits, on its prototype. With `code` it is also of the kind that this tree
 * has for that code: an error of another tree is `instanceof` both.
 *
 * @internal
 */
export function brand(
  type: ErrorClass,
  name: string,
  { kind = name, code }: { kind?: string; code?: ErrorCode } = {},
): void {
  hide(type.prototype, 'name', name);
  const inherited = kindsOf(Object.getPrototypeOf(type.prototype));
  const also = kindsOf(code && BY_CODE[code]?.prototype).filter((known) => !inherited.includes(known));
  hide(type.prototype, KINDS, [...inherited, ...also, kind]);
}

/**
 * Writes a property that is not shown.
 *
 * @internal
 */
export function hide(target: object, key: PropertyKey, value: unknown): void {
  Object.defineProperty(target, key, { configurable: true, enumerable: false, writable: true, value });
}

function kindsOf(value: unknown): readonly string[] {
  const kinds = (value as Record<symbol, unknown> | null | undefined)?.[KINDS];
  return Array.isArray(kinds) ? kinds : [];
}

/** The base of every error of the package. */
export class RollcallError extends Error {
  /** What went wrong. */
  readonly code: ErrorCode;
  /** Whether the same call may succeed later, unchanged. */
  readonly retryable: boolean;
  /** The method that failed, such as `register`; empty when there is none. */
  readonly operation: string;
  /** The server that was asked, such as `http://10.0.0.1:2379`, when it is known. */
  declare readonly endpoint?: string;
  /** The key, node or path that it is about, when it is about one. */
  declare readonly key?: string;
  /** The revision of the registry that it is about, decimal, when it is about one. */
  declare readonly revision?: string;
  /** Of a write: true where it may have been applied all the same. Read before doing it again. */
  declare readonly outcomeUnknown?: boolean;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.retryable = details.retryable ?? (code === 'ERR_TIMEOUT' || code === 'ERR_UNAVAILABLE');
    this.operation = details.operation ?? '';
    // Absent when unknown, so that it is not shown.
    if (details.endpoint !== undefined) this.endpoint = details.endpoint;
    if (details.key !== undefined) this.key = details.key;
    if (details.revision !== undefined) this.revision = details.revision;
    if (details.outcomeUnknown) this.outcomeUnknown = true;
  }

  /** Recognizes the errors of another copy of the package, and of another realm, as well. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    // biome-ignore lint/complexity/noThisInStatic: the class on the right of `instanceof`, which may be derived
    const type = this as unknown as { prototype: object };
    const { prototype } = type;
    if (Object.hasOwn(prototype, KINDS)) return kindsOf(value).includes(kindsOf(prototype).at(-1) as string);
    return Function.prototype[Symbol.hasInstance].call(type, value); // a class that somebody derived from ours
  }
}

/** The registry, or the call's client, is closed. */
export class ClosedError extends RollcallError {
  declare readonly code: 'ERR_CLOSED';
  constructor(message: string, details?: ErrorDetails) {
    super('ERR_CLOSED', message, details);
  }
}

/** No answer within the time given. What was asked may still happen, unless the method says otherwise. */
export class TimeoutError extends RollcallError {
  declare readonly code: 'ERR_TIMEOUT';
  constructor(message: string, details?: ErrorDetails) {
    super('ERR_TIMEOUT', message, details);
  }
}

/** The server can't be reached, or can't answer now. */
export class UnavailableError extends RollcallError {
  declare readonly code: 'ERR_UNAVAILABLE';
  constructor(message: string, details?: ErrorDetails) {
    super('ERR_UNAVAILABLE', message, details);
  }
}

/** What a `NoInstanceError` tells of the service. */
export interface NoInstanceDetails extends ErrorDetails {
  /** The service. */
  service: string;
  /** How many instances the registry has of it. */
  known: number;
  /** How many of them each filter took out, by its name; those that do so always are `endpoint`, `local` and `weight`. */
  removedBy: Readonly<Record<string, number>>;
  /** How many are set aside because calls to them failed. */
  ejected: number;
}

/** No instance of a service may be called now. */
export class NoInstanceError extends UnavailableError {
  /** The service. */
  readonly service: string;
  /** How many instances the registry has of it. */
  readonly known: number;
  /** How many of them each filter took out, by its name. */
  readonly removedBy: Readonly<Record<string, number>>;
  /** How many are set aside because calls to them failed. */
  readonly ejected: number;

  constructor(message: string, { service, known, removedBy, ejected, ...details }: NoInstanceDetails) {
    super(message, details);
    this.service = service;
    this.known = known;
    this.removedBy = removedBy;
    this.ejected = ejected;
  }
}

/** The server doesn't accept the credentials. */
export class UnauthenticatedError extends RollcallError {
  declare readonly code: 'ERR_UNAUTHENTICATED';
  constructor(message: string, details?: ErrorDetails) {
    super('ERR_UNAUTHENTICATED', message, details);
  }
}

/** The credentials are known, but don't allow this. */
export class PermissionDeniedError extends RollcallError {
  declare readonly code: 'ERR_PERMISSION_DENIED';
  constructor(message: string, details?: ErrorDetails) {
    super('ERR_PERMISSION_DENIED', message, details);
  }
}

/** An argument is wrong. The message begins with its path: `options.tls.ca: expected …`. */
export class InvalidArgumentError extends RollcallError {
  declare readonly code: 'ERR_INVALID_ARGUMENT';
  constructor(message: string, details?: ErrorDetails) {
    super('ERR_INVALID_ARGUMENT', message, details);
  }
}

/** A newer registration of the same id has taken the place of this one. */
export class ReplacedError extends RollcallError {
  declare readonly code: 'ERR_REPLACED';
  constructor(message: string, details?: ErrorDetails) {
    super('ERR_REPLACED', message, details);
  }
}

/** A record of the registry can't be read as an instance. */
export class BadRecordError extends RollcallError {
  declare readonly code: 'ERR_BAD_RECORD';
  constructor(message: string, details?: ErrorDetails) {
    super('ERR_BAD_RECORD', message, details);
  }
}

/** The `AbortSignal` of the call fired; `cause` is its reason. `name` is `AbortError`, as everywhere in Node.js. */
export class AbortedError extends RollcallError {
  declare readonly code: 'ERR_ABORTED';
  constructor(message: string, details?: ErrorDetails) {
    super('ERR_ABORTED', message, details);
  }
}

/** This registry, or this thread, can't do that. */
export class UnsupportedError extends RollcallError {
  declare readonly code: 'ERR_UNSUPPORTED';
  constructor(message: string, details?: ErrorDetails) {
    super('ERR_UNSUPPORTED', message, details);
  }
}

/** A fault of this package: please report it. */
export class InternalError extends RollcallError {
  declare readonly code: 'ERR_INTERNAL';
  constructor(message: string, details?: ErrorDetails) {
    super('ERR_INTERNAL', message, details);
  }
}

/**
 * Makes an `InvalidArgumentError` of an error that is to keep its own class and name: it is `instanceof` both.
 *
 * @internal
 */
export function asInvalidArgument<E extends Error>(error: E): E & InvalidArgumentError {
  hide(error, KINDS, kindsOf(InvalidArgumentError.prototype));
  return Object.assign(error, { code: 'ERR_INVALID_ARGUMENT' as const, retryable: false, operation: '' });
}

/** @internal */
export const BY_CODE: Readonly<
  Partial<Record<ErrorCode, new (message: string, details?: ErrorDetails) => RollcallError>>
> = {
  ERR_CLOSED: ClosedError,
  ERR_TIMEOUT: TimeoutError,
  ERR_UNAVAILABLE: UnavailableError,
  ERR_UNAUTHENTICATED: UnauthenticatedError,
  ERR_PERMISSION_DENIED: PermissionDeniedError,
  ERR_INVALID_ARGUMENT: InvalidArgumentError,
  ERR_REPLACED: ReplacedError,
  ERR_BAD_RECORD: BadRecordError,
  ERR_ABORTED: AbortedError,
  ERR_UNSUPPORTED: UnsupportedError,
  ERR_INTERNAL: InternalError,
};

brand(RollcallError, 'RollcallError');
brand(ClosedError, 'ClosedError');
brand(TimeoutError, 'TimeoutError');
brand(UnavailableError, 'UnavailableError');
brand(NoInstanceError, 'NoInstanceError');
brand(UnauthenticatedError, 'UnauthenticatedError');
brand(PermissionDeniedError, 'PermissionDeniedError');
brand(InvalidArgumentError, 'InvalidArgumentError');
brand(ReplacedError, 'ReplacedError');
brand(BadRecordError, 'BadRecordError');
brand(AbortedError, 'AbortError', { kind: 'AbortedError' });
brand(UnsupportedError, 'UnsupportedError');
brand(InternalError, 'InternalError');

/**
 * The error of a call whose signal fired, or that was ended by the program in another way.
 *
 * @internal
 */
export function aborted(signal: AbortSignal | undefined, operation: string): AbortedError {
  return new AbortedError(`${operation}: aborted`, { operation, cause: signal?.reason });
}
