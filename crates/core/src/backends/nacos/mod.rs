//! The Nacos backend, on the gRPC API of Nacos 2 and 3: services and hosts as Go Kratos's registry writes them
//! (`contrib/registry/nacos`), or as Java and Node.js services do.
//!
//! Liveness is the connection: what a client has registered ends with it. The server knows neither ids nor owners; see
//! [record] and [presence].

mod book;
mod client;
mod follow;
mod merge;
mod names;
mod options;
mod presence;
mod record;
mod shared;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;

use self::book::Book;
use self::client::Client;
pub use self::options::{AccessKey, NacosForm, NacosOptions};
use self::presence::NacosPresence;
use self::record::Form;
use self::shared::Shared;
use crate::backend::{Backend, Capabilities, Follow, Presence, ServiceName, Snapshot};
use crate::error::Result;
use crate::instance::ServiceInstance;
use crate::log::Log;

/// Service registry in Nacos.
pub struct NacosBackend {
    shared: Arc<Shared>,
}

impl NacosBackend {
    /// A backend for these options. No I/O; errors are `InvalidArgument` and name the option.
    pub fn new(options: NacosOptions, log: &Log) -> Result<Self> {
        options.validate()?;
        let options = Arc::new(options);
        let client = Arc::new(Client::new(&options, log)?);
        Ok(Self {
            shared: Arc::new(Shared {
                form: Form {
                    codec: options.form,
                    cluster: options.cluster.clone(),
                    weight: options.weight,
                },
                book: Book::new(Arc::clone(&client)),
                client,
                options,
                holders: AtomicU64::default(),
            }),
        })
    }
}

#[async_trait]
impl Backend for NacosBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            settles: self.shared.settles(),
            ..Capabilities::USUAL
        }
    }

    fn place(&self) -> String {
        format!("Nacos at {}", self.shared.options.hosts.join(", "))
    }

    fn endpoint(&self) -> Option<String> {
        self.shared
            .client
            .current()
            .map(|connection| connection.address().to_owned())
    }

    fn key(&self, name: &str, id: Option<&str>) -> String {
        let group = &self.shared.options.group;
        id.map_or_else(|| format!("{group}@@{name}"), |id| format!("{group}@@{name}#{id}"))
    }

    /// Connects, logs in, and asks something: a server without access control takes any user.
    async fn contact(&self) -> Result<()> {
        let connection = self.shared.client.connection().await?;
        names::services(&connection).await.map(drop)
    }

    fn check(&self, instance: &ServiceInstance) -> Result<()> {
        self.shared.form.check(instance)
    }

    fn presence(&self, name: &str, id: &str) -> Result<Box<dyn Presence>> {
        Ok(Box::new(NacosPresence::new(Arc::clone(&self.shared), name, id)))
    }

    async fn fetch(&self, name: &str) -> Result<Snapshot> {
        let read = self.shared.fetch(name).await;
        read.map_err(|error| error.about(&self.key(name, None)))
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
        self.shared.book.close();
        self.shared.client.close();
    }
}

#[cfg(test)]
mod tests;
