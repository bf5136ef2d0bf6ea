/** rollcall/etcd: a client of etcd, for programs written for etcd3. Enter at `Etcd3`. */

export type { Logger } from '../common/logger.js';
export type { MeterLike, ObservableLike, TracerLike } from '../common/telemetry.js';
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
export { type IPermissionRequest, type IPermissionResult, Role, User } from './auth.js';
export { Etcd3 } from './client.js';
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
export { BatchBuilder, type IBatchPutOptions, type IBatchResult } from './kv/batch.js';
export { DeleteBuilder } from './kv/delete.js';
export { RangeBuilder, SingleRangeBuilder } from './kv/get.js';
export { type IEntry, type IStreamOptions, MultiRangeBuilder } from './kv/get-all.js';
export { type LeaseId, type LeaseSource, PutBuilder } from './kv/put.js';
export { type Rangable, Range } from './kv/range.js';
export type { IOperation } from './kv/request.js';
export { type ISTMOptions, Isolation, SoftwareTransaction } from './kv/stm.js';
export { ComparatorBuilder, type Comparison, comparator, compareTarget, type ICompareTarget } from './kv/txn.js';
export {
  type ILastingLeaseOptions,
  type IRestored,
  LastingLease,
  type LastingLeaseEvents,
} from './lease/lasting-lease.js';
export { type ILeaseOptions, Lease, LeaseState } from './lease/lease.js';
export { type ILeaseTimeToLive, Namespace } from './namespace.js';
export {
  Campaign,
  Election,
  ElectionObserver,
  type ICampaignOptions,
  type IElectionOptions,
} from './recipes/election.js';
export { type ILockOptions, Lock } from './recipes/lock.js';
export { type IAcquireOptions, type IMutexOptions, Mutex } from './recipes/mutex.js';
export type { IStallOptions } from './recipes/settings.js';
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
export type {
  Backoff,
  BackoffFactory,
  FaultHandlingOptions,
  Policy,
  PolicyContext,
} from './transport/fault-handling.js';
export type { IMethodMetrics, IMetrics } from './transport/metrics.js';
export { type CallObserver, type ObservedCall, openTelemetry } from './transport/observe.js';
export type { AuthOptions, ClientTlsOptions, IOptions } from './transport/options.js';
export { WatchBuilder } from './watch/builder.js';
export type { WatchChange, WatchedKey, WatchList } from './watch/iterator.js';
export { Watcher, type WatchOptions } from './watch/watcher.js';
