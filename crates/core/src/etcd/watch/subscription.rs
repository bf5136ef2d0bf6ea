//! A watch in whole revisions, for a consumer that reads anew when it does not keep up.

use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use super::events::{Batch, Change, Response};
use super::request::WatchRequest;
use super::sink::{Delivery, WatchEnd, WatchSink};
use super::watches::{WatchControl, Watches};
use crate::sync::lock;

/// Batches that may wait for a consumer.
const QUEUE: usize = 256;

/// One watch of [`Watches::subscribe`]. Dropping it cancels it.
pub struct Subscription {
    batches: mpsc::Receiver<Batch>,
    end: Arc<Mutex<Option<WatchEnd>>>,
    _control: WatchControl,
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

/// What a subscription by script is told, and why it ends when this is dropped; for tests.
#[cfg(test)]
pub(crate) struct Script {
    pub(crate) batches: mpsc::Sender<Batch>,
    end: Arc<Mutex<Option<WatchEnd>>>,
}

#[cfg(test)]
impl Script {
    pub(crate) fn end(self, why: WatchEnd) {
        *lock(&self.end) = Some(why);
    }
}

impl Subscription {
    /// One that a test tells things.
    #[cfg(test)]
    pub(crate) fn scripted() -> (Script, Self) {
        let (sender, batches) = mpsc::channel(QUEUE);
        let end = Arc::new(Mutex::new(None));
        let script = Script {
            batches: sender,
            end: Arc::clone(&end),
        };
        let subscription = Self {
            batches,
            end,
            _control: WatchControl::scripted(),
        };
        (script, subscription)
    }

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

impl Watches {
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
}
