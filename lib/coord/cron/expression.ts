/** When a job is due: a cron expression, read by the package `croner`. All times are milliseconds since 1970. */

import { invalid, kindOf } from '../../common/shape.js';
import { UnsupportedError } from '../../errors.js';

/** The longest expression, in characters. */
const TEXT_MOST = 256;

/** What is taken of the package `croner`. */
interface Croner {
  Cron: new (
    expression: string,
    options: { timezone: string },
  ) => {
    nextRun(after: Date): Date | null;
    previousRuns(count: number, before: Date): Date[];
  };
}

/** When a job is due. */
export interface Expression {
  /** The first time after this one; `undefined`: there is none. */
  next(after: number): number | undefined;
  /** The last time that is not after this one. */
  last(until: number): number | undefined;
}

/** Reads an expression for a time zone. Refuses one that is not due after `now`. */
export function expressionOf(value: unknown, zone: unknown, now: number): Expression {
  if (typeof value !== 'string') {
    throw invalid('expression', `expected a cron expression such as "0 3 * * *", got ${kindOf(value)}`);
  }
  if (value.length > TEXT_MOST) throw invalid('expression', `expected at most ${TEXT_MOST} characters`);
  // A date, which croner takes as well, is no expression.
  const fields = value.trim().split(/\s+/).length;
  if (!value.startsWith('@') && (fields < 5 || fields > 7)) {
    throw invalid('expression', `expected five to seven fields, such as "0 3 * * *", got ${value === '' ? 0 : fields}`);
  }
  const timezone = zoneOf(zone);
  const { Cron } = croner();
  let cron: InstanceType<Croner['Cron']>;
  try {
    cron = new Cron(value, { timezone });
  } catch (error) {
    throw invalid('expression', `expected a cron expression, such as "0 3 * * *": ${(error as Error).message}`, error);
  }
  const expression: Expression = {
    next: (after) => cron.nextRun(new Date(after))?.getTime(),
    last: (until) => cron.previousRuns(1, new Date(until + 1))[0]?.getTime(),
  };
  if (expression.next(now) === undefined) {
    throw invalid('expression', 'expected one that is due some time: there is no such day, or it is past');
  }
  return expression;
}

function zoneOf(value: unknown): string {
  if (value === undefined) return 'UTC';
  const expected = 'expected the name of a time zone, such as "Europe/Berlin"';
  if (typeof value !== 'string') throw invalid('options.timezone', `${expected}, got ${kindOf(value)}`);
  try {
    return new Intl.DateTimeFormat('en', { timeZone: value }).resolvedOptions().timeZone;
  } catch (error) {
    throw invalid('options.timezone', `${expected}: this Node.js knows no such zone`, error);
  }
}

let found: Croner | undefined;

function croner(): Croner {
  try {
    found ??= require('croner') as Croner;
    return found;
  } catch (error) {
    throw new UnsupportedError(
      'expected the package "croner" beside rollcall, to read expressions: npm install croner',
      {
        cause: error,
      },
    );
  }
}
