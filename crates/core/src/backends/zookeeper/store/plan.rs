//! What a transaction is in ZooKeeper: of what stands there, the parts of a `multi`, all of which are made or none.
//!
//! ZooKeeper compares versions, and a node that was deleted and made again begins anew with them. So a node that is compared
//! is held by two things: its version, and the number of nodes that were ever made in its folder, which a node with a number in
//! its name tells: it is made and deleted again by the name that is expected, so the transaction fails if another one was made
//! there meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::super::client::{Acl, Change, Mode, Stat};
use super::super::read::join;
use super::tree::pair;
use crate::store::{Compare, Pair, Write};

/// What the name of a node that counts begins with.
const COUNT: &str = "@rollcall-";

/// Data of a node and what is known of it.
pub(super) type Node = (Bytes, Stat);

/// A part of the transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    /// Makes a node whose name the server completes.
    Count(String),
    Create(String, Bytes),
    Write(String, Bytes, i32),
    Delete(String, i32),
    Check(String, i32),
}

impl Op {
    pub(super) fn change<'a>(&'a self, acls: &'a [Acl]) -> Change<'a> {
        let create = |path, data, mode| Change::Create { path, data, mode, acls };
        match self {
            Self::Count(path) => create(path, b"", Mode::Numbered),
            Self::Create(path, data) => create(path, data, Mode::Persistent),
            Self::Write(path, data, version) => Change::SetData {
                path,
                data,
                version: *version,
            },
            Self::Delete(path, version) => Change::Delete {
                path,
                version: *version,
            },
            Self::Check(path, version) => Change::Check {
                path,
                version: *version,
            },
        }
    }
}

/// The parts of a transaction.
#[derive(Debug, Default)]
pub(super) struct Steps {
    pub(super) ops: Vec<Op>,
    /// How many keys it deletes.
    pub(super) deleted: usize,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Plan {
    Steps(Steps),
    /// What stands at the keys that were compared.
    Conflict(Vec<Option<Arc<Pair>>>),
}

/// The node that another lies in.
fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(slash) => &path[..slash],
    }
}

/// The nodes above one, the lowest first, without the root.
fn above(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(parent(path)), |path| Some(parent(path))).take_while(|path| *path != "/")
}

/// What has to be known for a plan. The folders come first, so that what is known of one is no newer than what lies in it.
pub(super) fn paths(compares: &[Compare], writes: &[Write]) -> Vec<String> {
    let keys: BTreeSet<&str> = keys(compares, writes).collect();
    let folders: BTreeSet<&str> = keys.iter().flat_map(|key| above(key)).chain(["/"]).collect();
    let rest = keys.iter().filter(|key| !folders.contains(**key));
    let all = folders.iter().chain(rest);
    all.map(|&path| path.to_owned()).collect()
}

fn keys<'a>(compares: &'a [Compare], writes: &'a [Write]) -> impl Iterator<Item = &'a str> {
    compares.iter().map(|c| &*c.key).chain(writes.iter().map(Write::key))
}

/// The plan for what stands there.
pub(super) fn plan(compares: &[Compare], writes: &[Write], nodes: &HashMap<String, Node>) -> Plan {
    let there = |key: &str| nodes.get(key).and_then(|(data, stat)| pair(key, data, stat));
    let current: Vec<_> = compares.iter().map(|compare| there(&compare.key)).collect();
    let holds =
        |(compare, pair): (&Compare, &Option<Pair>)| compare.revision == pair.as_ref().map_or(0, |pair| pair.revision);
    if !compares.iter().zip(&current).all(holds) {
        return Plan::Conflict(current.into_iter().map(|pair| pair.map(Arc::new)).collect());
    }
    let mut steps = Steps::default();
    hold(compares, writes, nodes, &mut steps.ops);
    make(writes, nodes, &mut steps);
    if steps.ops.is_empty() {
        steps.ops.push(Op::Check("/".to_owned(), -1));
    }
    Plan::Steps(steps)
}

