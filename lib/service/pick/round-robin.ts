/** One after the other. */

import type { Candidate, Change, Picker, Strategy, Tools } from './types.js';

class RoundRobinPicker implements Picker {
  private next: number;

  constructor(
    private candidates: readonly Candidate[],
    tools: Tools,
  ) {
    // Not the first: else all callers that start together would call the same one.
    this.next = Math.floor(tools.random() * candidates.length);
  }

  pick(): Candidate {
    const place = this.next;
    this.next = place + 1 === this.candidates.length ? 0 : place + 1;
    return this.candidates[place] as Candidate;
  }

  /** Goes on with the one whose turn it was. */
  update({ candidates, kept }: Change): boolean {
    const turn = kept.findIndex((old) => old >= this.next);
    this.candidates = candidates;
    this.next = Math.max(turn, 0);
    return true;
  }
}

const ROUND_ROBIN: Strategy = Object.freeze({
  name: 'roundRobin',
  bind: (candidates: readonly Candidate[], tools: Tools) => new RoundRobinPicker(candidates, tools),
});

/** Each in its turn, whatever its weight. Source: `RoundRobinStrategy` of Apache Curator; `round_robin` of gRPC. */
export const roundRobin = (): Strategy => ROUND_ROBIN;
