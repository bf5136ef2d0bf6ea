//! The ZooKeeper backend: one ephemeral node per instance, `{prefix}/{name}/{id}`, as Go Kratos writes it
//! (`contrib/registry/zookeeper`), all of one client under one session.

mod client;
mod error;
mod follow;
mod names;
mod options;
mod owners;
mod paths;
mod presence;
mod read;
mod session;
mod shared;
mod store;
mod sweep;

use std::sync::Arc;

use async_trait::async_trait;

use self::client::ZkError;
pub use self::options::{Authentication, NodeAcl, User, ZookeeperOptions};
use self::owners::Owners;
use self::paths::Paths;
use self::presence::ZookeeperPresence;
use self::session::Sessions;
use self::shared::Shared;
use self::store::ZookeeperStore;
use crate::backend::{Backend, Capabilities, Follow, Presence, ServiceName, Snapshot};
use crate::error::{Error, Result};
use crate::instance::ServiceInstance;
use crate::log::Log;
use crate::store::Store;

/// Service registry in ZooKeeper.
pub struct ZookeeperBackend {
    shared: Arc<Shared>,
}

impl ZookeeperBackend {
    /// A backend for these options. No I/O; errors are `InvalidArgument` and name the option.
    pub fn new(options: ZookeeperOptions, log: Log) -> Result<Self> {
        let options = options.checked()?;
        Ok(Self {
            shared: Arc::new(Shared {
                acls: options.acls(),
                paths: Paths::new(&options.prefix, options.codec),
                sessions: Sessions::new(options.clone(), place(&options), log)?,
                owners: Owners::default(),
                options,
            }),
        })
    }
}

fn place(options: &ZookeeperOptions) -> String {
    format!("ZooKeeper at {}{}", options.hosts.join(", "), options.chroot)
}

#[async_trait]
impl Backend for ZookeeperBackend {
    /// Readings that are asked side by side go in one request, so many cost the server little more than a few.
    fn reads_in_flight(&self) -> usize {
        512
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            since: true,
            ..Capabilities::USUAL
        }
    }

    fn place(&self) -> String {
        place(&self.shared.options)
    }

    fn endpoint(&self) -> Option<String> {
        self.shared.sessions.member()
    }

    fn key(&self, name: &str, id: Option<&str>) -> String {
        let paths = &self.shared.paths;
        id.map_or_else(|| paths.service(name), |id| paths.instance(name, id))
    }

    /// Opens the session and reads the prefix, which proves the user where it has an access list.
    async fn contact(&self) -> Result<()> {
        let shared = &self.shared;
        let session = shared.sessions.get().await?;
        shared.chroot_is_there(&session).await?;
        let prefix = shared.paths.prefix();
        match session.client.data(prefix).await {
            Ok(_) | Err(ZkError::NoNode) => Ok(()),
            Err(error) => Err(session.explain(error, "read", prefix)),
        }
    }

    fn check(&self, instance: &ServiceInstance) -> Result<()> {
        if self
            .shared
            .paths
            .is_reserved(&instance.name, &self.shared.options.chroot)
        {
            return Err(Error::invalid(
                "instance.name: \"zookeeper\" belongs to ZooKeeper itself where the prefix is \"/\"",
            ));
        }
        Ok(())
    }

    fn presence(&self, name: &str, id: &str) -> Result<Box<dyn Presence>> {
        Ok(Box::new(ZookeeperPresence::new(Arc::clone(&self.shared), name, id)))
    }

    async fn fetch(&self, name: &str) -> Result<Snapshot> {
        let read = async {
            let session = self.shared.sessions.get().await?;
            self.shared.entries(&session, &name.into()).await
        };
        let entries = read.await.map_err(|error| error.about(&self.key(name, None)))?;
        Ok(read::snapshot(&entries))
    }

    fn follow(&self, name: &str) -> Follow {
        Follow::Stream(follow::follow(Arc::clone(&self.shared), name))
    }

    async fn services(&self) -> Result<Vec<String>> {
        let read = async {
            let session = self.shared.sessions.get().await?;
            self.shared.names(&session).await
        };
        read.await.map_err(|error| error.about(self.shared.paths.prefix()))
    }

    fn follow_services(&self) -> Follow<Vec<Arc<ServiceName>>> {
        Follow::Stream(names::follow(Arc::clone(&self.shared)))
    }

    fn store(&self) -> Option<Arc<dyn Store>> {
        Some(Arc::new(ZookeeperStore(Arc::clone(&self.shared))))
    }

    async fn close(&self) {
        self.shared.sessions.close().await;
    }
}
