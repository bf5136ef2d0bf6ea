/** What a job is made with, checked. */

import { choice, integer, invalid, kindOf, onlyKnown, optional } from '../../common/shape.js';
import { partOf } from '../keys.js';
import { functionOf } from '../locks/lock.js';
import { pathOf } from '../locks/options.js';
import { type Expression, expressionOf } from './expression.js';

/** Where the records of jobs lie, and what is held while they run. */
const FOLDER = '/cron/';

/** One tick of a job, as its function gets it. */
export interface CronTick {
  /** When it was due, by the expression. */
  readonly at: Date;
  /** The fencing token: higher than that of every tick of this job that was claimed before. */
  readonly token: bigint;
  /** Fires when the claim is lost, after `timeoutMs`, and when the job is stopped. What is done after that is not protected. */
  readonly signal: AbortSignal;
  /** The ticks before it that nobody has claimed, the earliest first, the latest 256 of `maxCatchUpMs`: the program was away. */
  readonly missed: readonly Date[];
}

/** Options of `cron()`. */
export interface CronOptions {
  /** The time zone of the expression, such as `Europe/Berlin`. Default `UTC`, so that all instances agree. */
  timezone?: string | undefined;
  /** Who tries to claim a tick: `once`, every instance; `leader`, the one that leads `/cron/{name}/leader`. Default `once`. */
  mode?: 'once' | 'leader' | undefined;
  /**
   * What becomes of ticks that nobody has claimed in time, and of those whose runner died: `none`, they are told as `missed` at most;
   * `last`, the latest is run, if none after it was; `all`, each is run, the earliest first. Default `none`.
   */
  catchUp?: 'none' | 'last' | 'all' | undefined;
  /** How far back that goes, and `missed`, in milliseconds. Default 24 hours, at least 1000. */
  maxCatchUpMs?: number | undefined;
  /** For how long a tick may run, in milliseconds: then its `signal` fires, and `failed` is told. Default 0: no limit. */
  timeoutMs?: number | undefined;
  /** The clock, in milliseconds since 1970, for tests. Default `Date.now`. */
  now?: (() => number) | undefined;
}

/** What a job is made with, completed. */
export interface CronPlan {
  readonly name: string;
  /** Its record; below it lies what is held while a tick runs. */
  readonly path: string;
  readonly expression: Expression;
  readonly run: (tick: CronTick) => unknown;
  readonly mode: 'once' | 'leader';
  readonly catchUp: 'none' | 'last' | 'all';
  readonly maxCatchUpMs: number;
  readonly timeoutMs: number;
  readonly now: () => number;
}

const KNOWN = ['timezone', 'mode', 'catchUp', 'maxCatchUpMs', 'timeoutMs', 'now'] as const;

export function planOf(name: unknown, expression: unknown, run: unknown, options: unknown): CronPlan {
  const path = pathOfJob(name);
  const given = optional('options', options);
  onlyKnown('options', given, KNOWN);
  const { now = () => Date.now() } = given;
  if (typeof now !== 'function') throw invalid('options.now', `expected a function, got ${kindOf(now)}`);
  functionOf(run);
  return {
    name: name as string,
    path,
    expression: expressionOf(expression, given.timezone, (now as () => number)()),
    run: run as CronPlan['run'],
    mode: choice('options.mode', given.mode, ['once', 'leader'] as const, 'once'),
    catchUp: choice('options.catchUp', given.catchUp, ['none', 'last', 'all'] as const, 'none'),
    maxCatchUpMs: integer('options.maxCatchUpMs', given.maxCatchUpMs, 24 * 60 * 60 * 1000, { min: 1000 }),
    timeoutMs: integer('options.timeoutMs', given.timeoutMs, 0, { min: 1, zeroIsOff: true }),
    now: now as () => number,
  };
}

/** The path of a job, whose name is one part of a key. */
export function pathOfJob(name: unknown, argument = 'name'): string {
  const part = partOf(argument, name);
  pathOf(argument, FOLDER, `${part}/${new Date(0).toISOString()}`);
  return `${FOLDER}${part}`;
}
