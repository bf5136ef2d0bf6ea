/** What node-cron asks which of several instances is to run a task that is `distributed`. */

import { integer, invalid, kindOf, wellFormed } from '../../common/shape.js';
import { checked } from '../../registry/call.js';
import type { Claim, Claims } from './claims.js';
import { pathOfJob } from './options.js';
import { claimed, isClaimed } from './record.js';

/** The end of a key of node-cron: the time for which a run was scheduled. */
const TIME = /^(.+):(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)$/s;

/**
 * The `RunCoordinator` of node-cron 4.6: a run is claimed as a tick of `cron()` is, so it is one instance's alone, for ever. Made by
 * `coord.runCoordinator()`, for `setRunCoordinator()` or the option `runCoordinator` of a task.
 */
export class RunCoordinator {
  readonly #claimsOf: (path: string) => Claims;
  readonly #running = new Map<string, { readonly claims: Claims; readonly claim: Claim<null> }>();

  /** @internal */
  constructor(claimsOf: (path: string) => Claims) {
    this.#claimsOf = claimsOf;
  }

  /**
   * Whether this instance is to run it: it has claimed the run, and nobody else has or will. `key` is the name of the task, a colon and
   * the time in ISO 8601; `ttlMs` the time to live of what says that the runner lives, which renews itself until `onComplete()`.
   *
   * @throws as `Held.acquire()`, and with `outcomeUnknown` where it is not known whether the run was claimed: then nobody runs it.
   */
  async shouldRun(key: string, ttlMs: number): Promise<boolean> {
    const [path, at, ttl] = checked('shouldRun', () => {
      if (typeof key !== 'string') throw invalid('key', `expected a string, got ${kindOf(key)}`);
      const [, name = '', time = ''] = TIME.exec(wellFormed('key', key)) ?? [];
      const at = Date.parse(time);
      if (Number.isNaN(at)) throw invalid('key', 'expected the name of a task, a colon and a time in ISO 8601');
      // A name of node-cron may have what no part of a key has.
      return [pathOfJob(encodeURIComponent(name), 'key'), at, integer('ttlMs', ttlMs, 30_000, { min: 1 })] as const;
    });
    const claims = this.#claimsOf(path);
    const claim = await claims.claim<null>(
      at,
      (record, token) => (isClaimed(record, at) ? undefined : { record: claimed(record, at, token), told: null }),
      lateAfter(ttl),
      undefined,
      Math.max(ttl, 1000),
    );
    if (claim) this.#running.set(key, { claims, claim });
    return claim !== undefined;
  }

  /** The run is over, however it ended: what was held for it is given back. Harmless for a run that is another's. */
  async onComplete(key: string): Promise<void> {
    const run = this.#running.get(key);
    this.#running.delete(key);
    await run?.claims.settle(run.claim);
  }
}

/** Tries again until so much time has passed. */
function lateAfter(ms: number): () => boolean {
  const end = performance.now() + ms;
  return () => performance.now() >= end;
}
