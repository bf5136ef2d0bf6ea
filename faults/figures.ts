/** What a run did and saw, in numbers: for the report, not for the judgement. */

import { type Begin, type Entry, THE_NAMES, type Time } from './history.js';
import { byName, withoutExcuse } from './rules/called.js';
import { readersOf } from './rules/config.js';
import { termsOf } from './rules/one-holder.js';
import { growthOf } from './rules/processes.js';
import { absences } from './rules/registrations.js';
import { type Call, type Life, of, type Story, storyOf, succeeded, truthsWithin } from './story.js';
import { firstIndex } from './windows.js';

export interface Spread {
  readonly count: number;
  readonly median: number;
  readonly worst: number;
}

export interface Figures {
  readonly begin?: Begin;
  readonly seconds: number;
  readonly processes: number;
  readonly starts: number;
  readonly killed: number;
  readonly crashed: number;
  readonly truths: number;
  /** By what was done: how often, and for how many milliseconds in all. */
  readonly faults: ReadonlyMap<string, { readonly count: number; readonly ms: number }>;
  readonly hiccups: { readonly count: number; readonly ms: number };
  readonly registrations: {
    readonly count: number;
    /** Stretches in which the servers did not hold a registered instance. */
    readonly losses: number;
    /** How long after the end of the last fault, or after the loss if there was none, it was back. */
    readonly repairs: Spread;
    /** Every read of every registered instance, and how many of them were outside the windows of its process. */
    readonly reads: number;
    readonly judged: number;
    readonly events: ReadonlyMap<string, number>;
    /** How often one had to be out, and the reads in which that was looked at. */
    readonly withdrawn: { readonly count: number; readonly reads: number };
  };
  readonly watching: {
    readonly lists: number;
    /** Those of them that are of the names. */
    readonly names: number;
    readonly stale: number;
    /** From a settled `register()` or `update()` to the list that has it, while nothing harmed the watcher. */
    readonly delays: Spread;
  };
  readonly calls: ReadonlyMap<
    string,
    {
      readonly count: number;
      readonly failed: number;
      readonly open: number;
      readonly median: number;
      readonly worst: number;
    }
  >;
  /** Calls by name: those that were over before the end, those that had no excuse to fail, and those that failed. */
  readonly byName: { readonly count: number; readonly judged: number; readonly failed: number };
  /** By lock or election. */
  readonly terms: ReadonlyMap<string, { readonly terms: number; readonly holders: number; readonly longestMs: number }>;
  /** Writes under a lock that were made for certain. */
  readonly guarded: number;
  /** Ids that were made. */
  readonly ids: number;
  /** What readers of configuration told, and how often it was changed for certain. */
  readonly shared: { readonly snapshots: number; readonly changes: number };
  /** The process that grew the most, of those that were sampled often enough. */
  readonly growth: ReadonlyMap<string, { readonly who: string; readonly from: number; readonly to: number }>;
}

const counted = (runs: readonly (readonly [string, number])[]): number =>
  runs.reduce((sum, [, count]) => sum + count, 0);

export function figures(history: readonly Entry[]): Figures {
  const begin = of(history, 'begin')[0];
  const story = storyOf(begin === undefined ? [{ ...NO_BEGIN, at: history[0]?.at ?? 0 }, ...history] : history);
  const told = story.lives.flatMap((life) => life.told);
  return {
    begin,
    seconds: (story.end - story.begin.at) / 1000,
    processes: new Set(story.lives.map(({ who }) => who)).size,
    starts: story.lives.length,
    killed: story.lives.filter(({ died }) => died?.how === 'killed').length,
    crashed: story.lives.filter(({ died }) => died?.how === 'crashed').length,
    truths: story.truths.length,
    faults: faultsOf(story),
    hiccups: { count: story.hiccups.length, ms: sum(story.hiccups.map(({ at, until }) => until - at)) },
    registrations: {
      count: story.registrations.length,
      ...repairsOf(story),
      withdrawn: withdrawnOf(story),
      events: countOf(told.flatMap((entry) => (entry.kind === 'event' ? [entry.event] : []))),
    },
    watching: {
      lists: told.filter(({ kind }) => kind === 'list').length,
      names: told.filter((entry) => entry.kind === 'list' && entry.name === THE_NAMES).length,
      stale: told.filter(({ kind }) => kind === 'stale').length,
      delays: spread(story.lives.flatMap((life) => delaysOf(story, life))),
    },
    calls: callsOf(story),
    byName: byNameOf(story),
    terms: holdersOf(story),
    ids: told.reduce((sum, entry) => sum + (entry.kind === 'ids' ? counted(entry.runs) : 0), 0),
    guarded: told.filter(({ kind }) => kind === 'wrote').length,
    shared: {
      snapshots: sum(readersOf(story).map((reader) => reader.told.length)),
      changes: story.calls.filter((call) => call.what === 'set' && succeeded(call)).length,
    },
    growth: growthsOf(story),
  };
}

/** For a history that is cut short at its front. */
const NO_BEGIN: Begin = {
  ...{ kind: 'begin', at: 0, seed: 0, backend: 'etcd', minutes: 0 },
  ...{ ttlMs: 0, repairMs: 0, removalMs: 0, deliveryMs: 0, staleMs: 0 },
};

const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0);

