/** One instance that is kept in the registry. */

import type { Log } from '../common/logger.js';
import { abortSignal, onlyKnown, optional } from '../common/shape.js';
import type { RegistrationHandle } from '../native.js';
import { call, checked, type NewCancel } from './call.js';
import { Events } from './events.js';
import { frozenInstance, type InstanceUpdate, patchOf, type ServiceInstance } from './instance.js';
import { callTimeout, type Removal, removal } from './options.js';

/**
 * - `registering`: not visible yet (`background: true`).
 * - `registered`: visible to others, renewed.
 * - `lost`: gone from the registry, or not renewed for its TTL; being put back.
 * - `stalled`: withdrawn, because the JavaScript thread doesn't tick; put back as soon as it does.
 * - `replaced`: a newer registration of the same id has taken over. Final.
 * - `deregistering`: being removed, or still being tried after a `deregister()` that failed.
 * - `deregistered`: removed. Final.
 */
export type RegistrationState =
  | 'registering'
  | 'registered'
  | 'lost'
  | 'stalled'
  | 'replaced'
  | 'deregistering'
  | 'deregistered';

/** The events of a registration. */
export interface RegistrationEvents {
  /** The instance is not in the registry any more, and why: once per loss. It is being put back. */
  lost: [reason: string];
  /** The instance is back: once per repair. */
  restored: [];
  /** A newer registration of the same id, here or elsewhere, has taken over. This one has stopped. */
  replaced: [];
  /** The stall guard has withdrawn the instance. `lost` follows, with a reason that begins with `stalled`. */
  stalled: [];
}

/** Who listens late hears where it stands, and not what is over. */
const VOIDS = {
  lost: ['lost', 'restored'],
  restored: ['lost', 'restored', 'stalled'],
  replaced: ['lost', 'restored', 'stalled'],
  stalled: ['stalled'],
};

/** Options of `update()`. */
export interface UpdateOptions {
  /** In milliseconds. Default: `timeoutMs` of the registry. */
  timeoutMs?: number | undefined;
  /** Aborts the wait. What is wanted stays changed. */
  signal?: AbortSignal | undefined;
}

/** Options of `deregister()` and `close()`. */
export interface RemovalOptions {
  /** How long to wait after the removal, in milliseconds, so that callers hear of it. Default 0. */
  drainMs?: number | undefined;
  /** Time for the removal itself, in milliseconds. Default: `timeoutMs` of the registry. */
  timeoutMs?: number | undefined;
}

/**
 * What a registration needs of its registry.
 *
 * @internal
 */
export interface RegistrationSource {
  readonly handle: RegistrationHandle;
  readonly timeoutMs: number;
  readonly log: Log;
  /** Whether the registry is closed. */
  closed(): boolean;
  /** Called when it is wanted no longer. */
  released(registration: Registration): void;
  readonly newCancel?: NewCancel;
}

/**
 * One instance, kept in the registry by a native thread until `deregister()`, `close()`, or until a newer registration of
 * the same id replaces it. When the registry loses it, it is put back, with growing pauses of up to 10 s and without a
 * limit of tries.
 */
export class Registration {
  /** Of the instance. */
  readonly id: string;
  /** Of the service. */
  readonly name: string;
  readonly #source: RegistrationSource;
  readonly #events: Events<RegistrationEvents>;
  #instance: ServiceInstance;
  #removal: Promise<void> | undefined;

  private constructor(source: RegistrationSource) {
    this.#source = source;
    this.#events = new Events<RegistrationEvents>(['lost', 'restored', 'replaced', 'stalled'], source.log, VOIDS);
    this.#instance = frozenInstance(source.handle.instance());
    this.id = this.#instance.id;
    this.name = this.#instance.name;
  }

  /** @internal */
  static of(source: RegistrationSource): Registration {
    return new Registration(source);
  }

  /** The instance as it is wanted now: with its id, its real addresses and every update. */
  get instance(): ServiceInstance {
    return this.#instance;
  }

