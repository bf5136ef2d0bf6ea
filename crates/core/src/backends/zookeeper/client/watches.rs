//! Who waits for what to happen to which node.
//!
//! A watch lives as long as the connection it was set on. A server tells what was missed of watches that fire once, and
//! forgets what was missed of persistent ones (ZOOKEEPER-4698), so whoever watches has to read anew after a break in
//! either case, and sets the watch again with that read.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, Weak};

use tokio::sync::{Notify, oneshot};

use super::wire::EventKind;

use crate::sync::lock;

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// Whether the node exists, and its data. Fires once.
    Node,
    /// Its children. Fires once.
    Children,
}

/// A watch that fires once, set by the request that it comes with.
pub(super) struct Once {
    pub(super) of: Of,
    pub(super) path: String,
    pub(super) sender: oneshot::Sender<()>,
}

/// What was heard of a node and all below it, each path once, until somebody takes it. It holds no more than there are
/// nodes that have changed.
#[derive(Default)]
pub(super) struct Heard {
    news: Mutex<News>,
    there_is_some: Notify,
}

#[derive(Default)]
struct News {
    paths: HashSet<String>,
    is_over: bool,
}

/// The connection, and with it the watch, is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Broken;

impl Heard {
    fn lock(&self) -> MutexGuard<'_, News> {
        lock(&self.news)
    }

    /// What waits; empty if nothing does.
    pub(super) fn take(&self) -> Result<HashSet<String>, Broken> {
        let mut news = self.lock();
        if news.is_over {
            return Err(Broken);
        }
        Ok(std::mem::take(&mut news.paths))
    }

    /// Waits until there is something.
    pub(super) async fn wait(&self) -> Result<HashSet<String>, Broken> {
        loop {
            let paths = self.take()?;
            if !paths.is_empty() {
                return Ok(paths);
            }
            // One waits at a time, and a notice that came before is kept.
            self.there_is_some.notified().await;
        }
    }

    fn tell(&self, path: &str) {
        let mut news = self.lock();
        if !news.paths.contains(path) {
            news.paths.insert(path.to_owned());
        }
        drop(news);
        self.there_is_some.notify_one();
    }

    fn end(&self) {
        self.lock().is_over = true;
        self.there_is_some.notify_one();
    }
}

/// The watches of one connection.
#[derive(Default)]
pub(super) struct Watches {
    nodes: HashMap<String, Vec<oneshot::Sender<()>>>,
    children: HashMap<String, Vec<oneshot::Sender<()>>>,
    recursive: HashMap<String, Vec<Weak<Heard>>>,
}

impl Watches {
    pub(super) fn set(&mut self, watch: Once) {
        let waiting = match watch.of {
            Of::Node => &mut self.nodes,
            Of::Children => &mut self.children,
        };
        let waiting = waiting.entry(watch.path).or_default();
        waiting.retain(|sender| !sender.is_closed()); // who looked again has let go of the watch of before
        waiting.push(watch.sender);
    }

    /// A watch of a node and all below it.
    pub(super) fn set_recursive(&mut self, path: String, heard: Weak<Heard>) {
        let waiting = self.recursive.entry(path).or_default();
        waiting.retain(|heard| heard.strong_count() > 0);
        waiting.push(heard);
    }

    /// Whether nobody watches this node and what is below it any more; then it is forgotten.
    pub(super) fn is_left(&mut self, path: &str) -> bool {
        let Some(waiting) = self.recursive.get_mut(path) else {
            return false;
        };
        waiting.retain(|heard| heard.strong_count() > 0);
        let is_left = waiting.is_empty();
        if is_left {
            self.recursive.remove(path);
        }
        is_left
    }

