/** Registry clients, and the registration of the application itself in the default one. */

import {
  ApplicationContext,
  type IMidwayContainer,
  Init,
  MidwayCommonError,
  Provide,
  Scope,
  ScopeEnum,
} from '@midwayjs/core';
import { invalid } from '../common/shape.js';
import type { Etcd3 } from '../etcd/index.js';
import { staleOf } from '../frameworks/follow.js';
import { drainOf, leave } from '../frameworks/leaving.js';
import { explained, type OpenOptions, openRegistry } from '../frameworks/open.js';
import { checkedSelf, SelfRegistration } from '../frameworks/self-registration.js';
import type { Registry } from '../registry/registry.js';
import { parseUrl } from '../registry/url.js';
import type { Watcher } from '../registry/watcher.js';
import { ClientFactory, placeOf } from './client-factory.js';
import type { RegistryClientOptions, RegistryConfig } from './config.js';
import { configOf, loggerOf } from './container.js';
import { ETCDServiceFactory } from './etcd.js';

/** All registry clients of an application. */
@Provide()
@Scope(ScopeEnum.Singleton)
export class RegistryServiceFactory extends ClientFactory<Registry> {
  /** @internal */
  @ApplicationContext()
  container!: IMidwayContainer;

  /**
   * What is followed by the services of this component.
   *
   * @internal
   */
  readonly followed = new Set<Watcher>();

  readonly #lazy = new WeakSet<Registry>();
  #self: SelfRegistration | undefined;
  /** Nobody described the default client: it is that of `ROLLCALL_REGISTRY`, else the memory of this process. */
  #unsaid = false;

  /** @internal */
  @Init()
  async init(): Promise<void> {
    const { register, ...config } = configOf<RegistryConfig>(this.container, 'registry');
    try {
      if (register) checkedSelf(register);
    } catch (error) {
      throw explained('registry', error);
    }
    await this.start(this.#described(config, Boolean(register)));
    if (!register) return;
    try {
      const registry = this.byDefault();
      this.#self = new SelfRegistration({
        registry,
        options: register,
        background: this.#lazy.has(registry),
        signalHint: 'start the application by @midwayjs/bootstrap',
        log: loggerOf(this.container),
      });
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  /** `registry`. */
  getName(): string {
    return 'registry';
  }

  /** @internal */
  byDefault(): Registry {
    const client = this.defaultClient('registry');
    if (client) return client;
    throw new MidwayCommonError(
      'registry default instance not found: give registry.client, such as { url: "etcd://10.0.0.1:2379" }, or say by ' +
        'registry.defaultClientName which of registry.clients it is',
    );
  }

  /**
   * The registration of the application itself; `undefined` where `register` is not given.
   *
   * @internal
   */
  get self(): SelfRegistration | undefined {
    return this.#self;
  }

  /**
   * The services that are followed whose list may be out of date.
   *
   * @internal
   */
  staleServices(): string[] {
    return staleOf(this.followed);
  }

  /**
   * Takes out the application and everything else that its clients have registered, while its servers still answer.
   *
   * @internal
   */
  async leave(): Promise<void> {
    const self = this.#self;
    const log = loggerOf(this.container);
    const others = [...this.getClients().values()].map((registry) =>
      leave(registry, { drainMs: drainOf(registry, self?.drainMs), except: self?.registration, log }),
    );
    await Promise.all([self?.leave(), ...others]);
  }

  protected override async createClient(config: object, name?: string): Promise<Registry> {
    const { where, log } = placeOf(this.container, 'registry', name);
    let options: OpenOptions;
    try {
      const { url, ...rest } = config as { url?: unknown };
      const given = url !== undefined && url !== '' ? String(url) : process.env.ROLLCALL_REGISTRY;
      if (this.#unsaid && isEmpty(config)) options = {};
      else if (isEmpty(rest) && !url)
        options = { registry: undefined }; // the variable, or a failure that says so
      else if (['backend', 'client', 'etcd'].some((key) => key in rest) && !url) options = { registry: rest as never };
      else options = { registry: given && ({ ...parseUrl(given), ...rest } as never) };
    } catch (error) {
      throw explained(where, error);
    }
    const registry = await openRegistry(where, options, log, (name) => this.#etcd(name));
    if ((options.registry as { lazy?: boolean } | undefined)?.lazy) this.#lazy.add(registry);
    // Until the application has started nothing of it is to keep the process alive: a start that fails ends it.
    return registry.unref();
  }

  async #etcd(name: string): Promise<Etcd3> {
    const factory = await this.container.getAsync(ETCDServiceFactory);
    if (factory.has(name)) return factory.get(name);
    throw invalid(
      'registry.etcd',
      `there is no client "${name}": give it in etcd.clients, or "default" as etcd.client`,
    );
  }

  protected override async destroyClient(registry: Registry): Promise<void> {
    try {
      await registry.close();
    } catch (error) {
      loggerOf(this.container).warn(`the registry was not closed in order: ${(error as Error).message}`);
    }
  }

  /** With every URL as options, and with a default client where one is needed. */
  #described(config: RegistryConfig, needed: boolean): object {
    const object = (each: RegistryClientOptions | undefined) => (typeof each === 'string' ? { url: each } : each);
    const clients = Object.entries(config.clients ?? {}).map(([name, each]) => [name, object(each)]);
    this.#unsaid =
      config.client === undefined && clients.length === 0 && (needed || Boolean(process.env.ROLLCALL_REGISTRY));
    return {
      ...config,
      default: object(config.default),
      client: this.#unsaid ? {} : object(config.client),
      clients: Object.fromEntries(clients),
    };
  }
}

const isEmpty = (options: object) => Object.keys(options).length === 0;
