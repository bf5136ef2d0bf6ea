//! The etcd backend: one key per instance, `{prefix}/{name}/{id}`, attached to a lease, as Go Kratos writes it
//! (`contrib/registry/etcd`). What may be read under the keys of others is in `keys.rs`.

mod follow;
mod keys;
mod options;
mod presence;
mod shared;

use std::sync::Arc;

use async_trait::async_trait;
use etcd_client::GetOptions;

use self::keys::Keys;
pub use self::options::EtcdRecords;
use self::presence::EtcdPresence;
use self::shared::Shared;
use crate::backend::{Backend, Capabilities, Follow, Presence, Snapshot};
use crate::error::{Error, ErrorKind, Result};
use crate::etcd::{Cause, EtcdClient, EtcdOptions, Fault};
use crate::log::Log;

/// Keys per page when all of the prefix is read.
const PAGE: i64 = 1000;
/// How often reading all pages is begun anew because its revision was compacted meanwhile.
const COMPACTED_TRIES: u32 = 3;

/// Service registry in etcd.
pub struct EtcdBackend {
    shared: Arc<Shared>,
}

impl EtcdBackend {
    /// A backend for these options. No I/O; errors are `InvalidArgument` and name the option.
    pub fn new(options: EtcdOptions, records: &EtcdRecords, log: Log) -> Result<Self> {
        records.validate()?;
        let client = EtcdClient::new(options, log)?;
        Ok(Self {
            shared: Arc::new(Shared {
                client,
                keys: Keys::new(&records.prefix, records.codec),
                ttl: records.ttl,
            }),
        })
    }

    /// All names at one revision; `Compacted` when that revision went away between two pages.
    async fn names_at_once(&self) -> Result<Vec<String>, Fault> {
        let shared = &self.shared;
        let (first, end) = shared.keys.all();
        let mut names = std::collections::BTreeSet::new();
        let mut from = first;
        let mut revision = 0;
        let mut limit = PAGE;
        loop {
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(limit)
                .with_revision(revision);
            let page = match shared.range("list services", from.clone(), options).await {
                // Large records: fewer at a time.
                Err(fault) if fault.cause == Cause::TooLarge && limit > 1 => {
                    limit = (limit / 8).max(1);
                    continue;
                }
                other => other?,
            };
            if revision == 0 {
                revision = page.revision; // later answers name the revision of their own moment, not that of what they hold
            }
            for record in &page.records {
                if let Some(name) = shared.keys.name_of(record.key(), record.value())
                    && !names.contains(&name)
                {
                    names.insert(name);
                }
            }
            match page.records.last() {
                Some(last) if i64::try_from(page.records.len()).unwrap_or(limit) >= limit => {
                    from = last.key().to_vec();
                    from.push(0); // the first key after it
                }
                _ => return Ok(names.into_iter().collect()),
            }
        }
    }
}

#[async_trait]
impl Backend for EtcdBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn place(&self) -> String {
        format!("etcd at {}", self.shared.client.options().hosts.join(", "))
    }

    /// Reads one key of the prefix at most, from the leader: that takes a connection and a token. A user who may not read all
    /// of the prefix has shown both; whether he may read or write the names that are asked for, they tell.
    async fn contact(&self) -> Result<()> {
        let (first, end) = self.shared.keys.all();
        let options = GetOptions::new().with_range(end).with_limit(1).with_keys_only();
        match self.shared.range("contact", first, options).await {
            Err(fault) if fault.error.kind() == ErrorKind::PermissionDenied => {
                let error = self.shared.explain(fault, "read", self.shared.keys.prefix());
                let log = self.shared.client.calls.log();
                log.info(format_args!("not all names can be read: {error}"));
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
        for _ in 0..COMPACTED_TRIES {
            match self.names_at_once().await {
                Err(fault) if fault.cause == Cause::Compacted => {}
                other => {
                    return other.map_err(|fault| self.shared.explain(fault, "read", self.shared.keys.prefix()));
                }
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "etcd compacted the revision that was being listed, again and again",
        ))
    }

    async fn close(&self) {
        self.shared.client.close();
    }
}
