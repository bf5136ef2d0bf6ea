// Figures out of samples.

export const sorted = (values) => [...values].sort((a, b) => a - b);

/** Of unsorted values; `share` from 0 to 1. */
export function quantile(values, share) {
  const all = sorted(values);
  return all[Math.min(all.length - 1, Math.floor(all.length * share))];
}

export const median = (values) => {
  const all = sorted(values);
  const half = all.length >> 1;
  return all.length % 2 === 1 ? all[half] : (all[half - 1] + all[half]) / 2;
};

/** Milliseconds of a clock that all processes of the machine share. */
export const now = () => Number(process.hrtime.bigint()) / 1e6;

/** What a function takes, in milliseconds. */
export async function timed(action) {
  const start = now();
  await action();
  return now() - start;
}

/** Values by what they are of, one per run. */
export function gathering() {
  const values = {};
  const add = (what, value) => {
    values[what] ??= [];
    values[what].push(value);
  };
  return { values, add };
}
