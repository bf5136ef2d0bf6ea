import { createRequire } from 'node:module';
import { inspect } from 'node:util';
import { describe, expect, it, vi } from 'vitest';
import * as root from '../../lib/errors.js';
import { AbortedError, RollcallError } from '../../lib/errors.js';
import * as errors from '../../lib/etcd/errors.js';

type ErrorClass = new (...args: unknown[]) => Error & Record<string, unknown>;

const etcd3 = createRequire(import.meta.url)('etcd3') as Record<string, unknown>;
const ours = errors as unknown as Record<string, ErrorClass>;
const theirs = etcd3 as Record<string, ErrorClass>;
const isError = (value: unknown) => typeof value === 'function' && value.prototype instanceof Error;
const names = Object.keys(etcd3).filter((name) => isError(etcd3[name]));
const { castGrpcError, castGrpcErrorMessage, fromFailure } = errors;
const theirCast = etcd3.castGrpcError as (error: Error) => Error;
const theirCastMessage = etcd3.castGrpcErrorMessage as (message: string) => Error;

const CODES: Readonly<Record<string, string>> = {
  ClientRuntimeError: 'ERR_INTERNAL',
  ClientClosedError: 'ERR_CLOSED',
  GRPCGenericError: 'ERR_GRPC',
  GRPCProtocolError: 'ERR_GRPC_PROTOCOL',
  GRPCInternalError: 'ERR_GRPC_INTERNAL',
  GRPCCancelledError: 'ERR_ABORTED',
  GRPCUnknownError: 'ERR_GRPC_UNKNOWN',
  GRPCInvalidArgumentError: 'ERR_INVALID_ARGUMENT',
  GRPCDeadlineExceededError: 'ERR_TIMEOUT',
  GRPCNotFoundError: 'ERR_NOT_FOUND',
  GRPCAlreadyExistsError: 'ERR_ALREADY_EXISTS',
  GRPCResourceExhastedError: 'ERR_RESOURCE_EXHAUSTED',
  GRPCFailedPreconditionError: 'ERR_FAILED_PRECONDITION',
  GRPCAbortedError: 'ERR_GRPC_ABORTED',
  GRPCNotImplementedError: 'ERR_NOT_IMPLEMENTED',
  GRPCOutOfRangeError: 'ERR_OUT_OF_RANGE',
  GRPCDataLossError: 'ERR_DATA_LOSS',
  GRPCUnavailableError: 'ERR_UNAVAILABLE',
  GRPCUnauthenticatedError: 'ERR_UNAUTHENTICATED',
  EtcdError: 'ERR_ETCD',
  EtcdLeaseInvalidError: 'ERR_LEASE_INVALID',
  EtcdRoleExistsError: 'ERR_ROLE_EXISTS',
  EtcdUserExistsError: 'ERR_USER_EXISTS',
  EtcdRoleNotGrantedError: 'ERR_ROLE_NOT_GRANTED',
  EtcdRoleNotFoundError: 'ERR_ROLE_NOT_FOUND',
  EtcdUserNotFoundError: 'ERR_USER_NOT_FOUND',
  EtcdLockFailedError: 'ERR_LOCK_FAILED',
  EtcdAuthenticationFailedError: 'ERR_UNAUTHENTICATED',
  EtcdInvalidAuthTokenError: 'ERR_UNAUTHENTICATED',
  EtcdPermissionDeniedError: 'ERR_PERMISSION_DENIED',
  EtcdWatchStreamEnded: 'ERR_WATCH_STREAM_ENDED',
  NotCampaigningError: 'ERR_NOT_CAMPAIGNING',
  STMConflictError: 'ERR_STM_CONFLICT',
};

