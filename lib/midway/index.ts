/** rollcall/midway: a component for Midway 3 and 4. Enter at `imports: [rollcall]` and the keys of the configuration, such as `registry`. */

export type { BreakerMethodOptions } from '../frameworks/breakers.js';
export type { AnyConfigDef } from '../frameworks/configurations.js';
export type { OnServiceList } from '../frameworks/follow.js';
export type { IdempotentOptions } from '../frameworks/idempotency.js';
export type { LeaderOnlyOptions, Term } from '../frameworks/leader-only.js';
export type { AsyncMethod } from '../frameworks/methods.js';
export type { OncePerTickOptions } from '../frameworks/once-per-tick.js';
export type { RegistryOnEtcd } from '../frameworks/open.js';
export type { CoordPlace } from '../frameworks/open-coord.js';
export type { InstancesOfApplication, RateLimitOptions } from '../frameworks/rate-limits.js';
export type { SelfOptions } from '../frameworks/self-registration.js';
export type { UidOfApplication } from '../frameworks/uids.js';
export type { WithLockOptions } from '../frameworks/with-lock.js';
export { Breaker, BreakerService, BreakerSignal } from './breaker.js';
export type {
  BreakersConfig,
  CoordConfig,
  EtcdClientOptions,
  EtcdConfig,
  InstanceBalancer,
  Made,
  OnceConfig,
  PlacedConfig,
  RateLimitConfig,
  RegistryClientOptions,
  RegistryConfig,
  RegistryDiscoveryOptions,
  RegistryUrlOptions,
  UidConfig,
} from './config.js';
export { RollcallConfiguration as Configuration } from './configuration.js';
export { ConfigRef, CoordService, OnConfigChange } from './coord.js';
export { HeldLock, HeldTerm, HeldTick, LeaderOnly, OncePerTick, WithLock } from './coord-methods.js';
export { ETCDService, ETCDServiceFactory } from './etcd.js';
export { idempotent, OnceService } from './once.js';
export { RateLimit, RateLimitGuard, RateLimitService } from './rate-limit.js';
export { RefusalFilter } from './refusal-filter.js';
export { RegistryServiceFactory } from './registry-factory.js';
export { RegistryService } from './registry-service.js';
export { UidService } from './uid.js';
