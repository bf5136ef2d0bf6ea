// When a contender may be counted: not before its engine has compiled it.

/** What is asked of a contender before it is counted; times in milliseconds. */
export const STEADY = { slice: 250, alike: 3, within: 0.15, atLeast: 2000, atMost: 8000 };

/** How it is judged, for the pages. */
export const HOW =
  `each works in runs of ${STEADY.slice} ms until the last ${STEADY.alike} differ by less than ` +
  `${STEADY.within * 100} % and ${STEADY.atLeast / 1000} s have gone by, ${STEADY.atMost / 1000} s at most`;

const unsteady = [];

/** What never became steady, in words. */
export const notSteady = () => [...unsteady];

/** A slice of an action that is repeated; it gives how many pieces it did. The rate is of pieces a second. */
export const repeated = (action) => async (ms) => {
  const begun = performance.now();
  let pieces = 0;
  while (performance.now() - begun < ms) pieces += await action();
  return (pieces / (performance.now() - begun)) * 1000;
};

/**
 * Lets a contender work until its rate is steady, and says on standard error when it did not become so.
 *
 * @param {string} what names it
 * @param {(ms: number) => Promise<number>} slice works for about so long, and gives the rate; what takes longer counts
 *   as long as it takes
 */
export async function steady(what, slice, { now = () => performance.now(), tell = console.error } = {}) {
  const begun = now();
  const rates = [];
  while (now() - begun < STEADY.atMost) {
    rates.push(await slice(STEADY.slice));
    const last = rates.slice(-STEADY.alike);
    const [low, high] = [Math.min(...last), Math.max(...last)];
    const alike = last.length === STEADY.alike && high - low < STEADY.within * high;
    if (alike && now() - begun >= STEADY.atLeast) return true;
  }
  unsteady.push(what);
  tell(`${what}: not steady after ${STEADY.atMost / 1000} s, counted all the same`);
  return false;
}
