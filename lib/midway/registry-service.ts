/** What an application does with its default registry. */

import {
  ApplicationContext,
  delegateTargetAllPrototypeMethod,
  delegateTargetProperties,
  type IMidwayContainer,
  Init,
  Provide,
  Scope,
  ScopeEnum,
} from '@midwayjs/core';
import { UnsupportedError } from '../errors.js';
import { follow, type OnServiceList, refusedOf } from '../frameworks/follow.js';
import type { SelfRegistration } from '../frameworks/self-registration.js';
import type { Registration, TrafficOptions } from '../registry/registration.js';
import { Registry } from '../registry/registry.js';
import { loggerOf } from './container.js';
import { RegistryServiceFactory } from './registry-factory.js';

/** The default registry: everything that `Registry` can do, and the application in it. */
@Provide()
@Scope(ScopeEnum.Singleton)
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: its methods are put there below
export class RegistryService {
  /** @internal */
  @ApplicationContext()
  container!: IMidwayContainer;

  /** @internal */
  instance!: Registry;

  /** @internal */
  factory!: RegistryServiceFactory;

  /** @internal */
  @Init()
  async init(): Promise<void> {
    this.factory = await this.container.getAsync(RegistryServiceFactory);
    this.instance = this.factory.byDefault();
  }

  /** The registration of this application; `undefined` before it is registered, and where `register` is not given. */
  registration(): Registration | undefined {
    return this.factory.self?.registration;
  }

  /** The same as `registration()`, by the name that it has in Nest too. */
  get self(): Registration | undefined {
    return this.registration();
  }

  /** The whole client, as in Nest. */
  get client(): Registry {
    return this.instance;
  }

  /** Whether this application is to be registered: `register` is given. */
  get registersItself(): boolean {
    return this.factory.self !== undefined;
  }

  /** The services that are followed and that the registry refuses to tell of, because a right is missing for instance. */
  get refused(): string[] {
    return refusedOf(this.factory.followed);
  }

  /** The same as `staleServices()`, by the name that it has in Nest too. */
  get stale(): string[] {
    return this.staleServices();
  }

  /** The services that are followed whose list may be out of date, because the registry can't be reached. */
  staleServices(): string[] {
    return this.factory.staleServices();
  }

  /**
   * Calls `listener` with the current list of a service and with every change of it. While it has not returned, or its
   * promise is pending, it is not called again; then it hears the latest list. What it throws is logged.
   *
   * @returns what ends that.
   */
  onChange(name: string, listener: OnServiceList): () => void {
    const watcher = follow(this.instance, name, listener, loggerOf(this.container));
    this.factory.followed.add(watcher);
    return () => {
      this.factory.followed.delete(watcher);
      watcher.stop();
    };
  }

  /**
   * Registers the application itself now: for `when: 'manual'`, and after `deregisterSelf()`.
   *
   * @throws as `register()`, `ERR_UNSUPPORTED` where `register` is not given, `ERR_ABORTED` when `deregisterSelf()` is
   *   called meanwhile, `ERR_CLOSED` when the application is stopping.
   */
  async registerSelf(): Promise<Registration | undefined> {
    await ownOf(this.factory).now();
    return this.registration();
  }

  /**
   * Takes the application out of traffic, as `Registration.withdraw()` does: others don't see it until `restoreSelf()`. It stays
   * registered, and leaves with the application as ever.
   *
   * @throws as `Registration.withdraw()`, `ERR_UNSUPPORTED` where `register` is not given, `ERR_CLOSED` where the application
   *   is not registered, or is stopping.
   */
  async withdrawSelf(reason?: 'withdrawn' | 'unhealthy', options?: TrafficOptions): Promise<void> {
    await ownOf(this.factory).withdraw(reason, options);
  }

  /**
   * Takes a reason of `withdrawSelf()` back; the last one brings the application back into traffic.
   *
   * @throws as `Registration.restore()`, and as `withdrawSelf()`.
   */
  async restoreSelf(reason?: 'withdrawn' | 'unhealthy', options?: TrafficOptions): Promise<void> {
    await ownOf(this.factory).restore(reason, options);
  }

  /**
   * Takes the application itself out of the registry and waits for its drain; `registerSelf()` registers it anew, and into
   * traffic. Never rejects.
   */
  async deregisterSelf(): Promise<void> {
    await this.factory.self?.deregister();
  }
}

function ownOf({ self }: RegistryServiceFactory): SelfRegistration {
  if (!self) throw new UnsupportedError('the configuration has no registry.register');
  return self;
}

export interface RegistryService extends Pick<Registry, Extract<keyof Registry, string>> {}

delegateTargetAllPrototypeMethod(RegistryService, Registry);
delegateTargetProperties(RegistryService, ['backend', 'capabilities', 'closed']);
