/** Calls by name: they fail only with the instance that answers them. */

import type { Fault, Time } from '../history.js';
import { type Call, clock, isByName, knownSince, type Registration, type Story, stood, succeeded } from '../story.js';
import type { Violation } from '../violation.js';
import { Windows } from '../windows.js';

/** A request that may be sent again goes to so many instances. */
export const TRIES = 3;
/** So many failures in a row set an instance aside. */
const IN_A_ROW = 5;
/** Of each process, to each service: one that may be sent again, and one that may not. */
const IN_FLIGHT = 2;
/** For how long callers set an instance aside that does not answer; then one call tries it. */
export const ASIDE_MS = 3000;
/** For how long a caller waits for the answer of one instance. On a machine that is busy elsewhere a second may be too short. */
export const PER_TRY_MS = 3000;
/** The order to block comes late, and what waited for a process that goes on is answered after others. */
const AFTERWARDS_MS = 1000;

/** Why a call may have failed. */
type Excuse =
  /** Its own process could do nothing. */
  | 'mute'
  /** Nobody is certain to have been there. */
  | 'nobody'
  /** More instances did not serve than it could try. */
  | 'too many'
  /** The instance was killed that it may have been sent to. */
  | 'killed'
  /** … was stopped, or its event loop blocked: not for long. */
  | 'silent';

/** Calls by name that came to an end while the run went on. */
export function byName(story: Story): Call[] {
  return story.calls.filter((call) => isByName(call) && call.settled !== undefined && call.settled < story.end);
}

/**
 * A call of a service of which an instance stands and runs does not fail, whatever happens to the registry. When an instance
 * is killed, it costs the calls in flight that may not be sent again; one that is stopped as many until it is set aside.
 */
export function called(story: Story): Violation[] {
  const judge = new Judge(story);
  const silent = new Map<string, Call[]>();
  const found: Violation[] = [];
  for (const call of byName(story)) {
    if (succeeded(call)) continue;
    const excuse = judge.excuse(call);
    if (excuse === undefined) found.push(violation(story, call, judge.why(call)));
    if (excuse !== 'silent') continue;
    const key = JSON.stringify([call.life.who, call.life.from, call.of]);
    silent.set(key, [...(silent.get(key) ?? []), call]);
  }
  return [...found, ...[...silent.values()].flatMap((calls) => tooManyFor(story, judge, calls))];
}

/** Whether any call had no excuse to fail, if there were calls. */
export function judgesCalls(story: Story): boolean {
  const [judge, calls] = [new Judge(story), byName(story)];
  return calls.length === 0 || calls.some((call) => judge.excuse(call) === undefined);
}

/** How many calls there were that had no excuse to fail. */
export function withoutExcuse(story: Story): number {
  const judge = new Judge(story);
  return byName(story).filter((call) => judge.excuse(call) === undefined).length;
}

function violation(story: Story, call: Call, why: string): Violation {
  const { of, at, what, error, settled } = call;
  const { who } = call.life;
  const says = `The ${what} of ${of} that ${who} called at ${clock(story, at)} failed at ${clock(story, settled as Time)} (${error}), ${why}.`;
  return { rule: 'called', at, until: settled, who, of, says };
}

/** One that is silent alone is set aside: so many may fail for it, and one more each time that it is tried again. */
function tooManyFor(story: Story, judge: Judge, calls: readonly Call[]): Violation[] {
  const of = (calls[0] as Call).of;
  return judge.hosts(of).flatMap((host) =>
    judge.silences(host).flatMap((fault): Violation[] => {
      const alone = judge
        .hosts(of)
        .every((other) => other === host || !judge.down(other).overlaps(fault.at - ASIDE_MS - PER_TRY_MS, fault.until));
      if (!alone) return [];
      const failed = calls.filter(({ at, settled }) => at <= fault.until && (settled as Time) >= fault.at);
      const most = IN_A_ROW + IN_FLIGHT + Math.ceil((fault.until - fault.at) / ASIDE_MS);
      if (failed.length <= most) return [];
      const over = failed[most] as Call;
      const why = `the ${failed.length}th for ${host}, which served nothing from ${clock(story, fault.at)} to ${clock(story, fault.until)}; ${most} is the most`;
      return [violation(story, over, why)];
    }),
  );
}

class Judge {
  readonly #hosts = new Map<string, string[]>();
  readonly #registrations = new Map<string, Registration[]>();
  readonly #down = new Map<string, Windows>();
  readonly #killed = new Map<string, Windows>();
  readonly #silent = new Map<string, Windows>();
  readonly #absent = new Map<string, Windows>();

