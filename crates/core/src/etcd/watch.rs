//! Watches. All of a client share one stream to etcd, kept by the task in `hub.rs`; this is what its users see.
//!
//! A [`Subscription`] is a range of keys from a revision on. It hands over [`Batch`]es, each holding whole revisions, in
//! order, none twice and none left out, until it ends with a [`WatchEnd`] that says why. It never waits for its
//! consumer: one that does not keep up is ended and reads anew, which is less work for everybody than catching up.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::client::EtcdClient;
use super::hub::{Hub, Watch};
use crate::error::Error;

/// Batches that may wait for a consumer.
const QUEUE: usize = 256;

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

/// Why a subscription ended. In every case its user reads anew, if it wants to go on.
#[derive(Debug, Clone)]
pub enum WatchEnd {
    /// The connection was lost ([`OnDisconnect::End`] only).
    Disconnected(Error),
    /// The revision to go on from has been compacted.
    Compacted,
    /// The consumer did not keep up.
    Lapsed,
    /// The cluster is another one, or its revision went back: its data was lost or restored from a backup.
    HistoryBroke(String),
    /// etcd refuses to let this range be watched; the error is for good unless it is retryable.
    Refused(Error),
    /// The client was closed.
    Closed,
}

/// What a lost connection means to a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It ends, so that its user knows at once that it knows nothing.
    End,
    /// It goes on from its revision as soon as there is a connection, and its user does not notice.
    Resume,
}

/// What to watch.
#[derive(Debug, Clone)]
pub struct WatchRequest {
    /// The key, or the first key of a range.
    pub key: Vec<u8>,
    /// Where the range ends (exclusive); empty = one key.
    pub range_end: Vec<u8>,
    /// The first revision wanted: that of a read plus one.
    pub from_revision: i64,
    /// The cluster that `from_revision` is of, from the header of that read; 0 = not known.
    pub cluster: u64,
    /// See [`OnDisconnect`].
    pub on_disconnect: OnDisconnect,
}

/// One watch. Dropping it cancels it.
pub struct Subscription {
    batches: mpsc::Receiver<Batch>,
    end: Arc<Mutex<Option<WatchEnd>>>,
    id: i64,
    commands: mpsc::UnboundedSender<Command>,
}

pub(super) enum Command {
    Create(i64, Watch),
    Cancel(i64),
}

/// The side of a subscription that the hub holds.
pub(super) struct Outlet {
    batches: mpsc::Sender<Batch>,
    end: Arc<Mutex<Option<WatchEnd>>>,
}

impl Outlet {
    /// Hands a batch over; false when the consumer lags behind or is gone.
    pub(super) fn deliver(&self, batch: Batch) -> bool {
        self.batches.try_send(batch).is_ok()
    }

    /// Ends the subscription. What was delivered before is still read first.
    pub(super) fn end(self, why: WatchEnd) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }
}

impl Subscription {
    /// The next batch, or why there will be none. Cancel-safe. After the end it tells the end again.
    pub async fn next(&mut self) -> Result<Batch, WatchEnd> {
        if let Some(batch) = self.batches.recv().await {
            return Ok(batch);
        }
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        Err(end.clone().unwrap_or(WatchEnd::Closed))
    }

    /// The next batch if one waits already.
    pub fn queued(&mut self) -> Option<Batch> {
        self.batches.try_recv().ok()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Cancel(self.id)); // a hub that is gone has nothing to cancel
    }
}

/// The shared watch stream of a client. Its task runs while there are subscriptions.
#[derive(Default)]
pub(crate) struct WatchHub {
    state: Arc<Mutex<HubState>>,
}

#[derive(Default)]
pub(super) struct HubState {
    commands: Option<mpsc::UnboundedSender<Command>>,
    last_id: i64,
}

impl HubState {
    /// Called by the hub's task when it has nothing to watch: takes itself out, unless a command has just come.
    pub(super) fn retire(state: &Mutex<Self>, commands: &mpsc::UnboundedReceiver<Command>) -> bool {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = commands.is_empty();
        if idle {
            state.commands = None;
        }
        idle
    }
}

impl EtcdClient {
    /// Watches a range. Resolves nothing and fails never: what etcd says to it comes out of [`Subscription::next`].
    pub fn subscribe(&self, request: WatchRequest) -> Subscription {
        let hub = self.watches();
        let (sender, batches) = mpsc::channel(QUEUE);
        let end = Arc::new(Mutex::new(None));
        let outlet = Outlet {
            batches: sender,
            end: Arc::clone(&end),
        };
        let mut state = hub.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last_id += 1;
        let id = state.last_id;
        let running = state.commands.clone();
        let commands = running.unwrap_or_else(|| {
            // Unbounded, but each subscription sends two commands in its life.
            let (commands, receiver) = mpsc::unbounded_channel();
            let task = Hub::new(self.clone(), receiver, Arc::clone(&hub.state));
            tokio::spawn(task.run(self.closed().clone()));
            state.commands = Some(commands.clone());
            commands
        });
        let _ = commands.send(Command::Create(id, Watch::new(request, outlet)));
        Subscription {
            batches,
            end,
            id,
            commands,
        }
    }
}
