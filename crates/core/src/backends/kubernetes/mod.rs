//! The backend of Kubernetes, by the API of the cluster.
//!
//! An instance is a pod with the labels and annotations of Go Kratos (`contrib/registry/kubernetes`), which it writes onto its
//! own; or an endpoint of a Service, which nobody registers. Nothing expires: a record goes with its pod.

mod client;
mod feed;
mod follow;
mod lines;
mod model;
mod options;
mod pods;
mod presence;
mod reading;
mod slices;
mod store;
mod watching;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use self::client::Cluster;
use self::feed::Feed;
pub use self::options::{KubernetesOptions, Source};
use self::presence::{Held, KubernetesPresence};
use self::store::Kind;
use crate::backend::{Backend, Capabilities, Follow, Presence, ServiceName, Snapshot};
use crate::error::{ErrorKind, Result};
use crate::instance::ServiceInstance;
use crate::log::Log;

/// Service registry in Kubernetes.
pub struct KubernetesBackend {
    cluster: Arc<Cluster>,
    /// Of each kind that is read, in the order in which they count.
    feeds: Vec<Arc<Feed>>,
    held: Held,
}

impl KubernetesBackend {
    /// A backend for these options. No I/O: files are read at the first call. Errors are `InvalidArgument` and name the option.
    pub fn new(options: KubernetesOptions, log: Log) -> Result<Self> {
        options.validate()?;
        let kinds: &[Kind] = match options.source {
            Source::Auto => &[Kind::Pods, Kind::Slices],
            Source::Pods => &[Kind::Pods],
            Source::Slices => &[Kind::Slices],
        };
        let cluster = Arc::new(Cluster::new(options, log));
        Ok(Self {
            feeds: kinds
                .iter()
                .map(|kind| Feed::new(*kind, Arc::clone(&cluster)))
                .collect(),
            cluster,
            held: Held::default(),
        })
    }
}

#[async_trait]
impl Backend for KubernetesBackend {
    fn capabilities(&self) -> Capabilities {
        let options = &self.cluster.options;
        Capabilities {
            expires: false,
            owners: false,
            keeps_id: options.source != Source::Slices,
            one_registration: true,
            own_switch: !options.not_ready, // readiness
            ..Capabilities::USUAL
        }
    }

    fn place(&self) -> String {
        let endpoint = self.cluster.endpoint();
        endpoint.map_or_else(
            || "Kubernetes".to_owned(),
            |endpoint| format!("Kubernetes at {endpoint}"),
        )
    }

    fn endpoint(&self) -> Option<String> {
        self.cluster.endpoint()
    }

    /// Asks for one object of each kind that is read, which shows who we are and what we may.
    async fn contact(&self) -> Result<()> {
        let mut asked = Vec::new();
        for feed in &self.feeds {
            let may = reading::may(&self.cluster, feed.kind).await;
            if let Err(error) = &may
                && error.kind() == ErrorKind::PermissionDenied
                && self.feeds.len() > 1
            {
                let log = &self.cluster.log;
                log.warn(format_args!(
                    "{error}; without it only the other of pods and endpointslices is read"
                ));
            }
            asked.push(may);
        }
        follow::allowed(asked)?;
        self.cluster.check_namespace().await
    }

    fn check(&self, instance: &ServiceInstance) -> Result<()> {
        pods::check(instance)
    }

    fn presence(&self, name: &str, id: &str) -> Result<Box<dyn Presence>> {
        let cluster = Arc::clone(&self.cluster);
        Ok(Box::new(KubernetesPresence::new(cluster, &self.held, name, id)?))
    }

    async fn fetch(&self, name: &str) -> Result<Snapshot> {
        if !pods::is_label(name) || name.is_empty() {
            return Ok(Snapshot::default()); // nothing can be called so
        }
        let shared = name.into();
        let mut read = Vec::new();
        for feed in &self.feeds {
            let listed = reading::list(&self.cluster, feed.kind, Some(name)).await;
            let listed = listed.map(|(store, _)| store.snapshot(&self.cluster.options, &shared));
            let is_enough = listed.as_ref().is_ok_and(|list| !list.instances.is_empty());
            read.push(listed);
            if is_enough {
                break;
            }
        }
        Ok(follow::first_of(follow::allowed(read)?))
    }

    fn follow(&self, name: &str) -> Follow {
        Follow::Stream(follow::follow(&self.feeds, name))
    }

    async fn services(&self) -> Result<Vec<String>> {
        let mut read = Vec::new();
        for feed in &self.feeds {
            let listed = reading::list(&self.cluster, feed.kind, None).await;
            read.push(listed.map(|(store, _)| store.names(&self.cluster.options)));
        }
        let names = follow::allowed(read)?.into_iter().flatten();
        let names: BTreeSet<String> = names.map(|name| name.to_string()).collect();
        Ok(names.into_iter().collect())
    }

    fn follow_services(&self) -> Follow<Vec<Arc<ServiceName>>> {
        Follow::Stream(follow::follow_names(&self.feeds))
    }

    async fn close(&self) {
        for feed in &self.feeds {
            feed.stop();
        }
    }
}

#[cfg(test)]
mod tests;
