/**
 * A history put in order: who lived when, which call was settled when, what the servers held. Every rule reads this.
 *
 * A life of a process begins with `started`; what the process tells before the next `started` belongs to it.
 */

import {
  type Begin,
  type Conducted,
  type Entry,
  type Fault,
  type Listed,
  THE_NAMES,
  type Time,
  type Told,
} from './history.js';
import { firstIndex, type Stretch, Windows } from './windows.js';

export type Kind<K extends Entry['kind']> = Extract<Entry, { kind: K }>;
export type Named = Extract<Conducted, { who: string }> | Told;

export interface Life {
  readonly who: string;
  readonly from: Time;
  /** When it died, or the end of the run. */
  readonly to: Time;
  readonly died?: Kind<'died'>;
  /** False of a process that told something though nobody says that it was started. */
  readonly started: boolean;
  readonly told: Told[];
  readonly samples: Kind<'sample'>[];
  readonly calls: Call[];
}

export interface Call extends Omit<Kind<'call'>, 'kind'> {
  readonly life: Life;
  readonly settled?: Time;
  readonly error?: string;
}

export interface Truth extends Stretch {
  /** By name, and of the names themselves. */
  readonly names: Readonly<Record<string, Listed>>;
  /** The number of each instance, whatever its name. */
  readonly numbers: ReadonlyMap<string, number>;
}

/**
 * From a `register()` that was settled, or a `restore()` whatever came of it, until `withdraw()` or `deregister()` is called, the
 * process dies or the run ends.
 */
export interface Registration {
  readonly of: string;
  readonly life: Life;
  readonly from: Time;
  readonly to: Time;
}

export interface Story {
  readonly begin: Begin;
  readonly calm?: Time;
  /** The end of the run, or the time of the last entry of a history without end. */
  readonly end: Time;
  readonly ended: boolean;
  readonly faults: readonly Fault[];
  readonly hiccups: readonly Stretch[];
  readonly truths: readonly Truth[];
  readonly lives: readonly Life[];
  readonly calls: readonly Call[];
  /** The calls that concern each instance, in order of their beginning. */
  readonly instances: ReadonlyMap<string, readonly Call[]>;
  readonly registrations: readonly Registration[];
  /** The name of the service of each instance that the servers were ever seen to hold. */
  readonly services: ReadonlyMap<string, string>;
  /** The time in which `who` may be harmed: each fault that touches it and each hiccup, and the time of the repair. */
  windows(who: string): Windows;
  /** The part of the windows in which a registration of `who` may be lost: a fault that it must outlive alone is none. */
  losses(who: string): Windows;
  /** The time in which `who` could do nothing: stopped or blocked, or the machine stood still. */
  mute(who: string): Windows;
  /** The time in which anybody may be harmed. */
  readonly anyWindows: Windows;
}

type Writable<T> = { -readonly [K in keyof T]: T[K] };

const byTime = (a: { at: Time }, b: { at: Time }) => a.at - b.at;

export function of<K extends Entry['kind']>(history: readonly Entry[], kind: K): Kind<K>[] {
  return history.filter((entry): entry is Kind<K> => entry.kind === kind);
}

/** What each process says itself; the rest is said by the conductor. */
export function isTold(entry: Entry): entry is Told {
  return 'who' in entry && entry.kind !== 'sample' && entry.kind !== 'started' && entry.kind !== 'died';
}

