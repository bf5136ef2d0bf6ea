//! How far a stream is: a watch that sees no change has to know which revisions passed it by, or it resumes from one that
//! was compacted long ago.
//!
//! The answer to a request for progress names no watch, but the whole stream. It is true of each if etcd sends it behind
//! the events and only while no watch is behind: from 3.4.26 and 3.5.8 on (etcd's #15220). Older servers put it before
//! events that wait, and answer also while a watch is behind. Which of the two it is cannot be asked by a user without
//! rights over the cluster (3.7 keeps the version to administrators), so it is tried, on a stream of its own.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::codec::{encode, read};
use crate::etcd::calls::caller::{Caller, Route};
use crate::etcd::calls::methods::WATCH;
use crate::etcd::messages::{NO_DELETE, NO_PUT, WatchCreateRequest, WatchProgressRequest};
use crate::etcd::watch::request::WatchRequest;

/// The id of what is about all watches of a stream.
pub(super) const WHOLE_STREAM: i64 = -1;
/// How often a stream's member is tried: one that can be trusted fails a trial when it catches up in the middle of it, which
/// it does for some microseconds of each 100 ms.
const TRIALS: u32 = 3;

/// Whether the answers of the member can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Unknown,
    Asking,
    Yes,
    No,
}

/// When to ask, and what an answer is worth.
pub(super) struct Progress {
    every: Duration,
    next: Instant,
    trust: Trust,
    failed: u32,
    /// The trial under way.
    pub(super) question: Option<BoxFuture<'static, Option<bool>>>,
}

impl Progress {
    pub(super) fn new(every: Duration) -> Self {
        Self {
            every,
            next: Instant::now() + every,
            trust: Trust::Unknown,
            failed: 0,
            question: None,
        }
    }

    /// When to ask next.
    pub(super) fn due(&self) -> Instant {
        self.next
    }

    /// It is time. Returns whether a trial is to be made first.
    pub(super) fn begin(&mut self) -> bool {
        self.next = Instant::now() + self.every;
        let tries = self.trust == Trust::Unknown;
        if tries {
            self.trust = Trust::Asking;
        }
        tries
    }

    /// The trial is over; `None`: it says nothing, and another is made in its time.
    pub(super) fn answered(&mut self, passed: Option<bool>) {
        self.question = None;
        self.failed += u32::from(passed == Some(false));
        self.trust = match passed {
            Some(true) => Trust::Yes,
            Some(false) if self.failed == TRIALS => Trust::No,
            Some(false) | None => Trust::Unknown,
        };
        if passed == Some(true) {
            self.next = Instant::now();
        }
    }

    pub(super) fn is_sure(&self) -> bool {
        self.trust == Trust::Yes
    }
}

/// Whether the member holds an answer about progress back until it is true: asks it right behind a watch that begins in the
/// past, so is behind for up to 100 ms. Those that do not hold it back send it before the answer to the next creation, by
/// one queue. `None` when it could not be tried.
pub(super) fn is_held_back(
    calls: Caller,
    route: Route,
    request: &WatchRequest,
) -> impl Future<Output = Option<bool>> + Send + 'static + use<> {
    let (key, range_end) = (request.key.clone(), request.range_end.clone());
    let creation = move |watch_id, start_revision| {
        encode(WatchCreateRequest {
            key: key.clone(),
            range_end: range_end.clone(),
            start_revision,
            filters: vec![NO_PUT, NO_DELETE],
            watch_id,
            ..WatchCreateRequest::default()
        })
    };
    async move {
        let opened = calls.open_stream_over(&route, WATCH, creation(1, 0), true).await;
        let (requests, mut answers) = opened.ok()?;
        let url = calls.url_of(&route);
        let first = read(answers.message().await, url).ok()?;
        let now = first.header.map_or(0, |header| header.revision);
        if first.canceled || now <= 0 {
            return None; // denied or the like, which says nothing
        }
        requests.send(creation(2, now)).await.ok()?;
        requests.send(encode(WatchProgressRequest {})).await.ok()?;
        // The id is taken: refused at once, by every version.
        requests.send(creation(2, now)).await.ok()?;
        let mut created = 0;
        loop {
            let response = read(answers.message().await, url).ok()?;
            if response.created {
                created += 1;
            } else if response.watch_id == WHOLE_STREAM {
                return Some(false);
            }
            if created == 2 {
                return Some(true);
            }
        }
    }
}
