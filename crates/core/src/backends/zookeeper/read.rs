//! Reading: nodes many at a time, a name as a snapshot, the names.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use zookeeper_client::{Error as ZkError, MultiReadResult, Stat};

use super::Shared;
use super::error::explain;
use super::session::Session;
use crate::backend::{BadRecord, Snapshot};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::ServiceInstance;

/// Nodes asked for in one request. A server refuses a request above 1 MiB, which is far more than so many paths.
const AT_ONCE: usize = 64;

/// What a node holds, as far as a name is concerned.
#[derive(PartialEq)]
pub(super) enum Entry {
    Good(Arc<ServiceInstance>),
    Bad(Box<BadRecord>),
}

/// What became of one node.
pub(super) enum Node {
    /// Data, and whether it has children.
    There(Vec<u8>, bool),
    Gone,
    /// We may list it and not read it.
    Denied,
}

impl Shared {
    /// The children of a node; none if it does not exist.
    pub(super) async fn children(&self, session: &Session, path: &str) -> Result<Vec<String>> {
        match session.client.list_children(path).await {
            Ok(children) => Ok(children),
            Err(ZkError::NoNode) => {
                self.chroot_is_there(session).await?;
                Ok(Vec::new())
            }
            Err(error) => Err(explain(error, &format!("list {path}"))),
        }
    }

    /// A missing chroot is a registry that is not there, not an empty one.
    pub(super) async fn chroot_is_there(&self, session: &Session) -> Result<()> {
        let chroot = &self.options.chroot;
        if chroot.is_empty() {
            return Ok(());
        }
        match session.client.check_stat("/").await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(self.no_chroot()),
            Err(error) => Err(explain(error, &format!("look at {chroot}"))),
        }
    }

    pub(super) fn no_chroot(&self) -> Error {
        let chroot = &self.options.chroot;
        Error::new(
            ErrorKind::Unavailable,
            format!("the chroot {chroot} does not exist; it is not made here, so that a wrong one is noticed"),
        )
    }

    /// Some children of a node, each request of one moment. In the order given.
    pub(super) async fn nodes(&self, session: &Session, parent: &str, children: &[String]) -> Result<Vec<Node>> {
        let mut nodes = Vec::with_capacity(children.len());
        for some in children.chunks(AT_ONCE) {
            let paths: Vec<String> = some.iter().map(|child| join(parent, child)).collect();
            let refused = |error| explain(error, &format!("read below {parent}"));
            match multi_read(session, &paths, false).await {
                Ok(results) if results.len() == paths.len() => {
                    for result in results {
                        nodes.push(match result {
                            MultiReadResult::Data { data, stat } => there(data, &stat),
                            MultiReadResult::Error { err } => absent(err).map_err(refused)?,
                            _ => return Err(odd_answer()),
                        });
                    }
                }
                Ok(_) => return Err(odd_answer()),
                // Before 3.6: one request each, all of them on their way at once.
                Err(ZkError::Unimplemented) => {
                    let reads = paths.iter().map(|path| session.client.get_data(path));
                    for read in join_all(reads).await {
                        nodes.push(match read {
                            Ok((data, stat)) => there(data, &stat),
                            Err(error) => absent(error).map_err(refused)?,
                        });
                    }
                }
                Err(error) => return Err(refused(error)),
            }
        }
        Ok(nodes)
    }

    /// What a node means to the readers of a name.
    pub(super) fn entry(&self, name: &Arc<str>, child: &str, node: &Node) -> Option<Entry> {
        let read = match node {
            Node::Gone => return None,
            Node::Denied => Err(self
                .paths
                .bad(name, child, "we may not read it: it belongs to another user")),
            Node::There(data, has_children) => self.paths.read(name, child, data, *has_children)?,
        };
        Some(match read {
            Ok(instance) => Entry::Good(Arc::new(instance)),
            Err(bad) => Entry::Bad(Box::new(bad)),
        })
    }

    /// All that lies under a name, by node.
    pub(super) async fn entries(&self, session: &Session, name: &Arc<str>) -> Result<BTreeMap<String, Entry>> {
        let parent = self.paths.service(name);
        let children = self.children(session, &parent).await?;
        let nodes = self.nodes(session, &parent, &children).await?;
        Ok(children
            .into_iter()
            .zip(nodes)
            .filter_map(|(child, node)| {
                let entry = self.entry(name, &child, &node)?;
                Some((child, entry))
            })
            .collect())
    }

    /// The names that have an instance.
    pub(super) async fn names(&self, session: &Session) -> Result<Vec<String>> {
        let prefix = self.paths.prefix();
        let names = self.children(session, prefix).await?;
        let mut found = Vec::new();
        for some in names.chunks(AT_ONCE) {
            // The first few of each name in one go; as a rule the first of them is an instance.
            let parents: Vec<String> = some.iter().map(|name| join(prefix, name)).collect();
            let listed = self.lists(session, &parents).await?;
            for (node, children) in some.iter().zip(listed) {
                let name: Arc<str> = super::paths::decode(node).into();
                let parent = join(prefix, node);
                for few in children.chunks(AT_ONCE) {
                    let nodes = self.nodes(session, &parent, few).await?;
                    let is_good = |(child, node): (&String, &Node)| {
                        matches!(self.entry(&name, child, node), Some(Entry::Good(_)))
                    };
                    if few.iter().zip(&nodes).any(is_good) {
                        found.push(name.to_string());
                        break;
                    }
                }
            }
        }
        Ok(found)
    }

    /// The children of some nodes; none of one that is gone or that we may not list.
    async fn lists(&self, session: &Session, parents: &[String]) -> Result<Vec<Vec<String>>> {
        match multi_read(session, parents, true).await {
            Ok(results) if results.len() == parents.len() => Ok(results
                .into_iter()
                .map(|result| match result {
                    MultiReadResult::Children { children } => children,
                    _ => Vec::new(),
                })
                .collect()),
            Ok(_) => Err(odd_answer()),
            Err(ZkError::Unimplemented) => {
                let lists = join_all(parents.iter().map(|parent| session.client.list_children(parent))).await;
                Ok(lists.into_iter().map(Result::unwrap_or_default).collect())
            }
            Err(error) => Err(explain(error, "list names")),
        }
    }
}

