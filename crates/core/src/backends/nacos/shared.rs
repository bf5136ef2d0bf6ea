//! What the backend, its presences and its streams have in common, and how a name is read.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::book::Book;
use super::client::{Client, Connection, List};
use super::merge::merge;
use super::options::{NacosForm, NacosOptions};
use super::record::Form;
use crate::backend::Snapshot;
use crate::error::Result;
use crate::parts::Merged;

/// How long a change of one instance may be spread over several services: they are told of up to a second apart.
pub(super) const SETTLES: Duration = Duration::from_millis(1200);

/// What the backend, its presences and its streams have in common.
pub(super) struct Shared {
    pub(super) options: Arc<NacosOptions>,
    pub(super) form: Form,
    pub(super) client: Arc<Client>,
    pub(super) book: Book,
    /// Numbers the presences.
    pub(super) holders: AtomicU64,
}

impl Shared {
    /// How long the hosts of an instance may come apart.
    pub(super) fn settles(&self) -> Duration {
        if self.form.codec == NacosForm::Kratos {
            SETTLES
        } else {
            Duration::ZERO
        }
    }

    /// The lists of all services of a name, each read once.
    pub(super) async fn read(&self, connection: &Connection, name: &str) -> Result<Vec<List>> {
        let services = self.form.services(name);
        try_join_all(services.iter().map(|service| connection.query(service))).await
    }

    pub(super) fn merge(&self, name: &Arc<str>, lists: &[List]) -> Merged {
        merge(&self.form, &self.options.group, name, lists)
    }

    /// Reads a name, again while an instance has not all its hosts, for as long as that may take.
    pub(super) async fn fetch(&self, name: &str) -> Result<Snapshot> {
        let name: Arc<str> = name.into();
        let until = Instant::now() + self.settles();
        loop {
            let connection = self.client.connection().await?;
            let merged = self.merge(&name, &self.read(&connection, &name).await?);
            if merged.is_whole || Instant::now() >= until {
                return Ok(merged.snapshot);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}
