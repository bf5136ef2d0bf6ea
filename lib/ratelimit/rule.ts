/** What a rule says: what is written down, checked and completed. */

import { boolean, choice, invalid, isRecord, kindOf, onlyKnown, record, wellFormed } from '../common/shape.js';

/** Where it is counted what a subject has had: see `RateRule.mode`. */
export type RateMode = 'local' | 'shared' | 'distributed';

/** How much each subject may have. */
export interface RateRule {
  /**
   * `local`: each process counts by itself, and gives the whole rate. `shared`: each gives its share, which is rate and capacity by
   * the live instances of `options.registry`. `distributed`: all count together in `options.redis`.
   */
  readonly mode: RateMode;
  /** Tokens per second that come back to each subject, above 0, up to 1e6; fractions too: `0.1` is one in ten seconds. */
  readonly rate: number;
  /** How many tokens a subject has that has been quiet: the largest burst, from 1 to 1e9. */
  readonly capacity: number;
  /**
   * Of `distributed`, what decides while Redis does not answer. `local`: this process by rate and capacity by the instances of
   * `options.registry`, or by the whole of them without. Default `local`.
   */
  readonly onStoreFailure?: 'local' | 'allow' | 'deny' | undefined;
  /** Counts and tells, and lets everything through: to try a rule out. Default false. */
  readonly shadow?: boolean | undefined;
  /** For people. */
  readonly description?: string | undefined;
}

/** A rule, completed. */
export interface Rule {
  readonly mode: RateMode;
  readonly rate: number;
  readonly capacity: number;
  readonly onStoreFailure: 'local' | 'allow' | 'deny';
  readonly shadow: boolean;
  readonly description?: string;
}

const FIELDS = ['mode', 'rate', 'capacity', 'onStoreFailure', 'shadow', 'description'] as const;
/** Numbers grow by `rate` for as long as the process lives: in a year of it they still tell a 250th of a token. */
const MOST_RATE = 1e6;
const MOST_CAPACITY = 1e9;

/** @throws `ERR_INVALID_ARGUMENT` that names the field. */
export function ruleOf(path: string, value: unknown): Rule {
  const given = record(path, value, 'a rule');
  onlyKnown(path, given, FIELDS);
  const { description } = given;
  if (description !== undefined) {
    if (typeof description !== 'string') {
      throw invalid(`${path}.description`, `expected a string, got ${kindOf(description)}`);
    }
    wellFormed(`${path}.description`, description);
  }
  return {
    mode: choice<RateMode>(`${path}.mode`, given.mode, ['local', 'shared', 'distributed']),
    rate: amount(`${path}.rate`, given.rate, 0, MOST_RATE),
    capacity: amount(`${path}.capacity`, given.capacity, 1, MOST_CAPACITY),
    onStoreFailure: choice(
      `${path}.onStoreFailure`,
      given.onStoreFailure,
      ['local', 'allow', 'deny'] as const,
      'local',
    ),
    shadow: boolean(`${path}.shadow`, given.shadow, false),
    ...(description === undefined ? {} : { description }),
  };
}

/** Whether a value is no rule but an object of rules by their names, as a file of the store may be. */
export function isGroup(value: unknown): value is Readonly<Record<string, unknown>> {
  if (!isRecord(value)) return false;
  const all = Object.values(value);
  return all.length > 0 && all.every(isRecord);
}

function amount(path: string, value: unknown, min: number, max: number): number {
  if (typeof value === 'number' && value >= min && value > 0 && value <= max) return value;
  const range = min === 0 ? `above 0, up to ${max}` : `from ${min} to ${max}`;
  throw invalid(path, `expected a number ${range}, got ${typeof value === 'number' ? value : kindOf(value)}`);
}
