//! The one stream on which a client keeps all its leases alive, as the lessor of Go's client has it.
//!
//! A task sleeps until the next lease is due, asks for all that are, and takes each answer for the lease that it names.
//! It runs while there is a lease. A lease is in one of three [`Phase`]s:
//!
//! ```text
//!             a third of its time to live is over,
//!             or somebody wants it renewed now            there is a stream, and its turn has come
//!   Resting ───────────────────────────────────▶ Due ───────────────────────────────────▶ Asked
//!      ▲                                          ▲  the stream ended or fell silent,       │
//!      │                                          └──────────────────────────────────────── │
//!      │                                             or a third of its time went by         │
//!      └────────────────────────────────────────────────────────────────────────────────────┘
//!                                     an answer with a time to live
//! ```
//!
//! and leaves them all by being lost: at its local deadline, whatever is under way then, or by an answer without a time to
//! live. The deadline is looked at before any answer is, so that a process that was stopped past it does not take an
//! answer that came meanwhile for a renewal.
//!
//! The stream is opened with the first request, since etcd answers nothing before. When it ends, breaks or says nothing
//! for [a sixth of the shortest time to live](book::Book::patience) it is opened anew at once, on another member where there is
//! one; after failures in a row there are pauses. It goes on for ever: only deadlines end leases.
//!
//! A renewal costs O(log n) for n leases: two places in sorted sets (`keepalive/book.rs`).

mod book;
#[cfg(test)]
mod tests;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use prost::Message as _;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub(super) use self::book::time_to_live;
use self::book::{Book, Entry, Phase};
use super::client::{EtcdClient, Route};
use super::error::{Cause, Fault, judge_status};
use super::lease::Slot;
use super::tries::Tries;
use super::wire::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use crate::error::ErrorKind;
use crate::sync::lock;

/// Requests that are not answered yet, per client. The members answer one after the other; a thousand leases that come
/// due together after an outage take turns.
const IN_FLIGHT: usize = 256;
/// The pause after the first failure in a row, before jitter; doubled with every one after it.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// After how many answers the other tasks of the thread get a turn.
const ANSWERS_IN_A_ROW: u32 = 64;
const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

/// What comes of a renewal that somebody waits for: the answer, or why the lease is lost.
pub(super) type Renewed = Result<LeaseKeepAliveResponse, String>;

/// What the task is told.
pub(super) enum Command {
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

/// Grants and revocations under way, per client: each takes some 26 KB while it is.
const CALLS: usize = 512;

/// The leases of a client. The task runs while there are any.
pub(crate) struct KeepAlives {
    door: Arc<Mutex<Door>>,
    /// Whoever makes a call about a lease holds one meanwhile.
    pub(super) calls: Semaphore,
}

impl Default for KeepAlives {
    fn default() -> Self {
        Self {
            door: Arc::default(),
            calls: Semaphore::new(CALLS),
        }
    }
}

#[derive(Default)]
struct Door {
    commands: Option<mpsc::UnboundedSender<Command>>,
}

impl Door {
    /// Called by the task when it ends and has not retired: who comes from then on starts another.
    fn leave(door: &Mutex<Self>) {
        lock(door).commands = None;
    }

    /// Called by the task when no lease is left: takes itself out, unless a command has just come.
    fn retire(door: &Mutex<Self>, commands: &mpsc::UnboundedReceiver<Command>) -> bool {
        let mut door = lock(door);
        let idle = commands.is_empty();
        if idle {
            door.commands = None;
        }
        idle
    }
}

impl EtcdClient {
    /// Gives a lease to the task, which is started when it does not run. In a tokio runtime.
    pub(super) fn keep(&self, keep: Keep) -> mpsc::UnboundedSender<Command> {
        let mut door = lock(&self.keep_alives().door);
        let running = door.commands.clone();
        let commands = running.unwrap_or_else(|| {
            // Unbounded, but a lease sends two commands in its life, and one for each renewal that somebody awaits.
            let (commands, receiver) = mpsc::unbounded_channel();
            let task = Keeper::new(self.clone(), receiver, Arc::clone(&self.keep_alives().door));
            tokio::spawn(task.run(self.closed().clone()));
            door.commands = Some(commands.clone());
            commands
        });
        let _ = commands.send(Command::Keep(keep));
        commands
    }
}

/// How streams are opened, and who is told how they fare. The client; a script in tests.
#[async_trait]
pub(super) trait Dial: Clone + Send + Sync + 'static {
    type Route: Clone + Send + Sync + 'static;

