/** The errors that only `rollcall/uid` has. */

import { brand, type ErrorDetails, RollcallError } from '../errors.js';

/** What a `ClockError` tells. */
export interface ClockDetails extends ErrorDetails {
  /** By how many milliseconds the clock is off: above 0 ahead, below 0 behind. */
  offMs: number;
}

/** The clock of the machine can't be believed, or was set back and ids are not to be made before it has come on. No id was made. */
export class ClockError extends RollcallError {
  declare readonly code: 'ERR_CLOCK';
  /** By how many milliseconds the clock is off: above 0 ahead, below 0 behind. */
  readonly offMs: number;

  constructor(message: string, { offMs, ...details }: ClockDetails) {
    super('ERR_CLOCK', message, { retryable: true, ...details });
    this.offMs = offMs;
  }
}

/** What a `NoWorkerIdError` tells. */
export interface NoWorkerIdDetails extends ErrorDetails {
  /** Who holds them: the number and the name of each. */
  holders: readonly string[];
}

/** All worker ids of a service are held. One is free when a holder gives it back, or its time to live after it has died. */
export class NoWorkerIdError extends RollcallError {
  declare readonly code: 'ERR_NO_WORKER_ID';
  /** Who holds them: the number and the name of each, such as `3: orders-7f9c (1234)`. */
  readonly holders: readonly string[];

  constructor(message: string, { holders, ...details }: NoWorkerIdDetails) {
    super('ERR_NO_WORKER_ID', message, { retryable: true, ...details });
    this.holders = holders;
  }
}

brand(ClockError, 'ClockError');
brand(NoWorkerIdError, 'NoWorkerIdError');
