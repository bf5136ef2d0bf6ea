/**
 * One rule in one process: the generic cell rate algorithm (GCRA, ITU-T I.371), with one number for each subject.
 *
 * The number is when all that the subject has had is back. GCRA has it as a time; here it is on a clock that counts the tokens that come back
 * to whoever lacks them: `refilled`, which goes by `rate` tokens a second. What a subject has had is its number less the clock,
 * whatever the rate was meanwhile. So when the rate or the capacity changes, the clock goes faster or slower from then on, and nobody
 * gets a fresh bucket.
 *
 * The numbers are doubles. One that is `x` is off by at most `x / 2^53`, and each request adds one such error: at the highest
 * rate, of 1e6 a second, 0.2 % of a token after a year, else less in proportion.
 */

import { type Decision, decided, SLACK } from './decision.js';
import type { Rule } from './rule.js';
import { Subjects } from './subjects.js';

/** Where a rule is counted by this process. */
export class Meter {
  readonly name: string;
  readonly #subjects: Subjects;
  readonly #tellFull: () => void;
  #rule: Rule;
  /** Among how many it is divided. */
  #among: number;
  #perMs = 0;
  /** The largest burst. */
  #share = 0;
  #refilled = 0;
  #since: number;
  #latest: number;
  /** What all have had together for whom there is no room. */
  #others = 0;
  #isFull = false;

  constructor(name: string, rule: Rule, now: number, maxKeys: number, tellFull: () => void) {
    this.name = name;
    this.#rule = rule;
    this.#among = 1;
    this.#since = this.#latest = now;
    this.#subjects = new Subjects(maxKeys);
    this.#tellFull = tellFull;
    this.#divide();
  }

  get rule(): Rule {
    return this.#rule;
  }

  get size(): number {
    return this.#subjects.size;
  }

  /** Goes by another rule from now on, or among more or fewer. What was consumed stays so. */
  change(rule: Rule, among: number, now: number): void {
    if (rule === this.#rule && among === this.#among) return;
    this.#refilled = this.#at(now);
    this.#since = now;
    this.#rule = rule;
    this.#among = among;
    this.#divide();
  }

  /**
   * Takes so many tokens, if they are there. A request that costs more than the share of this process, but no more than the capacity,
   * is let through when all is there, and paid off by those that follow.
   */
  take(subject: string, cost: number, among: number, now: number, by: Decision['by'], name = this.name): Decision {
    if (among !== this.#among) this.change(this.#rule, among, now);
    const refilled = this.#at(now);
    const known = this.#subjects.get(subject);
    const spent = known > refilled ? known - refilled : 0;
    const share = this.#share;
    const lacking = spent + cost - Math.max(cost, share);
    if (lacking > SLACK) return decided(name, by, share, spent, this.#perMs, lacking);
    if (cost === 0) return decided(name, by, share, spent, this.#perMs, 0);
    if (this.#subjects.set(subject, refilled + spent + cost, refilled)) {
      if (this.#isFull && this.#subjects.hasRoom) this.#isFull = false;
      return decided(name, by, share, spent + cost, this.#perMs, 0);
    }
    return this.#takeOfOthers(cost, refilled, by, name);
  }

  /** By one bucket for all for whom there is no room: who brings ever new names gets no more by it. */
  #takeOfOthers(cost: number, refilled: number, by: Decision['by'], name: string): Decision {
    if (!this.#isFull) {
      this.#isFull = true;
      this.#tellFull();
    }
    const share = this.#share;
    const spent = this.#others > refilled ? this.#others - refilled : 0;
    const lacking = spent + cost - Math.max(cost, share);
    if (lacking > SLACK) return decided(name, by, share, spent, this.#perMs, lacking);
    this.#others = refilled + spent + cost;
    return decided(name, by, share, spent + cost, this.#perMs, 0);
  }

  /** The clock of tokens. It goes on from where it was where the other one is set back. */
  #at(now: number): number {
    if (now < this.#latest) this.#since -= this.#latest - now;
    this.#latest = now;
    return this.#refilled + (now - this.#since) * this.#perMs;
  }

  #divide(): void {
    const { rate, capacity } = this.#rule;
    this.#perMs = rate / 1000 / this.#among;
    this.#share = Math.max(1, capacity / this.#among);
  }
}