/// What was compared must be so when the transaction is made.
fn hold(compares: &[Compare], writes: &[Write], nodes: &HashMap<String, Node>, ops: &mut Vec<Op>) {
    let is_there = |compare: &&Compare| nodes.contains_key(&*compare.key);
    let folders: BTreeSet<&str> = compares.iter().filter(is_there).map(|c| parent(&c.key)).collect();
    for folder in folders {
        if let Some((_, stat)) = nodes.get(folder) {
            let count = join(folder, COUNT);
            ops.push(Op::Count(count.clone()));
            ops.push(Op::Delete(format!("{count}{:010}", made(stat)), -1));
        }
    }
    for compare in compares {
        match nodes.get(&*compare.key) {
            Some((_, stat)) => ops.push(Op::Check(compare.key.to_string(), stat.version)),
            // To be made, which fails if it is there by then.
            None if writes
                .iter()
                .any(|write| matches!(write, Write::Put(key, _) if *key == compare.key)) => {}
            None => {
                let mut missing: Vec<&str> = above(&compare.key).filter(|path| !nodes.contains_key(*path)).collect();
                missing.reverse();
                missing.push(&compare.key);
                let made = missing.iter().map(|path| Op::Create((*path).to_owned(), Bytes::new()));
                let gone = missing.iter().rev().map(|path| Op::Delete((*path).to_owned(), -1));
                ops.extend(made.chain(gone));
            }
        }
    }
}

/// How many nodes were ever made in one.
fn made(stat: &Stat) -> i32 {
    stat.cversion.wrapping_add(stat.num_children) / 2
}

