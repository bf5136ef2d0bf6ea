/** rollcall: register, discover and watch services. Enter at `connect()`. */

export type { SharedClient } from './common/lending.js';
export type { Logger } from './common/logger.js';
export type { MeterLike, ObservableLike, TracerLike } from './common/telemetry.js';
export {
  AbortedError,
  BadRecordError,
  ClosedError,
  type ErrorCode,
  type ErrorDetails,
  InternalError,
  InvalidArgumentError,
  type NoInstanceDetails,
  NoInstanceError,
  PermissionDeniedError,
  ReplacedError,
  RollcallError,
  TimeoutError,
  UnauthenticatedError,
  UnavailableError,
  UnsupportedError,
} from './errors.js';
export { type Application, type RegisterSelfOptions, registerSelf, type SelfServer } from './register-self.js';
export type { BilibiliOptions } from './registry/backends/bilibili.js';
export type { ConsulOptions } from './registry/backends/consul.js';
export type { EtcdOptions, SharedEtcdOptions } from './registry/backends/etcd.js';
export type { BackendName, RegistryOptions } from './registry/backends/index.js';
export type { KubernetesOptions } from './registry/backends/kubernetes.js';
export type { MemoryOptions } from './registry/backends/memory.js';
export type { NacosOptions } from './registry/backends/nacos.js';
export type { PolarisOptions } from './registry/backends/polaris.js';
export type { ZookeeperOptions } from './registry/backends/zookeeper.js';
export type { CallOptions, GetServiceOptions, RegisterOptions, WatchOptions } from './registry/call-options.js';
export type { Capabilities } from './registry/capabilities.js';
export type { CommonOptions } from './registry/common-options.js';
export { connect, type UrlOptions } from './registry/connect.js';
export type { RegistryEvents } from './registry/events.js';
export type { OnServiceList } from './registry/follow.js';
export type { BadRecord, InstanceInput, InstanceUpdate, ServiceInstance, ServiceList } from './registry/instance.js';
export { MemoryServer } from './registry/memory-server.js';
export type { CallMetrics, RegistryMetrics } from './registry/metrics.js';
export { type ServiceName, type ServiceNames, ServicesWatcher } from './registry/names.js';
export type { RegistryCall, RegistryCallEnd, RegistryMethod, RegistryObserver } from './registry/observe.js';
export { openTelemetry } from './registry/open-telemetry.js';
export {
  type DrainOptions,
  type OutReason,
  Registration,
  type RegistrationEvents,
  type RegistrationState,
  type RemovalOptions,
  type TrafficOptions,
  type UpdateOptions,
} from './registry/registration.js';
export { Registry } from './registry/registry.js';
export type { RegistryStatus } from './registry/status.js';
export type { TlsOptions } from './registry/tls.js';
export { type ListWatcher, Watcher, type WatcherEvents } from './registry/watcher.js';
export type { Ejection } from './service/balance.js';
export type { RetryBudget } from './service/budget.js';
export type { ReadyOptions, ServiceCache, ServiceCacheState, WaitForOptions } from './service/cache.js';
export type { ServiceChange } from './service/diff.js';
export type { EjectionReason, OutlierOptions } from './service/ejector.js';
export type { Endpoint } from './service/endpoint.js';
export type { ServiceCacheEvents } from './service/followed.js';
export type { HttpOptions, ServiceRequestInit } from './service/http.js';
export type { ServiceMetrics } from './service/metrics.js';
export type { ServiceOptions, ZoneOptions } from './service/options.js';
export type { ConsistentHashOptions } from './service/pick/consistent-hash.js';
export type { MetadataPredicate, ZoneFilterOptions } from './service/pick/filters.js';
export type { LeastLoadedOptions } from './service/pick/least-loaded.js';
export type { SubsetOptions } from './service/pick/subset.js';
export type { Candidate, Change, Filter, Load, Picker, Skip, Strategy, Tools } from './service/pick/types.js';
export {
  consistentHash,
  leastLoaded,
  metadata,
  random,
  roundRobin,
  scheme,
  secure,
  version,
  weighted,
  weightedRandom,
  zone,
} from './service/selectors.js';
export type { CallResult, Picked } from './service/ticket.js';
export type { ExplainedInstance, Explanation, PickOptions } from './service/view.js';