describe('the classes of etcd3', () => {
  it('are 33, and all are there', () => {
    expect(names).toHaveLength(33);
    expect(Object.keys(CODES).sort()).toEqual([...names].sort());
  });

  it.each(names)('%s has the same name, ancestors, text and recoverability', (name) => {
    const mine = new (ours[name] as ErrorClass)('text');
    const known = new (theirs[name] as ErrorClass)('text');
    expect(ours[name]?.name).toBe(name);
    expect(mine).toMatchObject({ name, code: CODES[name], outcomeUnknown: false, retryable: false, details: '' });
    expect(mine).toBeInstanceOf(Error);
    expect(mine).toBeInstanceOf(RollcallError);
    const ancestors = (error: Error, all: Record<string, ErrorClass>) =>
      names.filter((other) => error instanceof (all[other] as ErrorClass));
    expect(ancestors(mine, ours)).toEqual(ancestors(known, theirs));
    const reported = /Please report this error .*$/;
    expect(mine.message.replace(reported, '')).toBe(known.message.replace(reported, ''));
    expect(mine.stack?.split('\n')[0]).toBe(`${name}: ${mine.message}`);
    expect(errors.isRecoverableError(mine)).toBe((etcd3.isRecoverableError as (error: Error) => boolean)(known));
    expect(errors.RecoverableError in mine).toBe((etcd3.RecoverableError as symbol) in known);
  });

  it('are of the kind that the root has for their code, too, and of no other', () => {
    const kinds = Object.values(root).filter(
      (value) => isError(value) && value !== RollcallError && value !== root.NoInstanceError,
    ) as unknown as ErrorClass[];
    const codeOf = (type: ErrorClass) => new type('x').code;
    expect(kinds).toHaveLength(11);
    for (const name of Object.keys(CODES)) {
      const error = new (ours[name] as ErrorClass)('text');
      const expected = kinds.filter((kind) => codeOf(kind) === error.code);
      expect(kinds.filter((kind) => error instanceof kind)).toEqual(expected);
    }
    class Mine extends errors.GRPCDeadlineExceededError {}
    expect(new Mine('x')).toBeInstanceOf(root.TimeoutError);
    expect(new root.TimeoutError('x')).not.toBeInstanceOf(errors.GRPCDeadlineExceededError);
  });

  it('show only what is theirs', () => {
    expect(inspect(new errors.EtcdRoleNotFoundError('x'), { depth: 0 })).not.toContain('Symbol');
    class Mine extends errors.GRPCUnavailableError {}
    expect(new Mine('x')).toMatchObject({ code: 'ERR_UNAVAILABLE', grpcCode: 14 });
    expect(errors.isRecoverableError(new Mine('x'))).toBe(true);
    expect(new errors.GRPCUnavailableError('x') instanceof Mine).toBe(false);
  });

  it('agree between two copies of the package', async () => {
    vi.resetModules();
    const other: typeof errors = await import('../../lib/etcd/errors.js');
    const error = new other.GRPCUnavailableError('x');
    expect(other.GRPCUnavailableError).not.toBe(errors.GRPCUnavailableError);
    expect(error).toBeInstanceOf(errors.GRPCUnavailableError);
    expect(error).toBeInstanceOf(errors.GRPCGenericError);
    expect(error instanceof errors.GRPCInternalError).toBe(false);
    expect(errors.isRecoverableError(error)).toBe(true);
    expect(castGrpcError(error)).toBe(error);
  });

  it('CompactedError is an EtcdError with the oldest revision', () => {
    const error = new errors.CompactedError('9007199254740993');
    expect(error).toMatchObject({ code: 'ERR_COMPACTED', compactRevision: 9_007_199_254_740_993n, grpcCode: 11 });
    expect(error).toBeInstanceOf(errors.EtcdError);
    expect(error.message).toMatch(/required revision has been compacted; the oldest one left is 9007199254740993$/);
    const read = new errors.GRPCOutOfRangeError('x', {
      details: 'etcdserver: mvcc: required revision has been compacted',
    });
    expect(errors.compactedRead(read)).toMatchObject({ compactRevision: 0n, cause: read });
    expect(errors.compactedRead(new errors.GRPCOutOfRangeError('x', { details: 'future' }))).toBeUndefined();
  });
});

