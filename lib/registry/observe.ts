/** Telling others of every call of a registry client, and where its counters are read. */

import { now } from '../common/clock.js';
import { Harmless } from '../common/harmless.js';
import type { Log } from '../common/logger.js';
import { invalid, kindOf } from '../common/shape.js';
import type { RegistryMetrics } from './metrics.js';

/** The calls that an observer is told of, by the name of their method. `connect` is the first contact. */
export type RegistryMethod =
  | 'connect'
  | 'ready'
  | 'ping'
  | 'register'
  | 'update'
  | 'withdraw'
  | 'restore'
  | 'drain'
  | 'deregister'
  | 'getService'
  | 'services'
  | 'watch'
  | 'watchServices'
  | 'fetch'
  | 'close';

/** A call that begins. */
export interface RegistryCall {
  /** The kind of registry: `etcd`, `consul`, … */
  readonly backend: string;
  readonly method: RegistryMethod;
  /** The service that it is about, if it is about one. */
  readonly name: string | undefined;
}

/** What there is to say of a call that has ended. */
export interface RegistryCallEnd {
  /** How long it took, tries again included, in milliseconds. */
  readonly durationMs: number;
  /**
   * How often something was asked of the registry for it; of `fetch()`, of an instance. 0 where nothing had to be, as for a
   * name that is followed already; more than 1 where it was tried again. While calls of one registration run at the same time,
   * each has those of the others too.
   */
  readonly attempts: number;
}

/**
 * What is told of every call of a registry client that waits: of the option `observe`. A call lasts until its promise is
 * settled, `watch()` and `watchServices()` until their first list. What the client does by itself, such as repairs, is told by
 * events and counted by `metrics()`.
 *
 * It runs on the JavaScript thread, within the call. What it throws or rejects with harms nothing: the first time it is logged.
 */
export interface RegistryObserver {
  /** A call begins. What it gives is called once when the call has ended: with the error that the caller gets, if it failed. */
  begin(call: RegistryCall): ((error: Error | undefined, end: RegistryCallEnd) => void) | undefined;
  /**
   * The client is made. `read` gives its `metrics()`, for what asks by itself, such as instruments of OpenTelemetry: of each
   * service that is called by name it has picks, ejections, retries and what is left of the budget. What this gives is called
   * when the client is closed.
   */
  attach?(client: { readonly backend: string; read(): RegistryMetrics }): (() => void) | undefined;
}

/** `options.observe`. */
export function observerOf(value: unknown): RegistryObserver | undefined {
  if (value === undefined || value === null || value === false) return undefined;
  const { begin, attach } = value as Partial<RegistryObserver>;
  if (typeof begin !== 'function') {
    throw invalid('options.observe', `expected an object with a method begin, got ${kindOf(value)}`);
  }
  if (attach !== undefined && typeof attach !== 'function') {
    throw invalid('options.observe.attach', `expected a function, got ${kindOf(attach)}`);
  }
  return value as RegistryObserver;
}

/** Counts the attempts of one call. */
export interface Tally {
  attempts: number;
}

/** Tells the end of a call. Only the first time counts. */
export type Ending = (error: unknown, attempts: number) => void;

/** What the program gave may be anything: whether it is wrong, the call itself says. */
function nameOf(about: unknown): string | undefined {
  try {
    const name = typeof about === 'object' ? (about as { name?: unknown } | null)?.name : about;
    return typeof name === 'string' ? name : undefined;
  } catch {
    return undefined;
  }
}

/** Tells an observer, and keeps from others what it throws. */
export class Teller {
  readonly #observer: RegistryObserver;
  readonly #backend: string;
  readonly #harmless: Harmless;

  constructor(observer: RegistryObserver, backend: string, log: Log) {
    this.#observer = observer;
    this.#backend = backend;
    this.#harmless = new Harmless('the observer of the registry', log);
  }

  /** Makes a call, and tells of its beginning and its end. */
  async call<T>(method: RegistryMethod, about: unknown, make: (tally: Tally) => Promise<T>): Promise<T> {
    const ended = this.begin(method, about);
    const tally = { attempts: 0 };
    try {
      const value = await make(tally);
      ended(undefined, tally.attempts);
      return value;
    } catch (error) {
      ended(error, tally.attempts);
      throw error;
    }
  }

  /** A call begins, about a name or what has one; gives what tells its end. */
  begin(method: RegistryMethod, about: unknown): Ending {
    const startedAt = now();
    const call = { backend: this.#backend, method, name: nameOf(about) };
    let ended = this.#harmless.try(() => this.#observer.begin(call));
    return (error, attempts) => {
      const tell = ended;
      ended = undefined;
      if (typeof tell !== 'function') return;
      this.#harmless.try(() => tell(error as Error | undefined, { durationMs: now() - startedAt, attempts }));
    };
  }

  /** The client is made. Gives what tells that it is closed. */
  attach(read: () => RegistryMetrics): () => void {
    const client = Object.freeze({ backend: this.#backend, read });
    const detach = this.#harmless.try(() => this.#observer.attach?.(client));
    return () => {
      if (typeof detach === 'function') this.#harmless.try(detach);
    };
  }
}
