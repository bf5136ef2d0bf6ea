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
//! 15 s, all on one stream (`keepalive.rs`).
//!
//! The local deadline is the moment when the last confirmed request was *sent*, plus the time to live that it was answered
//! with: the server's count cannot have begun earlier. A lease is lost then, whatever is under way. One that somebody
//! else revokes is noticed by the next renewal, so within a third of its time to live. The clock is the system's
//! monotonic one, which stands still while the machine sleeps: after that the first renewal tells.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::client::EtcdClient;
use super::error::{Cause, Fault, judge};
use super::keepalive::{Command, Keep, time_to_live};
use super::options::MAX_TTL;
use super::tries::Tries;
use super::wire::LeaseKeepAliveResponse;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::lock;

/// How often a grant is begun anew because the lease that an earlier request of it made was gone when it was looked at.
const GRANTS: u32 = 2;

/// The most that a call about a lease waits for one member while there are others. Each may be made twice: a lease has its
/// id from the start.
const TRY_MOST: Duration = Duration::from_secs(3);

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
pub type Observer = Arc<dyn Fn(&LeaseEvent) + Send + Sync>;

/// A limit for the silence of somebody's thread.
#[derive(Debug, Clone)]
pub struct LeaseStall {
    /// From [`StallMonitor::subscribe`](crate::stall::StallMonitor::subscribe) with the same limit.
    pub silence: watch::Receiver<Duration>,
    /// A lease is revoked when the thread has been silent for so long.
    pub limit: Duration,
}

/// How a lease is kept.
#[derive(Clone)]
pub struct LeaseOptions {
    /// Whether it is renewed by itself. Default true. One that is not is lost at its deadline unless
    /// [`renew_once`](Lease::renew_once) moves that.
    pub renews_itself: bool,
    /// Told of its loss; of all else while [`Lease::tell_all`] says so. Default none.
    pub observer: Option<Observer>,
    /// Default none: a thread that does not tick keeps its leases.
    pub stall: Option<LeaseStall>,
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
pub(super) struct Slot {
    id: i64,
    renews_itself: bool,
    state: watch::Sender<LeaseState>,
    vital: Mutex<Vital>,
    observer: Option<Observer>,
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

    #[cfg(test)]
    pub(super) fn state(&self) -> LeaseState {
        self.state.borrow().clone()
    }

    #[cfg(test)]
    pub(super) async fn lost(&self) {
        lost(&mut self.state.subscribe()).await;
    }

