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
//! for [a sixth of the shortest time to live](Book::patience) it is opened anew at once, on another member where there is
//! one; after failures in a row there are pauses. It goes on for ever: only deadlines end leases.
//!
//! A renewal costs O(log n) for n leases: two places in sorted sets (`book.rs`).

#[cfg(test)]
mod tests;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::book::{Book, Kept, Phase};
use super::dial::{Dial, IN_FLIGHT, Open};
use super::door::Door;
use super::slot::KeeperCommand;
use crate::error::ErrorKind;
use crate::etcd::error::{Cause, Fault};
use crate::etcd::messages::LeaseKeepAliveResponse;

/// The pause after the first failure in a row, before jitter; doubled with every one after it.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// After how many answers the other tasks of the thread get a turn.
const ANSWERS_IN_A_ROW: u32 = 64;

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
pub(super) struct Keeper<D: Dial> {
    dial: D,
    commands: mpsc::UnboundedReceiver<KeeperCommand>,
    door: Arc<Mutex<Door>>,
    book: Book,
    stream: Stream<D::Route>,
    /// Counts the streams.
    streams: u64,
    failures: u32,
}

impl<D: Dial> Keeper<D> {
    pub(super) fn new(dial: D, commands: mpsc::UnboundedReceiver<KeeperCommand>, door: Arc<Mutex<Door>>) -> Self {
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

    pub(super) async fn run(mut self, closed: CancellationToken) {
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

    fn accept(&mut self, command: KeeperCommand) {
        match command {
            KeeperCommand::Keep(keep) => self.book.keep(keep, Instant::now()),
            KeeperCommand::Forget(slot) => self.book.forget(&slot),
            KeeperCommand::Renew(id, awaited) => match self.book.leases.get_mut(&id) {
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
            let renews_itself = self.book.leases.get(&first).is_some_and(Kept::renews_itself);
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
