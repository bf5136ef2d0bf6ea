/**
 * Failures before they are errors: in the one form in which the native side tells of them, and as this side finds them. And the
 * errors that are made of them.
 *
 * @internal
 */

import { BY_CODE, type ErrorCode, InternalError, RollcallError } from '../errors.js';
import type { NativeFailure } from '../native.js';

/** What went wrong, as `src/failure.rs` says it: an object, or JSON in a page of answers. What is missing is not known. */
export interface Failure extends Partial<NativeFailure> {
  code: string;
  message: string;
  /** Found on this side: the reason of an abort, what was thrown. */
  cause?: unknown;
}

/** What was wrong with one member that was asked before. */
export interface Tried {
  readonly host: string;
  readonly message: string;
}

/** A failure as read: every property is of its type, or absent. */
export interface KnownFailure {
  readonly code: string | undefined;
  readonly message: string;
  readonly retryable: boolean | undefined;
  readonly operation: string;
  readonly endpoint: string | undefined;
  readonly key: string | undefined;
  readonly revision: string | undefined;
  /** What lies below: an error, whose own `cause` goes on, or what this side has found. */
  readonly cause: unknown;
  readonly grpcCode: number | undefined;
  readonly details: string;
  readonly metadata: unknown;
  readonly outcomeUnknown: boolean;
  readonly tried: readonly Tried[];
}

/** Reads a failure, or anything else that was thrown. `operation` is for one that names none. */
export function readFailure(raw: unknown, operation: string): KnownFailure {
  const told = (typeof raw === 'object' && raw !== null ? raw : {}) as Record<string, unknown>;
  return {
    code: textOf(told.code),
    message: textOf(told.message) ?? String(raw),
    retryable: typeof told.retryable === 'boolean' ? told.retryable : undefined,
    operation: textOf(told.operation) || operation,
    endpoint: textOf(told.endpoint),
    key: textOf(told.key),
    revision: textOf(told.revision),
    cause: told.cause ?? chainOf(told.causes),
    grpcCode: typeof told.grpcCode === 'number' ? told.grpcCode : undefined,
    details: textOf(told.details) ?? '',
    metadata: told.metadata,
    outcomeUnknown: told.outcomeUnknown === true,
    tried: triedOf(told.tried),
  };
}

/** The public error for what the native side threw. Call it in the async method itself: its stack is then the caller's. */
export function fromNative(thrown: unknown, operation: string): RollcallError {
  if (thrown instanceof RollcallError) return thrown;
  const { code, message, ...details } = readFailure(thrown, operation);
  const type = code !== undefined && Object.hasOwn(BY_CODE, code) ? BY_CODE[code as ErrorCode] : undefined;
  if (type) return new type(message, details);
  return new InternalError(message, { operation: details.operation, cause: thrown });
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

/** What lies below, outermost first, as one error with causes. */
function chainOf(causes: unknown): Error | undefined {
  if (!Array.isArray(causes) || causes.length === 0) return undefined;
  // It happened on the native side: a stack of this one would mislead, and takes longer than all else here.
  const limit = Error.stackTraceLimit;
  Reflect.set(Error, 'stackTraceLimit', 0); // no assignment: where a program has frozen `Error`, that would throw
  try {
    return causes.reduceRight<Error | undefined>(
      (below, message) => (below ? new Error(String(message), { cause: below }) : new Error(String(message))),
      undefined,
    );
  } finally {
    Reflect.set(Error, 'stackTraceLimit', limit);
  }
}

function triedOf(value: unknown): Tried[] {
  if (!Array.isArray(value)) return [];
  return value.map((member: Partial<Tried> | null) => ({
    host: String(member?.host ?? ''),
    message: String(member?.message ?? ''),
  }));
}
