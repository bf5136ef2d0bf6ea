//! The names followed: by one persistent recursive watch over the prefix (3.6). Of each name one child is known that is an
//! instance, its witness. As long as that one stands the name does, whatever its other children do: an event of them costs
//! nothing. When it goes another is looked for; when a name without one hears of a child, that child is read.
//!
//! Before 3.6 the children of the prefix are watched, and all is read again when they change, and every few seconds.
//!
//! Without a gap, as in [follow](super::follow): the watch is set before anything is read, a session shows an event before
//! the new state, and a list is given when no event waits.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use futures::stream::BoxStream;
use tokio::time::timeout;

use super::client::{OneShot, Recursive, ZkError};
use super::follow::{ROUNDS, broken, ended};
use super::paths::decode;
use super::read::{Child, join};
use super::session::Session;
use super::shared::Shared;
use crate::backend::{NAMES_EVERY, ServiceName, Steps, steps};
use crate::error::{Error, Result};

struct NamesWatch {
    shared: Arc<Shared>,
    /// By node.
    names: BTreeMap<String, Known>,
    at: Option<(Arc<Session>, Watch)>,
    /// What was heard and not looked at yet.
    pending: News,
}

/// A name that has an instance.
struct Known {
    entry: Arc<ServiceName>,
    witness: String,
}

enum Watch {
    Recursive(Recursive),
    Children(Option<OneShot>),
}

/// The children that were heard of, by the node of their name.
type News = BTreeMap<String, BTreeSet<String>>;

pub(super) fn follow(shared: Arc<Shared>) -> BoxStream<'static, Result<Vec<Arc<ServiceName>>>> {
    let start = NamesWatch {
        shared,
        names: BTreeMap::new(),
        at: None,
        pending: News::new(),
    };
    steps(start)
}

impl Steps for NamesWatch {
    type Read = Vec<Arc<ServiceName>>;

    async fn next(&mut self) -> Result<Vec<Arc<ServiceName>>> {
        self.changed().await?;
        Ok(self.names.values().map(|known| Arc::clone(&known.entry)).collect())
    }

    fn ended(&mut self, error: Error) -> Error {
        let member = self.shared.sessions.member();
        let error = error.at(&member.unwrap_or_default());
        error.about(self.shared.paths.prefix())
    }
}

