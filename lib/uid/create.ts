/** The way in. What ids are made with is loaded with the first of them: a module that only imports this entry point costs none of it. */

import type { CoordUidOptions, FixedUidOptions, Uid } from './uid.js';

const ids = () => require('./uid.js') as typeof import('./uid.js');

/**
 * Ids of 63 bits: the time, a worker id, a sequence. With `coord` the worker id is one that the store gives, and no two processes make the same id
 * whatever becomes of their leases and clocks; see docs/uid.md for how. With `workerId` nothing is asked of anybody.
 *
 * Resolves when there is a worker id, which is held until `close()`, or that of `coord`. What may pass by itself is tried again for `timeoutMs`; that all are held is said at once.
 *
 * @throws `ERR_INVALID_ARGUMENT`, `ERR_NO_WORKER_ID`, `ERR_CLOCK` where the clock is more than a minute ahead of all who live, `ERR_UNSUPPORTED` where
 * the store holds no leases, `ERR_UNAVAILABLE`, `ERR_TIMEOUT`, `ERR_PERMISSION_DENIED`, `ERR_ABORTED`, `ERR_CLOSED`.
 */
export async function createUid(options: CoordUidOptions | FixedUidOptions): Promise<Uid> {
  return await ids().opened(options);
}
