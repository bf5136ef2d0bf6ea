/** What filters and strategies are made of. They know no clock and no chance of their own: both are handed in. */

import type { ServiceInstance } from '../../registry/instance.js';
import type { Endpoint } from '../endpoint.js';

/** What is known of an address from the calls that went there; instances that share an address share it. */
export interface Load {
  /** Calls that were picked and are not done. */
  inFlight: number;
  /** What a call takes there in milliseconds, as the strategy has it; negative before the first call. */
  latencyMs: number;
  /** When that was, by the clock of the tools. */
  latencyAt: number;
  /** It is set aside because calls to it failed. */
  readonly ejected: boolean;
}

/** An instance that may be picked, with one of its endpoints. */
export interface Candidate {
  readonly instance: ServiceInstance;
  readonly endpoint: Endpoint;
  /** From its metadata; from 1 to 1,000,000. */
  readonly weight: number;
  /** When it was first seen, by the clock of the tools; negative infinity for those of the first list. */
  readonly bornAt: number;
  readonly load: Load;
}

/**
 * Gives the candidates that fit, in the order in which it got them. It runs once for each change of the list, not for each
 * pick.
 */
export interface Filter {
  /** Under which `removedBy` counts what it took out. */
  readonly name: string;
  /** It looks at `load.ejected`: it runs again when an instance is set aside or comes back. Default false. */
  readonly live?: boolean;
  (candidates: readonly Candidate[]): readonly Candidate[];
}

/** What a strategy may ask. */
export interface Tools {
  /** Milliseconds of a monotonic clock. */
  now(): number;
  /** From 0 to below 1. */
  random(): number;
  /** Calls of the service that are under way. */
  inFlight(): number;
}

/** How a list differs from the one before it. Both are in the order of the ids. */
export interface Change {
  /** The new list. */
  readonly candidates: readonly Candidate[];
  /** For each of the new list its place in the old one; -1 when it was not there. */
  readonly kept: Int32Array;
  readonly added: readonly Candidate[];
  readonly removed: readonly Candidate[];
  /** Those whose instance changed, as they are now. */
  readonly updated: readonly Candidate[];
}

/** Those that may not be picked this time. */
export interface Skip {
  has(candidate: Candidate): boolean;
  /** How many of the list are left, at least. */
  readonly left: number;
}

/** A strategy at work on one list, which is never empty. */
export interface Picker {
  /** One of the list. `skip` is a hint to those who can heed it: whoever asked asks again when it gets one of these. */
  pick(key: string | undefined, skip?: Skip): Candidate;
  /** Goes over to the next list; `false`: a new picker is to be made. */
  update?(change: Change): boolean;
  /** A call is done. */
  feed?(candidate: Candidate, latencyMs: number, failed: boolean): void;
  /** Why it would take this one or not, in a few words. */
  explain?(candidate: Candidate): string;
}

/** How one of several candidates is chosen. Made once and used for many services. */
export interface Strategy {
  readonly name: string;
  /** A key decides, which must be given; an instance that is warming up keeps its keys. Default false. */
  readonly keyed?: boolean;
  bind(candidates: readonly Candidate[], tools: Tools): Picker;
}
