/** What a `CoordModule` does from the start of an application to its end. */

import type { AppLogger } from '../../frameworks/logger.js';
import { explained } from '../../frameworks/open.js';
import { CoordService } from './coord-service.js';
import { configHandlersOf, leadersOf, ticksOf } from './handlers.js';
import type { Resident } from './lifecycle.js';
import type { HttpAdapter, Modules } from './listening.js';
import { Liveness } from './liveness.js';
import { isDefault } from './tokens.js';

/** What a resident is made of. */
export interface CoordResidence {
  readonly where: string;
  /** Of the client; `undefined` for the default one. */
  readonly name: string | undefined;
  readonly service: CoordService;
  /** Nest's container. */
  readonly modules: Modules & { values(): Iterable<unknown> };
  adapter(): HttpAdapter | null | undefined;
  readonly log: AppLogger;
}

/** The resident of a `CoordModule`. What it has open, and stands for, keeps no start alive that fails. */
export class CoordResident implements Resident {
  readonly #residence: CoordResidence;
  readonly #liveness: Liveness;

  constructor(residence: CoordResidence) {
    const { modules, service } = residence;
    this.#residence = residence;
    this.#liveness = Liveness.of(modules);
    const { registry } = service.coord;
    if (!registry) return; // a test has put something else in its place
    this.#liveness.join(this, registry);
    this.#liveness.letGo(registry);
  }

  /**
   * Whoever wants to hear of changes does so from here on, and of what has changed since they were opened. Then this instance
   * stands for the elections of its methods.
   */
  async start(): Promise<void> {
    const { where, name, service, modules, log } = this.#residence;
    const configurations = CoordService.configurationsOf(service);
    const isMine = ({ coord }: { coord: string | undefined }) => (isDefault(coord) ? isDefault(name) : coord === name);
    try {
      for (const handler of configHandlersOf(modules.values(), (problem) => log.warn(problem))) {
        if (isMine(handler)) await configurations.follow(handler.path, handler.def, handler.call);
      }
      const { leadership, ticks } = CoordService.methodsOf(service);
      ticks.start([...ticksOf(modules.values())].filter(isMine));
      leadership.start([...leadersOf(modules.values())].filter(isMine));
    } catch (error) {
      throw explained(where, error);
    }
    this.#liveness.started(this, this.#residence.adapter());
  }

  async leave(): Promise<void> {
    await CoordService.methodsOf(this.#residence.service).leave();
  }

  async close(): Promise<void> {
    const { service, log } = this.#residence;
    await CoordService.methodsOf(service).over();
    try {
      await service.coord.close();
    } catch (error) {
      log.warn(`the store of configuration was not closed in order: ${(error as Error).message}`);
    }
  }
}
