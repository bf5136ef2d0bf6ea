//! A lease that renews itself, and knows by its own clock when it can't be vouched for any more.
//!
//! One lease per registration, with an id that we choose (`docs/decisions/0002-one-lease-per-registration.md`):
//!
//! - Revoking it is an atomic fence. It removes exactly what was written under it, whether the answers arrived or not,
//!   and a put that a slow server applies afterwards fails with "requested lease not found".
//! - A grant whose answer was lost can still be revoked, and asked for again, because its id is known.
//! - One lost lease loses one registration, and a revoked one no other registration of the process.
//!
//! The price is a renewal per registration and third of its time to live: 200 small requests a second for a thousand at
//! 15 s, all on one stream (`keeper`).
//!
//! The local deadline is the moment when the last confirmed request was *sent*, plus the time to live that it was answered
//! with: the server's count cannot have begun earlier. A lease is lost then, whatever is under way. One that somebody
//! else revokes is noticed by the next renewal, so within a third of its time to live. The clock is the system's
//! monotonic one, which stands still while the machine sleeps: after that the first renewal tells.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::slot::{KeeperCommand, LeaseState, Slot};
use crate::error::{Error, ErrorKind};
use crate::etcd::error::{Cause, Fault, Said};
use crate::etcd::messages::LeaseKeepAliveResponse;

/// A granted lease that is being kept alive. Dropping it ends the renewal and leaves the lease to its time to live.
pub struct Lease {
    slot: Arc<Slot>,
    commands: mpsc::UnboundedSender<KeeperCommand>,
    guard: Option<AbortHandle>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(guard) = &self.guard {
            guard.abort();
        }
        let _ = self.commands.send(KeeperCommand::Forget(Arc::clone(&self.slot))); // a task that is gone keeps nothing
    }
}

impl Lease {
    pub(super) fn new(
        slot: Arc<Slot>,
        commands: mpsc::UnboundedSender<KeeperCommand>,
        guard: Option<AbortHandle>,
    ) -> Self {
        Self { slot, commands, guard }
    }

    /// One that nobody renews, for tests.
    #[cfg(test)]
    pub(crate) fn scripted(id: i64, ttl: Duration) -> (Self, Arc<Slot>) {
        let slot = Slot::new(id, Instant::now(), ttl, &super::slot::LeaseOptions::default());
        let (commands, _) = mpsc::unbounded_channel();
        (Self::new(Arc::clone(&slot), commands, None), slot)
    }

    /// An id that nobody has: 63 random bits, as the server would draw.
    pub fn new_id() -> i64 {
        fastrand::i64(1..=i64::MAX)
    }

    /// Its id.
    pub fn id(&self) -> i64 {
        self.slot.id()
    }

    /// The time to live that the server granted, or said in its last answer.
    pub fn granted(&self) -> Duration {
        self.slot.granted()
    }

    /// Until when it can be vouched for: when the last confirmed request was sent, plus the time to live.
    pub fn deadline(&self) -> Instant {
        self.slot.deadline()
    }

    /// Whether it is alive as far as is known. False from the deadline on, told or not.
    pub fn is_alive(&self) -> bool {
        *self.slot.state().borrow() == LeaseState::Alive && Instant::now() < self.deadline()
    }

    /// Why it is lost; `None` before that was told.
    pub fn failure(&self) -> Option<String> {
        match &*self.slot.state().borrow() {
            LeaseState::Alive => None,
            LeaseState::Lost(why) => Some(why.clone()),
        }
    }

    /// How it stands, from now on. Give it to [`lost`](super::slot::lost) to wait for its end.
    pub fn state(&self) -> watch::Receiver<LeaseState> {
        self.slot.state()
    }

    /// Whether the observer hears of every renewal, or of the loss alone, as at first. One that begins to listen has the
    /// lease renewed at once, so that it hears something before a third of the time to live is over.
    pub fn tell_all(&self, all: bool) {
        if !self.slot.tell_all(all) && all && self.slot.renews_itself() {
            let (told, _) = oneshot::channel();
            let _ = self.commands.send(KeeperCommand::Renew(self.id(), told));
        }
    }

    /// Renews it now, on the shared stream. It is tried over streams and members until `until` and the deadline of the
    /// lease. Always ends.
    ///
    /// Errors: `LeaseNotFound` when the lease is lost, by then or by the answer; `Broken` of kind `Timeout`.
    pub async fn renew_once(&self, until: Instant) -> Result<LeaseKeepAliveResponse, Fault> {
        let begun = Instant::now();
        let (told, answer) = oneshot::channel();
        let _ = self.commands.send(KeeperCommand::Renew(self.id(), told));
        match timeout_at(until, answer).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(why))) => Err(gone(&self.failure().unwrap_or(why))),
            Ok(Err(_)) => Err(gone(&self.failure().unwrap_or_else(|| "its renewal ended".to_owned()))),
            Err(_) => Err(Fault::new(
                Cause::Broken,
                ErrorKind::Timeout,
                format!("the lease was not renewed within {} ms", begun.elapsed().as_millis()),
            )),
        }
    }
}

/// The lease is lost, in the words of etcd too, for those who go by these.
pub(super) fn gone(why: &str) -> Fault {
    let status = tonic::Status::not_found("etcdserver: requested lease not found");
    Fault::of(
        Cause::LeaseNotFound,
        Error::new(ErrorKind::Unavailable, why).caused_by(Said(status)),
    )
}
