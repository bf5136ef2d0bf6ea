/** What the two factories have in common, the same on Midway 3 and 4. */

import { type IMidwayContainer, MidwayCommonError, ServiceFactory } from '@midwayjs/core';
import { loggerOf } from './container.js';

/** Clients by name, made of the configuration at the start, or later by `createInstance()`. */
export abstract class ClientFactory<Client> extends ServiceFactory<Client> {
  /** Those of a name that are being made. */
  readonly #coming = new Map<string, Promise<Client>>();

  /**
   * Makes a client. With a `name` it is kept, given by `get(name)`, and closed when the application stops; where there is
   * one of that name, that is given, and `config` is without effect. Without a name it is the caller's, to close as well.
   *
   * @throws as the start of the application would.
   */
  override async createInstance(config: object, name?: string): Promise<Client> {
    if (!name) return await super.createInstance(config);
    if (this.has(name)) return this.get(name);
    const known = this.#coming.get(name);
    if (known) return await known;
    const coming = super.createInstance(config, name) as Promise<Client>;
    this.#coming.set(name, coming);
    try {
      return await coming;
    } finally {
      this.#coming.delete(name);
    }
  }

  /** Makes all clients at once. When one of them fails none is left. */
  protected async start(config: object): Promise<void> {
    try {
      const { client, clients, ...rest } = config as {
        client?: object;
        clients?: Record<string, object>;
        clientPriority?: object;
      };
      // Keeps the options. Midway's types say `clientPriority`, its code reads `priority`.
      await this.initClients({ priority: rest.clientPriority, ...rest });
      const wanted: Record<string, object> = { ...clients };
      if (client) wanted.default = { ...wanted.default, ...client };
      const made = await Promise.allSettled(
        Object.entries(wanted).map(([name, options]) => this.createInstance(options, name)),
      );
      for (const result of made) if (result.status === 'rejected') throw result.reason;
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  /** The client that is injected by its type. */
  protected defaultClient(key: string): Client | undefined {
    const names = this.getClientKeys();
    const name = this.getDefaultClientName?.() || (names.length === 1 ? (names[0] as string) : 'default');
    if (this.has(name)) return this.get(name);
    if (this.getDefaultClientName?.()) {
      throw new MidwayCommonError(`${key}.defaultClientName: there is no client "${name}" in ${key}.clients`);
    }
    return undefined;
  }

  /** Closes all clients of a name. */
  override async stop(): Promise<void> {
    await Promise.allSettled(this.#coming.values());
    const clients = [...this.clients];
    this.clients.clear();
    await Promise.all(clients.map(([name, client]) => this.destroyClient(client, name)));
  }
}

/** How messages call a client, and who hears of it. */
export function placeOf(container: IMidwayContainer, key: string, name: string | undefined) {
  const where = !name || name === 'default' ? `${key}.client` : `${key}.clients.${name}`;
  return { where, log: loggerOf(container) };
}
