//! The Consul backend, on the HTTP API of an agent: one service of the agent per instance, as Go Kratos writes it
//! (`contrib/registry/consul`), with a TTL check that is renewed here.
//!
//! Which process wrote a record is told by the `Notes` of its TTL check. An agent knows its own services only: the same id
//! on two agents is two records.

mod agents;
mod bell;
mod follow;
mod http;
mod index;
mod leftovers;
mod life;
mod names;
mod options;
mod presence;
mod record;
mod renewal;
mod room;
mod service;
mod shared;
mod store;
mod twins;
mod words;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use self::agents::Agents;
use self::bell::Bells;
use self::life::Lives;
pub use self::options::{Consistency, ConsulOptions, HealthCheck};
use self::presence::ConsulPresence;
use self::shared::{Shared, snapshot};
use self::store::ConsulStore;
use crate::backend::{Backend, Capabilities, Follow, Presence, ServiceName, Snapshot};
use crate::error::{ErrorKind, Result};
use crate::instance::ServiceInstance;
use crate::log::Log;
use crate::store::Store;

/// Service registry in Consul.
pub struct ConsulBackend {
    shared: Arc<Shared>,
}

impl ConsulBackend {
    /// A backend for these options. No I/O; errors are `InvalidArgument` and name the option.
    pub fn new(options: ConsulOptions, log: Log) -> Result<Self> {
        options.validate()?;
        let options = Arc::new(options);
        Ok(Self {
            shared: Arc::new(Shared {
                agents: Arc::new(Agents::new(&options, &log)?),
                bells: Bells::default(),
                lives: Lives::default(),
                leftovers: Arc::default(),
                options,
                log,
            }),
        })
    }
}

#[async_trait]
impl Backend for ConsulBackend {
    fn capabilities(&self) -> Capabilities {
        let heartbeat = self.shared.options.heartbeat;
        Capabilities {
            expires: heartbeat,
            owners: heartbeat,
            own_switch: true,
            ..Capabilities::USUAL
        }
    }

    fn place(&self) -> String {
        format!("Consul at {}", self.shared.options.hosts.join(", "))
    }

    fn endpoint(&self) -> Option<String> {
        self.shared.agents.next().map(str::to_owned)
    }

    /// Asks who leads, and whether the token is known. What the token may do, each call tells.
    async fn contact(&self) -> Result<()> {
        let agents = &self.shared.agents;
        let (agent, answer) = agents.read("/v1/status/leader").await?;
        let leader: Value = answer.json()?;
        let unavailable = |why| Err(agents.error(agent, ErrorKind::Unavailable, why));
        match leader.as_str() {
            Some("") => return unavailable("Consul has no leader at the moment"),
            Some(_) => {}
            None => return unavailable("the answer is none of Consul's"),
        }
        if self.shared.options.token.is_some() {
            let (_, answer) = agents.ask("/v1/acl/token/self").await?;
            // Without ACLs every token is as good as none.
            if !(answer.is_ok() || answer.says("ACL support disabled")) {
                return Err(answer.refusal("the token is not known"));
            }
        }
        Ok(())
    }

    fn check(&self, instance: &ServiceInstance) -> Result<()> {
        record::check_instance(instance)
    }

    fn presence(&self, name: &str, id: &str) -> Result<Box<dyn Presence>> {
        Ok(Box::new(ConsulPresence::new(Arc::clone(&self.shared), name, id)))
    }

    async fn fetch(&self, name: &str) -> Result<Snapshot> {
        let path = self.shared.health_path(name)?;
        let read = self.shared.agents.read(&path).await;
        read.and_then(|(_, answer)| snapshot(name, &answer))
            .map_err(|error| error.about(&self.key(name, None)))
    }

    fn follow(&self, name: &str) -> Follow {
        Follow::Stream(follow::follow(Arc::clone(&self.shared), name))
    }

    async fn services(&self) -> Result<Vec<String>> {
        Ok(names::read(&self.shared, "").await?.names)
    }

    fn follow_services(&self) -> Follow<Vec<Arc<ServiceName>>> {
        Follow::Stream(names::follow(Arc::clone(&self.shared)))
    }

    fn store(&self) -> Option<Arc<dyn Store>> {
        Some(Arc::new(ConsulStore(Arc::clone(&self.shared))))
    }

    async fn close(&self) {
        self.shared.bells.stop();
        self.shared.lives.stop();
        self.shared.leftovers.stop();
    }
}

#[cfg(test)]
mod tests;
