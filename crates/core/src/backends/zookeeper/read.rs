//! Reading: nodes many at a time, a name as a snapshot, the names.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;

use super::client::{Asked, Part, Stat, ZkError};
use super::session::Session;
use super::shared::Shared;
use crate::backend::{BadRecord, Snapshot};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::ServiceInstance;

/// Nodes asked for in one request, where what belongs together need not be of one moment.
const AT_ONCE: usize = 64;
/// Bytes of the paths in one request: a server breaks the connection over one above 1 MiB.
const REQUEST: usize = 256 * 1024;
/// What one of them takes besides its path.
const PART: usize = 16;
/// How often a list is read again because its members changed while it was read. What changes faster is given as it is:
/// every record of it stood there at some time of the reading.
const ROUNDS: u32 = 8;

/// What a node holds, as far as a name is concerned.
#[derive(PartialEq)]
pub(super) enum Child {
    Good(Arc<ServiceInstance>),
    Bad(Box<BadRecord>),
}

/// What became of one node.
pub(super) enum Node {
    /// Data, whether it has children, and when it was made by the server's clock.
    There(Bytes, bool, Option<NonZeroU64>),
    Gone,
    /// We may list it and not read it.
    Denied,
}

impl Shared {
    /// The children of a node; none if it does not exist.
    pub(super) async fn children(&self, session: &Session, path: &str) -> Result<Vec<String>> {
        match session.client.children(path).await {
            Ok((children, _)) => Ok(children),
            Err(ZkError::NoNode) => {
                self.chroot_is_there(session).await?;
                Ok(Vec::new())
            }
            Err(error) => Err(session.explain(error, "list", path)),
        }
    }

