//! Watches whose revision is ahead of the member that took them. It may lag behind the cluster, or the cluster may have
//! lost its data: the leader is asked.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::GetOptions;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::Semaphore;

use super::entry::is_ahead;
use crate::error::ErrorKind;
use crate::etcd::calls::caller::Caller;
use crate::etcd::error::Fault;
use crate::etcd::watch::request::WatchRequest;

/// Watches that are ahead, and whom the question under way is about.
#[derive(Default)]
pub(super) struct Ahead {
    /// For whom the next question will be.
    pub(super) waiting: Vec<i64>,
    /// For whom the last one is, each with its next revision at that time: an answer says nothing about what came after.
    asked: Vec<(i64, i64)>,
}

impl Ahead {
    /// Asks for all who wait and are still there, unless a question is under way. Returns whose range is to be read.
    pub(super) fn ask(&mut self, next_revision: impl Fn(i64) -> Option<i64>) -> Option<i64> {
        if !self.asked.is_empty() {
            return None;
        }
        let waiting = self.waiting.drain(..);
        self.asked = waiting.filter_map(|id| Some((id, next_revision(id)?))).collect();
        self.asked.first().map(|(id, _)| *id)
    }

    /// The leader has said its revision: returns who is ahead of that too.
    pub(super) fn answered(&mut self, revision: i64) -> Vec<i64> {
        let asked = self.asked.drain(..);
        asked
            .filter(|(_, next_revision)| is_ahead(*next_revision, revision))
            .map(|(id, _)| id)
            .collect()
    }

    /// The leader could not be asked: all wait again, the one whose range was to be read behind the others.
    pub(super) fn unanswered(&mut self) {
        let mut asked = self.asked.drain(..).map(|(id, _)| id);
        let first = asked.next();
        self.waiting.extend(asked);
        self.waiting.extend(first);
    }
}

/// What reads because of a watch, in turns with the others who do.
pub(super) struct Reader {
    pub(super) calls: Caller,
    pub(super) turns: Arc<Semaphore>,
}

/// Reads the revision of the cluster after a pause, by a linearizable read of what this user may read for certain.
pub(super) fn ask_leader(
    calls: Caller,
    request: &WatchRequest,
    pause: Duration,
) -> BoxFuture<'static, Result<i64, Fault>> {
    let (key, range_end) = (request.key.clone(), request.range_end.clone());
    async move {
        tokio::time::sleep(pause).await;
        let options = GetOptions::new().with_limit(1).with_keys_only();
        read(&calls, "compare revisions", key, range_end, options).await
    }
    .boxed()
}

/// Waits until `revision` is known to be there, or known to be gone for long enough that the watch has been told.
pub(super) async fn settle(reader: Reader, key: Vec<u8>, range_end: Vec<u8>, revision: i64) {
    let _turn = reader.turns.acquire().await; // never closed
    let options = GetOptions::new().with_limit(1).with_keys_only().with_revision(revision);
    if read(&reader.calls, "look for a revision", key, range_end, options)
        .await
        .is_err()
    {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Whether this user may read this range now, by a read that brings its own token up to date. Only etcd's own word
/// counts for a no.
pub(super) async fn may_read(reader: Reader, key: Vec<u8>, range_end: Vec<u8>) -> bool {
    let _turn = reader.turns.acquire().await; // never closed
    let options = GetOptions::new().with_limit(1).with_keys_only();
    let read = read(
        &reader.calls,
        "look whether a watch is permitted",
        key,
        range_end,
        options,
    )
    .await;
    !matches!(read, Err(fault) if fault.error.kind() == ErrorKind::PermissionDenied)
}

async fn read(
    calls: &Caller,
    op: &'static str,
    key: Vec<u8>,
    range_end: Vec<u8>,
    options: GetOptions,
) -> Result<i64, Fault> {
    let options = if range_end.is_empty() {
        options
    } else {
        options.with_range(range_end)
    };
    let answer = calls
        .call(op, |connection| {
            let (key, options, mut kv) = (key.clone(), options.clone(), calls.kv(&connection));
            async move { kv.get(key, Some(options)).await }
        })
        .await?;
    Ok(answer.header().map_or(0, etcd_client::ResponseHeader::revision))
}