/** What servers of 3.4 to 3.7 refuse calls with: the status and the text. */
const REFUSALS: readonly (readonly [number, string, string])[] = [
  [3, 'etcdserver: key is not provided', 'GRPCInvalidArgumentError'],
  [3, 'etcdserver: key not found', 'GRPCInvalidArgumentError'],
  [3, 'etcdserver: value is provided', 'GRPCInvalidArgumentError'],
  [3, 'etcdserver: lease is provided', 'GRPCInvalidArgumentError'],
  [3, 'etcdserver: too many operations in txn request', 'GRPCInvalidArgumentError'],
  [3, 'etcdserver: duplicate key given in txn request', 'GRPCInvalidArgumentError'],
  [3, 'etcdserver: invalid client api version', 'GRPCInvalidArgumentError'],
  [3, 'etcdserver: invalid sort option', 'GRPCInvalidArgumentError'],
  [11, 'etcdserver: mvcc: required revision has been compacted', 'GRPCOutOfRangeError'],
  [11, 'etcdserver: mvcc: required revision is a future revision', 'GRPCOutOfRangeError'],
  [8, 'etcdserver: mvcc: database space exceeded', 'GRPCResourceExhastedError'],
  [5, 'etcdserver: requested lease not found', 'EtcdLeaseInvalidError'],
  [9, 'etcdserver: lease already exists', 'GRPCFailedPreconditionError'],
  [11, 'etcdserver: too large lease TTL', 'GRPCOutOfRangeError'],
  [1, 'etcdserver: watch canceled', 'GRPCCancelledError'],
  [9, 'etcdserver: member ID already exist', 'GRPCFailedPreconditionError'],
  [9, 'etcdserver: Peer URLs already exists', 'GRPCFailedPreconditionError'],
  [9, 'etcdserver: re-configuration failed due to not enough started members', 'GRPCFailedPreconditionError'],
  [3, 'etcdserver: given member URLs are invalid', 'GRPCInvalidArgumentError'],
  [5, 'etcdserver: member not found', 'GRPCNotFoundError'],
  [9, 'etcdserver: can only promote a learner member', 'GRPCFailedPreconditionError'],
  [9, 'etcdserver: can only promote a learner member which is in sync with leader', 'GRPCFailedPreconditionError'],
  [9, 'etcdserver: too many learner members in cluster', 'GRPCFailedPreconditionError'],
  [3, 'etcdserver: request is too large', 'GRPCInvalidArgumentError'],
  [8, 'etcdserver: too many requests', 'GRPCResourceExhastedError'],
  [9, 'etcdserver: root user does not exist', 'GRPCFailedPreconditionError'],
  [9, 'etcdserver: root user does not have root role', 'GRPCFailedPreconditionError'],
  [9, 'etcdserver: user name already exists', 'EtcdUserExistsError'],
  [3, 'etcdserver: user name is empty', 'GRPCInvalidArgumentError'],
  [9, 'etcdserver: user name not found', 'EtcdUserNotFoundError'],
  [9, 'etcdserver: role name already exists', 'EtcdRoleExistsError'],
  [9, 'etcdserver: role name not found', 'EtcdRoleNotFoundError'],
  [3, 'etcdserver: role name is empty', 'GRPCInvalidArgumentError'],
  [3, 'etcdserver: authentication failed, invalid user ID or password', 'EtcdAuthenticationFailedError'],
  [7, 'etcdserver: permission denied', 'EtcdPermissionDeniedError'],
  [9, 'etcdserver: role is not granted to the user', 'EtcdRoleNotGrantedError'],
  [9, 'etcdserver: permission is not granted to the role', 'GRPCFailedPreconditionError'],
  [9, 'etcdserver: authentication is not enabled', 'GRPCFailedPreconditionError'],
  [16, 'etcdserver: invalid auth token', 'EtcdInvalidAuthTokenError'],
  [3, 'etcdserver: invalid auth management', 'GRPCInvalidArgumentError'],
  [3, 'etcdserver: revision of auth store is old', 'GRPCInvalidArgumentError'],
  [14, 'etcdserver: no leader', 'GRPCUnavailableError'],
  [9, 'etcdserver: not leader', 'GRPCFailedPreconditionError'],
  [14, 'etcdserver: leader changed', 'GRPCUnavailableError'],
  [14, 'etcdserver: not capable', 'GRPCUnavailableError'],
  [12, 'etcdserver: not capable', 'GRPCNotImplementedError'],
  [14, 'etcdserver: server stopped', 'GRPCUnavailableError'],
  [14, 'etcdserver: request timed out', 'GRPCUnavailableError'],
  [14, 'etcdserver: request timed out, possibly due to previous leader failure', 'GRPCUnavailableError'],
  [14, 'etcdserver: request timed out, possibly due to connection lost', 'GRPCUnavailableError'],
  [14, 'etcdserver: request timed out, waiting for the applied index took too long', 'GRPCUnavailableError'],
  [14, 'etcdserver: unhealthy cluster', 'GRPCUnavailableError'],
  [15, 'etcdserver: corrupt cluster', 'GRPCDataLossError'],
  [14, 'etcdserver: rpc not supported for learner', 'GRPCUnavailableError'],
  [9, 'etcdserver: rpc not supported for learner', 'GRPCFailedPreconditionError'],
  [9, 'etcdserver: bad leader transferee', 'GRPCFailedPreconditionError'],
  [14, 'etcdserver: cluster version not found during downgrade', 'GRPCUnavailableError'],
  [3, 'etcdserver: wrong downgrade target version format', 'GRPCInvalidArgumentError'],
  [9, 'etcdserver: cluster has a downgrade job in progress', 'GRPCFailedPreconditionError'],
  [1, 'etcdserver: request canceled', 'GRPCCancelledError'],
  [4, 'etcdserver: context deadline exceeded', 'GRPCDeadlineExceededError'],
  [2, 'auth: user name is empty', 'GRPCUnknownError'],
  [2, 'etcdserver: something new', 'GRPCUnknownError'],
  [6, 'something exists', 'GRPCAlreadyExistsError'],
  [10, 'given up', 'GRPCAbortedError'],
  [13, 'stream terminated', 'GRPCInternalError'],
  [16, 'who are you', 'GRPCUnauthenticatedError'],
  [99, 'a status of tomorrow', 'GRPCGenericError'],
];

