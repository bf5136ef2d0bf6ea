// What the tests of cron jobs share.
import { fileURLToPath } from 'node:url';
import type { Coord, CronJob, CronOptions, CronTick } from 'rollcall/coord';
import { ordered, type Script } from '../support/process.js';
import type { Finish } from './kit.js';

/** A tick that ran, or failed, in this process. */
export interface Ran {
  readonly at: number;
  readonly token: bigint;
  readonly missed: readonly number[];
}

/** A job that notes what it runs. */
export function noting(
  coord: Coord,
  name: string,
  options: CronOptions & { expression?: string; run?: (tick: CronTick) => unknown } = {},
): { job: CronJob; ran: Ran[]; failed: Error[] } {
  const { expression = '* * * * * *', run = () => {}, ...rest } = options;
  const [ran, failed]: [Ran[], Error[]] = [[], []];
  const job = coord.cron(
    name,
    expression,
    (tick) => {
      ran.push({ at: Number(tick.at), token: tick.token, missed: tick.missed.map(Number) });
      return run(tick);
    },
    rest,
  );
  job.on('failed', (error) => failed.push(error));
  return { job, ran, failed };
}

export interface Line {
  /** By the clock of the machine, in milliseconds. */
  at: number;
  event: 'ready' | 'runs' | 'done' | 'failed';
  tick?: number;
  /** How far its clock is ahead. */
  aheadMs?: number;
  token?: string;
  missed?: number[];
  code?: string;
}

export interface Order {
  url: string;
  name: string;
  expression?: string;
  options?: CronOptions;
  /** How far the clock of the process is ahead, in milliseconds; or so far that it is three seconds before a minute. */
  aheadMs?: number | 'justBeforeAMinute';
  /** How long a tick takes. */
  tickMs?: number;
}

const program = fileURLToPath(new URL('./fixtures/cron.mjs', import.meta.url));

/** A process of its own that has a job. */
export const worker = (finish: Finish, order: Order): Script<Line> => ordered<Line>(finish, program, order);
