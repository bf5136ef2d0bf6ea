/** Each with the chance that its weight says. */

import type { Candidate, Picker, Strategy, Tools } from './types.js';

/** Two columns for each place: how likely it is itself, and who it is else. */
class AliasPicker implements Picker {
  private readonly chance: Float64Array;
  private readonly alias: Int32Array;

  constructor(
    private readonly candidates: readonly Candidate[],
    private readonly tools: Tools,
  ) {
    const { length } = candidates;
    this.chance = new Float64Array(length).fill(1);
    this.alias = new Int32Array(length);
    // Loops, for it is made anew with every change: `from()` with a function takes several times as long.
    let sum = 0;
    for (const { weight } of candidates) sum += weight;
    const scaled = new Float64Array(length);
    for (let place = 0; place < length; place++) {
      this.alias[place] = place;
      scaled[place] = ((candidates[place] as Candidate).weight * length) / sum;
    }
    // One array, two stacks: those below the mean from the left, those above from the right.
    const order = new Int32Array(length);
    let [small, large] = [0, length];
    for (let place = 0; place < length; place++) {
      if ((scaled[place] as number) < 1) order[small++] = place;
      else order[--large] = place;
    }
    while (small > 0 && large < length) {
      const poor = order[--small] as number;
      const rich = order[large] as number;
      this.chance[poor] = scaled[poor] as number;
      this.alias[poor] = rich;
      const left = (scaled[rich] as number) + (scaled[poor] as number) - 1;
      scaled[rich] = left;
      if (left < 1) {
        large++;
        order[small++] = rich;
      }
    }
  }

  pick(): Candidate {
    const at = this.tools.random() * this.candidates.length;
    const place = Math.floor(at);
    const taken = at - place < (this.chance[place] as number) ? place : (this.alias[place] as number);
    return this.candidates[taken] as Candidate;
  }

  explain({ weight }: Candidate): string {
    return `weight ${weight}`;
  }
}

const WEIGHTED_RANDOM: Strategy = Object.freeze({
  name: 'weightedRandom',
  bind: (candidates: readonly Candidate[], tools: Tools) => new AliasPicker(candidates, tools),
});

/** By chance, in proportion to the weights. Source: the alias method (Walker, 1977; Vose, 1991): one number for each pick. */
export const weightedRandom = (): Strategy => WEIGHTED_RANDOM;
