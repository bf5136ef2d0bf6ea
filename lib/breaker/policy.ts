/** When a breaker opens and closes: what is written down, checked and completed. */

import { choice, integer, invalid, kindOf, onlyKnown, record } from '../common/shape.js';

/** When a breaker opens, and when it closes again. Everything has a default. */
export interface Policy {
  /** Opens after so many failures in a row. Default 5. */
  readonly failureThreshold?: number | undefined;
  /** Closes after so many successes while it is half open. Default 2. */
  readonly successThreshold?: number | undefined;
  /**
   * How long it stays open before it lets calls try, from 1 ms to a day: a text of Go such as `"1m"`, `"1m30s"`, `"500ms"`, or a
   * number: milliseconds below 1e9, from there on nanoseconds, as Go writes a `time.Duration`. Default one minute.
   */
  readonly openStateTimeout?: string | number | undefined;
  /** Opens also by a share of the calls: of the latest ones, or of those of the latest time. Default: it does not. */
  readonly window?: WindowPolicy | undefined;
  /** How many calls may try at a time while it is half open. Default: `successThreshold`. */
  readonly maxProbes?: number | undefined;
  /** How long a call may take, in milliseconds: then it rejects with `ERR_TIMEOUT`, a failure. 0: as long as it takes. Default 0. */
  readonly timeoutMs?: number | undefined;
  /** Holds it open, or closed, whatever comes. Default: neither. */
  readonly force?: 'open' | 'closed' | null | undefined;
}

/** By which share of which calls a breaker opens. */
export interface WindowPolicy {
  /** The latest `size` calls, or those of the latest `size` milliseconds. */
  readonly type: 'count' | 'time';
  /** Calls, from 1 to 10,000, or milliseconds, at least 100. */
  readonly size: number;
  /** It does not open by a share of fewer calls. Default: `size` calls, of a time 10. */
  readonly minCalls?: number | undefined;
  /** Opens when so large a share of them failed, above 0, up to 1. Default: not by failures. */
  readonly failureRate?: number | undefined;
  /** A call that took longer is slow, in milliseconds, whatever became of it. */
  readonly slowCallMs?: number | undefined;
  /** Opens when so large a share of them was slow, above 0, up to 1. Default 1 where `slowCallMs` is given. */
  readonly slowRate?: number | undefined;
}

/** A policy, completed. */
export interface Rules {
  readonly failureThreshold: number;
  readonly successThreshold: number;
  readonly openMs: number;
  readonly window: WindowRules | undefined;
  readonly maxProbes: number;
  readonly timeoutMs: number;
  readonly force: 'open' | 'closed' | undefined;
}

/** A window, completed. A rate that is no reason to open is above 1. */
export interface WindowRules {
  readonly type: 'count' | 'time';
  readonly size: number;
  readonly minCalls: number;
  readonly failureRate: number;
  readonly slowCallMs: number;
  readonly slowRate: number;
}

const POLICY = [
  'failureThreshold',
  'successThreshold',
  'openStateTimeout',
  'window',
  'maxProbes',
  'timeoutMs',
  'force',
] as const;
const WINDOW = ['type', 'size', 'minCalls', 'failureRate', 'slowCallMs', 'slowRate'] as const;

/** More than anybody has in a row. */
const MOST = 1_000_000;
/** Numbers from here on are nanoseconds: a second of them, which would be eleven days of milliseconds. */
const NANOSECONDS = 1e9;
const DAY_MS = 86_400_000;
const NEVER = Number.POSITIVE_INFINITY;

