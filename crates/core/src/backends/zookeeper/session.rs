//! The one session of a client: opened when first needed, shared by all registrations and watches, opened anew when it
//! has ended. Its renewal (pings) and its reconnecting are the crate's; what they mean is said here.
//!
//! The crate keeps requests that are made while it has no connection, and sends them when it has one again, in their
//! order. So nothing is asked of a session that is not up, and what a dropped attempt has sent comes before what is sent
//! later.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use zookeeper_client::{Client, SessionState, StateWatcher};

use super::error::no_session;
use super::options::{Authentication, ZookeeperOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;

/// How many sessions of before are remembered as ours. Their nodes live for one timeout at most.
const REMEMBERED: usize = 32;
/// How often a single host is given to the crate. Its pauses between two tries double after each round of the list, and
/// are shorter within one: a list of one host would be asked at 6 s and then at 13 s of an outage.
const TRIES_OF_ONE_HOST: usize = 8;

/// A session that was granted.
pub(super) struct Session {
    pub(super) client: Client,
    /// How long it lives without a word from us: what the server granted, whatever was asked for.
    pub(super) granted: Duration,
    pub(super) id: i64,
    health: watch::Receiver<Health>,
}

/// How a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Up,
    /// No connection since then.
    Down(Instant),
    /// It will never come back.
    Over(&'static str),
}

impl Session {
    fn start(client: Client) -> Arc<Self> {
        let (sender, health) = watch::channel(Health::Up);
        tokio::spawn(attend(client.state_watcher(), sender));
        Arc::new(Self {
            granted: client.session_timeout(),
            id: client.session_id().0,
            client,
            health,
        })
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
            Ok(Health::Over(why)) => Err(Error::new(ErrorKind::Unavailable, *why)),
            _ => Err(Error::new(ErrorKind::Unavailable, "the session has ended")),
        }
    }

    /// Resolves when the connection is lost, with what happened.
    pub(super) async fn down(&self) -> Error {
        let mut health = self.health.clone();
        let _ = health.wait_for(|health| *health != Health::Up).await;
        Error::new(ErrorKind::Unavailable, "the connection to ZooKeeper was lost")
    }

    /// Resolves when nothing that hangs on the session can be vouched for any more, with the reason: it has ended, or
    /// nothing was heard for as long as it may live without us.
    pub(super) async fn lapsed(&self) -> String {
        let mut health = self.health.clone();
        loop {
            let now = *health.borrow_and_update();
            let deadline = match now {
                Health::Over(why) => return why.to_owned(),
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

    /// Ends it, and with it everything that hangs on it; resolves when the server has been told.
    async fn end(self: Arc<Self>) {
        let mut health = self.health.clone();
        drop(self); // the last handle of the crate's client says goodbye
        let _ = health.wait_for(|health| matches!(health, Health::Over(_))).await;
    }
}

/// Follows the states of a session to its end.
async fn attend(mut states: StateWatcher, health: watch::Sender<Health>) {
    let mut state = states.state();
    loop {
        let now = match state {
            SessionState::SyncConnected | SessionState::ConnectedReadOnly => Health::Up,
            SessionState::Disconnected => match *health.borrow() {
                down @ Health::Down(_) => down,
                _ => Health::Down(Instant::now()),
            },
            SessionState::AuthFailed => Health::Over("ZooKeeper refused our user or password"),
            SessionState::Expired => Health::Over("the session has expired"),
            SessionState::Closed => Health::Over("the session was closed"),
        };
        health.send_if_modified(|before| std::mem::replace(before, now) != now);
        if matches!(now, Health::Over(_)) {
            return;
        }
        state = states.changed().await;
    }
}

/// The session of a client, whichever it is at the time.
pub(super) struct Sessions {
    options: ZookeeperOptions,
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
    pub(super) fn new(options: ZookeeperOptions, place: String, log: Log) -> Arc<Self> {
        Arc::new(Self {
            options,
            place,
            log,
            state: Mutex::default(),
            closed: CancellationToken::new(),
        })
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

    /// Whether a session is or was ours.
    pub(super) fn is_ours(&self, id: i64) -> bool {
        self.lock().ours.contains(&id)
    }

    /// Ends the session.
    pub(super) async fn close(&self) {
        self.closed.cancel();
        let slot = std::mem::take(&mut self.lock().slot);
        if let Slot::Open(session) = slot {
            session.end().await;
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
        let ZookeeperOptions {
            hosts,
            chroot,
            ttl,
            user,
            ..
        } = &self.options;
        // One round of the hosts: when to try again is not the crate's to say.
        let mut connector = Client::connector().with_session_timeout(*ttl).with_fail_eagerly();
        if let Some(user) = user {
            connector = match user.by {
                Authentication::Digest => {
                    connector.with_auth("digest", format!("{}:{}", user.name, user.password).as_bytes())
                }
                Authentication::Sasl => connector.with_sasl(zookeeper_client::SaslOptions::digest_md5(
                    user.name.clone(),
                    user.password.clone(),
                )),
            };
        }
        let scheme = if self.options.tls.is_some() { "tcp+tls" } else { "tcp" };
        #[cfg(feature = "zookeeper-tls")]
        if let Some(tls) = &self.options.tls {
            connector = connector.with_tls(super::tls::options(tls)?);
        }
        let times = if hosts.len() == 1 { TRIES_OF_ONE_HOST } else { 1 };
        let servers: Vec<String> = hosts.iter().map(|host| format!("{scheme}://{host}")).collect();
        let cluster = format!("{}{chroot}", vec![servers.join(","); times].join(","));
        let client = connector
            .connect(&cluster)
            .await
            .map_err(|error| no_session(error, &self.place))?;
        let session = Session::start(client);
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
