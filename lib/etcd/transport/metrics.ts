/** What a client has counted, as a plain object. */

import { METHODS } from '../rpc/methods.js';

/** The counters of one method, such as `KV.range`. */
export interface IMethodMetrics {
  /** Calls begun. */
  calls: number;
  /** Calls that rejected. */
  failed: number;
  /** Of those, writes that may have been applied all the same. */
  outcomeUnknown: number;
  /** How long all calls that ended took together, tries again included, in milliseconds. */
  totalMs: number;
  /** Calls that ended, by how long they took: `counts[i]` took at most `bounds[i]` milliseconds, and the last longer. */
  latency: { bounds: number[]; counts: number[] };
}

/** What a client has counted since it was made. */
export interface IMetrics {
  /** Requests sent to members: calls, and their tries after the first. */
  attempts: number;
  /** Transactions that carried the gets of one tick together, and how many gets they carried. */
  groups: number;
  groupedGets: number;
  /** By method. What was never called is not there. */
  methods: { [method: string]: IMethodMetrics };
}

/**
 * What the native side counts.
 *
 * @internal
 */
export interface RawMetrics {
  attempts: number;
  groups: number;
  grouped: number;
  bucketsUs: number[];
  methods: { path: string; begun: number; failed: number; unknown: number; totalUs: number; buckets: number[] }[];
}

/** @internal */
export function toMetrics({ attempts, groups, grouped, bucketsUs, methods }: RawMetrics): IMetrics {
  const bounds = bucketsUs.map((us) => us / 1000);
  const named = methods.map(({ path, begun, failed, unknown, totalUs, buckets }): [string, IMethodMetrics] => {
    const method = METHODS.find((known) => known.path === path);
    return [
      method ? `${method.service}.${method.name}` : path,
      {
        calls: begun,
        failed,
        outcomeUnknown: unknown,
        totalMs: totalUs / 1000,
        latency: { bounds: [...bounds], counts: buckets },
      },
    ];
  });
  return { attempts, groups, groupedGets: grouped, methods: Object.fromEntries(named) };
}