    pub(super) fn fire(&mut self, kind: EventKind, path: &str) {
        if kind != EventKind::ChildrenChanged {
            fire_all(self.nodes.remove(path));
        }
        if matches!(kind, EventKind::ChildrenChanged | EventKind::Deleted) {
            fire_all(self.children.remove(path));
        }
        if self.recursive.is_empty() {
            return;
        }
        let mut above = path;
        loop {
            for heard in self.recursive.get(above).into_iter().flatten() {
                if let Some(heard) = heard.upgrade() {
                    heard.tell(path);
                }
            }
            above = match above.rfind('/') {
                Some(0) if above.len() > 1 => "/",
                Some(slash) if slash > 0 => &above[..slash],
                _ => return,
            };
        }
    }
}

fn fire_all(waiting: Option<Vec<oneshot::Sender<()>>>) {
    for sender in waiting.into_iter().flatten() {
        let _ = sender.send(()); // who waited may have gone
    }
}

impl Drop for Watches {
    /// The connection is gone: who waits is told, those of watches that fire once by the end of their channel.
    fn drop(&mut self) {
        for heard in self.recursive.values().flatten() {
            if let Some(heard) = heard.upgrade() {
                heard.end();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn once(watches: &mut Watches, of: Of, path: &str) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let path = path.to_owned();
        watches.set(Once { of, path, sender });
        receiver
    }

    #[test]
    fn a_watch_fires_once_for_what_it_is_of() {
        let mut watches = Watches::default();
        let mut node = once(&mut watches, Of::Node, "/a");
        let mut children = once(&mut watches, Of::Children, "/a");
        watches.fire(EventKind::Created, "/a/b");
        assert!(node.try_recv().is_err() && children.try_recv().is_err());
        watches.fire(EventKind::DataChanged, "/a");
        assert!(node.try_recv().is_ok() && children.try_recv().is_err());
        watches.fire(EventKind::Deleted, "/a");
        assert!(children.try_recv().is_ok());
        assert!(watches.nodes.is_empty() && watches.children.is_empty());
    }

    #[test]
    fn a_recursive_watch_hears_of_all_below_each_path_once() {
        let mut watches = Watches::default();
        let [root, service] = ["/", "/a/b"].map(|path| {
            let heard = Arc::new(Heard::default());
            watches.set_recursive(path.to_owned(), Arc::downgrade(&heard));
            heard
        });
        for path in ["/a/b/c", "/a/b/c", "/a/b", "/a/bc", "/x"] {
            watches.fire(EventKind::DataChanged, path);
        }
        let sorted = |heard: &Heard| {
            let mut paths: Vec<String> = heard.take().unwrap().into_iter().collect();
            paths.sort();
            paths
        };
        assert_eq!(sorted(&service), ["/a/b", "/a/b/c"]);
        assert_eq!(sorted(&root), ["/a/b", "/a/b/c", "/a/bc", "/x"]);
        assert_eq!(sorted(&root), [""; 0]);
    }

    #[test]
    fn who_lets_go_is_forgotten() {
        let mut watches = Watches::default();
        for _ in 0..100 {
            drop(once(&mut watches, Of::Node, "/a"));
        }
        assert_eq!(watches.nodes["/a"].len(), 1);
        let heard = Arc::new(Heard::default());
        watches.set_recursive("/a".to_owned(), Arc::downgrade(&heard));
        assert!(!watches.is_left("/a"));
        drop(heard);
        assert!(watches.is_left("/a"));
        assert!(!watches.is_left("/a"), "it was said once");
    }

    #[tokio::test]
    async fn the_end_of_the_connection_is_told() {
        let mut watches = Watches::default();
        let node = once(&mut watches, Of::Node, "/a");
        let heard = Arc::new(Heard::default());
        watches.set_recursive("/a".to_owned(), Arc::downgrade(&heard));
        watches.fire(EventKind::Created, "/a/b");
        drop(watches);
        assert!(node.await.is_err());
        assert_eq!(
            heard.wait().await,
            Err(Broken),
            "what is read now is not what was heard of"
        );
    }
}
