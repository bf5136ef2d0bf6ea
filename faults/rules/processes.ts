/** How the processes behave: `settled`, `flat`, `alive` and `quiet`. */

import { clock, isByName, type Kind, type Life, type Story } from '../story.js';
import type { Violation } from '../violation.js';

/** What an event loop that has other things to do may add to a call. */
const SLACK_MS = 1000;

/** Every call is settled in its time. The time in which its process could do nothing does not count. */
export function settled(story: Story): Violation[] {
  return story.calls.flatMap((call): Violation[] => {
    const { who } = call.life;
    const until = call.settled ?? Math.min(call.life.to, story.end);
    const took = until - call.at - story.mute(who).shared(call.at, Math.max(call.at, until));
    if (took <= call.withinMs + SLACK_MS) return [];
    const what = call.of === '' ? call.what : `${call.what} of ${call.of}`;
    const outcome = call.settled === undefined ? 'is not settled after' : 'was settled after';
    const says = `The ${what} that ${who} called at ${clock(story, call.at)} ${outcome} ${Math.round(took)} ms; ${call.withinMs} ms is its time.`;
    return [{ rule: 'settled', at: call.at, until, who, of: call.of, says }];
  });
}

type Measure = 'rssMb' | 'threads' | 'descriptors';

const MOST: Readonly<Record<Measure, { growth: number; says: string; unit: string }>> = {
  rssMb: { growth: 48, says: 'resident memory', unit: ' MB' },
  threads: { growth: 2, says: 'threads', unit: '' },
  descriptors: { growth: 12, says: 'descriptors', unit: '' },
};
const MEASURES = Object.keys(MOST) as Measure[];
const LEAST_SAMPLES = 6;
/** So many calls by name take what there is to load, and a connection to each instance. */
const LOADED = 100;

/**
 * By how much the largest of the last third is more than the largest of the first. What a process takes while it is being
 * loaded does not count, until it has connected, or made the first calls by name where it makes any, and been looked at once
 * more.
 */
export function growthOf(life: Life): Record<Measure, { from: number; to: number }> | undefined {
  const first = life.calls.filter(isByName)[LOADED] ?? life.calls.find(({ settled }) => settled !== undefined);
  const begun = first?.settled ?? life.told[0]?.at ?? life.from;
  const samples = life.samples.filter(({ at }) => at >= begun);
  if (samples.length < LEAST_SAMPLES) return undefined;
  const third = Math.floor((samples.length - 1) / 3);
  const largest = (some: readonly Kind<'sample'>[], measure: Measure) =>
    some.reduce((most, sample) => Math.max(most, sample[measure]), Number.NEGATIVE_INFINITY);
  const growth = (measure: Measure) => ({
    from: largest(samples.slice(1, 1 + third), measure),
    to: largest(samples.slice(-third), measure),
  });
  return { rssMb: growth('rssMb'), threads: growth('threads'), descriptors: growth('descriptors') };
}

/** Memory, threads and descriptors of those who live for long do not grow. */
export function flat(story: Story): Violation[] {
  return story.lives.flatMap((life) => {
    const growth = growthOf(life);
    if (growth === undefined) return [];
    return MEASURES.flatMap((measure): Violation[] => {
      const { from, to } = growth[measure];
      const { growth: most, says: what, unit } = MOST[measure];
      if (to - from <= most) return [];
      const [first, last] = [life.samples[0] as Kind<'sample'>, life.samples.at(-1) as Kind<'sample'>];
      const says = `The ${what} of ${life.who} grew from ${Math.round(from)} to ${Math.round(to)}${unit} from ${clock(story, first.at)} to ${clock(story, last.at)}; ${most}${unit} is the most.`;
      return [{ rule: 'flat', at: first.at, until: last.at, who: life.who, says }];
    });
  });
}

export function alive(story: Story): Violation[] {
  return story.lives.flatMap(({ who, died }): Violation[] => {
    if (died?.how !== 'crashed') return [];
    const says = `${who} died by itself at ${clock(story, died.at)}: ${died.why ?? 'nobody says why'}.`;
    return [{ rule: 'alive', at: died.at, who, says }];
  });
}

/** How long after it can hear again a process has heard what it missed. */
const TOLD_MS = 1000;

/** What comes of a repair, or of what the program itself does. */
const QUIET: ReadonlySet<string> = new Set(['restored', 'out', 'in']);

/** A registration is lost or stalls only when something harms its process, and is never replaced. */
export function quiet(story: Story): Violation[] {
  return story.lives.flatMap(({ who, told }) =>
    told.flatMap((entry): Violation[] => {
      if (entry.kind !== 'event' || QUIET.has(entry.event)) return [];
      // A process that was mute hears afterwards what happened meanwhile.
      const mute = story.mute(who).stretches.findLast(({ at, until }) => at <= entry.at && until + TOLD_MS >= entry.at);
      if (entry.event !== 'replaced' && story.losses(who).overlaps(mute?.at ?? entry.at, entry.at)) return [];
      const why = entry.reason === undefined ? '' : ` (${entry.reason})`;
      const harm =
        entry.event === 'replaced'
          ? 'which nothing in the run does'
          : 'though nothing harmed it that it need not outlive';
      const says = `The registration ${entry.of} of ${who} was ${entry.event} at ${clock(story, entry.at)}${why}, ${harm}.`;
      return [{ rule: 'quiet', at: entry.at, who, of: entry.of, says }];
    }),
  );
}