fn make(writes: &[Write], nodes: &HashMap<String, Node>, steps: &mut Steps) {
    let mut puts: Vec<(&str, &[u8])> = Vec::new();
    let mut deletes: Vec<&str> = Vec::new();
    for write in writes {
        match write {
            Write::Put(key, value) => puts.push((key, value)),
            Write::Delete(key) => deletes.push(key),
        }
    }
    puts.sort_unstable(); // a folder before what lies in it
    let keys: BTreeSet<&str> = puts.iter().map(|(key, _)| *key).collect();
    let missing = |path: &&str| !nodes.contains_key(*path);
    let folders = keys.iter().flat_map(|key| above(key)).filter(missing);
    let folders: BTreeSet<&str> = folders.filter(|path| !keys.contains(path)).collect();
    let mut makes: Vec<(&str, &[u8])> = folders.into_iter().map(|path| (path, &b""[..])).collect();
    makes.extend(puts.iter().filter(|(key, _)| missing(key)));
    makes.sort_unstable();
    let create = |(path, data): (&str, &[u8])| Op::Create(path.to_owned(), Bytes::copy_from_slice(data));
    steps.ops.extend(makes.into_iter().map(create));
    for (key, value) in puts.iter().filter(|(key, _)| !missing(key)) {
        // What is compared was checked above, and no other version is of interest.
        steps
            .ops
            .push(Op::Write((*key).to_owned(), Bytes::copy_from_slice(value), -1));
    }
    deletes.sort_unstable_by(|a, b| b.cmp(a));
    for key in deletes {
        let Some((data, stat)) = nodes.get(key) else { continue };
        if data.is_empty() {
            continue; // a folder
        }
        steps.deleted += 1;
        let is_folder = stat.num_children > 0 || keys.iter().any(|put| above(put).any(|path| path == key));
        steps.ops.push(if is_folder {
            Op::Write(key.to_owned(), Bytes::new(), stat.version)
        } else {
            Op::Delete(key.to_owned(), stat.version)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(data: &'static str, mzxid: i64, version: i32, children: i32, ever: i32) -> Node {
        let stat = Stat {
            czxid: 1,
            mzxid,
            pzxid: 1,
            ctime: 0,
            version,
            cversion: 2 * ever - children,
            ephemeral_owner: 0,
            num_children: children,
        };
        (Bytes::from_static(data.as_bytes()), stat)
    }

    fn ops(compares: &[(&str, i64)], writes: &[(&str, Option<&str>)], nodes: &[(&str, Node)]) -> Vec<String> {
        let compares: Vec<Compare> = compares
            .iter()
            .map(|&(key, revision)| Compare {
                key: key.into(),
                revision,
            })
            .collect();
        let writes: Vec<Write> = writes
            .iter()
            .map(|&(key, value)| match value {
                Some(value) => Write::Put(key.into(), value.as_bytes().into()),
                None => Write::Delete(key.into()),
            })
            .collect();
        let nodes = nodes
            .iter()
            .map(|(path, node)| ((*path).to_owned(), node.clone()))
            .collect();
        match plan(&compares, &writes, &nodes) {
            Plan::Conflict(current) => vec![format!("conflict {}", current.iter().flatten().count())],
            Plan::Steps(steps) => steps
                .ops
                .iter()
                .map(|op| match op {
                    Op::Count(path) => format!("count {path}"),
                    Op::Create(path, data) => format!("create {path} {}", String::from_utf8_lossy(data)),
                    Op::Write(path, data, version) => {
                        format!("write {path} {} {version}", String::from_utf8_lossy(data))
                    }
                    Op::Delete(path, version) => format!("delete {path} {version}"),
                    Op::Check(path, version) => format!("check {path} {version}"),
                })
                .collect(),
        }
    }

    #[test]
    fn what_is_compared_is_held_by_its_version_and_by_what_was_made_beside_it() {
        let there = [("/a", node("", 1, 0, 2, 7)), ("/a/x", node("old", 9, 3, 0, 0))];
        assert_eq!(
            ops(&[("/a/x", 9)], &[("/a/x", Some("new"))], &there),
            [
                "count /a/@rollcall-",
                "delete /a/@rollcall-0000000007 -1",
                "check /a/x 3",
                "write /a/x new -1"
            ]
        );
        assert_eq!(ops(&[("/a/x", 8)], &[("/a/x", Some("new"))], &there), ["conflict 1"]);
        assert_eq!(ops(&[("/a/y", 8)], &[("/a/x", None)], &there), ["conflict 0"]);
        assert_eq!(ops(&[], &[("/a/x", Some("new"))], &there), ["write /a/x new -1"]);
        assert_eq!(ops(&[], &[("/a/x", None)], &there), ["delete /a/x 3"]);
    }

    #[test]
    fn folders_are_made_and_never_deleted() {
        assert_eq!(
            ops(&[("/a/b/c", 0)], &[("/a/b/c", Some("x")), ("/a", Some("y"))], &[]),
            ["create /a y", "create /a/b ", "create /a/b/c x"]
        );
        let there = [
            ("/a", node("x", 5, 2, 1, 1)),
            ("/a/b", node("y", 6, 0, 0, 0)),
            ("/f", node("", 6, 4, 0, 0)),
        ];
        assert_eq!(
            ops(&[], &[("/a", None), ("/a/b", None), ("/f", None), ("/g", None)], &there),
            ["delete /a/b 0", "write /a  2"]
        );
        assert_eq!(
            ops(&[], &[("/a/b", None), ("/a/b/c", Some("z"))], &there),
            ["create /a/b/c z", "write /a/b  0"]
        );
    }

    #[test]
    fn what_is_not_to_be_there_is_made_and_deleted() {
        let root = [("/", node("", 0, 0, 1, 1))];
        assert_eq!(
            ops(&[("/a/b", 0)], &[("/c", None)], &root),
            ["create /a ", "create /a/b ", "delete /a/b -1", "delete /a -1"]
        );
        assert_eq!(ops(&[], &[("/c", None)], &root), ["check / -1"], "it is told when");
        assert_eq!(
            ops(
                &[("/a", 0)],
                &[("/a", Some("x"))],
                &[("/", node("", 0, 0, 1, 4)), ("/a", node("", 3, 2, 1, 1))]
            ),
            [
                "count /@rollcall-",
                "delete /@rollcall-0000000004 -1",
                "check /a 2",
                "write /a x -1"
            ],
            "a folder becomes a key"
        );
    }

    #[test]
    fn folders_are_known_before_what_lies_in_them() {
        let compare = Compare {
            key: "/a/b".into(),
            revision: 0,
        };
        let put = Write::Put("/a".into(), b"x"[..].into());
        assert_eq!(paths(&[compare], &[put]), ["/", "/a", "/a/b"]);
    }
}
