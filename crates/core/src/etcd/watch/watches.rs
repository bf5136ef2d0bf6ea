//! Watches. All of a client share one stream to etcd, kept by the task in `hub`; this is what its users see.
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

use tokio::sync::{Semaphore, mpsc};

use super::hub::Hub;
use super::hub::door::{HubCommand, HubState};
use super::hub::entry::Watch;
use super::request::WatchRequest;
use super::sink::WatchSink;
use crate::etcd::calls::caller::Caller;
use crate::sync::lock;

/// Reads under way per client, of those who have lost the thread of their watch. A compaction or a burst of changes
/// makes many of them at once, and nobody above paces them.
const CATCHING_UP: usize = 32;

/// The watches of a client, all on one stream. Cheap to clone. Its task runs while there is a watch.
#[derive(Clone)]
pub struct Watches {
    calls: Caller,
    state: Arc<Mutex<HubState>>,
    catching_up: Arc<Semaphore>,
}

impl Watches {
    /// None so far.
    pub fn new(calls: Caller) -> Self {
        Self {
            calls,
            state: Arc::default(),
            catching_up: Arc::new(Semaphore::new(CATCHING_UP)),
        }
    }

    /// Whoever reads anew because its watch ended, and not because somebody asked, holds one of these meanwhile.
    pub(crate) fn catching_up(&self) -> &Semaphore {
        &self.catching_up
    }

    /// The pauses before the stream of all watches is opened again, after each failure in a row; the last one for all that
    /// follow. Empty, which is the default: random ones that grow to 5 s.
    pub fn set_watch_pauses(&self, pauses: Vec<Duration>) {
        let mut state = lock(&self.state);
        state.pauses = pauses.into();
    }

    /// How often etcd is asked how far the stream of all watches is, from the next stream on; at least 1 ms. Default 10 s.
    pub fn set_progress_interval(&self, every: Duration) {
        let mut state = lock(&self.state);
        state.progress_every = Some(every.max(Duration::from_millis(1)));
    }

    /// Watches a range for `sink`, which is told everything. Needs a tokio runtime.
    pub fn watch(&self, request: WatchRequest, sink: Box<dyn WatchSink>) -> WatchControl {
        let mut state = lock(&self.state);
        state.last_id += 1;
        let id = state.last_id;
        let running = state.commands.clone();
        let commands = running.unwrap_or_else(|| {
            // Unbounded, but each watch has few commands under way: it is resumed once for each time it was full.
            let (commands, receiver) = mpsc::unbounded_channel();
            let task = Hub::new(
                self.calls.clone(),
                Arc::clone(&self.catching_up),
                receiver,
                commands.downgrade(),
                Arc::clone(&self.state),
            );
            tokio::spawn(task.run(self.calls.closed().clone()));
            state.commands = Some(commands.clone());
            commands
        });
        let _ = commands.send(HubCommand::Create(id, Box::new(Watch::new(request, sink))));
        WatchControl { id, commands }
    }
}

/// Steers one watch of [`Watches::watch`]. Dropping it cancels the watch, without a call of its sink's `end`.
pub struct WatchControl {
    id: i64,
    commands: mpsc::UnboundedSender<HubCommand>,
}

impl WatchControl {
    /// Of a watch that is not there, for tests.
    #[cfg(test)]
    pub(super) fn scripted() -> Self {
        let (commands, _) = mpsc::unbounded_channel();
        Self { id: 0, commands }
    }

    /// There is room again after [`Delivery::Full`](super::sink::Delivery::Full).
    pub fn resume(&self) {
        self.send(HubCommand::Resume(self.id));
    }

    /// From the next creation on the watch starts at this revision, whatever it has delivered; 0 = from then on.
    pub fn rewind(&self, revision: i64) {
        self.send(HubCommand::Rewind(self.id, revision));
    }

    fn send(&self, command: HubCommand) {
        let _ = self.commands.send(command); // a hub that is gone has nothing to steer
    }
}

impl Drop for WatchControl {
    fn drop(&mut self) {
        self.send(HubCommand::Cancel(self.id));
    }
}
