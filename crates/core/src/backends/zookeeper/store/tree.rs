//! Ranges read whole, at one moment, though ZooKeeper reads node by node.
//!
//! An answer says which transaction was the newest when it was made, and a server carries out none while it reads: so what
//! comes in one answer is of that moment. What takes several is of the moment of the first of them if nothing in the others is
//! newer: a node tells by `mzxid` when it was written last and by `pzxid` when its list of children changed last, and one that
//! was listed and is not there any more is newer, too. If something is, all that is known of is read anew, in one request
//! if it fits.
//!
//! Before ZooKeeper 3.6 each node is a request, and each is watched: what has not changed until the last answer is of that moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use futures::stream::{FuturesUnordered, StreamExt as _};

use super::super::client::{Asked, Broken, OneShot, Part, Stat, ZkError};
use super::super::follow::broken;
use super::super::read::{join, requests};
use super::super::session::Session;
use super::super::shared::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Moment, Pair, Range};

/// How often all is read again because something has changed meanwhile.
pub(super) const ROUNDS: u32 = 32;

/// The pairs of some ranges, all of one moment.
pub(super) struct Tree {
    pub(super) pairs: Vec<Pair>,
    pub(super) zxid: i64,
}

/// The watches of a tree, each of which fires once.
pub(super) type Watches = FuturesUnordered<BoxFuture<'static, Result<(), Broken>>>;

/// A node.
struct Found {
    data: Bytes,
    stat: Stat,
    children: Vec<String>,
}

/// What some nodes are.
struct Look {
    /// Of its first answer.
    zxid: i64,
    /// Whether there was but one.
    is_one: bool,
    nodes: Vec<Option<Found>>,
}

/// A set of transactions has no name in ZooKeeper: another one is known by the number of its last one alone.
pub(super) fn moment(zxid: i64) -> Moment {
    Moment {
        cluster: 0,
        revision: zxid,
    }
}

/// The node that a range lies at, or below.
pub(super) fn root(range: &Range) -> &str {
    match range {
        Range::Key(key) => key,
        Range::Under(prefix) => prefix.strip_suffix('/').unwrap_or(prefix),
    }
}

/// Whether what lies below a node is meant.
fn is_folder(ranges: &[Range], path: &str) -> bool {
    ranges.iter().any(|range| match range {
        Range::Key(_) => false,
        Range::Under(prefix) => path.starts_with(&**prefix) || prefix.strip_suffix('/') == Some(path),
    })
}

/// What stands at a node. One without data is none: folders are such nodes.
pub(super) fn pair(path: &str, data: &[u8], stat: &Stat) -> Option<Pair> {
    (!data.is_empty()).then(|| Pair {
        key: path.into(),
        value: data.into(),
        revision: stat.mzxid,
    })
}

/// All pairs of some ranges.
pub(super) async fn read(shared: &Shared, session: &Session, ranges: &[Range]) -> Result<Tree> {
    match read_together(shared, session, ranges).await? {
        Some(tree) => Ok(tree),
        None => Ok(read_watched(shared, session, ranges).await?.0),
    }
}

/// The same; `None` before ZooKeeper 3.6.
async fn read_together(shared: &Shared, session: &Session, ranges: &[Range]) -> Result<Option<Tree>> {
    // The first come first: so what is not there is known to be so at the first moment.
    let roots = roots(ranges);
    let mut asked = roots.clone();
    for _ in 0..ROUNDS {
        let mut nodes: BTreeMap<String, Option<Found>> = BTreeMap::new();
        let mut moment = None;
        let mut is_one = true;
        while !asked.is_empty() {
            let Some(look) = look(session, &asked).await? else {
                return Ok(None);
            };
            is_one = look.is_one && moment.is_none();
            moment.get_or_insert(look.zxid);
            let found = look.nodes.into_iter();
            nodes.extend(std::mem::take(&mut asked).into_iter().zip(found));
            asked = unknown(ranges, &nodes);
        }
        let zxid = moment.unwrap_or_default();
        if is_one || is_of(ranges, &nodes, zxid) {
            nothing_is_something(shared, session, &nodes).await?;
            return Ok(Some(tree(ranges, &nodes, zxid)));
        }
        let others = nodes.into_keys().filter(|path| !roots.contains(path));
        asked = roots.iter().cloned().chain(others).collect();
    }
    Err(restless(ranges))
}

fn roots(ranges: &[Range]) -> Vec<String> {
    let roots: BTreeSet<&str> = ranges.iter().map(root).collect();
    roots.into_iter().map(str::to_owned).collect()
}

/// The listed children that nothing is known of yet.
fn unknown(ranges: &[Range], nodes: &BTreeMap<String, Option<Found>>) -> Vec<String> {
    let all = children(ranges, nodes);
    all.filter(|child| !nodes.contains_key(child)).collect()
}

