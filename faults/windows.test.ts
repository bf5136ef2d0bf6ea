import { describe, expect, it } from 'vitest';
import { firstIndex, Windows } from './windows.js';

const stretch = (at: number, until: number) => ({ at, until });

describe('windows', () => {
  const windows = new Windows([stretch(50, 60), stretch(10, 20), stretch(15, 18), stretch(20, 30), stretch(70, 70)]);

  it('are sorted, and joined where they touch', () => {
    expect(windows.stretches).toEqual([stretch(10, 30), stretch(50, 60), stretch(70, 70)]);
  });
  it.each([
    [0, 9, false],
    [0, 10, true],
    [12, 13, true],
    [30, 40, true],
    [31, 49, false],
    [0, 100, true],
    [61, 69, false],
    [70, 70, true],
    [71, 100, false],
  ])('from %i to %i: they overlap it: %s', (at, until, overlaps) => {
    expect(windows.overlaps(at, until)).toBe(overlaps);
  });
  it.each([
    [0, 0],
    [10, 30],
    [25, 30],
    [30, 30],
    [31, 31],
    [70, 70],
    [99, 99],
  ])('at %i: the stretch ends at %i', (at, end) => {
    expect(windows.endOf(at)).toBe(end);
  });
  it.each([
    [0, 100, 30],
    [0, 5, 0],
    [12, 17, 5],
    [25, 55, 10],
    [40, 45, 0],
    [60, 80, 0],
  ])('from %i to %i they share %i ms with it', (at, until, shared) => {
    expect(windows.shared(at, until)).toBe(shared);
  });
  it('of nothing overlap nothing', () => {
    const none = new Windows([]);
    expect([none.overlaps(0, 9), none.covers(3), none.shared(0, 9)]).toEqual([false, false, 0]);
  });
});

it('the first index is found in any place', () => {
  expect([0, 3, 9].map((from) => firstIndex([1, 2, 3, 4], (n) => n > from))).toEqual([0, 3, 4]);
});
