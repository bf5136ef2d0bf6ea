// When a contender may be counted: not before its engine has compiled it.
//
// Nothing collects garbage by force between the warming and the counting: a forced collection throws compiled code away
// whose objects are just not in use. etcd3 then did 2,050 gets a second instead of 2,850 (medians of 20 runs of 400 ms on
// one machine, with and without `gc()` before each), and rollcall, which runs little JavaScript, as many as before.

import { isSmall } from './small.mjs';
import { median } from './stats.mjs';

/** What is asked of a contender before it is counted; times in milliseconds. */
export const STEADY = isSmall
  ? { slice: 10, alike: 1, within: 2, atLeast: 0, atMost: 0 }
  : { slice: 250, alike: 3, within: 0.15, atLeast: 2000, atMost: 8000 };

/** How it is judged, for the pages. */
export const HOW =
  `each works in slices of ${STEADY.slice} ms until ${STEADY.atLeast / 1000} s have gone by and the median rate of the ` +
  `last ${STEADY.alike} differs by less than ${STEADY.within * 100} % from that of the ${STEADY.alike} before, ` +
  `${STEADY.atMost / 1000} s at most`;

const unsteady = [];

/** What never became steady, in words. */
export const notSteady = () => [...unsteady];

/** What the tables add to the name of one that was counted all the same. */
export const mark = (steady) => (steady === false ? ' (not steady)' : '');

/**
 * A slice of an action that is repeated; the rate is of pieces a second.
 *
 * @param {() => Promise<number | { pieces: number, took: number }>} action gives how many pieces it did, and how many
 *   milliseconds of it count where not all do
 */
export const repeated = (action) => async (ms) => {
  const begun = performance.now();
  let [pieces, took] = [0, 0];
  while (performance.now() - begun < ms) {
    const start = performance.now();
    const did = await action();
    pieces += did.pieces ?? did;
    took += did.took ?? performance.now() - start;
  }
  return (pieces / took) * 1000;
};

/**
 * Lets a contender work until its rate is steady; gives whether it became so, and says on standard error when not.
 * Medians are compared, not slices: a slice that the machine took is noise, and a rate that still grows is none.
 *
 * @param {string} what names it
 * @param {(ms: number) => Promise<number>} slice works for about so long, and gives the rate. One that takes longer is
 *   one slice all the same: there are always enough of them to compare, then
 */
export async function steady(what, slice, { now = () => performance.now(), tell = console.error } = {}) {
  const begun = now();
  const rates = [];
  while (now() - begun < STEADY.atMost || rates.length < 2 * STEADY.alike) {
    rates.push(await slice(STEADY.slice));
    if (rates.length < 2 * STEADY.alike || now() - begun < STEADY.atLeast) continue;
    const [before, last] = [rates.slice(-2 * STEADY.alike, -STEADY.alike), rates.slice(-STEADY.alike)].map(median);
    if (Math.abs(last - before) < STEADY.within * Math.max(last, before)) return true;
  }
  unsteady.push(what);
  tell(`${what}: not steady after ${STEADY.atMost / 1000} s, counted all the same`);
  return false;
}
