/** One tick of a job: what claims it, and what its function is told. */

import type { Change, Claim } from './claims.js';
import type { CronPlan, CronTick } from './options.js';
import { claimed, isClaimed, openBefore, runnerOf } from './record.js';

/** How late a tick may begin that is not caught up, in milliseconds; and not after the next one is due. */
export const LATE_MOST_MS = 60_000;
/** The most missed ticks that are told, or run, at a time. */
export const MISSED_MOST = 256;

/** What claims a tick. It tells which were missed before it. */
export function changeOf({ catchUp, expression, maxCatchUpMs }: CronPlan, at: number): Change<number[]> {
  return (record, token) => {
    const died = runnerOf(record, at) !== undefined;
    if (isClaimed(record, at)) {
      return died && catchUp !== 'none' ? { record: claimed(record, at, token), told: [] } : undefined;
    }
    const told = catchUp === 'all' ? [] : openBefore(record, at, expression, at - maxCatchUpMs, MISSED_MOST, true);
    // With `last` the one stands for all.
    const from = catchUp === 'last' ? (told[0] ?? at) : at;
    return { record: claimed(record, at, token, expression.next, from), told };
  };
}

/** What the function of a job gets. */
export function tickOf({ at, held, told }: Claim<number[]>, signal: AbortSignal): CronTick {
  return Object.freeze({
    at: new Date(at),
    token: held.token,
    signal,
    missed: Object.freeze(told.map((time) => new Date(time))),
  });
}
