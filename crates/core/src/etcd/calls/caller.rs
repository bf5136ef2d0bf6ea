//! What makes calls: the members of the cluster, the options, the log, the counters, and whether it is closed.
//!
//! [`Caller`] knows nothing of what is called: leases, watches and elections are made of one, as Go's `NewLease(client)` is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::error::Result;
use crate::etcd::options::EtcdOptions;
use crate::etcd::transport::endpoints::{Connection, EndpointSet};
use crate::log::Log;

/// etcd's `--max-txn-ops` unless changed: how many gets go in one transaction.
const GROUP_MOST: usize = 128;

/// Makes calls to one etcd cluster. Cheap to clone; all clones share connections and tokens.
///
/// Making one does no I/O. It belongs to the tokio runtime that it is first used on.
#[derive(Clone)]
pub struct Caller {
    inner: Arc<CallerInner>,
    /// The longest one call may take that is given no time of its own.
    timeout: Duration,
    log: Log,
}

struct CallerInner {
    endpoints: EndpointSet,
    options: EtcdOptions,
    /// Set once the cluster has said that it has no authentication, so that it is said once.
    auth_off_told: AtomicBool,
    metrics: Metrics,
    /// How many gets go in one transaction.
    group_size: AtomicUsize,
    closed: CancellationToken,
}

/// Over which connection, with which token, a call was answered. A stream's later failures are charged to it.
#[derive(Clone)]
pub(in crate::etcd) struct Route {
    pub(in crate::etcd) member: usize,
    pub(in crate::etcd) connection: Arc<Connection>,
    pub(in crate::etcd) token: u64,
}

impl Route {
    pub(in crate::etcd) fn is_over_the_same_connection(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.connection, &other.connection)
    }
}

impl Caller {
    /// One for these options. Errors: `InvalidArgument`, naming the option.
    pub fn new(options: EtcdOptions, log: Log) -> Result<Self> {
        options.validate()?;
        let endpoints = EndpointSet::new(&options, &log)?;
        Ok(Self {
            timeout: options.timeout,
            log,
            inner: Arc::new(CallerInner {
                endpoints,
                options,
                auth_off_told: AtomicBool::new(false),
                metrics: Metrics::default(),
                group_size: AtomicUsize::new(GROUP_MOST),
                closed: CancellationToken::new(),
            }),
        })
    }

    /// The same caller for other users: with their own time for a call that is given none, and their own log. All else is
    /// shared, its end too.
    #[must_use]
    pub fn with(&self, timeout: Duration, log: Log) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            timeout,
            log,
        }
    }

    /// What it was made with.
    pub fn options(&self) -> &EtcdOptions {
        &self.inner.options
    }

    /// The longest one call may take that is given no time of its own.
    pub(in crate::etcd) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn endpoints(&self) -> &EndpointSet {
        &self.inner.endpoints
    }

    /// What it has done so far.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// How many gets fit into one call of [`get_group`](Self::get_group). It shrinks when the server takes fewer.
    pub fn group_size(&self) -> usize {
        self.inner.group_size.load(Ordering::Relaxed)
    }

    /// The server takes no more than so many gets in one transaction.
    pub(super) fn shrink_groups(&self, size: usize) {
        self.inner.group_size.fetch_min(size, Ordering::Relaxed);
    }

    /// True the first time.
    pub(super) fn is_first_told_that_auth_is_off(&self) -> bool {
        !self.inner.auth_off_told.swap(true, Ordering::Relaxed)
    }

    /// Cancelled when it is closed.
    pub fn closed(&self) -> &CancellationToken {
        &self.inner.closed
    }

    /// The member that is asked next, as errors call it.
    pub(crate) fn next_endpoint(&self) -> Option<&str> {
        self.inner.endpoints.next()
    }

    pub(in crate::etcd) fn url_of(&self, route: &Route) -> &str {
        &self.inner.endpoints.member(route.member).url
    }

    /// The key-value calls of a connection, with the decode limit of the options.
    pub fn kv(&self, connection: &etcd_client::Client) -> etcd_client::KvClient {
        connection
            .kv_client()
            .max_decoding_message_size(self.inner.options.max_message_bytes)
    }

    /// A stream over `route` broke: its member is avoided for a while.
    pub(in crate::etcd) fn broke(&self, route: &Route) {
        self.inner.endpoints.failed(route.member);
    }

    /// A stream over `route` has said nothing since `since`, though it was asked: its member is avoided for a while, and
    /// the connection given up unless something else came over it meanwhile.
    pub(in crate::etcd) fn fell_silent(&self, route: &Route, since: Instant) {
        if !route.connection.has_answered_since(since) {
            self.inner.endpoints.member(route.member).abandon(&route.connection);
        }
        self.broke(route);
    }

    /// Gives the connections up and ends everything that was made of it: the watch stream, the renewal of leases,
    /// campaigns. Calls under way end by themselves, later ones fail with `Closed`.
    pub fn close(&self) {
        self.inner.closed.cancel();
        self.inner.endpoints.close();
    }
}
