//! What a watch tells, waiting for a consumer on another thread: in order, packed, and bounded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::events::{Created, Response};
use super::pack::{CONNECTING, DISCONNECTED, END, Pack, SETTLED};
use super::request::WatchRequest;
use super::sink::{Delivery, WatchEnd, WatchSink};
use super::watches::{WatchControl, Watches};
use crate::etcd::error::{Cause, Fault};
use crate::sync::lock;

/// When a batch is full: a consumer takes one at a time, and is not to be busy with it for long.
const BATCH_EVENTS: usize = 1024;
/// The same in bytes. A single response may be larger.
const BATCH_BYTES: usize = 256 << 10;

/// How much may wait. It is exceeded by one response at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Events.
    pub events: usize,
    /// Bytes.
    pub bytes: usize,
}

impl Default for Limits {
    /// 16,384 events and 4 MiB.
    fn default() -> Self {
        Self {
            events: 16_384,
            bytes: 4 << 20,
        }
    }
}

/// What stands behind a record of a disconnection or of the end.
#[derive(Debug, Clone)]
pub enum WatchFailure {
    /// Why the connection is lost.
    Disconnected(Fault),
    /// Why the watch is over.
    End(WatchEnd),
}

/// The consumer's side of a watch. Dropping it cancels the watch.
pub struct WatchQueue {
    waiting: Arc<Mutex<Waiting>>,
    control: Mutex<Option<WatchControl>>,
}

struct Waiting {
    /// All but the last are full, and written.
    batches: VecDeque<Batch>,
    failures: VecDeque<WatchFailure>,
    events: usize,
    bytes: usize,
    limits: Limits,
    /// Nothing more is sent until there is room.
    is_full: bool,
    /// Who consumes has been woken, and has not taken everything since.
    is_awake: bool,
}

enum Batch {
    Open(Pack),
    /// With the number of events in it.
    Full(Vec<u8>, usize),
}

struct Sink {
    waiting: Arc<Mutex<Waiting>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl WatchQueue {
    /// Watches for a consumer that [`take`](Self::take)s what there is when `wake` was called, until nothing is left.
    /// `wake` is called by the task of the stream, once until then. Needs a tokio runtime.
    pub fn open(
        watches: &Watches,
        request: WatchRequest,
        limits: Limits,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let waiting = Arc::new(Mutex::new(Waiting {
            batches: VecDeque::new(),
            failures: VecDeque::new(),
            events: 0,
            bytes: 0,
            limits,
            is_full: false,
            is_awake: false,
        }));
        let sink = Sink {
            waiting: Arc::clone(&waiting),
            wake: Box::new(wake),
        };
        Self {
            waiting,
            control: Mutex::new(Some(watches.watch(request, Box::new(sink)))),
        }
    }

    /// The oldest batch (see [`pack`](super::pack)), and whether there are more; `None` when there is none.
    pub fn take(&self) -> Option<(Vec<u8>, bool)> {
        let mut waiting = lock(&self.waiting);
        let batch = waiting.batches.pop_front();
        waiting.is_awake = !waiting.batches.is_empty();
        let more = waiting.is_awake;
        let (bytes, events) = match batch? {
            Batch::Open(pack) => (pack.write(), pack.events),
            Batch::Full(bytes, events) => (bytes, events),
        };
        waiting.events -= events;
        waiting.bytes -= bytes.len();
        let has_room = waiting.events <= waiting.limits.events / 2 && waiting.bytes <= waiting.limits.bytes / 2;
        let resume = waiting.is_full && has_room;
        waiting.is_full &= !resume;
        drop(waiting);
        if resume && let Some(control) = &*lock(&self.control) {
            control.resume();
        }
        Some((bytes, more))
    }

    /// What stands behind the oldest record of a disconnection or of the end that was not asked for yet.
    pub fn failure(&self) -> Option<WatchFailure> {
        lock(&self.waiting).failures.pop_front()
    }

    /// See [`WatchControl::rewind`].
    pub fn rewind(&self, revision: i64) {
        if let Some(control) = &*lock(&self.control) {
            control.rewind(revision);
        }
    }

    /// Cancels the watch and forgets what waits. May be repeated.
    pub fn stop(&self) {
        drop(lock(&self.control).take());
        let mut waiting = lock(&self.waiting);
        waiting.batches.clear();
        waiting.failures.clear();
        (waiting.events, waiting.bytes) = (0, 0);
    }
}

impl Sink {
    fn put(&self, write: impl FnOnce(&mut Pack)) -> Delivery {
        let mut waiting = lock(&self.waiting);
        let mut pack = match waiting.batches.pop_back() {
            Some(Batch::Open(pack)) => pack,
            last => {
                waiting.batches.extend(last);
                Pack::default()
            }
        };
        let before = if pack.is_empty() {
            (0, 0)
        } else {
            (pack.events, pack.size())
        };
        write(&mut pack);
        waiting.events += pack.events - before.0;
        waiting.bytes += pack.size() - before.1;
        let is_full = pack.events >= BATCH_EVENTS || pack.size() >= BATCH_BYTES;
        // Written here, and not where it is taken: that thread has other things to do.
        let batch = if is_full {
            Batch::Full(pack.write(), pack.events)
        } else {
            Batch::Open(pack)
        };
        waiting.batches.push_back(batch);
        let was_awake = std::mem::replace(&mut waiting.is_awake, true);
        waiting.is_full |= waiting.events >= waiting.limits.events || waiting.bytes >= waiting.limits.bytes;
        let delivery = if waiting.is_full {
            Delivery::Full
        } else {
            Delivery::Taken
        };
        drop(waiting);
        if !was_awake {
            (self.wake)();
        }
        delivery
    }

    fn fail(&self, kind: i32, failure: WatchFailure) {
        lock(&self.waiting).failures.push_back(failure);
        self.put(|batch| batch.record(kind));
    }
}

impl WatchSink for Sink {
    fn connecting(&mut self) {
        self.put(|batch| batch.record(CONNECTING));
    }

    fn created(&mut self, created: Created) {
        self.put(|batch| batch.created(&created));
    }

    fn settled(&mut self) {
        self.put(|batch| batch.record(SETTLED));
    }

    fn deliver(&mut self, response: Response) -> Delivery {
        self.put(|batch| batch.response(&response))
    }

    /// A password that is refused, and whatever else no other try can mend, ends it.
    fn disconnected(&mut self, fault: &Fault) -> bool {
        let mends = fault.cause != Cause::Refused || fault.error.is_retryable();
        if mends {
            self.fail(DISCONNECTED, WatchFailure::Disconnected(fault.clone()));
        }
        mends
    }

    fn end(self: Box<Self>, why: WatchEnd) {
        self.fail(END, WatchFailure::End(why));
    }
}
