/** One instance that is kept in the registry. */

import type { Log } from '../common/logger.js';
import { abortSignal, choice, integer, invalid, onlyKnown, optional } from '../common/shape.js';
import { aborted } from '../errors.js';
import type { RegistrationHandle } from '../native.js';
import { call, checked, closedError, type NewCancel, waited } from './call.js';
import { Events } from './events.js';
import { frozenInstance, type InstanceUpdate, patchOf, type ServiceInstance } from './instance.js';
import type { RegistryMethod, Teller } from './observe.js';
import { callTimeout, type Removal, removal } from './options.js';

/**
 * - `registering`: not visible yet (`background: true`).
 * - `registered`: visible to others, renewed.
 * - `lost`: gone from the registry, or not renewed for its TTL; being put back.
 * - `stalled`: out of traffic, because the JavaScript thread doesn't tick (`outFor` has `stalled`).
 * - `out`: out of traffic for other reasons of `outFor`, or for none any more and not back yet.
 * - `replaced`: a newer registration of the same id has taken over. Final.
 * - `deregistering`: being removed, or still being tried after a `deregister()` that failed.
 * - `deregistered`: removed. Final.
 */
export type RegistrationState =
  | 'registering'
  | 'registered'
  | 'lost'
  | 'stalled'
  | 'out'
  | 'replaced'
  | 'deregistering'
  | 'deregistered';

/**
 * Why an instance is out of traffic:
 *
 * - `stalled`: the JavaScript thread doesn't tick. The stall guard's own (`stallTimeoutMs`).
 * - `withdrawn`, `unhealthy`: the program says so, by `withdraw()`.
 * - `draining`: it leaves for good, by `drain()`.
 */
export type OutReason = 'stalled' | 'withdrawn' | 'unhealthy' | 'draining';

/** The reasons that a program gives and takes back itself. */
const OWN_REASONS = ['withdrawn', 'unhealthy'] as const;

/** The events of a registration. What the program does itself is no loss. */
export interface RegistrationEvents {
  /**
   * The instance is not in the registry any more, and why: once per loss. It is being put back, unless the registry has ended
   * because the etcd client that it shares was closed before it.
   */
  lost: [reason: string];
  /** The instance is back: once per repair. */
  restored: [];
  /** A newer registration of the same id, here or elsewhere, has taken over. This one has stopped. */
  replaced: [];
  /** The stall guard has withdrawn the instance. `lost` follows, with a reason that begins with `stalled`. */
  stalled: [];
  /** `reason` holds the instance out of traffic from now on, with all of `outFor`: once for each reason. */
  out: [reason: OutReason, outFor: ReadonlySet<OutReason>];
  /** Nothing holds the instance out of traffic any more, and others see it again. */
  in: [];
}

const EVENTS = ['lost', 'restored', 'replaced', 'stalled', 'out', 'in'] as const;

/** Who listens late hears where it stands, and not what is over. */
const VOIDS = {
  lost: ['lost', 'restored'],
  restored: ['lost', 'restored', 'stalled'],
  replaced: ['lost', 'restored', 'stalled', 'out', 'in'],
  stalled: ['stalled'],
  out: ['out', 'in'],
  in: ['out', 'in'],
};

/** Options of `update()`. */
export interface UpdateOptions {
  /** In milliseconds. Default: `timeoutMs` of the registry. */
  timeoutMs?: number | undefined;
  /** Aborts the wait. What is wanted stays changed. */
  signal?: AbortSignal | undefined;
}

/** Options of `withdraw()` and `restore()`. */
export interface TrafficOptions {
  /** In milliseconds. Default: `timeoutMs` of the registry. */
  timeoutMs?: number | undefined;
  /** Aborts the wait. What is wanted stays changed. */
  signal?: AbortSignal | undefined;
}

/** Options of `drain()`. */
export interface DrainOptions {
  /** Time for the removal itself, in milliseconds. Default: `timeoutMs` of the registry. */
  timeoutMs?: number | undefined;
  /** Ends the wait of the caller with `ERR_ABORTED`; the drain goes on. */
  signal?: AbortSignal | undefined;
}

