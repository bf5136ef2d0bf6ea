/** What the servers hold of each instance: `registered`, `dead`, `deregistered` and `withdrawn`. */

import type { Time } from '../history.js';
import {
  type Call,
  clock,
  type Life,
  type Registration,
  type Story,
  succeeded,
  type Truth,
  truthsWithin,
} from '../story.js';
import type { Violation } from '../violation.js';
import { firstIndex, Windows } from '../windows.js';

/** A registered instance is in every read outside the windows of its process, with a number that was written lately. */
export function registered(story: Story): Violation[] {
  return story.registrations.flatMap((registration) => registeredIn(story, registration));
}

type Wrong = 'absent' | 'old' | 'unknown';

function registeredIn(story: Story, { of, life, from, to }: Registration): Violation[] {
  const windows = story.losses(life.who);
  const numbers = numbersOf((story.instances.get(of) ?? []).filter((call) => call.life === life));
  const found: Violation[] = [];
  let stretch: { wrong: Wrong; first: Truth; last: Truth; reads: number; says: string } | undefined;
  const close = () => {
    if (stretch === undefined) return;
    const { first, last, reads } = stretch;
    const seen = `${seconds(story, first.at, last.until)} (${reads} ${reads === 1 ? 'read' : 'reads'})`;
    const says = `${stretch.says}: ${seen}; ${lastHarm(story, life.who, first.at)}.`;
    found.push({ rule: 'registered', at: first.at, until: last.until, who: life.who, of, says });
    stretch = undefined;
  };
  for (const truth of truthsWithin(story, from, to)) {
    if (windows.overlaps(truth.at, truth.until)) continue;
    const number = truth.numbers.get(of);
    const [least, most] = [numbers.settledBy(truth.at), numbers.calledBy(truth.until)];
    let wrong: Wrong | undefined;
    let says = '';
    if (number === undefined) {
      wrong = 'absent';
      says = `${of} is not in the registry, though ${life.who} registered it at ${clock(story, from)}`;
    } else if (number < least) {
      wrong = 'old';
      says = `${of} of ${life.who} has number ${number}, though ${least} was settled`;
    } else if (number > most) {
      wrong = 'unknown';
      says = `${of} of ${life.who} has number ${number}, though ${most} is the largest that was called`;
    }
    if (stretch !== undefined && stretch.wrong === wrong) {
      stretch.last = truth;
      stretch.reads++;
      continue;
    }
    close();
    if (wrong !== undefined) stretch = { wrong, first: truth, last: truth, reads: 1, says };
  }
  close();
  return found;
}

/** The bounds of an instance's number at a time, by the calls of one process. */
function numbersOf(calls: readonly Call[]): { settledBy(at: Time): number; calledBy(until: Time): number } {
  const writes = calls.filter(({ what, n }) => what !== 'deregister' && n !== undefined);
  const settled = writes.filter(succeeded).sort((a, b) => (a.settled as Time) - (b.settled as Time));
  let largest = Number.NEGATIVE_INFINITY;
  const called = writes.map(({ at, n }) => {
    largest = Math.max(largest, n as number);
    return { at, largest };
  });
  return {
    settledBy: (time) => settled[firstIndex(settled, (call) => (call.settled as Time) >= time) - 1]?.n ?? -Infinity,
    // Without any number there is nothing to compare with.
    calledBy: (time) =>
      called.length === 0 ? Infinity : (called[firstIndex(called, ({ at }) => at > time) - 1]?.largest ?? -Infinity),
  };
}

/** What a dead process registered is gone when its TTL and the removal bound have passed. */
export function dead(story: Story): Violation[] {
  return story.lives.flatMap((life) => {
    const { died } = life;
    if (died === undefined || died.how === 'left') return [];
    const deadline = deadlineOf(story, died.at);
    return [...new Set(life.calls.filter(({ what }) => what === 'register').map((call) => call.of))].flatMap((of) => {
      const calls = story.instances.get(of) ?? [];
      const next = firstIndex(calls, ({ at }) => at >= died.at);
      // What was deregistered, or taken over by another process, is not this one's to leave behind.
      const last = calls.slice(0, next).findLast(counts);
      if (last?.life !== life || last.what === 'deregister') return [];
      const register = calls.slice(next).find(({ what }) => what === 'register');
      const { ttlMs, removalMs } = story.begin;
      const moved = deadline - died.at - ttlMs - removalMs;
      const why = moved > 0 ? `, with ${Math.round(moved)} ms for faults of the servers since` : '';
      const says = `${life.who} ${died.how === 'killed' ? 'was killed' : 'crashed'} at ${clock(story, died.at)} and had to be gone by ${clock(story, deadline)} (TTL ${ttlMs} ms and ${removalMs} ms${why})`;
      return present(story, 'dead', life, of, deadline, register?.at, says);
    });
  });
}

