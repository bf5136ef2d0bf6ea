/** Of two by chance the one with less to do. */

import { integer, onlyKnown, optional } from '../../common/shape.js';
import type { Candidate, Change, Load, Picker, Strategy, Tools } from './types.js';

/** Options of `leastLoaded()`. */
export interface LeastLoadedOptions {
  /** How fast a latency is forgotten: after so many milliseconds a third of it counts. Default 600. */
  tauMs?: number | undefined;
  /** Added to every latency, in milliseconds, so that small differences don't decide. Default 5. */
  floorMs?: number | undefined;
}

/** How much more than the mean a call that failed counts at least: who fails fast must not look quick. */
const FAILURE = 3;
/** How much more than the mean a call counts at most: a connection that was cold once is soon forgiven. */
const PEAK = 10;
/** How much of a new latency goes into the mean of all. */
const EASING = 0.05;

/**
 * What is left of a latency after `x` time constants: 1 over the first terms of e^x, which is within a hundredth of e^-x, and
 * takes a third of the time of `Math.exp()`. Every pick asks for two.
 */
const left = (x: number): number => 1 / (1 + x * (1 + x * (0.5 + x * (1 / 6 + x / 24))));

class LeastLoadedPicker implements Picker {
  /** Of all, for those of whom nothing is known. */
  private meanMs = 0;

  constructor(
    private candidates: readonly Candidate[],
    private readonly tools: Tools,
    private readonly tauMs: number,
    private readonly floorMs: number,
  ) {}

  pick(): Candidate {
    const { candidates, tools } = this;
    const { length } = candidates;
    const first = Math.floor(tools.random() * length);
    if (length === 1) return candidates[0] as Candidate;
    let second = Math.floor(tools.random() * (length - 1));
    if (second >= first) second++;
    const [a, b] = [candidates[first] as Candidate, candidates[second] as Candidate];
    const now = tools.now();
    // The costs, each multiplied by both weights: a division takes as long as all of this.
    return this.burden(b.load, now) * a.weight < this.burden(a.load, now) * b.weight ? b : a;
  }

  update({ candidates }: Change): boolean {
    this.candidates = candidates;
    return true;
  }

  feed({ load }: Candidate, latencyMs: number, failed: boolean): void {
    const now = this.tools.now();
    const most = this.meanMs === 0 ? latencyMs : PEAK * Math.max(this.meanMs, this.floorMs);
    const latency = Math.min(most, failed ? Math.max(latencyMs, FAILURE * this.meanMs) : latencyMs);
    const known = load.latencyMs >= 0;
    const kept = known ? left((now - load.latencyAt) / this.tauMs) : 0;
    const faded = load.latencyMs * kept;
    // A peak is believed at once, a lower latency as fast as the old one fades.
    load.latencyMs = !known || latency > faded ? latency : faded * kept + latency * (1 - kept);
    load.latencyAt = now;
    if (!failed) this.meanMs += (latency - this.meanMs) * (this.meanMs === 0 ? 1 : EASING);
  }

  explain(candidate: Candidate): string {
    const { load, weight } = candidate;
    const now = this.tools.now();
    const latency = this.latency(load, now);
    const cost = this.cost(candidate, now);
    const sum = `(${latency.toFixed(1)} + ${this.floorMs} ms) × (${load.inFlight} in flight + 1) / weight ${weight}`;
    return `cost ${cost.toPrecision(3)} = ${sum}`;
  }

  private cost({ load, weight }: Candidate, now: number): number {
    return this.burden(load, now) / weight;
  }

  private burden(load: Load, now: number): number {
    return (this.latency(load, now) + this.floorMs) * (load.inFlight + 1);
  }

  /**
   * It fades as it is read: one that was slow once is tried again. One that nothing is known of begins with the mean of the
   * others, which fades as well: theirs is refreshed, so its turn comes.
   */
  private latency(load: Load, now: number): number {
    if (load.latencyMs < 0) {
      if (this.meanMs === 0) return 0;
      load.latencyMs = this.meanMs;
      load.latencyAt = now;
    }
    return load.latencyMs * left((now - load.latencyAt) / this.tauMs);
  }
}

/**
 * Of two by chance the cheaper: (latency + `floorMs`) × (calls in flight + 1) / weight. The latency is the highest of late,
 * and fades. A call counts from the pick on, so that a burst does not fall on one. Without `done()` it balances by nothing.
 *
 * Source: the power of two choices (Mitzenmacher, 2001); peak EWMA of Twitter's Finagle, which fades the latency as it is
 * read; the time constant and the floor of Go Kratos's p2c. Without the fading one slow first call starves an instance.
 *
 * @throws `ERR_INVALID_ARGUMENT`
 */
export function leastLoaded(options?: LeastLoadedOptions): Strategy {
  const given = optional('options', options);
  onlyKnown('options', given, ['tauMs', 'floorMs']);
  const tauMs = integer('options.tauMs', given.tauMs, 600, { min: 1 });
  const floorMs = integer('options.floorMs', given.floorMs, 5, { min: 0 });
  return Object.freeze({
    name: 'leastLoaded',
    bind: (candidates: readonly Candidate[], tools: Tools) => new LeastLoadedPicker(candidates, tools, tauMs, floorMs),
  });
}
