/** Midway's service discovery, over any registry. */

import './midway4.js';
import {
  ApplicationContext,
  type IMidwayContainer,
  Init,
  LoadBalancerType,
  MidwayCommonError,
  Provide,
  Scope,
  ScopeEnum,
  ServiceDiscovery,
} from '@midwayjs/core';
import type { InstanceInput, Registry, ServiceInstance, Watcher } from '../../index.js';
import type { InstanceBalancer, RegistryConfig, RegistryDiscoveryOptions } from '../config.js';
import { configOf } from '../container.js';
import { listeningEndpoints } from '../listening.js';
import { RegistryServiceFactory } from '../registry-factory.js';
import { RegistryDiscoveryClient } from './client.js';
import { RoundRobin } from './round-robin.js';

/** So many services are followed, and answered without asking the registry; what is more is read each time. */
const MAX_FOLLOWED = 256;

/** Which service: its name, or an object with it, as backends of Midway have it. */
export type ServiceQuery = string | { service: string };

/** Finds services, and registers the application by `createClient()`. */
@Provide()
@Scope(ScopeEnum.Singleton)
export class RegistryServiceDiscovery extends ServiceDiscovery<
  Registry,
  RegistryDiscoveryOptions,
  InstanceInput,
  ServiceInstance,
  ServiceQuery
> {
  /** @internal */
  @ApplicationContext()
  container!: IMidwayContainer;

  readonly #followed = new Map<string, Watcher>();
  #options: RegistryDiscoveryOptions = {};
  #factory: RegistryServiceFactory | undefined;

  /** @internal */
  @Init()
  async init(): Promise<void> {
    this.#options = configOf<RegistryConfig>(this.container, 'registry').serviceDiscovery ?? {};
    this.#factory = await this.container.getAsync(RegistryServiceFactory);
    this.getServiceClient(); // a name that is none fails the start
    this.setLoadBalancer(this.#options.loadBalancer ?? 'roundRobin');
  }

  /** A client for one instance. What is given here counts before `registry.serviceDiscovery` of the configuration. */
  override createClient(options: RegistryDiscoveryOptions = {}): RegistryDiscoveryClient {
    const before = this.#options.serviceOptions;
    const client = this.createServiceDiscoverClientImpl({
      ...this.#options,
      ...options,
      serviceOptions: { ...before, ...options.serviceOptions },
    });
    this.serviceDiscoveryClientStore.add(client);
    return client;
  }

  /**
   * The instances of a service, also when there is none. The first call reads, and from then on the service is followed.
   *
   * @throws as `Registry.getService()`.
   */
  async getInstances(query: ServiceQuery): Promise<ServiceInstance[]> {
    const name = nameOf(query);
    const registry = this.getServiceClient();
    if (!this.#followed.has(name) && this.#followed.size < MAX_FOLLOWED) this.#follow(registry, name);
    return [...(await registry.getService(name))];
  }

  /**
   * One of them, chosen by the load balancer.
   *
   * @throws MidwayCommonError when there is none.
   */
  override async getInstance(query: ServiceQuery): Promise<ServiceInstance> {
    const instances = await this.getInstances(query);
    if (instances.length > 0) return this.loadBalancer.select(instances);
    throw new MidwayCommonError(`no instance of ${nameOf(query)} is in the registry`);
  }

  /** `roundRobin`, `random`, or your own. */
  override setLoadBalancer(type: 'roundRobin' | 'random' | InstanceBalancer): void {
    if (type === 'roundRobin') this.loadBalancer = new RoundRobin();
    else super.setLoadBalancer(type === 'random' ? LoadBalancerType.RANDOM : type);
  }

  /**
   * Takes out what was registered here, all at once, and ends following.
   *
   * @internal
   */
  async leave(): Promise<void> {
    for (const watcher of this.#followed.values()) watcher.stop();
    this.#followed.clear();
    const clients = [...this.serviceDiscoveryClientStore];
    this.serviceDiscoveryClientStore.clear();
    await Promise.allSettled(clients.map((client) => client.stop()));
  }

  protected getServiceClient(): Registry {
    const { serviceDiscoveryClient: name } = this.#options;
    const factory = this.#factory as RegistryServiceFactory;
    if (!name) return factory.byDefault();
    if (factory.has(name)) return factory.get(name);
    throw new MidwayCommonError(
      `registry.serviceDiscovery.serviceDiscoveryClient: there is no client "${name}" in registry.clients`,
    );
  }

  protected createServiceDiscoverClientImpl(options: RegistryDiscoveryOptions): RegistryDiscoveryClient {
    const { serviceDiscoveryClient: name } = options;
    const factory = this.#factory as RegistryServiceFactory;
    if (name && !factory.has(name)) {
      throw new MidwayCommonError(`serviceDiscoveryClient: there is no client "${name}" in registry.clients`);
    }
    const registry: Registry = name ? factory.get(name) : this.getServiceClient();
    return new RegistryDiscoveryClient(registry, options, () => listeningEndpoints(this.container));
  }

  protected getDefaultServiceDiscoveryOptions(): RegistryDiscoveryOptions {
    return this.#options;
  }

  #follow(registry: Registry, name: string): void {
    const watcher = registry.watch(name);
    this.#followed.set(name, watcher);
    const { followed } = this.#factory as RegistryServiceFactory; // for the health check
    followed.add(watcher);
    // Its lists are taken by getService(). When it ends, by a refusal, the next call says why, and follows anew.
    const loop = async () => {
      for await (const _ of watcher);
    };
    loop()
      .catch(() => {})
      .finally(() => {
        followed.delete(watcher);
        if (this.#followed.get(name) === watcher) this.#followed.delete(name);
      });
  }
}

function nameOf(query: ServiceQuery): string {
  return typeof query === 'string' ? query : query.service;
}
