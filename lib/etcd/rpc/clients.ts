/**
 * The six services of etcd, method by method, as etcd3 has them.
 *
 * Every method resolves with etcd's answer as it is; keys keep the prefix of their namespace. It rejects with the
 * errors of `errors.ts`: with the class of what etcd refused, with `GRPCUnavailableError` when no endpoint could be
 * reached, with `GRPCDeadlineExceededError` when the time ran out, with `GRPCCancelledError` when its signal fired,
 * with `ClientClosedError` after `close()`, and with an error of code `ERR_INVALID_ARGUMENT`, unsent, when a field of
 * the request is wrong.
 */

import { type CallOptions, type ICallable, type IDuplexStream, type IResponseStream, openStream } from './calls.js';
import type {
  IAlarmRequest,
  IAlarmResponse,
  IAuthDisableResponse,
  IAuthEnableResponse,
  IAuthenticateRequest,
  IAuthenticateResponse,
  IAuthRoleAddRequest,
  IAuthRoleAddResponse,
  IAuthRoleDeleteRequest,
  IAuthRoleDeleteResponse,
  IAuthRoleGetRequest,
  IAuthRoleGetResponse,
  IAuthRoleGrantPermissionRequest,
  IAuthRoleGrantPermissionResponse,
  IAuthRoleListResponse,
  IAuthRoleRevokePermissionRequest,
  IAuthRoleRevokePermissionResponse,
  IAuthStatusResponse,
  IAuthUserAddRequest,
  IAuthUserAddResponse,
  IAuthUserChangePasswordRequest,
  IAuthUserChangePasswordResponse,
  IAuthUserDeleteRequest,
  IAuthUserDeleteResponse,
  IAuthUserGetRequest,
  IAuthUserGetResponse,
  IAuthUserGrantRoleRequest,
  IAuthUserGrantRoleResponse,
  IAuthUserListResponse,
  IAuthUserRevokeRoleRequest,
  IAuthUserRevokeRoleResponse,
  ICompactionRequest,
  ICompactionResponse,
  IDefragmentResponse,
  IDeleteRangeRequest,
  IDeleteRangeResponse,
  IDowngradeRequest,
  IDowngradeResponse,
  IHashKVRequest,
  IHashKVResponse,
  IHashResponse,
  ILeaseGrantRequest,
  ILeaseGrantResponse,
  ILeaseKeepAliveRequest,
  ILeaseKeepAliveResponse,
  ILeaseLeasesResponse,
  ILeaseRevokeRequest,
  ILeaseRevokeResponse,
  ILeaseTimeToLiveRequest,
  ILeaseTimeToLiveResponse,
  IMemberAddRequest,
  IMemberAddResponse,
  IMemberListRequest,
  IMemberListResponse,
  IMemberPromoteRequest,
  IMemberPromoteResponse,
  IMemberRemoveRequest,
  IMemberRemoveResponse,
  IMemberUpdateRequest,
  IMemberUpdateResponse,
  IMoveLeaderRequest,
  IMoveLeaderResponse,
  IPutRequest,
  IPutResponse,
  IRangeRequest,
  IRangeResponse,
  IRangeStreamResponse,
  ISnapshotResponse,
  IStatusResponse,
  ITxnRequest,
  ITxnResponse,
  IWatchRequest,
  IWatchResponse,
} from './messages.js';

export * from './calls.js';
export { METHODS, methodOf, type RpcMethod, readsOnly, takesLong } from './methods.js';

/** Keys and values. */
export class KVClient {
  constructor(private readonly client: ICallable<unknown>) {}

  /**
   * Reads one key or a range. Only reads: tried again elsewhere after any failure of the connection or of the
   * member.
   */
  range(req: IRangeRequest, options?: CallOptions): Promise<IRangeResponse> {
    return this.client.exec('KV', 'range', req, options);
  }

