/** The methods of an application that run under what coord gives, from its start to its end. */

import type { Coord } from '../coord/index.js';
import { closeUsersOf } from './closing.js';
import { Leadership } from './leader-only.js';
import type { AppLogger } from './logger.js';
import { MethodTicks } from './once-per-tick.js';
import { LEAVING_MS, stillRun } from './running.js';
import { MethodLocks } from './with-lock.js';

export class CoordMethods {
  readonly locks: MethodLocks;
  readonly leadership: Leadership;
  readonly ticks: MethodTicks;
  readonly #coord: Coord;
  readonly #log: AppLogger;

  constructor(coord: Coord, log: AppLogger) {
    this.locks = new MethodLocks(coord);
    this.leadership = new Leadership(coord, log);
    this.ticks = new MethodTicks(coord, log);
    this.#coord = coord;
    this.#log = log;
  }

  /** First of all at the end: no method of a leader or of a tick is begun any more, and those that run are waited for. Never rejects. */
  async leave(): Promise<void> {
    await Promise.all([this.leadership.leave(), this.ticks.leave()]);
  }

  /** When everything else has stopped, and before coord is closed, which gives all locks back: waits for the methods under one, and closes what lives on coord. Never rejects. */
  async over(): Promise<void> {
    await this.leave(); // where nobody has called it before
    const count = await this.locks.over(LEAVING_MS);
    if (count > 0) this.#log.warn(`${stillRun(count)} under a lock, which is given back now`);
    await closeUsersOf(this.#coord);
  }
}
