/**
 * What readers of a configuration tell. Its keys are changed together, each to the same number, which grows from change to
 * change: no reader sees some of a change, or goes back, or misses what was written without saying that it may.
 */

import type { Time } from '../history.js';
import { type Call, clock, type Kind, type Life, type Story, succeeded } from '../story.js';
import type { Violation } from '../violation.js';
import { firstIndex } from '../windows.js';

type Seen = Kind<'config'>;

/** What one process tells of one configuration, in order. */
interface Reader {
  readonly life: Life;
  readonly of: string;
  readonly told: Seen[];
}

export function config(story: Story): Violation[] {
  const readers = readersOf(story);
  const writes = writesOf(story);
  const wrong = [...readers.flatMap((reader) => [...mixed(story, reader), ...back(story, reader)]), ...reset(story)];
  return [
    ...wrong,
    // Told of once.
    ...(wrong.length > 0 ? [] : disagreeing(readers)),
    ...readers.flatMap((reader) => late(story, reader, writes.get(reader.of) ?? [])),
    ...unopened(story),
  ];
}

export function readersOf(story: Story): Reader[] {
  return story.lives.flatMap((life) => {
    const readers = new Map<string, Reader>();
    for (const entry of life.told) {
      if (entry.kind !== 'config') continue;
      const reader = readers.get(entry.of) ?? { life, of: entry.of, told: [] };
      reader.told.push(entry);
      readers.set(entry.of, reader);
    }
    return [...readers.values()];
  });
}

/** The changes that were made for certain, in the order in which that was known. */
function writesOf(story: Story): Map<string, Call[]> {
  const writes = new Map<string, Call[]>();
  for (const call of story.calls) {
    if (call.what !== 'set' || !succeeded(call)) continue;
    const earlier = writes.get(call.of);
    if (earlier === undefined) writes.set(call.of, [call]);
    else earlier.push(call);
  }
  for (const list of writes.values()) list.sort((a, b) => (a.settled as Time) - (b.settled as Time));
  return writes;
}

const numberOf = ({ values }: Seen): number => values[0] ?? Number.NEGATIVE_INFINITY;

function mixed(story: Story, { life: { who }, of, told }: Reader): Violation[] {
  return told.flatMap((entry): Violation[] => {
    if (entry.values.every((value) => value === entry.values[0])) return [];
    const says = `${who} saw some of a change of ${of} at ${clock(story, entry.at)}: its keys are ${entry.values.join(', ')}.`;
    return [{ rule: 'config', at: entry.at, who, of, says }];
  });
}

function back(story: Story, { life: { who }, of, told }: Reader): Violation[] {
  return told.flatMap((entry, i): Violation[] => {
    const before = told[i - 1];
    if (before === undefined) return [];
    const falls = entry.revision < before.revision || numberOf(entry) < numberOf(before);
    if (!falls) return [];
    const shown = (one: Seen) => `${numberOf(one)} of revision ${one.revision}`;
    const says = `${who} saw ${of} go back at ${clock(story, entry.at)}: to ${shown(entry)}, after ${shown(before)}.`;
    return [{ rule: 'config', at: entry.at, who, of, says }];
  });
}

/** Nothing in a run sets a store back. */
function reset(story: Story): Violation[] {
  return story.lives.flatMap(({ who, told }) =>
    told.flatMap((entry): Violation[] => {
      if (entry.kind !== 'reset') return [];
      const says = `${who} was told at ${clock(story, entry.at)} that the store of ${entry.of} was set back, which nothing in the run does.`;
      return [{ rule: 'config', at: entry.at, who, of: entry.of, says }];
    }),
  );
}

/** A revision is the same for all readers: of two that they saw, the later one has no smaller number. */
function disagreeing(readers: readonly Reader[]): Violation[] {
  const seen = readers.flatMap(({ told }) => told).sort((a, b) => a.revision - b.revision || numberOf(a) - numberOf(b));
  for (const of of new Set(seen.map((entry) => entry.of))) {
    let most: Seen | undefined;
    for (const entry of seen) {
      if (entry.of !== of) continue;
      if (most !== undefined && numberOf(entry) < numberOf(most)) {
        const { at, who } = entry;
        const says = `${who} saw ${numberOf(entry)} of ${of} at revision ${entry.revision}, and ${most.who} ${numberOf(most)} at revision ${most.revision}.`;
        return [{ rule: 'config', at, who, of, says }];
      }
      most = entry;
    }
  }
  return [];
}

/**
 * What was written is seen within its time, unless the reader says that it may be out of date: by one that nothing harms as soon
 * as a change is delivered, by another as soon as an outage is found at the latest. Who opens it later finds it. Told once for
 * each reader.
 */
function late(story: Story, { life, of, told }: Reader, writes: readonly Call[]): Violation[] {
  const { begin } = story;
  const { who } = life;
  const [windows, mute] = [story.windows(who), story.mute(who)];
  const viewAt = (time: Time) => told[firstIndex(told, ({ at }) => at > time) - 1];
  const [first] = told as [Seen];
  for (const { settled, n } of writes) {
    if (settled === undefined || n === undefined) continue;
    const from = Math.max(settled, first.at);
    const harmed = windows.overlaps(from - begin.deliveryMs, from + begin.deliveryMs);
    const bound = harmed ? begin.staleMs : begin.deliveryMs;
    const until = from + bound;
    if (until > Math.min(life.to, story.end)) break; // it died, or the run ended, before it had to
    const view = viewAt(until) as Seen;
    if (view.stale || numberOf(view) >= n || mute.overlaps(from, until)) continue;
    const says = `${who} has ${of} at ${numberOf(view)} at ${clock(story, until)} and does not call it stale, though ${n} was written by ${clock(story, settled)}: ${bound} ms is its time.`;
    return [{ rule: 'config', at: from, until, who, of, says }];
  }
  const last = told.at(-1) as Seen;
  if (story.calm === undefined || first.at > story.calm || life.to < story.end || !viewAt(story.end)?.stale) return [];
  const says = `${who} still calls ${of} stale at the end.`;
  return [{ rule: 'config', at: last.at, until: story.end, who, of, says }];
}

/** Who opens a configuration while all is well, or long enough before it, has it. */
function unopened(story: Story): Violation[] {
  return story.lives.flatMap((life): Violation[] => {
    const { who, from, to, calls, told } = life;
    const open = calls.find(({ what }) => what === 'open');
    if (open === undefined || told.some(({ kind }) => kind === 'config')) return [];
    if (story.calm === undefined || from > story.calm - story.begin.repairMs || to < story.end) return [];
    const says = `${who} has not opened ${open.of} since ${clock(story, open.at)}.`;
    return [{ rule: 'config', at: open.at, until: story.end, who, of: open.of, says }];
  });
}
