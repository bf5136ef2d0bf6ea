/** Any of them. */

import type { Candidate, Change, Picker, Strategy, Tools } from './types.js';

class RandomPicker implements Picker {
  constructor(
    private candidates: readonly Candidate[],
    private readonly tools: Tools,
  ) {}

  pick(): Candidate {
    return this.candidates[Math.floor(this.tools.random() * this.candidates.length)] as Candidate;
  }

  update({ candidates }: Change): boolean {
    this.candidates = candidates;
    return true;
  }
}

const RANDOM: Strategy = Object.freeze({
  name: 'random',
  bind: (candidates: readonly Candidate[], tools: Tools) => new RandomPicker(candidates, tools),
});

/** Each with the same chance, whatever its weight. Source: `RandomStrategy` of Apache Curator. */
export const random = (): Strategy => RANDOM;
