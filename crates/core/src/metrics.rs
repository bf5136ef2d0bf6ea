//! What a client counts of itself: numbers of the whole client and nothing for each name, so it can't grow.
//!
//! Whoever does a thing counts it, by one atomic addition; [`Meter::read`] is the one reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a client has counted since it was made, and how many of some things there are now. The numbers are read one after
/// the other: what happens meanwhile may be in one and not yet in the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Registrations that have not ended, now.
    pub registered: u64,
    /// Those of them that something holds out of traffic, now.
    pub out: u64,
    /// Attempts to publish an instance; an update and a repair are attempts too.
    pub attempts: u64,
    /// Those that failed.
    pub failed_attempts: u64,
    /// Records that were lost, once for each `Event::Lost`.
    pub losses: u64,
    /// Records that are back after a loss, once for each `Event::Restored`.
    pub repairs: u64,
    /// Registrations that a newer owner ended.
    pub replaced: u64,
    /// Names that are followed, and one more when the list of names is, now.
    pub followed: u64,
    /// Those of them whose list the registry can't vouch for, now.
    pub stale: u64,
    /// Whole lists that were read or made of changes, in following.
    pub reads: u64,
    /// Lists that became stale.
    pub breaks: u64,
    /// Lists that differed from the one before, and so were shown to watchers.
    pub lists: u64,
    /// Reads of the instances of a name by `get_service`; what a watch answered is none.
    pub get_service: Calls,
    /// Reads of the names by `services`; what a watch answered is none.
    pub services: Calls,
}

/// The counters of one kind of call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Those that began.
    pub begun: u64,
    /// Those that failed.
    pub failed: u64,
}

/// Counts what happened.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts what there is.
#[derive(Debug, Default)]
pub(crate) struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// One more, until what this gives is dropped.
    pub(crate) fn hold(&self) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(self.0.clone())
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of what a gauge counts.
#[derive(Debug)]
pub(crate) struct Held(Arc<AtomicU64>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The counters of one kind of call.
#[derive(Debug, Default)]
pub(crate) struct CallMeter {
    pub begun: Counter,
    pub failed: Counter,
}

impl CallMeter {
    fn get(&self) -> Calls {
        Calls {
            begun: self.begun.get(),
            failed: self.failed.get(),
        }
    }
}

/// The counters of one client, shared by all that count. The fields are those of [`Metrics`].
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub registered: Gauge,
    pub out: Gauge,
    pub attempts: Counter,
    pub failed_attempts: Counter,
    pub losses: Counter,
    pub repairs: Counter,
    pub replaced: Counter,
    pub followed: Gauge,
    pub stale: Gauge,
    pub reads: Counter,
    pub breaks: Counter,
    pub lists: Counter,
    pub get_service: CallMeter,
    pub services: CallMeter,
}

impl Meter {
    pub(crate) fn read(&self) -> Metrics {
        Metrics {
            registered: self.registered.get(),
            out: self.out.get(),
            attempts: self.attempts.get(),
            failed_attempts: self.failed_attempts.get(),
            losses: self.losses.get(),
            repairs: self.repairs.get(),
            replaced: self.replaced.get(),
            followed: self.followed.get(),
            stale: self.stale.get(),
            reads: self.reads.get(),
            breaks: self.breaks.get(),
            lists: self.lists.get(),
            get_service: self.get_service.get(),
            services: self.services.get(),
        }
    }
}
