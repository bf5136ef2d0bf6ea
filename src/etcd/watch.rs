//! One watch, as JavaScript holds it. What etcd tells waits packed on the native side (`etcd/watch/pack.rs` of core);
//! JavaScript is told that there is something, takes it as one Buffer and reads it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use napi::bindgen_prelude::{BigInt, BufferSlice, Uint8Array};
use napi::{Env, Result};
use napi_derive::napi;
use rollcall_core::etcd::watch::queue::{Failure as Behind, Limits, WatchQueue};
use rollcall_core::etcd::watch::{OnDisconnect, WatchEnd, WatchRequest};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::EtcdHandle;
use crate::events::Mailbox;
use crate::pages::Failure;

/// While a burst lasts JavaScript is told no more often than this. A wake-up costs it as much as some fifty events.
const BURST: Duration = Duration::from_millis(1);

/// What to watch.
#[allow(clippy::struct_excessive_bools)] // etcd's request has them
#[napi(object, object_to_js = false)]
pub struct NativeWatchRequest {
    pub key: Uint8Array,
    /// Empty: one key.
    pub range_end: Uint8Array,
    /// 0: from now on.
    pub start_revision: BigInt,
    pub prev_kv: bool,
    pub no_put: bool,
    pub no_delete: bool,
    pub fragment: bool,
    /// Say when the start revision is known not to be compacted.
    pub settle: bool,
}

#[napi]
pub struct EtcdWatchHandle {
    id: u32,
    queue: WatchQueue,
    mailbox: Arc<Mailbox>,
    _pacer: Arc<Pacer>,
}

#[napi]
impl EtcdWatchHandle {
    /// Starts to watch. What it tells is announced as a `watch` event of `id`: answer each with one `take()`.
    #[napi(factory, catch_unwind)]
    pub fn open(client: &EtcdHandle, id: u32, request: NativeWatchRequest) -> Self {
        let request = WatchRequest {
            key: request.key.to_vec(),
            range_end: request.range_end.to_vec(),
            from_revision: request.start_revision.get_i64().0,
            may_be_ahead: true,
            on_disconnect: OnDisconnect::Resume,
            prev_kv: request.prev_kv,
            no_put: request.no_put,
            no_delete: request.no_delete,
            fragment: request.fragment,
            settle: request.settle,
            ..WatchRequest::default()
        };
        let pacer = client.pacer();
        let wake = Arc::clone(&pacer.waiting);
        let _inside = client.io.handle().enter();
        Self {
            id,
            queue: WatchQueue::open(&client.client, request, Limits::default(), move || wake.put(id)),
            mailbox: Arc::clone(&client.mailbox),
            _pacer: pacer,
        }
    }

    /// The oldest batch, or `null`. When there are more, another `watch` event says so.
    #[napi(catch_unwind)]
    pub fn take<'env>(&self, env: &'env Env) -> Result<Option<BufferSlice<'env>>> {
        let mut batch = Vec::new();
        let Some(more) = self.queue.take(&mut batch) else {
            return Ok(None);
        };
        if more {
            self.mailbox.notice(self.id);
        }
        BufferSlice::copy_from(env, batch).map(Some)
    }

    /// Asks for a `watch` event, in a turn of the event loop of its own.
    #[napi(catch_unwind)]
    pub fn nudge(&self) {
        self.mailbox.notice(self.id);
    }

    /// What stands behind the next record of a disconnection or an end, as JSON.
    #[napi(catch_unwind)]
    pub fn failure(&self) -> Option<String> {
        let (kind, compacted, fault) = match self.queue.failure()? {
            Behind::Disconnected(fault) => ("disconnected", 0, fault),
            Behind::End(end) => {
                let kind = match end {
                    WatchEnd::Compacted(_) => "compacted",
                    WatchEnd::HistoryBroke(_) => "history",
                    WatchEnd::Closed => "closed",
                    _ => "refused",
                };
                let compacted = if let WatchEnd::Compacted(revision) = end {
                    revision
                } else {
                    0
                };
                (kind, compacted, end.fault())
            }
        };
        let failure = Failure::of(&fault);
        let failure = failure.json();
        Some(format!(
            r#"{{"kind":"{kind}","compactRevision":"{compacted}","failure":{failure}}}"#
        ))
    }

    /// The next creation of the watch starts here; 0: from then on.
    #[napi(catch_unwind)]
    pub fn rewind(&self, revision: BigInt) {
        self.queue.rewind(revision.get_i64().0);
    }

    /// Ends it, without another event. May be repeated.
    #[napi(catch_unwind)]
    pub fn stop(&self) {
        self.queue.stop();
    }
}

/// Tells JavaScript which watches have something for it: all that came in one turn of the I/O thread together, and all
/// that came within [`BURST`] of the last time.
pub struct Pacer {
    waiting: Arc<Waiting>,
    task: AbortHandle,
}

#[derive(Default)]
struct Waiting {
    ids: Mutex<Vec<u32>>,
    come: Notify,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Vec<u32>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, id: u32) {
        self.lock().push(id);
        self.come.notify_one();
    }
}

impl Pacer {
    fn start(io: &tokio::runtime::Handle, mailbox: Arc<Mailbox>) -> Self {
        let waiting = Arc::new(Waiting::default());
        let inbox = Arc::clone(&waiting);
        let task = io.spawn(async move {
            let mut told = Instant::now();
            loop {
                inbox.come.notified().await;
                // Behind everything that is ready now: the events of one read of the socket go together.
                tokio::task::yield_now().await;
                if told.elapsed() < BURST {
                    tokio::time::sleep_until(told + BURST).await;
                }
                mailbox.notice_all(std::mem::take(&mut *inbox.lock()));
                told = Instant::now();
            }
        });
        Self {
            waiting,
            task: task.abort_handle(),
        }
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl EtcdHandle {
    /// One for all watches of the client, while there are any.
    fn pacer(&self) -> Arc<Pacer> {
        let mut slot = self.pacer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pacer) = slot.upgrade() {
            return pacer;
        }
        let pacer = Arc::new(Pacer::start(self.io.handle(), Arc::clone(&self.mailbox)));
        *slot = Arc::downgrade(&pacer);
        pacer
    }
}
