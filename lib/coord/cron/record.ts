/**
 * What is kept of a job, in one key of the store: which of its ticks were claimed, and which of those were not brought to an end.
 * Nothing here asks the store.
 *
 * Ticks that follow each other are one span, from the first to the last, so a job that never misses one has one span, however
 * old it is. There are at most `SPANS_MOST`: beyond it the two that are nearest to each other become one, with what lies between
 * them. So a tick that was claimed stays claimed for ever, whatever the clocks say, and a clock that is a year ahead does not take
 * the ticks of the others.
 */

import type { Expression } from './expression.js';

/** The most spans of a record. */
const SPANS_MOST = 32;
/** The most ticks that were not brought to an end. An older one is forgotten: then it is claimed, and nobody runs it again. */
const RUNNING_MOST = 32;

/** A tick that somebody runs, or ran when it died. */
export interface Running {
  readonly at: number;
  /** The fencing token of who claimed it. */
  readonly token: bigint;
}

/** What is kept of a job. Times are milliseconds since 1970. */
export interface JobRecord {
  /** What was claimed, from the first tick of a span to its last, the earliest first. */
  readonly spans: readonly (readonly [from: number, to: number])[];
  readonly running: readonly Running[];
  /** The token of the latest claim. */
  readonly token: bigint;
}

export const EMPTY: JobRecord = { spans: [], running: [], token: 0n };

/** The record of a text; `undefined`: it is none. */
export function recordOf(text: string): JobRecord | undefined {
  try {
    const { spans, running, token } = JSON.parse(text) as { spans: unknown[][]; running: unknown[][]; token: string };
    const record: JobRecord = {
      spans: spans.map(([from, to]) => [time(from), time(to)] as const),
      running: running.map(([at, of]) => ({ at: time(at), token: BigInt(of as string) })),
      token: BigInt(token),
    };
    const isSorted = record.spans.every(([from, to], i) => from <= to && from > (record.spans[i - 1]?.[1] ?? -1));
    return isSorted ? record : undefined;
  } catch {
    return undefined;
  }
}

function time(value: unknown): number {
  if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number;
  throw new TypeError('no time');
}

export const textOf = ({ spans, running, token }: JobRecord): string =>
  JSON.stringify({ spans, running: running.map(({ at, token }) => [at, String(token)]), token: String(token) });

/** Whether a tick was claimed, or passed over for good. */
export const isClaimed = ({ spans }: JobRecord, at: number): boolean =>
  spans.some(([from, to]) => from <= at && at <= to);

/** Who claimed a tick last that was not brought to an end. */
export const runnerOf = ({ running }: JobRecord, at: number): Running | undefined =>
  running.find((one) => one.at === at);

/** A record that begins now: ticks before are nobody's. */
export const begun = (now: number): JobRecord => ({ ...EMPTY, spans: [[now, now]] });

/**
 * Claims a tick, with all from `from` on, if given. `next` tells which tick follows another, where that is known.
 */
export function claimed(
  record: JobRecord,
  at: number,
  token: bigint,
  next: Expression['next'] = () => undefined,
  from = at,
): JobRecord {
  const running = [...record.running.filter((one) => one.at !== at), { at, token }];
  return {
    spans: isClaimed(record, at) && from === at ? record.spans : joined(record.spans, [from, at], next),
    running: running.slice(-RUNNING_MOST),
    token,
  };
}

/** Brings a tick to its end, if it is still that of `token`. */
export const settled = (record: JobRecord, at: number, token: bigint): JobRecord => ({
  ...record,
  running: record.running.filter((one) => one.at !== at || one.token !== token),
});

type Span = readonly [from: number, to: number];

function joined(spans: readonly Span[], added: Span, next: Expression['next']): readonly Span[] {
  const all: Span[] = [];
  for (const span of [...spans, added].sort(([a], [b]) => a - b)) {
    const before = all.at(-1);
    const touches =
      before && (span[0] <= before[1] || ((before === added || span === added) && next(before[1]) === span[0]));
    if (!touches) {
      all.push(span);
      continue;
    }
    const whole: Span = [before[0], Math.max(before[1], span[1])];
    all[all.length - 1] = whole;
    if (before === added || span === added) added = whole; // what is joined may touch the next one
  }
  while (all.length > SPANS_MOST) {
    let nearest = 1;
    const gap = (i: number) => (all[i] as Span)[0] - (all[i - 1] as Span)[1];
    for (let i = 2; i < all.length; i++) if (gap(i) < gap(nearest)) nearest = i;
    all.splice(nearest - 1, 2, [(all[nearest - 1] as Span)[0], (all[nearest] as Span)[1]]);
  }
  return all;
}

/**
 * The ticks before `until` that nobody has claimed, the latest `most` of them, the earliest first: not before `from`, and not before
 * the first that was ever claimed. With `isNearest` only those since the last one that was claimed.
 */
export function openBefore(
  { spans }: JobRecord,
  until: number,
  { last }: Expression,
  from: number,
  most: number,
  isNearest: boolean,
): number[] {
  const nearest = isNearest ? spans.findLast(([, end]) => end < until)?.[1] : undefined;
  const least = Math.max(from, spans[0]?.[0] ?? Number.POSITIVE_INFINITY, nearest === undefined ? 0 : nearest + 1);
  const open: number[] = [];
  for (let at = last(until - 1); at !== undefined && at >= least && open.length < most; ) {
    const time = at;
    const span = spans.find(([first, end]) => first <= time && time <= end);
    if (!span) open.unshift(time);
    at = last((span ? span[0] : time) - 1);
  }
  return open;
}
