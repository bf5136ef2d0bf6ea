//! The messages of etcd that the core knows: those of watches, of renewals and of reads that go on to JavaScript. Their keys
//! and values are slices of what was read from the socket; those that `etcd_client` decodes are copies, and there they are
//! rare. Tags are those of etcd's `rpc.proto` and `kv.proto`; fields that nobody here wants are left out and passed over.

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

impl KeyValue {
    /// The bytes of key and value.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

/// `mvccpb.Event`: one change of a key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Event {
    /// 0 is a put, 1 a deletion, by whatever: a delete, a revoked or an expired lease. See [`is_known`](Self::is_known).
    #[prost(int32, tag = "1")]
    pub r#type: i32,
    /// The key after the change. Of a deletion: its key and the revision, and zeros.
    #[prost(message, required, tag = "2")]
    pub kv: KeyValue,
    /// The key before the change, if that was asked for, there was one, and it is not compacted.
    #[prost(message, optional, tag = "3")]
    pub prev_kv: Option<KeyValue>,
}

impl Event {
    /// Whether it is a put or a deletion: a later etcd may tell more than that.
    pub fn is_known(&self) -> bool {
        matches!(self.r#type, 0 | 1)
    }

    /// Whether it is a deletion.
    pub fn is_delete(&self) -> bool {
        self.r#type == 1
    }

    /// The bytes of keys and values that it holds.
    pub fn bytes(&self) -> usize {
        let previous = self.prev_kv.as_ref().map_or(0, KeyValue::bytes);
        self.kv.bytes() + previous
    }
}

/// `etcdserverpb.WatchRequest`: one of the three.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WatchMessage {
    #[prost(message, optional, tag = "1")]
    pub create: Option<WatchCreateRequest>,
    #[prost(message, optional, tag = "2")]
    pub cancel: Option<WatchCancelRequest>,
    #[prost(message, optional, tag = "3")]
    pub progress: Option<WatchProgressRequest>,
}

impl From<WatchCreateRequest> for WatchMessage {
    fn from(create: WatchCreateRequest) -> Self {
        Self {
            create: Some(create),
            ..Self::default()
        }
    }
}

impl From<WatchCancelRequest> for WatchMessage {
    fn from(cancel: WatchCancelRequest) -> Self {
        Self {
            cancel: Some(cancel),
            ..Self::default()
        }
    }
}

impl From<WatchProgressRequest> for WatchMessage {
    fn from(progress: WatchProgressRequest) -> Self {
        Self {
            progress: Some(progress),
            ..Self::default()
        }
    }
}

/// Leaves puts out of a watch.
pub const NO_PUT: i32 = 0;
/// Leaves deletions out of a watch.
pub const NO_DELETE: i32 = 1;

/// `etcdserverpb.WatchCreateRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WatchCreateRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub start_revision: i64,
    #[prost(bool, tag = "4")]
    pub progress_notify: bool,
    /// [`NO_PUT`], [`NO_DELETE`].
    #[prost(int32, repeated, tag = "5")]
    pub filters: Vec<i32>,
    #[prost(bool, tag = "6")]
    pub prev_kv: bool,
    #[prost(int64, tag = "7")]
    pub watch_id: i64,
    #[prost(bool, tag = "8")]
    pub fragment: bool,
}

/// `etcdserverpb.WatchCancelRequest`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct WatchCancelRequest {
    #[prost(int64, tag = "1")]
    pub watch_id: i64,
}

/// `etcdserverpb.WatchProgressRequest`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct WatchProgressRequest {}

/// `etcdserverpb.WatchResponse`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(int64, tag = "2")]
    pub watch_id: i64,
    #[prost(bool, tag = "3")]
    pub created: bool,
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    #[prost(int64, tag = "5")]
    pub compact_revision: i64,
    #[prost(string, tag = "6")]
    pub cancel_reason: String,
    #[prost(bool, tag = "7")]
    pub fragment: bool,
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
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

#[cfg(test)]
mod tests {
    use etcd_client::proto::{PbEvent, PbKeyValue, PbResponseHeader, PbWatchResponse};
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_watch_is_read_as_etcd_writes_it_and_without_a_copy() {
        let kv = |value: &str, mod_revision| PbKeyValue {
            key: b"key".to_vec(),
            create_revision: 2,
            mod_revision,
            version: 3,
            value: value.into(),
            lease: -4,
        };
        let put = PbEvent {
            r#type: 0,
            kv: Some(kv("new", 9)),
            prev_kv: Some(kv("old", 8)),
        };
        let delete = PbEvent {
            r#type: 1,
            kv: Some(kv("", 10)),
            prev_kv: None,
        };
        let written = PbWatchResponse {
            header: Some(PbResponseHeader {
                cluster_id: u64::MAX,
                member_id: 5,
                revision: 10,
                raft_term: 6,
            }),
            watch_id: 7,
            created: true,
            canceled: true,
            compact_revision: 11,
            cancel_reason: "why".to_owned(),
            fragment: true,
            events: vec![put, delete],
        };
        let body = Bytes::from(written.encode_to_vec());
        let read = WatchResponse::decode(body.clone()).unwrap();
        assert_eq!(read.encode_to_vec(), body, "nothing is left out");
        let [put, delete] = &read.events[..] else {
            panic!("{read:?}");
        };
        assert!(put.is_known() && !put.is_delete() && delete.is_delete());
        assert_eq!((put.kv.mod_revision, &put.kv.value[..]), (9, &b"new"[..]));
        assert!(body.as_ptr_range().contains(&put.kv.value.as_ptr()), "a slice of it");
        assert_eq!((put.bytes(), delete.bytes()), (12, 3));
    }
}
