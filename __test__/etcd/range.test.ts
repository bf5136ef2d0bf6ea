/** Ranges of keys: pure arithmetic on bytes. */

import { InvalidArgumentError, Range } from 'rollcall/etcd';
import { describe, expect, it } from 'vitest';

const bytes = (...list: number[]) => Buffer.from(list);
const ends = ({ start, end }: Range) => [start.toString('latin1'), end.toString('latin1')];

describe('a range is made of', () => {
  it.each([
    ['a string', 'a', ['a', '']],
    ['a Buffer', Buffer.from('a'), ['a', '']],
    ['a start and an end', { start: 'a', end: Buffer.from('c') }, ['a', 'c']],
    ['a prefix', { prefix: 'a' }, ['a', 'b']],
    ['a prefix in bytes', { prefix: bytes(1, 2) }, ['\x01', '\x01'].map((text, i) => text + ['\x02', '\x03'][i])],
    ['the empty prefix', { prefix: '' }, ['\0', '\0']],
    ['a prefix that ends in 0xff', { prefix: bytes(1, 0xff) }, ['\x01\xff', '\x02']],
    ['a prefix of 0xff alone', { prefix: bytes(0xff, 0xff) }, ['\xff\xff', '\0']],
  ])('%s', (_what, rangable, expected) => {
    expect(ends(Range.from(rangable))).toEqual(expected);
  });

  it('a range, which stays the same', () => {
    const range = new Range('a', 'b');
    expect(Range.from(range)).toBe(range);
  });

  it.each([[undefined], [null], [5], [{}], [{ prefix: 5 }], [{ start: 'a', end: 5 }]])('nothing else: %j', (wrong) => {
    expect(() => Range.from(wrong as unknown as string)).toThrow(InvalidArgumentError);
  });
});

describe('a prefix is not changed by being made a range', () => {
  it('in bytes', () => {
    const prefix = bytes(1, 2);
    Range.prefix(prefix);
    expect(prefix).toEqual(bytes(1, 2));
  });
});

describe('a range includes', () => {
  it.each<[string, Range, [string | Buffer, boolean][]]>([
    [
      'one key',
      Range.from('b'),
      [
        ['a', false],
        ['b', true],
        ['b\0', false],
        ['c', false],
      ],
    ],
    [
      'start and end',
      new Range('b', 'd'),
      [
        ['a', false],
        ['b', true],
        ['c', true],
        ['cz', true],
        ['d', false],
      ],
    ],
    [
      'everything',
      Range.prefix(''),
      [
        ['\0', true],
        ['a', true],
        [bytes(0xff, 0xff), true],
      ],
    ],
    [
      'no upper bound',
      new Range('b', '\0'),
      [
        ['a', false],
        ['b', true],
        [bytes(0xff), true],
      ],
    ],
    [
      'a prefix',
      Range.prefix('ab'),
      [
        ['aa', false],
        ['ab', true],
        ['ab/c', true],
        ['ac', false],
      ],
    ],
    [
      'a prefix of 0xff',
      Range.prefix(bytes(0xff)),
      [
        [bytes(0xfe), false],
        [bytes(0xff), true],
        [bytes(0xff, 0xff), true],
      ],
    ],
    [
      'bytes, not characters',
      new Range('\uffff', '\0'),
      [
        ['\u{10000}', true],
        ['\ufffe', false],
      ],
    ],
  ])('%s', (_what, range, keys) => {
    expect(keys.map(([key]) => range.includes(key))).toEqual(keys.map(([, included]) => included));
  });
});

describe('two ranges compare', () => {
  const one = (key: string) => Range.from(key);
  it.each<[Range, Range, number]>([
    [one('a'), one('b'), -1],
    [one('a'), one('a'), 0],
    [one('a'), one('a\0'), -1],
    [one('b'), new Range('a', 'b'), 1],
    [one('b'), new Range('a', 'c'), 0],
    [new Range('a', 'b'), new Range('b', 'c'), -1],
    [new Range('a', 'c'), new Range('b', 'd'), 0],
    [Range.prefix(''), one('a'), 0],
    [Range.prefix(''), Range.prefix(''), 0],
    [new Range('b', '\0'), one('a'), 1],
    [new Range('b', '\0'), one('z'), 0],
    [Range.prefix(bytes(0xff)), one('z'), 1],
  ])('%o and %o: %i', (left, right, expected) => {
    expect(left.compare(right)).toBe(expected);
    expect(right.compare(left)).toBe(expected === 0 ? 0 : -expected);
  });
});
