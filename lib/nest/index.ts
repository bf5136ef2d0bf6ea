/** rollcall/nest: modules for NestJS 10, 11 and 12. Enter at `RegistryModule` and `EtcdModule`. */

export type { AsyncOptions, ModuleExtras } from './async-options.js';
export {
  Config,
  type ConfigOptions,
  EtcdConfig,
  type InjectDecorator,
  InjectEtcd,
  InjectEtcdHealth,
  InjectEtcdService,
  InjectRegistry,
  InjectRegistryHealth,
  InjectRegistryService,
  InjectService,
  OnServiceChange,
} from './decorators.js';
export {
  EtcdModule,
  type EtcdModuleAsyncOptions,
  type EtcdModuleOptions,
  type EtcdOptionsFactory,
} from './etcd-module.js';
export {
  RegistryModule,
  type RegistryModuleAsyncOptions,
  type RegistryModuleOptions,
  type RegistryOptionsFactory,
} from './registry-module.js';
export { type ServiceFeatureOptions, ServiceModule } from './service-module.js';
export {
  ETCD_CLIENT,
  ETCD_CLIENT_OPTIONS,
  ETCD_CLIENT_OPTIONS_TOKEN,
  ETCD_CLIENT_TOKEN,
  EtcdHealthIndicator,
  EtcdService,
  getEtcdOptionsToken,
  getEtcdServiceToken,
  getEtcdToken,
  getRegistryOptionsToken,
  getRegistryServiceToken,
  getRegistryToken,
  getServiceToken,
  type HealthOptions,
  type HealthResult,
  type HealthStatus,
  type Json,
  type OnServiceList,
  type OnServices,
  type OnSetting,
  REGISTRY_CLIENT,
  RegistryHealthIndicator,
  type RegistryOnEtcd,
  RegistryService,
  type SelfOptions,
} from './shared/index.js';
export { type TestingBuilder, useMemoryRegistry } from './testing.js';
