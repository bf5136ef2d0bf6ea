/** What an application does with its registry. */

import { Observable } from 'rxjs';
import { UnsupportedError } from '../../errors.js';
import { follow, type OnServiceList, refusedOf, staleOf } from '../../frameworks/follow.js';
import type { AppLogger } from '../../frameworks/logger.js';
import type { SelfRegistration } from '../../frameworks/self-registration.js';
import type { CallOptions, GetServiceOptions, RegisterOptions, WatchOptions } from '../../registry/call-options.js';
import type { InstanceInput, ServiceList } from '../../registry/instance.js';
import type { RegistryMetrics } from '../../registry/metrics.js';
import type { ServicesWatcher } from '../../registry/names.js';
import type { Registration, TrafficOptions } from '../../registry/registration.js';
import type { Registry } from '../../registry/registry.js';
import type { Watcher } from '../../registry/watcher.js';
import type { ServiceCache } from '../../service/cache.js';
import type { ServiceOptions } from '../../service/options.js';
import { madeByModule } from './by-module.js';

/** The registry of an application, and the application in it. */
export class RegistryService {
  /** The whole client. */
  readonly client: Registry;
  readonly #self: SelfRegistration | undefined;
  readonly #log: AppLogger;
  readonly #followed = new Set<Watcher>();

  /** @internal */
  constructor(client: Registry, self: SelfRegistration | undefined, log: AppLogger) {
    if (new.target === RegistryService) madeByModule(client, 'RegistryService', 'RegistryModule');
    this.client = client;
    this.#self = self;
    this.#log = log;
  }

  /** The registration of this application; `undefined` before it is registered, and where `register` is not given. */
  get registration(): Registration | undefined {
    return this.#self?.registration;
  }

  /** The same as `registration`, by the name that it has in Midway too. */
  get self(): Registration | undefined {
    return this.registration;
  }

  /** Whether this application is to be registered: `register` is given. */
  get registersItself(): boolean {
    return this.#self !== undefined;
  }

  /** The services that are followed whose list may be out of date, because the registry can't be reached. */
  get stale(): string[] {
    return staleOf(this.#followed);
  }

  /** The same as `stale`, by the name that it has in Midway too. */
  staleServices(): string[] {
    return this.stale;
  }

  /** The services that are followed and that the registry refuses to tell of, because a right is missing for instance. */
  get refused(): string[] {
    return refusedOf(this.#followed);
  }

  /**
   * Whether this application is to be in the registry now.
   *
   * @internal
   */
  get wanted(): boolean {
    return this.#self?.wanted ?? false;
  }

  /** Registers something, as `Registry.register()` does. It leaves, and drains, as the application does. */
  register(instance: InstanceInput, options?: RegisterOptions): Promise<Registration> {
    return this.client.register(instance, options);
  }

  /** The instances of a service, as `Registry.getService()` gives them. */
  getService(name: string, options?: GetServiceOptions): Promise<ServiceList> {
    return this.client.getService(name, options);
  }

  /** The names of all services, as `Registry.services()` gives them. */
  services(options?: GetServiceOptions): Promise<string[]> {
    return this.client.services(options);
  }

  /** A service to be called, as `Registry.service()` gives it. */
  service(name: string, options?: ServiceOptions): ServiceCache {
    return this.client.service(name, options);
  }

  /** Follows the names, as `Registry.watchServices()` does. */
  watchServices(options?: WatchOptions): ServicesWatcher {
    return this.client.watchServices(options);
  }

  /** Asks the registry once, as `Registry.ping()` does. */
  ping(options?: CallOptions): Promise<number> {
    return this.client.ping(options);
  }

  /** Resolves when the registry is reached, as `Registry.ready()` does. */
  ready(options?: CallOptions): Promise<void> {
    return this.client.ready(options);
  }

  /** What the client has counted, as `Registry.metrics()` gives it. */
  metrics(): RegistryMetrics {
    return this.client.metrics();
  }

  /** Follows a service, as `Registry.watch()` does. */
  watch(name: string, options?: WatchOptions): Watcher {
    return this.client.watch(name, options);
  }

  /**
   * Calls `listener` with the current list of a service and with every change of it. What the registry refuses is logged,
   * stands in `refused`, and is tried again for as long as it takes.
   *
   * @returns what ends that.
   */
  onChange(name: string, listener: OnServiceList): () => void {
    const watcher = follow(this.client, name, listener, this.#log);
    this.#followed.add(watcher);
    return () => {
      this.#followed.delete(watcher);
      watcher.stop();
    };
  }

  /** The same for RxJS: the current list, then every change. Ends when the registry is closed. */
  instances$(name: string): Observable<ServiceList> {
    return new Observable((subscriber) => {
      const watcher = this.client.watch(name);
      const loop = async () => {
        for await (const instances of watcher) subscriber.next(instances);
        subscriber.complete();
      };
      loop().catch((error: unknown) => subscriber.error(error));
      return () => watcher.stop();
    });
  }

  /**
   * Registers the application itself now: for `when: 'manual'`, and after `deregisterSelf()`.
   *
   * @throws as `register()`, `ERR_UNSUPPORTED` where `register` is not given, `ERR_ABORTED` when `deregisterSelf()` is
   *   called meanwhile, `ERR_CLOSED` when the application is stopping.
   */
  async registerSelf(): Promise<Registration | undefined> {
    await this.#own().now();
    return this.registration;
  }

  /**
   * Takes the application out of traffic, as `Registration.withdraw()` does: others don't see it until `restoreSelf()`. It stays
   * registered, and leaves with the application as ever.
   *
   * @throws as `Registration.withdraw()`, `ERR_UNSUPPORTED` where `register` is not given, `ERR_CLOSED` where the application
   *   is not registered, or is stopping.
   */
  async withdrawSelf(reason?: 'withdrawn' | 'unhealthy', options?: TrafficOptions): Promise<void> {
    await this.#own().withdraw(reason, options);
  }

  /**
   * Takes a reason of `withdrawSelf()` back; the last one brings the application back into traffic.
   *
   * @throws as `Registration.restore()`, and as `withdrawSelf()`.
   */
  async restoreSelf(reason?: 'withdrawn' | 'unhealthy', options?: TrafficOptions): Promise<void> {
    await this.#own().restore(reason, options);
  }

  /**
   * Takes the application itself out of the registry and waits for its drain; `registerSelf()` registers it anew, and into
   * traffic. Never rejects.
   */
  async deregisterSelf(): Promise<void> {
    await this.#self?.deregister();
  }

  #own(): SelfRegistration {
    if (!this.#self) throw new UnsupportedError('RegistryModule has no option register');
    return this.#self;
  }
}
