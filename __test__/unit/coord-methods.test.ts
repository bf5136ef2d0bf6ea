// Keys that come from arguments, and what is refused of decorators of methods before anything runs.

import { createRequire } from 'node:module';
import { describe, expect, it } from 'vitest';

const require = createRequire(import.meta.url);
const { KeyTemplate } = require('../../dist/cjs/frameworks/key-template.js');
const { lockedMethod } = require('../../dist/cjs/frameworks/with-lock.js');
const { FilledParameter, placeOf } = require('../../dist/cjs/frameworks/methods.js');

const PATH = '@WithLock on Orders.run';
const filled = (key: string, ...args: unknown[]) => new KeyTemplate(PATH, key).fill(args);

describe('the key of a lock', () => {
  it.each([
    ['report', [], 'report'],
    ['report:{0}', ['7'], 'report:7'],
    ['{1}:{0.id}-{0.of.name}', [{ id: 7, of: { name: 'ä' } }, 12n], '12:7-ä'],
    ['/jobs/{0}', ['a.b'], '/jobs/a.b'],
    ['{0.length}', ['abc'], '3'],
  ])('%s', (key, args, is) => {
    expect(filled(key, ...args)).toBe(is);
  });

  it.each([
    ['{0}', [], '{0}: expected a string or a number, got undefined'],
    ['{2}', ['a'], '{2}: expected a string or a number, got undefined'],
    ['{0.id}', [null], '{0.id}: expected a string or a number, got undefined'],
    ['{0.of.id}', [{ of: {} }], '{0.of.id}: expected a string or a number, got undefined'],
    ['{0}', [null], '{0}: expected a string or a number, got null'],
    ['{0}', [{}], '{0}: expected a string or a number, got object'],
    ['{0}', [Number.NaN], '{0}: expected a string or a number, got NaN'],
    ['{0}', ['secret/secret'], '{0}: expected a text without "/"'],
    ['{0}', ['..'], '{0}: expected a text without ".."'],
    ['{0}', ['secret..'], '{0}: expected a text without ".."'],
    ['{0}', [''], '{0}: expected a string that is not empty'],
    ['{0}', ['\ud800'], '{0}: expected a string of well-formed Unicode, got a lone surrogate'],
  ])('%s of %j is refused with the place named', (key, args, problem) => {
    const fill = () => filled(key, ...args);
    expect(fill).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', message: `${PATH}: ${problem}` }));
  });

  it('is refused when it holds a control character, without showing it', () => {
    expect(() => filled('{0}', 'secret\0')).toThrow(/^@WithLock on Orders\.run: \{0\}: (?!.*secret)/);
  });

  it.each([
    '{',
    '}',
    '{}',
    '{a}',
    '{0',
    'a}b',
    '{0.}',
    '{0..a}',
    '{-1}',
    '{0 }',
    '{{0}}',
    '',
    'a//b',
    '../{0}',
    undefined,
    7,
  ])('%j is refused where it stands', (key) => {
    expect(() => new KeyTemplate(PATH, key)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', message: expect.stringContaining(`${PATH}: key: `) }),
    );
  });
});

describe('a method under a lock', () => {
  class Orders {
    async run(_id: string, _held?: object) {}
    static async all() {}
  }
  const at = (target: object, key: string) =>
    placeOf('@WithLock', target, key, Object.getOwnPropertyDescriptor(target, key));
  const place = at(Orders.prototype, 'run');

  it.each([
    [{ ttlMs: 5 }, 'options.ttlMs: expected a whole number from 1000 to 2147483647, got 5'],
    [{ timeoutMs: '5' }, 'options.timeoutMs: expected 0 (off) or a whole number from 1 to 2147483647, got string'],
    [{ skip: 1 }, 'options.skip: expected true or false, got number'],
    [{ ttl: 5000 }, 'options.ttl: unknown option; did you mean "ttlMs"?'],
    [{ signal: new AbortController().signal }, 'options.signal: unknown option'],
    ['soon', 'options: expected an object, got string'],
  ])('of options %j is refused where it stands', (options, problem) => {
    const make = () => lockedMethod(place, 'a', options, () => undefined);
    expect(make).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', message: `${PATH}: ${problem}` }));
  });

  it('is one of instances, and one parameter of it gets what is held', () => {
    expect(() => at(Orders, 'all')).toThrow('@WithLock on Orders.all: expected a member that is not static');
    expect(() => placeOf('@WithLock', Orders.prototype, 'size', { get: () => 1 })).toThrow(
      'Orders.size: expected a method',
    );
    const held = new FilledParameter('@HeldLock');
    expect(() => held.mark(Orders, undefined, 0)).toThrow('@HeldLock on Orders.constructor: expected a member');
    held.mark(Orders.prototype, 'run', 2);
    expect(() => held.mark(Orders.prototype, 'run', 1)).toThrow(
      '@HeldLock on Orders.run: expected one parameter, got two',
    );
    expect(held.fill(place, ['a'], 'it')).toEqual(['a', undefined, 'it']);
    expect(held.fill(place, ['a', 'b', 'c', 'd'], 'it')).toEqual(['a', 'b', 'it', 'd']);
    expect(held.fill({ target: {}, key: 'run' }, ['a'], 'it'), 'nothing is marked').toEqual(['a']);
  });

  it('has its name and number of parameters, and rejects where it can not find its application', async () => {
    const method = lockedMethod(place, '{0}', undefined, () => {
      throw new Error('no application');
    });
    expect([method.name, method.length]).toEqual(['run', 2]);
    await expect(method.call(new Orders(), 'a')).rejects.toThrow('no application');
  });
});
