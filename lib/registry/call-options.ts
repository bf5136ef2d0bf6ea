/** What calls of a registry take. */

import { abortSignal, onlyKnown, optional } from '../common/shape.js';

/** Options of every call that waits. */
export interface CallOptions {
  /** In milliseconds. Default: `timeoutMs` of the registry. */
  timeoutMs?: number | undefined;
  /** Aborts the call, which then rejects with `ERR_ABORTED`. */
  signal?: AbortSignal | undefined;
}

/** Options of `register()`. */
export interface RegisterOptions extends CallOptions {
  /** `true`: resolve at once; the instance comes when it can. Default false. */
  background?: boolean | undefined;
  /** Of the stall guard of this instance, in milliseconds; 0 turns it off. Default: that of the registry. */
  stallTimeoutMs?: number | undefined;
}

/** Options of `getService()` and `services()`. */
export interface GetServiceOptions extends CallOptions {
  /** `true`: read the server, also when the name, or the names, are watched. Default false. */
  consistent?: boolean | undefined;
}

/** Options of `watch()`. */
export interface WatchOptions {
  /** Ends the watch, with `done` and without an error. */
  signal?: AbortSignal | undefined;
}

/** The signal of a watch. */
export function signalOf(options: WatchOptions | undefined): AbortSignal | undefined {
  const given = optional('options', options);
  onlyKnown('options', given, ['signal']);
  return abortSignal('options.signal', given.signal);
}
