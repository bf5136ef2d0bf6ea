//! The one session of a client: opened when first needed, shared by all registrations and watches, opened anew when it
//! has ended. How it is kept is its [`client`](super::client)'s; what it means is said here.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::client::{Client, Members, Proof, State as Health, ZkError};
use super::error::{explain, no_session};
use super::options::{Authentication, ZookeeperOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::sync::lock;
use crate::tls::Tls;

/// How many sessions of before are remembered as ours. Their nodes live for one timeout at most.
const REMEMBERED: usize = 32;
/// A session that was granted.
pub(super) struct Session {
    pub(super) client: Client,
    /// How long it lives without a word from us: what the server granted, whatever was asked for.
    pub(super) granted: Duration,
    pub(super) id: i64,
    health: watch::Receiver<Health>,
    /// Whether it is [swept](super::sweep) after each break.
    is_swept: AtomicBool,
}

impl Session {
    fn of(client: Client) -> Arc<Self> {
        Arc::new(Self {
            granted: client.granted(),
            id: client.id(),
            health: client.state(),
            client,
            is_swept: AtomicBool::new(false),
        })
    }

    /// The error of a request to the member that it is connected to.
    pub(super) fn explain(&self, error: ZkError, verb: &str, path: &str) -> Error {
        explain(error, verb, path).at(self.client.member())
    }

    /// What its member can't do any more, or not now.
    pub(super) fn unavailable(&self, why: &str) -> Error {
        Error::new(ErrorKind::Unavailable, why).at(self.client.member())
    }

    /// How it is, now and later.
    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Whether it was not swept so far; it is from now on.
    pub(super) fn begins_sweeping(&self) -> bool {
        !self.is_swept.swap(true, Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        matches!(*self.health.borrow(), Health::Over(_))
    }

    /// Waits until there is a connection.
    pub(super) async fn up(&self) -> Result<()> {
        let mut health = self.health.clone();
        let end = health.wait_for(|health| !matches!(health, Health::Down(_))).await;
        match end.as_deref() {
            Ok(Health::Up) => Ok(()),
            Ok(Health::Over(why)) => Err(self.unavailable(over(why)).caused_by(why.clone())),
            _ => Err(self.unavailable("the session has ended")),
        }
    }

    /// Resolves when nothing that hangs on the session can be vouched for any more, with the reason: it has ended, or
    /// nothing was heard for as long as it may live without us.
    pub(super) async fn lapsed(&self) -> String {
        let mut health = self.health.clone();
        loop {
            let now = health.borrow_and_update().clone();
            let deadline = match now {
                Health::Over(why) => return over(&why).to_owned(),
                Health::Down(since) => Some(since + self.granted),
                Health::Up => None,
            };
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let ms = self.granted.as_millis();
                return format!("no connection to ZooKeeper for {ms} ms, the timeout of the session");
            }
            tokio::select! {
                changed = health.changed() => if changed.is_err() && !matches!(*health.borrow(), Health::Over(_)) {
                    return "the session has ended".to_owned();
                },
                () = async { match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                } } => {}
            }
        }
    }
}

/// Why a session is over, in words.
fn over(why: &ZkError) -> &'static str {
    match why {
        ZkError::AuthFailed => "ZooKeeper refused our user or password",
        ZkError::Closed => "the session was closed",
        _ => "the session has expired",
    }
}

/// The session of a client, whichever it is at the time.
pub(super) struct Sessions {
    options: ZookeeperOptions,
    tls: Option<Tls>,
    place: String,
    log: Log,
    state: Mutex<State>,
    closed: CancellationToken,
}

#[derive(Default)]
struct State {
    slot: Slot,
    /// The newest last.
    ours: VecDeque<i64>,
}

type Opening = Shared<BoxFuture<'static, Result<Arc<Session>>>>;

#[derive(Default)]
enum Slot {
    #[default]
    Empty,
    /// One attempt, whoever waits for it.
    Opening(Opening),
    Open(Arc<Session>),
}

