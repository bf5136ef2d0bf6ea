/** A job that runs at the ticks of an expression, each of them once among all that have it. */

import { onAbort } from '../../common/abort.js';
import { after } from '../../common/clock.js';
import { describe, type Log } from '../../common/logger.js';
import { outcomeOf, pause } from '../../common/waiting.js';
import { AbortedError, type RollcallError, TimeoutError } from '../../errors.js';
import { Events } from '../../registry/events.js';
import type { Campaign } from '../locks/campaign.js';
import type { Claim, Claims } from './claims.js';
import type { CronPlan } from './options.js';
import { begun, type JobRecord, openBefore } from './record.js';
import { changeOf, LATE_MOST_MS, MISSED_MOST, tickOf } from './tick.js';

/** The events of a job. */
export interface CronEvents {
  /**
   * A tick failed, and which one: what its function threw, a timeout, the loss of its claim, or that it could not be claimed, for
   * the store refuses or was away too long. The job goes on, but after `ERR_UNSUPPORTED` and `ERR_CLOSED`.
   */
  failed: [error: Error, at: Date];
}

/**
 * How long to sleep at a time, in milliseconds: a timer does not notice that the clock was set, nor that the machine slept, and
 * Node.js has none for longer than 24.8 days.
 */
const SLEEP_MOST_MS = 15_000;
/** How often to look whether who runs a tick has died, where that is caught up, in milliseconds. */
const LOOK_MS = 5000;
/** For how long a function is waited for that was told to end, in milliseconds. */
const ENDING_MS = 10_000;

/** What a job is made of. */
interface Making {
  readonly plan: CronPlan;
  readonly claims: Claims;
  readonly campaign: Campaign | undefined;
  readonly log: Log;
  /** Asks the store for something that only one can answer that takes jobs. */
  ask(signal: AbortSignal): Promise<unknown>;
  /** Called at the end. */
  over(): void;
}

/** A cron job of this process, until `stop()`, or until coord is closed. It keeps the process alive. */
export class CronJob {
  /** What its instances have in common. */
  readonly name: string;
  readonly #plan: CronPlan;
  readonly #claims: Claims;
  readonly #campaign: Campaign | undefined;
  readonly #log: Log;
  readonly #events: Events<CronEvents>;
  readonly #ending = new AbortController();
  readonly #done: Promise<void>;
  /** Ticks up to here are no business of this process any more. */
  #after: number;
  #isRunning = false;
  /** Others run ticks that are to be caught up should they die. */
  #watches = false;
  #wake = () => {};

