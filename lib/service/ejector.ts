/** Who fails is set aside for a while. */

import type { LoadRecord } from './load.js';

/** Options of outlier ejection. All times in milliseconds. */
export interface OutlierOptions {
  /** Failures in a row that set an instance aside; 0: never for that. Default 5. */
  consecutiveFailures?: number | undefined;
  /** For how long, at the first time; at the nth time n times as long. Default 30,000. */
  baseEjectionMs?: number | undefined;
  /** For how long at most. Default 300,000. */
  maxEjectionMs?: number | undefined;
  /** For how long after a refused connection; twice as long each time, up to 30,000. Default 1,000. */
  refusedMs?: number | undefined;
  /** The share of the instances that may be set aside, from 0 to 1; never the last, and below four one. Default 0.5. */
  maxEjected?: number | undefined;
  /** How often the instances are compared with one another. Default 10,000. */
  intervalMs?: number | undefined;
  /** Set aside who has so many standard deviations less successes than the mean; `false`: nobody. Default 1.9. */
  successRateFactor?: number | false | undefined;
  /** Set aside who fails so much of its calls, from 0 to 1; `false`: nobody. Default 0.85. */
  failureShare?: number | false | undefined;
}

/** The same, complete. */
export type OutlierSettings = {
  readonly [Option in keyof OutlierOptions]-?: Exclude<OutlierOptions[Option], undefined>;
};

/** What came of a call. */
export type Outcome = 'success' | 'failure' | 'refused' | 'cancelled';

export const OUTLIER_DEFAULTS: OutlierSettings = Object.freeze({
  consecutiveFailures: 5,
  baseEjectionMs: 30_000,
  maxEjectionMs: 300_000,
  refusedMs: 1000,
  maxEjected: 0.5,
  intervalMs: 10_000,
  successRateFactor: 1.9,
  failureShare: 0.85,
});

/** The longest that a refused connection sets aside for, unless `refusedMs` is longer. */
const MOST_REFUSED_MS = 30_000;
/** Comparing needs so many instances. */
const HOSTS = 5;
/** … and so many calls to each since the last time: for the success rate, and for the share of failures. */
const CALLS_FOR_RATE = 100;
const CALLS_FOR_SHARE = 50;
/** If nothing is heard of the one call that tries an instance, the next may after so long. */
const PROBE_MS = 30_000;

const NONE: readonly Verdict[] = Object.freeze([]);

/** Why an instance was set aside. */
export type EjectionReason = 'refused' | 'failures' | 'success rate' | 'failure share';

/** What happened to an instance. */
export interface Verdict {
  readonly load: LoadRecord;
  /** Missing: it is back. */
  readonly reason?: EjectionReason;
}

/**
 * Decides who is set aside, and when one call may try whether it is back. It is told of every call that is done.
 *
 * Source: outlier detection of gRPC (proposal A50) for the sweep, its figures and the growing times; Envoy for failures in a
 * row. A refused connection is no matter of statistics: one is enough, for a short time.
 */
export class Ejector {
  /** Those who are set aside. */
  readonly out = new Set<LoadRecord>();
  /** When the first of them may be tried; infinity when nobody is set aside. */
  due = Number.POSITIVE_INFINITY;
  readonly #options: OutlierSettings;
  readonly #now: () => number;
  #sweepAt: number;

  constructor(options: OutlierSettings, now: () => number) {
    this.#options = options;
    this.#now = now;
    this.#sweepAt = now() + options.intervalMs;
  }

  /**
   * A call is done that was picked at `startedAt`. `known` are all instances, each once.
   *
   * @param isProbe it was the one that `probe()` let through
   */
  note(
    load: LoadRecord,
    outcome: Outcome,
    known: ReadonlySet<LoadRecord>,
    startedAt: number,
    isProbe: boolean,
  ): readonly Verdict[] {
    const now = this.#now();
    const verdicts = this.#judge(load, outcome, known, startedAt, isProbe, now);
    return now >= this.#sweepAt ? [...verdicts, ...this.#sweep(known, now)] : verdicts;
  }

