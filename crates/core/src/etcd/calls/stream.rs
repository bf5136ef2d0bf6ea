//! Streams in bytes, opened on whichever member takes them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::caller::{Caller, Route};
use super::tries::Tries;
use crate::etcd::error::{Fault, judge_status};
use crate::etcd::transport::bytes::ByteStream;
use crate::etcd::transport::endpoints::Connection;

/// Requests of a stream that wait to be sent.
const STREAM_QUEUE: usize = 128;

impl Caller {
    /// A stream of `path` in bytes: `first` opens it, `more` follows; `None` is a method that takes one request. It is
    /// opened on whichever member takes it within `time`; when it breaks it ends, and whoever wants another opens one.
    pub async fn byte_stream(
        &self,
        path: &'static str,
        first: Bytes,
        more: Option<mpsc::Receiver<Bytes>>,
        needs_leader: bool,
        time: Duration,
    ) -> Result<Messages, Fault> {
        let deadline = Instant::now() + time;
        let Some(more) = more else {
            return self.answers(path, first, needs_leader, deadline).await;
        };
        let (requests, mut messages, _) = self.open_stream(path, path, first, needs_leader, deadline).await?;
        messages.forward = Some(tokio::spawn(forward(more, requests)).abort_handle());
        Ok(messages)
    }

    /// A method with one request and many answers. The server waits for the end of the requests before it answers.
    async fn answers(
        &self,
        path: &'static str,
        request: Bytes,
        needs_leader: bool,
        deadline: Instant,
    ) -> Result<Messages, Fault> {
        let limit = self.options().max_message_bytes;
        let (answers, route) = self
            .attempt(path, Tries::until(deadline), |connection| {
                let request = futures::stream::once(futures::future::ready(request.clone()));
                async move {
                    let answers = connection.transport.stream(path, request, needs_leader, limit).await;
                    answers.map_err(|status| judge_status(status, &connection.url))
                }
            })
            .await?;
        Ok(Messages {
            answers,
            url: self.url_of(&route).into(),
            forward: None,
        })
    }

    /// Opens a stream with `first` as its first request: etcd's streams answer nothing before, not even that they are
    /// open. Tried on all members. What goes wrong afterwards is the stream's, and the caller's. `op` names it in messages.
    pub(in crate::etcd) async fn open_stream(
        &self,
        op: &'static str,
        path: &'static str,
        first: Bytes,
        needs_leader: bool,
        deadline: Instant,
    ) -> Result<(mpsc::Sender<Bytes>, Messages, Route), Fault> {
        let limit = self.options().max_message_bytes;
        let ((requests, messages), route) = self
            .attempt(op, Tries::until(deadline), |connection| {
                let first = first.clone();
                async move { open_over(&connection, path, first, needs_leader, limit).await }
            })
            .await?;
        Ok((requests, messages, route))
    }

    /// Opens another stream where `route` leads. One try.
    pub(in crate::etcd) async fn open_stream_over(
        &self,
        route: &Route,
        path: &'static str,
        first: Bytes,
        needs_leader: bool,
    ) -> Result<(mpsc::Sender<Bytes>, Messages), Fault> {
        let limit = self.options().max_message_bytes;
        open_over(&route.connection, path, first, needs_leader, limit).await
    }
}

async fn open_over(
    connection: &Connection,
    path: &'static str,
    first: Bytes,
    needs_leader: bool,
    limit: usize,
) -> Result<(mpsc::Sender<Bytes>, Messages), Fault> {
    let (requests, queue) = mpsc::channel(STREAM_QUEUE);
    let _ = requests.try_send(first); // there is room
    let queue = futures::stream::unfold(queue, |mut queue| async move {
        let request = queue.recv().await?;
        Some((request, queue))
    });
    let answers = connection.transport.stream(path, queue, needs_leader, limit).await;
    let answers = answers.map_err(|status| judge_status(status, &connection.url))?;
    let messages = Messages {
        answers,
        url: Arc::clone(&connection.url),
        forward: None,
    };
    Ok((requests, messages))
}

/// Passes requests on until there are no more: the end of one queue is that of the other.
async fn forward(mut more: mpsc::Receiver<Bytes>, requests: mpsc::Sender<Bytes>) {
    while let Some(request) = more.recv().await {
        if requests.send(request).await.is_err() {
            return; // the stream is going; its answers say why
        }
    }
}

/// What a stream answers, [`byte_stream`](Caller::byte_stream)s and the core's own. Dropping it ends the stream.
pub struct Messages {
    answers: ByteStream,
    url: Arc<str>,
    /// What passes requests on.
    forward: Option<tokio::task::AbortHandle>,
}

impl Messages {
    /// The next message; `None` when the server has ended the stream well. Cancel-safe.
    pub async fn message(&mut self) -> Result<Option<Bytes>, Fault> {
        self.answers
            .message()
            .await
            .map_err(|status| judge_status(status, &self.url))
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        if let Some(forward) = &self.forward {
            forward.abort();
        }
    }
}
