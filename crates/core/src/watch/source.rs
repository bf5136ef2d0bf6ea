//! What those that read have of their client: the backend, the pace, and how a read is tried.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::breaks::Breaks;
use super::subject::OnBad;
use crate::backend::{Backend, no_answer};
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::metrics::{CallMeter, Meter};
use crate::status::Reach;
use crate::tally;

/// What a reflector, and whoever reads once, needs from its client.
pub(crate) struct Source {
    pub backend: Arc<dyn Backend>,
    /// Reads in flight, of the whole client.
    pub reads: Arc<Semaphore>,
    /// One read.
    pub timeout: Duration,
    /// How long a list that lost more than half of it in a break is held back; zero switches that off.
    pub empty_grace: Duration,
    pub on_bad: OnBad,
    pub closed: CancellationToken,
    /// Where reflectors run, so that the client can wait for their end.
    pub tasks: TaskTracker,
    pub log: Log,
    pub breaks: Breaks,
    pub meter: Arc<Meter>,
    pub reach: Arc<Reach>,
}

impl Source {
    /// One read, about `key` if it is about one: counted, paced, and persistent.
    pub(crate) async fn bounded<T, F>(
        &self,
        limit: Duration,
        calls: &CallMeter,
        key: Option<&str>,
        read: impl Fn() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        calls.begun.add();
        let paced = || async {
            let _permit = self.reads.acquire().await; // never closed
            let result = read().await;
            self.reach.note(&result);
            result
        };
        let result = self.persist(limit, paced).await.unwrap_or_else(|last| {
            // What hindered the last try says more than that time is over.
            let late = Err(last.unwrap_or_else(|| no_answer(&*self.backend, limit, key)));
            // Who was in a hurry has not shown that nobody answers.
            if limit >= self.timeout {
                self.reach.note(&late);
            }
            late
        });
        if result.is_err() {
            calls.failed.add();
        }
        result
    }

    /// Tries again with back-off while it may yet succeed, ended by the end of the client. `Err` is that `limit` has run out,
    /// with what hindered the last try, if one came to its end.
    pub(crate) async fn persist<T, F>(
        &self,
        limit: Duration,
        attempt: impl Fn() -> F,
    ) -> Result<Result<T>, Option<Error>>
    where
        F: Future<Output = Result<T>>,
    {
        let mut last = None;
        let tries = async {
            let mut backoff = Backoff::new();
            loop {
                tally::count(1);
                match attempt().await {
                    Err(error) if error.is_retryable() => last = Some(error),
                    result => return result,
                }
                sleep(backoff.next_pause()).await;
            }
        };
        let result = tokio::select! {
            () = self.closed.cancelled() => return Ok(Err(closed())),
            result = timeout(limit, tries) => result,
        };
        result.map_err(|_| last)
    }
}

/// The error of every call of a client that is closed.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the registry client is closed")
}