/** @throws `ERR_INVALID_ARGUMENT` that names the field. */
export function rulesOf(path: string, value: unknown): Rules {
  const given = record(path, value, 'a policy');
  onlyKnown(path, given, POLICY);
  const successThreshold = integer(`${path}.successThreshold`, given.successThreshold, 2, { min: 1, max: MOST });
  const force = given.force ?? undefined;
  return {
    failureThreshold: integer(`${path}.failureThreshold`, given.failureThreshold, 5, { min: 1, max: MOST }),
    successThreshold,
    openMs:
      given.openStateTimeout === undefined ? 60_000 : duration(`${path}.openStateTimeout`, given.openStateTimeout),
    window: given.window === undefined ? undefined : windowOf(`${path}.window`, given.window),
    maxProbes: integer(`${path}.maxProbes`, given.maxProbes, successThreshold, { min: 1, max: MOST }),
    timeoutMs: integer(`${path}.timeoutMs`, given.timeoutMs, 0, { min: 1, zeroIsOff: true }),
    force: force === undefined ? undefined : choice<'open' | 'closed'>(`${path}.force`, force, ['open', 'closed']),
  };
}

function windowOf(path: string, value: unknown): WindowRules {
  const given = record(path, value);
  onlyKnown(path, given, WINDOW);
  const type = choice<'count' | 'time'>(`${path}.type`, given.type, ['count', 'time']);
  const size = integer(
    `${path}.size`,
    given.size ?? null, // there is no size for everybody
    0,
    type === 'count' ? { min: 1, max: 10_000 } : { min: 100 },
  );
  const slowCallMs =
    given.slowCallMs === undefined ? NEVER : integer(`${path}.slowCallMs`, given.slowCallMs, 0, { min: 1 });
  if (given.slowRate !== undefined && given.slowCallMs === undefined) {
    throw invalid(`${path}.slowRate`, 'expected slowCallMs beside it, which says what is slow');
  }
  if (given.failureRate === undefined && given.slowCallMs === undefined) {
    throw invalid(path, 'expected failureRate, or slowCallMs: nothing of it would open the breaker');
  }
  const minCalls = integer(`${path}.minCalls`, given.minCalls, type === 'count' ? size : 10, { min: 1, max: MOST });
  if (type === 'count' && minCalls > size) {
    throw invalid(`${path}.minCalls`, `expected at most size, which is ${size}, got ${minCalls}`);
  }
  return {
    type,
    size,
    minCalls,
    failureRate: share(`${path}.failureRate`, given.failureRate, NEVER),
    slowCallMs,
    slowRate: share(`${path}.slowRate`, given.slowRate, given.slowCallMs === undefined ? NEVER : 1),
  };
}

function share(path: string, value: unknown, fallback: number): number {
  if (value === undefined) return fallback;
  if (typeof value === 'number' && value > 0 && value <= 1) return value;
  throw invalid(path, `expected a number above 0, up to 1, got ${typeof value === 'number' ? value : kindOf(value)}`);
}

/** What Go's `time.ParseDuration` takes, without a sign. */
const UNITS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3, // U+00B5
  μs: 1e-3, // U+03BC
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};
const PART = /(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)/y;

/** Milliseconds, at least 1. */
function duration(path: string, value: unknown): number {
  const expected = 'expected milliseconds, nanoseconds from 1e9 on, or a duration such as "1m30s"';
  let ms: number | undefined;
  if (typeof value === 'number') ms = value >= NANOSECONDS ? value / 1e6 : value;
  else if (typeof value === 'string') ms = parsed(value);
  else throw invalid(path, `${expected}, got ${kindOf(value)}`);
  if (ms === undefined || Number.isNaN(ms)) throw invalid(path, `${expected}, got another text`);
  if (!(ms >= 1 && ms <= DAY_MS)) throw invalid(path, `${expected}, from 1 ms to a day, got ${ms} ms`);
  return ms;
}

function parsed(text: string): number | undefined {
  if (text.length > 64) return undefined;
  let ms = 0;
  PART.lastIndex = 0;
  let end = 0;
  for (let part = PART.exec(text); part; part = PART.exec(text)) {
    ms += Number(part[1]) * (UNITS[part[2] as string] as number);
    end = PART.lastIndex;
  }
  return end === text.length && end > 0 ? ms : undefined;
}
