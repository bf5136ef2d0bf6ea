// The table at the end.

import { median } from './stats.mjs';
import { mark } from './steady.mjs';

/**
 * One line of the table.
 *
 * @typedef {object} Figure
 * @property {string} what
 * @property {string} unit
 * @property {number[]} values one per run
 * @property {number} [target] at most, in the same unit
 * @property {{ to: string, values: number[] }} [ratio] to what was measured in the same runs; taken run by run
 * @property {string} [of] the backend
 * @property {boolean} [steady] false when its rate never became steady before it was counted
 */

/** What is printed and written to the file of `--json`. */
export function summed({ what, unit, values, target, ratio, of, steady }) {
  const ratios = ratio?.values.map((value, run) => values[run] / value);
  return {
    what,
    ...(of && { of }),
    unit,
    median: median(values),
    min: Math.min(...values),
    max: Math.max(...values),
    runs: values.length,
    ...(target !== undefined && { target, met: median(values) <= target }),
    ...(ratios && { ratio: median(ratios), ratioTo: ratio.to }),
    ...(steady === false && { steady }),
  };
}

const number = (value) => (value === 0 ? '0' : value >= 100 ? value.toFixed(0) : value.toPrecision(3));

const HEAD = ['', 'median', 'range', 'target', 'ratio'];

/** A table of figures for a page; what is indented belongs to the line above. */
export function markdownOf(figures) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  const rows = rowsOf(figures).map(([what, ...rest]) =>
    line([what.replace(/^ +/, (by) => '&emsp;'.repeat(by.length / 2)), ...rest]),
  );
  return [line(HEAD), '| --- | --: | --: | --- | --- |', ...rows].join('\n');
}

/** The lines of a table of figures. */
export function tableOf(figures) {
  const all = [HEAD, ...rowsOf(figures)];
  const widths = all[0].map((_, column) => Math.max(...all.map((row) => row[column].length)));
  return all.map((row) =>
    row
      .map((cell, column) =>
        column === 1 || column === 2 ? cell.padStart(widths[column]) : cell.padEnd(widths[column]),
      )
      .join('  ')
      .trimEnd(),
  );
}

function rowsOf(figures) {
  return figures.map(({ what, unit, median, min, max, target, met, ratio, ratioTo, steady }) => [
    `${what}${mark(steady)}`,
    `${number(median)} ${unit}`.trimEnd(),
    `${number(min)} to ${number(max)}`,
    target === undefined ? '' : `at most ${`${target} ${unit}`.trimEnd()}: ${met ? 'met' : 'MISSED'}`,
    ratio === undefined ? '' : `${number(ratio)} × ${ratioTo}`,
  ]);
}
