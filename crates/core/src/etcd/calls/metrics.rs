//! What a client has done: counters, and a histogram of how long calls took, for each method. Reading them costs the
//! reader; a call pays for a few relaxed additions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::methods::METHODS;
use crate::etcd::error::Fault;

/// Upper bounds of the buckets of a histogram, in microseconds; what takes longer is in one more bucket.
pub const BUCKETS_US: [u64; 16] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000,
];

/// Counters of one client.
#[derive(Debug)]
pub struct Metrics {
    methods: Vec<Counters>,
    /// Requests sent to a member, tries after the first included.
    pub attempts: AtomicU64,
    /// Transactions that carried the gets of one tick, and how many gets they carried.
    pub groups: AtomicU64,
    /// Gets that went in such a transaction.
    pub grouped: AtomicU64,
}

/// Counters of one method.
#[derive(Debug, Default)]
struct Counters {
    begun: AtomicU64,
    failed: AtomicU64,
    unknown: AtomicU64,
    total_us: AtomicU64,
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
}

/// The counters of one method at one moment.
#[derive(Debug, Clone)]
pub struct MethodMetrics {
    /// `/etcdserverpb.KV/Range`.
    pub path: &'static str,
    /// Calls begun.
    pub begun: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Of those, writes whose outcome is not known.
    pub unknown: u64,
    /// The time of all that ended, together, in microseconds.
    pub total_us: u64,
    /// Calls that ended, by how long they took: see [`BUCKETS_US`].
    pub buckets: [u64; BUCKETS_US.len() + 1],
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            methods: METHODS.iter().map(|_| Counters::default()).collect(),
            attempts: AtomicU64::new(0),
            groups: AtomicU64::new(0),
            grouped: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    /// A call begins.
    pub(in crate::etcd) fn begin(&self, method: usize) -> Instant {
        if let Some(counters) = self.methods.get(method) {
            counters.begun.fetch_add(1, Ordering::Relaxed);
        }
        Instant::now()
    }

    /// It has ended.
    pub(in crate::etcd) fn end(&self, method: usize, begun: Instant, failure: Option<&Fault>) {
        let Some(counters) = self.methods.get(method) else {
            return;
        };
        let us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.partition_point(|bound| *bound < us);
        counters.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        counters.total_us.fetch_add(us, Ordering::Relaxed);
        if let Some(fault) = failure {
            counters.failed.fetch_add(1, Ordering::Relaxed);
            if fault.outcome_unknown {
                counters.unknown.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The counters of every method that was called.
    pub fn methods(&self) -> Vec<MethodMetrics> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let called = METHODS
            .iter()
            .zip(&self.methods)
            .filter(|(_, counters)| read(&counters.begun) > 0);
        called
            .map(|(path, counters)| MethodMetrics {
                path,
                begun: read(&counters.begun),
                failed: read(&counters.failed),
                unknown: read(&counters.unknown),
                total_us: read(&counters.total_us),
                buckets: std::array::from_fn(|i| read(&counters.buckets[i])),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_counted_in_the_bucket_of_its_time() {
        let metrics = Metrics::default();
        let begun = metrics.begin(1);
        metrics.end(1, begun, None);
        let methods = metrics.methods();
        assert_eq!(methods.len(), 1);
        assert_eq!(
            (methods[0].path, methods[0].begun, methods[0].failed),
            (METHODS[1], 1, 0)
        );
        assert_eq!(methods[0].buckets.iter().sum::<u64>(), 1);
    }
}
