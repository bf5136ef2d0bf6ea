/** The embedded registry itself: faults on request. */

import { fromNative } from '../common/failure.js';
import { invalid, kindOf, text } from '../common/shape.js';
import { type MemoryServerHandle, native } from '../native.js';

/**
 * The registry behind `memory://namespace`, seen from the other side: what a server does to its clients, on request. For
 * demos, and for the tests of those who use the package.
 */
export class MemoryServer {
  readonly #handle: MemoryServerHandle;

  private constructor(handle: MemoryServerHandle) {
    this.#handle = handle;
  }

  /** The registry of a namespace; one per process, worker threads included. Default `default`. */
  static of(namespace = 'default'): MemoryServer {
    text('namespace', namespace);
    return new MemoryServer(guarded(() => native().MemoryServerHandle.of(namespace)));
  }

  /**
   * The owner of an instance dies without a word: it renews no longer, the record goes after its TTL, and the owner never
   * comes back. `false`: there is no such instance.
   */
  crash(name: string, id: string): boolean {
    word('name', name);
    word('id', id);
    return guarded(() => this.#handle.crash(name, id));
  }

  /** The session of a record is lost at once: its owner hears `lost`, then `restored`. `false`: no such record. */
  expire(name: string, id: string): boolean {
    word('name', name);
    word('id', id);
    return guarded(() => this.#handle.expire(name, id));
  }

  /** `true`: can't be reached. Every call fails, watches go stale, nothing is renewed, until `false`. */
  setAway(away: boolean): void {
    if (typeof away !== 'boolean') throw invalid('away', `expected true or false, got ${kindOf(away)}`);
    guarded(() => this.#handle.setAway(away));
  }

  /** Loses all its data, like a server restored from nothing. */
  wipe(): void {
    guarded(() => this.#handle.wipe());
  }

  /** Writes a record as somebody else would: any text, which may be broken. */
  put(name: string, id: string, value: string): void {
    word('name', name);
    word('id', id);
    word('value', value);
    guarded(() => this.#handle.put(name, id, value));
  }

  /** Deletes a record by hand. `false`: no such record. */
  remove(name: string, id: string): boolean {
    word('name', name);
    word('id', id);
    return guarded(() => this.#handle.remove(name, id));
  }
}

function word(path: string, value: unknown): void {
  if (typeof value !== 'string') throw invalid(path, `expected a string, got ${kindOf(value)}`);
}

function guarded<T>(action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw fromNative(error, 'MemoryServer');
  }
}
