//! What the backend, its presences and its streams have in common, and how a name is read.

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::client::{Client, Connection, Instance};
use super::options::PolarisOptions;
use super::record::Form;
use crate::backend::Snapshot;
use crate::error::Result;
use crate::parts::Merged;

/// For how long an instance may be seen in part: a server looks at its store once a second, maybe between two writes.
pub(super) const SETTLES: Duration = Duration::from_millis(1200);
/// Between two looks for what is expected.
pub(super) const LOOK: Duration = Duration::from_millis(100);

pub(super) struct Shared {
    pub(super) options: PolarisOptions,
    pub(super) form: Form,
    pub(super) client: Client,
}

/// What stands in the services of a name.
pub(super) type Lists = Vec<(String, Vec<Instance>)>;

impl Shared {
    /// The lists of all services of a name, each read once.
    pub(super) async fn read(&self, connection: &Connection, name: &str) -> Result<Lists> {
        let services = self.form.services(name);
        let reads = services.into_iter().map(|service| async move {
            let list = connection.list(&self.form.namespace, &service, "").await?;
            Ok((service, list.map(|list| list.instances).unwrap_or_default()))
        });
        try_join_all(reads).await
    }

    pub(super) fn merge(&self, name: &Arc<str>, lists: &Lists) -> Merged {
        let lists = lists.iter().map(|(service, list)| (service.as_str(), list.as_slice()));
        self.form.merge(name, lists)
    }

    /// Reads a name, again while an instance has not all its records, for as long as that may take.
    pub(super) async fn fetch(&self, name: &str) -> Result<Snapshot> {
        let name: Arc<str> = name.into();
        let until = Instant::now() + SETTLES;
        loop {
            let connection = self.client.connection().await?;
            let merged = self.merge(&name, &self.read(&connection, &name).await?);
            if merged.is_whole || Instant::now() >= until {
                return Ok(merged.snapshot);
            }
            sleep(LOOK).await;
        }
    }
}
