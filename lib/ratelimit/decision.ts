/** What a limiter says of a request. */

/** Whether a request may go on. It is data: a limit never throws by itself. */
export interface Decision {
  readonly allowed: boolean;
  /** The largest burst: the capacity of the rule, of `shared` the share of this process. 0 of a rule that is not known. */
  readonly limit: number;
  /** Whole tokens that are left now. */
  readonly remaining: number;
  /** After how many milliseconds the same request would be let through if nobody took anything meanwhile; 0 where it is let through. */
  readonly retryAfterMs: number;
  /** After how many milliseconds all would be there again. */
  readonly resetMs: number;
  /** The name of the rule. */
  readonly rule: string;
  /**
   * Who decided: this process (`local`), by its share (`shared`), Redis (`redis`), what the rule says for the time that Redis does not
   * answer (`fallback`), or `unknownRule` (`unknown`).
   */
  readonly by: 'local' | 'shared' | 'redis' | 'fallback' | 'unknown';
}

/** @internal Numbers may be off by so many tokens, from sums of fractions: nobody is to be refused for that. */
export const SLACK = 1e-6;

/** The longest time that is told: of a rate next to nothing it would be beyond all that headers can have. */
const LONGEST_MS = Number.MAX_SAFE_INTEGER;

/** @internal In how many milliseconds so many tokens come back. */
export const msOf = (tokens: number, perMs: number): number =>
  tokens > 0 ? Math.min(Math.ceil(tokens / perMs), LONGEST_MS) : 0;

/**
 * A decision by what a subject has had.
 *
 * @param spent tokens that have not come back yet, with those of this request if it is allowed.
 * @param perMs tokens that come back in a millisecond.
 * @param lacking tokens that must come back before the request is let through; 0 if it is.
 * @internal
 */
export function decided(
  rule: string,
  by: Decision['by'],
  limit: number,
  spent: number,
  perMs: number,
  lacking: number,
): Decision {
  const left = Math.floor(limit - spent + SLACK);
  return {
    allowed: lacking === 0,
    limit: Math.floor(limit),
    remaining: Math.max(left, 0),
    // Half of it, so that sums of fractions do not have who comes then refused by a hair.
    retryAfterMs: lacking === 0 ? 0 : Math.max(1, msOf(lacking - SLACK / 2, perMs)),
    resetMs: msOf(spent, perMs),
    rule,
    by,
  };
}
