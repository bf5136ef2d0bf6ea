//! The backend of bilibili's discovery, <https://github.com/bilibili/discovery>, as Go Kratos writes to it
//! (`contrib/registry/discovery`).
//!
//! Each node of a cluster keeps everything in memory and passes on what it is told. A record is one host name of an
//! application, which here is the id of the instance; whose it is, a key of its metadata tells. A record that is not
//! renewed for 90 s is evicted, unless so many are not that the server takes that for a fault of its own: then after an
//! hour.

mod follow;
mod nodes;
mod options;
mod presence;
mod record;
mod renewal;
mod shared;
mod standing;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use self::follow::Hub;
use self::nodes::{Call, Nodes};
pub use self::options::BilibiliOptions;
use self::presence::BilibiliPresence;
use self::record::Raw;
use self::shared::Shared;
use crate::backend::{Backend, Capabilities, Follow, Presence, Snapshot};
use crate::error::{Error, Result};
use crate::instance::ServiceInstance;
use crate::log::Log;

/// Service registry in bilibili's discovery.
pub struct BilibiliBackend {
    shared: Arc<Shared>,
    hub: Arc<Hub>,
}

impl BilibiliBackend {
    /// A backend for these options. No I/O; errors are `InvalidArgument` and name the option.
    pub fn new(options: BilibiliOptions, log: Log) -> Result<Self> {
        options.validate()?;
        Ok(Self {
            shared: Arc::new(Shared {
                nodes: Arc::new(Nodes::new(&options)?),
                options,
                log,
            }),
            hub: Arc::default(),
        })
    }
}

#[async_trait]
impl Backend for BilibiliBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            own_switch: true,
            ..Capabilities::USUAL
        }
    }

    fn place(&self) -> String {
        format!("discovery at {}", self.shared.options.hosts.join(", "))
    }

    fn endpoint(&self) -> Option<String> {
        Some(self.shared.nodes.endpoint())
    }

    /// Asks for the nodes, which shows whether environment and zone are any of the cluster's: it takes every other, and has
    /// nothing there.
    async fn contact(&self) -> Result<()> {
        let Shared { nodes, options, .. } = &*self.shared;
        if !options.discover_nodes {
            let call = Call::get("/discovery/nodes", String::new());
            return nodes.read::<serde_json::Value>(&call).await.map(drop);
        }
        let or_else = "; give one that has, or discoverNodes: false";
        let zones = nodes.learn().await?.map(|info| info.instances).unwrap_or_default();
        let zones: Vec<_> = zones
            .into_iter()
            .filter(|(_, list)| list.as_ref().is_some_and(|list| !list.is_empty()))
            .map(|(zone, _)| zone)
            .collect();
        if zones.is_empty() {
            let env = &options.env;
            return Err(Error::invalid(format!(
                "options.env: this cluster has no node in the environment {env:?}{or_else}"
            )));
        }
        if !zones.contains(&options.zone) {
            let (zone, have) = (&options.zone, zones.join(", "));
            return Err(Error::invalid(format!(
                "options.zone: this cluster has no node in the zone {zone:?}, but in {have}{or_else}"
            )));
        }
        Ok(())
    }

    fn check(&self, instance: &ServiceInstance) -> Result<()> {
        record::check_instance(instance)
    }

    fn presence(&self, name: &str, id: &str) -> Result<Box<dyn Presence>> {
        Ok(Box::new(BilibiliPresence::new(Arc::clone(&self.shared), name, id)))
    }

    async fn fetch(&self, name: &str) -> Result<Snapshot> {
        Ok(self.shared.fetch(&name.into()).await?.0)
    }

    fn follow(&self, name: &str) -> Follow {
        Follow::Stream(follow::follow(Arc::clone(&self.shared), Arc::clone(&self.hub), name))
    }

    async fn services(&self) -> Result<Vec<String>> {
        let call = Call::get("/discovery/fetch/all", String::new());
        let answer = self
            .shared
            .nodes
            .read::<BTreeMap<String, Option<Vec<Raw>>>>(&call)
            .await?;
        Ok(record::names(&self.shared.options, answer.data.unwrap_or_default()))
    }

    async fn close(&self) {
        self.hub.stop();
        self.shared.nodes.stop();
    }
}

#[cfg(test)]
mod tests;
