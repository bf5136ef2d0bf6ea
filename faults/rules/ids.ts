/** No id is made twice, by whoever it is. */

import type { Time } from '../history.js';
import { clock, type Story } from '../story.js';
import type { Violation } from '../violation.js';

/** Ids that follow each other. */
interface Run {
  readonly first: bigint;
  readonly last: bigint;
  readonly at: Time;
  readonly who: string;
}

export function ids(story: Story): Violation[] {
  const byService = new Map<string, Run[]>();
  for (const entry of story.lives.flatMap(({ told }) => told)) {
    if (entry.kind !== 'ids') continue;
    const { of, at, who } = entry;
    const runs = byService.get(of) ?? [];
    byService.set(of, runs);
    for (const [text, count] of entry.runs) {
      const first = BigInt(text);
      runs.push({ first, last: first + BigInt(count) - 1n, at, who });
    }
  }
  return [...byService].flatMap(([of, runs]) => twice(story, of, runs));
}

/** In order, each run begins after the end of all before it. */
function twice(story: Story, of: string, runs: readonly Run[]): Violation[] {
  let before: Run | undefined;
  const found: Violation[] = [];
  for (const run of runs.toSorted((a, b) => (a.first < b.first ? -1 : 1))) {
    if (before !== undefined && run.first <= before.last) {
      const [earlier, later] = before.at <= run.at ? [before, run] : [run, before];
      const says = `${of}: ${later.who} made the id ${run.first} at ${clock(story, later.at)}, as ${earlier.who} had at ${clock(story, earlier.at)}.`;
      found.push({ rule: 'ids', at: later.at, who: later.who, of, says });
    }
    if (before === undefined || run.last > before.last) before = run;
  }
  return found;
}
