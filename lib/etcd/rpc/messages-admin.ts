/** The messages of the services Cluster, Maintenance and Auth. `messages.ts` says what holds for all. */

import type { AlarmAction, AlarmType, DowngradeAction, Permission } from './enums.js';
import type { Int64, IResponseHeader } from './messages-common.js';

/** A member of the cluster. */
export interface IMember {
  /** Unsigned, decimal; etcd's own tools write it in hex. */
  ID: string;
  /** Empty until the member has started. */
  name: string;
  peerURLs: string[];
  /** Empty until the member has started. */
  clientURLs: string[];
  /** Whether the member has no vote yet. */
  isLearner: boolean;
}

export interface IMemberAddRequest {
  peerURLs?: string[];
  /** Default false. */
  isLearner?: boolean;
}

export interface IMemberAddResponse {
  header: IResponseHeader;
  /** The new one. */
  member: IMember;
  /** All, the new one included. */
  members: IMember[];
}

export interface IMemberRemoveRequest {
  ID?: Int64;
}

export interface IMemberRemoveResponse {
  header: IResponseHeader;
  members: IMember[];
}

export interface IMemberUpdateRequest {
  ID?: Int64;
  peerURLs?: string[];
}

export interface IMemberUpdateResponse {
  header: IResponseHeader;
  members: IMember[];
}

export interface IMemberListRequest {
  /** Ask the cluster, not only the member. Default false. */
  linearizable?: boolean;
}

export interface IMemberListResponse {
  header: IResponseHeader;
  members: IMember[];
}

export interface IMemberPromoteRequest {
  ID?: Int64;
}

export interface IMemberPromoteResponse {
  header: IResponseHeader;
  members: IMember[];
}

// biome-ignore lint/suspicious/noEmptyInterface: a message without fields
export interface IHashRequest {}

export interface IHashResponse {
  header: IResponseHeader;
  /** CRC of the whole store of the member. */
  hash: number;
}

export interface IHashKVRequest {
  /** Default 0, the newest. */
  revision?: Int64;
}

export interface IHashKVResponse {
  header: IResponseHeader;
  /** CRC of the keys up to the revision. */
  hash: number;
  compact_revision: string;
  /** The revision of the hash; `'0'` from a server before 3.6. */
  hash_revision?: string;
}

// biome-ignore lint/suspicious/noEmptyInterface: a message without fields
export interface ISnapshotRequest {}

export interface ISnapshotResponse {
  header: IResponseHeader;
  /** How much of the snapshot is still to come. */
  remaining_bytes: string;
  /** The next piece. */
  blob: Buffer;
  /** The version of the store; empty from a server before 3.6. */
  version?: string;
}

// biome-ignore lint/suspicious/noEmptyInterface: a message without fields
export interface IDefragmentRequest {}

export interface IDefragmentResponse {
  header: IResponseHeader;
}

export interface IMoveLeaderRequest {
  /** The member that shall lead. */
  targetID?: Int64;
}

export interface IMoveLeaderResponse {
  header: IResponseHeader;
}

export interface IAlarmRequest {
  /** Default `Get`. */
  action?: AlarmAction | keyof typeof AlarmAction;
  /** Default 0, every member. */
  memberID?: Int64;
  /** Default `None`, every kind. */
  alarm?: AlarmType | keyof typeof AlarmType;
}

export interface IAlarmMember {
  memberID: string;
  alarm: keyof typeof AlarmType;
}

export interface IAlarmResponse {
  header: IResponseHeader;
  alarms: IAlarmMember[];
}

export interface IDowngradeRequest {
  /** Default `Validate`. */
  action?: DowngradeAction | keyof typeof DowngradeAction;
  /** The version to go down to, such as `3.5`. */
  version?: string;
}

export interface IDowngradeResponse {
  header: IResponseHeader;
  /** The version of the cluster now. */
  version: string;
}

// biome-ignore lint/suspicious/noEmptyInterface: a message without fields
export interface IStatusRequest {}

/** How far a downgrade is. */
export interface IDowngradeInfo {
  enabled: boolean;
  targetVersion: string;
}

