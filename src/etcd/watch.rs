//! One watch, as JavaScript holds it. What etcd tells waits packed on the native side (`etcd/watch/pack.rs` of core);
//! JavaScript is told that there is something, takes it as one Buffer and reads it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use napi::bindgen_prelude::{BigInt, BufferSlice, Either, Function, Uint8Array};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Error, Result, Status};
use napi_derive::napi;
use rollcall_core::etcd::{Limits, OnDisconnect, WatchEnd, WatchFailure as Behind, WatchQueue, WatchRequest};
use rollcall_core::sync::lock;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::EtcdHandle;
use crate::call::ms;
use crate::failure::NativeFailure;

/// Up to which size a batch is copied: an external Buffer costs more than that to make and to free.
const COPIED: usize = 16 << 10;

/// Tells which watches have something. `weak`: it keeps no process alive.
type Wake = ThreadsafeFunction<Ids, (), Ids, Status, /* callee handles errors: */ false, /* weak: */ true>;

/// One watch, as a rule; an array costs more than the rest of the call.
type Ids = Either<u32, Vec<u32>>;

/// While a burst lasts JavaScript is told no more often than this. A wake-up costs it as much as some fifty events.
const BURST: Duration = Duration::from_millis(1);
/// The same when it goes on: the pause grows by a quarter each time, and is [`BURST`] again after one without an event.
const BURST_MOST: Duration = Duration::from_millis(4);

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

/// Why a watch was interrupted or is over.
#[napi(object, object_from_js = false)]
pub struct NativeWatchFailure {
    #[napi(ts_type = "'disconnected' | 'compacted' | 'history' | 'closed' | 'refused'")]
    pub kind: &'static str,
    /// Of `compacted`; decimal.
    pub compact_revision: String,
    pub failure: NativeFailure,
}

#[napi]
pub struct EtcdWatchHandle {
    id: u32,
    queue: WatchQueue,
    pacer: Arc<Pacer>,
}

#[napi]
impl EtcdWatchHandle {
    /// Starts to watch. What it tells is announced under `id` to the callback of `watchesTell()`, which the client must
    /// have: answer each sign with one `take()`.
    #[napi(factory, catch_unwind)]
    pub fn open(client: &EtcdHandle, id: u32, request: NativeWatchRequest) -> Result<Self> {
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
        let pacer = client.pacer()?;
        let wake = Arc::clone(&pacer.waiting);
        let _inside = client.io.handle().enter();
        Ok(Self {
            id,
            queue: WatchQueue::open(&client.client.watches, request, Limits::default(), move || wake.put(id)),
            pacer,
        })
    }

    /// The oldest batch, or `null`. When there are more, another sign says so.
    #[napi(catch_unwind)]
    pub fn take<'env>(&self, env: &'env Env) -> Result<Option<BufferSlice<'env>>> {
        let Some((batch, more)) = self.queue.take() else {
            return Ok(None);
        };
        if more {
            self.pacer.tell(vec![self.id]);
        }
        let buffer = if batch.len() <= COPIED {
            BufferSlice::copy_from(env, batch)
        } else {
            BufferSlice::from_data(env, batch)
        };
        buffer.map(Some)
    }

    /// Asks for a sign, in a turn of the event loop of its own.
    #[napi(catch_unwind)]
    pub fn nudge(&self) {
        self.pacer.tell(vec![self.id]);
    }

    /// What stands behind the next record of a disconnection or an end.
    #[napi(catch_unwind)]
    pub fn failure(&self) -> Option<NativeWatchFailure> {
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
        Some(NativeWatchFailure {
            kind,
            compact_revision: compacted.to_string(),
            failure: NativeFailure::from(&fault),
        })
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
/// that came within a pause of the last time, which is [`BURST`] at first.
pub struct Pacer {
    waiting: Arc<Waiting>,
    wake: Arc<Wake>,
    task: AbortHandle,
}

#[derive(Default)]
struct Waiting {
    ids: Mutex<Vec<u32>>,
    come: Notify,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Vec<u32>> {
        lock(&self.ids)
    }

    fn put(&self, id: u32) {
        self.lock().push(id);
        self.come.notify_one();
    }
}

impl Pacer {
    fn start(io: &tokio::runtime::Handle, wake: Wake) -> Self {
        let (waiting, wake) = (Arc::new(Waiting::default()), Arc::new(wake));
        let (inbox, telling) = (Arc::clone(&waiting), Arc::clone(&wake));
        let task = io.spawn(async move {
            let mut told = Instant::now();
            let mut pause = BURST;
            loop {
                inbox.come.notified().await;
                // Behind everything that is ready now: the events of one read of the socket go together.
                tokio::task::yield_now().await;
                if told.elapsed() < pause {
                    tokio::time::sleep_until(told + pause).await;
                    pause = (pause * 5 / 4).min(BURST_MOST);
                } else {
                    pause = BURST;
                }
                tell(&telling, std::mem::take(&mut *inbox.lock()));
                told = Instant::now();
            }
        });
        Self {
            waiting,
            wake,
            task: task.abort_handle(),
        }
    }

    fn tell(&self, ids: Vec<u32>) {
        tell(&self.wake, ids);
    }
}

fn tell(wake: &Wake, ids: Vec<u32>) {
    let ids = match ids[..] {
        [one] => Either::A(one),
        _ => Either::B(ids),
    };
    // An environment that is closing answers with an error: then nobody listens any more.
    let _ = wake.call(ids, ThreadsafeFunctionCallMode::NonBlocking);
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[napi]
impl EtcdHandle {
    /// Says who is told which watches have something new: called once, before the first watch. `pauses` are the
    /// milliseconds before each try to connect again, in place of the built-in ones unless there are none.
    #[napi(
        catch_unwind,
        ts_args_type = "callback: (ids: number | Array<number>) => void, pauses: Array<number>"
    )]
    pub fn watches_tell(&self, callback: Function<'_, Ids, ()>, pauses: Vec<f64>) -> Result<()> {
        self.client
            .watches
            .set_watch_pauses(pauses.into_iter().map(ms).collect());
        let wake = callback.build_threadsafe_function::<Ids>().weak::<true>().build()?;
        let pacer = Pacer::start(self.io.handle(), wake);
        *lock(&self.pacer) = Some(Arc::new(pacer));
        Ok(())
    }

    fn pacer(&self) -> Result<Arc<Pacer>> {
        let pacer = lock(&self.pacer);
        pacer
            .clone()
            .ok_or_else(|| Error::new(Status::GenericFailure, "nobody is told of watches"))
    }
}
