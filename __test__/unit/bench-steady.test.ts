// The benchmarks count nobody who is still warming up, and say of whom they do not know.

import { expect, test } from 'vitest';
import { tableOf } from '../../bench/support/report.mjs';
import { notSteady, repeated, steady } from '../../bench/support/steady.mjs';

/** Slices with these rates, the last one for ever, each of which takes as long as it is asked to, or longer. */
function slices(rates: number[], takes = 0) {
  let [clock, done] = [0, 0];
  const told: string[] = [];
  const slice = async (ms: number) => {
    clock += Math.max(ms, takes);
    return rates[Math.min(done++, rates.length - 1)] as number;
  };
  return { slice, done: () => done, told, options: { now: () => clock, tell: (text: string) => told.push(text) } };
}

test('a rate that is steady from the beginning is counted after two seconds', async () => {
  const work = slices([1000]);
  expect(await steady('even', work.slice, work.options)).toBe(true);
  expect([work.done(), work.told]).toEqual([8, []]);
});

test('a rate that grows is not counted before it has stopped growing', async () => {
  const work = slices([1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 15, 15]);
  expect(await steady('growing', work.slice, work.options)).toBe(true);
  expect(work.done()).toBe(15); // 12, 15, 15 and 15, 15, 15
});

test('slices that a busy machine took do not count against one that is warm', async () => {
  const work = slices([100, 60, 110, 95, 120, 100, 40, 105]);
  expect(await steady('disturbed', work.slice, work.options)).toBe(true);
  expect(work.done()).toBe(8);
});

test('a rate that never becomes steady is counted after eight seconds, and that is told', async () => {
  const work = slices(Array.from({ length: 100 }, (_, i) => 1.1 ** i));
  expect(await steady('uneven', work.slice, work.options)).toBe(false);
  expect(work.done()).toBe(32);
  expect(work.told).toEqual(['uneven: not steady after 8 s, counted all the same']);
  expect(notSteady()).toContain('uneven');
  const [, line] = tableOf([{ what: 'uneven', unit: 'ms', median: 1, min: 1, max: 1, steady: false }]);
  expect(line).toContain('uneven (not steady)');
});

test('slices that take longer than they are asked to are enough to compare, and no more than needed', async () => {
  const slow = slices([1], 3000);
  expect(await steady('slow', slow.slice, slow.options)).toBe(true);
  expect(slow.done()).toBe(6);
  const uneven = slices([1, 2, 3, 4, 5, 6, 7, 8], 3000);
  expect(await steady('slow and uneven', uneven.slice, uneven.options)).toBe(false);
  expect(uneven.done()).toBe(6);
});

test('an action that is repeated may count a part of its time alone', async () => {
  const rate = await repeated(async () => ({ pieces: 10, took: 2 }))(5);
  expect(rate).toBeCloseTo(5000);
});
