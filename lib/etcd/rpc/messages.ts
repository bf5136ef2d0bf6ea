/**
 * The messages of etcd's API, as etcd3 names and types them.
 *
 * Requests: what is left out is etcd's default; 64-bit numbers are decimal strings, safe numbers or bigints.
 * Answers: every field is there. A 64-bit number is a decimal string, an enum the name of its member (a number that has
 * no name stays a number), and of a oneof only the member that is set exists. A message that etcd left out is `null`,
 * also where the type, which follows etcd3's, does not say so: `header` and `prev_kv` are the ones to look out for.
 */

import type { CompareResult, CompareTarget, EventType, FilterType, SortOrder, SortTarget } from './enums.js';
import type { Int64, IResponseHeader } from './messages-common.js';

export type * from './messages-admin.js';
export type * from './messages-common.js';

/** A key and what etcd holds for it. */
export interface IKeyValue {
  key: Buffer;
  /** The revision that made the key, since it last did not exist. `'0'` in the event of a delete. */
  create_revision: string;
  /** The revision that changed the key last. */
  mod_revision: string;
  /** How often the key was written since it was made, from `'1'`; `'0'` in the event of a delete. */
  version: string;
  value: Buffer;
  /** The lease that the key belongs to; `'0'` for none. */
  lease: string;
}

/** One change, as a watch reports it. */
export interface IEvent {
  type: keyof typeof EventType;
  /** The key after the change. Of a deleted key only `key` and `mod_revision` mean anything. */
  kv: IKeyValue;
  /** The key before the change; `null` when the watch did not ask for it, or etcd no longer has it. */
  prev_kv: IKeyValue;
}

/** Reads one key or a range. */
export interface IRangeRequest {
  /** The key, or the first of the range. */
  key?: Buffer;
  /** The first key after the range. `\0`: no end. Default: only `key`. */
  range_end?: Buffer;
  /** How many keys at most. Default 0, no limit. */
  limit?: Int64;
  /** The revision to read at. Default 0, the newest. */
  revision?: Int64;
  sort_order?: SortOrder | keyof typeof SortOrder;
  sort_target?: SortTarget | keyof typeof SortTarget;
  /** The member answers from its own store, which may be behind. Default false. */
  serializable?: boolean;
  /** Without values. Default false. */
  keys_only?: boolean;
  /** Only `count`. Default false. */
  count_only?: boolean;
  /** Leaves out keys changed before it. Default 0. */
  min_mod_revision?: Int64;
  /** Leaves out keys changed after it. Default 0, no limit. */
  max_mod_revision?: Int64;
  /** Leaves out keys made before it. Default 0. */
  min_create_revision?: Int64;
  /** Leaves out keys made after it. Default 0, no limit. */
  max_create_revision?: Int64;
}

export interface IRangeResponse {
  header: IResponseHeader;
  /** Empty for `count_only`. */
  kvs: IKeyValue[];
  /** Whether the limit left keys out. */
  more: boolean;
  /** How many keys the range holds, whatever the limit and the filters. */
  count: string;
}

/** Writes one key. */
export interface IPutRequest {
  key?: Buffer;
  value?: Buffer;
  /** The lease that the key goes with. Default 0, none. */
  lease?: Int64;
  /** Answer with the key as it was. Default false. */
  prev_kv?: boolean;
  /** Keep the present value; the key must exist. Default false. */
  ignore_value?: boolean;
  /** Keep the present lease; the key must exist. Default false. */
  ignore_lease?: boolean;
}

export interface IPutResponse {
  header: IResponseHeader;
  /** `null` when the key is new, or when it was not asked for. */
  prev_kv: IKeyValue;
}

/** Deletes one key or a range. */
export interface IDeleteRangeRequest {
  /** The key, or the first of the range. */
  key?: Buffer;
  /** The first key after the range. `\0`: no end. Default: only `key`. */
  range_end?: Buffer;
  /** Answer with the keys as they were. Default false. */
  prev_kv?: boolean;
}

export interface IDeleteRangeResponse {
  header: IResponseHeader;
  /** How many keys were deleted. */
  deleted: string;
  /** Empty unless asked for. */
  prev_kvs: IKeyValue[];
}

/** One operation of a transaction. Exactly one member is given. */
export interface IRequestOp {
  request_range?: IRangeRequest;
  request_put?: IPutRequest;
  request_delete_range?: IDeleteRangeRequest;
  request_txn?: ITxnRequest;
}

/** What one operation of a transaction gave. Only the member that answers the operation exists. */
export interface IResponseOp {
  response_range: IRangeResponse;
  response_put: IPutResponse;
  response_delete_range: IDeleteRangeResponse;
  response_txn: ITxnResponse;
  /** The name of the member that exists. */
  response?: 'response_range' | 'response_put' | 'response_delete_range' | 'response_txn';
}

