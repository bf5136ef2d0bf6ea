/** Redis as a limiter sees it: asked for a moment and no longer, and left alone while it does not answer. */

import { type Answer, Scripts } from '../common/redis.js';
import { type RollcallError, TimeoutError } from '../errors.js';
import { Deadlines } from './deadlines.js';
import type { Rule } from './rule.js';
import { NEVER, TAKE } from './script.js';

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
/** So many requests go in one script at most, so that it is short. */
const AT_ONCE = 128;
/** What Redis Cluster says of a script for several subjects. */
const APART = /CROSSSLOT/;

/** Requests of one turn of the event loop, which go together. */
interface Batch {
  readonly keys: string[];
  readonly args: string[];
  readonly heard: ((taken: Taken | undefined) => void)[];
}

// Taken at import: fake timers of a test runner must not stop a request.
const afterThis = process.nextTick;

/** @internal */
export class Store {
  readonly #scripts: Scripts;
  readonly #timeoutMs: number;
  readonly #prefix: string;
  readonly #now: () => number;
  readonly #hearer: StoreHearer;
  readonly #deadlines: Deadlines;
  #batch: Batch | undefined;
  #atOnce = AT_ONCE;
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

  /** After how many milliseconds it is asked again. */
  get askedAgainInMs(): number {
    return Math.max(1, Math.ceil(this.#askAgainAt - this.#now()));
  }

  /** Nothing where Redis does not answer: at once if that is known. Never rejects. */
  take({ rate, capacity }: Rule, name: string, subject: string, cost: number): Promise<Taken | undefined> {
    const key = `${this.#prefix}{${plain(name)}:${subject}}`;
    if (this.#isAway) {
      const at = this.#now();
      if (at >= this.#askAgainAt) void this.#probe(key, [`${rate}`, `${capacity}`, '0'], at);
      return NOTHING;
    }
    const batch = this.#batch ?? this.#begin();
    batch.keys.push(key);
    batch.args.push(`${rate}`, `${capacity}`, `${cost}`);
    if (batch.keys.length >= this.#atOnce) this.#batch = undefined;
    return new Promise((resolve) => void batch.heard.push(resolve));
  }

  #begin(): Batch {
    const batch: Batch = { keys: [], args: [], heard: [] };
    this.#batch = batch;
    afterThis(() => {
      if (this.#batch === batch) this.#batch = undefined;
      void this.#send(batch);
    });
    return batch;
  }

  async #send(batch: Batch): Promise<void> {
    const { keys, args, heard } = batch;
    try {
      for (let tries = 0; tries < 2; tries++) {
        const sent = this.#now();
        const until = Math.floor(this.#clock + (sent + this.#timeoutMs - this.#sentAt) * 1000);
        const answer = (await this.#within(keys, [`${until}`, ...args])) as readonly Answer[];
        this.#clock = Number(answer[0]);
        this.#sentAt = sent;
        if (answer.length > 1) {
          for (let i = 0; i < heard.length; i++) {
            heard[i]?.({ allowed: Number(answer[2 * i + 1]) === 1, spent: Number(answer[2 * i + 2]) / 1e6 });
          }
          return;
        }
        // It was sent too late by a thread that was busy, or Redis' clock is another one than it was. Nothing was taken.
      }
      throw new TimeoutError('allow: the clock of Redis jumps', { operation: 'allow' });
    } catch (error) {
      if (keys.length > 1 && APART.test((error as Error).message)) {
        this.#atOnce = 1;
        for (const one of apart(batch)) void this.#send(one);
        return;
      }
      this.#failed(error);
      for (const hear of heard) hear(undefined);
    }
  }

  #within(keys: string[], args: string[]): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const end = this.#deadlines.begin(() => {
        const message = `allow: no answer of Redis within ${this.#timeoutMs} ms`;
        reject(new TimeoutError(message, { operation: 'allow', outcomeUnknown: true }));
      });
      this.#scripts.attempt('allow', TAKE, keys, args).then(
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

  /** Asks without taking, whether it takes writes as well. No request waits for that; an answer that is late has it asked once more, at once. */
  async #probe(key: string, args: string[], began: number, isFirst = true): Promise<void> {
    if (isFirst) {
      this.#pauseMs = Math.min(this.#pauseMs * 2, MOST_PAUSE_MS);
      this.#pause(began);
    }
    try {
      const answer = await this.#scripts.attempt('allow', TAKE, [key], [NEVER, ...args]);
      if (!this.#isAway) return;
      const at = this.#now();
      if (at - began > this.#timeoutMs) {
        if (this.#isHurried) return;
        this.#isHurried = true;
        void this.#probe(key, args, at, false);
        return;
      }
      this.#clock = Number((answer as readonly Answer[])[0]);
      this.#sentAt = began;
      this.#isAway = false;
      this.#restoredAt = at;
      this.#hearer.restored();
    } catch {
      // It is away; the pause has begun.
    }
  }
}

/** A name without what ends a name in a key, or a tag of Redis Cluster. */
const plain = (name: string): string => (/[:%{}]/.test(name) ? encodeURIComponent(name) : name);

const NOTHING: Promise<undefined> = Promise.resolve(undefined);

/** The same requests, one by one. */
const apart = ({ keys, args, heard }: Batch): Batch[] =>
  keys.map((key, i) => ({
    keys: [key],
    args: args.slice(3 * i, 3 * i + 3),
    heard: [heard[i] as (taken: Taken | undefined) => void],
  }));
