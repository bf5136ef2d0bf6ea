/** What decorators of methods say of their options: without Nest. */

import 'reflect-metadata';
import { createRequire } from 'node:module';
import { describe, expect, it } from 'vitest';

const load = createRequire(import.meta.url);
const { Breaker } = load('../../dist/cjs/nest/breaker-module.js');
const { LeaderOnly, OncePerTick, WithLock } = load('../../dist/cjs/nest/coord-methods.js');
const { Idempotent } = load('../../dist/cjs/nest/once-module.js');
const { RateLimit } = load('../../dist/cjs/nest/rate-limit-module.js');

describe('the decorators of methods', () => {
  it.each<[string, string, (options: unknown) => unknown]>([
    ['@Breaker', 'breakers', (options) => Breaker('users', options)],
    ['@WithLock', 'coord', (options) => WithLock('report', options)],
    ['@LeaderOnly', 'coord', (options) => LeaderOnly('nightly', options)],
    ['@OncePerTick', 'coord', (options) => OncePerTick('nightly', '0 3 * * *', options)],
    ['@Idempotent', 'once', (options) => Idempotent(options)],
    ['@RateLimit', 'limiter', (options) => RateLimit('send', options)],
  ])('%s says what is wrong with its options', (name, field, decorate) => {
    for (const [wrong, message] of [
      [null, 'options: expected an object, got null'],
      [5, 'options: expected an object, got number'],
      [{ [field]: 5 }, `options.${field}: expected a string, got number`],
      [{ [field]: '' }, `options.${field}: expected a string that is not empty`],
    ]) {
      expect(() => decorate(wrong)).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', message: `${name}: ${message}` }),
      );
    }
    expect(decorate({ [field]: undefined })).toBeTypeOf('function');
    expect(decorate(undefined)).toBeTypeOf('function');
  });
});