/** How a member is. */
export interface IStatusResponse {
  header: IResponseHeader;
  /** Of the server. */
  version: string;
  /** The size of the store, in bytes. */
  dbSize: string;
  /** The id of the leader; `'0'` for none. */
  leader: string;
  raftIndex: string;
  raftTerm: string;
  raftAppliedIndex: string;
  /** What is wrong with the member, in etcd's words. */
  errors: string[];
  /** How much of the store is in use, in bytes. */
  dbSizeInUse: string;
  isLearner: boolean;
  /** The version of the store; empty from a server before 3.6. */
  storageVersion?: string;
  /** The most that the store may hold, in bytes; `'0'` from a server before 3.6. */
  dbSizeQuota?: string;
  /** `null` from a server before 3.6. */
  downgradeInfo?: IDowngradeInfo | null;
}

// biome-ignore lint/suspicious/noEmptyInterface: a message without fields
export interface IAuthEnableRequest {}

// biome-ignore lint/suspicious/noEmptyInterface: a message without fields
export interface IAuthDisableRequest {}

// biome-ignore lint/suspicious/noEmptyInterface: a message without fields
export interface IAuthStatusRequest {}

export interface IAuthenticateRequest {
  name?: string;
  password?: string;
}

export interface IAuthUserAddRequest {
  name?: string;
  password?: string;
  options?: IUserAddOptions;
  /** The password's bcrypt hash, in base64, instead of the password. Needs a server from 3.5 on. */
  hashedPassword?: string;
}

export interface IAuthUserGetRequest {
  name?: string;
}

export interface IAuthUserDeleteRequest {
  name?: string;
}

export interface IAuthUserChangePasswordRequest {
  name?: string;
  password?: string;
  /** The password's bcrypt hash, in base64, instead of the password. Needs a server from 3.5 on. */
  hashedPassword?: string;
}

export interface IAuthUserGrantRoleRequest {
  user?: string;
  role?: string;
}

export interface IAuthUserRevokeRoleRequest {
  /** Of the user. */
  name?: string;
  role?: string;
}

export interface IAuthRoleAddRequest {
  name?: string;
}

export interface IAuthRoleGetRequest {
  role?: string;
}

// biome-ignore lint/suspicious/noEmptyInterface: a message without fields
export interface IAuthUserListRequest {}

// biome-ignore lint/suspicious/noEmptyInterface: a message without fields
export interface IAuthRoleListRequest {}

export interface IAuthRoleDeleteRequest {
  role?: string;
}

export interface IAuthRoleGrantPermissionRequest {
  /** Of the role. */
  name?: string;
  perm?: IPermission;
}

export interface IAuthRoleRevokePermissionRequest {
  role?: string;
  key?: Buffer;
  range_end?: Buffer;
}

export interface IAuthEnableResponse {
  header: IResponseHeader;
}

export interface IAuthDisableResponse {
  header: IResponseHeader;
}

export interface IAuthStatusResponse {
  header: IResponseHeader;
  enabled: boolean;
  /** Grows with every change of users and roles. */
  authRevision: string;
}

export interface IAuthenticateResponse {
  header: IResponseHeader;
  token: string;
}

export interface IAuthUserAddResponse {
  header: IResponseHeader;
}

export interface IAuthUserGetResponse {
  header: IResponseHeader;
  roles: string[];
}

export interface IAuthUserDeleteResponse {
  header: IResponseHeader;
}

export interface IAuthUserChangePasswordResponse {
  header: IResponseHeader;
}

export interface IAuthUserGrantRoleResponse {
  header: IResponseHeader;
}

export interface IAuthUserRevokeRoleResponse {
  header: IResponseHeader;
}

export interface IAuthRoleAddResponse {
  header: IResponseHeader;
}

export interface IAuthRoleGetResponse {
  header: IResponseHeader;
  perm: IPermission[];
}

export interface IAuthRoleListResponse {
  header: IResponseHeader;
  roles: string[];
}

export interface IAuthUserListResponse {
  header: IResponseHeader;
  users: string[];
}

export interface IAuthRoleDeleteResponse {
  header: IResponseHeader;
}

export interface IAuthRoleGrantPermissionResponse {
  header: IResponseHeader;
}

export interface IAuthRoleRevokePermissionResponse {
  header: IResponseHeader;
}

export interface IUserAddOptions {
  /** The user can only come with a certificate. Default false. */
  no_password?: boolean;
}

export interface IUser {
  name?: Buffer;
  password?: Buffer;
  roles?: string[];
  options?: IUserAddOptions;
}

/** What a role may do with a range of keys. */
export interface IPermission {
  permType: keyof typeof Permission;
  /** The key, or the first of the range. */
  key: Buffer;
  /** The first key after the range; `\0`: no end; empty: only `key`. */
  range_end: Buffer;
}

export interface IRole {
  name?: Buffer;
  keyPermission?: IPermission[];
}
