//! Who leads an election: the candidate that was created first, and its value.

use etcd_client::{GetOptions, SortOrder, SortTarget};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::elections::Elections;
use super::queue::{End, Queue, counts, end_of};
use crate::backoff::Backoff;
use crate::etcd::calls::caller::Caller;
use crate::etcd::error::{Cause, Fault};
use crate::etcd::watch::events::Change;
use crate::etcd::watch::request::{OnDisconnect, WatchRequest};
use crate::etcd::watch::sink::WatchEnd;

/// The leader of an election.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Its key.
    pub key: Vec<u8>,
    /// What it proclaims.
    pub value: Vec<u8>,
    /// Its fencing token: the create revision of its key.
    pub revision: i64,
}

/// What an observer tells.
#[derive(Debug, Clone)]
pub enum ObserverEvent {
    /// There is something new to read in [`Observer::leader`]: the first leader, another one, another value, none.
    Changed,
    /// The watch dropped, and what is known may be old. Once, until the leader has been read again.
    Disconnected(Fault),
    /// The first reading failed, or etcd refuses. Nothing follows.
    Failed(Fault),
}

/// Called on the runtime's thread. It must not block.
pub type OnObserved = Box<dyn Fn(ObserverEvent) + Send + Sync>;

/// Follows the leader of an election until it is dropped. What is read is the latest: leaders that came and went while
/// nobody looked are not told.
pub struct Observer {
    leader: watch::Receiver<Option<Leader>>,
    task: AbortHandle,
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads the leader of the election whose candidates' keys begin with `prefix`, from the majority of the members. With
/// the revision and the cluster of the answer.
async fn read(calls: &Caller, prefix: &[u8]) -> Result<(Option<Leader>, i64, u64), Fault> {
    let answer = calls
        .call("read the leader", |connection| {
            let options = GetOptions::new()
                .with_range(end_of(prefix))
                .with_sort(SortTarget::Create, SortOrder::Ascend)
                .with_limit(1);
            let (mut kv, prefix) = (calls.kv(&connection), prefix.to_vec());
            async move { kv.get(prefix, Some(options)).await }
        })
        .await?;
    let (revision, cluster) = answer.header().map_or((0, 0), |h| (h.revision(), h.cluster_id()));
    let oldest = match answer.0.kvs.into_iter().next() {
        Some(kv) if !counts(prefix, &kv.key, kv.lease) => {
            let queue = Queue {
                calls,
                prefix,
                revision,
                patience: calls.options().timeout,
            };
            queue.find(kv.create_revision..i64::MAX, End::Oldest).await?
        }
        oldest => oldest,
    };
    let leader = oldest.map(|kv| Leader {
        key: kv.key,
        value: kv.value,
        revision: kv.create_revision,
    });
    Ok((leader, revision, cluster))
}

impl Elections {
    /// The leader of the election whose candidates' keys begin with `prefix`, by one linearizable read.
    pub async fn leader(&self, prefix: &[u8]) -> Result<Option<Leader>, Fault> {
        self.leader_at(prefix).await.map(|(leader, ..)| leader)
    }

    /// The same, with the revision and the cluster of the answer.
    pub async fn leader_at(&self, prefix: &[u8]) -> Result<(Option<Leader>, i64, u64), Fault> {
        read(&self.calls, prefix).await
    }
}

impl Observer {
    /// Follows the election whose candidates' keys begin with `prefix`.
    pub fn start(elections: &Elections, prefix: Vec<u8>, on_event: OnObserved) -> Self {
        let (sender, leader) = watch::channel(None);
        let (elections, closed) = (elections.clone(), elections.calls.closed().clone());
        let task = tokio::spawn(async move {
            let observed = observe(&elections, &prefix, &sender, &on_event);
            if let Some(error) = closed.run_until_cancelled(Box::pin(observed)).await {
                on_event(ObserverEvent::Failed(error));
            }
        });
        Self {
            leader,
            task: task.abort_handle(),
        }
    }

    /// Ends it; nothing is told from here on.
    pub fn close(&self) {
        self.task.abort();
    }

    /// The leader as last read.
    pub fn leader(&self) -> Option<Leader> {
        self.leader.borrow().clone()
    }
}

/// Goes on until etcd refuses, with the refusal; or ends with the failure of the first reading.
async fn observe(
    elections: &Elections,
    prefix: &[u8],
    leader: &watch::Sender<Option<Leader>>,
    on_event: &OnObserved,
) -> Fault {
    let mut backoff = Backoff::new();
    // The first reading is told whatever it finds, and somebody waits for it.
    let mut first = true;
    let mut connected = true;
    loop {
        let (found, revision, cluster) = match read(&elections.calls, prefix).await {
            Ok(read) => read,
            // The moment that was being looked through.
            Err(fault) if fault.cause == Cause::Compacted => {
                sleep(backoff.next_pause()).await;
                continue;
            }
            Err(fault) if !first && fault.error.is_retryable() => {
                tell_drop(&mut connected, fault, on_event);
                sleep(backoff.next_pause()).await;
                continue;
            }
            Err(fault) => return fault,
        };
        connected = true;
        let changed = leader.send_if_modified(|known| {
            let changed = *known != found;
            known.clone_from(&found);
            changed
        });
        if std::mem::take(&mut first) || changed {
            on_event(ObserverEvent::Changed);
        }
        // The leader's key, or whatever candidate comes first.
        let (key, range_end) = match &found {
            Some(leader) => (leader.key.clone(), Vec::new()),
            None => (prefix.to_vec(), end_of(prefix)),
        };
        let mut watch = elections.watches.subscribe(WatchRequest {
            key,
            range_end,
            from_revision: revision + 1,
            cluster,
            on_disconnect: OnDisconnect::End,
            ..WatchRequest::default()
        });
        loop {
            match watch.next().await {
                Ok(batch) => {
                    backoff.reset();
                    let is_there =
                        |change: &Change| change.value.is_some() && counts(prefix, &change.key, change.lease);
                    let proclaimed = match &found {
                        // Others' keys.
                        None if !batch.changes.iter().any(is_there) => continue,
                        Some(_) if batch.changes.iter().all(is_there) => {
                            batch.changes.into_iter().next_back().and_then(|change| change.value)
                        }
                        _ => None,
                    };
                    // Another leader, or the first one: read who it is.
                    let Some(value) = proclaimed else { break };
                    let changed = leader.send_if_modified(|known| match known {
                        Some(leader) if leader.value != value => {
                            leader.value = value.to_vec();
                            true
                        }
                        _ => false,
                    });
                    if changed {
                        on_event(ObserverEvent::Changed);
                    }
                }
                Err(WatchEnd::Disconnected(error)) => {
                    tell_drop(&mut connected, Fault::of(Cause::Broken, error), on_event);
                    sleep(backoff.next_pause()).await;
                    break;
                }
                Err(WatchEnd::Refused(error)) if !error.is_retryable() => return Fault::of(Cause::Refused, error),
                Err(WatchEnd::Closed) => return std::future::pending().await,
                Err(_) => {
                    sleep(backoff.next_pause()).await;
                    break;
                }
            }
        }
    }
}

/// Told once for each drop of what was connected.
fn tell_drop(connected: &mut bool, fault: Fault, on_event: &OnObserved) {
    if std::mem::take(connected) {
        on_event(ObserverEvent::Disconnected(fault));
    }
}
