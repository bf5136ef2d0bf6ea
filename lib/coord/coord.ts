/** The client of coord. */

import type { Registry } from '../registry/registry.js';
import { ConfigCenter } from './config/center.js';
import type { Identity } from './options.js';
import { Store } from './store.js';

/** Configuration over a registry client. Made by `connectCoord()`; it belongs to the thread that made it. */
export class Coord {
  /** The configuration that is kept there. */
  readonly config: ConfigCenter;
  /** The registry client that it works on. */
  readonly registry: Registry;
  readonly #store: Store;
  readonly #isOwner: boolean;
  #closing: Promise<void> | undefined;

  private constructor(registry: Registry, identity: Identity, isOwner: boolean) {
    this.registry = registry;
    this.#isOwner = isOwner;
    this.#store = new Store(registry.inside(), identity.settleMs);
    this.config = new ConfigCenter(this.#store, identity);
  }

  /** @internal */
  static of(registry: Registry, identity: Identity, isOwner: boolean): Coord {
    return new Coord(registry, identity, isOwner);
  }

  /**
   * Closes what is open here, and the registry client, unless that was given. Pending and later calls fail with `ERR_CLOSED`.
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
    this.#store.close();
    await this.config.close();
    if (this.#isOwner) await this.registry.close();
  }
}
