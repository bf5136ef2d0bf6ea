//! A name followed. Where the server has persistent recursive watches (3.6), one of them tells of every node under the
//! name, made before the name exists or after; else the parent and each node have a watch that fires once and is set
//! again with the next read.
//!
//! Without a gap: a watch is set before what it watches is read, and a session shows an event before the new state. So a
//! read after which no event waits is whole.
//!
//! The stream ends with the connection: a server forgets what happened to persistent watches meanwhile (ZOOKEEPER-4698),
//! and what is read again is read with a watch that is set again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use futures::stream::{BoxStream, FuturesUnordered, StreamExt as _};

use super::client::{Broken, OneShot, Recursive, ZkError};
use super::read::{Child, Node, absent, join, snapshot, there};
use super::session::Session;
use super::shared::Shared;
use crate::backend::{Snapshot, Steps, steps};
use crate::error::{Error, ErrorKind, Result};

/// Reads in a row that each found something changed again, before all is read at one moment instead: the events of one
/// transaction may come one by one.
pub(super) const ROUNDS: u32 = 32;

struct ChildrenWatch {
    shared: Arc<Shared>,
    name: Arc<str>,
    parent: String,
    /// By the name of the node.
    entries: BTreeMap<String, Child>,
    at: Option<(Arc<Session>, Watch)>,
    /// What was heard and not read yet.
    pending: News,
}

enum Watch {
    Recursive(Recursive),
    OneShot(OneShots),
}

/// A child, or the parent, and whether its watch fired or broke.
type Fired = (Option<String>, Result<(), Broken>);

/// One watch per node, by what it is of: a child, or the parent.
#[derive(Default)]
struct OneShots {
    pending: FuturesUnordered<BoxFuture<'static, Fired>>,
    /// The children that have one.
    children: BTreeSet<String>,
}

/// What the events that wait come to.
#[derive(Default)]
struct News {
    /// The children whose nodes have changed.
    children: BTreeSet<String>,
    /// The list of children has to be read again.
    list: bool,
}

impl News {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && !self.list
    }
}

pub(super) fn follow(shared: Arc<Shared>, name: &str) -> BoxStream<'static, Result<Snapshot>> {
    let start = ChildrenWatch {
        parent: shared.paths.service(name),
        shared,
        name: name.into(),
        entries: BTreeMap::new(),
        at: None,
        pending: News::default(),
    };
    steps(start)
}

impl Steps for ChildrenWatch {
    type Read = Snapshot;

    async fn next(&mut self) -> Result<Snapshot> {
        if self.at.is_none() {
            self.open().await?;
            return Ok(snapshot(&self.entries));
        }
        loop {
            let Some((_, watch)) = &mut self.at else {
                return Err(ended());
            };
            let mut news = std::mem::take(&mut self.pending);
            if news.is_empty() {
                watch.next(&self.parent, &mut news).await?;
            }
            watch.waiting(&self.parent, &mut news)?;
            if self.fold(news).await? {
                return Ok(snapshot(&self.entries));
            }
        }
    }

    /// With what it was about and who was asked.
    fn ended(&mut self, error: Error) -> Error {
        let member = self.shared.sessions.member();
        error.at(&member.unwrap_or_default()).about(&self.parent)
    }
}

impl ChildrenWatch {
    /// Sets the watch, then reads.
    async fn open(&mut self) -> Result<()> {
        let session = self.shared.sessions.get().await?;
        let recursive = if self.shared.options.recursive_watches {
            recursive(&self.shared, &session, &self.name, &self.parent).await?
        } else {
            None
        };
        if let Some((watcher, entries)) = recursive {
            self.entries = entries;
            self.at = Some((session, Watch::Recursive(watcher)));
        } else {
            self.at = Some((session, Watch::OneShot(OneShots::default())));
            let all = News {
                list: true,
                ..News::default()
            };
            self.fold(all).await?;
        }
        let mut news = News::default();
        if let Some((_, watch)) = &mut self.at {
            watch.waiting(&self.parent, &mut news)?;
        }
        if !news.is_empty() {
            self.fold(news).await?;
        }
        Ok(())
    }

    /// Reads what has changed, until nothing more has. Whether the entries are others now.
    async fn fold(&mut self, mut news: News) -> Result<bool> {
        let mut changed = false;
        for _ in 0..ROUNDS {
            let Some((session, watch)) = &mut self.at else {
                return Err(ended());
            };
            let nodes = match watch {
                Watch::Recursive(_) => {
                    let children: Vec<String> = std::mem::take(&mut news.children).into_iter().collect();
                    let nodes = self.shared.nodes(session, &self.parent, &children).await?;
                    children.into_iter().zip(nodes).collect()
                }
                Watch::OneShot(watches) => {
                    let news = std::mem::take(&mut news);
                    watches.read(&self.shared, session, &self.parent, news).await?
                }
            };
            for (child, node) in nodes {
                let entry = self.shared.entry(&self.name, &child, &node);
                if self.entries.get(&child) == entry.as_ref() {
                    continue; // written again as it was, or nothing to a reader of this name
                }
                changed = true;
                match entry {
                    Some(entry) => self.entries.insert(child, entry),
                    None => self.entries.remove(&child),
                };
            }
            let Some((_, watch)) = &mut self.at else {
                return Err(ended());
            };
            news = News::default();
            watch.waiting(&self.parent, &mut news)?;
            if news.is_empty() {
                return Ok(changed);
            }
        }
        self.pending = news; // read before the next wait
        if let Some((session, Watch::Recursive(_))) = &self.at {
            self.entries = self.shared.entries(session, &self.name).await?;
        }
        Ok(true)
    }
}

