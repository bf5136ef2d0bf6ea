//! What a watch tells, made of etcd's messages.

use bytes::Bytes;

use crate::etcd::messages::{Event, ResponseHeader};

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key, a slice of the message that it came in: to be copied where it is kept.
    pub key: Bytes,
    /// Its new value; `None` when it was deleted, by whatever: a delete, a revoked or an expired lease.
    pub value: Option<Bytes>,
    /// The lease it is attached to; 0 = none.
    pub lease: i64,
    /// The revision of the change.
    pub mod_revision: i64,
}

/// Changes that were delivered together: one or more whole revisions.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The changes in the order in which they were made.
    pub changes: Vec<Change>,
}

impl From<Event> for Change {
    fn from(event: Event) -> Self {
        let is_delete = event.is_delete();
        Self {
            key: event.kv.key,
            value: (!is_delete).then_some(event.kv.value),
            lease: event.kv.lease,
            mod_revision: event.kv.mod_revision,
        }
    }
}

/// etcd has created a watch.
#[derive(Debug, Clone, Copy)]
pub struct Created {
    /// The header of the answer.
    pub header: ResponseHeader,
    /// The id of the watch on its stream. It changes with every creation.
    pub watch_id: i64,
    /// Where the watch would resume from now on.
    pub next_revision: i64,
    /// Created anew without a disconnection that was told: after a full queue, or with a new token.
    pub again: bool,
}

/// Events, or the word that there are none up to the revision of the header.
#[derive(Debug, Clone)]
pub struct Response {
    /// The header of etcd's answer. Its revision is that of the member when it answered, which may be far ahead of the events.
    pub header: ResponseHeader,
    /// The id of the watch on its stream.
    pub watch_id: i64,
    /// Whether the last revision goes on in the next response; only with [`WatchRequest::fragment`](super::request::WatchRequest::fragment).
    pub fragment: bool,
    /// In the order in which they were made. Empty: everything up to the header's revision has been delivered.
    pub events: Vec<Event>,
    /// Where the watch would resume from now on.
    pub next_revision: i64,
}
