/** What a `RegistryModule` does from the start of an application to its end. */

import { drainOf, leave } from '../../frameworks/leaving.js';
import type { AppLogger } from '../../frameworks/logger.js';
import { explained } from '../../frameworks/open.js';
import type { SelfRegistration } from '../../frameworks/self-registration.js';
import type { Registry } from '../../registry/registry.js';
import { handlersOf } from './handlers.js';
import type { Resident } from './lifecycle.js';
import { followHttp, followMicroservice, type HttpAdapter, type Modules, microservicesOf } from './listening.js';
import { Liveness } from './liveness.js';
import type { RegistryService } from './registry-service.js';
import { isDefault } from './tokens.js';

/** What a resident is made of. */
export interface RegistryResidence {
  readonly where: string;
  /** Of the registry; `undefined` for the default one. */
  readonly name: string | undefined;
  readonly registry: Registry;
  readonly service: RegistryService;
  readonly self: SelfRegistration | undefined;
  /** Nest's container. */
  readonly modules: Modules & { values(): Iterable<unknown> };
  /** The HTTP adapter, which a test gives only after the modules are made. */
  adapter(): HttpAdapter | null | undefined;
  readonly log: AppLogger;
}

/** The resident of a `RegistryModule`. */
export class RegistryResident implements Resident {
  readonly #residence: RegistryResidence;
  readonly #liveness: Liveness;
  #microservices = 0;

  constructor(residence: RegistryResidence) {
    this.#residence = residence;
    const { self, modules, registry } = residence;
    this.#liveness = Liveness.of(modules);
    this.#liveness.join(this, registry);
    this.#liveness.letGo(registry);
    if (!self) return;
    microservicesOf(modules, (server) => {
      this.#microservices++;
      followMicroservice(server, { listens: (endpoints) => this.#explained(self.listening(endpoints)) });
    });
  }

  async start(): Promise<void> {
    const { self, modules, service, name, log } = this.#residence;
    for (const handler of handlersOf(modules.values(), (problem) => log.warn(problem))) {
      const mine = isDefault(handler.registry) ? isDefault(name) : handler.registry === name;
      if (mine) service.onChange(handler.service, handler.call);
    }
    const adapter = this.#residence.adapter();
    if (self) {
      if (adapter) followHttp(adapter, { listens: (endpoints) => this.#explained(self.listening(endpoints)) });
      await this.#explained((async () => self.started(Boolean(adapter) || this.#microservices > 0))());
    }
    this.#liveness.started(this, adapter);
  }

  async leave(): Promise<void> {
    const { registry, self, log } = this.#residence;
    const drainMs = drainOf(registry, self?.drainMs);
    await Promise.all([self?.leave(), leave(registry, { drainMs, except: self?.registration, log })]);
  }

  async close(): Promise<void> {
    const { registry, log } = this.#residence;
    try {
      await registry.close();
    } catch (error) {
      log.warn(`the registry was not closed in order: ${(error as Error).message}`);
    }
  }

  async #explained(work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      throw explained(this.#residence.where, error);
    }
  }
}
