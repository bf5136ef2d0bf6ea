/**
 * The messages of etcd's API on the wire: their fields by number. From the protocol of etcd 3.7, which older ones
 * share.
 */

import {
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
} from './enums.js';

/** The enums that fields have, by the name used in the table. */
export const ENUMS = {
  AlarmAction,
  AlarmType,
  CompareResult,
  CompareTarget,
  DowngradeAction,
  EventType,
  FilterType,
  PermissionType: Permission,
  SortOrder,
  SortTarget,
} as const;

/** How deep messages may nest; transactions can hold transactions. */
export const MAX_DEPTH = 64;

/** Kinds of fields besides enums and messages. */
export type Scalar = 'bytes' | 'string' | 'bool' | 'int64' | 'uint64' | 'uint32';

/**
 * A field: its number, its name, its kind (a scalar, an enum or a message), and `[]` when it is repeated, or the name
 * of the oneof that it belongs to.
 */
export type FieldRow = readonly [number: number, name: string, kind: string, more?: string];

/** Every message, by its name in the protocol. */
export const MESSAGES = {
  UserAddOptions: [[1, 'no_password', 'bool']],
  User: [
    [1, 'name', 'bytes'],
    [2, 'password', 'bytes'],
    [3, 'roles', 'string', '[]'],
    [4, 'options', 'UserAddOptions'],
  ],
  Permission: [
    [1, 'permType', 'PermissionType'],
    [2, 'key', 'bytes'],
    [3, 'range_end', 'bytes'],
  ],
  Role: [
    [1, 'name', 'bytes'],
    [2, 'keyPermission', 'Permission', '[]'],
  ],
  KeyValue: [
    [1, 'key', 'bytes'],
    [2, 'create_revision', 'int64'],
    [3, 'mod_revision', 'int64'],
    [4, 'version', 'int64'],
    [5, 'value', 'bytes'],
    [6, 'lease', 'int64'],
  ],
  Event: [
    [1, 'type', 'EventType'],
    [2, 'kv', 'KeyValue'],
    [3, 'prev_kv', 'KeyValue'],
  ],
  ResponseHeader: [
    [1, 'cluster_id', 'uint64'],
    [2, 'member_id', 'uint64'],
    [3, 'revision', 'int64'],
    [4, 'raft_term', 'uint64'],
  ],
  RangeRequest: [
    [1, 'key', 'bytes'],
    [2, 'range_end', 'bytes'],
    [3, 'limit', 'int64'],
    [4, 'revision', 'int64'],
    [5, 'sort_order', 'SortOrder'],
    [6, 'sort_target', 'SortTarget'],
    [7, 'serializable', 'bool'],
    [8, 'keys_only', 'bool'],
    [9, 'count_only', 'bool'],
    [10, 'min_mod_revision', 'int64'],
    [11, 'max_mod_revision', 'int64'],
    [12, 'min_create_revision', 'int64'],
    [13, 'max_create_revision', 'int64'],
  ],
  RangeResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'kvs', 'KeyValue', '[]'],
    [3, 'more', 'bool'],
    [4, 'count', 'int64'],
  ],
  PutRequest: [
    [1, 'key', 'bytes'],
    [2, 'value', 'bytes'],
    [3, 'lease', 'int64'],
    [4, 'prev_kv', 'bool'],
    [5, 'ignore_value', 'bool'],
    [6, 'ignore_lease', 'bool'],
  ],
  PutResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'prev_kv', 'KeyValue'],
  ],
  DeleteRangeRequest: [
    [1, 'key', 'bytes'],
    [2, 'range_end', 'bytes'],
    [3, 'prev_kv', 'bool'],
  ],
  DeleteRangeResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'deleted', 'int64'],
    [3, 'prev_kvs', 'KeyValue', '[]'],
  ],
  RequestOp: [
    [1, 'request_range', 'RangeRequest', 'request'],
    [2, 'request_put', 'PutRequest', 'request'],
    [3, 'request_delete_range', 'DeleteRangeRequest', 'request'],
    [4, 'request_txn', 'TxnRequest', 'request'],
  ],
  ResponseOp: [
    [1, 'response_range', 'RangeResponse', 'response'],
    [2, 'response_put', 'PutResponse', 'response'],
    [3, 'response_delete_range', 'DeleteRangeResponse', 'response'],
    [4, 'response_txn', 'TxnResponse', 'response'],
  ],
  Compare: [
    [1, 'result', 'CompareResult'],
    [2, 'target', 'CompareTarget'],
    [3, 'key', 'bytes'],
    [4, 'version', 'int64', 'target_union'],
    [5, 'create_revision', 'int64', 'target_union'],
    [6, 'mod_revision', 'int64', 'target_union'],
    [7, 'value', 'bytes', 'target_union'],
    [8, 'lease', 'int64', 'target_union'],
    [64, 'range_end', 'bytes'],
  ],
  TxnRequest: [
    [1, 'compare', 'Compare', '[]'],
    [2, 'success', 'RequestOp', '[]'],
    [3, 'failure', 'RequestOp', '[]'],
  ],
  TxnResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'succeeded', 'bool'],
    [3, 'responses', 'ResponseOp', '[]'],
  ],
  CompactionRequest: [
    [1, 'revision', 'int64'],
    [2, 'physical', 'bool'],
  ],
  CompactionResponse: [[1, 'header', 'ResponseHeader']],
  HashRequest: [],
  HashKVRequest: [[1, 'revision', 'int64']],
  HashKVResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'hash', 'uint32'],
    [3, 'compact_revision', 'int64'],
    [4, 'hash_revision', 'int64'],
  ],
  HashResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'hash', 'uint32'],
  ],
  SnapshotRequest: [],
  SnapshotResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'remaining_bytes', 'uint64'],
    [3, 'blob', 'bytes'],
    [4, 'version', 'string'],
  ],
  WatchRequest: [
    [1, 'create_request', 'WatchCreateRequest', 'request_union'],
    [2, 'cancel_request', 'WatchCancelRequest', 'request_union'],
    [3, 'progress_request', 'WatchProgressRequest', 'request_union'],
  ],
  WatchCreateRequest: [
    [1, 'key', 'bytes'],
    [2, 'range_end', 'bytes'],
    [3, 'start_revision', 'int64'],
    [4, 'progress_notify', 'bool'],
    [5, 'filters', 'FilterType', '[]'],
    [6, 'prev_kv', 'bool'],
    [7, 'watch_id', 'int64'],
    [8, 'fragment', 'bool'],
  ],
  WatchCancelRequest: [[1, 'watch_id', 'int64']],
  WatchProgressRequest: [],
  WatchResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'watch_id', 'int64'],
    [3, 'created', 'bool'],
    [4, 'canceled', 'bool'],
    [5, 'compact_revision', 'int64'],
    [6, 'cancel_reason', 'string'],
    [7, 'fragment', 'bool'],
    [11, 'events', 'Event', '[]'],
  ],
  LeaseGrantRequest: [
    [1, 'TTL', 'int64'],
    [2, 'ID', 'int64'],
  ],
  LeaseGrantResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'ID', 'int64'],
    [3, 'TTL', 'int64'],
    [4, 'error', 'string'],
  ],
  LeaseRevokeRequest: [[1, 'ID', 'int64']],
  LeaseRevokeResponse: [[1, 'header', 'ResponseHeader']],
  LeaseCheckpoint: [
    [1, 'ID', 'int64'],
    [2, 'remaining_TTL', 'int64'],
  ],
  LeaseCheckpointRequest: [[1, 'checkpoints', 'LeaseCheckpoint', '[]']],
  LeaseCheckpointResponse: [[1, 'header', 'ResponseHeader']],
  LeaseKeepAliveRequest: [[1, 'ID', 'int64']],
  LeaseKeepAliveResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'ID', 'int64'],
    [3, 'TTL', 'int64'],
  ],
  LeaseTimeToLiveRequest: [
    [1, 'ID', 'int64'],
    [2, 'keys', 'bool'],
  ],
  LeaseTimeToLiveResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'ID', 'int64'],
    [3, 'TTL', 'int64'],
    [4, 'grantedTTL', 'int64'],
    [5, 'keys', 'bytes', '[]'],
  ],
  LeaseLeasesRequest: [],
  LeaseStatus: [[1, 'ID', 'int64']],
  LeaseLeasesResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'leases', 'LeaseStatus', '[]'],
  ],
  Member: [
    [1, 'ID', 'uint64'],
    [2, 'name', 'string'],
    [3, 'peerURLs', 'string', '[]'],
    [4, 'clientURLs', 'string', '[]'],
    [5, 'isLearner', 'bool'],
  ],
  MemberAddRequest: [
    [1, 'peerURLs', 'string', '[]'],
    [2, 'isLearner', 'bool'],
  ],
  MemberAddResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'member', 'Member'],
    [3, 'members', 'Member', '[]'],
  ],
  MemberRemoveRequest: [[1, 'ID', 'uint64']],
  MemberRemoveResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'members', 'Member', '[]'],
  ],
  MemberUpdateRequest: [
    [1, 'ID', 'uint64'],
    [2, 'peerURLs', 'string', '[]'],
  ],
  MemberUpdateResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'members', 'Member', '[]'],
  ],
  MemberListRequest: [[1, 'linearizable', 'bool']],
  MemberListResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'members', 'Member', '[]'],
  ],
  MemberPromoteRequest: [[1, 'ID', 'uint64']],
  MemberPromoteResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'members', 'Member', '[]'],
  ],
  DefragmentRequest: [],
  DefragmentResponse: [[1, 'header', 'ResponseHeader']],
  MoveLeaderRequest: [[1, 'targetID', 'uint64']],
  MoveLeaderResponse: [[1, 'header', 'ResponseHeader']],
  AlarmRequest: [
    [1, 'action', 'AlarmAction'],
    [2, 'memberID', 'uint64'],
    [3, 'alarm', 'AlarmType'],
  ],
  AlarmMember: [
    [1, 'memberID', 'uint64'],
    [2, 'alarm', 'AlarmType'],
  ],
  AlarmResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'alarms', 'AlarmMember', '[]'],
  ],
  DowngradeRequest: [
    [1, 'action', 'DowngradeAction'],
    [2, 'version', 'string'],
  ],
  DowngradeResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'version', 'string'],
  ],
  StatusRequest: [],
  StatusResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'version', 'string'],
    [3, 'dbSize', 'int64'],
    [4, 'leader', 'uint64'],
    [5, 'raftIndex', 'uint64'],
    [6, 'raftTerm', 'uint64'],
    [7, 'raftAppliedIndex', 'uint64'],
    [8, 'errors', 'string', '[]'],
    [9, 'dbSizeInUse', 'int64'],
    [10, 'isLearner', 'bool'],
    [11, 'storageVersion', 'string'],
    [12, 'dbSizeQuota', 'int64'],
    [13, 'downgradeInfo', 'DowngradeInfo'],
  ],
  DowngradeInfo: [
    [1, 'enabled', 'bool'],
    [2, 'targetVersion', 'string'],
  ],
  AuthEnableRequest: [],
  AuthDisableRequest: [],
  AuthStatusRequest: [],
  AuthenticateRequest: [
    [1, 'name', 'string'],
    [2, 'password', 'string'],
  ],
  AuthUserAddRequest: [
    [1, 'name', 'string'],
    [2, 'password', 'string'],
    [3, 'options', 'UserAddOptions'],
    [4, 'hashedPassword', 'string'],
  ],
  AuthUserGetRequest: [[1, 'name', 'string']],
  AuthUserDeleteRequest: [[1, 'name', 'string']],
  AuthUserChangePasswordRequest: [
    [1, 'name', 'string'],
    [2, 'password', 'string'],
    [3, 'hashedPassword', 'string'],
  ],
  AuthUserGrantRoleRequest: [
    [1, 'user', 'string'],
    [2, 'role', 'string'],
  ],
  AuthUserRevokeRoleRequest: [
    [1, 'name', 'string'],
    [2, 'role', 'string'],
  ],
  AuthRoleAddRequest: [[1, 'name', 'string']],
  AuthRoleGetRequest: [[1, 'role', 'string']],
  AuthUserListRequest: [],
  AuthRoleListRequest: [],
  AuthRoleDeleteRequest: [[1, 'role', 'string']],
  AuthRoleGrantPermissionRequest: [
    [1, 'name', 'string'],
    [2, 'perm', 'Permission'],
  ],
  AuthRoleRevokePermissionRequest: [
    [1, 'role', 'string'],
    [2, 'key', 'bytes'],
    [3, 'range_end', 'bytes'],
  ],
  AuthEnableResponse: [[1, 'header', 'ResponseHeader']],
  AuthDisableResponse: [[1, 'header', 'ResponseHeader']],
  AuthStatusResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'enabled', 'bool'],
    [3, 'authRevision', 'uint64'],
  ],
  AuthenticateResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'token', 'string'],
  ],
  AuthUserAddResponse: [[1, 'header', 'ResponseHeader']],
  AuthUserGetResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'roles', 'string', '[]'],
  ],
  AuthUserDeleteResponse: [[1, 'header', 'ResponseHeader']],
  AuthUserChangePasswordResponse: [[1, 'header', 'ResponseHeader']],
  AuthUserGrantRoleResponse: [[1, 'header', 'ResponseHeader']],
  AuthUserRevokeRoleResponse: [[1, 'header', 'ResponseHeader']],
  AuthRoleAddResponse: [[1, 'header', 'ResponseHeader']],
  AuthRoleGetResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'perm', 'Permission', '[]'],
  ],
  AuthRoleListResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'roles', 'string', '[]'],
  ],
  AuthUserListResponse: [
    [1, 'header', 'ResponseHeader'],
    [2, 'users', 'string', '[]'],
  ],
  AuthRoleDeleteResponse: [[1, 'header', 'ResponseHeader']],
  AuthRoleGrantPermissionResponse: [[1, 'header', 'ResponseHeader']],
  AuthRoleRevokePermissionResponse: [[1, 'header', 'ResponseHeader']],
} as const satisfies Record<string, readonly FieldRow[]>;

/** The name of a message in the protocol. */
export type MessageName = keyof typeof MESSAGES;