/** A deregister() that failed leaves open what the registry holds. */
const counts = (call: Call) => call.what === 'register' || (call.what === 'deregister' && succeeded(call));

/** When an instance of a process that died at `died` is gone: servers that are harmed may give its whole TTL again. */
function deadlineOf(story: Story, died: Time): Time {
  const grace = story.begin.ttlMs + story.begin.removalMs;
  const harm = [...story.faults.filter(({ servers }) => servers), ...story.hiccups].sort((a, b) => a.at - b.at);
  let deadline = died + grace;
  // In order of their beginning, one pass is enough: none that was passed over begins before a later deadline, and what
  // was over before the death moves nothing.
  for (const { at, until } of harm) {
    if (at <= deadline) deadline = Math.max(deadline, until + grace);
  }
  return deadline;
}

/** After deregister() returned, the instance is in no read. */
export function deregistered(story: Story): Violation[] {
  return [...story.instances].flatMap(([of, calls]) =>
    calls.flatMap((call, index) => {
      if (call.what !== 'deregister' || !succeeded(call)) return [];
      const register = calls.slice(index + 1).find(({ what }) => what === 'register');
      const says = `${call.life.who} deregistered it, which returned at ${clock(story, call.settled as Time)}`;
      return present(story, 'deregistered', call.life, of, call.settled as Time, register?.at, says);
    }),
  );
}

/** A time in which an instance must be out: from when, and until it may be called back. */
export interface Absence {
  readonly of: string;
  readonly call: Call;
  readonly from: Time;
  readonly to: Time;
}

/**
 * From the return of withdraw() until the instance is called back or registered anew. One that failed is tried on: from when the
 * harm to its process and the time of the repair are over, and until its process dies, which leaves it to its TTL: see `dead`.
 */
export function absences(story: Story): Absence[] {
  return [...story.instances].flatMap(([of, calls]) =>
    calls.flatMap((call, index): Absence[] => {
      if (call.what !== 'withdraw' || call.settled === undefined) return [];
      const back = calls.slice(index + 1).find(({ what }) => what === 'restore' || what === 'register');
      const to = back?.at ?? Number.POSITIVE_INFINITY;
      if (succeeded(call)) return [{ of, call, from: call.settled, to }];
      const from = story.windows(call.life.who).endOf(call.settled);
      return [{ of, call, from, to: Math.min(to, call.life.to) }];
    }),
  );
}

/** What is withdrawn is in no read. */
export function withdrawn(story: Story): Violation[] {
  return absences(story).flatMap(({ of, call, from, to }) => {
    const settled = call.settled as Time;
    const over = from > settled ? ` and had to be done by ${clock(story, from)}` : '';
    const returned = `${succeeded(call) ? 'returned' : 'failed'} at ${clock(story, settled)}${over}`;
    return present(story, 'withdrawn', call.life, of, from, to, `${call.life.who} withdrew it, which ${returned}`);
  });
}

/** The violation that an instance is in a read that was asked after `from`, before it is registered anew. */
function present(
  story: Story,
  rule: 'dead' | 'deregistered' | 'withdrawn',
  life: Life,
  of: string,
  from: Time,
  anew: Time | undefined,
  why: string,
): Violation[] {
  const shown = rule === 'dead' ? new Windows([]) : shownAgain(story, from);
  const seen = truthsWithin(story, from, anew ?? Number.POSITIVE_INFINITY).filter(
    ({ at, until, numbers }) => at > from && until !== anew && numbers.has(of) && !shown.overlaps(at, until),
  );
  const [first, last] = [seen[0], seen.at(-1)];
  if (first === undefined || last === undefined) return [];
  const says = `${of} is still in the registry ${seconds(story, first.at, last.until)} (${seen.length} ${seen.length === 1 ? 'read' : 'reads'}): ${why}.`;
  return [{ rule, at: first.at, until: last.until, who: life.who, of, says }];
}

/** When what was taken out at this time, during a fault of the servers, may be seen again: see `Fault.shownUntil`. */
function shownAgain(story: Story, out: Time): Windows {
  const stretches = story.faults.flatMap(({ at, until, shownUntil }) =>
    shownUntil !== undefined && at <= out && out <= shownUntil ? [{ at: until, until: shownUntil }] : [],
  );
  return new Windows(stretches);
}

function seconds(story: Story, from: Time, to: Time): string {
  return `from ${clock(story, from)} to ${clock(story, to)}`;
}

function lastHarm(story: Story, who: string, time: Time): string {
  const last = story.faults.filter(({ at, touches }) => at <= time && touches.includes(who)).at(-1);
  if (last === undefined) return 'no fault had touched it';
  return `the last fault that touched it, ${last.what} of ${last.target}, ended at ${clock(story, last.until)}`;
}
