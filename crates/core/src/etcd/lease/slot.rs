//! How a lease stands, what it shares with the task that keeps it, and what that task is told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::etcd::messages::LeaseKeepAliveResponse;
use crate::stall::Stall;
use crate::sync::lock;

/// How a lease stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseState {
    /// Renewed within its time to live.
    Alive,
    /// Gone, or not renewed for its time to live; why.
    Lost(String),
}

/// What happens to a lease.
#[derive(Debug, Clone, PartialEq)]
pub enum LeaseEvent {
    /// There is a stream for its renewals; once for each stream, when it is first renewed on it.
    Established,
    /// A renewal was sent.
    Fired,
    /// A renewal was answered, and the lease lives.
    Succeeded(LeaseKeepAliveResponse),
    /// A renewal failed, or could not be sent; it is tried again.
    Failed(Arc<str>),
    /// It is lost, and why. Once, and nothing comes after it.
    Lost(Arc<str>),
}

/// Hears of events on the thread that renews: it must not block.
pub type OnLeaseEvent = Arc<dyn Fn(&LeaseEvent) + Send + Sync>;

/// How a lease is kept.
#[derive(Clone)]
pub struct LeaseOptions {
    /// Whether it is renewed by itself. Default true. One that is not is lost at its deadline unless
    /// [`Lease::renew_once`](super::lease::Lease::renew_once) moves that.
    pub renews_itself: bool,
    /// Told of its loss; of all else while [`Lease::tell_all`](super::lease::Lease::tell_all) says so. Default none.
    pub observer: Option<OnLeaseEvent>,
    /// The silence of a thread at which the lease is revoked. Default none: a thread that does not tick keeps its leases.
    pub stall: Option<Stall>,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self {
            renews_itself: true,
            observer: None,
            stall: None,
        }
    }
}

/// What a lease shares with the task that keeps it.
pub(crate) struct Slot {
    id: i64,
    renews_itself: bool,
    state: watch::Sender<LeaseState>,
    vital: Mutex<Vital>,
    observer: Option<OnLeaseEvent>,
    tells_all: AtomicBool,
}

#[derive(Clone, Copy)]
struct Vital {
    deadline: Instant,
    ttl: Duration,
}

impl Slot {
    pub(super) fn new(id: i64, confirmed: Instant, ttl: Duration, options: &LeaseOptions) -> Arc<Self> {
        let (state, _) = watch::channel(LeaseState::Alive);
        Arc::new(Self {
            id,
            renews_itself: options.renews_itself,
            state,
            vital: Mutex::new(Vital {
                deadline: confirmed + ttl,
                ttl,
            }),
            observer: options.observer.clone(),
            tells_all: AtomicBool::new(false),
        })
    }

    pub(super) fn id(&self) -> i64 {
        self.id
    }

    pub(super) fn renews_itself(&self) -> bool {
        self.renews_itself
    }

    fn vital(&self) -> Vital {
        *lock(&self.vital)
    }

    pub(super) fn deadline(&self) -> Instant {
        self.vital().deadline
    }

    /// Whether the observer hears of everything. Returns whether it did.
    pub(super) fn tell_all(&self, all: bool) -> bool {
        self.tells_all.swap(all, Ordering::Relaxed)
    }

    /// The time to live that the server granted, or said in its last answer.
    pub(super) fn granted(&self) -> Duration {
        self.vital().ttl
    }

    /// How it stands, from now on.
    pub(super) fn state(&self) -> watch::Receiver<LeaseState> {
        self.state.subscribe()
    }

    #[cfg(test)]
    pub(super) async fn lost(&self) {
        lost(&mut self.state.subscribe()).await;
    }

    pub(crate) fn confirm(&self, deadline: Instant, ttl: Duration) {
        *lock(&self.vital) = Vital { deadline, ttl };
    }

    /// Whether its observer hears of renewals.
    pub(super) fn is_heard(&self) -> bool {
        self.observer.is_some() && self.tells_all.load(Ordering::Relaxed)
    }

    pub(super) fn tell(&self, event: &LeaseEvent) {
        if let Some(observer) = &self.observer
            && self.tells_all.load(Ordering::Relaxed)
        {
            observer(event);
        }
    }

    /// False when it was lost before.
    pub(crate) fn lose(&self, why: &str) -> bool {
        let first = self.state.send_if_modified(|state| {
            let alive = *state == LeaseState::Alive;
            if alive {
                *state = LeaseState::Lost(why.to_owned());
            }
            alive
        });
        if let Some(observer) = self.observer.as_ref().filter(|_| first) {
            observer(&LeaseEvent::Lost(why.into()));
        }
        first
    }
}

/// Resolves when a lease is lost, with the reason. Cancel-safe; a lease once lost stays lost.
pub async fn lost(state: &mut watch::Receiver<LeaseState>) -> String {
    match state.wait_for(|state| *state != LeaseState::Alive).await.as_deref() {
        Ok(LeaseState::Lost(why)) => why.clone(),
        Ok(LeaseState::Alive) | Err(_) => "its renewal ended".to_owned(),
    }
}

/// What comes of a renewal that somebody waits for: the answer, or why the lease is lost.
pub(super) type Renewed = Result<LeaseKeepAliveResponse, String>;

/// What the task is told.
pub(super) enum KeeperCommand {
    /// From here the lease is kept.
    Keep(Keep),
    /// Renew it now, and say what came of it.
    Renew(i64, oneshot::Sender<Renewed>),
    /// One who had it kept does not want it any more.
    Forget(Arc<Slot>),
}

/// A lease that is to be kept.
pub(super) struct Keep {
    pub(super) slot: Arc<Slot>,
    /// When the request was sent that shows it to be alive.
    pub(super) confirmed: Instant,
    /// How long it lives from there.
    pub(super) ttl: Duration,
}