  /** Where it stands now. */
  get state(): RegistrationState {
    return this.#source.handle.state();
  }

  /**
   * Whether it has ended, or is about to: nothing that must keep the process alive.
   *
   * @internal
   */
  get over(): boolean {
    return ['replaced', 'deregistering', 'deregistered'].includes(this.state);
  }

  /**
   * Adds a listener. One that throws is logged, and stops nothing. An event that nobody has heard is given to its first
   * listener; of `lost` and `restored` the newer one.
   */
  on<E extends keyof RegistrationEvents>(event: E, listener: (...args: RegistrationEvents[E]) => void): this {
    this.#events.add(event, listener, false);
    return this;
  }

  /** Adds a listener for the next time only. */
  once<E extends keyof RegistrationEvents>(event: E, listener: (...args: RegistrationEvents[E]) => void): this {
    this.#events.add(event, listener, true);
    return this;
  }

  /** Takes a listener back. */
  off<E extends keyof RegistrationEvents>(event: E, listener: (...args: RegistrationEvents[E]) => void): this {
    this.#events.remove(event, listener);
    return this;
  }

  /** The same as `off()`: the name by which `once()` and `on()` of `node:events` know it. */
  removeListener<E extends keyof RegistrationEvents>(
    event: E,
    listener: (...args: RegistrationEvents[E]) => void,
  ): this {
    return this.off(event, listener);
  }

  /**
   * Replaces the fields given, each as a whole, and resolves when others see it. After a failure the change is still
   * wanted: the next repair publishes it.
   *
   * @throws `ERR_INVALID_ARGUMENT`, `ERR_TIMEOUT`, `ERR_UNAVAILABLE`, `ERR_PERMISSION_DENIED`, `ERR_UNAUTHENTICATED`,
   * `ERR_REPLACED`, `ERR_ABORTED`, `ERR_CLOSED`.
   */
  async update(patch: InstanceUpdate, options?: UpdateOptions): Promise<void> {
    const { version, metadata, endpoints, timeoutMs, signal } = checked('update', () => {
      const given = optional('options', options);
      onlyKnown('options', given, ['timeoutMs', 'signal']);
      const timeoutMs = callTimeout(given.timeoutMs, this.#source.timeoutMs);
      return { ...patchOf(patch), timeoutMs, signal: abortSignal('options.signal', given.signal) };
    });
    try {
      await call(
        'update',
        signal,
        (cancel) => this.#source.handle.update(version, metadata, endpoints, timeoutMs, cancel),
        this.#source.newCancel,
      );
    } finally {
      this.#instance = frozenInstance(this.#source.handle.instance());
    }
  }

  /**
   * Removes the instance, never that of a newer owner; after it the instance never comes back. Calls made while one is
   * under way share it; after a failure a later call tries again.
   *
   * @throws `ERR_TIMEOUT` when it could not be removed in time: it is tried on in the background, and expires.
   */
  deregister(options?: RemovalOptions): Promise<void> {
    let how: Removal;
    try {
      how = checked('deregister', () => removal(options, this.#source.timeoutMs));
    } catch (error) {
      return Promise.reject(error);
    }
    this.#removal ??= this.#remove(how).catch((error: unknown) => {
      this.#removal = undefined;
      throw error;
    });
    return this.#removal;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.deregister();
  }

  /**
   * What the native side reports of this registration.
   *
   * @internal
   */
  notify(kind: string, reason: string): void {
    if (kind === 'lost') {
      if (reason.startsWith('stalled')) this.#events.tell('stalled');
      this.#events.tell('lost', reason);
    } else if (kind === 'restored' || kind === 'replaced') {
      this.#events.tell(kind);
    }
  }

  async #remove({ drainMs, timeoutMs }: Removal): Promise<void> {
    if (this.#source.closed() && this.state === 'deregistered') return;
    const removed = call('deregister', undefined, () => this.#source.handle.deregister(drainMs, timeoutMs));
    this.#source.released(this);
    await removed;
  }
}