/** The story of a history that has a `begin`, in whatever order the processes' entries come. */
export function storyOf(unordered: readonly Entry[]): Story {
  const history = [...unordered].sort(byTime);
  const begin = of(history, 'begin')[0];
  if (begin === undefined) throw new Error('a history without begin tells no story');
  const end = of(history, 'end')[0];
  const until = end?.at ?? history.reduce((latest, entry) => Math.max(latest, entry.at), begin.at);
  const lives = livesOf(history, begin.at, until);
  const faults = of(history, 'fault').sort(byTime);
  const hiccups = of(history, 'hiccup').sort(byTime);
  const calls = lives.flatMap((life) => life.calls).sort(byTime);
  const instances = instancesOf(calls);
  const harm = [...faults, ...hiccups];
  const counts = lives.some(({ told }) => told.some(countsNames));
  const repaired = (stretches: readonly Stretch[]) =>
    new Windows(stretches.map((stretch) => ({ at: stretch.at, until: stretch.until + begin.repairMs })));
  return {
    begin,
    calm: of(history, 'calm')[0]?.at,
    end: until,
    ended: end !== undefined,
    faults,
    hiccups,
    truths: of(history, 'truth')
      .sort(byTime)
      .map(({ at, until, names }) => ({
        at,
        until,
        names: { ...names, [THE_NAMES]: namesOf(names, counts) },
        numbers: numbersOf(names),
      })),
    lives,
    calls,
    instances,
    registrations: [...instances.values()].flatMap(registrationsOf),
    services: servicesOf(of(history, 'truth')),
    windows: remembered((who) => repaired([...faults.filter(({ touches }) => touches.includes(who)), ...hiccups])),
    losses: remembered((who) => repaired([...lossesOf(who, faults, begin.ttlMs), ...hiccups])),
    mute: remembered(
      (who) => new Windows([...faults.filter(({ touches, mute }) => mute && touches.includes(who)), ...hiccups]),
    ),
    anyWindows: repaired(harm),
  };
}

/** What `who` need not outlive: what nobody would, and what comes together. */
function lossesOf(who: string, faults: readonly Fault[], ttlMs: number): Fault[] {
  const all = faults.filter(({ touches }) => touches.includes(who));
  return all.filter(
    (fault) =>
      !fault.survivable ||
      all.some((other) => other !== fault && other.at <= fault.until + ttlMs && other.until + ttlMs >= fault.at),
  );
}

function remembered(make: (who: string) => Windows): (who: string) => Windows {
  const made = new Map<string, Windows>();
  return (who) => {
    const windows = made.get(who) ?? make(who);
    made.set(who, windows);
    return windows;
  };
}

function servicesOf(truths: readonly Kind<'truth'>[]): Map<string, string> {
  return new Map(
    truths.flatMap(({ names }) =>
      Object.entries(names).flatMap(([name, list]) => Object.keys(list).map((of) => [of, name] as const)),
    ),
  );
}

/**
 * Who tells at `at` of what the servers held, and doesn't call it stale, speaks of a moment since then: what is delivered takes
 * so long, and so long it takes to find that nothing is.
 */
export function knownSince(story: Story, who: string, at: Time): Time {
  const { deliveryMs, staleMs } = story.begin;
  return at - (story.windows(who).overlaps(at - deliveryMs, at) ? staleMs : deliveryMs);
}

/** It was registered all that time, and nothing harmed it that it need not outlive. */
export function stood(story: Story, { life, from, to }: Registration, since: Time, at: Time): boolean {
  return from <= since && to >= at && !story.losses(life.who).overlaps(since, at);
}

const countsNames = (entry: Told) =>
  entry.kind === 'list' && entry.name === THE_NAMES && Object.values(entry.list).some((count) => count > 0);

/** The names that have instances, as watchers tell of them: with how many, or with 0. */
function namesOf(names: Readonly<Record<string, Listed>>, counts: boolean): Listed {
  const sizes = Object.entries(names).map(([name, list]) => [name, Object.keys(list).length] as const);
  return Object.fromEntries(sizes.filter(([, size]) => size > 0).map(([name, size]) => [name, counts ? size : 0]));
}

function numbersOf(names: Readonly<Record<string, Listed>>): Map<string, number> {
  return new Map(Object.values(names).flatMap((list) => Object.entries(list)));
}

