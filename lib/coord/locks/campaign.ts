/** A candidate of an election. */

import { onAbort } from '../../common/abort.js';
import type { Log } from '../../common/logger.js';
import { pause } from '../../common/waiting.js';
import type { RollcallError } from '../../errors.js';
import { Events } from '../../registry/events.js';
import { LockLostError } from './errors.js';
import type { Held } from './held.js';
import type { Lock } from './lock.js';

/** The events of a campaign. */
export interface CampaignEvents {
  /** It leads, with this token. */
  elected: [held: Held];
  /** It led and doesn't any more, and with `keepCampaigning` stands in the queue again, at its end. Not after `resign()`. */
  lost: [error: RollcallError];
  /** It is over, and why: refused, or lost without `keepCampaigning`. Not after `resign()`. Nothing follows. */
  failed: [error: RollcallError];
}

/** How long a candidate waits at the most before it stands again, in milliseconds; a random share of it. */
const PAUSE_MS = 500;

/**
 * A candidate. It leads while `isLeader` says so, which asks the clock: there are never two who may act at one time, and what even
 * that can't exclude, a process that was stopped between looking and acting, its token does.
 */
export class Campaign {
  readonly #lock: Lock;
  readonly #keeps: boolean;
  readonly #events: Events<CampaignEvents>;
  readonly #over: () => void;
  readonly #ending = new AbortController();
  readonly #terms = new Set<() => void>();
  #held: Held | undefined;
  #failure: RollcallError | undefined;
  #resigned: Promise<void> | undefined;

  private constructor(lock: Lock, keeps: boolean, log: Log, over: () => void) {
    this.#lock = lock;
    this.#keeps = keeps;
    this.#over = over;
    this.#events = new Events<CampaignEvents>(['elected', 'lost', 'failed'], log);
  }

  /**
   * `over` is called when it has resigned, or failed.
   *
   * @internal
   */
  static start(lock: Lock, keeps: boolean, log: Log, over: () => void): Campaign {
    const campaign = new Campaign(lock, keeps, log, over);
    campaign.#run().catch((error: RollcallError) => campaign.#fail(error));
    return campaign;
  }

  /** Whether it leads at this moment, by the clock. */
  get isLeader(): boolean {
    return this.#held?.isHeld ?? false;
  }

  /** The fencing token while it leads, higher than that of every leader before. */
  get token(): bigint | undefined {
    return this.isLeader ? this.#held?.token : undefined;
  }

  /** Adds a listener. One that throws is logged, and stops nothing. */
  on<E extends keyof CampaignEvents>(event: E, listener: (...args: CampaignEvents[E]) => void): this {
    this.#events.add(event, listener, false);
    return this;
  }

  /** Adds a listener for the next time only. */
  once<E extends keyof CampaignEvents>(event: E, listener: (...args: CampaignEvents[E]) => void): this {
    this.#events.add(event, listener, true);
    return this;
  }

  /** Takes a listener back. */
  off<E extends keyof CampaignEvents>(event: E, listener: (...args: CampaignEvents[E]) => void): this {
    this.#events.remove(event, listener);
    return this;
  }

  /**
   * The terms in which it leads, the present one first: each as it begins, the latest where several came. `signal` of a term fires
   * when it is lost, and when coord is closed. Ends after `resign()`; throws what `failed` tells.
   */
  async *leaders(): AsyncIterableIterator<Held> {
    let told: Held | undefined;
    for (;;) {
      if (this.#held && this.#held !== told && this.isLeader) {
        told = this.#held;
        yield told;
        continue;
      }
      if (this.#failure) throw this.#failure;
      if (this.#resigned) return;
      await new Promise<void>((resolve) => this.#terms.add(resolve));
    }
  }

  /**
   * Ends it: it does not lead from here on, and another may as soon as this resolves. Harmless a second time.
   *
   * @throws as `Held.release()`.
   */
  resign(): Promise<void> {
    this.#resigned ??= (async () => {
      this.#ending.abort();
      this.#changed();
      await this.#held?.release();
    })().finally(this.#over);
    return this.#resigned;
  }

  /** Resigns because coord is closed: its term is lost to who is at work in it. @internal */
  async close(): Promise<void> {
    this.#held?.close().catch(() => {}); // as resigning tells
    await this.resign();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.resign();
  }

  async #run(): Promise<void> {
    while (!this.#resigned) {
      try {
        const held = await this.#lock.take('campaign', { timeoutMs: 0, signal: this.#ending.signal });
        if (this.#resigned) return await held.release(); // it came through in that moment
        this.#held = held;
        this.#changed();
        this.#events.tell('elected', held);
        await this.#fires(held.signal);
        if (this.#resigned) return;
        const error = held.signal.reason as RollcallError;
        if (!this.#keeps) throw error;
        this.#events.tell('lost', error);
      } catch (error) {
        if (this.#resigned) return;
        if (!this.#keeps || !(error instanceof LockLostError || (error as RollcallError).retryable)) throw error;
      }
      await pause(Math.random() * PAUSE_MS, this.#ending.signal);
    }
  }

  /** Resolves when this signal fires, or it is to end. */
  #fires(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal.aborted || this.#ending.signal.aborted) return resolve();
      const unlisten = [signal, this.#ending.signal].map((one) => onAbort(one, done));
      function done() {
        for (const end of unlisten) end();
        resolve();
      }
    });
  }

  #fail(error: RollcallError): void {
    this.#failure = error;
    this.#over();
    this.#changed();
    this.#events.tell('failed', error);
  }

  #changed(): void {
    for (const wake of this.#terms) wake();
    this.#terms.clear();
  }
}