const STATUS =
  'OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED'.split(
    ' ',
  );

describe('what a server refuses', () => {
  it.each(REFUSALS)('%i %s is %s', (code, details, name) => {
    const message = `${code} ${STATUS[code] ?? 'undefined'}: ${details}`;
    const metadata = { some: 'metadata' };
    const plain = () => Object.assign(new Error(message), { code, details, metadata });

    const known = theirCast(plain());
    expect(known.constructor.name).toBe(name);
    const source = plain();
    const cast = castGrpcError(source);
    expect(cast).toMatchObject({ name, grpcCode: code, details, metadata, cause: source });
    if (name !== 'EtcdLeaseInvalidError') expect(cast.message).toBe(known.message);

    const raw = { code: 'ERR_UNAVAILABLE', message: 'etcd: said so', grpcCode: code, details, retryable: true };
    const failure = fromFailure(raw, 'KV.put', '123');
    expect(failure).toMatchObject({ name, grpcCode: code, details, operation: 'KV.put', retryable: true });
    if (code < 17 && name !== 'EtcdLeaseInvalidError') expect(failure.message).toBe(known.message);

    expect(castGrpcErrorMessage(details).constructor.name).toBe(theirCastMessage(details).constructor.name);
  });

  it('about a lease: the id where it is known, and its own words in details', () => {
    const details = 'etcdserver: requested lease not found';
    const raw = { code: 'ERR_ETCD', message: 'x', grpcCode: 5, details };
    expect(fromFailure(raw, 'Lease.leaseRevoke', '7587')).toMatchObject({
      message: 'Lease 7587 is expired or revoked',
      details,
    });
    for (const error of [
      fromFailure(raw, 'KV.put'),
      castGrpcErrorMessage(details),
      castGrpcError(new Error(details)),
    ]) {
      expect(error).toMatchObject({ message: 'The lease is expired or revoked', details });
    }
    expect(new errors.EtcdLeaseInvalidError('5').message).toBe('Lease 5 is expired or revoked');
  });
});

describe('castGrpcError', () => {
  it.each([
    ['etcdserver: something new', undefined, 'EtcdError'],
    ['socket hang up', undefined, 'GRPCGenericError'],
    ['socket hang up', 'ECONNRESET', 'GRPCGenericError'],
    ['x', 0, 'GRPCGenericError'],
    ['Error: x', 14, 'GRPCUnavailableError'],
  ])('%s with the code %s is %s, as in etcd3', (message, code, name) => {
    const plain = () => Object.assign(new Error(message), code === undefined ? {} : { code });
    const known = theirCast(plain());
    const cast = castGrpcError(plain());
    expect(known.constructor.name).toBe(name);
    expect(cast).toMatchObject({ name, message: known.message });
    expect(cast.stack?.split('\n')[0]).toBe(known.stack?.split('\n')[0]);
  });

  it('gives back what has a class', () => {
    for (const error of [new TypeError('x'), new errors.EtcdError('x'), new (class Mine extends Error {})('x')]) {
      expect(castGrpcError(error)).toBe(error);
    }
  });
});

