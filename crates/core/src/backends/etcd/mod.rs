//! The etcd backend: one key per instance, `{prefix}/{name}/{id}`, attached to a lease, as Go Kratos writes it
//! (`contrib/registry/etcd`). What may be read under the keys of others is in `keys.rs`.

mod follow;
mod keys;
mod names;
mod options;
mod presence;
mod shared;
mod store;
mod tenure;
mod transact;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::GetOptions;

use self::keys::Keys;
use self::names::Names;
pub use self::options::EtcdRecords;
use self::presence::EtcdPresence;
use self::shared::Shared;
use self::store::EtcdStore;
use crate::backend::{Backend, Capabilities, Follow, Presence, ServiceName, Snapshot};
use crate::error::{ErrorKind, Result};
use crate::etcd::{EtcdClient, EtcdOptions};
use crate::log::Log;
use crate::store::Store;

/// Service registry in etcd.
pub struct EtcdBackend {
    shared: Arc<Shared>,
    /// Whether it was said that this user may not read all names: it is as true at each contact, and no news.
    limits_told: AtomicBool,
    /// The client is another's, and stays open.
    is_guest: bool,
}

impl EtcdBackend {
    /// A backend for these options. No I/O; errors are `InvalidArgument` and name the option.
    pub fn new(options: EtcdOptions, records: &EtcdRecords, log: Log) -> Result<Self> {
        records.validate()?;
        Ok(Self::of(EtcdClient::new(options, log)?, records, false))
    }

    /// A backend over a client that is there: it shares the connections, the token and the streams, and leaves the client open
    /// at its end. `timeout` and `log` are its own; a lease is granted within the time of the client. No I/O; errors are
    /// `InvalidArgument` and name the option. After the client is closed every call fails with `Closed`.
    pub fn over(client: &EtcdClient, timeout: Duration, records: &EtcdRecords, log: Log) -> Result<Self> {
        records.validate()?;
        Ok(Self::of(client.with(timeout, log), records, true))
    }

    fn of(client: EtcdClient, records: &EtcdRecords, is_guest: bool) -> Self {
        let shared = Arc::new(Shared {
            client,
            keys: Keys::new(&records.prefix, records.codec),
            ttl: records.ttl,
        });
        Self {
            shared,
            is_guest,
            limits_told: AtomicBool::new(false),
        }
    }
}

#[async_trait]
impl Backend for EtcdBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            counts_names: true,
            ..Capabilities::USUAL
        }
    }

    fn place(&self) -> String {
        format!("etcd at {}", self.shared.client.options().hosts.join(", "))
    }

    fn endpoint(&self) -> Option<String> {
        self.shared.client.calls.next_endpoint().map(str::to_owned)
    }

    fn key(&self, name: &str, id: Option<&str>) -> String {
        let keys = &self.shared.keys;
        id.map_or_else(|| keys.service_prefix(name), |id| keys.instance(name, id))
    }

    /// Reads one key of the prefix at most, from the leader: that takes a connection and a token. A user who may not read all
    /// of the prefix has shown both, which is logged once; whether he may read or write the names that are asked for, they
    /// tell.
    async fn contact(&self) -> Result<()> {
        let (first, end) = self.shared.keys.all();
        let options = GetOptions::new().with_range(end).with_limit(1).with_keys_only();
        match self.shared.range("contact", first, options).await {
            Err(fault) if fault.error.kind() == ErrorKind::PermissionDenied => {
                if !self.limits_told.swap(true, Ordering::Relaxed) {
                    let error = self.shared.explain(fault, "read", self.shared.keys.prefix());
                    let log = self.shared.client.calls.log();
                    log.info(format_args!("not all names can be read: {error}"));
                }
                Ok(())
            }
            Err(fault) => Err(self.shared.explain(fault, "read", self.shared.keys.prefix())),
            Ok(_) => Ok(()),
        }
    }

    fn presence(&self, name: &str, id: &str) -> Result<Box<dyn Presence>> {
        Ok(Box::new(EtcdPresence::new(Arc::clone(&self.shared), name, id)))
    }

    async fn fetch(&self, name: &str) -> Result<Snapshot> {
        let read = self.shared.read_service(name).await?;
        let mut snapshot = Snapshot::default();
        let name = Arc::from(name);
        for record in &read.records {
            match self.shared.keys.read(&name, record.key(), record.value()) {
                Some(Ok(instance)) => snapshot.instances.push(Arc::new(instance)),
                Some(Err(bad)) => snapshot.bad.push(bad),
                None => {}
            }
        }
        Ok(snapshot)
    }

    fn follow(&self, name: &str) -> Follow {
        Follow::Stream(follow::follow(Arc::clone(&self.shared), name))
    }

    async fn services(&self) -> Result<Vec<String>> {
        let (names, _) = Names::read(&self.shared).await?;
        Ok(names.into_names())
    }

    fn follow_services(&self) -> Follow<Vec<Arc<ServiceName>>> {
        Follow::Stream(follow::follow_range(Arc::clone(&self.shared), Names::default()))
    }

    fn store(&self) -> Option<Arc<dyn Store>> {
        Some(Arc::new(EtcdStore(Arc::clone(&self.shared))))
    }

    async fn close(&self) {
        if !self.is_guest {
            self.shared.client.close();
        }
    }
}
