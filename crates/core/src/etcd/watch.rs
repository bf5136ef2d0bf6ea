//! Watches. All of a client share one stream to etcd, kept by the task in `hub.rs`; this is what its users see.
//!
//! A watch delivers to a [`WatchSink`], which never makes the stream wait. There are two:
//!
//! - A [`Subscription`] hands over [`Batch`]es, each holding whole revisions, in order, none twice and none left out, until
//!   it ends with a [`WatchEnd`] that says why. A consumer that does not keep up is ended and reads anew, which is less
//!   work for everybody than catching up.
//! - A [`WatchQueue`](queue::WatchQueue) holds everything that etcd tells, packed for a consumer on another thread, up to a
//!   bound. When it is full its watch is cancelled on the server, and made anew from there when there is room.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;

use super::client::EtcdClient;
use super::error::{Cause, Fault, judge_reason};
use super::hub::{Hub, Watch};
use crate::error::{Error, ErrorKind};
use crate::sync::lock;

pub mod pack;
pub mod queue;

/// Batches that may wait for a consumer.
const QUEUE: usize = 256;
/// How often etcd is asked how far a stream of watches is: as often as a quiet one is asked whether it is alive. What passed
/// by a quiet watch is compacted five minutes later at the earliest as a rule, but not as a law.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

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
    /// Whether the last revision goes on in the next response; only with [`WatchRequest::fragment`].
    pub fragment: bool,
    /// In the order in which they were made. Empty: everything up to the header's revision has been delivered.
    pub events: Vec<Event>,
    /// Where the watch would resume from now on.
    pub next_revision: i64,
}

/// What became of a response that was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It was taken, and there is room for another.
    Taken,
    /// It was taken, but there is room for no other until [`WatchControl::resume`].
    Full,
    /// It was not taken: the consumer lags behind or is gone.
    Lagging,
}

/// Who a watch delivers to. Called by the task of the stream, so nothing here may wait.
pub trait WatchSink: Send + Sync {
    /// The watch is being created: at first, and after each disconnection that was told. Of the watches of a client one
    /// at a time is between this and [`created`](Self::created), although their requests are under way together.
    fn connecting(&mut self) {}

    /// etcd has created it.
    fn created(&mut self, _created: Created) {}

    /// With [`WatchRequest::settle`]: the revision to start from is not compacted. Once at most.
    fn settled(&mut self) {}

    /// Events or progress.
    fn deliver(&mut self, response: Response) -> Delivery;

    /// The stream is lost, or none can be opened: once per drop. False ends the watch with [`WatchEnd::Refused`].
    fn disconnected(&mut self, _fault: &Fault) -> bool {
        true
    }

    /// The last call.
    fn end(self: Box<Self>, why: WatchEnd);
}

/// Why a watch ended. In every case its user reads anew, if it wants to go on.
#[derive(Debug, Clone)]
pub enum WatchEnd {
    /// The connection was lost ([`OnDisconnect::End`]), etcd cancelled the watch without a reason, or a fault of this crate
    /// ended the task of all watches.
    Disconnected(Error),
    /// The revision to go on from has been compacted, up to this one (0: etcd did not say).
    Compacted(i64),
    /// The consumer did not keep up, or one revision was larger than the largest message.
    Lapsed,
    /// The cluster is another one, or its revision went back: its data was lost or restored from a backup.
    HistoryBroke(String),
    /// etcd refuses to let this range be watched; the error is for good unless it is retryable.
    Refused(Error),
    /// The client was closed.
    Closed,
}

impl WatchEnd {
    /// The same as a failed call.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Disconnected(error) | Self::Refused(error) => Fault::of(Cause::Refused, error.clone()),
            Self::Compacted(_) => judge_reason("etcdserver: mvcc: required revision has been compacted", ""),
            Self::Lapsed => Fault::new(
                Cause::TooLarge,
                ErrorKind::InvalidArgument,
                "one revision of the watch is larger than the option maxMessageBytes allows; let it come in fragments",
            ),
            Self::HistoryBroke(why) => Fault::new(Cause::Refused, ErrorKind::Unavailable, why),
            Self::Closed => Fault::new(Cause::Refused, ErrorKind::Closed, "the client was closed"),
        }
    }
}

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
    /// Say when the first revision is known not to be compacted, see [`WatchSink::settled`].
    pub settle: bool,
}

/// One watch of [`EtcdClient::subscribe`]. Dropping it cancels it.
pub struct Subscription {
    batches: mpsc::Receiver<Batch>,
    end: Arc<Mutex<Option<WatchEnd>>>,
    _control: WatchControl,
}

pub(super) enum Command {
    Create(i64, Box<Watch>),
    Cancel(i64),
    Resume(i64),
    Rewind(i64, i64),
    Settled(i64),
    /// The watch that was asked for under this id of the stream is denied: etcd denies a read of its range too.
    Denied(i64, i64, Error),
    /// It is not: the token of the stream is older than the permission.
    Permitted(i64, i64),
}

/// The side of a subscription that the hub holds.
struct Outlet {
    batches: mpsc::Sender<Batch>,
    end: Arc<Mutex<Option<WatchEnd>>>,
}