function spread(numbers: readonly number[]): Spread {
  const sorted = [...numbers].sort((a, b) => a - b);
  return { count: sorted.length, median: sorted[sorted.length >> 1] ?? 0, worst: sorted.at(-1) ?? 0 };
}

function countOf(words: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  return counts;
}

function faultsOf(story: Story): Figures['faults'] {
  const faults = new Map<string, { count: number; ms: number }>();
  for (const { what, at, until } of story.faults) {
    const { count, ms } = faults.get(what) ?? { count: 0, ms: 0 };
    faults.set(what, { count: count + 1, ms: ms + until - at });
  }
  return faults;
}

function repairsOf(story: Story): Pick<Figures['registrations'], 'losses' | 'repairs' | 'reads' | 'judged'> {
  let [losses, reads, judged] = [0, 0, 0];
  const repairs: number[] = [];
  for (const { of, life, from, to } of story.registrations) {
    let lost: Time | undefined;
    const windows = story.losses(life.who);
    for (const { at, until, numbers } of truthsWithin(story, from, to)) {
      reads++;
      if (!windows.overlaps(at, until)) judged++;
      if (!numbers.has(of)) {
        if (lost === undefined) losses++;
        lost ??= at;
      } else if (lost !== undefined) {
        const healed = story.faults.filter((fault) => fault.at <= at && fault.touches.includes(life.who));
        const since = healed.length === 0 ? lost : Math.max(...healed.map(({ until }) => until));
        repairs.push(Math.max(0, at - since));
        lost = undefined;
      }
    }
  }
  return { losses, repairs: spread(repairs), reads, judged };
}

function withdrawnOf(story: Story): Figures['registrations']['withdrawn'] {
  const reads = absences(story).map(({ from, to }) => truthsWithin(story, from, to).length);
  return { count: reads.length, reads: sum(reads) };
}

/** The calls of an instance whose outcome others see at once: an update of one that is withdrawn is kept for its return. */
function shown(calls: readonly Call[]): Call[] {
  let out = false;
  return calls.filter(({ what }) => {
    if (what !== 'update') out = what === 'withdraw';
    return what !== 'update' || !out;
  });
}

/** How long each write took until this process told of it; nothing of a write that met a window. */
function delaysOf(story: Story, life: Life): number[] {
  const windows = story.windows(life.who);
  // When the number of each instance first grew to at least so much, and since when its name was told of at all.
  const seen = new Map<string, { since: Time; steps: { at: Time; number: number }[] }>();
  const since = new Map<string, Time>();
  for (const entry of life.told) {
    if (entry.kind !== 'list') continue;
    since.set(entry.name, since.get(entry.name) ?? entry.at);
    for (const [id, number] of Object.entries(entry.list)) {
      const known = seen.get(id) ?? { since: since.get(entry.name) as Time, steps: [] };
      seen.set(id, known);
      const { steps } = known;
      if (number > (steps.at(-1)?.number ?? Number.NEGATIVE_INFINITY)) steps.push({ at: entry.at, number });
    }
  }
  return [...seen].flatMap(([id, { since, steps }]) =>
    shown(story.instances.get(id) ?? []).flatMap(({ what, n, settled, error }) => {
      if (what === 'deregister' || n === undefined || settled === undefined || error !== undefined) return [];
      const step = steps[firstIndex(steps, ({ number }) => number >= n)];
      // What was written before the first list is no change to the watcher.
      if (step === undefined || settled < since || windows.overlaps(settled, step.at)) return [];
      return [Math.max(0, step.at - settled)];
    }),
  );
}

function callsOf(story: Story): Figures['calls'] {
  const kinds = new Map<string, Call[]>();
  for (const call of story.calls) {
    const earlier = kinds.get(call.what);
    if (earlier === undefined) kinds.set(call.what, [call]);
    else earlier.push(call);
  }
  const took = ({ at, life, settled }: Call) =>
    settled === undefined ? [] : [settled - at - story.mute(life.who).shared(at, settled)];
  return new Map(
    [...kinds].map(([what, calls]) => {
      const { median, worst } = spread(calls.flatMap(took));
      const failed = calls.filter(({ error }) => error !== undefined).length;
      const open = calls.filter(({ settled }) => settled === undefined).length;
      return [what, { count: calls.length, failed, open, median, worst }];
    }),
  );
}

function byNameOf(story: Story): Figures['byName'] {
  const calls = byName(story);
  const failed = calls.filter(({ error }) => error !== undefined).length;
  return { count: calls.length, judged: withoutExcuse(story), failed };
}

function holdersOf(story: Story): Figures['terms'] {
  return new Map(
    [...termsOf(story)].map(([of, terms]) => {
      const holders = new Set(terms.map(({ who }) => who)).size;
      return [
        of,
        { terms: terms.length, holders, longestMs: Math.max(...terms.map(({ held, until }) => until - held)) },
      ];
    }),
  );
}

function growthsOf(story: Story): Figures['growth'] {
  const most = new Map<string, { who: string; from: number; to: number }>();
  for (const life of story.lives) {
    for (const [measure, { from, to }] of Object.entries(growthOf(life) ?? {})) {
      const worst = most.get(measure);
      if (worst === undefined || to - from > worst.to - worst.from) most.set(measure, { who: life.who, from, to });
    }
  }
  return most;
}
