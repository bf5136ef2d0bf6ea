/** One instance of the application, under Midway's own interface. */

import './midway4.js';
import { MidwayCommonError, ServiceDiscoveryClient } from '@midwayjs/core';
import { drainOf } from '../../frameworks/leaving.js';
import type { InstanceInput, Registration, Registry, ServiceInstance } from '../../index.js';
import type { RegistryDiscoveryOptions } from '../config.js';

/** Puts one instance into the registry and takes it out. One thing is done at a time; each may be repeated. */
export class RegistryDiscoveryClient extends ServiceDiscoveryClient<
  Registry,
  RegistryDiscoveryOptions,
  InstanceInput,
  ServiceInstance
> {
  readonly #endpoints: () => Promise<string[]>;
  #registration: Registration | undefined;
  #work: Promise<void> = Promise.resolve();

  /** @internal */
  constructor(registry: Registry, options: RegistryDiscoveryOptions, endpoints: () => Promise<string[]>) {
    super(registry, options);
    this.#endpoints = endpoints;
  }

  /**
   * Registers the instance: what `serviceOptions` say and what is given here. Without `endpoints` those where the
   * application listens. Registering again changes it.
   *
   * @throws as `Registry.register()`.
   */
  register(instance: Partial<InstanceInput> = {}): Promise<void> {
    return this.#next(async () => {
      const wanted = { ...this.options.serviceOptions, ...instance } as InstanceInput;
      const endpoints = wanted.endpoints ?? (await this.#endpoints());
      await this.#publish({ ...wanted, endpoints });
    });
  }

  /** Registers it again as it was. Nothing happens when it is there. */
  online(): Promise<void> {
    return this.#next(async () => {
      if (!this.instance) throw new MidwayCommonError('online(): nothing to bring back: call register() first');
      if (!this.#isThere()) await this.#publish(this.instance);
    });
  }

  /** Takes it out of the registry; `online()` brings it back. */
  offline(): Promise<void> {
    return this.#next(() => this.#withdraw());
  }

  /** Takes it out of the registry, for good. */
  deregister(): Promise<void> {
    return this.#next(async () => {
      await this.#withdraw();
      this.instance = undefined;
    });
  }

  /** Nothing is to be done. */
  async beforeStop(): Promise<void> {}

  /** Takes it out of the registry, and waits until callers have heard of it. */
  override stop(): Promise<void> {
    return this.#next(async () => {
      await this.#withdraw(drainOf(this.client));
      this.instance = undefined;
    });
  }

  #next(step: () => Promise<void>): Promise<void> {
    const next = this.#work.then(step);
    this.#work = next.catch(() => {});
    return next;
  }

  #isThere(): boolean {
    return this.#registration !== undefined && !['replaced', 'deregistered'].includes(this.#registration.state);
  }

  async #publish(wanted: InstanceInput): Promise<void> {
    const known = this.#registration;
    const id = wanted.id ?? (known?.name === wanted.name ? known.id : undefined);
    if (known && this.#isThere() && known.name === wanted.name && known.id === id) {
      const { version, metadata, endpoints } = wanted;
      await known.update({ version, metadata, endpoints });
    } else {
      await this.#withdraw();
      this.#registration = await this.client.register({ ...wanted, id });
    }
    this.instance = { ...wanted, id: this.#registration?.id };
  }

  async #withdraw(drainMs = 0): Promise<void> {
    // A registry that is closed has taken everything out.
    if (!this.#registration || this.client.closed) return;
    await this.#registration.deregister({ drainMs });
  }
}