/// The watch and, sent right behind it, the reading, which so comes after it. `None` before ZooKeeper 3.6.
async fn recursive(
    shared: &Shared,
    session: &Session,
    name: &Arc<str>,
    parent: &str,
) -> Result<Option<(Recursive, BTreeMap<String, Child>)>> {
    match tokio::join!(biased; session.client.watch_all(parent), shared.entries(session, name)) {
        (Ok(watch), entries) => Ok(Some((watch, entries?))),
        (Err(ZkError::Unimplemented), _) => Ok(None),
        (Err(error), _) => Err(session.explain(error, "watch", parent)),
    }
}

impl Watch {
    /// The next event, awaited.
    async fn next(&mut self, parent: &str, news: &mut News) -> Result<()> {
        match self {
            Self::Recursive(watcher) => {
                take(watcher.changed().await.map_err(broken)?, parent, news);
                Ok(())
            }
            Self::OneShot(watches) => match watches.pending.next().await {
                Some(fired) => watches.take(fired, news),
                None => Err(ended()),
            },
        }
    }

    /// The events that wait already.
    fn waiting(&mut self, parent: &str, news: &mut News) -> Result<()> {
        match self {
            Self::Recursive(watcher) => {
                take(watcher.waiting().map_err(broken)?, parent, news);
            }
            Self::OneShot(watches) => {
                while let Some(Some(fired)) = watches.pending.next().now_or_never() {
                    watches.take(fired, news)?;
                }
            }
        }
        Ok(())
    }
}

/// What the paths of a recursive watch mean.
fn take(paths: HashSet<String>, parent: &str, news: &mut News) {
    for path in paths {
        let below = path.strip_prefix(parent).and_then(|rest| rest.strip_prefix('/'));
        // Neither the parent, whose children tell of themselves, nor what lies deeper.
        if let Some(child) = below.filter(|child| !child.contains('/')) {
            news.children.insert(child.to_owned());
        }
    }
}

pub(super) fn broken(_: Broken) -> Error {
    Error::new(ErrorKind::Unavailable, "the connection to ZooKeeper was lost")
}

pub(super) fn ended() -> Error {
    Error::new(ErrorKind::Unavailable, "the watch has ended")
}

impl OneShots {
    fn take(&mut self, (of, fired): Fired, news: &mut News) -> Result<()> {
        fired.map_err(broken)?;
        match of {
            None => news.list = true,
            Some(child) => {
                self.children.remove(&child);
                news.children.insert(child);
            }
        }
        Ok(())
    }

    /// Reads what has changed and sets the watches anew. A child that leaves is told by its own watch.
    async fn read(
        &mut self,
        shared: &Shared,
        session: &Session,
        parent: &str,
        mut news: News,
    ) -> Result<Vec<(String, Node)>> {
        if news.list {
            let listed = self.list(shared, session, parent).await?;
            news.children
                .extend(listed.into_iter().filter(|child| !self.children.contains(child)));
        }
        let reads = news.children.into_iter().map(|child| async {
            let read = session.client.watch_data(&join(parent, &child)).await;
            (child, read)
        });
        let mut nodes = Vec::new();
        for (child, read) in join_all(reads).await {
            let node = match read {
                Ok((data, stat, watcher)) => {
                    self.children.insert(child.clone());
                    self.watch(Some(child.clone()), watcher);
                    there(data, &stat)
                }
                Err(error) => absent(error).map_err(|error| session.explain(error, "read below", parent))?,
            };
            nodes.push((child, node));
        }
        Ok(nodes)
    }

    /// The children of the parent, which is watched whether it exists or not.
    async fn list(&mut self, shared: &Shared, session: &Session, parent: &str) -> Result<Vec<String>> {
        let refused = |error| session.explain(error, "list", parent);
        for _ in 0..ROUNDS {
            match session.client.watch_children(parent).await {
                Ok((children, _, watcher)) => {
                    self.watch(None, watcher);
                    return Ok(children);
                }
                Err(ZkError::NoNode) => shared.chroot_is_there(session).await?,
                Err(error) => return Err(refused(error)),
            }
            let (stat, watcher) = session.client.watch_stat(parent).await.map_err(refused)?;
            if stat.is_none() {
                self.watch(None, watcher);
                return Ok(Vec::new());
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("{parent} comes and goes faster than it can be read"),
        ))
    }

    fn watch(&mut self, of: Option<String>, watcher: OneShot) {
        self.pending.push(async move { (of, watcher.fired().await) }.boxed());
    }
}
