/** The client of one registry: register, discover, watch, close. */

import { LEAVE_MS, LENDER_CLOSED } from '../common/lending.js';
import { describe, type LogLevel } from '../common/logger.js';
import { abortSignal, boolean, invalid, kindOf, onlyKnown, optional } from '../common/shape.js';
import { Share, took } from '../common/turns.js';
import { aborted, type RollcallError } from '../errors.js';
import type { CancelHandle, ClientHandle, NativeEvent, RegistrationHandle } from '../native.js';
import type { ServiceCache } from '../service/cache.js';
import type { ServiceOptions } from '../service/options.js';
import type { Services } from '../service/services.js';
import { BACKENDS, type BackendName } from './backends/index.js';
import { call, checked, closedError, type NewCancel, waited } from './call.js';
import {
  type CallOptions,
  type GetServiceOptions,
  type RegisterOptions,
  signalOf,
  type WatchOptions,
} from './call-options.js';
import type { Capabilities } from './capabilities.js';
import { Events, type RegistryEvents } from './events.js';
import { callBack, type OnServiceList, refusedText } from './follow.js';
import { Holds } from './holds.js';
import type { Inside } from './inside.js';
import { frozenList, type InstanceInput, instanceOf, type ServiceInstance, type ServiceList } from './instance.js';
import { track, trackLeave, untrack } from './lifecycle.js';
import { type RegistryMetrics, toMetrics } from './metrics.js';
import { NAMES, ServicesWatcher, serviceName } from './names.js';
import { type RegistryMethod, type Tally, Teller } from './observe.js';
import { callTimeout, type Removal, removal, type Settings, stallTimeout } from './options.js';
import { Registration, type RemovalOptions } from './registration.js';
import type { RegistryStatus } from './status.js';
import { Feeds, INSTANCES, Watcher, type WatcherSource } from './watcher.js';
import { type Asked, Watches } from './watches.js';

/**
 * A registry client, made by `connect()`. It belongs to the thread that made it. It keeps the process alive while
 * something is registered or watched, unless `unref()` was called.
 */
export class Registry {
  /** The kind of registry. */
  readonly backend: BackendName;
  /** What this registry can do. */
  readonly capabilities: Capabilities;
  /** Whether `close()` was called. */
  readonly closed: boolean = false;
  /** Whether the registry is reached. Read anew at each access: it may be ahead of the events. */
  declare readonly status: RegistryStatus;
  // Fields, not accessors: wrappers that delegate to the methods of the prototype must find nothing else there.

  readonly #client: ClientHandle;
  readonly #settings: Settings;
  readonly #newCancel: NewCancel | undefined;
  /** Tells the observer, if there is one. */
  readonly #teller: Teller | undefined;
  #detach: (() => void) | undefined;
  readonly #events: Events<RegistryEvents>;
  readonly #instances = new Feeds(INSTANCES);
  readonly #names = new Feeds(NAMES);
  readonly #watches: Watches;
  readonly #registrations = new Map<number, Registration>();
  readonly #holds: Holds;
  readonly #locks = new Map<number, () => void>();
  readonly #slots = new Map<number, () => void>();
  /** Which of its states was told last. */
  #told: RegistryStatus = 'disconnected';
  #services: Services | undefined;
  #closing: Promise<void> | undefined;
  readonly #share = new Share((most) => this.#drain(most));
  /** Why it is closed, for errors. */
  #why = 'the registry is closed';
  /** Takes back that its lender tells it of its end. */
  #unlend: (() => void) | undefined;

