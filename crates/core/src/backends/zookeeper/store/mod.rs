//! ZooKeeper as a store: a key is a node, its revision the transaction that wrote the node last. A node without data is no key:
//! the folders of keys are such nodes, and one that is deleted while others lie below it becomes one.
//!
//! Ranges are read at one moment ([`tree`]) and followed by watches ([`follow`]); what a transaction does is planned in [`plan`].

mod follow;
mod plan;
mod tree;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::time::{Instant, sleep, timeout};

use super::client::{Change, ZkError};
use super::paths::check_path;
use super::session::Session;
use super::shared::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Commit, Compare, Range, Read, Store, Write};

use self::plan::{Node, Plan, plan};
use self::tree::moment;

/// How often the pause is doubled, from 1 ms on, before a transaction is planned anew because others were first. Not the
/// back-off of what is away: this one is there, and done with the others in a moment.
const DOUBLED_MOST: u32 = 6;

/// ZooKeeper as a store, by the session of the backend.
pub(super) struct ZookeeperStore(pub(super) Arc<Shared>);

#[async_trait]
impl Store for ZookeeperStore {
    async fn read(&self, ranges: &[Range]) -> Result<Read> {
        let first = ranges.first().map(Range::text).unwrap_or_default();
        let read = async {
            for range in ranges {
                self.check(tree::root(range))?;
            }
            let session = self.0.sessions.get().await?;
            catch_up(&session).await?;
            tree::read(&self.0, &session, ranges).await
        };
        let read = read.await.map_err(|error| error.about(first))?;
        Ok(Read {
            pairs: read.pairs.into_iter().map(Arc::new).collect(),
            moment: moment(read.zxid),
        })
    }

    fn follow(&self, ranges: &Arc<[Range]>) -> BoxStream<'static, Result<Read>> {
        follow::follow(Arc::clone(&self.0), ranges)
    }

    async fn commit(&self, compares: &[Compare], writes: &[Write], within: Duration) -> Result<Commit> {
        let first = writes.first().map(Write::key).unwrap_or_default();
        let result = self.commit(compares, writes, within).await;
        result.map_err(|error| error.about(first))
    }
}

/// Waits until the member knows all that anybody was told to be written. A transaction that changes nothing, for the majority
/// has to agree to it: `sync` asks a leader alone, who may have been deposed.
async fn catch_up(session: &Session) -> Result<()> {
    let nothing = [Change::Check { path: "/", version: -1 }];
    match session.client.change(&nothing).await {
        Ok(_) | Err(ZkError::NoNode) => Ok(()), // where there is no chroot what is read says so
        Err(error) => Err(session.explain(error, "look at", "/")),
    }
}

impl ZookeeperStore {
    fn check(&self, key: &str) -> Result<()> {
        check_path("key", key)?;
        let is_its_own = key == "/zookeeper" || key.starts_with("/zookeeper/");
        if is_its_own && self.0.options.chroot.is_empty() {
            return Err(Error::invalid(
                "key: what lies below \"/zookeeper\" belongs to ZooKeeper itself",
            ));
        }
        Ok(())
    }

    fn check_all(&self, compares: &[Compare], writes: &[Write]) -> Result<()> {
        for compare in compares {
            self.check(&compare.key)?;
        }
        for write in writes {
            self.check(write.key())?;
            if matches!(write, Write::Put(_, value) if value.is_empty()) {
                let text =
                    "value: expected at least one byte: in ZooKeeper a node without data is a folder, and no key";
                return Err(Error::invalid(text).about(write.key()));
            }
        }
        Ok(())
    }

    /// One transaction. What is in its way is read before and has to stay so, so it is planned anew when others were first.
    async fn commit(&self, compares: &[Compare], writes: &[Write], within: Duration) -> Result<Commit> {
        self.check_all(compares, writes)?;
        let deadline = Instant::now() + within;
        let mut tries = 0;
        let mut is_caught_up = false;
        loop {
            let left = || deadline.saturating_duration_since(Instant::now());
            let session = timeout(left(), self.0.sessions.get()).await;
            let session = session.unwrap_or_else(|_| Err(self.unreached(within)))?;
            let planned = async {
                if is_caught_up {
                    catch_up(&session).await?;
                }
                let nodes = nodes(&session, &plan::paths(compares, writes)).await?;
                Ok(plan(compares, writes, &nodes))
            };
            let planned = timeout(left(), planned).await;
            let planned = planned.unwrap_or_else(|_| Err(self.silent(within)))?;
            let steps = match planned {
                Plan::Conflict(current) if is_caught_up => return Ok(Commit::Conflict { current }),
                // The member may be behind.
                Plan::Conflict(_) => {
                    is_caught_up = true;
                    continue;
                }
                Plan::Steps(steps) => steps,
            };
            let changes: Vec<Change> = steps.ops.iter().map(|op| op.change(&self.0.acls)).collect();
            match timeout(left(), session.client.change(&changes)).await {
                Ok(Ok(done)) => {
                    return Ok(Commit::Done {
                        moment: moment(done.zxid),
                        deleted: steps.deleted,
                    });
                }
                Ok(Err(ZkError::NoNode | ZkError::NodeExists | ZkError::BadVersion | ZkError::NotEmpty)) => {
                    self.0.chroot_is_there(&session).await?;
                    is_caught_up = true;
                    tries += 1;
                    let pause = Duration::from_millis(1 << tries.min(DOUBLED_MOST));
                    sleep(pause.mul_f64(fastrand::f64())).await;
                }
                Ok(Err(error)) => {
                    let is_unknown = error.is_outcome_unknown();
                    let first = writes.first().map(Write::key).unwrap_or_default();
                    let error = session.explain(error, "write", first);
                    return Err(if is_unknown {
                        error.with_unknown_outcome()
                    } else {
                        error
                    });
                }
                Err(_) => return Err(self.silent(within).with_unknown_outcome()),
            }
        }
    }

    fn unreached(&self, within: Duration) -> Error {
        let text = format!("no connection to ZooKeeper within {} ms", within.as_millis());
        let member = self.0.sessions.member();
        Error::new(ErrorKind::Unavailable, text).at(&member.unwrap_or_default())
    }

    fn silent(&self, within: Duration) -> Error {
        let text = format!("ZooKeeper did not answer within {} ms", within.as_millis());
        let member = self.0.sessions.member();
        Error::new(ErrorKind::Timeout, text).at(&member.unwrap_or_default())
    }
}

async fn nodes(session: &Session, paths: &[String]) -> Result<HashMap<String, Node>> {
    let (found, ..) = tree::data(session, paths).await?;
    let there = paths.iter().zip(found);
    Ok(there.filter_map(|(path, found)| Some((path.clone(), found?))).collect())
}
