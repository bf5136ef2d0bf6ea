/** What a `CoordModule` does from the start of an application to its end. */

import type { AppLogger } from '../../frameworks/logger.js';
import { explained } from '../../frameworks/open.js';
import { CoordService } from './coord-service.js';
import { configHandlersOf } from './handlers.js';
import type { Resident } from './lifecycle.js';
import { isDefault } from './tokens.js';

/** What a resident is made of. */
export interface CoordResidence {
  readonly where: string;
  /** Of the client; `undefined` for the default one. */
  readonly name: string | undefined;
  readonly service: CoordService;
  /** Nest's container. */
  readonly modules: { values(): Iterable<unknown> };
  readonly log: AppLogger;
}

/** The resident of a `CoordModule`. What it has open keeps no process alive, and so no start that fails. */
export class CoordResident implements Resident {
  readonly #residence: CoordResidence;

  constructor(residence: CoordResidence) {
    this.#residence = residence;
  }

  /** Whoever wants to hear of changes does so from here on, and of what has changed since they were opened. */
  async start(): Promise<void> {
    const { where, name, service, modules, log } = this.#residence;
    const configurations = CoordService.configurationsOf(service);
    for (const { def, coord, path, call } of configHandlersOf(modules.values(), (problem) => log.warn(problem))) {
      if (isDefault(coord) ? !isDefault(name) : coord !== name) continue;
      try {
        await configurations.follow(path, def, call);
      } catch (error) {
        throw explained(where, error);
      }
    }
  }

  async leave(): Promise<void> {}

  async close(): Promise<void> {
    const { service, log } = this.#residence;
    try {
      await service.coord.close();
    } catch (error) {
      log.warn(`the store of configuration was not closed in order: ${(error as Error).message}`);
    }
  }
}
