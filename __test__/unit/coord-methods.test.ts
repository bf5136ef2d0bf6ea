// Keys that come from arguments, and what is refused of decorators of methods before anything runs.

import { createRequire } from 'node:module';
import { describe, expect, it } from 'vitest';

const require = createRequire(import.meta.url);
const { KeyTemplate } = require('../../dist/cjs/frameworks/key-template.js');
const { tickMethod } = require('../../dist/cjs/frameworks/once-per-tick.js');
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

class Orders {
  async run(_id: string, _held?: object) {}
  static async all() {}
}
const at = (target: object, key: string, decorator = '@WithLock') =>
  placeOf(decorator, target, key, Object.getOwnPropertyDescriptor(target, key));

describe('a method that runs once for each tick', () => {
  const place = at(Orders.prototype, 'run', '@OncePerTick');

  it.each([
    [['a/b', '0 3 * * *'], 'name: expected no "/", for it is one part of a key'],
    [[undefined, '0 3 * * *'], 'name: expected a string, got undefined'],
    [['nightly', undefined], 'expression: expected a cron expression such as "0 3 * * *", got undefined'],
    [['nightly', '0 3 * *'], 'expression: expected five to seven fields, such as "0 3 * * *", got 4'],
    [['nightly', '0 3 30 2 *'], 'expression: expected one that is due some time: there is no such day, or it is past'],
    [['nightly', '0 3 * * *', { timezone: 7 }], 'options.timezone: expected the name of a time zone'],
    [['nightly', '0 3 * * *', { timeZone: 'UTC' }], 'options.timeZone: unknown option; did you mean "timezone"?'],
    [['nightly', '0 3 * * *', { catchUp: 'all' }], 'options.catchUp: unknown option'],
    [['nightly', '0 3 * * *', 'UTC'], 'options: expected an object, got string'],
  ])('of %j is refused where it stands', ([name, expression, options], problem) => {
    const make = () => tickMethod(place, name, expression, options, () => undefined);
    const message = expect.stringContaining(`@OncePerTick on Orders.run: ${problem}`);
    expect(make).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', message }));
  });

  it('gets the tick at its place, and has its name and number of parameters', async () => {
    const held: unknown[] = [];
    const run = { run: (_: unknown, work: (tick: object) => unknown) => work({ token: 7n }) };
    const own = { ...place, method: async (...args: unknown[]) => held.push(args) };
    const { method, mark } = tickMethod(own, 'nightly', '@daily', undefined, () => run);
    expect([await method.call(new Orders(), 'a'), held]).toEqual([1, [['a']]]);
    expect(mark).toMatchObject({
      path: '@OncePerTick on Orders.run',
      plan: { path: '/cron/nightly', catchUp: 'none' },
    });
    expect(tickMethod(place, 'nightly', '@daily', undefined, () => run).method.length).toBe(2);
  });
});

describe('a method under a lock', () => {
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
    expect(held.fill(place, ['a'], () => 'it')).toEqual(['a', undefined, 'it']);
    expect(held.fill(place, ['a', 'b', 'c', 'd'], () => 'it')).toEqual(['a', 'b', 'it', 'd']);
    const unasked = () => {
      throw new Error('nothing is marked');
    };
    expect(held.fill({ target: {}, key: 'run' }, ['a'], unasked)).toEqual(['a']);
  });

  it('has its name and number of parameters, and rejects where it can not find its application', async () => {
    const method = lockedMethod(place, '{0}', undefined, () => {
      throw new Error('no application');
    });
    expect([method.name, method.length]).toEqual(['run', 2]);
    await expect(method.call(new Orders(), 'a')).rejects.toThrow('no application');
  });
});