  /**
   * Reads a range piece by piece, each of about the size of the largest request: for a range that is too large for one
   * answer. All pieces are of one revision. Needs a server from 3.7 on; an older one ends the stream with
   * `GRPCNotImplementedError`, as 3.7 does when `req` sorts, or filters by revision. A wrong `req` is refused at once. No
   * default time limit holds. A stream is not opened again: it ends with `error`, or with `end` after the last piece.
   */
  rangeStream(req: IRangeRequest, options?: CallOptions): Promise<IResponseStream<IRangeStreamResponse>> {
    return openStream(this.client, { service: 'KV', method: 'rangeStream', isStream: true }, options, req);
  }

  /**
   * Writes one key. Writes: tried again only when it was certainly not applied; else the error's `outcomeUnknown` is
   * true.
   */
  put(req: IPutRequest, options?: CallOptions): Promise<IPutResponse> {
    return this.client.exec('KV', 'put', req, options);
  }

  /**
   * Deletes one key or a range. Writes: tried again only when it was certainly not applied; else the error's
   * `outcomeUnknown` is true.
   */
  deleteRange(req: IDeleteRangeRequest, options?: CallOptions): Promise<IDeleteRangeResponse> {
    return this.client.exec('KV', 'deleteRange', req, options);
  }

  /**
   * Runs a transaction: conditions, and what to do if they hold and if not, all at once. Tried again as a read when
   * it holds only reads; else as a write: only when it was certainly not applied, or the error's `outcomeUnknown` is
   * true.
   */
  txn(req: ITxnRequest, options?: CallOptions): Promise<ITxnResponse> {
    return this.client.exec('KV', 'txn', req, options);
  }

  /**
   * Drops the history before a revision. With `physical` no default time limit holds. Writes: tried again only when
   * it was certainly not applied; else the error's `outcomeUnknown` is true. Rejects with `GRPCOutOfRangeError` when
   * the revision is gone already, or still to come.
   */
  compact(req: ICompactionRequest, options?: CallOptions): Promise<ICompactionResponse> {
    return this.client.exec('KV', 'compact', req, options);
  }
}

/** Watches, as etcd sends them. `client.watch()` is the one to use: it resumes after a failure. */
export class WatchClient {
  constructor(private readonly client: ICallable<unknown>) {}

  /**
   * Opens a stream on which watches are created and cancelled, and which reports what they see. A stream is not opened
   * again: it ends with `error` or `end`.
   */
  watch(options?: CallOptions): Promise<IDuplexStream<IWatchRequest, IWatchResponse>> {
    return openStream(this.client, { service: 'Watch', method: 'watch', isStream: true }, options);
  }
}

/** Leases. */
export class LeaseClient {
  constructor(private readonly client: ICallable<unknown>) {}

  /**
   * Makes a lease. Nothing keeps it alive. Writes: tried again only when it was certainly not applied; else the
   * error's `outcomeUnknown` is true.
   */
  leaseGrant(req: ILeaseGrantRequest, options?: CallOptions): Promise<ILeaseGrantResponse> {
    return this.client.exec('Lease', 'leaseGrant', req, options);
  }

  /**
   * Ends a lease and deletes its keys. Writes: tried again only when it was certainly not applied; else the error's
   * `outcomeUnknown` is true. Rejects with `EtcdLeaseInvalidError` when there is no such lease.
   */
  leaseRevoke(req: ILeaseRevokeRequest, options?: CallOptions): Promise<ILeaseRevokeResponse> {
    return this.client.exec('Lease', 'leaseRevoke', req, options);
  }

  /**
   * Opens a stream on which leases are kept alive: each request written is answered once. A stream is not opened again:
   * it ends with `error` or `end`. `client.lease()` does all that by itself.
   */
  leaseKeepAlive(options?: CallOptions): Promise<IDuplexStream<ILeaseKeepAliveRequest, ILeaseKeepAliveResponse>> {
    return openStream(this.client, { service: 'Lease', method: 'leaseKeepAlive', isStream: true }, options);
  }

  /**
   * How long a lease has left, and which keys it holds. An unknown lease has a TTL of `'-1'`. Only reads: tried
   * again elsewhere after any failure of the connection or of the member.
   */
  leaseTimeToLive(req: ILeaseTimeToLiveRequest, options?: CallOptions): Promise<ILeaseTimeToLiveResponse> {
    return this.client.exec('Lease', 'leaseTimeToLive', req, options);
  }

