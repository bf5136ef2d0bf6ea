/** rollcall/midway/discovery: Midway 4's service discovery over any registry. Enter at `RegistryServiceDiscovery`. */

import { Configuration as Component, type IMidwayContainer } from '@midwayjs/core';
import * as rollcall from '../index.js';
import { RegistryServiceDiscovery } from './discovery.js';

/** The component; it brings that of `rollcall/midway` with it. */
@Component({ namespace: 'rollcallDiscovery', imports: [rollcall] })
export class Configuration {
  #discovery: RegistryServiceDiscovery | undefined;

  /** A wrong configuration fails the start, not the first call. */
  async onReady(container: IMidwayContainer): Promise<void> {
    this.#discovery = await container.getAsync(RegistryServiceDiscovery);
  }

  /** Before the registry is closed: the base class would come to it only afterwards. */
  async onStop(): Promise<void> {
    await this.#discovery?.leave();
  }
}

export type { InstanceBalancer, RegistryDiscoveryOptions } from '../config.js';
export { RegistryDiscoveryClient } from './client.js';
export { RegistryServiceDiscovery, type ServiceQuery } from './discovery.js';
export { StrategyBalancer } from './strategy-balancer.js';
