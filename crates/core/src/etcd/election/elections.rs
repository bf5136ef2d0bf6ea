//! What elections and locks are made of.

use crate::etcd::calls::caller::Caller;
use crate::etcd::lease::leases::Leases;
use crate::etcd::watch::watches::Watches;

/// Makes [`Campaign`](super::campaign::Campaign)s, [`Lock`](super::lock::Lock)s and
/// [`Observer`](super::observer::Observer)s. Cheap to clone.
#[derive(Clone)]
pub struct Elections {
    pub(super) calls: Caller,
    pub(super) leases: Leases,
    pub(super) watches: Watches,
}

impl Elections {
    /// On the leases and the watches of one client.
    pub fn new(calls: Caller, leases: Leases, watches: Watches) -> Self {
        Self { calls, leases, watches }
    }
}
