//! One call in bytes: which methods there are, how often each may be sent, and until when.
//!
//! | the call | is tried again |
//! |---|---|
//! | only reads | on another member, and on each of them twice, while there is time; on a single one up to four times |
//! | changes something | only where it surely was not applied: it was not sent, or a member refused it before proposing it |
//!
//! A change whose outcome is not known ends with [`Fault::outcome_unknown`]. Go's client draws the same line
//! (`isSafeRetryMutableRPC` of `client/v3/retry_interceptor.go`).

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::client::{EtcdClient, Route};
use super::error::{Fault, judge_status};
use super::raw::ByteStream;
use super::tries::Tries;

/// The most that a read of one key waits for one member while there are others.
const POINT_READ_MOST: Duration = Duration::from_secs(3);
/// Requests of a stream that wait to be sent.
const STREAM_QUEUE: usize = 128;

/// Every method of etcd's six services, and of its lock and election services: unary ones first. The place in this list
/// is what a caller names it by, within one version of this crate.
pub const METHODS: &[&str] = &[
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/DeleteRange",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.Lease/LeaseTimeToLive",
    "/etcdserverpb.Lease/LeaseLeases",
    "/etcdserverpb.Cluster/MemberAdd",
    "/etcdserverpb.Cluster/MemberRemove",
    "/etcdserverpb.Cluster/MemberUpdate",
    "/etcdserverpb.Cluster/MemberList",
    "/etcdserverpb.Cluster/MemberPromote",
    "/etcdserverpb.Maintenance/Alarm",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Defragment",
    "/etcdserverpb.Maintenance/Hash",
    "/etcdserverpb.Maintenance/HashKV",
    "/etcdserverpb.Maintenance/MoveLeader",
    "/etcdserverpb.Maintenance/Downgrade",
    "/etcdserverpb.Auth/AuthEnable",
    "/etcdserverpb.Auth/AuthDisable",
    "/etcdserverpb.Auth/AuthStatus",
    "/etcdserverpb.Auth/Authenticate",
    "/etcdserverpb.Auth/UserAdd",
    "/etcdserverpb.Auth/UserGet",
    "/etcdserverpb.Auth/UserList",
    "/etcdserverpb.Auth/UserDelete",
    "/etcdserverpb.Auth/UserChangePassword",
    "/etcdserverpb.Auth/UserGrantRole",
    "/etcdserverpb.Auth/UserRevokeRole",
    "/etcdserverpb.Auth/RoleAdd",
    "/etcdserverpb.Auth/RoleGet",
    "/etcdserverpb.Auth/RoleList",
    "/etcdserverpb.Auth/RoleDelete",
    "/etcdserverpb.Auth/RoleGrantPermission",
    "/etcdserverpb.Auth/RoleRevokePermission",
    // Streams.
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/etcdserverpb.Maintenance/Snapshot",
];

/// The place of `Range` in [`METHODS`].
pub const RANGE: usize = 0;
/// The place of `Txn` in [`METHODS`].
pub const TXN: usize = 3;

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its place in [`METHODS`].
    pub method: usize,
    /// The request, encoded.
    pub body: Bytes,
    /// It changes nothing, so it may be sent as often as it takes.
    pub reads: bool,
    /// It reads or writes one key: a member that is silent for longer than that takes is left for another one.
    pub point: bool,
    /// A member without a leader is to refuse it at once. Not for what a member answers by itself.
    pub needs_leader: bool,
    /// When it must have ended; `None` leaves it to the pings of the connection.
    pub deadline: Option<Instant>,
    /// One try, on this host of the options.
    pub only: Option<usize>,
}

impl EtcdClient {
    /// Makes a call. See the table of this module for how often it is sent.
    ///
    /// A write that is tried has the whole time for one member; when the member says nothing for three seconds, others are
    /// preferred by later calls meanwhile. One that waits for a connection as long goes to another member.
    pub async fn exec(&self, call: Call) -> Result<Bytes, Fault> {
        let Some(path) = METHODS.get(call.method).copied() else {
            return Err(Fault::unknown_method(call.method));
        };
        let limit = self.options().max_message_bytes;
        let metrics = self.metrics();
        let begun = metrics.begin(call.method);
        let tries = Tries {
            deadline: call.deadline,
            most: call.point.then_some(POINT_READ_MOST),
            repeatable: call.reads,
            only: call.only,
        };
        let answer = self
            .attempt(path, tries, |connection| {
                metrics.attempts.fetch_add(1, Ordering::Relaxed);
                let body = call.body.clone();
                async move {
                    let answer = connection.transport.unary(path, body, call.needs_leader, limit).await;
                    answer.map_err(|status| judge_status(status, &connection.url))
                }
            })
            .await;
        metrics.end(call.method, begun, answer.as_ref().err());
        answer.map(|(body, _)| body)
    }

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
        let (requests, answers, route) = self.open_stream(path, &[first], needs_leader, deadline).await?;
        let forward = tokio::spawn(forward(more, requests));
        Ok(Messages {
            answers,
            url: self.url_of(&route).into(),
            forward: Some(forward.abort_handle()),
        })
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
    /// open. Tried on all members. What goes wrong afterwards is the stream's, and the caller's.
    pub(crate) async fn open_stream(
        &self,
        path: &'static str,
        first: &[Bytes],
        needs_leader: bool,
        deadline: Instant,
    ) -> Result<(mpsc::Sender<Bytes>, ByteStream, Route), Fault> {
        let limit = self.options().max_message_bytes;
        let ((requests, answers), route) = self
            .attempt(path, Tries::until(deadline), |connection| {
                let (requests, queue) = mpsc::channel(STREAM_QUEUE.max(first.len()));
                for request in first {
                    let _ = requests.try_send(request.clone()); // there is room for all of them
                }
                let queue = futures::stream::unfold(queue, |mut queue| async move {
                    let request = queue.recv().await?;
                    Some((request, queue))
                });
                async move {
                    let answers = connection.transport.stream(path, queue, needs_leader, limit).await;
                    let answers = answers.map_err(|status| judge_status(status, &connection.url))?;
                    Ok((requests, answers))
                }
            })
            .await?;
        Ok((requests, answers, route))
    }
}

/// Passes requests on until there are no more: the end of one queue is that of the other.
async fn forward(mut more: mpsc::Receiver<Bytes>, requests: mpsc::Sender<Bytes>) {
    while let Some(request) = more.recv().await {
        if requests.send(request).await.is_err() {
            return; // the stream is going; its answers say why
        }
    }
}

/// What a [`byte_stream`](EtcdClient::byte_stream) answers. Dropping it ends the stream.
pub struct Messages {
    answers: ByteStream,
    url: Box<str>,
    /// What passes requests on.
    forward: Option<tokio::task::AbortHandle>,
}

impl Messages {
    /// The next message; `None` when the server has ended the stream well.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::EtcdOptions;
    use crate::log::Log;

    #[tokio::test]
    async fn a_call_is_small_enough_to_be_moved() {
        let client = EtcdClient::new(EtcdOptions::default(), Log::default()).unwrap();
        let call = Call {
            method: RANGE,
            body: Bytes::new(),
            reads: true,
            point: true,
            needs_leader: true,
            deadline: None,
            only: None,
        };
        let size = size_of_val(&client.exec(call));
        assert!(size < 3 * 1024, "every call allocates this: {size} bytes");
    }
}
