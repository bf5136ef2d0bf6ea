/** Each as often as its weight says, evenly spread. */

import type { Candidate, Change, Picker, Strategy } from './types.js';

/** Beyond this the strides miss too often: a pick would look at more than so many candidates. */
const MOST_LOOKS = 8;
/** What additions of fractions may lack of 1. */
const ROUNDING = 1e-9;
/** The golden ratio spreads the starts: neighbours don't come at once. */
const GOLDEN = 0.618_033_988_749_895;

/**
 * How far each is on its way to its next turn, from 0 to 1: what is carried over to the next list, so that a change gives
 * nobody a turn twice and makes nobody wait anew.
 */
interface Schedule {
  next(): number;
  phases(): Float64Array;
}

/** Goes round; at each look a candidate comes `rate` nearer to its turn. The heaviest has its turn at every look. */
class Strides implements Schedule {
  private place = 0;

  constructor(
    private readonly rates: Float64Array,
    private readonly phase: Float64Array,
    place: number,
  ) {
    this.place = place;
  }

  next(): number {
    const { rates, phase } = this;
    let place = this.place;
    for (;;) {
      const now = place;
      if (++place === rates.length) place = 0;
      const reached = (phase[now] as number) + (rates[now] as number);
      if (reached >= 1 - ROUNDING) {
        phase[now] = Math.max(0, reached - 1);
        this.place = place;
        return now;
      }
      phase[now] = reached;
    }
  }

  phases(): Float64Array {
    return this.phase;
  }
}

/** The earliest deadline first: a heap of the times at which each has its turn. */
class Deadlines implements Schedule {
  private readonly due: Float64Array;
  private readonly heap: Int32Array;
  private now = 0;

  constructor(
    private readonly rates: Float64Array,
    phase: Float64Array,
  ) {
    const { length } = rates;
    this.due = Float64Array.from(rates, (rate, place) => (1 - (phase[place] as number)) / rate);
    this.heap = Int32Array.from({ length }, (_, place) => place);
    for (let at = (length >> 1) - 1; at >= 0; at--) this.sink(at);
  }

  next(): number {
    const first = this.heap[0] as number;
    this.now = this.due[first] as number;
    this.due[first] = this.now + 1 / (this.rates[first] as number);
    this.sink(0);
    return first;
  }

  phases(): Float64Array {
    return this.due.map((due, place) => Math.min(1, Math.max(0, 1 - (due - this.now) * (this.rates[place] as number))));
  }

  private sink(from: number): void {
    const { heap, due } = this;
    const moving = heap[from] as number;
    const time = due[moving] as number;
    let at = from;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      const right = child + 1;
      if (right < heap.length && (due[heap[right] as number] as number) < (due[heap[child] as number] as number))
        child = right;
      if ((due[heap[child] as number] as number) >= time) break;
      heap[at] = heap[child] as number;
      at = child;
    }
    heap[at] = moving;
  }
}

class WeightedPicker implements Picker {
  private schedule: Schedule;

  constructor(
    private candidates: readonly Candidate[],
    start: number,
  ) {
    const phase = Float64Array.from(candidates, (_, place) => (start + place * GOLDEN) % 1);
    this.schedule = scheduleOf(candidates, phase, Math.floor(start * candidates.length));
  }

  pick(): Candidate {
    return this.candidates[this.schedule.next()] as Candidate;
  }

  update({ candidates, kept }: Change): boolean {
    const before = this.schedule.phases();
    const phase = new Float64Array(candidates.length);
    for (let place = 0; place < phase.length; place++) {
      const old = kept[place] as number;
      phase[place] = old >= 0 ? (before[old] as number) : (place * GOLDEN) % 1;
    }
    this.candidates = candidates;
    this.schedule = scheduleOf(candidates, phase, 0);
    return true;
  }

  explain({ weight }: Candidate): string {
    return `weight ${weight}`;
  }
}

function scheduleOf(candidates: readonly Candidate[], phase: Float64Array, place: number): Schedule {
  let [most, sum] = [0, 0];
  const rates = new Float64Array(candidates.length);
  for (let at = 0; at < rates.length; at++) {
    const { weight } = candidates[at] as Candidate;
    rates[at] = weight;
    if (weight > most) most = weight;
    sum += weight;
  }
  for (let at = 0; at < rates.length; at++) rates[at] = (rates[at] as number) / most;
  return most * rates.length > MOST_LOOKS * sum ? new Deadlines(rates, phase) : new Strides(rates, phase, place);
}

const WEIGHTED: Strategy = Object.freeze({
  name: 'weighted',
  bind: (candidates: readonly Candidate[], tools: { random(): number }) =>
    new WeightedPicker(candidates, tools.random()),
});

/**
 * Each in proportion to its weight, evenly spread: at any moment the count of each is within 2 of its share.
 *
 * Source: the static stride scheduler of gRPC's weighted round robin (proposal A58 and its C++ code), here with the place of
 * each kept over changes. Where one weight is beyond 8 times the mean, so that strides would miss too often, the earliest
 * deadline first, as Envoy has it.
 */
export const weighted = (): Strategy => WEIGHTED;
