//! What happens by itself, on its way to JavaScript: one mailbox per client, one wake-up for many events.
//!
//! The I/O thread puts events in and wakes JavaScript by one weak callback unless a wake-up is already on its way;
//! JavaScript answers with `drain()`, for a share of them at a time. That answer is also the tick that the stall guard waits for.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use napi::Status;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;
use rollcall_core::backend::BadRecord;
use rollcall_core::log::Level;
use rollcall_core::stall::Pulse;
use rollcall_core::sync::lock;

use crate::failure::NativeFailure;

/// Log lines that wait for JavaScript. Over it new ones are counted and dropped: a blocked thread must not fill memory.
const MAX_LOG_LINES: usize = 1024;
/// All other events that wait, watch notices apart (there is one for each watcher at most). Over it the oldest goes;
/// `state` and `version` still tell the truth.
const MAX_EVENTS: usize = 16_384;

/// `weak`: the callback alone keeps no process alive.
pub type Wake = ThreadsafeFunction<(), (), (), Status, /* callee handles errors: */ false, /* weak: */ true>;

/// One event. `id` is the watcher's or registration's, else 0; `level` and `text` belong to log lines and reasons.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct NativeEvent {
    #[napi(
        ts_type = "'watch' | 'stale' | 'fresh' | 'reset' | 'watchError' | 'lost' | 'restored' | 'replaced' | 'out' | 'in' | 'badRecord' | 'connected' | 'disconnected' | 'log' | 'elected' | 'termLost' | 'campaignFailed' | 'leader' | 'leaderUnknown' | 'observerFailed' | 'lockLost' | 'slot' | 'tokenTime'"
    )]
    pub kind: &'static str,
    pub id: u32,
    pub level: Option<&'static str>,
    pub key: Option<String>,
    pub text: Option<String>,
    /// Of an observer: what went wrong.
    pub failure: Option<NativeFailure>,
}

impl NativeEvent {
    fn of(kind: &'static str) -> Self {
        Self {
            kind,
            id: 0,
            level: None,
            key: None,
            text: None,
            failure: None,
        }
    }
}

pub struct Mailbox {
    waiting: Mutex<Waiting>,
    /// A wake-up is on its way, or a drain is due.
    waking: AtomicBool,
    wake: Wake,
    asked: AtomicU64,
    answered: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<NativeEvent>,
    /// Watchers whose notice waits already: the latest list wins, so one is enough.
    noticed: HashSet<u32>,
    log_lines: usize,
    log_dropped: usize,
}

impl Mailbox {
    pub fn new(wake: Wake) -> Self {
        Self {
            waiting: Mutex::default(),
            waking: AtomicBool::new(false),
            wake,
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        }
    }

    /// An event of a watcher or registration.
    pub fn put(&self, kind: &'static str, id: u32, text: Option<String>) {
        self.push(NativeEvent {
            id,
            text,
            ..NativeEvent::of(kind)
        });
    }

    /// An event that something failed.
    #[cfg(feature = "etcd")]
    pub fn put_failure(&self, kind: &'static str, id: u32, failure: NativeFailure) {
        self.push(NativeEvent {
            id,
            failure: Some(failure),
            ..NativeEvent::of(kind)
        });
    }

    /// The same as `put`, with what it is about.
    pub fn put_about(&self, kind: &'static str, id: u32, key: String, text: String) {
        self.push(NativeEvent {
            id,
            key: Some(key),
            text: Some(text),
            ..NativeEvent::of(kind)
        });
    }

    /// A watcher has a new list.
    pub fn notice(&self, id: u32) {
        let new = self.lock().noticed.insert(id);
        if new {
            self.put("watch", id, None);
        }
    }

    pub fn bad_record(&self, record: BadRecord) {
        self.push(NativeEvent {
            key: Some(record.key),
            text: Some(record.reason),
            ..NativeEvent::of("badRecord")
        });
    }

    pub fn log(&self, level: Level, line: String) {
        {
            let mut waiting = self.lock();
            if waiting.log_lines >= MAX_LOG_LINES {
                waiting.log_dropped += 1;
                return;
            }
            waiting.log_lines += 1;
        }
        self.push(log_line(level, line));
    }

    /// What waits, in order, `most` events at a time. On the JavaScript thread, which comes back by itself for the rest when
    /// it got as many, so nobody is woken for them.
    pub fn drain(&self, most: usize) -> Vec<NativeEvent> {
        self.answered.store(self.asked.load(Ordering::SeqCst), Ordering::SeqCst);
        self.waking.store(false, Ordering::SeqCst); // first the flag, then the events: no wake-up is lost
        let mut waiting = self.lock();
        if waiting.log_dropped > 0 {
            let line = format!(
                "{} more log lines were dropped: the JavaScript thread was busy",
                std::mem::take(&mut waiting.log_dropped)
            );
            waiting.log_lines += 1;
            waiting.events.push_back(log_line(Level::Warn, line));
        }
        let count = waiting.events.len().min(most.max(1));
        let events: Vec<NativeEvent> = waiting.events.drain(..count).collect();
        for event in &events {
            match event.kind {
                "watch" => {
                    waiting.noticed.remove(&event.id);
                }
                "log" => waiting.log_lines = waiting.log_lines.saturating_sub(1),
                _ => {}
            }
        }
        if events.len() == most {
            self.waking.store(true, Ordering::SeqCst);
        }
        events
    }

    fn push(&self, event: NativeEvent) {
        {
            let mut waiting = self.lock();
            if waiting.events.len() >= MAX_EVENTS + waiting.noticed.len() {
                let oldest = waiting.events.iter().position(|event| event.kind != "watch");
                oldest.and_then(|at| waiting.events.remove(at));
            }
            waiting.events.push_back(event);
        }
        self.wake();
    }

    fn wake(&self) {
        if !self.waking.swap(true, Ordering::SeqCst) {
            // An environment that is closing answers with an error: then nobody will drain, and nobody needs to.
            let _ = self.wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }
}

impl Pulse for Mailbox {
    fn ping(&self) -> u64 {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.wake();
        asked
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }
}

fn log_line(level: Level, line: String) -> NativeEvent {
    let level = match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    NativeEvent {
        level: Some(level),
        text: Some(line),
        ..NativeEvent::of("log")
    }
}
