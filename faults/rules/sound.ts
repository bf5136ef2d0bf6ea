/** The history itself: one that is empty, cut short or out of order proves nothing, so it never passes. */

import type { Entry } from '../history.js';
import { isTold, of, type Story, storyOf, truthsWithin } from '../story.js';
import type { Violation } from '../violation.js';
import { judgesCalls } from './called.js';

const LEAST_TRUTHS = 20;
const THE_RUN = 'the run';

/** What forbids to read the history at all; empty if it can be read. */
export function unreadable(history: readonly Entry[]): Violation[] {
  const says = (text: string): Violation[] => [{ rule: 'sound', at: history[0]?.at ?? 0, who: THE_RUN, says: text }];
  if (history.length === 0) return says('The history is empty.');
  const timeless = history.filter((entry) => !Number.isFinite(entry.at));
  if (timeless.length > 0) {
    return says(`${timeless.length} of ${history.length} entries have no time; the first is a ${timeless[0]?.kind}.`);
  }
  const begins = of(history, 'begin').length;
  if (begins !== 1) return says(`The history has ${history.length} entries and ${begins} of them begin it, not 1.`);
  return [];
}

export function sound(history: readonly Entry[], story: Story = storyOf(history)): Violation[] {
  return [...whole(story), ...processes(story), ...order(history)];
}

function whole(story: Story): Violation[] {
  const found: Violation[] = [];
  const { begin, calm, end, ended, truths } = story;
  const says = (text: string) => found.push({ rule: 'sound', at: end, who: THE_RUN, says: text });
  const inverted = [...story.faults, ...story.hiccups, ...truths].filter(({ at, until }) => !(until >= at));
  if (inverted.length > 0) says(`${inverted.length} faults, hiccups or reads end before they begin.`);
  if (!ended) says(`The history has no end: its last entry is ${Math.round(end - begin.at)} ms after the start.`);
  if (truths.length < LEAST_TRUTHS) {
    says(`The servers were read ${truths.length} times, which is too seldom to judge; ${LEAST_TRUTHS} is the least.`);
  }
  if (story.registrations.length > 0 && !judgesAny(story)) {
    says('Every read of every registration was excused by a fault: the run has judged nothing. Make it longer.');
  }
  if (!judgesCalls(story)) says('Every call by name was excused by a fault: the run has judged none. Make it longer.');
  if (calm === undefined) says('The run never became calm.');
  else if (calm < begin.at || calm > end) says('The calm is not between the start and the end.');
  else if (truths.length > 0 && !truths.some(({ at }) => at >= calm)) says('The servers were not read in the calm.');
  return found;
}

function judgesAny(story: Story): boolean {
  return story.registrations.some(({ life, from, to }) => {
    const windows = story.losses(life.who);
    return truthsWithin(story, from, to).some(({ at, until }) => !windows.overlaps(at, until));
  });
}

function processes(story: Story): Violation[] {
  const found: Violation[] = [];
  const tells = new Set(story.lives.filter(({ told }) => told.length > 0).map(({ who }) => who));
  const silent = new Set<string>();
  if (story.lives.length === 0) {
    found.push({ rule: 'sound', at: story.begin.at, who: THE_RUN, says: 'No process was started.' });
  }
  for (const life of story.lives) {
    const { who, from, to, told } = life;
    const says = (text: string) => found.push({ rule: 'sound', at: from, who, says: text });
    if (!life.started) says(`${who} tells something, but nobody started it.`);
    // A life may be too short to tell anything; not one that saw the calm.
    const calm = to >= (story.calm ?? story.end);
    if (told.length === 0 && (calm || !tells.has(who)) && !silent.has(who)) {
      silent.add(who);
      says(`${who} was started and told nothing in ${Math.round(to - from)} ms.`);
    }
    const ids = new Set(life.calls.map(({ id }) => id));
    const orphans = told.filter((entry) => entry.kind === 'settled' && !ids.has(entry.id)).length;
    if (orphans > 0) says(`${who} says of ${orphans} calls that they were settled, but not that they began.`);
  }
  return found;
}

/** The times of one process never fall: a look at a lock is written when it ends and bears the time of its beginning. */
function order(history: readonly Entry[]): Violation[] {
  const found = new Map<string, Violation>();
  const latest = new Map<string, number>();
  for (const entry of history) {
    if (!isTold(entry) || entry.kind === 'held' || entry.kind === 'holding') continue;
    const { at, who } = entry;
    const before = latest.get(who) ?? at;
    if (at < before && !found.has(who)) {
      const says = `The time of ${who} falls by ${(before - at).toFixed(1)} ms at its ${entry.kind}.`;
      found.set(who, { rule: 'sound', at, who, says });
    }
    latest.set(who, Math.max(before, at));
  }
  return [...found.values()];
}