/** A condition of a transaction. One of `version` … `lease` is given, the one that `target` names. */
export interface ICompare {
  /** Default `Equal`. */
  result?: CompareResult | keyof typeof CompareResult;
  /** Default `Version`. */
  target?: CompareTarget | keyof typeof CompareTarget;
  key?: Buffer;
  version?: Int64;
  create_revision?: Int64;
  mod_revision?: Int64;
  value?: Buffer;
  lease?: Int64;
  /** The first key after the range; all keys of the range must meet the condition. Default: only `key`. */
  range_end?: Buffer;
}

/** If all of `compare` hold then `success`, else `failure`, all at once. No key may be written twice. */
export interface ITxnRequest {
  compare?: ICompare[];
  success?: IRequestOp[];
  failure?: IRequestOp[];
}

export interface ITxnResponse {
  header: IResponseHeader;
  /** Whether all compares held. */
  succeeded: boolean;
  /** One for each operation, in order. */
  responses: IResponseOp[];
}

/** Drops the history before a revision. */
export interface ICompactionRequest {
  revision?: Int64;
  /** Answer only when the store has been cleaned. Default false. */
  physical?: boolean;
}

export interface ICompactionResponse {
  header: IResponseHeader;
}

/** What is written to a watch stream. Exactly one member is given. */
export interface IWatchRequest {
  create_request?: IWatchCreateRequest;
  cancel_request?: IWatchCancelRequest;
  progress_request?: IWatchProgressRequest;
}

export interface IWatchCreateRequest {
  /** The key, or the first of the range. */
  key?: Buffer;
  /** The first key after the range. `\0`: no end. Default: only `key`. */
  range_end?: Buffer;
  /** The first revision reported. Default 0, from now on. */
  start_revision?: Int64;
  /** Report the revision now and then while nothing happens. Default false. */
  progress_notify?: boolean;
  /** What to leave out. Default: nothing. */
  filters?: (FilterType | keyof typeof FilterType)[];
  /** Report the key as it was as well. Default false. */
  prev_kv?: boolean;
  /** The id of the watch on its stream. Default 0: etcd chooses. */
  watch_id?: Int64;
  /** Cut answers that are too large into several. Default false. */
  fragment?: boolean;
}

export interface IWatchCancelRequest {
  watch_id?: Int64;
}

// biome-ignore lint/suspicious/noEmptyInterface: a message without fields
export interface IWatchProgressRequest {}

export interface IWatchResponse {
  header: IResponseHeader;
  watch_id: string;
  created: boolean;
  canceled: boolean;
  /** The oldest revision that etcd still has, when the watch asked for an older one; else `'0'`. */
  compact_revision: string;
  cancel_reason: string;
  /** Whether more of the same answer follows. */
  fragment: boolean;
  events: IEvent[];
}

export interface ILeaseGrantRequest {
  /** In seconds. etcd may grant more. */
  TTL?: Int64;
  /** Default 0: etcd chooses. */
  ID?: Int64;
}

export interface ILeaseGrantResponse {
  header: IResponseHeader;
  ID: string;
  /** What was granted, in seconds. */
  TTL: string;
  error: string;
}

export interface ILeaseRevokeRequest {
  ID?: Int64;
}

export interface ILeaseRevokeResponse {
  header: IResponseHeader;
}

export interface ILeaseCheckpoint {
  ID?: Int64;
  /** In seconds. */
  remaining_TTL?: Int64;
}

export interface ILeaseCheckpointRequest {
  checkpoints?: ILeaseCheckpoint[];
}

export interface ILeaseCheckpointResponse {
  header?: IResponseHeader;
}

export interface ILeaseKeepAliveRequest {
  ID?: Int64;
}

export interface ILeaseKeepAliveResponse {
  header: IResponseHeader;
  ID: string;
  /** In seconds from when etcd answered; `'0'`: the lease no longer exists. */
  TTL: string;
}

export interface ILeaseTimeToLiveRequest {
  ID?: Int64;
  /** Answer with the keys of the lease. Default false. */
  keys?: boolean;
}

export interface ILeaseTimeToLiveResponse {
  header: IResponseHeader;
  ID: string;
  /** What is left, in seconds; `'-1'`: the lease no longer exists. */
  TTL: string;
  /** What was granted, in seconds. */
  grantedTTL: string;
  /** Empty unless asked for. */
  keys: Buffer[];
}

// biome-ignore lint/suspicious/noEmptyInterface: a message without fields
export interface ILeaseLeasesRequest {}

export interface ILeaseStatus {
  ID: string;
}

export interface ILeaseLeasesResponse {
  header: IResponseHeader;
  leases: ILeaseStatus[];
}
