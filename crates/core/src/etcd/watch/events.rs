//! What a watch tells.

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Vec<u8>,
    /// Its new value; `None` when it was deleted, by whatever: a delete, a revoked or an expired lease.
    pub value: Option<Vec<u8>>,
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

/// A key as etcd tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Vec<u8>,
    /// Its value; empty when it was deleted.
    pub value: Vec<u8>,
    /// The revision that made it; 0 when it was deleted.
    pub create_revision: i64,
    /// The revision of its last change, which may be its deletion.
    pub mod_revision: i64,
    /// How often it was written since it was made; 0 when it was deleted.
    pub version: i64,
    /// The lease it is attached to; 0 = none.
    pub lease: i64,
}

/// One change as etcd tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// A deletion, by whatever; else a put.
    pub is_delete: bool,
    /// The key after the change.
    pub kv: KeyValue,
    /// The key before the change, if that was asked for, there was one, and it is not compacted.
    pub previous: Option<KeyValue>,
}

impl Event {
    /// The bytes that it holds.
    pub fn bytes(&self) -> usize {
        let previous = self.previous.as_ref().map_or(0, |kv| kv.key.len() + kv.value.len());
        self.kv.key.len() + self.kv.value.len() + previous
    }
}

impl From<Event> for Change {
    fn from(event: Event) -> Self {
        Self {
            key: event.kv.key,
            value: (!event.is_delete).then_some(event.kv.value),
            lease: event.kv.lease,
            mod_revision: event.kv.mod_revision,
        }
    }
}

/// Who answered, and at which revision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// The cluster.
    pub cluster_id: u64,
    /// The member.
    pub member_id: u64,
    /// The revision of the member's store when it answered, which may be far ahead of the events that come with it.
    pub revision: i64,
    /// The raft term.
    pub raft_term: u64,
}

/// etcd has created a watch.
#[derive(Debug, Clone, Copy)]
pub struct Created {
    /// The header of the answer.
    pub header: Header,
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
    /// The header of etcd's answer.
    pub header: Header,
    /// The id of the watch on its stream.
    pub watch_id: i64,
    /// Whether the last revision goes on in the next response; only with [`WatchRequest::fragment`](super::request::WatchRequest::fragment).
    pub fragment: bool,
    /// In the order in which they were made. Empty: everything up to the header's revision has been delivered.
    pub events: Vec<Event>,
    /// Where the watch would resume from now on.
    pub next_revision: i64,
}