function livesOf(history: readonly Entry[], begin: Time, end: Time): Life[] {
  const lives = new Map<string, Writable<Life>[]>();
  const born = (who: string, from: Time, started: boolean) => {
    const life: Writable<Life> = { who, from, to: end, started, told: [], samples: [], calls: [] };
    const earlier = lives.get(who);
    if (earlier === undefined) lives.set(who, [life]);
    else earlier.push(life);
    return life;
  };
  for (const { who, at } of of(history, 'started').sort(byTime)) born(who, at, true);
  const lifeOf = ({ who, at }: { who: string; at: Time }) => {
    const all = lives.get(who);
    // A line that is a moment older than the first `started` is of the first life all the same.
    return all?.[Math.max(0, firstIndex(all, ({ from }) => from > at) - 1)] ?? born(who, begin, false);
  };
  for (const died of of(history, 'died').sort(byTime)) {
    const life = lifeOf(died);
    if (life.died === undefined) Object.assign(life, { died, to: died.at });
  }
  for (const entry of history) {
    if (entry.kind === 'sample') lifeOf(entry).samples.push(entry);
    else if (isTold(entry)) lifeOf(entry).told.push(entry);
  }
  const all = [...lives.values()].flat();
  for (const life of all) {
    life.told.sort(byTime);
    life.samples.sort(byTime);
    life.calls.push(...callsOf(life));
  }
  return all.sort((a, b) => a.from - b.from);
}

function callsOf(life: Life): Call[] {
  const calls = new Map<number, Writable<Call>>();
  for (const entry of life.told) {
    if (entry.kind === 'call') {
      const { kind: _, ...call } = entry;
      calls.set(entry.id, { ...call, life });
    } else if (entry.kind === 'settled') {
      const call = calls.get(entry.id);
      if (call !== undefined) Object.assign(call, { settled: entry.at, error: entry.error });
    }
  }
  return [...calls.values()];
}

/** A call by name. */
export const isByName = ({ what }: Call) => what === 'fetch' || what === 'post';

export const succeeded = (call: Call) => call.settled !== undefined && call.error === undefined;

const OF_INSTANCES: ReadonlySet<string> = new Set(['register', 'update', 'withdraw', 'restore', 'deregister']);

function instancesOf(calls: readonly Call[]): Map<string, Call[]> {
  const instances = new Map<string, Call[]>();
  for (const call of calls) {
    if (!OF_INSTANCES.has(call.what)) continue;
    const earlier = instances.get(call.of);
    if (earlier === undefined) instances.set(call.of, [call]);
    else earlier.push(call);
  }
  return instances;
}

/** What a `restore()` did not achieve in its time is tried on, like any repair. */
const begins = (call: Call) =>
  call.what === 'register' ? succeeded(call) : call.what === 'restore' && call.settled !== undefined;

function registrationsOf(calls: readonly Call[]): Registration[] {
  const all: Writable<Registration>[] = [];
  const open = new Map<Life, Writable<Registration>>();
  for (const call of calls) {
    if (call.what === 'deregister' || call.what === 'withdraw') {
      const registration = open.get(call.life);
      if (registration !== undefined) registration.to = Math.min(registration.to, call.at);
      open.delete(call.life);
    } else if (begins(call) && !open.has(call.life)) {
      const registration = { of: call.of, life: call.life, from: call.settled as Time, to: call.life.to };
      open.set(call.life, registration);
      all.push(registration);
    }
  }
  // One that was deregistered before its register() was settled never was for certain.
  return all.filter(({ from, to }) => from <= to);
}

/** The truths that were asked at `from` or later and answered by `to`. */
export function truthsWithin(story: Story, from: Time, to: Time): readonly Truth[] {
  const { truths } = story;
  const within = truths.slice(
    firstIndex(truths, ({ at }) => at >= from),
    firstIndex(truths, ({ at }) => at > to),
  );
  return within.filter(({ until }) => until <= to);
}

/** A time as people read it: seconds since the start of the run. */
export function clock(story: { begin: { at: Time } }, time: Time): string {
  return `${((time - story.begin.at) / 1000).toFixed(3)} s`;
}

/** A list as a text that is the same for the same list. */
const keys = new WeakMap<Listed, string>();
export function keyOf(list: Listed | undefined): string {
  if (list === undefined) return '';
  const known = keys.get(list);
  if (known !== undefined) return known;
  const key = Object.keys(list)
    .sort()
    .map((id) => JSON.stringify([id, list[id]]))
    .join();
  keys.set(list, key);
  return key;
}