/** Options of `deregister()` and `close()`. */
export interface RemovalOptions {
  /** How long to wait after the removal, in milliseconds, so that callers hear of it. Default 0. */
  drainMs?: number | undefined;
  /** Time for the removal itself, in milliseconds. Default: `timeoutMs` of the registry. */
  timeoutMs?: number | undefined;
  /** Ends the wait of the caller with `ERR_ABORTED`; the removal goes on. */
  signal?: AbortSignal | undefined;
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
  /** Why the registry is closed; `undefined` while it is open. */
  closed(): string | undefined;
  /** Called when it is wanted no longer. */
  released(registration: Registration): void;
  readonly newCancel?: NewCancel;
  /** Tells the observer, if there is one. */
  readonly teller?: Teller | undefined;
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
    this.#events = new Events<RegistrationEvents>(EVENTS, source.log, VOIDS);
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
   * What holds the instance out of traffic: of the program's reasons those that were given and not taken back, whether or
   * not others have seen that yet. It is to stand in the registry if and only if this is empty and it was not deregistered
   * or replaced.
   */
  get outFor(): ReadonlySet<OutReason> {
    return new Set(this.#source.handle.outFor());
  }

  /**
   * How often it was tried up to now to publish it and to remove it.
   *
   * @internal
   */
  get attempts(): number {
    return this.#source.handle.attempts();
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
   * Replaces the fields given, each as a whole, and resolves when others see it; while the program holds the instance out of
   * traffic at once: the return publishes it. After a failure the change is still wanted: the next repair publishes it.
   *
   * @throws `ERR_INVALID_ARGUMENT`, `ERR_TIMEOUT`, `ERR_UNAVAILABLE`, `ERR_PERMISSION_DENIED`, `ERR_UNAUTHENTICATED`,
   * `ERR_REPLACED`, `ERR_ABORTED`, `ERR_CLOSED`.
   */
  update(patch: InstanceUpdate, options?: UpdateOptions): Promise<void> {
    return this.#observed('update', () => this.#update(patch, options));
  }

  async #update(patch: InstanceUpdate, options?: UpdateOptions): Promise<void> {
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
   * Takes the instance out of traffic, for a reason: `'withdrawn'`, the default, or `'unhealthy'`. Resolves when others don't
   * see it any more. Reasons add up; to give one again only waits. No repair, update, outage or restart of a server brings
   * it back, `restore()` alone does. Its id is not held meanwhile: where another registration has claimed it, and still has
   * it at the return, this one ends as `replaced` then.
   *
   * After a failure it is still wanted: it is tried for as long as the registration lives, and the record, which is not
   * renewed any more, expires.
   *
   * @throws `ERR_INVALID_ARGUMENT`; `ERR_TIMEOUT` when it could not be taken out in time; `ERR_ABORTED`, also when
   * `restore()` was called before others had seen it go; `ERR_REPLACED`; `ERR_CLOSED` after `deregister()` and `close()`.
   */
  withdraw(reason?: 'withdrawn' | 'unhealthy', options?: TrafficOptions): Promise<void> {
    return this.#observed('withdraw', () => this.#move('withdraw', reason, options));
  }

  /**
   * Takes a reason of `withdraw()` back. Resolves when others see the instance again, with every update of meanwhile; at
   * once while other reasons of the program hold it out: the last one brings it back. May be repeated until it is back. After
   * a failure it is tried on.
   *
   * @throws `ERR_INVALID_ARGUMENT`, also where the reason doesn't hold it out; `ERR_TIMEOUT` and `ERR_UNAVAILABLE` when it is
   * not back in time; `ERR_PERMISSION_DENIED`, `ERR_UNAUTHENTICATED`; `ERR_ABORTED`, also when `withdraw()` was called
   * before it was back; `ERR_REPLACED`; `ERR_CLOSED` after `deregister()` and `close()`.
   */
  restore(reason?: 'withdrawn' | 'unhealthy', options?: TrafficOptions): Promise<void> {
    return this.#observed('restore', () => this.#move('restore', reason, options));
  }

  /**
   * Takes the instance out of traffic, for `draining`, waits `ms` milliseconds, then deregisters it. While it waits the
   * registration lives, with its events and its state `out`, and keeps the process alive; `deregister()` cuts the wait short.
   * (`deregister({ drainMs })` ends the registration first and waits then: nothing is told, and nothing can be cut short.)
   * It can't be taken back.
   *
   * @throws as `deregister()`, and without the wait: in every case the registration ends and the instance doesn't come back.
   * `ERR_INVALID_ARGUMENT`; `ERR_REPLACED`; `ERR_CLOSED` after `deregister()` and `close()`.
   */
  drain(ms: number, options?: DrainOptions): Promise<void> {
    return this.#observed('drain', () => this.#drain(ms, options));
  }

  async #drain(ms: number, options?: DrainOptions): Promise<void> {
    const { waitMs, timeoutMs, signal } = checked('drain', () => {
      if (ms === undefined) throw invalid('ms', 'expected for how long, in milliseconds');
      const waitMs = integer('ms', ms, 0, { min: 0 });
      const given = optional('options', options);
      onlyKnown('options', given, ['timeoutMs', 'signal']);
      const signal = abortSignal('options.signal', given.signal);
      return { waitMs, timeoutMs: callTimeout(given.timeoutMs, this.#source.timeoutMs), signal };
    });
    this.#refuseClosed('drain');
    if (signal?.aborted) throw aborted(signal, 'drain');
    await waited('drain', this.#drainAndGo(waitMs, timeoutMs), signal);
  }

  async #drainAndGo(waitMs: number, timeoutMs: number): Promise<void> {
    try {
      await call('drain', undefined, () => this.#source.handle.drain(waitMs, timeoutMs));
    } finally {
      if (this.over) this.#source.released(this);
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
    if (how.signal?.aborted) return Promise.reject(aborted(how.signal, 'deregister'));
    this.#removal ??= this.#observed('deregister', () => this.#remove(how)).catch((error: unknown) => {
      this.#removal = undefined;
      throw error;
    });
    return waited('deregister', this.#removal, how.signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.deregister();
  }

  /**
   * What the native side reports of this registration.
   *
   * @internal
   */
  notify(kind: string, reason: string, key = ''): void {
    if (kind === 'lost') {
      if (reason.startsWith('stalled')) this.#events.tell('stalled');
      this.#events.tell('lost', reason);
    } else if (kind === 'out') {
      this.#events.tell('out', key as OutReason, new Set(reason.split(',') as OutReason[]));
    } else if (kind === 'restored' || kind === 'replaced' || kind === 'in') {
      this.#events.tell(kind);
    }
  }

  /** Makes a call, of which the observer is told if there is one. */
  #observed(method: RegistryMethod, make: () => Promise<void>): Promise<void> {
    const { teller } = this.#source;
    if (!teller) return make();
    const before = this.attempts;
    return teller.call(method, this.name, async (tally) => {
      try {
        await make();
      } finally {
        tally.attempts = this.attempts - before;
      }
    });
  }

  async #move(how: 'withdraw' | 'restore', reason: unknown, options: unknown): Promise<void> {
    const { why, timeoutMs, signal } = checked(how, () => {
      const given = optional('options', options);
      onlyKnown('options', given, ['timeoutMs', 'signal']);
      return {
        why: ownReason(reason),
        timeoutMs: callTimeout(given.timeoutMs, this.#source.timeoutMs),
        signal: abortSignal('options.signal', given.signal),
      };
    });
    this.#refuseClosed(how);
    const { handle, newCancel } = this.#source;
    await call(how, signal, (cancel) => handle[how](why, timeoutMs, cancel), newCancel);
  }

  #refuseClosed(operation: string): void {
    const why = this.#source.closed();
    if (why !== undefined) throw closedError(operation, why);
  }

  async #remove({ drainMs, timeoutMs }: Removal): Promise<void> {
    if (this.#source.closed() && this.state === 'deregistered') return;
    const removed = call('deregister', undefined, () => this.#source.handle.deregister(drainMs, timeoutMs));
    this.#source.released(this);
    await removed;
  }
}

function ownReason(value: unknown): 'withdrawn' | 'unhealthy' {
  if (value === 'stalled') throw invalid('reason', '"stalled" is the stall guard\'s own: see stallTimeoutMs');
  if (value === 'draining') throw invalid('reason', '"draining" is set by drain() alone');
  return choice('reason', value, OWN_REASONS, 'withdrawn');
}
