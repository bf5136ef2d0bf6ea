/** rollcall/etcd: a client of etcd, for programs written for etcd3. Enter at `Etcd3`. */

export {
  AbortedError,
  ClosedError,
  type ErrorCode,
  type ErrorDetails,
  InternalError,
  InvalidArgumentError,
  RollcallError,
  UnsupportedError,
} from '../errors.js';
export type { Logger } from '../registry/logger.js';
export { type IPermissionRequest, type IPermissionResult, Role, User } from './auth.js';
export { BatchBuilder, type IBatchPutOptions, type IBatchResult } from './batch.js';
export { Etcd3 } from './client.js';
export { DeleteBuilder } from './delete.js';
export {
  Campaign,
  Election,
  ElectionObserver,
  type ICampaignOptions,
  type IElectionOptions,
} from './election.js';
export {
  ClientClosedError,
  ClientRuntimeError,
  CompactedError,
  castGrpcError,
  castGrpcErrorMessage,
  EtcdAuthenticationFailedError,
  EtcdClientError,
  EtcdError,
  type EtcdErrorDetails,
  EtcdInvalidAuthTokenError,
  EtcdLeaseInvalidError,
  EtcdLockFailedError,
  EtcdPermissionDeniedError,
  EtcdRoleExistsError,
  EtcdRoleNotFoundError,
  EtcdRoleNotGrantedError,
  EtcdUserExistsError,
  EtcdUserNotFoundError,
  EtcdWatchStreamEnded,
  GRPCAbortedError,
  GRPCAlreadyExistsError,
  GRPCCancelledError,
  GRPCDataLossError,
  GRPCDeadlineExceededError,
  GRPCFailedPreconditionError,
  GRPCGenericError,
  GRPCInternalError,
  GRPCInvalidArgumentError,
  GRPCNotFoundError,
  GRPCNotImplementedError,
  GRPCOutOfRangeError,
  GRPCProtocolError,
  GRPCResourceExhastedError,
  GRPCUnauthenticatedError,
  GRPCUnavailableError,
  GRPCUnknownError,
  isRecoverableError,
  NotCampaigningError,
  RecoverableError,
  STMConflictError,
  type TriedEndpoint,
} from './errors.js';
export type { Backoff, BackoffFactory, FaultHandlingOptions, Policy, PolicyContext } from './fault-handling.js';
export { RangeBuilder, SingleRangeBuilder } from './get.js';
export { type IEntry, type IStreamOptions, MultiRangeBuilder } from './get-all.js';
export { type IRestored, LastingLease, type LastingLeaseEvents } from './lasting-lease.js';
export { type ILeaseOptions, Lease, LeaseState } from './lease.js';
export { type IAcquireOptions, type ILockOptions, type IMutexOptions, Lock, Mutex } from './lock.js';
export type { IMethodMetrics, IMetrics } from './metrics.js';
export { type ILeaseTimeToLive, Namespace } from './namespace.js';
export { type CallObserver, type MeterLike, type ObservedCall, openTelemetry, type TracerLike } from './observe.js';
export type { AuthOptions, ClientTlsOptions, IOptions } from './options.js';
export { PutBuilder } from './put.js';
export { type Rangable, Range } from './range.js';
export type { IStallOptions } from './recipe.js';
export type { IOperation } from './request.js';
export type {
  CallContext,
  CallOptions,
  CallOptionsFactory,
  ICallable,
  IDuplexStream,
  IRequestStream,
  IResponseStream,
  StreamStatus,
} from './rpc/calls.js';
export {
  AuthClient,
  ClusterClient,
  KVClient,
  LeaseClient,
  MaintenanceClient,
  Services,
  WatchClient,
} from './rpc/clients.js';
export {
  AlarmAction,
  AlarmType,
  CompareResult,
  CompareTarget,
  DowngradeAction,
  EventType,
  FilterType,
  Permission,
  SortOrder,
  SortTarget,
} from './rpc/enums.js';
export type * from './rpc/messages.js';
export { type ISTMOptions, Isolation, SoftwareTransaction } from './stm.js';
export { ComparatorBuilder, type Comparison, comparator, compareTarget, type ICompareTarget } from './txn.js';
export { WatchBuilder } from './watch.js';
export type { WatchChange, WatchedKey, WatchList } from './watch-iterator.js';
export { Watcher, type WatchOptions } from './watcher.js';