fn children<'a>(ranges: &'a [Range], nodes: &'a BTreeMap<String, Option<Found>>) -> impl Iterator<Item = String> + 'a {
    let folders = nodes
        .iter()
        .filter_map(|(path, found)| Some((path, found.as_ref()?)))
        .filter(|(path, _)| is_folder(ranges, path));
    folders.flat_map(|(path, found)| found.children.iter().map(move |child| join(path, child)))
}

/// Whether all of it stood so at that moment, which is no later than any of its answers.
fn is_of(ranges: &[Range], nodes: &BTreeMap<String, Option<Found>>, zxid: i64) -> bool {
    let is_old = |(path, found): (&String, &Option<Found>)| {
        found
            .as_ref()
            .is_none_or(|Found { stat, .. }| stat.mzxid <= zxid && (stat.pzxid <= zxid || !is_folder(ranges, path)))
    };
    nodes.iter().all(is_old) && children(ranges, nodes).all(|child| matches!(nodes.get(&child), Some(Some(_))))
}

/// Where nothing is there the chroot may be missing, which is no empty store.
async fn nothing_is_something(
    shared: &Shared,
    session: &Session,
    nodes: &BTreeMap<String, Option<Found>>,
) -> Result<()> {
    if nodes.values().all(Option::is_none) {
        shared.chroot_is_there(session).await?;
    }
    Ok(())
}

fn tree(ranges: &[Range], nodes: &BTreeMap<String, Option<Found>>, zxid: i64) -> Tree {
    let meant = nodes
        .iter()
        .filter(|(path, _)| ranges.iter().any(|range| range.has(path)));
    let pairs = meant.filter_map(|(path, found)| {
        let Found { data, stat, .. } = found.as_ref()?;
        pair(path, data, stat)
    });
    Tree {
        pairs: pairs.collect(),
        zxid,
    }
}

fn restless(ranges: &[Range]) -> Error {
    let first = ranges.first().map(Range::text).unwrap_or_default();
    Error::new(
        ErrorKind::Unavailable,
        format!("what lies at {first} changes faster than it can be read"),
    )
}

/// Some nodes with the names of their children; `None` before ZooKeeper 3.6.
async fn look(session: &Session, paths: &[String]) -> Result<Option<Look>> {
    let mut look = Look {
        zxid: 0,
        is_one: true,
        nodes: Vec::with_capacity(paths.len()),
    };
    for (place, some) in requests(paths).enumerate() {
        let asked = some.iter().flat_map(|path| [Asked::Data(path), Asked::Children(path)]);
        let asked: Vec<Asked> = asked.collect();
        let first = some.first().map(String::as_str).unwrap_or_default();
        let (parts, zxid) = match session.client.read_at(&asked).await {
            Ok(read) => read,
            Err(ZkError::Unimplemented) => return Ok(None),
            Err(error) => return Err(session.explain(error, "read below", first)),
        };
        if place == 0 {
            look.zxid = zxid;
        } else {
            look.is_one = false;
        }
        let mut parts = parts.into_iter();
        for path in some {
            look.nodes.push(match (parts.next(), parts.next()) {
                (Some(Part::Data(data, stat)), Some(Part::Children(children))) => Some(Found { data, stat, children }),
                (Some(Part::Failed(ZkError::NoNode)), _) => None,
                (Some(Part::Failed(error)), _) | (_, Some(Part::Failed(error))) => {
                    return Err(session.explain(error, "read", path));
                }
                _ => return Err(session.explain(ZkError::Malformed, "read", path)),
            });
        }
    }
    Ok(Some(look))
}

/// Some nodes without their children, and the moment: that of the last answer, and whether there was but one.
pub(super) async fn data(
    session: &Session,
    paths: &[String],
) -> Result<(Vec<Option<(Bytes, Stat)>>, i64, bool), Error> {
    let mut nodes = Vec::with_capacity(paths.len());
    let (mut zxid, mut answers) = (0, 0);
    for some in requests(paths) {
        let asked: Vec<Asked> = some.iter().map(|path| Asked::Data(path)).collect();
        let first = some.first().map(String::as_str).unwrap_or_default();
        let parts = match session.client.read_at(&asked).await {
            Ok((parts, at)) => {
                (zxid, answers) = (at, answers + 1);
                parts
            }
            Err(ZkError::Unimplemented) => {
                let singly = join_all(some.iter().map(|path| session.client.data(path))).await;
                (zxid, answers) = (session.client.zxid(), answers + some.len());
                let part = |read: Result<_, _>| read.map_or_else(Part::Failed, |(data, stat)| Part::Data(data, stat));
                singly.into_iter().map(part).collect()
            }
            Err(error) => return Err(session.explain(error, "read below", first)),
        };
        for (path, part) in some.iter().zip(parts) {
            nodes.push(match part {
                Part::Data(data, stat) => Some((data, stat)),
                Part::Failed(ZkError::NoNode) => None,
                Part::Failed(error) => return Err(session.explain(error, "read", path)),
                Part::Children(_) => return Err(session.explain(ZkError::Malformed, "read", path)),
            });
        }
    }
    Ok((nodes, zxid, answers <= 1))
}

