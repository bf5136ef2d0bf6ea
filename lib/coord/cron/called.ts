/**
 * The ticks of a job that another scheduler calls, such as that of a framework. It says no time when it calls, so each process takes
 * its call for the latest tick of the expression by its own clock: all that call for one tick mean the same one, whatever their clocks.
 */

import { describe, type Log } from '../../common/logger.js';
import type { RollcallError } from '../../errors.js';
import { unlost } from '../locks/lock.js';
import type { Claim, Claims } from './claims.js';
import type { CronPlan, CronTick } from './options.js';
import { changeOf, LATE_MOST_MS, tickOf } from './tick.js';

/** How long before a tick a call is already one of it, in milliseconds: timers wake a little early, and clocks are set meanwhile. */
const EARLY_MOST_MS = 100;

/**
 * Claims the tick that a call made now is of, and runs `work` for it. `undefined`: it is another's, there is none, or
 * `signal` ended the wait for the claim. It is part of the signal of the tick. Rejects with the loss of the claim where that came before
 * `work` was done.
 *
 * @throws what `work` throws, and what the store refuses; with `outcomeUnknown` where it is not known whether it was claimed.
 */
export async function runCalled<T>(
  plan: CronPlan,
  claims: Claims,
  work: (tick: CronTick) => Promise<T>,
  signal: AbortSignal,
  log: Log,
): Promise<T | undefined> {
  const claim = await claimNow(plan, claims, signal);
  if (!claim) return undefined;
  const { at, held } = claim;
  let isDone = false;
  try {
    return await unlost(held, async () => {
      const value = await work(tickOf(claim, AbortSignal.any([held.signal, signal])));
      isDone = true;
      return value;
    });
  } finally {
    await claims.over(claim, isDone).catch((error: unknown) => {
      const tick = `the tick of ${plan.name} at ${new Date(at).toISOString()}`;
      log.write('warn', `cron: ${tick} is over, and the record of the job does not say so: ${describe(error)}`);
    });
  }
}

async function claimNow(plan: CronPlan, claims: Claims, signal: AbortSignal): Promise<Claim<number[]> | undefined> {
  const { expression, now } = plan;
  const called = now();
  const at = expression.last(called + EARLY_MOST_MS);
  if (at === undefined) return undefined;
  const end = Math.min(called + LATE_MOST_MS, expression.next(at) ?? Number.POSITIVE_INFINITY);
  try {
    return await claims.claim(at, changeOf(plan, at), () => now() >= end, signal);
  } catch (error) {
    if (signal.aborted && (error as RollcallError).code === 'ERR_ABORTED') return undefined;
    throw error;
  }
}
