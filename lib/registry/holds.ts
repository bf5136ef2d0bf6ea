/** What keeps the process alive: the registrations and watches of one registry, while it is asked to. */

import type { ClientHandle } from '../native.js';

export class Holds {
  readonly #client: Pick<ClientHandle, 'ref' | 'unref'>;
  readonly #subjects = new Set<object>();
  #wanted = true;
  #alive = false;

  constructor(client: Pick<ClientHandle, 'ref' | 'unref'>) {
    this.#client = client;
  }

  add(subject: object): void {
    this.#subjects.add(subject);
    this.#settle();
  }

  delete(subject: object): void {
    this.#subjects.delete(subject);
    this.#settle();
  }

  clear(): void {
    this.#subjects.clear();
    this.#settle();
  }

  /** Whether what is held keeps the process alive; at first it does. */
  want(wanted: boolean): void {
    this.#wanted = wanted;
    this.#settle();
  }

  #settle(): void {
    const alive = this.#wanted && this.#subjects.size > 0;
    if (alive === this.#alive) return;
    this.#alive = alive;
    if (alive) this.#client.ref();
    else this.#client.unref();
  }
}
