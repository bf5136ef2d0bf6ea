/** The errors of locks. */

import { brand, type ErrorDetails, RollcallError } from '../../errors.js';

/** What a `LockLostError` tells. */
export interface LockLostDetails extends ErrorDetails {
  /** The fencing token of what was lost. Default: none, for it was never held. */
  token?: bigint | undefined;
}

/**
 * A lock was lost, or a place in its queue: its lease expired or was revoked, its key was deleted, or the thread was silent for
 * longer than `stallTimeoutMs`. Somebody else may hold it. What was done under it since is not protected, unless it was done
 * with its token.
 */
export class LockLostError extends RollcallError {
  declare readonly code: 'ERR_LOCK_LOST';
  /** The fencing token of what was lost, if it was held. */
  declare readonly token?: bigint;

  constructor(message: string, { token, ...details }: LockLostDetails = {}) {
    super('ERR_LOCK_LOST', message, details);
    if (token !== undefined) this.token = token;
  }
}

brand(LockLostError, 'LockLostError');