    /// Opens a stream with the request for the lease `first`, on any member that answers; one that says nothing for
    /// `patience` is left for the next one.
    async fn open(&self, first: i64, patience: Duration) -> Result<Open<Self::Route>, Fault>;
    /// Something came over `route`.
    fn heard(&self, route: &Self::Route);
    /// Its stream ended or broke.
    fn broke(&self, route: &Self::Route);
    /// Its stream has said nothing since `since`, though it was asked.
    fn silent(&self, route: &Self::Route, since: Instant);
}

/// An open stream.
pub(super) struct Open<R> {
    /// Takes ids of leases.
    pub(super) requests: mpsc::Sender<i64>,
    pub(super) answers: BoxStream<'static, Result<LeaseKeepAliveResponse, Fault>>,
    pub(super) route: R,
    /// Whose request it was opened with, and when that was sent.
    pub(super) first: (i64, Instant),
}

#[async_trait]
impl Dial for EtcdClient {
    type Route = Route;

    async fn open(&self, first: i64, patience: Duration) -> Result<Open<Route>, Fault> {
        let limit = self.options().max_message_bytes;
        let tries = Tries {
            most: Some(patience),
            ..Tries::until(Instant::now() + patience * 3)
        };
        let ((requests, answers, sent), route) = self
            .attempt("keep leases alive", tries, |connection| {
                let (requests, queue) = mpsc::channel(IN_FLIGHT);
                // Of this try: those before it may have waited for a frozen member.
                let sent = Instant::now();
                let _ = requests.try_send(first); // there is room
                let queue = futures::stream::unfold(queue, |mut queue: mpsc::Receiver<i64>| async move {
                    let id = queue.recv().await?;
                    let request = LeaseKeepAliveRequest { id };
                    Some((request.encode_to_vec().into(), queue))
                });
                async move {
                    let answers = connection.transport.stream(LEASE_KEEP_ALIVE, queue, true, limit).await;
                    let answers = answers.map_err(|status| judge_status(status, &connection.url))?;
                    Ok((requests, answers, sent))
                }
            })
            .await?;
        let url = self.url_of(&route).to_owned();
        let answers = answers.map(move |answer| {
            let body = answer.map_err(|status| judge_status(status, &url))?;
            LeaseKeepAliveResponse::decode(body).map_err(|error| {
                let text = format!("the answer of {url} to a renewal cannot be read: {error}");
                Fault::new(Cause::Broken, ErrorKind::Internal, text)
            })
        });
        Ok(Open {
            requests,
            answers: answers.boxed(),
            route,
            first: (first, sent),
        })
    }

    fn heard(&self, route: &Route) {
        route.connection.has_answered();
    }

    fn broke(&self, route: &Route) {
        Self::broke(self, route);
    }

    fn silent(&self, route: &Route, since: Instant) {
        self.fell_silent(route, since);
    }
}

