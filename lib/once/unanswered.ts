/**
 * Claims that had no answer: nothing was begun under them, so whoever finds one here may have its place, and it is taken back as soon as
 * the store can be asked.
 */

import { now } from '../common/clock.js';
import { pause } from '../common/waiting.js';
import type { OnceStore } from './store.js';

/** The most of them that are remembered: an older one is its runner's until its lock is over. */
const MOST = 1000;
/** How long to wait before the store is asked again, in milliseconds, doubled each time up to the most. */
const PAUSE_MS = 100;
const PAUSE_MOST_MS = 5000;

export class Unanswered {
  readonly #store: OnceStore;
  readonly #nonces = new Set<string>();
  #isClosed = false;

  constructor(store: OnceStore) {
    this.#store = store;
  }

  has(nonce: string): boolean {
    return this.#nonces.has(nonce);
  }

  /** Remembers a claim, and takes it back; for as long as it would be its runner's. */
  add(at: string, nonce: string, lockMs: number): void {
    const [oldest] = this.#nonces;
    if (this.#nonces.size >= MOST) this.#nonces.delete(oldest as string);
    this.#nonces.add(nonce);
    void this.#undo(at, nonce, now() + 2 * lockMs);
  }

  close(): void {
    this.#isClosed = true;
  }

  async #undo(at: string, nonce: string, until: number): Promise<void> {
    for (let pauseMs = PAUSE_MS; now() < until && this.#nonces.has(nonce); ) {
      await pause(pauseMs);
      pauseMs = Math.min(2 * pauseMs, PAUSE_MOST_MS);
      if (this.#isClosed) return;
      try {
        const seen = await this.#store.read('once', at);
        if (seen.record?.nonce !== nonce) break;
        const { seen: instead } = await this.#store.swap('once', at, seen, null);
        if (!instead) break;
      } catch {
        // Asked again.
      }
    }
    this.#nonces.delete(nonce);
  }
}
