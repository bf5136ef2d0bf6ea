//! What is watched, and how.

/// What a lost connection means to a watch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It ends, so that its user knows at once that it knows nothing.
    #[default]
    End,
    /// It goes on from its revision as soon as there is a connection.
    Resume,
}

/// What to watch.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools)] // etcd's request has them
pub struct WatchRequest {
    /// The key, or the first key of a range.
    pub key: Vec<u8>,
    /// Where the range ends (exclusive); empty = one key.
    pub range_end: Vec<u8>,
    /// The first revision wanted: that of a read plus one. 0 = from now on.
    pub from_revision: i64,
    /// `from_revision` is somebody's wish, and may lie in the future; else it says where the cluster was.
    pub may_be_ahead: bool,
    /// The cluster that `from_revision` is of, from the header of that read; 0 = whichever answers first.
    pub cluster: u64,
    /// See [`OnDisconnect`].
    pub on_disconnect: OnDisconnect,
    /// Each event brings the key as it was before.
    pub prev_kv: bool,
    /// Puts are left out.
    pub no_put: bool,
    /// Deletions are left out.
    pub no_delete: bool,
    /// A large response is handed over in the parts that it comes in; else in whole revisions.
    pub fragment: bool,
    /// Say when the first revision is known not to be compacted, see [`WatchSink::settled`](super::sink::WatchSink::settled).
    pub settle: bool,
}