  /** Lists all leases. Only reads: tried again elsewhere after any failure of the connection or of the member. */
  leaseLeases(options?: CallOptions): Promise<ILeaseLeasesResponse> {
    return this.client.exec('Lease', 'leaseLeases', {}, options);
  }
}

/** The members of the cluster. */
export class ClusterClient {
  constructor(private readonly client: ICallable<unknown>) {}

  /**
   * Adds a member, which is then to be started. Writes: tried again only when it was certainly not applied; else the
   * error's `outcomeUnknown` is true.
   */
  memberAdd(req: IMemberAddRequest, options?: CallOptions): Promise<IMemberAddResponse> {
    return this.client.exec('Cluster', 'memberAdd', req, options);
  }

  /**
   * Removes a member. Writes: tried again only when it was certainly not applied; else the error's `outcomeUnknown`
   * is true.
   */
  memberRemove(req: IMemberRemoveRequest, options?: CallOptions): Promise<IMemberRemoveResponse> {
    return this.client.exec('Cluster', 'memberRemove', req, options);
  }

  /**
   * Changes the peer URLs of a member. Writes: tried again only when it was certainly not applied; else the error's
   * `outcomeUnknown` is true.
   */
  memberUpdate(req: IMemberUpdateRequest, options?: CallOptions): Promise<IMemberUpdateResponse> {
    return this.client.exec('Cluster', 'memberUpdate', req, options);
  }

  /** Lists the members. Only reads: tried again elsewhere after any failure of the connection or of the member. */
  memberList(req: IMemberListRequest, options?: CallOptions): Promise<IMemberListResponse> {
    return this.client.exec('Cluster', 'memberList', req, options);
  }

  /**
   * Gives a learner its vote. Writes: tried again only when it was certainly not applied; else the error's
   * `outcomeUnknown` is true.
   */
  memberPromote(req: IMemberPromoteRequest, options?: CallOptions): Promise<IMemberPromoteResponse> {
    return this.client.exec('Cluster', 'memberPromote', req, options);
  }
}

/** Care of the members. A call reaches whichever member the client is connected to. */
export class MaintenanceClient {
  constructor(private readonly client: ICallable<unknown>) {}

  /**
   * Lists, raises or ends alarms. `Get` only reads and is tried again as a read; else as a write: only when it was
   * certainly not applied, or the error's `outcomeUnknown` is true.
   */
  alarm(req: IAlarmRequest, options?: CallOptions): Promise<IAlarmResponse> {
    return this.client.exec('Maintenance', 'alarm', req, options);
  }

  /** How the member is. Only reads: tried again elsewhere after any failure of the connection or of the member. */
  status(options?: CallOptions): Promise<IStatusResponse> {
    return this.client.exec('Maintenance', 'status', {}, options);
  }

  /**
   * Gives the unused space of the member's store back. The member answers nothing meanwhile. No default time limit
   * holds. Writes: tried again only when it was certainly not applied; else the error's `outcomeUnknown` is true.
   */
  defragment(options?: CallOptions): Promise<IDefragmentResponse> {
    return this.client.exec('Maintenance', 'defragment', {}, options);
  }

  /**
   * A checksum of the member's whole store; only for tests. No default time limit holds. Only reads: tried again
   * elsewhere after any failure of the connection or of the member.
   */
  hash(options?: CallOptions): Promise<IHashResponse> {
    return this.client.exec('Maintenance', 'hash', {}, options);
  }

  /**
   * A checksum of the keys up to a revision. No default time limit holds. Only reads: tried again elsewhere after
   * any failure of the connection or of the member.
   */
  hashKV(req: IHashKVRequest, options?: CallOptions): Promise<IHashKVResponse> {
    return this.client.exec('Maintenance', 'hashKV', req, options);
  }

