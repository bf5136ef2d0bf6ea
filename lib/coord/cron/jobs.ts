/** The cron jobs of a client. */

import { invalid } from '../../common/shape.js';
import { checked, closedError } from '../../registry/call.js';
import type { Elections } from '../locks/elections.js';
import type { Keeper } from '../locks/held.js';
import type { Store } from '../store.js';
import { runCalled } from './called.js';
import { Claims } from './claims.js';
import { RunCoordinator } from './coordinator.js';
import { CronJob } from './job.js';
import { type CronOptions, type CronPlan, type CronTick, planOf } from './options.js';

export class Jobs {
  readonly #store: Store;
  readonly #keeper: Keeper;
  readonly #elections: Elections;
  readonly #jobs = new Map<string, CronJob>();
  #isClosed = false;

  constructor(store: Store, keeper: Keeper, elections: Elections) {
    this.#store = store;
    this.#keeper = keeper;
    this.#elections = elections;
  }

  cron(name: string, expression: string, run: (tick: CronTick) => unknown, options: CronOptions | undefined): CronJob {
    const plan = checked('cron', () => {
      const plan = planOf(name, expression, run, options);
      if (this.#jobs.has(plan.path)) {
        throw invalid('name', `expected another one: this client has a job ${JSON.stringify(plan.name)} already`);
      }
      return plan;
    });
    this.#refuseClosed('cron');
    const campaign = plan.mode === 'leader' ? this.#elections.campaign(`${plan.path}/leader`) : undefined;
    const { inside } = this.#keeper;
    const claims = new Claims(this.#store, this.#keeper, plan.path);
    const job: CronJob = CronJob.start({
      plan,
      claims,
      campaign,
      log: inside.log,
      ask: async (signal) => {
        for await (const _ of this.#elections.observe(plan.path, { signal })) return;
      },
      over: () => {
        if (this.#jobs.get(plan.path) === job) this.#jobs.delete(plan.path);
        inside.holds.delete(job);
      },
    });
    this.#jobs.set(plan.path, job);
    inside.holds.add(job);
    return job;
  }

  /** Runs `work` for the tick at which another scheduler calls, unless that is claimed. `undefined`: it was not run. */
  async runCalled<T>(
    plan: CronPlan,
    work: (tick: CronTick) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T | undefined> {
    this.#refuseClosed('cron');
    const claims = new Claims(this.#store, this.#keeper, plan.path);
    return await runCalled(plan, claims, work, signal, this.#keeper.inside.log);
  }

  coordinator(): RunCoordinator {
    this.#refuseClosed('runCoordinator');
    return new RunCoordinator((path) => new Claims(this.#store, this.#keeper, path));
  }

  /** Ends all, and waits for what runs, for a bounded time; `undefined`: there is nothing to wait for. */
  close(): Promise<unknown> | undefined {
    this.#isClosed = true;
    return this.#jobs.size === 0 ? undefined : Promise.all([...this.#jobs.values()].map((job) => job.stop()));
  }

  #refuseClosed(operation: string): void {
    if (this.#isClosed) throw closedError(operation, 'coord is closed');
    this.#keeper.refuseClosed(operation);
  }
}
