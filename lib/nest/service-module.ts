/** Services to be called, as a module of Nest. */

import { type DynamicModule, Module } from '@nestjs/common';
import type { ServiceOptions } from '../index.js';
import { explained, getRegistryToken, getServiceToken, type Registry } from './shared/index.js';

/** How a service is called, as `registry.service(name, options)` takes it, and of which registry it is. */
export interface ServiceFeatureOptions extends ServiceOptions {
  /** The name of the registry. Default: the default one. */
  registry?: string | undefined;
}

/**
 * Services to be called, for the module that imports this: `ServiceModule.forFeature('orders')` gives the `ServiceCache` that
 * `@InjectService('orders')` injects. Its registry is that of a `RegistryModule`, which also lets it go.
 */
@Module({})
export class ServiceModule {
  /** One service. Options that are wrong, or other than those of others where they are shared, fail the start. */
  static forFeature(name: string, { registry, ...options }: ServiceFeatureOptions = {}): DynamicModule {
    const token = getServiceToken(name, registry);
    const useFactory = (client: Registry) => {
      try {
        return client.service(name, options);
      } catch (error) {
        throw explained(`ServiceModule "${name}"`, error);
      }
    };
    const providers = [{ provide: token, inject: [getRegistryToken(registry)], useFactory }];
    return { module: ServiceModule, providers, exports: [token] };
  }
}