  /**
   * The store of the member, piece by piece, with the token of the client's user. No default time limit holds. A stream
   * is not opened again: it ends with `error`, or with `end` after the last piece.
   */
  snapshot(options?: CallOptions): Promise<IResponseStream<ISnapshotResponse>> {
    return openStream(this.client, { service: 'Maintenance', method: 'snapshot', isStream: true }, options, {});
  }

  /**
   * Lets another member lead. Rejects with `GRPCFailedPreconditionError` unless the leader itself is asked. Writes:
   * tried again only when it was certainly not applied; else the error's `outcomeUnknown` is true.
   */
  moveLeader(req: IMoveLeaderRequest, options?: CallOptions): Promise<IMoveLeaderResponse> {
    return this.client.exec('Maintenance', 'moveLeader', req, options);
  }

  /**
   * Prepares the cluster for an older version, or ends that. Needs a server from 3.5 on. `Validate` only reads and
   * is tried again as a read; else as a write: only when it was certainly not applied, or the error's
   * `outcomeUnknown` is true.
   */
  downgrade(req: IDowngradeRequest, options?: CallOptions): Promise<IDowngradeResponse> {
    return this.client.exec('Maintenance', 'downgrade', req, options);
  }
}

/** Users and roles. Passwords and tokens never appear in an error. */
export class AuthClient {
  constructor(private readonly client: ICallable<unknown>) {}

  /**
   * Turns authentication on. Needs a user `root` with the role `root`. Writes: tried again only when it was
   * certainly not applied; else the error's `outcomeUnknown` is true.
   */
  authEnable(options?: CallOptions): Promise<IAuthEnableResponse> {
    return this.client.exec('Auth', 'authEnable', {}, options);
  }

  /**
   * Turns authentication off. Writes: tried again only when it was certainly not applied; else the error's
   * `outcomeUnknown` is true.
   */
  authDisable(options?: CallOptions): Promise<IAuthDisableResponse> {
    return this.client.exec('Auth', 'authDisable', {}, options);
  }

  /**
   * Whether authentication is on. Needs a server from 3.5 on. Only reads: tried again elsewhere after any failure of
   * the connection or of the member.
   */
  authStatus(options?: CallOptions): Promise<IAuthStatusResponse> {
    return this.client.exec('Auth', 'authStatus', {}, options);
  }

  /**
   * Exchanges a password for a token. The client does so by itself for the user of its options. Only reads: tried
   * again elsewhere after any failure of the connection or of the member. Rejects with
   * `EtcdAuthenticationFailedError` when name or password is wrong.
   */
  authenticate(req: IAuthenticateRequest, options?: CallOptions): Promise<IAuthenticateResponse> {
    return this.client.exec('Auth', 'authenticate', req, options);
  }

  /**
   * Adds a user. Writes: tried again only when it was certainly not applied; else the error's `outcomeUnknown` is
   * true. Rejects with `EtcdUserExistsError` when there is one of that name.
   */
  userAdd(req: IAuthUserAddRequest, options?: CallOptions): Promise<IAuthUserAddResponse> {
    return this.client.exec('Auth', 'userAdd', req, options);
  }

  /**
   * The roles of a user. Only reads: tried again elsewhere after any failure of the connection or of the member.
   * Rejects with `EtcdUserNotFoundError` when there is no such user.
   */
  userGet(req: IAuthUserGetRequest, options?: CallOptions): Promise<IAuthUserGetResponse> {
    return this.client.exec('Auth', 'userGet', req, options);
  }

  /** Lists the users. Only reads: tried again elsewhere after any failure of the connection or of the member. */
  userList(options?: CallOptions): Promise<IAuthUserListResponse> {
    return this.client.exec('Auth', 'userList', {}, options);
  }

  /**
   * Deletes a user. Writes: tried again only when it was certainly not applied; else the error's `outcomeUnknown` is
   * true. Rejects with `EtcdUserNotFoundError` when there is no such user.
   */
  userDelete(req: IAuthUserDeleteRequest, options?: CallOptions): Promise<IAuthUserDeleteResponse> {
    return this.client.exec('Auth', 'userDelete', req, options);
  }

