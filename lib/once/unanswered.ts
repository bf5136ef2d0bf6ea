/**
 * Claims that had no answer: nothing was begun under them, so whoever finds one here may have its place, and it is taken back as soon as
 * the store can be asked.
 */

import { now } from '../common/clock.js';
import { pause } from '../common/waiting.js';
import { isAway } from './errors.js';
import type { OnceStore } from './store.js';

/** The most of them that are remembered: an older one is its runner's until its lock is over. */
const MOST = 100_000;
/** How many are taken back at once, when one has shown that the store can be asked. */
const AT_ONCE = 64;
/** How long to wait before the store is asked again, in milliseconds, doubled each time up to the most. */
const PAUSE_MS = 100;
const PAUSE_MOST_MS = 5000;

interface Claim {
  readonly at: string;
  readonly until: number;
}

export class Unanswered {
  readonly #store: OnceStore;
  /** By their nonces, the oldest first. */
  readonly #claims = new Map<string, Claim>();
  #isAsking = false;
  #isClosed = false;

  constructor(store: OnceStore) {
    this.#store = store;
  }

  has(nonce: string): boolean {
    return this.#claims.has(nonce);
  }

  /** Remembers a claim, and takes it back; for as long as it would be its runner's. */
  add(at: string, nonce: string, lockMs: number): void {
    const [oldest] = this.#claims.keys();
    if (this.#claims.size >= MOST) this.#claims.delete(oldest as string);
    this.#claims.set(nonce, { at, until: now() + 2 * lockMs });
    if (!this.#isAsking) void this.#ask();
  }

  /** Takes back what can be now. Never rejects. */
  async takeBack(): Promise<boolean> {
    const all = [...this.#claims];
    for (let from = 0, count = 1; from < all.length; from += count, count = AT_ONCE) {
      const answered = await Promise.all(all.slice(from, from + count).map((one) => this.#undo(...one)));
      if (answered.includes(false)) return false;
    }
    return true;
  }

  close(): void {
    this.#isClosed = true;
  }

  async #ask(): Promise<void> {
    this.#isAsking = true;
    for (let pauseMs = PAUSE_MS; this.#claims.size > 0; ) {
      await pause(pauseMs);
      if (this.#isClosed) return;
      pauseMs = (await this.takeBack()) ? PAUSE_MS : Math.min(2 * pauseMs, PAUSE_MOST_MS);
    }
    this.#isAsking = false;
  }

  /** Says whether the store has answered. */
  async #undo(nonce: string, { at, until }: Claim): Promise<boolean> {
    if (now() >= until) return this.#forget(nonce);
    try {
      const seen = await this.#store.read('once', at);
      // Where it was changed meanwhile it may be looked at again.
      if (seen.record?.nonce === nonce && (await this.#store.swap('once', at, seen, null)).seen) return true;
      return this.#forget(nonce);
    } catch (error) {
      return isAway(error) ? false : this.#forget(nonce);
    }
  }

  #forget(nonce: string): true {
    this.#claims.delete(nonce);
    return true;
  }
}
