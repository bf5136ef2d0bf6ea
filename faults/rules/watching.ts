/** What watchers tell: they never end, never go back in time, say when they may be out of date, and end with the truth. */

import { type Listed, THE_NAMES, type Time } from '../history.js';
import { clock, type Kind, keyOf, type Life, type Story } from '../story.js';
import type { Violation } from '../violation.js';
import { firstIndex } from '../windows.js';

/** What one watching process tells of one name, in order. */
export interface Channel {
  readonly life: Life;
  readonly name: string;
  readonly told: Kind<'list' | 'stale' | 'fresh'>[];
}

/** What a watcher says at a moment: its latest list, when it came, and whether the watcher calls it stale. */
export interface View {
  readonly list?: Listed;
  readonly since: Time;
  readonly stale: boolean;
}

const WRITES: ReadonlySet<string> = new Set(['register', 'update', 'withdraw', 'restore', 'deregister']);
export const NOTHING: View = { since: Number.NEGATIVE_INFINITY, stale: false };

export function watching(story: Story): Violation[] {
  const channels = channelsOf(story);
  const wrong = channels.map((channel) => flagged(story, channel));
  const late = new Set(wrong.filter(({ lasts }) => lasts).map(({ channel }) => channel));
  return [
    ...ended(story),
    ...channels.flatMap((channel) => backInTime(story, channel)),
    ...wrong.flatMap(({ found }) => found),
    // One that was wrong for too long and is so at the end is told of once.
    ...final(
      story,
      channels.filter((channel) => !late.has(channel)),
    ),
    ...silent(story, channels),
  ];
}

export function channelsOf(story: Story): Channel[] {
  return story.lives.flatMap((life) => {
    const channels = new Map<string, Channel>();
    for (const entry of life.told) {
      if (entry.kind !== 'list' && entry.kind !== 'stale' && entry.kind !== 'fresh') continue;
      const channel = channels.get(entry.name) ?? { life, name: entry.name, told: [] };
      channel.told.push(entry);
      channels.set(entry.name, channel);
    }
    return [...channels.values()];
  });
}

export function next(view: View, entry: Channel['told'][number]): View {
  if (entry.kind === 'list') return { list: entry.list, since: entry.at, stale: entry.stale };
  return { ...view, stale: entry.kind === 'stale' };
}

function viewAt({ told }: Channel, time: Time): View {
  return told
    .slice(
      0,
      firstIndex(told, ({ at }) => at > time),
    )
    .reduce(next, NOTHING);
}

function ended(story: Story): Violation[] {
  return story.lives.flatMap(({ who, told }) =>
    told.flatMap((entry): Violation[] => {
      if (entry.kind !== 'ended' || entry.at >= story.end) return [];
      const why = entry.error === undefined ? 'without an error' : `with ${entry.error}`;
      const says = `The watcher of ${entry.name} of ${who} ended at ${clock(story, entry.at)} ${why}.`;
      return [{ rule: 'watching', at: entry.at, who, of: entry.name, says }];
    }),
  );
}

/** The numbers of an instance never fall from list to list, however often it is absent in between. (How many a name has may.) */
function backInTime(story: Story, { life: { who }, name, told }: Channel): Violation[] {
  if (name === THE_NAMES) return [];
  const numbers = new Map<string, { number: number; at: Time }>();
  const found: Violation[] = [];
  for (const entry of told) {
    if (entry.kind !== 'list') continue;
    for (const [id, number] of Object.entries(entry.list)) {
      const before = numbers.get(id);
      if (before !== undefined && number < before.number) {
        const says = `${who} told of ${id} with number ${number} at ${clock(story, entry.at)}, after ${before.number} at ${clock(story, before.at)}.`;
        found.push({ rule: 'watching', at: entry.at, who, of: name, says });
      }
      numbers.set(id, { number, at: entry.at });
    }
  }
  return found;
}

/**
 * A watcher that differs from what the servers have held for long enough says that it may be out of date.
 *
 * Between two reads, a fault may take an instance away and give it back: while anybody may be harmed, only a list that is
 * old enough itself counts as wrong.
 */
