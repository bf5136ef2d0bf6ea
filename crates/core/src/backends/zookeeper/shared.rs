//! What the backend, its presences and its streams have in common.

use std::sync::Arc;

use super::client::{Acl, Mode, ZkError};
use super::options::ZookeeperOptions;
use super::owners::Owners;
use super::paths::Paths;
use super::session::{Session, Sessions};
use crate::error::Result;

/// What the backend, its presences and its streams have in common.
pub(super) struct Shared {
    pub(super) options: ZookeeperOptions,
    pub(super) acls: Vec<Acl>,
    pub(super) paths: Paths,
    pub(super) sessions: Arc<Sessions>,
    pub(super) owners: Owners,
}

impl Shared {
    /// Makes a node and the parents that it lacks, persistent and empty.
    pub(super) async fn make(&self, session: &Session, path: &str) -> Result<()> {
        let mut missing = vec![path];
        while let Some(path) = missing.last().copied() {
            match session.client.create(path, b"", Mode::Persistent, &self.acls).await {
                Ok(_) | Err(ZkError::NodeExists) => {
                    missing.pop();
                }
                Err(ZkError::NoNode) => match path.rfind('/') {
                    // In the upwards direction; it comes down again. Bounded: a path that goes again and again is a race.
                    Some(slash) if slash > 0 && missing.len() < 256 => missing.push(&path[..slash]),
                    _ => return Err(self.no_chroot()),
                },
                Err(error) => return Err(session.explain(error, "create", path)),
            }
        }
        Ok(())
    }
}
