/** When the clients of an application keep its process alive: not while its start may still fail. */

import {
  type Follower,
  followHttp,
  followMicroservice,
  type HttpAdapter,
  type Modules,
  microservicesOf,
} from './listening.js';

/** What is needed of a client. A test may have put something else in its place. */
interface Client {
  ref?(): unknown;
  unref?(): unknown;
}

/** Those of all applications of this process, by their container. */
const ALL = new WeakMap<object, Liveness>();

/**
 * One for each application, whatever number of modules it has: whether a start succeeds shows with the last of them, and
 * then with its `listen()`. Nest tells nobody of a start that fails, so what would outlive one is let go beforehand.
 */
export class Liveness {
  readonly #clients = new Set<Client>();
  readonly #letGo = new Set<Client>();
  readonly #starting = new Set<object>();
  #started = false;
  readonly #follower: Follower = { begins: () => this.#begins(), heard: () => this.#hold() };

  private constructor(modules: Modules) {
    microservicesOf(modules, (server) => followMicroservice(server, this.#follower));
  }

  /** That of the application with these modules. */
  static of(modules: Modules): Liveness {
    const known = ALL.get(modules) ?? new Liveness(modules);
    ALL.set(modules, known);
    return known;
  }

  /** `resident` is going to start, and has these clients. */
  join(resident: object, ...clients: Client[]): void {
    this.#starting.add(resident);
    for (const client of clients) this.#clients.add(client);
  }

  /** The client keeps nothing alive until all have started. */
  letGo(client: Client): void {
    client.unref?.();
    this.#letGo.add(client);
  }

  /** `resident` has started. `adapter` is that of the HTTP server, where there is one. */
  started(resident: object, adapter: HttpAdapter | null | undefined): void {
    if (adapter) followHttp(adapter, this.#follower);
    this.#starting.delete(resident);
    if (this.#starting.size === 0) this.#started = true;
    this.#hold();
  }

  /** The port may be taken. While a server is about to listen, that keeps the process alive. */
  #begins(): void {
    if (!this.#started) return;
    for (const client of this.#clients) this.letGo(client);
  }

  #hold(): void {
    if (!this.#started) return;
    for (const client of this.#letGo) client.ref?.();
    this.#letGo.clear();
  }
}
