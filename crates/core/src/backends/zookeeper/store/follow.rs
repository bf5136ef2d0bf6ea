//! Ranges followed: by a persistent recursive watch of each, or by watches of every node that fire once, before ZooKeeper 3.6.
//!
//! A watch is set before anything is read, and a session shows an event before what came of it. So what was read, after which no
//! event waits but for what was read itself, is what stood there when it was read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{join_all, select_all};
use futures::stream::{BoxStream, StreamExt as _};

use super::super::client::{Recursive, ZkError};
use super::super::follow::{broken, ended};
use super::super::session::Session;
use super::super::shared::Shared;
use super::tree::{self, ROUNDS, Watches, moment, root};
use crate::backend::{Steps, steps};
use crate::error::{Error, Result};
use crate::store::{Pair, Range, Read};

struct Following {
    shared: Arc<Shared>,
    ranges: Arc<[Range]>,
    at: Option<(Arc<Session>, Watch)>,
    pairs: BTreeMap<Arc<str>, Arc<Pair>>,
    zxid: i64,
    /// What was heard of and not read yet.
    pending: BTreeSet<String>,
}

enum Watch {
    Recursive(Vec<Recursive>),
    OneShot(Watches),
}

pub(super) fn follow(shared: Arc<Shared>, ranges: &Arc<[Range]>) -> BoxStream<'static, Result<Read>> {
    steps(Following {
        shared,
        ranges: Arc::clone(ranges),
        at: None,
        pairs: BTreeMap::new(),
        zxid: 0,
        pending: BTreeSet::new(),
    })
}

impl Steps for Following {
    type Read = Read;

    async fn next(&mut self) -> Result<Read> {
        if self.at.is_none() {
            self.open().await?;
        } else {
            while !self.changed().await? {}
        }
        Ok(Read {
            pairs: self.pairs.values().cloned().collect(),
            moment: moment(self.zxid),
        })
    }

    fn ended(&mut self, error: Error) -> Error {
        let member = self.shared.sessions.member();
        let first = self.ranges.first().map(Range::text).unwrap_or_default();
        error.at(&member.unwrap_or_default()).about(first)
    }
}

impl Following {
    /// Sets the watches, then reads.
    async fn open(&mut self) -> Result<()> {
        let session = self.shared.sessions.get().await?;
        let recursive = if self.shared.options.recursive_watches {
            watch(&session, &self.ranges).await?
        } else {
            None
        };
        let watch = if let Some(watches) = recursive {
            let read = tree::read(&self.shared, &session, &self.ranges).await?;
            self.take(read);
            Watch::Recursive(watches)
        } else {
            let (read, watches) = tree::read_watched(&self.shared, &session, &self.ranges).await?;
            self.take(read);
            Watch::OneShot(watches)
        };
        self.at = Some((session, watch));
        Ok(())
    }

    /// Waits for a change and reads it. Whether there was one that matters.
    async fn changed(&mut self) -> Result<bool> {
        let Some((session, watch)) = &mut self.at else {
            return Err(ended());
        };
        match watch {
            Watch::OneShot(watches) => {
                watches.next().await.ok_or_else(ended)?.map_err(broken)?;
                let (read, again) = tree::read_watched(&self.shared, session, &self.ranges).await?;
                *watches = again;
                Ok(self.take(read))
            }
            Watch::Recursive(watches) => {
                let mut news = std::mem::take(&mut self.pending);
                if news.is_empty() {
                    let changed = watches.iter().map(|watch| watch.changed().boxed());
                    let (heard, ..) = select_all(changed).await;
                    news.extend(of(&self.ranges, heard.map_err(broken)?));
                }
                news.extend(waiting(watches, &self.ranges)?);
                self.fold(news).await
            }
        }
    }

    /// Reads what has changed, until that is all. What changes meanwhile and was read with it is left for the next time.
    async fn fold(&mut self, mut news: BTreeSet<String>) -> Result<bool> {
        let Some((session, Watch::Recursive(watches))) = &self.at else {
            return Err(ended());
        };
        if news.is_empty() {
            return Ok(false);
        }
        let mut asked = BTreeSet::new();
        let mut has_changed = false;
        for _ in 0..ROUNDS {
            asked.append(&mut news);
            let paths: Vec<String> = asked.iter().cloned().collect();
            let (nodes, zxid, is_one) = tree::data(session, &paths).await?;
            for (path, found) in paths.iter().zip(nodes) {
                let pair = found.and_then(|(data, stat)| tree::pair(path, &data, &stat));
                let known = self.pairs.get(&**path);
                if pair.as_ref() == known.map(|known| &**known) {
                    continue;
                }
                has_changed = true;
                match pair {
                    Some(pair) => self.pairs.insert(Arc::clone(&pair.key), Arc::new(pair)),
                    None => self.pairs.remove(&**path),
                };
            }
            news = waiting(watches, &self.ranges)?;
            if news.is_empty() || is_one && news.is_subset(&asked) {
                self.zxid = zxid;
                self.pending = news;
                return Ok(has_changed);
            }
        }
        let read = tree::read(&self.shared, session, &self.ranges).await?;
        self.pending = news; // it may have come before
        self.take(read);
        Ok(true)
    }

    /// Whether it is another one.
    fn take(&mut self, read: tree::Tree) -> bool {
        self.zxid = read.zxid;
        let pairs = tree::by_key(&self.pairs, read.pairs);
        let is_another = pairs != self.pairs;
        self.pairs = pairs;
        is_another
    }
}

/// `None` before ZooKeeper 3.6.
async fn watch(session: &Session, ranges: &[Range]) -> Result<Option<Vec<Recursive>>> {
    let roots: BTreeSet<&str> = ranges.iter().map(root).collect();
    let set = join_all(roots.iter().map(|root| session.client.watch_all(root))).await;
    let mut watches = Vec::with_capacity(set.len());
    for (root, watch) in roots.into_iter().zip(set) {
        match watch {
            Ok(watch) => watches.push(watch),
            Err(ZkError::Unimplemented) => return Ok(None),
            Err(error) => return Err(session.explain(error, "watch", root)),
        }
    }
    Ok(Some(watches))
}

/// What is known by now to have changed.
fn waiting(watches: &[Recursive], ranges: &[Range]) -> Result<BTreeSet<String>> {
    let mut news = BTreeSet::new();
    for watch in watches {
        news.extend(of(ranges, watch.waiting().map_err(broken)?));
    }
    Ok(news)
}

/// Those that are meant.
fn of(ranges: &[Range], paths: impl IntoIterator<Item = String>) -> impl Iterator<Item = String> {
    let is_meant = move |path: &String| ranges.iter().any(|range| range.has(path));
    paths.into_iter().filter(is_meant)
}
