/** The errors that only `rollcall/once` has. Their `key` is the key of the call. */

import { brand, type ErrorDetails, RollcallError, TimeoutError, UnavailableError } from '../errors.js';

/** What an `InProgressError` tells. */
export interface InProgressDetails extends ErrorDetails {
  /** After how many milliseconds to ask again. */
  retryAfterMs: number;
}

/** Somebody else runs it, and has not come to an end. Nothing was run here. */
export class InProgressError extends RollcallError {
  declare readonly code: 'ERR_IN_PROGRESS';
  /** After how many milliseconds to ask again, as a rule: nobody knows when it ends. */
  readonly retryAfterMs: number;

  constructor(message: string, { retryAfterMs, ...details }: InProgressDetails) {
    super('ERR_IN_PROGRESS', message, { retryable: true, ...details });
    this.retryAfterMs = retryAfterMs;
  }
}

/** The key was used before, with another fingerprint. Nothing was run. */
export class KeyReusedError extends RollcallError {
  declare readonly code: 'ERR_KEY_REUSED';
  constructor(message: string, details?: ErrorDetails) {
    super('ERR_KEY_REUSED', message, details);
  }
}

/** What a `TakenOverError` tells. */
export interface TakenOverDetails extends ErrorDetails {
  /** The token of the run that was lost. */
  token: bigint;
}

/**
 * The run is not the current one any more: it was taken over, cleared, or can't be vouched for. Of a call it says that its function
 * ran and that what came of it was dropped; the record is that of who came after.
 */
export class TakenOverError extends RollcallError {
  declare readonly code: 'ERR_TAKEN_OVER';
  /** The token of the run that was lost. */
  readonly token: bigint;

  constructor(message: string, { token, ...details }: TakenOverDetails) {
    super('ERR_TAKEN_OVER', message, details);
    this.token = token;
  }
}

/** Somebody began it and did not come to an end: whether it was done is not known. `resolve()` or `clear()` says so. */
export class OutcomeUnknownError extends RollcallError {
  declare readonly code: 'ERR_OUTCOME_UNKNOWN';
  constructor(message: string, details?: ErrorDetails) {
    super('ERR_OUTCOME_UNKNOWN', message, { outcomeUnknown: true, ...details });
  }
}

/**
 * Whether a store could not be asked, which may be over soon.
 *
 * @internal
 */
export const isAway = (error: unknown): error is TimeoutError | UnavailableError =>
  error instanceof TimeoutError || error instanceof UnavailableError;

/**
 * An error of a store that could not be asked, where it does not matter to the caller whether it did what it was asked.
 *
 * @internal
 */
export function withNothingDone(error: TimeoutError | UnavailableError, told = ''): RollcallError {
  const { message, operation, endpoint, cause } = error;
  const Type = error instanceof TimeoutError ? TimeoutError : UnavailableError;
  return new Type(message + told, { operation, endpoint, cause });
}

brand(InProgressError, 'InProgressError');
brand(KeyReusedError, 'KeyReusedError');
brand(TakenOverError, 'TakenOverError');
brand(OutcomeUnknownError, 'OutcomeUnknownError');
