/** The client of coord. */

import type { Registry } from '../registry/registry.js';
import { ConfigCenter } from './config/center.js';
import type { RunCoordinator } from './cron/coordinator.js';
import type { CronJob } from './cron/job.js';
import { Jobs } from './cron/jobs.js';
import type { CronOptions, CronPlan, CronTick } from './cron/options.js';
import { Elections } from './locks/elections.js';
import { LiveHolds } from './locks/live.js';
import { Locks } from './locks/locks.js';
import type { Identity } from './options.js';
import { Slots } from './slots.js';
import { Store } from './store.js';

/** Configuration, locks, elections and cron jobs over a registry client. Made by `connectCoord()`; it belongs to the thread that made it. */
export class Coord {
  /** The configuration that is kept there. */
  readonly config: ConfigCenter;
  /** The locks that are held there. */
  readonly lock: Locks;
  /** Who leads. */
  readonly elections: Elections;
  /** The worker ids that are held there, of which `rollcall/uid` makes ids. */
  readonly slots: Slots;
  /** The registry client that it works on. */
  readonly registry: Registry;
  /** Who this process is. @internal */
  readonly identity: Identity;
  readonly #store: Store;
  readonly #live: LiveHolds;
  readonly #jobs: Jobs;
  readonly #isOwner: boolean;
  #closing: Promise<void> | undefined;

  private constructor(registry: Registry, identity: Identity, isOwner: boolean) {
    this.registry = registry;
    this.identity = identity;
    this.#isOwner = isOwner;
    this.#store = new Store(registry.inside(), identity.settleMs);
    this.config = new ConfigCenter(this.#store, identity);
    this.#live = new LiveHolds(registry.inside());
    this.lock = new Locks(this.#live);
    this.elections = new Elections(this.#live);
    this.slots = new Slots(this.#live);
    this.#jobs = new Jobs(this.#store, this.#live, this.elections);
  }

  /** @internal */
  static of(registry: Registry, identity: Identity, isOwner: boolean): Coord {
    return new Coord(registry, identity, isOwner);
  }

  /**
   * Runs `fn` at the ticks of a cron expression, each of them at most once among all processes that have a job of this name: who
   * claims it in the store runs it. It begins at once and keeps the process alive, until `stop()` or `close()`. What
   * the store refuses whatever the time is told at once, by `failed`.
   *
   * The expression has five to seven fields, or is one such as `@daily`; the package `croner` reads it, which has to be beside this
   * one. `name` is one part of a key: the record of the job lies at `/cron/{name}`.
   *
   * @throws `ERR_INVALID_ARGUMENT`, also for an expression that is never due, and a name that this client has a job of;
   * `ERR_UNSUPPORTED` without croner; `ERR_CLOSED`. What befalls ticks is told by `failed`.
   */
  cron(name: string, expression: string, fn: (tick: CronTick) => unknown, options?: CronOptions): CronJob {
    return this.#jobs.cron(name, expression, fn, options);
  }

  /**
   * A `RunCoordinator` for node-cron 4.6: of all instances that have a task of one name with `distributed: true`, one runs it at a time
   * for which it is scheduled. No I/O.
   *
   * @throws `ERR_CLOSED`.
   */
  runCoordinator(): RunCoordinator {
    return this.#jobs.coordinator();
  }

  /**
   * Runs `work` for the tick at which another scheduler calls, unless that is claimed: then `undefined`.
   *
   * @internal
   */
  runCalled<T>(plan: CronPlan, work: (tick: CronTick) => Promise<T>, signal: AbortSignal): Promise<T | undefined> {
    return this.#jobs.runCalled(plan, work, signal);
  }

  /**
   * Stops the cron jobs and waits for what runs of them, ten seconds at the most. Then closes what is open here, gives back what is held,
   * and closes the registry client, unless that was given. Pending and later calls fail with `ERR_CLOSED`.
   * May be called again.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    const jobs = this.#jobs.close();
    if (jobs) await jobs; // they may use all the rest
    const left = this.config.leave(); // what it writes is begun before nothing more can be
    this.#store.close();
    this.#live.isClosed = true; // before those that resign: nobody stands anew
    await Promise.all([left, this.config.close(), this.elections.close()]);
    await this.#live.close();
    if (this.#isOwner) await this.registry.close();
  }
}
