/** The client of coord. */

import type { Registry } from '../registry/registry.js';
import { ConfigCenter } from './config/center.js';
import { Elections } from './locks/elections.js';
import { LiveHolds } from './locks/live.js';
import { Locks } from './locks/locks.js';
import type { Identity } from './options.js';
import { Store } from './store.js';

/** Configuration, locks and elections over a registry client. Made by `connectCoord()`; it belongs to the thread that made it. */
export class Coord {
  /** The configuration that is kept there. */
  readonly config: ConfigCenter;
  /** The locks that are held there. */
  readonly lock: Locks;
  /** Who leads. */
  readonly elections: Elections;
  /** The registry client that it works on. */
  readonly registry: Registry;
  readonly #store: Store;
  readonly #live: LiveHolds;
  readonly #isOwner: boolean;
  #closing: Promise<void> | undefined;

  private constructor(registry: Registry, identity: Identity, isOwner: boolean) {
    this.registry = registry;
    this.#isOwner = isOwner;
    this.#store = new Store(registry.inside(), identity.settleMs);
    this.config = new ConfigCenter(this.#store, identity);
    this.#live = new LiveHolds(registry.inside());
    this.lock = new Locks(this.#live);
    this.elections = new Elections(this.#live);
  }

  /** @internal */
  static of(registry: Registry, identity: Identity, isOwner: boolean): Coord {
    return new Coord(registry, identity, isOwner);
  }

  /**
   * Closes what is open here, gives back what is held, and closes the registry client, unless that was given. Pending and later calls fail with `ERR_CLOSED`.
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
    const left = this.config.leave(); // what it writes is begun before nothing more can be
    this.#store.close();
    this.#live.isClosed = true; // before those that resign: nobody stands anew
    await Promise.all([left, this.config.close(), this.elections.close()]);
    await this.#live.close();
    if (this.#isOwner) await this.registry.close();
  }
}
