/**
 * The part of `rollcall/nest` that needs nothing of Nest. Its ES module is a wrapper over the CommonJS build: the classes
 * that programs inject by type are the same, whichever way they come.
 */

export { invalid } from '../../common/shape.js';
export { Etcd3 } from '../../etcd/index.js';
export { keptAlive } from '../../frameworks/alive.js';
export {
  BREAKER_SIGNAL,
  type BreakerMethodOptions,
  type BreakerOptions,
  breakerMethod,
  openBreakers,
  type PoliciesOfApplication,
} from '../../frameworks/breakers.js';
export { closedBefore } from '../../frameworks/closing.js';
export { type AnyConfigDef, Configurations, definitionOf, definitionsOf } from '../../frameworks/configurations.js';
export { CoordMethods } from '../../frameworks/coord-methods.js';
export type { OnServiceList } from '../../frameworks/follow.js';
export {
  type Answer,
  answerOnce,
  type IdempotentOptions,
  idempotencyOf,
  KEPT_HEADERS,
  type OnceSettings,
  openOnce,
} from '../../frameworks/idempotency.js';
export { HELD_TERM, type LeaderOnlyOptions, leaderMethod, Term } from '../../frameworks/leader-only.js';
export type { AppLogger } from '../../frameworks/logger.js';
export {
  type AsyncMethod,
  expectInstance,
  type Method,
  methodOf,
  namedApart,
  type Place,
  placeOf,
} from '../../frameworks/methods.js';
export { HELD_TICK, type OncePerTickOptions, tickMethod } from '../../frameworks/once-per-tick.js';
export { type EtcdOpenOptions, explained, openEtcd, openRegistry, type RegistryOnEtcd } from '../../frameworks/open.js';
export {
  type CoordPlace,
  type CoordTarget,
  type OpenCoordOptions,
  openCoord,
  openInMemory,
  readOnce,
  sharedOf,
} from '../../frameworks/open-coord.js';
export {
  type InstancesOfApplication,
  openRateLimiter,
  type RateLimitOf,
  type RateLimitOptions,
  type RateLimitSettings,
  type RulesOfApplication,
  rateLimitOf,
  takeFor,
} from '../../frameworks/rate-limits.js';
export { coordNameOf, type FindCoord } from '../../frameworks/recipes.js';
export { Refused, refusalOf, rpcErrorOf } from '../../frameworks/refusals.js';
export { checkedSelf, type SelfOptions, SelfRegistration } from '../../frameworks/self-registration.js';
export { openUid, type UidOfApplication, type UidSettings } from '../../frameworks/uids.js';
export { HELD_LOCK, lockedMethod, type WithLockOptions } from '../../frameworks/with-lock.js';
export { connect, Registry } from '../../index.js';
export { BreakerService } from './breaker-service.js';
export { configToken } from './config-token.js';
export { CoordResident } from './coord-resident.js';
export { CoordService } from './coord-service.js';
export { EtcdResident } from './etcd-resident.js';
export { EtcdService, type Json, type OnServices } from './etcd-service.js';
export { markConfigHandler, markHandler, markLeader, markSetting, markTick } from './handlers.js';
export {
  CoordHealthIndicator,
  EtcdHealthIndicator,
  type HealthOptions,
  type HealthResult,
  type HealthStatus,
  RegistryHealthIndicator,
} from './health.js';
export { endsOf, placeAtEnds, type Resident, UNORDERED } from './lifecycle.js';
export { Definitions, refuseBare, refuseSecond } from './once.js';
export { OnceService } from './once-service.js';
export { RateLimitService, RollcallThrottlerStorage, type ThrottlerRecord } from './rate-limit-service.js';
export { RegistryResident } from './registry-resident.js';
export { RegistryService } from './registry-service.js';
export type { OnSetting } from './setting.js';
export {
  COORD_CLIENT,
  ETCD_CLIENT,
  ETCD_CLIENT_OPTIONS,
  ETCD_CLIENT_OPTIONS_TOKEN,
  ETCD_CLIENT_TOKEN,
  getBreakerOptionsToken,
  getBreakerServiceToken,
  getCoordOptionsToken,
  getCoordServiceToken,
  getCoordToken,
  getEtcdOptionsToken,
  getEtcdServiceToken,
  getEtcdToken,
  getOnceOptionsToken,
  getOnceServiceToken,
  getRateLimitOptionsToken,
  getRateLimitServiceToken,
  getRegistryOptionsToken,
  getRegistryServiceToken,
  getRegistryToken,
  getServiceToken,
  getUidOptionsToken,
  getUidServiceToken,
  healthTokenOf,
  isDefault,
  methodsToken,
  REGISTRY_CLIENT,
  recipeToken,
} from './tokens.js';
export { UidService } from './uid-service.js';
