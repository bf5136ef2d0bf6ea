/** Redis as a limiter sees it: asked for a moment and no longer, and left alone while it does not answer. */

import { type Answer, Scripts } from '../common/redis.js';
import { type RollcallError, TimeoutError } from '../errors.js';
import { Deadlines } from './deadlines.js';
import type { Rule } from './rule.js';
import { TAKE } from './script.js';

/** What Redis said. */
export interface Taken {
  readonly allowed: boolean;
  /** Tokens that have not come back yet. */
  readonly spent: number;
}

/** Who hears how it stands. */
export interface StoreHearer {
  degraded(error: RollcallError): void;
  restored(): void;
}

/** How long it is left alone at first, and at most. */
const PAUSE_MS = 1000;
const MOST_PAUSE_MS = 30_000;
/** Of nobody who waits. */
const NEVER = String(Number.MAX_SAFE_INTEGER);

/** @internal */
export class Store {
  readonly #scripts: Scripts;
  readonly #timeoutMs: number;
  readonly #prefix: string;
  readonly #now: () => number;
  readonly #hearer: StoreHearer;
  readonly #deadlines: Deadlines;
  #isAway = false;
  #pauseMs = PAUSE_MS;
  #askAgainAt = 0;
  #restoredAt = Number.NEGATIVE_INFINITY;
  /** Whether an answer that came late has had Redis asked once more in this pause. */
  #isHurried = false;
  /** Redis' clock, in microseconds, as it was at `#sentAt` or later. Until it has said so, ours stands for it. */
  #clock = Date.now() * 1000;
  #sentAt: number;

  constructor(
    path: string,
    client: unknown,
    timeoutMs: number,
    prefix: string,
    now: () => number,
    hearer: StoreHearer,
  ) {
    this.#scripts = new Scripts(path, client);
    this.#timeoutMs = timeoutMs;
    this.#prefix = prefix;
    this.#now = now;
    this.#hearer = hearer;
    this.#deadlines = new Deadlines(timeoutMs);
    this.#sentAt = now();
  }

  get isAway(): boolean {
    return this.#isAway;
  }

  /** After how many milliseconds it is asked again. */
  get askedAgainInMs(): number {
    return Math.max(1, Math.ceil(this.#askAgainAt - this.#now()));
  }

  /** Nothing where Redis does not answer: at once if that is known. Never rejects. */
  async take(rule: Rule, name: string, subject: string, cost: number): Promise<Taken | undefined> {
    const key = `${this.#prefix}{${name}:${subject}}`;
    const began = this.#now();
    if (this.#isAway) {
      if (began >= this.#askAgainAt) this.#probe(rule, key, began);
      return undefined;
    }
    try {
      for (let tries = 0; tries < 2; tries++) {
        const sent = this.#now();
        const answer = await this.#within(key, [
          ...parts(rule),
          String(cost),
          String(Math.floor(this.#clock + (began + this.#timeoutMs - this.#sentAt) * 1000)),
        ]);
        const [said, spent, clock] = (answer as readonly Answer[]).map(Number) as [number, number, number];
        this.#clock = clock;
        this.#sentAt = sent;
        if (said >= 0) return { allowed: said === 1, spent: spent / 1e6 };
        // It came in time by our clock, so Redis' clock is another one than it was: now it is known.
      }
      throw new TimeoutError('allow: the clock of Redis jumps', { operation: 'allow' });
    } catch (error) {
      this.#failed(error);
      return undefined;
    }
  }

  #within(key: string, args: string[]): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const end = this.#deadlines.begin(() => {
        const message = `allow: no answer of Redis within ${this.#timeoutMs} ms`;
        reject(new TimeoutError(message, { operation: 'allow', outcomeUnknown: true }));
      });
      this.#scripts.attempt('allow', TAKE, [key], args).then(
        (answer) => {
          end();
          resolve(answer);
        },
        (error) => {
          end();
          reject(error);
        },
      );
    });
  }

  #failed(error: unknown): void {
    if (this.#isAway) return; // another has told
    const at = this.#now();
    const isSoon = at - this.#restoredAt < MOST_PAUSE_MS;
    this.#pauseMs = isSoon ? Math.min(this.#pauseMs * 2, MOST_PAUSE_MS) : PAUSE_MS;
    this.#isAway = true;
    this.#pause(at);
    this.#hearer.degraded(error as RollcallError);
  }

  #pause(at: number): void {
    this.#askAgainAt = at + this.#pauseMs * (0.9 + Math.random() / 5);
    this.#isHurried = false;
  }

  /** Asks without taking. No request waits for that; an answer that is late has it asked once more, at once. */
  async #probe(rule: Rule, key: string, began: number, isFirst = true): Promise<void> {
    if (isFirst) {
      this.#pauseMs = Math.min(this.#pauseMs * 2, MOST_PAUSE_MS);
      this.#pause(began);
    }
    try {
      const answer = await this.#scripts.attempt('allow', TAKE, [key], [...parts(rule), '0', NEVER]);
      if (!this.#isAway) return;
      const at = this.#now();
      if (at - began > this.#timeoutMs) {
        if (this.#isHurried) return;
        this.#isHurried = true;
        void this.#probe(rule, key, at, false);
        return;
      }
      this.#clock = Number((answer as readonly Answer[])[2]);
      this.#sentAt = began;
      this.#isAway = false;
      this.#restoredAt = at;
      this.#hearer.restored();
    } catch {
      // It is away; the pause has begun.
    }
  }
}

const parts = ({ rate, capacity }: Rule): string[] => [String(rate), String(capacity)];
