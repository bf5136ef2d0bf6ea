//! The few messages that the core itself reads and writes in bytes: what `etcd_client` cannot do, or not without a copy.
//! Tags are those of etcd's `rpc.proto` and `kv.proto`; fields that nobody here wants are left out and passed over.

#![allow(missing_docs)] // fields are etcd's own, by their own names

use bytes::Bytes;

/// `etcdserverpb.ResponseHeader`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ResponseHeader {
    /// The cluster that answered.
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    /// The member that answered.
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
    /// The revision of the store when the request was applied.
    #[prost(int64, tag = "3")]
    pub revision: i64,
    /// The raft term then.
    #[prost(uint64, tag = "4")]
    pub raft_term: u64,
}

/// `mvccpb.KeyValue`; its bytes are slices of the message.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    #[prost(int64, tag = "4")]
    pub version: i64,
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

/// `etcdserverpb.RangeResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    #[prost(bool, tag = "3")]
    pub more: bool,
    #[prost(int64, tag = "4")]
    pub count: i64,
}

/// `etcdserverpb.PutResponse` and every other answer of which only the header is wanted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderOnly {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// `etcdserverpb.RequestOp` with a `RangeRequest` that is encoded already.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeOp {
    #[prost(bytes = "bytes", tag = "1")]
    pub request_range: Bytes,
}

/// `etcdserverpb.TxnRequest` of reads alone: no compare, only the branch of success.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadTxn {
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RangeOp>,
}

/// `etcdserverpb.ResponseOp`, as far as it is a range.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeAnswer {
    #[prost(message, optional, tag = "1")]
    pub response_range: Option<RangeResponse>,
}

/// `etcdserverpb.TxnResponse` of a [`ReadTxn`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadTxnResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(message, repeated, tag = "3")]
    pub responses: Vec<RangeAnswer>,
}

/// `etcdserverpb.AuthenticateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)] // it holds the password
pub struct AuthenticateRequest {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub password: String,
}

/// `etcdserverpb.AuthenticateResponse`.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)] // the token is a secret
pub struct AuthenticateResponse {
    #[prost(string, tag = "2")]
    pub token: String,
}

/// `etcdserverpb.LeaseKeepAliveRequest`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeaseKeepAliveRequest {
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// `etcdserverpb.LeaseKeepAliveResponse`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeaseKeepAliveResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(int64, tag = "2")]
    pub id: i64,
    /// Seconds; 0 or less when the lease is not there.
    #[prost(int64, tag = "3")]
    pub ttl: i64,
}