    /// A missing chroot is a registry that is not there, not an empty one.
    pub(super) async fn chroot_is_there(&self, session: &Session) -> Result<()> {
        let chroot = &self.options.chroot;
        if chroot.is_empty() {
            return Ok(());
        }
        match session.client.stat("/").await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(self.no_chroot()),
            Err(error) => Err(session.explain(error, "look at", chroot)),
        }
    }

    pub(super) fn no_chroot(&self) -> Error {
        let chroot = &self.options.chroot;
        Error::new(
            ErrorKind::Unavailable,
            format!("the chroot {chroot} does not exist; it is not made here, so that a wrong one is noticed"),
        )
        .at(&self.sessions.member().unwrap_or_default())
        .about(chroot)
    }

    /// Some children of a node, in the order given: of one moment, unless there are so many that they take several
    /// requests.
    pub(super) async fn nodes(&self, session: &Session, parent: &str, children: &[String]) -> Result<Vec<Node>> {
        let paths: Vec<String> = children.iter().map(|child| join(parent, child)).collect();
        let mut nodes = Vec::with_capacity(paths.len());
        for some in requests(&paths) {
            for read in read(session, some)
                .await
                .map_err(|error| below(session, error, parent))?
            {
                nodes.push(match read {
                    Ok((data, stat)) => there(data, &stat),
                    Err(error) => absent(error).map_err(|error| below(session, error, parent))?,
                });
            }
        }
        Ok(nodes)
    }

    /// What a node means to the readers of a name.
    pub(super) fn entry(&self, name: &Arc<str>, child: &str, node: &Node) -> Option<Child> {
        let read = match node {
            Node::Gone => return None,
            Node::Denied => Err(self
                .paths
                .bad(name, child, "we may not read it: it belongs to another user")),
            Node::There(data, has_children, since) => {
                let read = self.paths.read(name, child, data, *has_children)?;
                read.map(|instance| ServiceInstance {
                    since: *since,
                    ..instance
                })
            }
        };
        Some(match read {
            Ok(instance) => Child::Good(Arc::new(instance)),
            Err(bad) => Child::Bad(Box::new(bad)),
        })
    }

    /// All that lies under a name, by node.
    ///
    /// The parent is read with its children once more: when its children are still those that were listed, all of one
    /// request is of one moment.
    pub(super) async fn entries(&self, session: &Session, name: &Arc<str>) -> Result<BTreeMap<String, Child>> {
        let parent = self.paths.service(name);
        let mut entries = BTreeMap::new();
        for _ in 0..ROUNDS {
            let (children, listed) = match list(session, &parent).await {
                Ok(listed) => listed,
                Err(ZkError::NoNode) => {
                    self.chroot_is_there(session).await?;
                    return Ok(BTreeMap::new());
                }
                Err(error) => return Err(session.explain(error, "list", &parent)),
            };
            let mut paths: Vec<String> = children.iter().map(|child| join(&parent, child)).collect();
            paths.push(parent.clone());
            let mut reads = Vec::with_capacity(paths.len());
            for some in requests(&paths) {
                reads.extend(
                    read(session, some)
                        .await
                        .map_err(|error| below(session, error, &parent))?,
                );
            }
            let unchanged = matches!(reads.pop(), Some(Ok((_, stat))) if stat.pzxid == listed.pzxid);
            entries = BTreeMap::new();
            for (child, read) in children.into_iter().zip(reads) {
                let node = match read {
                    Ok((data, stat)) => there(data, &stat),
                    Err(error) => absent(error).map_err(|error| below(session, error, &parent))?,
                };
                if let Some(entry) = self.entry(name, &child, &node) {
                    entries.insert(child, entry);
                }
            }
            if unchanged {
                break;
            }
        }
        Ok(entries)
    }

    /// The names that have an instance.
    pub(super) async fn names(&self, session: &Session) -> Result<Vec<String>> {
        let nodes = self.children(session, self.paths.prefix()).await?;
        let witnesses = self.witnesses(session, &nodes).await?;
        let named = nodes.iter().zip(witnesses).filter(|(_, witness)| witness.is_some());
        Ok(named.map(|(node, _)| super::paths::decode(node).into_owned()).collect())
    }

    /// For some names, by their nodes: a child of each that is an instance, if it has one.
    pub(super) async fn witnesses(&self, session: &Session, nodes: &[String]) -> Result<Vec<Option<String>>> {
        let prefix = self.paths.prefix();
        let mut found = Vec::with_capacity(nodes.len());
        for some in nodes.chunks(AT_ONCE) {
            let parents: Vec<String> = some.iter().map(|name| join(prefix, name)).collect();
            let mut listed = self.lists(session, &parents).await?;
            for children in &mut listed {
                // Any of them, so that those who follow names do not all look anew when the first one of a name leaves.
                if let Some(last) = children.len().checked_sub(1) {
                    children.swap(0, fastrand::usize(..=last));
                }
            }
            // One of each name in one go: as a rule it is an instance.
            let firsts = parents.iter().zip(&listed);
            let firsts: Vec<String> = firsts
                .filter_map(|(parent, children)| Some(join(parent, children.first()?)))
                .collect();
            let mut reads = Vec::with_capacity(firsts.len());
            for some in requests(&firsts) {
                reads.extend(
                    read(session, some)
                        .await
                        .map_err(|error| below(session, error, prefix))?,
                );
            }
            let mut reads = reads.into_iter();
            for ((node, parent), children) in some.iter().zip(&parents).zip(listed) {
                let name: Arc<str> = super::paths::decode(node).into();
                let is_good = |child: &str, node: &Node| matches!(self.entry(&name, child, node), Some(Child::Good(_)));
                let mut rest = children.into_iter();
                let mut witness = None;
                if let Some(first) = rest.next() {
                    let node = match reads.next() {
                        Some(Ok((data, stat))) => there(data, &stat),
                        Some(Err(error)) => absent(error).map_err(|error| below(session, error, parent))?,
                        None => Node::Gone,
                    };
                    witness = is_good(&first, &node).then_some(first);
                }
                let rest: Vec<String> = if witness.is_some() { Vec::new() } else { rest.collect() };
                for few in rest.chunks(AT_ONCE) {
                    let nodes = self.nodes(session, parent, few).await?;
                    let mut all = few.iter().zip(&nodes);
                    if let Some((child, _)) = all.find(|(child, node)| is_good(child, node)) {
                        witness = Some(child.clone());
                        break;
                    }
                }
                found.push(witness);
            }
        }
        Ok(found)
    }

    /// The children of some nodes; none of one that is gone or that we may not list.
    async fn lists(&self, session: &Session, parents: &[String]) -> Result<Vec<Vec<String>>> {
        let asked: Vec<Asked> = parents.iter().map(|parent| Asked::Children(parent)).collect();
        match session.client.read_all(&asked).await {
            Ok(results) => Ok(results
                .into_iter()
                .map(|result| match result {
                    Part::Children(children) => children,
                    _ => Vec::new(),
                })
                .collect()),
            Err(ZkError::Unimplemented) => {
                let lists = join_all(parents.iter().map(|parent| session.client.children(parent))).await;
                Ok(lists
                    .into_iter()
                    .map(|list| list.map_or_else(|_| Vec::new(), |(children, _)| children))
                    .collect())
            }
            Err(error) => Err(session.explain(error, "list", self.paths.prefix())),
        }
    }
}

