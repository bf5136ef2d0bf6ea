// Checked by the compiler alone (`npm run typecheck`): what programs have typed for etcd3 and grpc-js fits here.

import type * as grpc from '@grpc/grpc-js';
import type * as theirs from 'etcd3';
import type * as errors from '../../lib/etcd/errors.js';
import type * as calls from '../../lib/etcd/rpc/calls.js';
import type * as ours from '../../lib/etcd/rpc/messages.js';
import type { IOptions } from '../../lib/etcd/transport/options.js';

/** Fails to compile unless `From` can be used where `To` is wanted. */
type Fits<From extends To, To> = From;

/** Names of messages without an enum in a request: enums of two modules never fit each other. */
type Requests =
  | 'IPutRequest'
  | 'IDeleteRangeRequest'
  | 'ICompactionRequest'
  | 'IHashKVRequest'
  | 'IWatchCancelRequest'
  | 'ILeaseGrantRequest'
  | 'ILeaseRevokeRequest'
  | 'ILeaseKeepAliveRequest'
  | 'ILeaseTimeToLiveRequest'
  | 'IMemberAddRequest'
  | 'IMemberUpdateRequest'
  | 'IAuthUserAddRequest'
  | 'IAuthRoleGrantPermissionRequest'
  | 'IAuthRoleRevokePermissionRequest';

interface Theirs {
  IPutRequest: theirs.IPutRequest;
  IDeleteRangeRequest: theirs.IDeleteRangeRequest;
  ICompactionRequest: theirs.ICompactionRequest;
  IHashKVRequest: theirs.IHashKVRequest;
  IWatchCancelRequest: theirs.IWatchCancelRequest;
  ILeaseGrantRequest: theirs.ILeaseGrantRequest;
  ILeaseRevokeRequest: theirs.ILeaseRevokeRequest;
  ILeaseKeepAliveRequest: theirs.ILeaseKeepAliveRequest;
  ILeaseTimeToLiveRequest: theirs.ILeaseTimeToLiveRequest;
  IMemberAddRequest: theirs.IMemberAddRequest;
  IMemberUpdateRequest: theirs.IMemberUpdateRequest;
  IAuthUserAddRequest: theirs.IAuthUserAddRequest;
  IAuthRoleGrantPermissionRequest: theirs.IAuthRoleGrantPermissionRequest;
  IAuthRoleRevokePermissionRequest: theirs.IAuthRoleRevokePermissionRequest;
}

interface Ours {
  IPutRequest: ours.IPutRequest;
  IDeleteRangeRequest: ours.IDeleteRangeRequest;
  ICompactionRequest: ours.ICompactionRequest;
  IHashKVRequest: ours.IHashKVRequest;
  IWatchCancelRequest: ours.IWatchCancelRequest;
  ILeaseGrantRequest: ours.ILeaseGrantRequest;
  ILeaseRevokeRequest: ours.ILeaseRevokeRequest;
  ILeaseKeepAliveRequest: ours.ILeaseKeepAliveRequest;
  ILeaseTimeToLiveRequest: ours.ILeaseTimeToLiveRequest;
  IMemberAddRequest: ours.IMemberAddRequest;
  IMemberUpdateRequest: ours.IMemberUpdateRequest;
  IAuthUserAddRequest: ours.IAuthUserAddRequest;
  IAuthRoleGrantPermissionRequest: ours.IAuthRoleGrantPermissionRequest;
  IAuthRoleRevokePermissionRequest: ours.IAuthRoleRevokePermissionRequest;
}

/** Requests of a program go in. */
export type Given = Fits<Pick<Theirs, Requests>, Pick<Ours, Requests>>;

/** Answers come out as programs expect them. */
export type Answers = [
  Fits<ours.IRangeResponse, theirs.IRangeResponse>,
  Fits<ours.IPutResponse, theirs.IPutResponse>,
  Fits<ours.IDeleteRangeResponse, theirs.IDeleteRangeResponse>,
  Fits<ours.ITxnResponse, theirs.ITxnResponse>,
  Fits<ours.IWatchResponse, theirs.IWatchResponse>,
  Fits<ours.ILeaseGrantResponse, theirs.ILeaseGrantResponse>,
  Fits<ours.ILeaseTimeToLiveResponse, theirs.ILeaseTimeToLiveResponse>,
  Fits<ours.ILeaseLeasesResponse, theirs.ILeaseLeasesResponse>,
  Fits<ours.IMemberListResponse, theirs.IMemberListResponse>,
  Fits<ours.IAlarmResponse, theirs.IAlarmResponse>,
  Fits<ours.IStatusResponse, theirs.IStatusResponse>,
  Fits<ours.ISnapshotResponse, theirs.ISnapshotResponse>,
  Fits<ours.IAuthRoleGetResponse, theirs.IAuthRoleGetResponse>,
  // What a program has typed as an answer, for instance in a mock, fits as well.
  Fits<theirs.IRangeResponse, ours.IRangeResponse>,
  Fits<theirs.ITxnResponse, ours.ITxnResponse>,
  Fits<theirs.IStatusResponse, ours.IStatusResponse>,
  Fits<theirs.IWatchResponse, ours.IWatchResponse>,
];

/** Types of grpc-js that programs pass. */
export type OfGrpc = [
  Fits<grpc.CallOptions, calls.CallOptions>,
  Fits<grpc.ChannelOptions, NonNullable<IOptions['grpcOptions']>>,
  Fits<Pick<theirs.IOptions, 'hosts' | 'credentials' | 'grpcOptions' | 'dialTimeout'>, IOptions>,
  Fits<NonNullable<theirs.IOptions['faultHandling']>, NonNullable<IOptions['faultHandling']>>,
  Fits<
    grpc.ClientDuplexStream<ours.IWatchRequest, ours.IWatchResponse>,
    calls.IDuplexStream<ours.IWatchRequest, ours.IWatchResponse>
  >,
];

/** What replaces the transport, and what may be told about a call. */
export type Replaced = [
  Fits<theirs.ICallable<unknown>['exec'], calls.ICallable<unknown>['exec']>,
  Fits<theirs.ICallable<unknown>['withConnection'], calls.ICallable<unknown>['withConnection']>,
  Fits<theirs.CallContext['method'], calls.CallContext['method']>,
  Fits<Exclude<calls.CallContext['method'], 'rangeStream'>, theirs.CallContext['method']>, // which came with etcd 3.7
  Fits<calls.CallContext['service'], theirs.CallContext['service']>,
];

/** The signatures of the constructors. */
export type Constructed = [
  Fits<
    ConstructorParameters<typeof theirs.EtcdLeaseInvalidError>,
    ConstructorParameters<typeof errors.EtcdLeaseInvalidError>
  >,
  Fits<ConstructorParameters<typeof theirs.ClientClosedError>, ConstructorParameters<typeof errors.ClientClosedError>>,
  Fits<[string], ConstructorParameters<typeof errors.GRPCUnavailableError>>,
];