    pub(super) fn confirm(&self, deadline: Instant, ttl: Duration) {
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
    pub(super) fn lose(&self, why: &str) -> bool {
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

/// A granted lease that is being kept alive. Dropping it ends the renewal and leaves the lease to its time to live.
pub struct Lease {
    slot: Arc<Slot>,
    commands: mpsc::UnboundedSender<Command>,
    guard: Option<AbortHandle>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(guard) = &self.guard {
            guard.abort();
        }
        let _ = self.commands.send(Command::Forget(Arc::clone(&self.slot))); // a task that is gone keeps nothing
    }
}

impl Lease {
    /// An id that nobody has: 63 random bits, as the server would draw.
    pub fn new_id() -> i64 {
        fastrand::i64(1..=i64::MAX)
    }

    /// Its id.
    pub fn id(&self) -> i64 {
        self.slot.id
    }

    /// The time to live that the server granted, or said in its last answer.
    pub fn granted(&self) -> Duration {
        self.slot.vital().ttl
    }

    /// Until when it can be vouched for: when the last confirmed request was sent, plus the time to live.
    pub fn deadline(&self) -> Instant {
        self.slot.deadline()
    }

    /// Whether it is alive as far as is known. False from the deadline on, told or not.
    pub fn is_alive(&self) -> bool {
        *self.slot.state.borrow() == LeaseState::Alive && Instant::now() < self.deadline()
    }

    /// Why it is lost; `None` before that was told.
    pub fn failure(&self) -> Option<String> {
        match &*self.slot.state.borrow() {
            LeaseState::Alive => None,
            LeaseState::Lost(why) => Some(why.clone()),
        }
    }

    /// How it stands, from now on. Give it to [`lost`] to wait for its end.
    pub fn state(&self) -> watch::Receiver<LeaseState> {
        self.slot.state.subscribe()
    }

    /// Whether the observer hears of every renewal, or of the loss alone, as at first. One that begins to listen has the
    /// lease renewed at once, so that it hears something before a third of the time to live is over.
    pub fn tell_all(&self, all: bool) {
        if !self.slot.tell_all(all) && all && self.slot.renews_itself {
            let (told, _) = oneshot::channel();
            let _ = self.commands.send(Command::Renew(self.id(), told));
        }
    }

    /// Renews it now, on the shared stream. It is tried over streams and members until `until` and the deadline of the
    /// lease. Always ends.
    ///
    /// Errors: `LeaseNotFound` when the lease is lost, by then or by the answer; `Broken` of kind `Timeout`.
    pub async fn renew_once(&self, until: Instant) -> Result<LeaseKeepAliveResponse, Fault> {
        let begun = Instant::now();
        let (told, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Renew(self.id(), told));
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
        Error::new(ErrorKind::Unavailable, why).caused_by(status),
    )
}

/// Resolves when a lease is lost, with the reason. Cancel-safe; a lease once lost stays lost.
pub async fn lost(state: &mut watch::Receiver<LeaseState>) -> String {
    match state.wait_for(|state| *state != LeaseState::Alive).await.as_deref() {
        Ok(LeaseState::Lost(why)) => why.clone(),
        Ok(LeaseState::Alive) | Err(_) => "its renewal ended".to_owned(),
    }
}

impl EtcdClient {
    /// Grants the lease `id` for the time to live of the options and begins to renew it. May be repeated with the same id
    /// when the answer was lost.
    ///
    /// Errors: those of [`call`](Self::call).
    pub async fn grant(&self, id: i64) -> Result<Lease, Fault> {
        let until = Instant::now() + self.options().timeout;
        self.grant_for(id, self.options().ttl_seconds(), until, LeaseOptions::default())
            .await
    }

    /// Grants the lease `id` for `ttl` seconds until `until` and begins to renew it. May be repeated with the same id
    /// when the answer was lost: there is one lease afterwards all the same, and finding out about it may take the
    /// timeout of the options once more.
    ///
    /// Errors: those of [`call`](Self::call).
    pub async fn grant_for(&self, id: i64, ttl: i64, until: Instant, options: LeaseOptions) -> Result<Lease, Fault> {
        let mut grants = 1;
        loop {
            let answer = self
                .lease_call("grant a lease", until, |client| async move {
                    // Of this try: those before it may have waited for a frozen member longer than the lease lives.
                    let sent = Instant::now();
                    let options = etcd_client::LeaseGrantOptions::new().with_id(id);
                    let answer = client.lease_client().grant(ttl, Some(options)).await?;
                    Ok((answer.ttl(), sent))
                })
                .await;
            match answer {
                Ok((granted, sent)) => {
                    let Some(granted) = time_to_live(granted) else {
                        return Err(gone("etcd granted a lease that had expired when its answer came"));
                    };
                    return Ok(self.kept(id, sent, granted, options));
                }
                // Ours: the id is drawn from 2^63. The answer to an earlier request of this or the last call was lost.
                Err(fault) if fault.cause == Cause::LeaseExists => {
                    // A member answers now: what is left of the time is not to decide.
                    let until = until.max(Instant::now() + self.options().timeout);
                    match self.attach(id, until, options.clone()).await {
                        // It expired in between, with nothing written under it.
                        Err(fault) if fault.cause == Cause::LeaseNotFound && grants < GRANTS => grants += 1,
                        done => return done,
                    }
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Takes over the renewal of a lease that is there already: reads its time to live and renews it once, until `until`.
    /// The same lease may be attached to more than once.
    ///
    /// Errors: `LeaseNotFound`; else those of [`call`](Self::call) and [`renew_once`](Lease::renew_once).
    pub async fn attach(&self, id: i64, until: Instant, options: LeaseOptions) -> Result<Lease, Fault> {
        let (lease, _) = self.prove(id, until, &options).await?;
        let granted = lease.granted();
        let confirmed = lease.deadline().checked_sub(granted).unwrap_or_else(Instant::now);
        Ok(self.kept(id, confirmed, granted, options))
    }

    /// Renews a lease that is not kept, once.
    ///
    /// Errors: those of [`attach`](Self::attach).
    pub async fn renew_unkept(&self, id: i64, until: Instant) -> Result<LeaseKeepAliveResponse, Fault> {
        let options = LeaseOptions {
            renews_itself: false,
            ..LeaseOptions::default()
        };
        self.prove(id, until, &options).await.map(|(_, answer)| answer)
    }

    /// Keeps a lease for as long as it takes to renew it once, and a moment longer.
    async fn prove(
        &self,
        id: i64,
        until: Instant,
        options: &LeaseOptions,
    ) -> Result<(Lease, LeaseKeepAliveResponse), Fault> {
        let answer = self
            .lease_call("read a lease", until, |client| async move {
                client.lease_client().time_to_live(id, None).await
            })
            .await?;
        let Some(granted) = time_to_live(answer.granted_ttl()).filter(|_| answer.ttl() >= 0) else {
            return Err(gone("etcd: requested lease not found"));
        };
        // Kept from now, so that it can be renewed; nobody has it before the renewal has shown how long it lives.
        let unproved = LeaseOptions {
            observer: None,
            stall: None,
            ..options.clone()
        };
        let lease = self.kept(id, Instant::now(), granted, unproved);
        let answer = lease.renew_once(until).await?;
        Ok((lease, answer))
    }

    async fn lease_call<T, F, Fut>(&self, op: &'static str, until: Instant, make: F) -> Result<T, Fault>
    where
        F: Fn(etcd_client::Client) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        let tries = Tries {
            deadline: Some(until),
            most: Some(TRY_MOST),
            repeatable: true,
            only: None,
        };
        let Ok(_turn) = timeout_at(until, self.keep_alives().calls.acquire()).await else {
            return Err(Fault::new(
                Cause::NotSent,
                ErrorKind::Timeout,
                format!("too many calls about leases were under way to {op} in time"),
            ));
        };
        // Boxed, so that those who wait for their turn are small.
        let answer = Box::pin(self.attempt(op, tries, |connection| {
            let answer = make(connection.client.clone());
            async move { answer.await.map_err(|error| judge(error, &connection.url)) }
        }));
        answer.await.map(|(answer, _)| answer)
    }

    fn kept(&self, id: i64, confirmed: Instant, ttl: Duration, options: LeaseOptions) -> Lease {
        let ttl = ttl.min(MAX_TTL);
        let slot = Slot::new(id, confirmed, ttl, &options);
        let keep = Keep {
            slot: Arc::clone(&slot),
            confirmed,
            ttl,
        };
        let commands = self.keep(keep);
        let guard = options.stall.map(|stall| {
            let guard = revoke_when_stalled(self.clone(), Arc::clone(&slot), commands.clone(), stall);
            tokio::spawn(guard).abort_handle()
        });
        Lease { slot, commands, guard }
    }

    /// Revokes a lease, which deletes every key attached to it. A lease that is not there is a success.
    pub async fn revoke(&self, id: i64) -> Result<(), Fault> {
        self.revoke_until(id, Instant::now() + self.options().timeout).await
    }

    /// [`revoke`](Self::revoke) until `until`.
    pub async fn revoke_until(&self, id: i64, until: Instant) -> Result<(), Fault> {
        let answer = self
            .lease_call("revoke a lease", until, |client| async move {
                client.lease_client().revoke(id).await
            })
            .await;
        match answer {
            Err(fault) if fault.cause != Cause::LeaseNotFound => Err(fault),
            _ => Ok(()),
        }
    }
}

/// Ends a lease whose owner does not tick: it is lost first, so that nobody takes it for alive while it is being revoked.
async fn revoke_when_stalled(
    client: EtcdClient,
    slot: Arc<Slot>,
    commands: mpsc::UnboundedSender<Command>,
    mut stall: LeaseStall,
) {
    if stall.silence.wait_for(|silence| *silence >= stall.limit).await.is_err() {
        return;
    }
    let why = format!(
        "the JavaScript thread was blocked for {} ms: its lease was revoked",
        stall.limit.as_millis()
    );
    slot.lose(&why);
    let id = slot.id;
    let _ = commands.send(Command::Forget(slot));
    // What cannot be revoked now expires: nobody renews it any more.
    if let Err(fault) = client.revoke(id).await {
        client
            .log()
            .warn(format_args!("etcd lease {id:x} was not revoked: {}", fault.error));
    }
}
