/** What a store of `rollcall/once` is. */

import type { Log } from '../common/logger.js';
import type { OnceRecord, Running, Seen } from './record.js';

/** What became of a change. */
export type Swapped =
  /** It was made: what stands there has this version. */
  | { readonly version: bigint; readonly seen?: undefined }
  /** Nothing was changed, for this is what stands there. */
  | { readonly version?: undefined; readonly seen: Seen };

/**
 * Where records are kept. Each step is one compare-and-swap of one record. Every call is over within the time of the store, and
 * rejects with `ERR_UNAVAILABLE` or `ERR_TIMEOUT` where it can't be asked; a change that may have been made all the same has `outcomeUnknown`.
 */
export interface OnceStore {
  /** The largest result that it is for, in bytes. */
  readonly maxResultBytes: number;
  /** It is used from now on, by one `Once`. */
  open(log: Log): void;
  read(operation: string, key: string): Promise<Seen>;
  /**
   * Puts a record there, or `null` for none, if what was seen still stands there; and, of a running one that was seen not to be alive,
   * if it still is not.
   */
  swap(operation: string, key: string, seen: Seen, next: OnceRecord | null): Promise<Swapped>;
  /**
   * Keeps a claim alive until what it gives is called, with whether its end is recorded; where it is not the claim is to die by itself, as
   * soon as can be. Tells once, by `lost`, that it can't be vouched for any more, and why; it is kept alive all the same where that is
   * possible.
   */
  keep(key: string, version: bigint, record: Running, lost: (why: string) => void): (isSettled: boolean) => void;
  /** Lets go of what it holds. The connection is the program's. */
  close(): Promise<void>;
}