describe('a failure without an answer', () => {
  it.each([
    ['ERR_UNAVAILABLE', 'GRPCUnavailableError', 14, '14 UNAVAILABLE: no endpoint'],
    ['ERR_TIMEOUT', 'GRPCDeadlineExceededError', 4, '4 DEADLINE_EXCEEDED: no endpoint'],
    ['ERR_ABORTED', 'AbortError', 1, '1 CANCELLED: no endpoint'],
    ['ERR_INVALID_ARGUMENT', 'GRPCInvalidArgumentError', 3, '3 INVALID_ARGUMENT: no endpoint'],
    ['ERR_UNAUTHENTICATED', 'GRPCUnauthenticatedError', 16, '16 UNAUTHENTICATED: no endpoint'],
    ['ERR_PERMISSION_DENIED', 'EtcdPermissionDeniedError', 7, '7 PERMISSION_DENIED: no endpoint'],
    ['ERR_UNSUPPORTED', 'GRPCNotImplementedError', 12, '12 UNIMPLEMENTED: no endpoint'],
    ['ERR_CLOSED', 'ClientClosedError', -1, 'Tried to call a KV method on etcd3, but the client was already closed'],
    ['ERR_INTERNAL', 'ClientRuntimeError', -1, 'no endpoint Please report this error to the authors of rollcall.'],
    ['ERR_REPLACED', 'GRPCGenericError', -1, 'no endpoint'],
  ])('%s is %s', (code, name, grpcCode, message) => {
    const raw = Object.assign(new Error('no endpoint'), { code, grpcCode: -1, details: '', outcomeUnknown: true });
    expect(fromFailure(raw, 'KV.get')).toMatchObject({
      name,
      grpcCode,
      message,
      outcomeUnknown: true,
      retryable: false,
    });
  });

  it('says what was wrong with each endpoint, once', () => {
    const tried = [
      { host: '127.0.0.1:1', message: 'connection refused' },
      { host: '127.0.0.1:2', message: 'no answer within 5000 ms' },
    ];
    const raw = { code: 'ERR_UNAVAILABLE', message: 'etcd: 127.0.0.1:1: connection refused', tried, grpcCode: -1 };
    const error = fromFailure(raw, 'KV.range') as errors.EtcdClientError;
    expect(error.tried).toEqual(tried);
    expect(error.message).toBe(
      '14 UNAVAILABLE: etcd: 127.0.0.1:1: connection refused (127.0.0.1:2: no answer within 5000 ms)',
    );
  });

  it('of an aborted call keeps the reason, and is called as everywhere', () => {
    const reason = new Error('why');
    for (const error of [
      fromFailure({ code: 'ERR_ABORTED', message: 'aborted' }, 'KV.put'),
      errors.abortedCall(AbortSignal.abort(), 'KV.range'),
    ]) {
      expect(error.name).toBe('AbortError');
      expect(error.stack).toMatch(/^AbortError: 1 CANCELLED/);
      expect(error).toBeInstanceOf(errors.GRPCCancelledError);
      expect(error).toBeInstanceOf(AbortedError);
    }
    // What the server gave up is no abort of the program.
    expect(fromFailure({ code: 'ERR_UNAVAILABLE', message: 'x', grpcCode: 1 }, 'KV.put').name).toBe(
      'GRPCCancelledError',
    );
    expect(fromFailure({ code: 'ERR_ABORTED', message: 'aborted', cause: reason }, 'KV.put').cause).toBe(reason);
    expect(errors.abortedCall(AbortSignal.abort(reason), 'KV.range')).toMatchObject({
      cause: reason,
      code: 'ERR_ABORTED',
    });
  });

  it('of an answer above the limit has the class of etcd3', () => {
    const details = 'Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes';
    const error = fromFailure({ code: 'ERR_UNAVAILABLE', message: 'x', grpcCode: 11, details }, 'KV.range');
    expect(error).toMatchObject({ name: 'GRPCResourceExhastedError', grpcCode: 8 });
    expect(errors.isTooLarge(error)).toBe(true);
    expect(errors.isTooLarge(new errors.GRPCResourceExhastedError('8 RESOURCE_EXHAUSTED: quota'))).toBe(false);
  });

  it('that is no failure of ours is a fault of the package, or passes through', () => {
    const strange = new RangeError('odd');
    expect(fromFailure(strange, 'KV.put')).toMatchObject({ name: 'ClientRuntimeError', cause: strange });
    expect(fromFailure(undefined, 'KV.put')).toMatchObject({ name: 'ClientRuntimeError' });
    const own = new errors.EtcdError('x');
    expect(fromFailure(own, 'KV.put')).toBe(own);
  });
});