  #judge(
    load: LoadRecord,
    outcome: Outcome,
    known: ReadonlySet<LoadRecord>,
    startedAt: number,
    isProbe: boolean,
    now: number,
  ): readonly Verdict[] {
    if (outcome === 'cancelled') {
      if (isProbe && load.ejected) this.#probeIsOver(load, now);
    } else if (outcome === 'success') {
      load.failures = 0;
      load.succeeded++;
      // One that began before says nothing about the time after.
      if (load.ejected && startedAt >= load.ejectedAt) return [this.#restore(load)];
      if (!load.ejected) load.refusals = 0;
    } else {
      load.failures++;
      load.failed++;
      if (load.ejected) {
        if (isProbe) this.#eject(load, outcome === 'refused' ? 'refused' : 'failures', now);
      } else if (this.#maySetAside(known) && known.has(load)) {
        const { consecutiveFailures } = this.#options;
        const reason =
          outcome === 'refused'
            ? 'refused'
            : consecutiveFailures > 0 && load.failures >= consecutiveFailures
              ? 'failures'
              : undefined;
        if (reason) return [this.#eject(load, reason, now)];
      }
    }
    return NONE;
  }

  /** Lets one call through to an instance whose time is over; `false`: not yet. */
  probe(load: LoadRecord): boolean {
    const now = this.#now();
    if (!load.ejected || load.until > now) return false;
    load.probing = true;
    load.until = now + PROBE_MS;
    this.#nextDue();
    return true;
  }

  /** Nothing will be heard of a call that was let through. */
  dropProbe(load: LoadRecord): void {
    if (load.ejected) this.#probeIsOver(load, this.#now());
  }

  /** An instance is gone. */
  forget(load: LoadRecord): void {
    if (this.out.delete(load)) this.#nextDue();
  }

  /** An instance that was gone is back, as it was. */
  remember(load: LoadRecord): void {
    if (!load.ejected) return;
    this.out.add(load);
    this.#nextDue();
  }

  #probeIsOver(load: LoadRecord, now: number): void {
    if (!load.probing) return;
    load.probing = false;
    load.until = now;
    this.#nextDue();
  }

  #maySetAside(known: ReadonlySet<LoadRecord>): boolean {
    const share = Math.floor(known.size * this.#options.maxEjected);
    const most = this.#options.maxEjected === 0 ? 0 : Math.min(known.size - 1, known.size < 4 ? 1 : Math.max(1, share));
    return this.out.size < most;
  }

  #eject(load: LoadRecord, reason: EjectionReason, now: number): Verdict {
    const { baseEjectionMs, maxEjectionMs, refusedMs } = this.#options;
    let forMs: number;
    if (reason === 'refused') {
      forMs = Math.min(refusedMs * 2 ** load.refusals, Math.max(MOST_REFUSED_MS, refusedMs));
      load.refusals = Math.min(load.refusals + 1, 30);
    } else {
      load.times++;
      forMs = Math.min(baseEjectionMs * load.times, Math.max(maxEjectionMs, baseEjectionMs));
    }
    load.ejected = true;
    load.ejectedAt = now;
    load.probing = false;
    load.until = now + forMs;
    this.out.add(load);
    this.#nextDue();
    return { load, reason };
  }

  #restore(load: LoadRecord): Verdict {
    load.ejected = false;
    load.probing = false;
    load.refusals = 0;
    load.latencyMs = -1; // what it was like before says nothing
    this.forget(load);
    return { load };
  }

  #nextDue(): void {
    let due = Number.POSITIVE_INFINITY;
    for (const { until } of this.out) if (until < due) due = until;
    this.due = due;
  }

  /** Compares the instances with one another, by what came of the calls since the last time. */
  #sweep(known: ReadonlySet<LoadRecord>, now: number): Verdict[] {
    this.#sweepAt = now + this.#options.intervalMs;
    const { successRateFactor, failureShare } = this.#options;
    const verdicts: Verdict[] = [];
    const calls = ({ succeeded, failed }: LoadRecord) => succeeded + failed;
    const rate = (load: LoadRecord) => load.succeeded / calls(load);

    const rated = [...known].filter((load) => calls(load) >= CALLS_FOR_RATE);
    if (successRateFactor !== false && rated.length >= HOSTS) {
      const mean = rated.reduce((sum, load) => sum + rate(load), 0) / rated.length;
      const variance = rated.reduce((sum, load) => sum + (rate(load) - mean) ** 2, 0) / rated.length;
      const least = mean - Math.sqrt(variance) * successRateFactor;
      for (const load of rated) {
        if (rate(load) >= least || load.ejected || !this.#maySetAside(known)) continue;
        verdicts.push(this.#eject(load, 'success rate', now));
      }
    }
    const counted = [...known].filter((load) => calls(load) >= CALLS_FOR_SHARE);
    if (failureShare !== false && counted.length >= HOSTS) {
      for (const load of counted) {
        if (1 - rate(load) < failureShare || load.ejected || !this.#maySetAside(known)) continue;
        verdicts.push(this.#eject(load, 'failure share', now));
      }
    }
    for (const load of known) {
      load.succeeded = 0;
      load.failed = 0;
      if (!load.ejected && load.times > 0) load.times--;
    }
    return verdicts;
  }
}