  /**
   * Gives a user another password. Writes: tried again only when it was certainly not applied; else the error's
   * `outcomeUnknown` is true. Rejects with `EtcdUserNotFoundError` when there is no such user.
   */
  userChangePassword(
    req: IAuthUserChangePasswordRequest,
    options?: CallOptions,
  ): Promise<IAuthUserChangePasswordResponse> {
    return this.client.exec('Auth', 'userChangePassword', req, options);
  }

  /**
   * Gives a user a role. Writes: tried again only when it was certainly not applied; else the error's
   * `outcomeUnknown` is true. Rejects with `EtcdUserNotFoundError` or `EtcdRoleNotFoundError` when there is no such
   * user or role.
   */
  userGrantRole(req: IAuthUserGrantRoleRequest, options?: CallOptions): Promise<IAuthUserGrantRoleResponse> {
    return this.client.exec('Auth', 'userGrantRole', req, options);
  }

  /**
   * Takes a role from a user. Writes: tried again only when it was certainly not applied; else the error's
   * `outcomeUnknown` is true. Rejects with `EtcdRoleNotGrantedError` when the user has not got it.
   */
  userRevokeRole(req: IAuthUserRevokeRoleRequest, options?: CallOptions): Promise<IAuthUserRevokeRoleResponse> {
    return this.client.exec('Auth', 'userRevokeRole', req, options);
  }

  /**
   * Adds a role. Writes: tried again only when it was certainly not applied; else the error's `outcomeUnknown` is
   * true. Rejects with `EtcdRoleExistsError` when there is one of that name.
   */
  roleAdd(req: IAuthRoleAddRequest, options?: CallOptions): Promise<IAuthRoleAddResponse> {
    return this.client.exec('Auth', 'roleAdd', req, options);
  }

  /**
   * What a role may do. Only reads: tried again elsewhere after any failure of the connection or of the member.
   * Rejects with `EtcdRoleNotFoundError` when there is no such role.
   */
  roleGet(req: IAuthRoleGetRequest, options?: CallOptions): Promise<IAuthRoleGetResponse> {
    return this.client.exec('Auth', 'roleGet', req, options);
  }

  /** Lists the roles. Only reads: tried again elsewhere after any failure of the connection or of the member. */
  roleList(options?: CallOptions): Promise<IAuthRoleListResponse> {
    return this.client.exec('Auth', 'roleList', {}, options);
  }

  /**
   * Deletes a role. Writes: tried again only when it was certainly not applied; else the error's `outcomeUnknown` is
   * true. Rejects with `EtcdRoleNotFoundError` when there is no such role.
   */
  roleDelete(req: IAuthRoleDeleteRequest, options?: CallOptions): Promise<IAuthRoleDeleteResponse> {
    return this.client.exec('Auth', 'roleDelete', req, options);
  }

  /**
   * Lets a role read or write a key or a range. Writes: tried again only when it was certainly not applied; else the
   * error's `outcomeUnknown` is true. Rejects with `EtcdRoleNotFoundError` when there is no such role.
   */
  roleGrantPermission(
    req: IAuthRoleGrantPermissionRequest,
    options?: CallOptions,
  ): Promise<IAuthRoleGrantPermissionResponse> {
    return this.client.exec('Auth', 'roleGrantPermission', req, options);
  }

  /**
   * Takes such a permission back. Key and range must be as they were granted. Writes: tried again only when it was
   * certainly not applied; else the error's `outcomeUnknown` is true. Rejects with `EtcdRoleNotFoundError` when
   * there is no such role.
   */
  roleRevokePermission(
    req: IAuthRoleRevokePermissionRequest,
    options?: CallOptions,
  ): Promise<IAuthRoleRevokePermissionResponse> {
    return this.client.exec('Auth', 'roleRevokePermission', req, options);
  }
}

/** The class of each service. */
export const Services = {
  KV: KVClient,
  Watch: WatchClient,
  Lease: LeaseClient,
  Cluster: ClusterClient,
  Maintenance: MaintenanceClient,
  Auth: AuthClient,
};