impl Sessions {
    /// Errors are `InvalidArgument` and name the option.
    pub(super) fn new(options: ZookeeperOptions, place: String, log: Log) -> Result<Arc<Self>> {
        let tls = options.tls.as_ref().map(|tls| Tls::new(tls, log.clone())).transpose()?;
        Ok(Arc::new(Self {
            options,
            tls,
            place,
            log,
            state: Mutex::default(),
            closed: CancellationToken::new(),
        }))
    }

    /// The session, opened by one attempt if there is none, once it has a connection.
    pub(super) async fn get(self: &Arc<Self>) -> Result<Arc<Session>> {
        loop {
            let session = self.open().await?;
            match session.up().await {
                Ok(()) => return Ok(session),
                Err(error) if self.closed.is_cancelled() => return Err(error),
                Err(_) => {} // it ended while it was waited for: another
            }
        }
    }

    /// The member that the session is connected to, or was last; where there is no session, the only one there is.
    pub(super) fn member(&self) -> Option<String> {
        match (&self.lock().slot, &*self.options.hosts) {
            (Slot::Open(session), _) => Some(session.client.member().to_owned()),
            (_, [host]) => Some(host.clone()),
            _ => None,
        }
    }

    /// Whether a session is or was ours.
    pub(super) fn is_ours(&self, id: i64) -> bool {
        self.lock().ours.contains(&id)
    }

    /// Ends the session.
    pub(super) async fn close(&self) {
        self.closed.cancel();
        let slot = std::mem::take(&mut self.lock().slot);
        if let Slot::Open(session) = slot {
            session.client.close().await;
        }
    }

    async fn open(self: &Arc<Self>) -> Result<Arc<Session>> {
        let opening = {
            let mut state = self.lock();
            match &state.slot {
                Slot::Open(session) if !session.is_over() => return Ok(Arc::clone(session)),
                Slot::Opening(opening) => opening.clone(),
                Slot::Empty | Slot::Open(_) => {
                    // A task of its own: who waits for it may be dropped, and the others wait on.
                    let task = tokio::spawn(Arc::clone(self).connect());
                    let opening = task
                        .map(|done| done.unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "connecting ended"))))
                        .boxed()
                        .shared();
                    state.slot = Slot::Opening(opening.clone());
                    opening
                }
            }
        };
        opening.await
    }

    async fn connect(self: Arc<Self>) -> Result<Arc<Session>> {
        let opened = tokio::select! {
            () = self.closed.cancelled() => Err(Error::new(ErrorKind::Closed, "the client was closed")),
            opened = self.connect_once() => opened,
        };
        let mut state = self.lock();
        if self.closed.is_cancelled() {
            state.slot = Slot::Empty;
            return Err(Error::new(ErrorKind::Closed, "the client was closed"));
        }
        state.slot = match &opened {
            Ok(session) => {
                if state.ours.len() == REMEMBERED {
                    state.ours.pop_front();
                }
                state.ours.push_back(session.id);
                Slot::Open(Arc::clone(session))
            }
            Err(_) => Slot::Empty,
        };
        opened
    }

    async fn connect_once(&self) -> Result<Arc<Session>> {
        let options = &self.options;
        let ttl = options.ttl;
        let members = Members {
            hosts: options.hosts.clone(),
            tls: self.tls.clone(),
            server_name: options.tls.as_ref().and_then(|tls| tls.server_name.clone()),
            proof: options.user.as_ref().map(|user| match user.by {
                Authentication::Digest => Proof::Digest(user.name.clone(), user.password.clone()),
                Authentication::Sasl => Proof::Sasl(user.name.clone(), user.password.clone()),
            }),
            timeout: ttl,
        };
        let client = Client::connect(members, &options.chroot, options.connect_timeout)
            .await
            .map_err(|error| no_session(error, &self.place, &options.hosts))?;
        let session = Session::of(client);
        self.log.info(format_args!(
            "session {:#x} of {}: timeout {} ms, {} ms was asked for",
            session.id,
            self.place,
            session.granted.as_millis(),
            ttl.as_millis()
        ));
        Ok(session)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}