  private constructor({ plan, claims, campaign, log, ask, over }: Making) {
    this.name = plan.name;
    this.#plan = plan;
    this.#claims = claims;
    this.#campaign = campaign;
    this.#log = log;
    this.#events = new Events<CronEvents>(['failed'], log);
    this.#after = plan.now();
    campaign?.on('elected', () => this.#wake()).on('failed', (error) => this.#fail(error, plan.now()));
    // What no time changes is told at once, and not in the night.
    ask(this.#ending.signal).catch((error: unknown) => this.#fail(error, plan.now()));
    this.#done = this.#run()
      .catch((error: unknown) => this.#fail(error, plan.now()))
      .finally(async () => {
        this.#ending.abort();
        await campaign?.resign().catch(() => {});
        over();
      });
  }

  /** @internal */
  static start(making: Making): CronJob {
    return new CronJob(making);
  }

  /** When it is due next, by its expression and the clock of this process; `undefined`: never again, or it was stopped. */
  get next(): Date | undefined {
    if (this.#ending.signal.aborted) return undefined;
    const next = this.#plan.expression.next(this.#plan.now());
    return next === undefined ? undefined : new Date(next);
  }

  /** Whether a tick runs in this process now. Those of one job run one after another here. */
  get running(): boolean {
    return this.#isRunning;
  }

  /** Adds a listener. One that throws is logged, and stops nothing. Without one, `failed` is logged. */
  on<E extends keyof CronEvents>(event: E, listener: (...args: CronEvents[E]) => void): this {
    this.#events.add(event, listener, false);
    return this;
  }

  /** Adds a listener for the next time only. */
  once<E extends keyof CronEvents>(event: E, listener: (...args: CronEvents[E]) => void): this {
    this.#events.add(event, listener, true);
    return this;
  }

  /** Takes a listener back. */
  off<E extends keyof CronEvents>(event: E, listener: (...args: CronEvents[E]) => void): this {
    this.#events.remove(event, listener);
    return this;
  }

  /**
   * Ends it here: nothing is claimed any more, and the `signal` of the tick that runs fires. Resolves when that has ended, after ten
   * seconds at the latest, and its claim was given back. Never rejects; harmless a second time.
   */
  stop(): Promise<void> {
    this.#ending.abort(new AbortedError('cron: the job was stopped', { operation: 'cron' }));
    return this.#done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #run(): Promise<void> {
    const { catchUp, expression } = this.#plan;
    if (catchUp !== 'none' && !this.#campaign) await this.#look();
    for (;;) {
      const next = expression.next(this.#after);
      if (next === undefined && !this.#watches) return;
      await this.#until(next ?? Number.POSITIVE_INFINITY);
      if (this.#ending.signal.aborted) return;
      await this.#look();
      if (this.#ending.signal.aborted) return;
    }
  }

  /** Resolves when the clock says so, or there is another reason to look. */
  async #until(due: number): Promise<void> {
    const { signal } = this.#ending;
    const woken = new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    const look = this.#watches ? this.#plan.now() + LOOK_MS : Number.POSITIVE_INFINITY;
    while (!signal.aborted) {
      const now = this.#plan.now();
      // The clock was set back: by far, or it would be told by the record that the tick was claimed.
      if (now < this.#after - SLEEP_MOST_MS) this.#after = now;
      const left = Math.min(due, look) - now;
      const isIdle = this.#campaign !== undefined && !this.#campaign.isLeader;
      if (left <= 0 && !isIdle) return;
      const ms = isIdle ? SLEEP_MOST_MS : Math.min(left, SLEEP_MOST_MS);
      if ((await outcomeOf(woken, signal, ms)) !== 'expired') return;
      if (this.#plan.now() < now) return; // `due` may be wrong
    }
  }

  /** Does what is due now. Never throws. */
  async #look(): Promise<void> {
    if (this.#campaign && !this.#campaign.isLeader) return;
    const { catchUp, expression, now } = this.#plan;
    const at = expression.last(now());
    try {
      if (catchUp !== 'none') return await this.#catchUp();
      if (at === undefined || at <= this.#after) return;
      const end = Math.min(at + LATE_MOST_MS, expression.next(at) ?? Number.POSITIVE_INFINITY);
      if (now() < at + LATE_MOST_MS) await this.#tick(at, () => now() >= end);
    } catch (error) {
      const { retryable, outcomeUnknown, code } = error as RollcallError;
      if (catchUp !== 'none') this.#watches ||= retryable || outcomeUnknown === true || code === 'ERR_LOCK_LOST';
      this.#fail(error, at ?? now());
      await pause(1000, this.#ending.signal); // what fails at once does not fail in a circle
    } finally {
      if (at !== undefined) this.#after = Math.max(this.#after, at);
    }
  }

  /** Runs what nobody has run, and what somebody died of. */
  async #catchUp(): Promise<void> {
    const { signal } = this.#ending;
    const { catchUp, expression, maxCatchUpMs, now } = this.#plan;
    const living = new Set<number>();
    while (!signal.aborted) {
      let record = await this.#read();
      if (record.spans.length === 0) {
        // Ticks before are not missed.
        await this.#claims.begin(begun(this.#after), signal);
        record = await this.#read();
      }
      const from = now() - maxCatchUpMs;
      const last = expression.last(now());
      const died = record.running.map(({ at }) => at).filter((at) => at >= from && !living.has(at));
      const open = openBefore(record, now() + 1, expression, from, MISSED_MOST, false);
      const due = (catchUp === 'all' ? [...open, ...died] : [...open, ...died].filter((at) => at === last)).sort(
        (a, b) => a - b,
      );
      this.#watches = record.running.length > 0;
      const [at] = due;
      if (at === undefined) return;
      const mayHaveDied = died.includes(at);
      const end = now() + LATE_MOST_MS;
      try {
        // Who may have died is asked once: its lock stands as long as it lives.
        if (await this.#tick(at, () => mayHaveDied || now() >= end)) continue;
        if (!mayHaveDied) return; // another has it
      } catch (error) {
        if (!mayHaveDied || !(error as RollcallError).retryable) throw error;
      }
      living.add(at);
    }
  }

  /** The record, as soon as the store is there. */
  async #read(): Promise<JobRecord> {
    const { signal } = this.#ending;
    for (;;) {
      try {
        return await this.#claims.read(signal);
      } catch (error) {
        if (!(error as RollcallError).retryable) throw error;
      }
      await pause(500 + Math.random() * 500, signal);
    }
  }

  /** Claims a tick and runs it. False: it is not ours. */
  async #tick(at: number, isOver: () => boolean): Promise<boolean> {
    const claim = await this.#claims.claim(at, changeOf(this.#plan, at), isOver, this.#ending.signal);
    if (!claim) return false;
    await this.#perform(claim);
    return true;
  }

  async #perform(claim: Claim<number[]>): Promise<void> {
    const { at, held } = claim;
    const { run, timeoutMs } = this.#plan;
    const over = new AbortController();
    const unlisten = [held.signal, this.#ending.signal].map((signal) => {
      if (signal.aborted) over.abort(signal.reason);
      return onAbort(signal, () => over.abort(signal.reason));
    });
    const expire = () =>
      over.abort(new TimeoutError(`cron: ${this.name} was not done within ${timeoutMs} ms`, { operation: 'cron' }));
    const stopTimer = timeoutMs > 0 ? after(timeoutMs, expire) : () => {};
    const tick = tickOf(claim, over.signal);
    let failure: unknown;
    let isDone = false;
    this.#isRunning = true;
    try {
      const work = (async () => await run(tick))();
      const outcome = await outcomeOf(work, over.signal);
      // What ignores its signal goes on, and nobody waits for it.
      isDone = outcome !== 'aborted' || (await outcomeOf(work, undefined, ENDING_MS)) !== 'expired';
    } catch (error) {
      isDone = true;
      failure = error;
    } finally {
      this.#isRunning = false;
      stopTimer();
      for (const end of unlisten) end();
    }
    const { loss } = held;
    const isStopped = over.signal.reason === this.#ending.signal.reason && this.#ending.signal.aborted;
    if (loss) this.#fail(loss, at);
    else if (over.signal.aborted && !isStopped) this.#fail(over.signal.reason, at);
    else if (failure !== undefined && !isStopped) this.#fail(failure, at);
    const isAtItsEnd = isDone && failure === undefined;
    await this.#claims.over(claim, isAtItsEnd).catch((error: unknown) => this.#fail(error, at));
  }

  #fail(thrown: unknown, at: number): void {
    if (this.#ending.signal.aborted && (thrown as RollcallError | undefined)?.code === 'ERR_ABORTED') return;
    const error = thrown instanceof Error ? thrown : new Error(`cron: ${this.name} failed`, { cause: thrown });
    if (this.#events.listenerCount('failed') === 0) {
      this.#log.write(
        'error',
        `cron: the tick of ${this.name} at ${new Date(at).toISOString()} failed: ${describe(error)}`,
      );
    }
    const { code } = error as RollcallError;
    if (code === 'ERR_UNSUPPORTED' || code === 'ERR_CLOSED') this.#ending.abort(error);
    this.#events.tell('failed', error, new Date(at));
  }
}
