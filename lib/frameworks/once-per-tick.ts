/** Methods that a scheduler calls in every instance of the program, and that one of them runs at each tick. */

import { invalid, onlyKnown, optional } from '../common/shape.js';
import type { CronPlan } from '../coord/cron/options.js';
import type { Coord, CronTick } from '../coord/index.js';
import { AbortedError } from '../errors.js';
import type { AppLogger } from './logger.js';
import { around, FilledParameter, type Method, type Place } from './methods.js';
import { explained } from './open.js';
import { LEAVING_MS, Running, stillRun } from './running.js';

/** Not before a program has such a method: what it does not use is not loaded. */
const cronOptions = () => require('../coord/cron/options.js') as typeof import('../coord/cron/options.js');

/** How the expression of a method is meant. */
export interface OncePerTickOptions {
  /** Its time zone, such as `Europe/Berlin`: that of the scheduler. Default `UTC`. */
  timezone?: string | undefined;
}

const KNOWN = ['timezone'] as const;

/** The parameter that gets the tick. */
export const HELD_TICK = new FilledParameter('@HeldTick');

/** What a decorated method has. */
export interface TickMark {
  readonly plan: CronPlan;
  readonly path: string;
}

/** The ticks of the methods of an application. */
export class MethodTicks {
  readonly #coord: Coord;
  readonly #log: AppLogger;
  readonly #running = new Running();
  readonly #leaving = new AbortController();

  constructor(coord: Coord, log: AppLogger) {
    this.#coord = coord;
    this.#log = log;
  }

  /** Looks at the methods of an application. @throws `ERR_INVALID_ARGUMENT` where two have one name: one of them would never run. */
  start(marks: Iterable<TickMark>): void {
    const known = new Map<string, string>();
    for (const { plan, path } of marks) {
      const other = known.get(plan.name) ?? path;
      if (other !== path) {
        throw invalid(
          `${path}: name`,
          `expected another one than that of ${other}, for a tick of ${plan.name} is run once`,
        );
      }
      known.set(plan.name, path);
    }
  }

  /** Runs `work` if nobody has run the tick that it is; else it is not run, and `undefined`. */
  async run<T>({ plan }: TickMark, work: (tick: CronTick) => Promise<T>): Promise<T | undefined> {
    const { signal } = this.#leaving;
    if (signal.aborted) return undefined;
    return await this.#running.run(async () => await this.#coord.runCalled(plan, work, signal));
  }

  /** Begins no tick any more, tells those that run by their signal, and waits for them, for ten seconds at the most. Never rejects. */
  async leave(): Promise<void> {
    if (this.#leaving.signal.aborted) return;
    this.#leaving.abort(new AbortedError('the application is stopping'));
    const count = await this.#running.over(LEAVING_MS);
    if (count > 0) this.#log.warn(`${stillRun(count)} at a tick, whose claim is lost when coord is closed`);
  }
}

/**
 * What stands in the place of a method that runs once for each tick, and which ticks. `ticksOf` gives those of the application that an
 * object is of.
 *
 * @throws `ERR_INVALID_ARGUMENT`; `ERR_UNSUPPORTED` without croner.
 */
export function tickMethod(
  place: Place,
  name: string,
  expression: string,
  given: OncePerTickOptions | undefined,
  ticksOf: (self: object) => MethodTicks,
): { method: Method; mark: TickMark } {
  const mark = { plan: checked(place, name, expression, given), path: place.path };
  const method = around(place.method, async (self, args) => {
    return await ticksOf(self).run(mark, async (tick) => {
      return await place.method.apply(
        self,
        HELD_TICK.fill(place, args, () => tick),
      );
    });
  });
  return { method, mark };
}

function checked({ path, method }: Place, name: string, expression: string, given: unknown): CronPlan {
  try {
    const options = optional('options', given);
    onlyKnown('options', options, KNOWN);
    return cronOptions().planOf(name, expression, method, options);
  } catch (error) {
    throw explained(path, error);
  }
}
