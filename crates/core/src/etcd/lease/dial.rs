//! How the stream of renewals is opened.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::error::ErrorKind;
use crate::etcd::calls::caller::{Caller, Route};
use crate::etcd::calls::methods::LEASE_KEEP_ALIVE;
use crate::etcd::calls::tries::Tries;
use crate::etcd::error::{Cause, Fault, judge_status};
use crate::etcd::messages::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};

/// Requests that are not answered yet, per client. The members answer one after the other; a thousand leases that come
/// due together after an outage take turns.
pub(super) const IN_FLIGHT: usize = 256;

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
impl Dial for Caller {
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
