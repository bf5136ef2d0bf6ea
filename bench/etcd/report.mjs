// The tables: on the screen, and in docs/bench-etcd.md.

import { readFileSync, writeFileSync } from 'node:fs';
import { median } from '../support/stats.mjs';
import { mark } from '../support/steady.mjs';
import { CONTENDERS } from './contenders.mjs';
import { TARGETS } from './targets.mjs';

/** The columns of figures: metric, head, how many decimals. */
const COLUMNS = [
  ['perSecond', 'a second', 0],
  ['p50', 'p50, µs', 0],
  ['p99', 'p99, µs', 0],
  ['process', 'process, µs', 1],
  ['thread', 'JS thread, µs', 2],
  ['loop', 'loop delay, ms', 1],
  ['loopP99', 'loop delay p99, ms', 1],
  ['gap', 'longest gap, ms', 0],
  ['busyGap', 'work in a gap, ms', 0],
  ['ticks', 'share of the ticks', 2],
];

const number = (value, decimals) =>
  value.toLocaleString('en', {
    minimumFractionDigits: value < 1000 ? decimals : 0,
    maximumFractionDigits: value < 1000 ? decimals : 0,
  });

/** All that was measured, run by run. */
export class Samples {
  /** By `who|what|at once`: what, at once, who, whether its rate was steady before, and the figures of each run. */
  cells = new Map();

  add({ what, atOnce = '', who, steady = true }, figures) {
    const name = `${who}|${what}|${atOnce}`;
    if (!this.cells.has(name)) this.cells.set(name, { what, atOnce, who, steady, runs: [] });
    this.cells.get(name).runs.push(figures);
  }

  values([cell, metric]) {
    return this.cells.get(cell)?.runs.map((figures) => figures[metric]);
  }

  /** Each target with what was measured for it; those without are left out. */
  targets() {
    return TARGETS.flatMap((target) => {
      const values = this.values(target.of);
      const others = target.to && this.values(target.to);
      if (!values || (target.to && !others)) return [];
      const each = others
        ? values.map((value, run) => (target.difference ? value - others[run] : value / others[run]))
        : values;
      const found = median(each);
      const met = meets(found, target);
      return [{ ...target, found, min: Math.min(...each), max: Math.max(...each), met }];
    });
  }

  /** The names of what was measured, and the cells of each. */
  sections() {
    const sections = new Map();
    for (const cell of this.cells.values()) {
      const { what } = cell;
      if (!sections.has(what)) sections.set(what, []);
      sections.get(what).push(cell);
    }
    const order = Object.keys(CONTENDERS);
    for (const cells of sections.values())
      cells.sort((a, b) => a.atOnce - b.atOnce || order.indexOf(a.who) - order.indexOf(b.who));
    return sections;
  }
}

/** Of a section: a head, and a line for each cell; medians, with the range of the first column. */
export function table(cells) {
  const columns = COLUMNS.filter(([metric]) => cells.some(({ runs }) => runs[0][metric] !== undefined));
  const withCallers = cells.some(({ atOnce }) => atOnce !== '');
  const head = [...(withCallers ? ['at once'] : []), 'client', ...columns.map(([, title]) => title), 'range, a second'];
  const lines = cells.map(({ atOnce, who, steady, runs }) => {
    const values = (metric) => runs.map((figures) => figures[metric]);
    const figures = columns.map(([metric, , decimals]) =>
      runs[0][metric] === undefined ? '' : number(median(values(metric)), decimals),
    );
    const speeds = values('perSecond');
    const range = `${number(Math.min(...speeds), 0)} to ${number(Math.max(...speeds), 0)}`;
    return [...(withCallers ? [number(atOnce, 0)] : []), `${CONTENDERS[who]}${mark(steady)}`, ...figures, range];
  });
  return { head, lines };
}

/** Undefined for what has no bar. */
const meets = (found, { atLeast, atMost }) => {
  if (atLeast !== undefined) return found >= atLeast;
  return atMost === undefined ? undefined : found <= atMost;
};

const bound = ({ atLeast, atMost, unit }) => {
  if (atLeast === undefined && atMost === undefined) return 'no bar';
  const text = (value) => (value <= 0.2 ? `1/${Math.round(1 / value)}` : String(value));
  return `${atLeast !== undefined ? 'at least' : 'at most'} ${text(atLeast ?? atMost)}${unit ? ` ${unit}` : ''}`;
};
const found = (value, { atMost, unit }) => {
  if (unit) return `${number(value, 1)} ${unit}`;
  return atMost !== undefined && value < 0.2 ? `1/${number(1 / value, 0)}` : number(value, 2);
};

const verdict = ({ met, cause }) => {
  if (met === undefined) return '';
  if (met) return 'met';
  return `MISSED: ${cause ?? 'no cause was looked for'}`;
};

export function targetTable(targets) {
  const lines = targets.map((target) => [
    target.what,
    bound(target),
    found(target.found, target),
    `${found(target.min, target)} to ${found(target.max, target)}`,
    verdict(target),
  ]);
  return { head: ['', 'target', 'found', 'range', ''], lines };
}

/** For the screen. */
export function plain({ head, lines }) {
  const all = [head, ...lines];
  const widths = head.map((_, column) => Math.max(...all.map((row) => row[column].length)));
  return all.map((row) =>
    row
      .map((cell, column) =>
        /^[\d(]/.test(lines[0]?.[column] ?? '') ? cell.padStart(widths[column]) : cell.padEnd(widths[column]),
      )
      .join('  ')
      .trimEnd(),
  );
}

export function markdown({ head, lines }) {
  const row = (cells) => `| ${cells.join(' | ')} |`;
  const rule = head.map((_, column) => (/^[\d(]/.test(lines[0]?.[column] ?? '') ? '--:' : '---'));
  return [row(head), row(rule), ...lines.map(row)].join('\n');
}

/** Puts `text` between the markers of a name in a file; `by` is the command that they name. */
export function writeBetween(file, name, text, by = 'make bench-etcd') {
  const [begin, end] = [`<!-- ${name}: begin, written by ${by} -->`, `<!-- ${name}: end -->`];
  const page = readFileSync(file, 'utf8');
  const [from, to] = [page.indexOf(begin), page.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${file} has no place for ${name}: "${begin}" and "${end}"`);
  writeFileSync(file, `${page.slice(0, from + begin.length)}\n\n${text}\n\n${page.slice(to)}`);
}