  constructor(private readonly story: Story) {
    for (const registration of story.registrations) {
      const name = story.services.get(registration.of);
      if (name === undefined) continue;
      this.#registrations.set(name, [...(this.#registrations.get(name) ?? []), registration]);
      const hosts = this.hosts(name);
      if (!hosts.includes(registration.life.who)) this.#hosts.set(name, [...hosts, registration.life.who]);
    }
    for (const host of [...this.#hosts.values()].flat()) this.#look(host);
  }

  /** The processes that are instances of a service. */
  hosts(name: string): string[] {
    return this.#hosts.get(name) ?? [];
  }

  /** When it served nothing: dead, not yet begun, or silent. */
  down(host: string): Windows {
    return this.#down.get(host) as Windows;
  }

  /** The faults in which it lived and served nothing. */
  silences(host: string): Fault[] {
    return this.story.faults.filter(({ mute, touches }) => mute && touches.includes(host));
  }

  #look(host: string): void {
    const lives = this.story.lives.filter(({ who }) => who === host);
    const kills = lives.flatMap(({ died }) => {
      if (died === undefined) return [];
      const { at } = died;
      const fault = this.story.faults.find(({ target, ...of }) => target === host && of.at <= at && of.until >= at);
      return [{ at: fault?.at ?? at, until: at }];
    });
    // What it tells first it tells when it listens.
    const absences = [undefined, ...lives].map((life, i) => ({
      at: life?.to ?? this.story.begin.at,
      until: lives[i]?.told[0]?.at ?? lives[i]?.to ?? this.story.end,
    }));
    const silent = this.story.mute(host).stretches.map(({ at, until }) => ({ at, until: until + AFTERWARDS_MS }));
    this.#killed.set(host, new Windows(kills));
    this.#silent.set(host, new Windows(silent));
    this.#down.set(host, new Windows([...kills, ...absences, ...silent]));
  }

  excuse(call: Call): Excuse | undefined {
    const { at, of, what } = call;
    const { who } = call.life;
    const settled = call.settled as Time;
    if (this.story.mute(who).overlaps(at - AFTERWARDS_MS, settled)) return 'mute';
    if (this.#standing(call) === undefined) return 'nobody';
    const hosts = this.hosts(of);
    if (hosts.filter((host) => this.down(host).overlaps(at, settled)).length >= TRIES) return 'too many';
    if (what === 'fetch') return undefined;
    if (hosts.some((host) => this.#killed.get(host)?.overlaps(at, settled))) return 'killed';
    return hosts.some((host) => this.#silent.get(host)?.overlaps(at, settled)) ? 'silent' : undefined;
  }

  /** An instance that the caller must have known, and that served. */
  #standing(call: Call): Registration | undefined {
    const at = call.settled as Time;
    const since = knownSince(this.story, call.life.who, call.at);
    return this.#registrations
      .get(call.of)
      ?.find(
        (one) =>
          !this.down(one.life.who).overlaps(call.at, at) &&
          (stood(this.story, one, since, at) || this.#outlasted(one, call)),
      );
  }

  /**
   * It was there since before anything harmed the caller, who has kept an older list or read a newer one: it served all the
   * time, its process was told of no loss, and no read of the servers lacks it.
   */
  #outlasted({ of, from, to, life }: Registration, call: Call): boolean {
    const { story } = this;
    const at = call.settled as Time;
    const since = Math.max(call.life.from, story.windows(call.life.who).startOf(call.at)) - story.begin.deliveryMs;
    if (from > since || to < at || this.down(life.who).overlaps(since, at)) return false;
    return !this.#missed(of, life.who).overlaps(since, at);
  }

  /** The reads that lack an instance, and when its process was told of anything that happened to it. */
  #missed(of: string, host: string): Windows {
    const known = this.#absent.get(of);
    if (known !== undefined) return known;
    const { lives, truths } = this.story;
    const events = lives
      .filter(({ who }) => who === host)
      .flatMap(({ told }) => told.flatMap(({ kind, at }) => (kind === 'event' ? [{ at, until: at }] : [])));
    const missed = new Windows([...events, ...truths.filter(({ numbers }) => !numbers.has(of))]);
    this.#absent.set(of, missed);
    return missed;
  }

  why(call: Call): string {
    const { of, life, from } = this.#standing(call) as Registration;
    return `though ${of} of ${life.who} stood there since ${clock(this.story, from)} and answered`;
  }
}