  private constructor(settings: Settings, open: (wake: () => void) => ClientHandle, newCancel?: NewCancel) {
    this.backend = settings.native.backend as BackendName;
    this.#settings = settings;
    this.#newCancel = newCancel;
    this.#events = new Events<RegistryEvents>(['badRecord', 'connected', 'disconnected'], settings.log, {
      connected: ['disconnected'],
      disconnected: ['connected'],
    });
    // Weakly: the native side holds this function to the end of the thread. While it is open, `track` holds the registry.
    const self = new WeakRef(this);
    this.#client = open(() => {
      const registry = self.deref();
      if (registry) registry.#share.wake();
    });
    this.#holds = new Holds(this.#client);
    this.#teller = settings.observe && new Teller(settings.observe, this.backend, settings.log);
    this.#watches = new Watches(this.#holds, settings.log, this.#teller);
    this.capabilities = Object.freeze({ ...this.#client.capabilities() });
    Object.defineProperty(this, 'status', {
      enumerable: true,
      // No arrow function: one that refers to `this` would be held by what the native side holds, of the same scope.
      get(this: Registry) {
        return this.closed ? 'closed' : this.#client.status();
      },
    });
    track(this, settings.signals, settings.log);
    this.#join();
  }

  /** Who else hears of this registry, until it is closed. No part of the constructor, for the reason given above. */
  #join(): void {
    this.#unlend = this.#settings.lender?.lendTo({ lenderCloses: () => this.#lenderCloses() });
    this.#detach = this.#teller?.attach(() => this.metrics());
  }

  /** @internal */
  static open(settings: Settings, open: (wake: () => void) => ClientHandle, newCancel?: NewCancel): Registry {
    return new Registry(settings, open, newCancel);
  }

  /**
   * First contact, within `connectTimeoutMs`; after a failure the registry is closed.
   *
   * @internal
   */
  async contact(): Promise<void> {
    try {
      await this.#observed('connect', undefined, (tally) => {
        const contact = (cancel: CancelHandle | null) => this.#client.contact(cancel);
        return call('connect', undefined, contact, this.#newCancel, tally);
      });
    } catch (error) {
      this.close({ timeoutMs: 1 }).catch(() => {}); // nothing is registered yet
      throw error;
    }
  }

  /**
   * Registers an instance and keeps it registered. Resolves when others see it.
   *
   * When it rejects, nothing is left behind: what a slow server applies later is taken back. A record of the same id is
   * taken over from whoever holds it, who hears `replaced`.
   *
   * @throws `ERR_INVALID_ARGUMENT`, `ERR_TIMEOUT`, `ERR_UNAVAILABLE`, `ERR_PERMISSION_DENIED`, `ERR_UNAUTHENTICATED`,
   * `ERR_ABORTED`, `ERR_UNSUPPORTED`, `ERR_CLOSED`. With `background: true` only those that need no server.
   */
  register(instance: InstanceInput, options?: RegisterOptions): Promise<Registration> {
    return this.#observed('register', instance, (tally) => this.#register(instance, options, tally));
  }

  async #register(instance: InstanceInput, options?: RegisterOptions, tally?: Tally): Promise<Registration> {
    const { native, log } = this.#settings;
    const { wanted, how, signal } = checked('register', () => {
      const wanted = instanceOf(instance);
      const given = optional('options', options);
      onlyKnown('options', given, ['background', 'timeoutMs', 'stallTimeoutMs', 'signal']);
      const how = {
        background: boolean('options.background', given.background, false),
        timeoutMs: callTimeout(given.timeoutMs, native.timeoutMs),
        stallTimeoutMs: stallTimeout(given.stallTimeoutMs, native.stallTimeoutMs),
      };
      return { wanted, how, signal: abortSignal('options.signal', given.signal) };
    });
    this.#refuseClosed('register');

    const handle = await call<RegistrationHandle>(
      'register',
      signal,
      (cancel) => this.#client.register(wanted, how, cancel),
      this.#newCancel,
      tally,
    );
    if (signal?.aborted) {
      // It came through in the moment of the abort.
      await call('register', undefined, () => handle.deregister(0, how.timeoutMs)).catch(() => {});
      throw aborted(signal, 'register');
    }
    if (this.closed) throw closedError('register', this.#why); // `close()` removes it
    const id = handle.id(); // asking opens its events: they come in a later turn, when the caller listens
    const registration = Registration.of({
      handle,
      timeoutMs: native.timeoutMs,
      log,
      closed: () => this.#closedBy(),
      released: (self) => this.#forget(id, self),
      newCancel: this.#newCancel,
      teller: this.#teller,
    });
    this.#registrations.set(id, registration);
    if (!registration.over) this.#holds.add(registration);
    return registration;
  }

  /**
   * The instances of a service: those of this registry's live watch of it, if there is one that has a list, stale or not;
   * else of one read of the server. Frozen, sorted by id; empty when there are none.
   *
   * @throws `ERR_INVALID_ARGUMENT`, `ERR_TIMEOUT`, `ERR_UNAVAILABLE`, `ERR_PERMISSION_DENIED`, `ERR_UNAUTHENTICATED`,
   * `ERR_ABORTED`, `ERR_CLOSED`.
   */
  async getService(name: string, options?: GetServiceOptions): Promise<ServiceList> {
    const followed = options === undefined && !this.#teller ? this.#instances.known(name) : undefined;
    if (followed) return followed; // the usual case, in a microsecond
    return await this.#observed('getService', name, (tally) => this.#getService(name, options, tally));
  }

  async #getService(name: string, options?: GetServiceOptions, tally?: Tally): Promise<ServiceList> {
    const { consistent, timeoutMs, signal } = this.#checkRead('getService', options, () => serviceName(name));
    const known = consistent ? undefined : this.#instances.known(name);
    if (known) return known;
    const list = await call(
      'getService',
      signal,
      (cancel) => this.#client.getService(name, consistent, timeoutMs, cancel),
      this.#newCancel,
      tally,
    );
    return frozenList(list);
  }

  /**
   * The names that have at least one instance, sorted by their bytes: those of this registry's live `watchServices()`, if
   * there is one that has a list, stale or not; else of one read of the server.
   *
   * @throws as `getService()`, and `ERR_UNSUPPORTED` where `capabilities.listsNames` is false.
   */
  services(options?: GetServiceOptions): Promise<string[]> {
    return this.#observed('services', undefined, (tally) => this.#listServices(options, tally));
  }

  async #listServices(options?: GetServiceOptions, tally?: Tally): Promise<string[]> {
    const { consistent, timeoutMs, signal } = this.#checkRead('services', options);
    const known = consistent ? undefined : this.#names.known('');
    if (known) return known.map(({ name }) => name);
    const read = (cancel: CancelHandle | null) => this.#client.services(consistent, timeoutMs, cancel);
    return await call('services', signal, read, this.#newCancel, tally);
  }

  /** What a read was asked for; throws where it can't be made. */
  #checkRead(operation: string, options: GetServiceOptions | undefined, check?: () => void) {
    const asked = checked(operation, () => {
      const given = optional('options', options);
      onlyKnown('options', given, ['consistent', 'timeoutMs', 'signal']);
      check?.();
      return {
        consistent: boolean('options.consistent', given.consistent, false),
        timeoutMs: callTimeout(given.timeoutMs, this.#settings.native.timeoutMs),
        signal: abortSignal('options.signal', given.signal),
      };
    });
    this.#refuseClosed(operation);
    if (asked.signal?.aborted) throw aborted(asked.signal, operation);
    return asked;
  }

  /**
   * Follows a service. See `Watcher` for what it delivers and what ends it.
   *
   * @throws `ERR_INVALID_ARGUMENT`, and nothing else: a closed registry shows in the first `next()`.
   */
  watch(name: string, options?: WatchOptions): Watcher {
    const signal = checked('watch', () => {
      serviceName(name);
      return signalOf(options);
    });
    return this.#watch(name, { signal });
  }

  /**
   * Calls `listener` with the current list of a service and with every change of it. While it has not returned, or its
   * promise is pending, it is not called again; then it hears the latest list. What it throws is logged. Where the registry
   * refuses, that is logged once, and it is asked again for as long as it takes.
   *
   * @returns what ends that; so do the signal and `close()`.
   * @throws `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`.
   */
  onChange(name: string, listener: OnServiceList, options?: WatchOptions): () => void {
    const signal = checked('onChange', () => {
      serviceName(name);
      if (typeof listener !== 'function') throw invalid('listener', `expected a function, got ${kindOf(listener)}`);
      return signalOf(options);
    });
    this.#refuseClosed('onChange');
    const { log } = this.#settings;
    const refused = (error: RollcallError) => log.write('error', refusedText(name, error));
    const watcher = this.#watch(name, { signal, refused });
    callBack(watcher, listener, (text) => log.write('error', text));
    return () => watcher.stop();
  }

  /**
   * A watch for who can't do without: where the registry refuses, it goes on asking, and `refused` hears of it.
   *
   * @internal
   */
  watchPatiently(name: string, refused: (error: RollcallError) => void): Watcher {
    checked('watch', () => serviceName(name));
    return this.#watch(name, { refused });
  }

  /**
   * Follows the names that have at least one instance: lists of `{ name, count? }`, sorted by the bytes of the name. See
   * `Watcher` for what is delivered, with names for instances, and what ends it. All watchers of names share one stream of
   * this registry.
   *
   * @throws `ERR_INVALID_ARGUMENT`; `ERR_UNSUPPORTED` where `capabilities.listsNames` is false. A closed registry shows in
   * the first `next()`.
   */
  watchServices(options?: WatchOptions): ServicesWatcher {
    const signal = checked('watchServices', () => signalOf(options));
    const open = () => this.#client.watchServices();
    return this.#watches.follow('', this.#names, open, ServicesWatcher.follow, { signal }, this.#closedBy());
  }

  #watch(name: string, asked: Asked): Watcher {
    const follow = (source: WatcherSource<ServiceInstance>) => Watcher.follow(name, source);
    const open = () => this.#client.watch(name);
    return this.#watches.follow(name, this.#instances, open, follow, asked, this.#closedBy());
  }

  /**
   * A service to be called: a cache of its list, from which one instance is picked for each call. All caches of one name
   * share one watch. The first list comes in its own time: await its `ready()`, or use `waitFor()`.
   *
   * @throws `ERR_INVALID_ARGUMENT`, also for a shared option that differs from what others use; `ERR_CLOSED`.
   */
  service(name: string, options?: ServiceOptions): ServiceCache {
    checked('service', () => serviceName(name));
    this.#refuseClosed('service');
    this.#services ??= new (serviceModule().Services)({
      watch: (name, refused) => this.#watch(name, { refused, keepsAlive: false }),
      hold: (waiting) => this.#holds.add(waiting),
      release: (waiting) => this.#holds.delete(waiting),
      log: this.#settings.log,
      timeoutMs: this.#settings.native.timeoutMs,
      allowLocal: BACKENDS[this.backend].allowLocal ?? false,
      teller: this.#teller,
    });
    return this.#services.open(name, options);
  }

  /**
   * Logs a line, as the registry does.
   *
   * @internal
   */
  write(level: LogLevel, text: string): void {
    this.#settings.log.write(level, text);
  }

  /**
   * What works on the same client, as `rollcall/coord` does.
   *
   * @internal
   */
  inside(): Inside {
    return {
      client: this.#client,
      watches: this.#watches,
      holds: this.#holds,
      log: this.#settings.log,
      connectTimeoutMs: this.#settings.native.connectTimeoutMs,
      timeoutMs: this.#settings.native.timeoutMs,
      stallTimeoutMs: this.#settings.native.stallTimeoutMs,
      locks: this.#locks,
      slots: this.#slots,
      closedBy: () => this.#closedBy(),
    };
  }

  /**
   * On these signals the whole application leaves.
   *
   * @internal
   */
  leaveBy(leave: () => Promise<void>, signals: readonly NodeJS.Signals[]): void {
    trackLeave(leave, signals, this, this.#settings.log);
  }

  /**
   * What is registered, or coming in the background, and nobody has taken out.
   *
   * @internal
   */
  live(): Registration[] {
    return [...this.#registrations.values()].filter(({ over }) => !over);
  }

  /**
   * Asks the registry once and resolves with how long its answer took, in milliseconds. Not tried again.
   *
   * @throws `ERR_INVALID_ARGUMENT`, `ERR_TIMEOUT`, `ERR_UNAVAILABLE`, `ERR_UNAUTHENTICATED`, `ERR_PERMISSION_DENIED`,
   * `ERR_ABORTED`, `ERR_CLOSED`.
   */
  ping(options?: CallOptions): Promise<number> {
    return this.#ask('ping', options, (timeoutMs, cancel) => this.#client.ping(timeoutMs, cancel));
  }

  /**
   * Resolves when the registry is reached: at once while `status` is `connected`. Else it tries, with back-off, until it is
   * answered, refused, or `timeoutMs` have passed. For a client that was made with `lazy: true`.
   *
   * @throws as `ping()`, with what hindered the last try.
   */
  ready(options?: CallOptions): Promise<void> {
    return this.#ask('ready', options, (timeoutMs, cancel) => this.#client.ready(timeoutMs, cancel));
  }

  #ask<T>(
    operation: 'ping' | 'ready',
    options: CallOptions | undefined,
    ask: (timeoutMs: number, cancel: CancelHandle | null) => Promise<T>,
  ): Promise<T> {
    return this.#observed(operation, undefined, async (tally) => {
      const { timeoutMs, signal } = checked(operation, () => {
        const given = optional('options', options);
        onlyKnown('options', given, ['timeoutMs', 'signal']);
        return {
          timeoutMs: callTimeout(given.timeoutMs, this.#settings.native.timeoutMs),
          signal: abortSignal('options.signal', given.signal),
        };
      });
      this.#refuseClosed(operation);
      return await call(operation, signal, (cancel) => ask(timeoutMs, cancel), this.#newCancel, tally);
    });
  }

  /** Makes a call, of which the observer is told if there is one. */
  #observed<T>(method: RegistryMethod, about: unknown, make: (tally?: Tally) => Promise<T>): Promise<T> {
    return this.#teller ? this.#teller.call(method, about, make) : make();
  }

  /**
   * What this client has counted since it was made: a frozen copy, of numbers of the whole client. It costs nothing to
   * speak of, and works after `close()` too.
   */
  metrics(): RegistryMetrics {
    return toMetrics(this.#client.metrics(), this.#services?.metrics() ?? {});
  }

  /** Adds a listener. One that throws is logged, and stops nothing. The first one is given the last 16 that nobody heard. */
  on<E extends keyof RegistryEvents>(event: E, listener: (...args: RegistryEvents[E]) => void): this {
    this.#events.add(event, listener, false);
    return this;
  }

  /** Adds a listener for the next time only. */
  once<E extends keyof RegistryEvents>(event: E, listener: (...args: RegistryEvents[E]) => void): this {
    this.#events.add(event, listener, true);
    return this;
  }

  /** Takes a listener back. */
  off<E extends keyof RegistryEvents>(event: E, listener: (...args: RegistryEvents[E]) => void): this {
    this.#events.remove(event, listener);
    return this;
  }

  /** The same as `off()`: the name by which `once()` and `on()` of `node:events` know it. */
  removeListener<E extends keyof RegistryEvents>(event: E, listener: (...args: RegistryEvents[E]) => void): this {
    return this.off(event, listener);
  }

  /** What is registered or watched keeps the process alive: the default. */
  ref(): this {
    this.#holds.want(true);
    return this;
  }

  /** What is registered or watched doesn't keep the process alive. A call that is under way does. */
  unref(): this {
    this.#holds.want(false);
    return this;
  }

  /**
   * Deregisters everything, ends every watch (`done`) and gives everything back. Pending and later calls fail with
   * `ERR_CLOSED`. Every call gets the promise of the first one.
   *
   * @throws `ERR_TIMEOUT` when something could not be removed in time: it expires. The registry is closed all the same.
   */
  close(options?: RemovalOptions): Promise<void> {
    let how: Removal;
    try {
      how = checked('close', () => removal(options, this.#settings.native.timeoutMs));
    } catch (error) {
      return Promise.reject(error);
    }
    if (how.signal?.aborted) return Promise.reject(aborted(how.signal, 'close'));
    this.#closing ??= this.#observed('close', undefined, (tally) => this.#close(how, tally));
    return waited('close', this.#closing, how.signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(how: Removal, tally?: Tally): Promise<void> {
    const removed = tally && [...this.#registrations.values()];
    const attempts = () => (removed ?? []).reduce((sum, registration) => sum + registration.attempts, 0);
    const before = attempts();
    (this as { closed: boolean }).closed = true;
    this.#services?.close();
    this.#watches.stop();
    try {
      await call('close', undefined, () => this.#client.close(how.drainMs, how.timeoutMs));
    } finally {
      if (tally) tally.attempts += attempts() - before;
      this.#holds.clear();
      untrack(this);
      this.#unlend?.();
      this.#detach?.();
    }
  }

  /** The client whose connection this is closes first: everything ends with it, and says why. */
  async #lenderCloses(): Promise<void> {
    const alive = this.closed ? [] : this.live();
    if (!this.closed) this.#why = LENDER_CLOSED;
    if (alive.length > 0) {
      const what = alive.length === 1 ? `${alive[0]?.name} is` : `${alive.length} instances are`;
      this.#settings.log.write('warn', `${LENDER_CLOSED}, so ${what} taken out: close the registry before the client`);
    }
    try {
      await this.close({ timeoutMs: LEAVE_MS });
    } catch {
      // What could not be removed in time expires with its lease.
    }
    for (const registration of alive) registration.notify('lost', LENDER_CLOSED);
  }

  #refuseClosed(operation: string): void {
    if (this.closed) throw closedError(operation, this.#why);
  }

  /** Why it is closed, if it is. */
  #closedBy(): string | undefined {
    return this.closed ? this.#why : undefined;
  }

  /** Events that have come, `most` of them; says whether there may be more. */
  #drain(most: number): boolean {
    const events = this.#client.drain(most);
    took(events.length);
    for (const event of events) {
      try {
        this.#dispatch(event);
      } catch (error) {
        // The other events of this turn are not to be lost with it.
        this.#settings.log.write('error', `the event "${event.kind}" failed: ${describe(error)}`);
      }
    }
    return events.length === most;
  }

  #dispatch({ kind, id, level, text, key }: NativeEvent): void {
    switch (kind) {
      case 'log':
        this.#settings.log.write(level as LogLevel, text ?? '');
        break;
      case 'badRecord':
        this.#events.tell('badRecord', Object.freeze({ key: key ?? '', reason: text ?? '' }));
        break;
      case 'connected':
      case 'disconnected':
        // They take turns also when one was dropped on its way to a busy thread.
        if (this.closed || this.#told === kind) break;
        this.#told = kind;
        this.#events.tell(kind);
        break;
      case 'watch':
      case 'stale':
      case 'fresh':
      case 'reset':
      case 'watchError':
        this.#watches.notify(id, kind);
        break;
      case 'lockLost':
        this.#locks.get(id)?.();
        break;
      case 'slot':
        this.#slots.get(id)?.();
        break;
      default: {
        const registration = this.#registrations.get(id);
        registration?.notify(kind, text ?? '', key ?? '');
        if (registration?.over) this.#forget(id, registration);
      }
    }
  }

  #forget(id: number, registration: Registration): void {
    this.#registrations.delete(id);
    this.#holds.delete(registration);
  }
}

/** Loaded at use: importing the package should cost next to nothing. */
const serviceModule = () => require('../service/services.js') as typeof import('../service/services.js');
