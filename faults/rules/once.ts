/**
 * What is done once. A run after another one that was to be the only one is a takeover, and has the next number: none is there twice, so
 * there are no more runs than takeovers and one. And nobody is given the result of a run after a later one had begun: the late end of
 * a runner that was stopped is not recorded.
 */

import { clock, type Kind, type Story } from '../story.js';
import type { Violation } from '../violation.js';

type Ran = Kind<'ran'>;

export function once(story: Story): Violation[] {
  const told = story.lives.flatMap(({ told }) => told);
  const runs = new Map<string, Ran[]>();
  for (const entry of told) {
    if (entry.kind !== 'ran') continue;
    const earlier = runs.get(entry.of);
    if (earlier === undefined) runs.set(entry.of, [entry]);
    else earlier.push(entry);
  }
  for (const list of runs.values()) list.sort((a, b) => a.token - b.token);
  return [...[...runs].flatMap(([of, list]) => twice(story, of, list)), ...late(story, runs, told)];
}

function twice(story: Story, of: string, runs: readonly Ran[]): Violation[] {
  return runs.slice(1).flatMap((run, i): Violation[] => {
    const before = runs[i] as Ran;
    if (run.attempt > before.attempt && run.token > before.token) return [];
    const says = `${run.who} ran ${of} at ${clock(story, run.at)} as attempt ${run.attempt} with token ${run.token}, though ${before.who} had run it as attempt ${before.attempt} with token ${before.token} at ${clock(story, before.at)}.`;
    return [{ rule: 'once', at: run.at, who: run.who, of, says }];
  });
}

/** Told once for each job. */
function late(
  story: Story,
  runs: ReadonlyMap<string, readonly Ran[]>,
  told: Story['lives'][number]['told'],
): Violation[] {
  const found = new Map<string, Violation>();
  for (const entry of told) {
    if (entry.kind !== 'did' || found.has(entry.of)) continue;
    const { of, at, who, token } = entry;
    const last = runs.get(of)?.at(-1);
    if (last === undefined || token === last.token) continue;
    const says = `${who} was given the result of token ${token} of ${of} at ${clock(story, at)}, though ${last.who} ran it with token ${last.token} at ${clock(story, last.at)}.`;
    found.set(of, { rule: 'once', at, who, of, says });
  }
  return [...found.values()];
}
