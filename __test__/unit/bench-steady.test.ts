// The benchmarks count nobody who is still warming up.

import { expect, test } from 'vitest';
import { notSteady, steady } from '../../bench/support/steady.mjs';

/** Slices with these rates, the last one for ever, each of which takes as long as it is asked to. */
function slices(rates: number[]) {
  let [clock, done] = [0, 0];
  const told: string[] = [];
  const slice = async (ms: number) => {
    clock += ms;
    return rates[Math.min(done++, rates.length - 1)] as number;
  };
  return { slice, done: () => done, told, options: { now: () => clock, tell: (text: string) => told.push(text) } };
}

test('a rate that is steady from the beginning is counted after two seconds', async () => {
  const work = slices([1000]);
  expect(await steady('even', work.slice, work.options)).toBe(true);
  expect([work.done(), work.told]).toEqual([8, []]);
});

test('a rate that grows is not counted before its last three slices are alike', async () => {
  const work = slices([1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 15, 15]);
  expect(await steady('growing', work.slice, work.options)).toBe(true);
  expect(work.done()).toBe(13);
});

test('a rate that never becomes steady is counted after eight seconds, and that is told', async () => {
  const work = slices(Array.from({ length: 100 }, (_, i) => (i % 2 ? 1 : 2)));
  expect(await steady('uneven', work.slice, work.options)).toBe(false);
  expect(work.done()).toBe(32);
  expect(work.told).toEqual(['uneven: not steady after 8 s, counted all the same']);
  expect(notSteady()).toContain('uneven');
});
