//! A session, as etcd's `concurrency` package has it: a lease from the moment it is wanted, granted and kept in one go, so
//! that whoever wants it may be busy with something else meanwhile. [`Session::close`] revokes it and [`Session::orphan`]
//! leaves it to its time to live, also before the grant was answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::lease::Lease;
use super::leases::Leases;
use super::slot::{LeaseEvent, LeaseOptions};
use crate::backoff::Backoff;
use crate::error::ErrorKind;
use crate::etcd::error::{Cause, Fault};
use crate::etcd::messages::LeaseKeepAliveResponse;
use crate::stall::Stall;

/// What happens to a wanted lease.
#[derive(Debug, Clone)]
pub enum SessionEvent {
    /// It is granted, and kept unless it was given up meanwhile.
    Granted,
    /// It is not granted. Nothing comes after it.
    Refused(Fault),
    /// What happens to it afterwards.
    Lease(LeaseEvent),
}

/// Hears of events on the thread that renews: it must not block.
pub type OnSessionEvent = Arc<dyn Fn(&SessionEvent) + Send + Sync>;

/// Which lease is wanted, and how.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Its id. One that is asked for must be drawn from all 2^63: see [`Lease::new_id`].
    pub id: i64,
    /// The seconds to ask for; `None` takes over the lease `id`, which is there already.
    pub ttl: Option<i64>,
    /// Whether it is renewed by itself.
    pub renews_itself: bool,
    /// When the grant must have been answered.
    pub until: Instant,
    /// A grant that fails for want of a server is tried again, with growing pauses, until it is answered or given up;
    /// each try has the timeout of the client, and `until` does not count.
    pub insists: bool,
    /// See [`LeaseOptions::stall`].
    pub stall: Option<Stall>,
}

/// Where a wanted lease stands.
#[derive(Clone)]
enum Stage {
    /// It was asked for.
    Asked,
    /// It is granted and kept.
    Held(Arc<Lease>),
    /// It is granted, and was given up: nobody renews it.
    Orphaned,
    /// It was not granted.
    Refused(Fault),
}

/// A lease that somebody wants. Dropping it leaves the lease to its time to live.
pub struct Session {
    leases: Leases,
    id: i64,
    takes_over: bool,
    stage: watch::Sender<Stage>,
    orphaned: AtomicBool,
    tells_all: AtomicBool,
    /// Cancelled when the grant is not wanted any more.
    grant_aborted: CancellationToken,
}

impl Session {
    /// Asks for a lease. In a tokio runtime.
    pub fn begin(leases: Leases, options: SessionOptions, observer: OnSessionEvent) -> Arc<Self> {
        let (stage, _) = watch::channel(Stage::Asked);
        let session = Arc::new(Self {
            leases,
            id: options.id,
            takes_over: options.ttl.is_none(),
            stage,
            orphaned: AtomicBool::new(false),
            tells_all: AtomicBool::new(false),
            grant_aborted: CancellationToken::new(),
        });
        tokio::spawn(Arc::clone(&session).grant(options, observer));
        session
    }

    async fn grant(self: Arc<Self>, options: SessionOptions, observer: OnSessionEvent) {
        let hears = Arc::clone(&observer);
        let kept = LeaseOptions {
            renews_itself: options.renews_itself,
            observer: Some(Arc::new(move |event| hears(&SessionEvent::Lease(event.clone())))),
            stall: options.stall,
        };
        let granted = async {
            let Some(ttl) = options.ttl else {
                return self.leases.attach(options.id, options.until, kept).await;
            };
            if !options.insists {
                return self.leases.grant_for(options.id, ttl, options.until, kept).await;
            }
            let mut backoff = Backoff::new();
            loop {
                let until = Instant::now() + self.leases.calls().options().timeout;
                match self.leases.grant_for(options.id, ttl, until, kept.clone()).await {
                    Err(fault) if fault.error.is_retryable() => tokio::time::sleep(backoff.next_pause()).await,
                    done => return done,
                }
            }
        };
        let closed = self.leases.calls().closed().clone();
        let outcome = tokio::select! {
            outcome = granted => outcome,
            () = self.grant_aborted.cancelled() => Err(unknown(Fault::new(
                Cause::Broken,
                ErrorKind::Aborted,
                "the operation was aborted",
            ))),
            () = closed.cancelled() => Err(unknown(Fault::new(
                Cause::Refused,
                ErrorKind::Closed,
                "the client was closed",
            ))),
        };
        match outcome {
            Ok(lease) => {
                let lease = Arc::new(lease);
                self.stage.send_modify(|stage| {
                    *stage = if self.orphaned.load(Ordering::SeqCst) {
                        Stage::Orphaned
                    } else {
                        Stage::Held(Arc::clone(&lease))
                    };
                });
                observer(&SessionEvent::Granted);
                if self.tells_all.load(Ordering::SeqCst) {
                    lease.tell_all(true);
                }
            }
            Err(fault) => {
                self.stage.send_replace(Stage::Refused(fault.clone()));
                observer(&SessionEvent::Refused(fault.clone()));
                // It may have been granted all the same, by a try before the last one too. Its id is ours, so it need not
                // stand for its time to live.
                let unknown = !fault.is_surely_not_applied() || !fault.tried.is_empty() || fault.outcome_unknown;
                if !self.takes_over && unknown {
                    let _ = self.leases.revoke(self.id).await; // it expires
                }
            }
        }
    }