function flagged(story: Story, channel: Channel): { channel: Channel; found: Violation[]; lasts: boolean } {
  const { life, name, told } = channel;
  const { truths, begin } = story;
  const [windows, mute] = [story.windows(life.who), story.mute(life.who)];
  const found: Violation[] = [];
  let wrong: { at: Time; until: Time; bound: Time; view: View; truth: Listed | undefined } | undefined;
  const close = (lasts = false) => {
    if (wrong === undefined) return;
    const { at, until, bound, view, truth } = wrong;
    const [first, last] = [clock(story, at), lasts ? 'the end' : clock(story, until)];
    const says = `${life.who} tells a wrong list of ${name} from ${first} to ${last} and does not call it stale, though the servers had held theirs for ${bound} ms: ${difference(view.list, truth)}.`;
    found.push({ rule: 'watching', at, until, who: life.who, of: name, says });
    wrong = undefined;
  };
  let view = NOTHING;
  let [heard, steady] = [0, 0]; // what was told so far; the first truth of those that are the same up to now
  for (const [index, { at, until, names }] of truths.entries()) {
    for (; heard < told.length && (told[heard] as Channel['told'][number]).at <= at; heard++) {
      view = next(view, told[heard] as Channel['told'][number]);
    }
    const key = keyOf(names[name]);
    if (key !== keyOf(truths[steady]?.names[name])) steady = index;
    if (until > life.to) break;
    if (at < life.from || view.list === undefined) continue;
    if (view.stale || keyOf(view.list) === key) {
      close();
      continue;
    }
    const harmed = windows.overlaps(at - begin.deliveryMs, until);
    const bound = harmed ? begin.staleMs : begin.deliveryMs;
    if ((truths[steady] as { until: Time }).until > at - bound) continue;
    if (story.anyWindows.overlaps(at - bound, until) && view.since > at - bound) continue;
    if (mute.overlaps(at - bound, until)) continue;
    if (wrong === undefined) wrong = { at, until, bound, view, truth: names[name] };
    else wrong.until = until;
  }
  const lasts = wrong !== undefined && wrong.until === truths.at(-1)?.until;
  close(lasts);
  return { channel, found, lasts };
}

/** Those who live to the last read in the calm have told the same by then, or until the end. */
function final(story: Story, channels: readonly Channel[]): Violation[] {
  const truth = lastTruth(story);
  if (truth === undefined) return [];
  return channels.flatMap((channel): Violation[] => {
    const { life, name } = channel;
    if (life.from > truth.at || life.to < truth.until) return [];
    const views = [closing(story, truth.until), story.end].map((time) => viewAt(channel, time));
    const held = truth.names[name];
    if (views.some(({ list, stale }) => !stale && keyOf(list) === keyOf(held))) return [];
    const view = views.at(-1) as View;
    const says = view.stale
      ? `${life.who} still calls its list of ${name} stale at the end: ${difference(view.list, held)}.`
      : `${life.who} ends with a list of ${name} that is not the servers': ${difference(view.list, held)}.`;
    return [{ rule: 'watching', at: truth.at, who: life.who, of: name, says }];
  });
}

/** Who watches at all, and lived long enough before the end, has told a list of every name that there is. */
function silent(story: Story, channels: readonly Channel[]): Violation[] {
  const truth = lastTruth(story);
  if (truth === undefined) return [];
  const lists = channels.filter(({ told }) => told.some(({ kind }) => kind === 'list'));
  const watchers = new Set(channels.map(({ life }) => life.who));
  const known = new Map<Life, Set<string>>();
  for (const { life, name } of lists) known.set(life, (known.get(life) ?? new Set()).add(name));
  return story.lives
    .filter(({ who, from, to }) => watchers.has(who) && to >= truth.until && from <= truth.at - story.begin.repairMs)
    .flatMap((life) =>
      Object.entries(truth.names)
        .filter(([name, list]) => keyOf(list) !== '' && !known.get(life)?.has(name))
        .map(([name]): Violation => {
          const lived = Math.round(truth.at - life.from);
          const says = `${life.who} told no list of ${name} in ${lived} ms, though the servers hold one.`;
          return { rule: 'watching', at: life.from, until: truth.until, who: life.who, of: name, says };
        }),
    );
}

function lastTruth(story: Story) {
  const last = story.truths.at(-1);
  return last !== undefined && story.calm !== undefined && last.at >= story.calm ? last : undefined;
}

/** When something changed again after the last read: those who leave take their registrations with them. */
function closing(story: Story, truth: Time): Time {
  const write = story.calls.find(({ at, what }) => at > truth && WRITES.has(what));
  const deaths = story.lives.filter(({ to }) => to > truth).map(({ to }) => to);
  return Math.min(story.end, write?.at ?? story.end, ...deaths);
}

/** At most three instances in which a list differs from the truth. */
function difference(list: Listed | undefined, truth: Listed = {}): string {
  if (list === undefined) return 'it told no list';
  const wrong = [...new Set([...Object.keys(list), ...Object.keys(truth)])].filter((id) => list[id] !== truth[id]);
  const number = (of: Listed, id: string) => (of[id] === undefined ? 'absent' : String(of[id]));
  const texts = wrong.slice(0, 3).map((id) => `${id} is ${number(list, id)}, not ${number(truth, id)}`);
  const rest = wrong.length > texts.length ? ` and ${wrong.length - texts.length} more` : '';
  return wrong.length === 0 ? 'it is the same list' : `${texts.join(', ')}${rest}`;
}
