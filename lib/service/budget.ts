/** How many retries a service can bear. */

/** Options of a retry budget. */
export interface RetryBudgetOptions {
  /** Retries for each call, from 0 to 10. Default 0.2. */
  ratio?: number | undefined;
  /** Retries a second that are free, so that a rare call can be tried again too. Default 10. */
  minPerSecond?: number | undefined;
  /** How long a call counts, in milliseconds. Default 10,000. */
  windowMs?: number | undefined;
}

/** Into how many parts the window is divided: a call counts up to a tenth of it longer. */
const PARTS = 10;

/**
 * Bounds retries by the calls that were made: over any window at most `ratio` of the calls and `minPerSecond` more. Then an
 * outage, in which every call fails, is not made worse by trying each of them again and again.
 *
 * Source: `RetryBudget` of Twitter's Finagle, with its defaults: 20 % of the calls and 10 a second, over 10 s.
 */
export class RetryBudget {
  readonly #ratio: number;
  readonly #free: number;
  readonly #partMs: number;
  readonly #now: () => number;
  readonly #calls = new Float64Array(PARTS);
  readonly #retries = new Float64Array(PARTS);
  #part = 0;

  /** @internal */
  constructor(options: RetryBudgetOptions, now: () => number) {
    const { ratio = 0.2, minPerSecond = 10, windowMs = 10_000 } = options;
    this.#ratio = ratio;
    this.#free = (minPerSecond * windowMs) / 1000;
    this.#partMs = windowMs / PARTS;
    this.#now = now;
    this.#part = Math.floor(now() / this.#partMs);
  }

  /** A call was made: the first try of it. */
  deposit(): void {
    this.#calls[this.#turn()] = (this.#calls[this.#turn()] as number) + 1;
  }

  /** Asks for one retry; `false`: not now. */
  withdraw(): boolean {
    const place = this.#turn();
    if (this.balance < 1) return false;
    this.#retries[place] = (this.#retries[place] as number) + 1;
    return true;
  }

  /** How many retries are left now. */
  get balance(): number {
    this.#turn();
    let [calls, retries] = [0, 0];
    for (let place = 0; place < PARTS; place++) {
      calls += this.#calls[place] as number;
      retries += this.#retries[place] as number;
    }
    return Math.max(0, this.#free + calls * this.#ratio - retries);
  }

  /** The place of the present part; forgets those that are over. */
  #turn(): number {
    const part = Math.floor(this.#now() / this.#partMs);
    for (let gone = Math.min(part - this.#part, PARTS); gone > 0; gone--) {
      const place = (part - gone + 1) % PARTS;
      this.#calls[place] = 0;
      this.#retries[place] = 0;
    }
    this.#part = Math.max(part, this.#part);
    return this.#part % PARTS;
  }
}
