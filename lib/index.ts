/** rollcall: register, discover and watch services. Enter at `connect()`. */

export type { Logger } from './common/logger.js';
export {
  AbortedError,
  BadRecordError,
  ClosedError,
  type ErrorCode,
  type ErrorDetails,
  InternalError,
  InvalidArgumentError,
  PermissionDeniedError,
  ReplacedError,
  RollcallError,
  TimeoutError,
  UnauthenticatedError,
  UnavailableError,
  UnsupportedError,
} from './errors.js';
export type { ConsulOptions } from './registry/backends/consul.js';
export type { EtcdOptions } from './registry/backends/etcd.js';
export type { RegistryOptions } from './registry/backends/index.js';
export type { MemoryOptions } from './registry/backends/memory.js';
export type { ZookeeperOptions } from './registry/backends/zookeeper.js';
export type { CommonOptions } from './registry/common-options.js';
export { connect } from './registry/connect.js';
export type { InstanceInput, InstanceUpdate, ServiceInstance, ServiceList } from './registry/instance.js';
export { MemoryServer } from './registry/memory-server.js';
export {
  Registration,
  type RegistrationEvents,
  type RegistrationState,
  type RemovalOptions,
  type UpdateOptions,
} from './registry/registration.js';
export {
  type BadRecord,
  type CallOptions,
  type Capabilities,
  type GetServiceOptions,
  type RegisterOptions,
  Registry,
  type RegistryEvents,
  type WatchOptions,
} from './registry/registry.js';
export type { TlsOptions } from './registry/tls.js';
export { Watcher, type WatcherEvents } from './registry/watcher.js';
