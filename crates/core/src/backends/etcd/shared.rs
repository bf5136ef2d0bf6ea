//! What the backend, its presences and its streams have in common: the client, the keys, and how a range is read.

use std::time::Duration;

use etcd_client::GetOptions;

use super::keys::Keys;
use crate::error::{Error, ErrorKind, Result};
use crate::etcd::{EtcdClient, Fault};

/// What the backend, its presences and its streams have in common.
pub(super) struct Shared {
    pub(super) client: EtcdClient,
    pub(super) keys: Keys,
    /// What leases are asked for.
    pub(super) ttl: Duration,
}

/// One range read: records as they lie there, and of which moment.
pub(super) struct RangeRead {
    pub(super) records: Vec<etcd_client::KeyValue>,
    pub(super) revision: i64,
    pub(super) cluster: u64,
}

impl Shared {
    /// Reads a range, from the leader.
    pub(super) async fn range(
        &self,
        op: &'static str,
        first: Vec<u8>,
        options: GetOptions,
    ) -> Result<RangeRead, Fault> {
        let mut answer = self
            .client
            .calls
            .call(op, |client| {
                let (first, options, mut kv) = (first.clone(), options.clone(), self.client.calls.kv(&client));
                async move { kv.get(first, Some(options)).await }
            })
            .await?;
        let (revision, cluster) = answer.header().map_or((0, 0), |h| (h.revision(), h.cluster_id()));
        Ok(RangeRead {
            records: answer.take_kvs(),
            revision,
            cluster,
        })
    }

    /// Reads all records of a name at one revision.
    pub(super) async fn read_service(&self, name: &str) -> Result<RangeRead> {
        let (first, end) = self.keys.service(name);
        self.range("read a service", first, GetOptions::new().with_range(end))
            .await
            .map_err(|fault| self.explain(fault, "read", &self.keys.service_prefix(name)))
    }

    /// Says of a refusal what of the registry was refused, and how to grant it.
    pub(super) fn explain(&self, fault: Fault, right: &str, what: &str) -> Error {
        self.explain_under(fault, right, what, self.keys.prefix())
    }

    /// The same of what lies under a prefix of its own.
    pub(super) fn explain_under(&self, fault: Fault, right: &str, what: &str, prefix: &str) -> Error {
        if fault.error.kind() != ErrorKind::PermissionDenied {
            return fault.error.about(what);
        }
        let user = self.client.options().username.as_deref().unwrap_or_default();
        let message = format!(
            "the etcd user {user:?} may not {right} {what:?}; grant it with: etcdctl role grant-permission <role of the user> --prefix=true readwrite {prefix}"
        );
        Error::new(ErrorKind::PermissionDenied, message)
            .about(what)
            .caused_by(fault.error)
    }
}
