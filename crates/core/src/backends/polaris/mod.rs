//! The backend of Polaris, <https://github.com/polarismesh/polaris>, on its gRPC API: services and instances as Go Kratos's two
//! packages write them (`contrib/polaris`, `contrib/registry/polaris`).
//!
//! Nothing is pushed and nothing is removed: readers ask, and an instance whose heartbeats stop turns unhealthy, while its
//! record stays. A server knows neither ids nor owners; see [standing].

mod client;
mod follow;
mod names;
mod options;
mod presence;
mod record;
mod renewal;
mod shared;
mod standing;

use std::sync::Arc;

use async_trait::async_trait;

use self::client::Client;
pub use self::options::{PolarisLayout, PolarisOptions};
use self::presence::PolarisPresence;
use self::record::Form;
use self::shared::{SETTLES, Shared};
use crate::backend::{Backend, Capabilities, Follow, Presence, ServiceName, Snapshot};
use crate::error::Result;
use crate::instance::ServiceInstance;
use crate::log::Log;

/// Service registry in Polaris.
pub struct PolarisBackend {
    shared: Arc<Shared>,
}

impl PolarisBackend {
    /// A backend for these options. No I/O; errors are `InvalidArgument` and name the option.
    pub fn new(options: PolarisOptions, log: &Log) -> Result<Self> {
        options.validate()?;
        Ok(Self {
            shared: Arc::new(Shared {
                form: Form::of(&options),
                client: Client::new(&options, log)?,
                options,
            }),
        })
    }
}

#[async_trait]
impl Backend for PolarisBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            settles: SETTLES,
            own_switch: true,
            ..Capabilities::USUAL
        }
    }

    fn place(&self) -> String {
        format!("Polaris at {}", self.shared.options.hosts.join(", "))
    }

    fn endpoint(&self) -> Option<String> {
        self.shared.client.endpoint()
    }

    fn key(&self, name: &str, id: Option<&str>) -> String {
        let namespace = &self.shared.form.namespace;
        id.map_or_else(
            || format!("{namespace}/{name}"),
            |id| format!("{namespace}/{name}/{id}"),
        )
    }

    /// Asks for the services, which shows whether the token is one.
    async fn contact(&self) -> Result<()> {
        let connection = self.shared.client.connection().await?;
        connection.services(&self.shared.form.namespace).await.map(drop)
    }

    fn check(&self, instance: &ServiceInstance) -> Result<()> {
        self.shared.form.check(instance)
    }

    fn presence(&self, name: &str, id: &str) -> Result<Box<dyn Presence>> {
        Ok(Box::new(PolarisPresence::new(Arc::clone(&self.shared), name, id)))
    }

    async fn fetch(&self, name: &str) -> Result<Snapshot> {
        self.shared.fetch(name).await
    }

    fn follow(&self, name: &str) -> Follow {
        Follow::Stream(follow::follow(Arc::clone(&self.shared), name))
    }

    async fn services(&self) -> Result<Vec<String>> {
        names::read(&self.shared).await
    }

    fn follow_services(&self) -> Follow<Vec<Arc<ServiceName>>> {
        Follow::Stream(names::follow(Arc::clone(&self.shared)))
    }

    async fn close(&self) {
        self.shared.client.close();
    }
}

#[cfg(test)]
mod tests;