/// A snapshot of entries.
pub(super) fn snapshot(entries: &BTreeMap<String, Entry>) -> Snapshot {
    let mut snapshot = Snapshot {
        instances: Vec::with_capacity(entries.len()),
        bad: Vec::new(),
    };
    for entry in entries.values() {
        match entry {
            Entry::Good(instance) => snapshot.instances.push(Arc::clone(instance)),
            Entry::Bad(bad) => snapshot.bad.push((**bad).clone()),
        }
    }
    snapshot
}

async fn multi_read(session: &Session, paths: &[String], children: bool) -> Result<Vec<MultiReadResult>, ZkError> {
    let answer = {
        let mut reader = session.client.new_multi_reader();
        for path in paths {
            if children {
                reader.add_get_children(path)?;
            } else {
                reader.add_get_data(path)?;
            }
        }
        reader.commit()
    };
    answer.await
}

pub(super) fn there(data: Vec<u8>, stat: &Stat) -> Node {
    Node::There(data, stat.num_children > 0)
}

/// A node that could not be read.
pub(super) fn absent(error: ZkError) -> Result<Node, ZkError> {
    match error {
        ZkError::NoNode => Ok(Node::Gone),
        ZkError::NoAuth => Ok(Node::Denied),
        // Of a read that came after one that failed, where a server answers so.
        error => Err(error),
    }
}

pub(super) fn join(parent: &str, child: &str) -> String {
    if parent == "/" {
        format!("/{child}")
    } else {
        format!("{parent}/{child}")
    }
}

fn odd_answer() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "ZooKeeper answered a read with something else than was asked",
    )
}
