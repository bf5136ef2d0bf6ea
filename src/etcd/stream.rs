//! A stream of a service in bytes, for those who speak etcd's protocol themselves: `watch`, `leaseKeepAlive`, `snapshot`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use napi::bindgen_prelude::Buffer;
use napi::{Error, Result, Status};
use napi_derive::napi;
use rollcall_core::etcd::{Fault, METHODS};
use rollcall_core::sync::lock;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use super::EtcdHandle;
use crate::failure::NativeFailure;

/// Requests that wait to be sent. Over it `write()` refuses: the program writes faster than etcd reads.
const REQUESTS: usize = 16 * 1024;
/// Answers that wait for JavaScript, in bytes. Over it nothing more is read from the connection.
const ANSWER_BYTES: usize = 16 << 20;

/// How a stream ended: well, or by a failure.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct NativeStreamEnd {
    pub failure: Option<NativeFailure>,
}

#[napi]
pub struct StreamHandle {
    requests: Mutex<Option<mpsc::Sender<Bytes>>>,
    answers: Arc<Answers>,
    task: AbortHandle,
}

#[derive(Default)]
struct Answers {
    waiting: Mutex<Waiting>,
    taken: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Bytes>,
    bytes: usize,
    end: End,
}

/// How a stream stands.
#[derive(Default)]
enum End {
    #[default]
    Open,
    Well,
    Failed(Box<NativeFailure>),
}

impl Answers {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }

    async fn put(&self, message: Bytes) {
        while self.lock().bytes > ANSWER_BYTES {
            self.taken.notified().await;
        }
        let mut waiting = self.lock();
        waiting.bytes += message.len();
        waiting.messages.push_back(message);
    }
}

#[napi]
impl StreamHandle {
    /// A stream of the method of this number; `single` when that takes one request only. It opens with the first request.
    /// Answers and the end are announced as a `watch` event of `id`: take them.
    #[napi(factory, catch_unwind)]
    pub fn open(
        client: &EtcdHandle,
        id: u32,
        method: u32,
        single: bool,
        needs_leader: bool,
        timeout_ms: u32,
    ) -> Result<Self> {
        let path = *METHODS
            .get(method as usize)
            .ok_or_else(|| Error::new(Status::InvalidArg, "there is no such method"))?;
        let (requests, mut queue) = mpsc::channel(REQUESTS);
        let answers = Arc::new(Answers::default());
        let (etcd, mailbox, inbox) = (client.client.clone(), client.mailbox.clone(), answers.clone());
        let task = client.io.handle().spawn(async move {
            let run = async {
                let Some(first) = queue.recv().await else {
                    return Ok(()); // ended before it began
                };
                let time = Duration::from_millis(timeout_ms.into());
                let more = (!single).then_some(queue);
                let mut stream = etcd.calls.byte_stream(path, first, more, needs_leader, time).await?;
                while let Some(message) = stream.message().await? {
                    inbox.put(message).await;
                    mailbox.notice(id);
                }
                Ok(())
            };
            let closed = etcd.closed().clone();
            let end = tokio::select! {
                end = run => end.err().map_or(End::Well, |fault: Fault| End::Failed(Box::new((&fault).into()))),
                () = closed.cancelled() => End::Failed(Box::new(NativeFailure::closed())),
            };
            inbox.lock().end = end;
            mailbox.notice(id);
        });
        Ok(Self {
            requests: Mutex::new(Some(requests)),
            answers,
            task: task.abort_handle(),
        })
    }

    /// Sends a request; false when the stream is ended or too many requests wait.
    #[napi(catch_unwind)]
    pub fn write(&self, request: &[u8]) -> bool {
        let requests = lock(&self.requests);
        let queue = requests.as_ref();
        queue.is_some_and(|queue| queue.try_send(Bytes::copy_from_slice(request)).is_ok())
    }

    /// No request follows.
    #[napi(catch_unwind)]
    pub fn end(&self) {
        *lock(&self.requests) = None;
    }

    /// Ends it at once, without another event.
    #[napi(catch_unwind)]
    pub fn cancel(&self) {
        self.end();
        self.task.abort();
    }

    /// The answers that have come, `most` at a time: take until there are none.
    #[napi(catch_unwind)]
    pub fn take(&self, most: u32) -> Vec<Buffer> {
        let mut waiting = self.answers.lock();
        let count = waiting.messages.len().min(most as usize);
        let messages: Vec<Bytes> = waiting.messages.drain(..count).collect();
        waiting.bytes -= messages.iter().map(Bytes::len).sum::<usize>();
        drop(waiting);
        self.answers.taken.notify_one();
        messages
            .into_iter()
            .map(|message| Buffer::from(Vec::from(message)))
            .collect()
    }

    /// `null` while it is open; once it has ended and all answers are taken, how.
    #[napi(catch_unwind)]
    pub fn over(&self) -> Option<NativeStreamEnd> {
        let waiting = self.answers.lock();
        if !waiting.messages.is_empty() {
            return None;
        }
        match &waiting.end {
            End::Open => None,
            End::Well => Some(NativeStreamEnd { failure: None }),
            End::Failed(failure) => Some(NativeStreamEnd {
                failure: Some(NativeFailure::clone(failure)),
            }),
        }
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}
