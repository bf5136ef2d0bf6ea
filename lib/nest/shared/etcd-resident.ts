/** What an `EtcdModule` does from the start of an application to its end. */

import type { Etcd3 } from '../../etcd/client.js';
import type { AppLogger } from '../../frameworks/logger.js';
import { type EtcdOpenOptions, explained } from '../../frameworks/open.js';
import type { EtcdService } from './etcd-service.js';
import { settingsOf } from './handlers.js';
import type { Resident } from './lifecycle.js';
import type { HttpAdapter, Modules } from './listening.js';
import { Liveness } from './liveness.js';
import { isDefault } from './tokens.js';

/** What a resident is made of. */
export interface EtcdResidence {
  readonly where: string;
  /** Of the client; `undefined` for the default one. */
  readonly name: string | undefined;
  readonly client: Etcd3;
  readonly service: EtcdService;
  readonly options: EtcdOpenOptions;
  /** Nest's container. */
  readonly modules: Modules & { values(): Iterable<unknown> };
  /** The HTTP adapter, which a test gives only after the modules are made. */
  adapter(): HttpAdapter | null | undefined;
  readonly log: AppLogger;
}

/** The resident of an `EtcdModule`. */
export class EtcdResident implements Resident {
  readonly #residence: EtcdResidence;
  readonly #liveness: Liveness;

  constructor(residence: EtcdResidence) {
    this.#residence = residence;
    this.#liveness = Liveness.of(residence.modules);
    const { client, service } = residence;
    this.#liveness.join(this, client, service);
    this.#liveness.letGo(service);
  }

  /** Fills the properties that hold settings: the hooks of the program find them. */
  async prepare(): Promise<void> {
    const { where, name, client: etcd, service, options, modules, log } = this.#residence;
    const settings = [...settingsOf(modules.values(), (problem) => log.warn(problem))].filter(({ client }) =>
      isDefault(client) ? isDefault(name) : client === name,
    );
    if (settings.length === 0) return;
    this.#liveness.letGo(etcd);
    try {
      await Promise.all(
        settings.map(({ key, set }) => (options.lazy ? service.keepConfig(key, set) : service.watchConfig(key, set))),
      );
    } catch (error) {
      throw explained(where, error);
    }
  }

  async start(): Promise<void> {
    this.#liveness.started(this, this.#residence.adapter());
  }

  async leave(): Promise<void> {
    await this.#residence.service.leave();
  }

  async close(): Promise<void> {
    const { client, service, options } = this.#residence;
    await service.close();
    // A test may have put something else in its place.
    if (options.closeOnShutdown !== false) await client.close?.();
  }
}
