/** One pick: the instance to call, and what is to be told when the call is done. */

import { invalid, isRecord, kindOf, shown } from '../common/shape.js';
import type { ServiceInstance } from '../registry/instance.js';
import type { Balancer, ServiceCandidate } from './balance.js';
import type { Endpoint } from './endpoint.js';
import { outcomeOf } from './outcome.js';
import type { Picker } from './pick/types.js';

/** What a call came to. */
export interface CallResult {
  /**
   * What it failed with. A refused connection sets the instance aside at once. An abort counts for nothing; nor does a
   * status of gRPC other than DEADLINE_EXCEEDED and UNAVAILABLE speak against the instance, which has answered after all.
   */
  error?: unknown;
  /** Whether the instance is to blame, whatever `error` is: for answers such as a status 503. */
  failed?: boolean | undefined;
  /** How long it took. Default: the time since the pick. */
  latencyMs?: number | undefined;
}

/** An instance that was picked. */
export interface Picked {
  readonly instance: ServiceInstance;
  /** The endpoint to call: the first of the instance that fits. */
  readonly endpoint: Endpoint;
  /**
   * Tell it once, when the call is done: until then it counts as under way. A second time is ignored. If it is never told,
   * the call counts until the pick is collected as garbage. It needs no `this`.
   *
   * @throws `ERR_INVALID_ARGUMENT`; the call is then done all the same.
   */
  readonly done: (result?: CallResult) => void;
}

/** How many picks are watched as one. */
const BATCH = 64;

/** Some picks in a row: which of them are not done. It does not refer to the picks. */
interface Tally {
  readonly balancer: Balancer;
  readonly open: (ServiceCandidate | undefined)[];
  readonly probes: Set<ServiceCandidate>;
}

/** Held by each pick of a tally, and by nobody else when the next has begun. */
interface Token {
  readonly tally: Tally;
}

/**
 * Picks that were forgotten: when all of a batch are garbage, what is open of them never will be done. One registration for
 * 64 picks, since one for each would take longer than the pick.
 */
const forgotten = new FinalizationRegistry<Tally>(({ balancer, open, probes }) => {
  let count = 0;
  for (const candidate of open) {
    if (!candidate) continue;
    count++;
    candidate.load.inFlight--;
    balancer.inFlight--;
    if (probes.has(candidate)) balancer.ejector?.dropProbe(candidate.load);
  }
  if (count > 0) {
    balancer.tellOnce('done', 'done() was never called for a pick, which counted as a call under way until now');
  }
});

/** Hands out picks and counts them. */
export class Tickets {
  readonly #balancer: Balancer;
  #token: Token;
  /** How many were handed out. */
  picks = 0;

  constructor(balancer: Balancer) {
    this.#balancer = balancer;
    this.#token = this.#next();
  }

  /** A call to `candidate` begins now, by the clock of the balancer. */
  issue(candidate: ServiceCandidate, picker: Picker, isProbe: boolean): Picked {
    const balancer = this.#balancer;
    let token = this.#token;
    if (token.tally.open.length === BATCH) {
      token = this.#next();
      this.#token = token;
    }
    const place = token.tally.open.push(candidate) - 1;
    if (isProbe) token.tally.probes.add(candidate);
    candidate.load.inFlight++;
    balancer.inFlight++;
    this.picks++;
    const startedAt = balancer.clock;
    const done = (result?: CallResult) => {
      const { open, probes } = token.tally; // the token lives as long as this function
      if (open[place] === undefined) return;
      open[place] = undefined;
      if (isProbe) probes.delete(candidate);
      candidate.load.inFlight--;
      balancer.inFlight--;
      balancer.clock = balancer.tools.now();
      const took = balancer.clock - startedAt;
      if (result === undefined) {
        balancer.done(candidate, picker, { outcome: 'success', latencyMs: took, startedAt, isProbe });
        return;
      }
      let latencyMs: number;
      try {
        latencyMs = check(result) ?? took;
      } catch (error) {
        if (isProbe) balancer.ejector?.dropProbe(candidate.load);
        throw error;
      }
      const outcome = outcomeOf(result.error, result.failed);
      balancer.done(candidate, picker, { outcome, latencyMs, startedAt, isProbe });
    };
    return { instance: candidate.instance, endpoint: candidate.endpoint, done };
  }

  #next(): Token {
    const tally: Tally = { balancer: this.#balancer, open: [], probes: new Set() };
    const token = { tally };
    forgotten.register(token, tally);
    return token;
  }
}

/** The latency that was told. */
function check(result: unknown): number | undefined {
  if (!isRecord(result)) {
    const hint = result instanceof Error ? ': write done({ error })' : '';
    throw invalid('result', `expected an object, got ${result instanceof Error ? 'an error' : kindOf(result)}${hint}`);
  }
  const { latencyMs, failed } = result;
  if (failed !== undefined && typeof failed !== 'boolean') {
    throw invalid('result.failed', `expected true or false, got ${kindOf(failed)}`);
  }
  if (latencyMs === undefined) return undefined;
  if (typeof latencyMs !== 'number' || !Number.isFinite(latencyMs) || latencyMs < 0) {
    throw invalid('result.latencyMs', `expected a number of milliseconds from 0 on, got ${shown(latencyMs)}`);
  }
  return latencyMs;
}