    /// Its id, granted or not.
    pub fn id(&self) -> i64 {
        self.id
    }

    fn held(&self) -> Option<Arc<Lease>> {
        match &*self.stage.borrow() {
            Stage::Held(lease) => Some(Arc::clone(lease)),
            _ => None,
        }
    }

    /// Whether it is granted, kept, and alive as far as is known. False from the local deadline on, told or not.
    pub fn is_alive(&self) -> bool {
        self.held().is_some_and(|lease| lease.is_alive())
    }

    /// Until when it can be vouched for; `None` when it is not kept.
    pub fn deadline(&self) -> Option<Instant> {
        self.held().map(|lease| lease.deadline())
    }

    /// The time to live that the server granted, or said in its last answer; `None` when it is not kept.
    pub fn granted(&self) -> Option<Duration> {
        self.held().map(|lease| lease.granted())
    }

    /// Why it is lost; `None` when that was not told.
    pub fn failure(&self) -> Option<String> {
        self.held().and_then(|lease| lease.failure())
    }

    /// See [`Lease::tell_all`]; also before it is granted.
    pub fn tell_all(&self, all: bool) {
        self.tells_all.store(all, Ordering::SeqCst);
        if let Some(lease) = self.held() {
            lease.tell_all(all);
        }
    }

    /// Stops renewing it, and leaves it to its time to live. It is told of no more, but for the end of its grant.
    pub fn orphan(&self) {
        self.orphaned.store(true, Ordering::SeqCst);
        self.stage.send_if_modified(|stage| {
            let held = matches!(stage, Stage::Held(_));
            if held {
                *stage = Stage::Orphaned;
            }
            held
        });
    }

    /// Gives the grant up, if it is not answered yet: it is refused with the kind `Aborted`.
    pub fn abort_grant(&self) {
        self.grant_aborted.cancel();
    }

    /// Stops renewing it and revokes it, once its grant was answered. One that was not granted, or is gone, is a success.
    ///
    /// Errors: those of [`Leases::revoke_until`].
    pub async fn close(&self, until: Instant) -> Result<(), Fault> {
        self.orphan();
        match self.settled(until).await? {
            Stage::Refused(_) => Ok(()),
            _ => self.leases.revoke_until(self.id, until).await,
        }
    }

    /// See [`Lease::renew_once`]; waits for the grant. One that was orphaned is renewed this once.
    ///
    /// Errors: that of the grant; those of [`Lease::renew_once`] and [`Leases::renew_unkept`].
    pub async fn renew_once(&self, until: Instant) -> Result<LeaseKeepAliveResponse, Fault> {
        match self.settled(until).await? {
            Stage::Held(lease) => lease.renew_once(until).await,
            Stage::Refused(fault) => Err(fault),
            Stage::Asked | Stage::Orphaned => self.leases.renew_unkept(self.id, until).await,
        }
    }

    async fn settled(&self, until: Instant) -> Result<Stage, Fault> {
        let mut stage = self.stage.subscribe();
        let settled = stage.wait_for(|stage| !matches!(stage, Stage::Asked));
        match timeout_at(until, settled).await {
            Ok(Ok(stage)) => Ok(stage.clone()),
            Ok(Err(_)) | Err(_) => Err(Fault::new(
                Cause::Broken,
                ErrorKind::Timeout,
                "the lease was not granted in time",
            )),
        }
    }
}

/// Of a grant that was not waited for.
fn unknown(mut fault: Fault) -> Fault {
    fault.outcome_unknown = true;
    fault
}