/// What there is of a stream.
enum Stream<R> {
    /// None. One is opened as soon as a lease is due; `renew` says that one is to be renewed early for it, so that a
    /// stream that ended is replaced at once.
    Closed { renew: bool },
    /// None, after a failure, until then.
    Pausing(Instant),
    /// Being opened.
    Opening(BoxFuture<'static, Result<Open<R>, Fault>>),
    /// There, and when something was last heard.
    Open(Open<R>, Instant),
}

/// What comes from the network.
enum Said<R> {
    Opened(Result<Open<R>, Fault>),
    Answer(LeaseKeepAliveResponse),
    Ended(Option<Fault>),
}

/// The task.
struct Keeper<D: Dial> {
    dial: D,
    commands: mpsc::UnboundedReceiver<Command>,
    door: Arc<Mutex<Door>>,
    book: Book,
    stream: Stream<D::Route>,
    /// Counts the streams.
    streams: u64,
    failures: u32,
}

impl<D: Dial> Keeper<D> {
    fn new(dial: D, commands: mpsc::UnboundedReceiver<Command>, door: Arc<Mutex<Door>>) -> Self {
        Self {
            dial,
            commands,
            door,
            book: Book::default(),
            stream: Stream::Closed { renew: false },
            streams: 0,
            failures: 0,
        }
    }

    async fn run(mut self, closed: CancellationToken) {
        let served = AssertUnwindSafe(closed.run_until_cancelled(Box::pin(self.serve())));
        let why = match served.catch_unwind().await {
            Ok(Some(())) => return, // it has retired
            Ok(None) => "the client was closed",
            // Nobody would ever hear of it: a lease whose task is gone just grows old.
            Err(_) => "the task that renews the leases of this client ended by a fault of its own",
        };
        Door::leave(&self.door);
        self.commands.close();
        self.book.lose_all(why);
        while let Ok(command) = self.commands.try_recv() {
            self.accept(command);
        }
        self.book.lose_all(why);
    }

    /// Until there is no lease left.
    async fn serve(&mut self) {
        let mut answers = 0;
        loop {
            self.turn(Instant::now());
            if self.book.leases.is_empty() {
                match self.commands.try_recv() {
                    Ok(command) => self.accept(command),
                    Err(_) if Door::retire(&self.door, &self.commands) => return,
                    Err(_) => {}
                }
                continue;
            }
            if answers == ANSWERS_IN_A_ROW {
                answers = 0;
                tokio::task::yield_now().await;
            }
            let wake = self.next_wake();
            tokio::select! {
                said = next(&mut self.stream) => {
                    answers += 1;
                    self.hear(said);
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.accept(command),
                    None => return,
                },
                () = sleep_until(wake) => answers = 0,
            }
        }
    }

    fn accept(&mut self, command: Command) {
        match command {
            Command::Keep(keep) => self.book.keep(keep, Instant::now()),
            Command::Forget(slot) => self.book.forget(&slot),
            Command::Renew(id, awaited) => match self.book.leases.get_mut(&id) {
                Some(entry) => {
                    entry.waiting.retain(|awaited| !awaited.is_closed());
                    entry.waiting.push(awaited);
                    if entry.phase == Phase::Resting {
                        self.book.make_due(id);
                    }
                }
                None => drop(awaited.send(Err("it is not kept any more".to_owned()))),
            },
        }
    }

    /// Does what the clock says.
    fn turn(&mut self, now: Instant) {
        self.book.look(now);
        if let Some(since) = self.silent_since()
            && since + self.book.patience() <= now
        {
            let why = format!("etcd did not answer a renewal within {} ms", (now - since).as_millis());
            self.end(&Fault::new(Cause::Broken, ErrorKind::Timeout, why), Some(since));
        }
        if let Stream::Pausing(until) = self.stream
            && until <= now
        {
            self.stream = Stream::Closed { renew: false };
        }
        if let Stream::Closed { renew } = self.stream {
            self.open(renew);
        }
        if let Stream::Open(open, _) = &self.stream {
            while self.book.in_flight.len() < IN_FLIGHT
                && let Some((_, id)) = self.book.due.first().copied()
            {
                // There is room, since what waits to be sent is in flight. A stream that is going says why by its answers.
                if open.requests.try_send(id).is_err() {
                    break;
                }
                self.book.asked(id, now, self.streams);
            }
        }
    }