/// A snapshot of entries.
pub(super) fn snapshot(entries: &BTreeMap<String, Child>) -> Snapshot {
    let mut snapshot = Snapshot {
        instances: Vec::with_capacity(entries.len()),
        bad: Vec::new(),
    };
    for entry in entries.values() {
        match entry {
            Child::Good(instance) => snapshot.instances.push(Arc::clone(instance)),
            Child::Bad(bad) => snapshot.bad.push((**bad).clone()),
        }
    }
    snapshot
}

/// Paths in as many requests as it takes.
pub(super) fn requests(paths: &[String]) -> impl Iterator<Item = &[String]> {
    let mut bytes = 0;
    paths.chunk_by(move |_, next| {
        bytes += next.len() + PART;
        if bytes > REQUEST {
            bytes = 0;
        }
        bytes != 0
    })
}

/// The children of a node, and what is known of it: a reading, so that what is asked for other names goes with it.
async fn list(session: &Session, path: &str) -> Result<(Vec<String>, Stat), ZkError> {
    let mut parts = match session
        .client
        .read_all(&[Asked::Children(path), Asked::Data(path)])
        .await
    {
        Ok(parts) => parts.into_iter(),
        Err(ZkError::Unimplemented) => return session.client.children(path).await,
        Err(error) => return Err(error),
    };
    match (parts.next(), parts.next()) {
        (Some(Part::Children(children)), Some(Part::Data(_, stat))) => Ok((children, stat)),
        (Some(Part::Failed(error)), _) | (_, Some(Part::Failed(error))) => Err(error),
        _ => Err(ZkError::Malformed),
    }
}

/// Some nodes by one request, at one moment.
async fn read(session: &Session, paths: &[String]) -> Result<Vec<Result<(Bytes, Stat), ZkError>>, ZkError> {
    let asked: Vec<Asked> = paths.iter().map(|path| Asked::Data(path)).collect();
    match session.client.read_all(&asked).await {
        Ok(results) => Ok(results
            .into_iter()
            .map(|result| match result {
                Part::Data(data, stat) => Ok((data, stat)),
                Part::Failed(error) => Err(error),
                Part::Children(_) => Err(ZkError::Malformed),
            })
            .collect()),
        // Before 3.6: one request each, all of them on their way at once.
        Err(ZkError::Unimplemented) => Ok(join_all(paths.iter().map(|path| session.client.data(path))).await),
        Err(error) => Err(error),
    }
}

fn below(session: &Session, error: ZkError, parent: &str) -> Error {
    session.explain(error, "read below", parent)
}

pub(super) fn there(data: Bytes, stat: &Stat) -> Node {
    let since = u64::try_from(stat.ctime).ok().and_then(NonZeroU64::new);
    Node::There(data, stat.num_children > 0, since)
}

/// A node that could not be read.
pub(super) fn absent(error: ZkError) -> Result<Node, ZkError> {
    match error {
        ZkError::NoNode => Ok(Node::Gone),
        ZkError::NoAuth => Ok(Node::Denied),
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
