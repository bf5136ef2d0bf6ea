//! What is followed: the instances of one name, or the names of the registry; and, in `config`, the pairs of a store. All the
//! rest is the same for all.

use std::hash::Hash;
use std::sync::Arc;

use async_trait::async_trait;

use super::list::Entry;
use crate::backend::{Backend, BadRecord, Follow, ServiceName, Snapshot};
use crate::error::Result;
use crate::instance::ServiceInstance;
use crate::store::Moment;

/// Told of the bad records of each snapshot of a name.
pub(crate) type OnBad = Arc<dyn Fn(&str, &[BadRecord]) + Send + Sync>;

/// What one reflector follows, and how its backend is asked for it.
#[async_trait]
pub(crate) trait Subject: Clone + Eq + Hash + Send + Sync + 'static {
    /// What its lists are made of.
    type Entry: Entry;
    /// What the backend gives.
    type Read: Send + 'static;
    /// What messages call its entries.
    const OF: &'static str;

    /// What messages call it.
    fn called(&self) -> &str;

    /// What errors are about.
    fn key(&self, backend: &dyn Backend) -> Option<String>;

    fn follow(&self, backend: &dyn Backend) -> Follow<Self::Read>;

    async fn fetch(&self, backend: &dyn Backend) -> Result<Self::Read>;

    /// When a read was made, where that is told.
    fn moment(_read: &Self::Read) -> Option<Moment> {
        None
    }

    /// The entries of a read; what is bad in it is reported.
    fn entries(&self, read: Self::Read, on_bad: &OnBad) -> Vec<Arc<Self::Entry>>;
}

/// The instances of a name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Instances(pub Arc<str>);

#[async_trait]
impl Subject for Instances {
    type Entry = ServiceInstance;
    type Read = Snapshot;
    const OF: &'static str = "instances";

    fn called(&self) -> &str {
        &self.0
    }

    fn key(&self, backend: &dyn Backend) -> Option<String> {
        Some(backend.key(&self.0, None))
    }

    fn follow(&self, backend: &dyn Backend) -> Follow {
        backend.follow(&self.0)
    }

    async fn fetch(&self, backend: &dyn Backend) -> Result<Snapshot> {
        backend.fetch(&self.0).await
    }

    fn entries(&self, read: Snapshot, on_bad: &OnBad) -> Vec<Arc<ServiceInstance>> {
        on_bad(&self.0, &read.bad);
        read.instances
    }
}

/// The names that have instances.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Names;

#[async_trait]
impl Subject for Names {
    type Entry = ServiceName;
    type Read = Vec<Arc<ServiceName>>;
    const OF: &'static str = "names";

    fn called(&self) -> &'static str {
        "the names of the services"
    }

    fn key(&self, _: &dyn Backend) -> Option<String> {
        None
    }

    fn follow(&self, backend: &dyn Backend) -> Follow<Self::Read> {
        backend.follow_services()
    }

    async fn fetch(&self, backend: &dyn Backend) -> Result<Self::Read> {
        let named = |name: String| {
            Arc::new(ServiceName {
                name: name.into(),
                count: None,
            })
        };
        Ok(backend.services().await?.into_iter().map(named).collect())
    }

    fn entries(&self, read: Self::Read, _: &OnBad) -> Vec<Arc<ServiceName>> {
        read
    }
}
