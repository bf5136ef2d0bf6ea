/** One line for each of several runs, as a table of Markdown: what was done, what was seen, what was violated. */
import { figures, type Violation } from './check.js';
import type { Entry } from './history.js';

export interface Judged {
  readonly history: readonly Entry[];
  readonly violations: readonly Violation[];
}

const HEAD = [
  ['', 'seed', 'faults', 'processes killed', 'registrations judged', 'gone and back', 'worst repair'],
  [
    'out of traffic',
    'lists',
    'lists of names',
    'terms of locks and elections',
    'writes under a lock',
    'ids',
    'changes of configuration',
    'told',
    'calls',
    'calls by name judged',
    'violations',
  ],
].flat();

export function summary(runs: readonly Judged[]): string {
  const rows = runs.map(({ history, violations }) => {
    const { begin, faults, killed, registrations, watching, calls, byName, terms, guarded, ids, shared } =
      figures(history);
    const { reads, judged, losses, repairs } = registrations;
    const sum = (numbers: Iterable<{ count?: number; terms?: number }>): number =>
      [...numbers].reduce((total, { count, terms }) => total + (count ?? terms ?? 0), 0);
    return [
      ...[begin?.backend ?? '', begin?.seed ?? '', sum(faults.values()), killed],
      ...[`${judged} of ${reads} reads`, losses, repairs.count === 0 ? '' : `${(repairs.worst / 1000).toFixed(1)} s`],
      ...[registrations.withdrawn.count, watching.lists, watching.names],
      ...[sum(terms.values()) || '', guarded || '', ids || '', shared.changes || '', shared.snapshots || ''],
      ...[sum(calls.values()), `${byName.judged} of ${byName.count}`, violations.length],
    ];
  });
  return [HEAD, HEAD.map((_, i) => (i === 0 ? '---' : '--:')), ...rows]
    .map((row) => `| ${row.join(' | ')} |`)
    .join('\n');
}