impl NamesWatch {
    /// Until there is another list.
    async fn changed(&mut self) -> Result<()> {
        if self.at.is_none() {
            return self.open().await;
        }
        loop {
            match &mut self.at {
                None => return Err(ended()),
                Some((_, Watch::Recursive(watcher))) => {
                    let mut news = std::mem::take(&mut self.pending);
                    if news.is_empty() {
                        take(
                            watcher.changed().await.map_err(broken)?,
                            self.shared.paths.prefix(),
                            &mut news,
                        );
                    }
                    if self.fold(news).await? {
                        return Ok(());
                    }
                }
                Some((_, Watch::Children(watcher))) => {
                    let fired = match watcher {
                        Some(watcher) => timeout(NAMES_EVERY, watcher.wait()).await,
                        None => timeout(NAMES_EVERY, std::future::pending()).await,
                    };
                    if let Ok(fired) = fired {
                        fired.map_err(broken)?;
                        *watcher = None;
                    }
                    if self.read_all().await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Sets the watch, then reads.
    async fn open(&mut self) -> Result<()> {
        let session = self.shared.sessions.get().await?;
        let prefix = self.shared.paths.prefix();
        let watch = if self.shared.options.recursive_watches {
            match session.client.watch_all(prefix).await {
                Ok(watch) => Watch::Recursive(watch),
                Err(ZkError::Unimplemented) => Watch::Children(None),
                Err(error) => return Err(session.explain(error, "watch", prefix)),
            }
        } else {
            Watch::Children(None)
        };
        self.at = Some((session, watch));
        self.read_all().await?;
        if let Some((_, Watch::Recursive(watcher))) = &self.at {
            let mut news = News::new();
            take(
                watcher.waiting().map_err(broken)?,
                self.shared.paths.prefix(),
                &mut news,
            );
            self.fold(news).await?;
        }
        Ok(())
    }

    /// Reads all names. Whether they are others now.
    async fn read_all(&mut self) -> Result<bool> {
        let Some((session, watch)) = &mut self.at else {
            return Err(ended());
        };
        let prefix = self.shared.paths.prefix();
        let nodes = match watch {
            Watch::Children(watcher) if watcher.is_none() => match session.client.watch_children(prefix).await {
                Ok((nodes, _, set)) => {
                    *watcher = Some(set);
                    nodes
                }
                Err(ZkError::NoNode) => {
                    self.shared.chroot_is_there(session).await?;
                    Vec::new() // looked at again in a few seconds
                }
                Err(error) => return Err(session.explain(error, "list", prefix)),
            },
            _ => self.shared.children(session, prefix).await?,
        };
        let witnesses = self.shared.witnesses(session, &nodes).await?;
        let before: Vec<String> = self.names.keys().cloned().collect();
        let there: HashSet<&String> = nodes.iter().collect();
        self.names.retain(|node, _| there.contains(node));
        for (node, witness) in nodes.into_iter().zip(witnesses) {
            self.know(node, witness);
        }
        Ok(!self.names.keys().eq(before.iter()))
    }

    /// Looks at what was heard of, until nothing more is. Whether the names are others now.
    async fn fold(&mut self, mut news: News) -> Result<bool> {
        let mut changed = false;
        for _ in 0..ROUNDS {
            let Some((session, Watch::Recursive(watcher))) = &self.at else {
                return Err(ended());
            };
            let mut anew = Vec::new();
            let mut found = Vec::new();
            for (node, children) in std::mem::take(&mut news) {
                match self.names.get(&node) {
                    Some(known) if children.contains(&known.witness) => anew.push(node),
                    Some(_) => {}
                    None => {
                        let name: Arc<str> = decode(&node).into();
                        let parent = join(self.shared.paths.prefix(), &node);
                        let children: Vec<String> = children.into_iter().collect();
                        let nodes = self.shared.nodes(session, &parent, &children).await?;
                        let good = children.into_iter().zip(nodes).find(|(child, read)| {
                            matches!(self.shared.entry(&name, child, read), Some(Child::Good(_)))
                        });
                        if let Some((witness, _)) = good {
                            found.push((node, Some(witness)));
                        }
                    }
                }
            }
            let witnesses = self.shared.witnesses(session, &anew).await?;
            take(
                watcher.waiting().map_err(broken)?,
                self.shared.paths.prefix(),
                &mut news,
            );
            for (node, witness) in found.into_iter().chain(anew.into_iter().zip(witnesses)) {
                changed |= self.know(node, witness);
            }
            if news.is_empty() {
                return Ok(changed);
            }
        }
        self.pending = news; // looked at before the next wait
        Ok(changed)
    }

    /// What is known of a name now. Whether it has come or gone.
    fn know(&mut self, node: String, witness: Option<String>) -> bool {
        let Some(witness) = witness else {
            return self.names.remove(&node).is_some();
        };
        if let Some(known) = self.names.get_mut(&node) {
            known.witness = witness;
            return false;
        }
        let entry = Arc::new(ServiceName {
            name: decode(&node).into(),
            count: None,
        });
        self.names.insert(node, Known { entry, witness });
        true
    }
}

/// What the paths of a recursive watch mean: only what lies right below a name does.
fn take(paths: HashSet<String>, prefix: &str, news: &mut News) {
    let prefix = prefix.trim_end_matches('/');
    for path in paths {
        let below = path.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/'));
        if let Some((node, child)) = below.and_then(|rest| rest.split_once('/'))
            && !child.contains('/')
        {
            news.entry(node.to_owned()).or_default().insert(child.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_right_below_a_name_is_heard() {
        let paths = [
            "/p",
            "/p/a",
            "/p/a/1",
            "/p/a/2",
            "/p/b/1",
            "/p/b/1/deep",
            "/pa/b/1",
            "/",
        ];
        let paths: HashSet<String> = paths.map(str::to_owned).into();
        let mut news = News::new();
        take(paths, "/p", &mut news);
        let heard: Vec<_> = news
            .iter()
            .map(|(node, children)| (node.as_str(), children.len()))
            .collect();
        assert_eq!(heard, [("a", 2), ("b", 1)]);
        let mut news = News::new();
        take(["/a/1".to_owned()].into(), "/", &mut news);
        assert!(news["a"].contains("1"));
    }
}
