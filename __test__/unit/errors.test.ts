import { inspect } from 'node:util';
import { runInNewContext } from 'node:vm';
import { describe, expect, it, vi } from 'vitest';
import { fromNative } from '../../lib/common/failure.js';
import * as errors from '../../lib/errors.js';
import { fromFailure } from '../../lib/etcd/errors.js';
import { nativeError } from './fake-client.js';

const { AbortedError, aborted, ClosedError, InternalError, RollcallError, TimeoutError } = errors;

const classes = { ...errors };

describe('the class tree', () => {
  it.each([
    ['ERR_CLOSED', 'ClosedError', false],
    ['ERR_TIMEOUT', 'TimeoutError', true],
    ['ERR_UNAVAILABLE', 'UnavailableError', true],
    ['ERR_UNAUTHENTICATED', 'UnauthenticatedError', false],
    ['ERR_PERMISSION_DENIED', 'PermissionDeniedError', false],
    ['ERR_INVALID_ARGUMENT', 'InvalidArgumentError', false],
    ['ERR_REPLACED', 'ReplacedError', false],
    ['ERR_BAD_RECORD', 'BadRecordError', false],
    ['ERR_ABORTED', 'AbortedError', false],
    ['ERR_UNSUPPORTED', 'UnsupportedError', false],
    ['ERR_INTERNAL', 'InternalError', false],
  ] as const)('%s is %s', (code, name, retryable) => {
    const type = classes[name];
    const error = new type('what', { operation: 'register', cause: 'why' });
    expect(error).toMatchObject({ code, retryable, operation: 'register', cause: 'why', message: 'what' });
    expect(error.name).toBe(name === 'AbortedError' ? 'AbortError' : name);
    expect(error.stack?.split('\n')[0]).toBe(`${error.name}: what`);
    expect(error).toBeInstanceOf(Error);
    expect(error).toBeInstanceOf(RollcallError);
    expect(error).toBeInstanceOf(type);
    expect(error instanceof (name === 'ClosedError' ? TimeoutError : ClosedError)).toBe(false);
  });

  it('shows no name as an own field', () => {
    expect(Object.keys(new TimeoutError('x')).sort()).toEqual(['code', 'operation', 'retryable']);
    expect(inspect(new TimeoutError('x'))).toMatch(/^TimeoutError: x/);
  });

  it('knows the errors of another copy, and of another realm', async () => {
    vi.resetModules();
    const other: typeof errors = await import('../../lib/errors.js');
    expect(other.TimeoutError).not.toBe(TimeoutError);
    expect(new other.TimeoutError('x')).toBeInstanceOf(TimeoutError);
    expect(new other.TimeoutError('x')).toBeInstanceOf(RollcallError);
    expect(new other.TimeoutError('x') instanceof ClosedError).toBe(false);
    const foreign = runInNewContext(
      'Object.assign(new Error("x"), { [Symbol.for("rollcall.error.kinds")]: ["RollcallError"] })',
    );
    expect(foreign).toBeInstanceOf(RollcallError);
  });

  it('leaves derived classes and other values alone', () => {
    class Mine extends TimeoutError {}
    expect(new Mine('x')).toBeInstanceOf(Mine);
    expect(new Mine('x')).toBeInstanceOf(TimeoutError);
    expect(new TimeoutError('x') instanceof Mine).toBe(false);
    for (const value of [null, undefined, 1, 'x', {}, new Error('x')])
      expect(value instanceof RollcallError).toBe(false);
  });
});

describe('what the native side throws', () => {
  it('becomes the class of its code', () => {
    const raw = Object.assign(new Error('no answer'), {
      code: 'ERR_TIMEOUT',
      retryable: false,
      operation: 'put',
      endpoint: 'http://10.0.0.1:2379',
      key: '/microservices/orders/1',
      revision: '7',
      causes: ['cannot connect', 'connection refused'],
    });
    const error = fromNative(raw, 'register');
    expect(error).toBeInstanceOf(TimeoutError);
    expect(error).toMatchObject({
      message: 'no answer',
      retryable: false,
      operation: 'put',
      endpoint: 'http://10.0.0.1:2379',
      key: '/microservices/orders/1',
      revision: '7',
      cause: new Error('cannot connect', { cause: new Error('connection refused') }),
    });
    const plain = fromNative(nativeError('ERR_TIMEOUT'), 'register');
    expect(plain.operation).toBe('register');
    expect('cause' in plain || 'endpoint' in plain || 'key' in plain || 'revision' in plain).toBe(false);
  });

  it('is an internal error when its code is not ours', () => {
    for (const raw of [nativeError('GenericFailure'), nativeError('constructor'), 'text', undefined, null]) {
      const error = fromNative(raw, 'register');
      expect(error).toBeInstanceOf(InternalError);
      expect(error.operation).toBe('register');
    }
  });

  it('is read alike by the registry and by rollcall/etcd, as an object and as the JSON of a page', () => {
    const raw = {
      code: 'ERR_UNAVAILABLE',
      message: 'cannot connect',
      retryable: true,
      operation: '',
      endpoint: 'http://10.0.0.1:2379',
      key: 'k',
      revision: null,
      causes: ['connection refused'],
      grpcCode: null,
      details: '',
      outcomeUnknown: false,
      tried: [],
    };
    const known = { endpoint: raw.endpoint, key: 'k', retryable: true, cause: new Error('connection refused') };
    for (const form of [raw, JSON.parse(JSON.stringify(raw))]) {
      expect(fromNative(form, 'register')).toMatchObject({ ...known, operation: 'register' });
      expect(fromFailure(form, 'KV.put')).toMatchObject({ ...known, operation: 'KV.put', grpcCode: 14 });
    }
    for (const odd of [{ ...raw, endpoint: 7, causes: 'x', tried: {}, details: 1, grpcCode: '14' }, { code: 7 }]) {
      for (const error of [fromNative(odd, 'register'), fromFailure(odd, 'KV.put')]) {
        expect(error).toBeInstanceOf(RollcallError);
        expect('endpoint' in error).toBe(false);
      }
    }
  });

  it('captures no stack for what lies below, and leaves how long stacks are as it was', () => {
    const below = () => fromNative({ code: 'ERR_TIMEOUT', message: 'm', causes: ['a', 'b'] }, 'get').cause as Error;
    const limit = Error.stackTraceLimit;
    try {
      Error.stackTraceLimit = 7;
      const cause = below();
      expect([cause.stack, (cause.cause as Error).stack]).toEqual(['Error: a', 'Error: b']);
      expect(Error.stackTraceLimit).toBe(7);
      Object.defineProperty(Error, 'stackTraceLimit', { value: 5, writable: false, configurable: true });
      expect(below().message).toBe('a');
    } finally {
      Object.defineProperty(Error, 'stackTraceLimit', {
        value: limit,
        writable: true,
        configurable: true,
        enumerable: true,
      });
    }
  });

  it('stays when it is one of ours', () => {
    const error = new ClosedError('x');
    expect(fromNative(error, 'register')).toBe(error);
  });
});

it('an abort carries the reason of its signal', () => {
  const error = aborted(AbortSignal.abort('because'), 'register');
  expect(error).toBeInstanceOf(AbortedError);
  expect(error).toMatchObject({ name: 'AbortError', code: 'ERR_ABORTED', cause: 'because', operation: 'register' });
});