/// All pairs of some ranges, and watches of all that was read: as none has fired, all of it is of one moment.
pub(super) async fn read_watched(shared: &Shared, session: &Session, ranges: &[Range]) -> Result<(Tree, Watches)> {
    for _ in 0..ROUNDS {
        let mut watches = Watches::new();
        let mut nodes: BTreeMap<String, Option<Found>> = BTreeMap::new();
        let mut asked = roots(ranges);
        while !asked.is_empty() {
            let found = join_all(asked.iter().map(|path| watched(session, ranges, path))).await;
            for (path, found) in std::mem::take(&mut asked).into_iter().zip(found) {
                let (found, set) = found?;
                watches.extend(set.into_iter().map(|watch| watch.fired().boxed()));
                nodes.insert(path, found);
            }
            asked = unknown(ranges, &nodes);
        }
        let zxid = session.client.zxid(); // before it is asked whether one has fired
        match watches.next().now_or_never() {
            Some(Some(Ok(()))) => {}
            Some(Some(Err(error))) => return Err(broken(error)),
            _ => {
                nothing_is_something(shared, session, &nodes).await?;
                return Ok((tree(ranges, &nodes, zxid), watches));
            }
        }
    }
    Err(restless(ranges))
}

/// A node with watches of all that is read of it, or of that it is not there.
async fn watched(session: &Session, ranges: &[Range], path: &str) -> Result<(Option<Found>, Vec<OneShot>)> {
    let client = &session.client;
    let refused = |error| session.explain(error, "read", path);
    for _ in 0..ROUNDS {
        match client.watch_data(path).await {
            Ok((data, stat, watch)) if !is_folder(ranges, path) => {
                let children = Vec::new();
                return Ok((Some(Found { data, stat, children }), vec![watch]));
            }
            Ok((data, stat, of_data)) => match client.watch_children(path).await {
                Ok((children, _, of_children)) => {
                    return Ok((Some(Found { data, stat, children }), vec![of_data, of_children]));
                }
                Err(ZkError::NoNode) => {}
                Err(error) => return Err(refused(error)),
            },
            Err(ZkError::NoNode) => {
                let (stat, watch) = client.watch_stat(path).await.map_err(refused)?;
                if stat.is_none() {
                    return Ok((None, vec![watch]));
                }
            }
            Err(error) => return Err(refused(error)),
        }
    }
    Err(restless(ranges))
}

/// Pairs by their keys, those that are known already by the same `Arc`.
pub(super) fn by_key(known: &BTreeMap<Arc<str>, Arc<Pair>>, pairs: Vec<Pair>) -> BTreeMap<Arc<str>, Arc<Pair>> {
    let kept = pairs.into_iter().map(|pair| match known.get(&pair.key) {
        Some(same) if **same == pair => (Arc::clone(&same.key), Arc::clone(same)),
        _ => (Arc::clone(&pair.key), Arc::new(pair)),
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(mzxid: i64, pzxid: i64, children: &[&str]) -> Found {
        Found {
            data: Bytes::from_static(b"x"),
            stat: Stat {
                czxid: 1,
                mzxid,
                pzxid,
                ctime: 0,
                version: 0,
                cversion: 0,
                ephemeral_owner: 0,
                num_children: 0,
            },
            children: children.iter().map(|&child| child.to_owned()).collect(),
        }
    }

    #[test]
    fn several_answers_are_of_the_first_ones_moment_if_nothing_is_newer() {
        let ranges = [Range::Under("/a/".into()), Range::Key("/b".into())];
        let whole = || {
            BTreeMap::from([
                ("/a".to_owned(), Some(found(1, 9, &["x", "y"]))),
                ("/a/x".to_owned(), Some(found(10, 3, &[]))),
                ("/a/y".to_owned(), Some(found(8, 3, &[]))),
                ("/b".to_owned(), Some(found(9, 20, &["who cares"]))),
            ])
        };
        assert!(is_of(&ranges, &whole(), 10));
        assert!(!is_of(&ranges, &whole(), 9), "a value is newer");
        assert!(!is_of(&ranges, &whole(), 8), "a list is newer");
        for change in [None, Some(found(1, 11, &["z"])), Some(found(1, 1, &["z"]))] {
            let mut nodes = whole();
            nodes.insert("/a/y".to_owned(), change);
            assert!(!is_of(&ranges, &nodes, 10), "one has left, or is not known");
        }
        let mut nodes = whole();
        nodes.insert("/b".to_owned(), None);
        assert!(is_of(&ranges, &nodes, 10), "it was not there from the beginning");
        assert_eq!(unknown(&ranges, &nodes), [""; 0]);
        let read = tree(&ranges, &nodes, 10);
        let keys: Vec<&str> = read.pairs.iter().map(|pair| &*pair.key).collect();
        assert_eq!(keys, ["/a/x", "/a/y"], "a folder is none of what is below it");
    }
}
