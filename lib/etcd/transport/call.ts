/** What a call is to the batched boundary. */

import type { CallOptions } from '../rpc/calls.js';

/** Flags of a call: see `src/pages/mod.rs`. */
export const READS = 1;
export const POINT = 2;
export const NEEDS_LEADER = 4;
export const GROUPS = 8;

/** What a call is besides its body. */
export interface Call {
  /** The number of its method. */
  method: number;
  flags: number;
  /** 0 for none. */
  timeoutMs: number;
  /** The host that it is for; -1 for any. */
  member: number;
  signal?: AbortSignal | undefined;
}

/** A request that names a key and nothing else, before it is encoded. */
export interface PlainRequest {
  prefix: Buffer;
  key: string | Buffer;
  options: CallOptions | undefined;
}