    /// Opens a stream with the lease that is lost first.
    fn open(&mut self, renew: bool) {
        let due = self.book.due.first().copied();
        let early = || self.book.timers.first().copied().filter(|_| renew);
        let Some((_, first)) = due.or_else(early) else {
            return;
        };
        if due.is_none() {
            let renews_itself = self.book.leases.get(&first).is_some_and(Entry::renews_itself);
            if !renews_itself {
                self.stream = Stream::Closed { renew: false };
                return;
            }
            self.book.make_due(first);
        }
        let (dial, patience) = (self.dial.clone(), self.book.patience());
        self.stream = Stream::Opening(Box::pin(async move { dial.open(first, patience).await }));
    }

    /// Since when a stream has left a request unanswered.
    fn silent_since(&self) -> Option<Instant> {
        let Stream::Open(_, heard) = &self.stream else {
            return None;
        };
        self.book.in_flight.front().map(|asked| asked.sent.max(*heard))
    }

    fn next_wake(&self) -> Instant {
        let timer = self.book.timers.first().map(|(wake, _)| *wake);
        let silence = self.silent_since().map(|since| since + self.book.patience());
        let pause = match self.stream {
            Stream::Pausing(until) => Some(until),
            _ => None,
        };
        let first = [timer, silence, pause].into_iter().flatten().min();
        first.unwrap_or_else(Instant::now)
    }

    fn hear(&mut self, said: Said<D::Route>) {
        match said {
            Said::Opened(Ok(open)) => {
                self.streams += 1;
                let (first, sent) = open.first;
                self.stream = Stream::Open(open, Instant::now());
                self.book.asked(first, sent, self.streams);
            }
            Said::Opened(Err(fault)) => {
                self.book.not_asked(fault.error.message());
                self.pause();
            }
            Said::Answer(answer) => {
                let now = Instant::now();
                if self.book.answered(answer, now)
                    && let Stream::Open(open, heard) = &mut self.stream
                {
                    *heard = now;
                    self.failures = 0;
                    self.dial.heard(&open.route);
                }
            }
            Said::Ended(fault) => {
                let fault = fault.unwrap_or_else(|| {
                    Fault::new(
                        Cause::Broken,
                        ErrorKind::Unavailable,
                        "etcd ended the stream of renewals",
                    )
                });
                self.end(&fault, None);
            }
        }
    }

    /// The stream is over. `silent`: since when it has said nothing.
    fn end(&mut self, fault: &Fault, silent: Option<Instant>) {
        let Stream::Open(open, _) = std::mem::replace(&mut self.stream, Stream::Closed { renew: true }) else {
            return;
        };
        let route = open.route.clone();
        drop(open);
        self.book.unanswered(fault.error.message());
        match silent {
            Some(since) => self.dial.silent(&route, since),
            // The member is well; the next stream gets another token when it is opened.
            None if fault.cause == Cause::StaleToken => {}
            None => self.dial.broke(&route),
        }
        // At once when it had answered; else it is the same again and again.
        if self.failures > 0 {
            self.pause();
        } else {
            self.failures = 1;
        }
    }

    fn pause(&mut self) {
        let most = PAUSE_FIRST
            .saturating_mul(1 << self.failures.min(10))
            .min(self.book.patience());
        self.failures = self.failures.saturating_add(1);
        self.stream = Stream::Pausing(Instant::now() + most.mul_f64(0.5 + fastrand::f64() / 2.0));
    }
}

/// What comes next from the network. Cancel-safe.
async fn next<R>(stream: &mut Stream<R>) -> Said<R> {
    match stream {
        Stream::Opening(opening) => Said::Opened(opening.await),
        Stream::Open(open, _) => match open.answers.next().await {
            Some(Ok(answer)) => Said::Answer(answer),
            Some(Err(fault)) => Said::Ended(Some(fault)),
            None => Said::Ended(None),
        },
        Stream::Closed { .. } | Stream::Pausing(_) => std::future::pending().await,
    }
}
