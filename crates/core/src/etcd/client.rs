//! The client of one etcd cluster: what makes calls, and what is made of it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::calls::caller::Caller;
use super::election::elections::Elections;
use super::lease::leases::Leases;
use super::options::EtcdOptions;
use super::watch::watches::Watches;
use crate::error::Result;
use crate::log::Log;

/// A client of one etcd cluster, as Go's `clientv3.Client`: a [`Caller`] and what is made of it. Cheap to clone; all clones
/// share connections, tokens, the stream of watches and that of renewals.
///
/// Making one does no I/O. It belongs to the tokio runtime that it is first used on.
#[derive(Clone)]
pub struct EtcdClient {
    /// Calls and raw streams.
    pub calls: Caller,
    /// Leases, renewed on one stream.
    pub leases: Leases,
    /// Watches, on one stream.
    pub watches: Watches,
    /// Campaigns, locks, and who leads.
    pub elections: Elections,
}

impl EtcdClient {
    /// A client for these options. Errors: `InvalidArgument`, naming the option.
    pub fn new(options: EtcdOptions, log: Log) -> Result<Self> {
        let calls = Caller::new(options, log)?;
        let leases = Leases::new(calls.clone());
        let watches = Watches::new(calls.clone());
        let elections = Elections::new(calls.clone(), leases.clone(), watches.clone());
        Ok(Self {
            calls,
            leases,
            watches,
            elections,
        })
    }

    /// The same client for other users: see [`Caller::with`]. Leases, watches and elections keep the time and the log that
    /// the client was made with.
    #[must_use]
    pub fn with(&self, timeout: Duration, log: Log) -> Self {
        Self {
            calls: self.calls.with(timeout, log),
            ..self.clone()
        }
    }

    /// What it was made with.
    pub fn options(&self) -> &EtcdOptions {
        self.calls.options()
    }

    /// Cancelled when it is closed.
    pub fn closed(&self) -> &CancellationToken {
        self.calls.closed()
    }

    /// Ends the watch stream and the renewal of leases, and gives the connections up. Calls under way end by themselves,
    /// later ones fail with `Closed`.
    pub fn close(&self) {
        self.calls.close();
    }
}
