/** The report of a fault run, for a terminal of a hundred columns. */

import { type Figures, figures, RULES, type Violation } from './check.js';
import type { Entry } from './history.js';

const WIDTH = 100;
/** Of each rule; the rest is counted. */
const MOST = 10;

export function report(history: readonly Entry[], violations: readonly Violation[]): string {
  const numbers = figures(history);
  const start = numbers.begin?.at ?? history[0]?.at ?? 0;
  return [...heading(numbers), ...done(numbers), ...seen(numbers), ...found(violations, start)].join('\n');
}

function heading({ begin, seconds, processes, starts, killed, crashed, truths }: Figures): string[] {
  const title =
    begin === undefined
      ? 'Fault run without a beginning'
      : `Fault run: seed ${begin.seed}, backend ${begin.backend}, ${Number(begin.minutes.toFixed(2))} min`;
  const deaths = `killed ${times(killed)}, crashed ${times(crashed)}`;
  return [
    title,
    ...wrap(`${seconds.toFixed(1)} s, ${processes} processes started ${times(starts)}, ${deaths}, ${truths} reads.`, 2),
  ];
}

function done({ faults, hiccups }: Figures): string[] {
  const rows = [...faults]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([what, { count, ms }]) => [what, String(count), `${(ms / 1000).toFixed(1)} s in all`]);
  const still =
    hiccups.count === 0 ? [] : [['the machine stood still', String(hiccups.count), milliseconds(hiccups.ms)]];
  return ['', 'What was done', ...table(rows.length + still.length === 0 ? [['nothing']] : [...rows, ...still])];
}

function seen({ registrations, watching, calls, byName, terms, guarded, ids, shared, growth }: Figures): string[] {
  const { count, losses, repairs, reads, judged, events, withdrawn } = registrations;
  const share = reads === 0 ? 0 : Math.round((100 * judged) / reads);
  const { delays } = watching;
  const repaired =
    repairs.count === 0 ? '' : `, median ${milliseconds(repairs.median)}, worst ${milliseconds(repairs.worst)}`;
  const delayed =
    delays.count === 0 ? '' : `, median ${milliseconds(delays.median)}, worst ${milliseconds(delays.worst)}`;
  const told = [...events].map(([event, number]) => `${event} ${number}`).join(', ');
  return [
    '',
    'What was seen',
    ...wrap(
      `Registrations: ${count}, gone from the servers ${times(losses)}, back ${times(repairs.count)}${repaired}.`,
      2,
    ),
    ...wrap(`Judged in ${judged} of ${reads} reads (${share} %), in which nothing harmed their process.`, 2),
    ...wrap(`Withdrawn ${times(withdrawn.count)}, and looked for in ${withdrawn.reads} reads.`, 2),
    ...wrap(`Events of registrations: ${told || 'none'}.`, 2),
    ...wrap(
      `Watchers: ${watching.lists} lists, ${watching.names} of them of the names, stale ${times(watching.stale)}.`,
      2,
    ),
    ...wrap(`Changes told of while nothing harmed the watcher: ${delays.count}${delayed}.`, 2),
    ...table([
      ['calls', 'made', 'failed', 'open', 'median', 'worst'],
      ...[...calls].map(([what, { count, failed, open, median, worst }]) => [
        ...[what, String(count), String(failed), String(open), milliseconds(median), milliseconds(worst)],
      ]),
    ]),
    ...wrap(
      `Calls by name: ${byName.count}, ${byName.judged} of them with no excuse to fail; ${byName.failed} failed.`,
      2,
    ),
    ...[...terms].flatMap(([of, { terms, holders, longestMs }]) =>
      wrap(`${of}: ${terms} terms of ${holders} holders, the longest ${milliseconds(longestMs)}.`, 2),
    ),
    ...(guarded === 0 ? [] : wrap(`Writes under a lock: ${guarded}.`, 2)),
    ...(ids === 0 ? [] : wrap(`Ids: ${ids}.`, 2)),
    ...(shared.snapshots === 0
      ? []
      : wrap(`Configuration: changed ${times(shared.changes)}, and told of ${times(shared.snapshots)}.`, 2)),
    ...[...growth].flatMap(([measure, { who, from, to }]) =>
      wrap(
        `The largest growth of ${MEASURES[measure] ?? measure}: ${Math.round(from)} to ${Math.round(to)}, ${who}.`,
        2,
      ),
    ),
  ];
}

const MEASURES: Readonly<Record<string, string>> = { rssMb: 'memory in MB' };

function found(violations: readonly Violation[], start: number): string[] {
  if (violations.length === 0) return ['', 'No violations'];
  const lines = ['', `${violations.length} ${violations.length === 1 ? 'violation' : 'violations'}`];
  for (const rule of RULES) {
    const some = violations.filter((violation) => violation.rule === rule);
    if (some.length === 0) continue;
    lines.push(`  ${rule}: ${some.length}`);
    for (const { at, who, says } of some.slice(0, MOST)) {
      const head = `${((at - start) / 1000).toFixed(3)} s`.padStart(11);
      const [first = '', ...rest] = wrap(`${who}: ${says}`, 16);
      lines.push(`    ${head} ${first.trimStart()}`, ...rest);
    }
    if (some.length > MOST) lines.push(`    and ${some.length - MOST} more`);
  }
  return lines;
}

const times = (count: number) => (count === 1 ? 'once' : `${count} times`);

function milliseconds(ms: number): string {
  return ms < 10_000 ? `${ms.toFixed(ms < 10 ? 1 : 0)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** The first column stands left, the others right. */
function table(rows: readonly (readonly string[])[]): string[] {
  const columns = Math.max(0, ...rows.map(({ length }) => length));
  const widths = Array.from({ length: columns }, (_, i) => Math.max(...rows.map((row) => (row[i] ?? '').length)));
  return rows.map((row) => {
    const cells = row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)));
    return clip(`  ${cells.join('  ')}`.trimEnd());
  });
}

function clip(line: string): string {
  const text = plain(line);
  return text.length <= WIDTH ? text : `${text.slice(0, WIDTH - 3)}...`;
}

/** What a history holds may come from anywhere: it does not write to the terminal what is no text. */
function plain(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not reach a terminal
  return text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, ' ');
}

/** Lines of at most a hundred columns; a word that is longer than that is broken. */
function wrap(text: string, indent: number): string[] {
  const room = WIDTH - indent;
  const lines: string[] = [];
  let line = '';
  for (const word of plain(text)
    .split(' ')
    .flatMap((word) => word.match(new RegExp(`.{1,${room}}`, 'gsu')) ?? [])) {
    if (line !== '' && line.length + 1 + word.length > room) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line].map((text) => ' '.repeat(indent) + text);
}
