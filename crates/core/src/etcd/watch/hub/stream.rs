//! The stream of the hub: what is to be sent on it, what is unanswered, and whether it is alive.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::ahead::Ahead;
use super::codec::encode;
use super::entry::Watch;
use super::progress::Progress;
use crate::etcd::calls::caller::Route;
use crate::etcd::calls::stream::Messages;
use crate::etcd::error::Fault;
use crate::etcd::messages::{WatchCancelRequest, WatchProgressRequest};

/// What is to be sent. Watches are named by their id on the stream; see [`Open::wires`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted {
    Create(i64),
    Cancel(i64),
    /// Says something, as a rule: how far the stream is.
    Progress,
    /// A second creation under an id that is taken: it is refused, at once and by every version.
    Probe(i64),
}

/// A creation that is not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unanswered {
    Watch(i64),
    Probe,
}

pub(super) struct Open {
    pub(super) requests: mpsc::Sender<Bytes>,
    pub(super) answers: Messages,
    pub(super) route: Route,
    /// Requests that wait for room: the stream takes 128 at a time, and its answers must be read meanwhile.
    pub(super) wanted: VecDeque<Wanted>,
    /// Creations sent and not answered, in order. Some servers answer a denied one with id -1.
    pub(super) unanswered: VecDeque<Unanswered>,
    /// The watches by their id on this stream.
    pub(super) wires: HashMap<i64, i64>,
    pub(super) ahead: Ahead,
    pub(super) leader: Option<BoxFuture<'static, Result<i64, Fault>>>,
    pub(super) silence: Silence,
    /// Its token is older than what a watch on it may do.
    pub(super) is_outdated: bool,
    pub(super) progress: Progress,
}

impl Open {
    /// etcd has answered a creation under this id: which one.
    pub(super) fn answered(&mut self, wire: i64) -> Option<Unanswered> {
        match self
            .unanswered
            .iter()
            .position(|asked| *asked == Unanswered::Watch(wire))
        {
            Some(at) => self.unanswered.remove(at),
            // etcd 3.5 and later answer a denied creation with id -1. They answer in order.
            None => self.unanswered.pop_front(),
        }
    }

    /// The creation whose answer comes next.
    pub(super) fn next_unanswered(&self) -> Option<i64> {
        match self.unanswered.front() {
            Some(Unanswered::Watch(wire)) => Some(*wire),
            _ => None,
        }
    }

    /// Cancels a watch on the server. What still comes of it is for nobody.
    pub(super) fn cancel(&mut self, wire: i64) {
        if self.wires.remove(&wire).is_some() {
            self.wanted.push_back(Wanted::Cancel(wire));
        }
    }

    /// It was silent for a part of the time that it may be: makes it say something.
    pub(super) fn nudge(&mut self) {
        let first = self
            .wires
            .keys()
            .find(|wire| !self.unanswered.contains(&Unanswered::Watch(**wire)));
        match (self.silence.nudged(), first) {
            // Newer servers don't answer it while a watch is behind, or waits for a revision that is yet to come.
            (1, _) => self.wanted.push_back(Wanted::Progress),
            (_, Some(wire)) => self.wanted.push_back(Wanted::Probe(*wire)),
            (_, None) => {}
        }
    }
}

/// How long nothing has come.
pub(super) struct Silence {
    since: Instant,
    nudges: u32,
    period: Duration,
}

impl Silence {
    /// `period`: after how long etcd is asked to say something. Twice that, and the stream is lost.
    pub(super) fn new(period: Duration) -> Self {
        Self {
            since: Instant::now(),
            nudges: 0,
            period,
        }
    }

    pub(super) fn ends(&mut self) {
        self.since = Instant::now();
        self.nudges = 0;
    }

    /// When something is to be done about it next.
    pub(super) fn due(&self) -> Instant {
        self.since + self.period + self.period / 2 * self.nudges
    }

    pub(super) fn nudged(&mut self) -> u32 {
        self.nudges += 1;
        self.nudges
    }

    /// Whether it was nudged twice in vain.
    pub(super) fn is_over(&self) -> bool {
        self.nudges >= 2
    }

    pub(super) fn lasted(&self) -> Duration {
        self.since.elapsed()
    }
}

/// The answer to a question, if one was asked.
pub(super) async fn asked<T>(question: &mut Option<BoxFuture<'static, T>>) -> T {
    match question {
        Some(question) => question.await,
        None => std::future::pending().await,
    }
}

/// The stream takes no more requests. Its answers say why.
pub(super) struct Gone;

/// Puts a request on the stream; says what is unanswered since. Cancel-safe: a request that was not taken has not been
/// sent. It is made when there is room for it.
pub(super) async fn send(
    requests: &mpsc::Sender<Bytes>,
    wanted: Option<&Wanted>,
    wires: &HashMap<i64, i64>,
    watches: &HashMap<i64, Box<Watch>>,
) -> Result<Option<Unanswered>, Gone> {
    let room = requests.reserve().await.map_err(|_| Gone)?;
    let creation = |wire: i64| Some(watches.get(wires.get(&wire)?)?.creation(wire)); // `None`: dropped before
    let (request, unanswered) = match wanted {
        Some(Wanted::Create(wire)) => (creation(*wire).map(encode), Some(Unanswered::Watch(*wire))),
        Some(Wanted::Probe(wire)) => (creation(*wire).map(encode), Some(Unanswered::Probe)),
        Some(Wanted::Cancel(wire)) => (Some(encode(WatchCancelRequest { watch_id: *wire })), None),
        Some(Wanted::Progress) => (Some(encode(WatchProgressRequest {})), None),
        None => (None, None),
    };
    let Some(request) = request else { return Ok(None) };
    room.send(request);
    Ok(unanswered)
}