impl WatchSink for Outlet {
    fn deliver(&mut self, response: Response) -> Delivery {
        if response.events.is_empty() {
            return Delivery::Taken;
        }
        let changes = response.events.into_iter().map(Change::from).collect();
        match self.batches.try_send(Batch { changes }) {
            Ok(()) => Delivery::Taken,
            Err(_) => Delivery::Lagging,
        }
    }

    /// What was delivered before is still read first.
    fn end(self: Box<Self>, why: WatchEnd) {
        *lock(&self.end) = Some(why);
    }
}

impl Subscription {
    /// The next batch, or why there will be none. Cancel-safe. After the end it tells the end again.
    pub async fn next(&mut self) -> Result<Batch, WatchEnd> {
        if let Some(batch) = self.batches.recv().await {
            return Ok(batch);
        }
        let end = lock(&self.end);
        Err(end.clone().unwrap_or(WatchEnd::Closed))
    }

    /// The next batch if one waits already.
    pub fn queued(&mut self) -> Option<Batch> {
        self.batches.try_recv().ok()
    }
}

/// Steers one watch of [`EtcdClient::watch`]. Dropping it cancels the watch, without a call of its sink's `end`.
pub struct WatchControl {
    id: i64,
    commands: mpsc::UnboundedSender<Command>,
}

impl WatchControl {
    /// There is room again after [`Delivery::Full`].
    pub fn resume(&self) {
        self.send(Command::Resume(self.id));
    }

    /// From the next creation on the watch starts at this revision, whatever it has delivered; 0 = from then on.
    pub fn rewind(&self, revision: i64) {
        self.send(Command::Rewind(self.id, revision));
    }

    fn send(&self, command: Command) {
        let _ = self.commands.send(command); // a hub that is gone has nothing to steer
    }
}

impl Drop for WatchControl {
    fn drop(&mut self) {
        self.send(Command::Cancel(self.id));
    }
}

/// The shared watch stream of a client. Its task runs while there are watches.
#[derive(Default)]
pub(crate) struct WatchHub {
    state: Arc<Mutex<HubState>>,
}

#[derive(Default)]
pub(super) struct HubState {
    commands: Option<mpsc::UnboundedSender<Command>>,
    last_id: i64,
    /// The pauses between tries to open the stream, in place of our own; the last one for all that follow.
    pauses: Arc<[Duration]>,
    /// In place of [`PROGRESS_EVERY`].
    progress_every: Option<Duration>,
}

impl HubState {
    pub(super) fn progress_every(state: &Mutex<Self>) -> Duration {
        let state = lock(state);
        state.progress_every.unwrap_or(PROGRESS_EVERY)
    }

    /// The pause after this many failures in a row, if somebody has said so.
    pub(super) fn pause(state: &Mutex<Self>, failures: u32) -> Option<Duration> {
        let state = lock(state);
        let place = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
        state.pauses.get(place).or(state.pauses.last()).copied()
    }

    /// Called by the hub's task when it ends and has not retired: who comes from then on starts another.
    pub(super) fn leave(state: &Mutex<Self>) {
        lock(state).commands = None;
    }

    /// Called by the hub's task when it has nothing to watch: takes itself out, unless a command has just come.
    pub(super) fn retire(state: &Mutex<Self>, commands: &mpsc::UnboundedReceiver<Command>) -> bool {
        let mut state = lock(state);
        let idle = commands.is_empty();
        if idle {
            state.commands = None;
        }
        idle
    }
}

impl EtcdClient {
    /// The pauses before the stream of all watches is opened again, after each failure in a row; the last one for all that
    /// follow. Empty, which is the default: random ones that grow to 5 s.
    pub fn set_watch_pauses(&self, pauses: Vec<Duration>) {
        let mut state = lock(&self.watches().state);
        state.pauses = pauses.into();
    }

    /// How often etcd is asked how far the stream of all watches is, from the next stream on; at least 1 ms. Default 10 s.
    pub fn set_progress_interval(&self, every: Duration) {
        let mut state = lock(&self.watches().state);
        state.progress_every = Some(every.max(Duration::from_millis(1)));
    }

    /// Watches a range. Resolves nothing and fails never: what etcd says to it comes out of [`Subscription::next`].
    pub fn subscribe(&self, request: WatchRequest) -> Subscription {
        let (sender, batches) = mpsc::channel(QUEUE);
        let end = Arc::new(Mutex::new(None));
        let outlet = Outlet {
            batches: sender,
            end: Arc::clone(&end),
        };
        Subscription {
            batches,
            end,
            _control: self.watch(request, Box::new(outlet)),
        }
    }

    /// Watches a range for `sink`, which is told everything. Needs a tokio runtime.
    pub fn watch(&self, request: WatchRequest, sink: Box<dyn WatchSink>) -> WatchControl {
        let hub = self.watches();
        let mut state = lock(&hub.state);
        state.last_id += 1;
        let id = state.last_id;
        let running = state.commands.clone();
        let commands = running.unwrap_or_else(|| {
            // Unbounded, but each watch has few commands under way: it is resumed once for each time it was full.
            let (commands, receiver) = mpsc::unbounded_channel();
            let task = Hub::new(self.clone(), receiver, commands.downgrade(), Arc::clone(&hub.state));
            tokio::spawn(task.run(self.closed().clone()));
            state.commands = Some(commands.clone());
            commands
        });
        let _ = commands.send(Command::Create(id, Box::new(Watch::new(request, sink))));
        WatchControl { id, commands }
    }
}
