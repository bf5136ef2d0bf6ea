//! One registration in ZooKeeper: an ephemeral node of the client's session.
//!
//! Whose a node is:
//!
//! - It belongs to a client by the session on it: one that is or was the client's.
//! - Within a client it belongs to the registration that made it, by the transaction that made it (`czxid`), which no two
//!   nodes share. A node of ours that nobody knows by its transaction is one whose making was not answered: it belongs
//!   to the registration that last sent such a request for this path.
//!
//! A node that is not of the current session is taken by deleting it and making it anew, in one transaction guarded by
//! its version. Versions begin at 0 again with each node, so an old owner that is about to delete "its" version could
//! hit the node of a newer one: the transaction writes the new node until its version is above the old one's.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::client::{Change, Mode, Stat, ZkError};
use super::session::Session;
use super::shared::Shared;
use super::sweep::sweep_after_breaks;
use crate::backend::{Intent, Loss, Presence};
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::instance::ServiceInstance;

/// How often a node may change between being looked at and being written before the attempt is given up.
const RACES: u32 = 4;
/// The highest version that a newer node is lifted above. A node with a higher one was updated that often; then the
/// newer begins at 0, and would have to be updated that often between two requests of the older owner.
const LIFTED: i32 = 64;

pub(super) struct ZookeeperPresence {
    shared: Arc<Shared>,
    parent: String,
    path: String,
    /// Tells the registrations of this client apart.
    token: u64,
    /// Whether anything was ever sent that may have made a node.
    sent: bool,
    /// The node as we last knew it to be ours.
    held: Option<Held>,
    /// The transaction of our last write, also when it was taken away since.
    written: Option<i64>,
    /// A write of ours was not answered: it may be what stands.
    unanswered: bool,
    /// Resolves when the node changes, or nothing will tell that it does.
    watch: Option<BoxFuture<'static, ()>>,
    /// Between two looks that brought no watch.
    backoff: Backoff,
    looked: bool,
    loss: Option<Loss>,
    ttl: Duration,
}

struct Held {
    session: Arc<Session>,
    czxid: i64,
    version: i32,
}

/// Whether a node of another owner, made by the transaction `czxid`, is newer than our last write. A restored backup may
/// hold a node of long ago.
fn is_newer(czxid: i64, written: Option<i64>) -> bool {
    written.is_none_or(|written| czxid > written)
}

impl ZookeeperPresence {
    pub(super) fn new(shared: Arc<Shared>, name: &str, id: &str) -> Self {
        let token = shared.owners.with(|made| {
            made.next += 1;
            made.next
        });
        Self {
            parent: shared.paths.service(name),
            path: shared.paths.instance(name, id),
            token,
            sent: false,
            held: None,
            written: None,
            unanswered: false,
            watch: None,
            backoff: Backoff::new(),
            looked: false,
            loss: None,
            ttl: shared.options.ttl,
            shared,
        }
    }

    async fn session(&mut self) -> Result<Arc<Session>> {
        let session = self.shared.sessions.get().await;
        session.map_err(|error| error.about(&self.path))
    }

    fn is_ours(&self, stat: &Stat) -> bool {
        let owner = self.shared.owners.with(|made| match made.by_czxid.get(&stat.czxid) {
            Some(token) => Some(*token),
            None if self.shared.sessions.is_ours(stat.ephemeral_owner) => made.by_path.get(&self.path).copied(),
            None => None,
        });
        owner == Some(self.token)
    }

    fn is_newer(&self, stat: &Stat) -> bool {
        is_newer(stat.czxid, self.written)
    }

    /// Remembers a node as ours.
    fn hold(&mut self, session: &Arc<Session>, stat: &Stat) {
        let before = self.held.take().map(|held| held.czxid);
        self.shared.owners.with(|made| {
            if let Some(before) = before {
                made.by_czxid.remove(&before);
            }
            made.by_czxid.insert(stat.czxid, self.token);
        });
        self.ttl = session.granted;
        self.written = Some(stat.mzxid);
        self.held = Some(Held {
            session: Arc::clone(session),
            czxid: stat.czxid,
            version: stat.version,
        });
    }

    /// From here on a node of this path that nobody knows is ours.
    fn will_make(&mut self) {
        self.sent = true;
        self.shared.owners.with(|made| {
            made.by_path.insert(self.path.clone(), self.token);
        });
    }

    /// Makes the record visible; gives the node's state.
    async fn write(&mut self, session: &Arc<Session>, value: &[u8], intent: Intent) -> Result<Stat> {
        // Nobody has it, as a rule: one request.
        let mut look = self.held.is_some();
        for _ in 0..RACES {
            let stat = if look {
                let stat = session.client.stat(&self.path).await;
                stat.map_err(|error| session.explain(error, "look at", &self.path))?
            } else {
                None
            };
            look = true;
            let written = match stat {
                None => self.make(session, value).await?,
                Some(stat) if self.is_ours(&stat) && stat.ephemeral_owner == session.id => {
                    self.overwrite(session, value, &stat).await?
                }
                // What is older than our last write comes from a restored backup: no rival.
                Some(stat) if intent == Intent::Claim || self.is_ours(&stat) || !self.is_newer(&stat) => {
                    self.take(session, value, &stat).await?
                }
                Some(_) => {
                    return Err(self.error(
                        session,
                        ErrorKind::Replaced,
                        "belongs to a newer registration of the same id",
                    ));
                }
            };
            if let Some(stat) = written {
                return Ok(stat);
            }
        }
        let why = "changes faster than it can be written";
        Err(self.error(session, ErrorKind::Unavailable, why))
    }

    /// `None`: somebody else was quicker.
    async fn make(&mut self, session: &Arc<Session>, value: &[u8]) -> Result<Option<Stat>> {
        self.will_make();
        for parents_made in [false, true] {
            let made = session
                .client
                .create(&self.path, value, Mode::Ephemeral, &self.shared.acls)
                .await;
            match made {
                Ok(stat) => return Ok(Some(stat)),
                Err(ZkError::NodeExists) => return Ok(None),
                Err(ZkError::NoNode) if !parents_made => self.shared.make(session, &self.parent).await?,
                Err(error) => return Err(session.explain(error, "create", &self.path)),
            }
        }
        Ok(None)
    }

    async fn overwrite(&mut self, session: &Arc<Session>, value: &[u8], stat: &Stat) -> Result<Option<Stat>> {
        match session.client.set_data(&self.path, value, stat.version).await {
            Ok(stat) => Ok(Some(stat)),
            Err(ZkError::NoNode | ZkError::BadVersion) => Ok(None),
            Err(error) => Err(session.explain(error, "write", &self.path)),
        }
    }

    /// Puts a node of this session in the place of another.
    async fn take(&mut self, session: &Arc<Session>, value: &[u8], stat: &Stat) -> Result<Option<Stat>> {
        self.will_make();
        let lifts = if (0..=LIFTED).contains(&stat.version) {
            stat.version + 1
        } else {
            0
        };
        // The value goes last, and once: a request may not be large.
        let data = |lift: i32| if lift == lifts { value } else { b"" };
        let mut changes = vec![
            Change::Delete {
                path: &self.path,
                version: stat.version,
            },
            Change::Create {
                path: &self.path,
                data: data(0),
                mode: Mode::Ephemeral,
                acls: &self.shared.acls,
            },
        ];
        changes.extend((1..=lifts).map(|lift| Change::SetData {
            path: &self.path,
            data: data(lift),
            version: -1,
        }));
        match session.client.change(&changes).await {
            // `None`: it was not told what we made: look.
            Ok(done) => Ok(done.stats.last().copied()),
            Err(ZkError::NoNode | ZkError::BadVersion | ZkError::NodeExists) => Ok(None),
            Err(error @ ZkError::NotEmpty) => {
                let why = "has nodes below it: it is no instance, and the id can't be used";
                Err(self.error(session, ErrorKind::InvalidArgument, why).caused_by(error))
            }
            Err(error) => Err(session.explain(error, "write", &self.path)),
        }
    }

    /// What is the matter with our node.
    fn error(&self, session: &Session, kind: ErrorKind, what: &str) -> Error {
        Error::new(kind, format!("{} {what}", self.path))
            .at(session.client.member())
            .about(&self.path)
    }

    /// Looks at the node and watches it. While we hold none, one of ours is what is not to be there.
    async fn look(&mut self) -> Result<()> {
        let (session, version) = match &self.held {
            Some(held) => (Arc::clone(&held.session), Some(held.version)),
            None => (self.session().await?, None),
        };
        session.up().await?;
        let (stat, watcher) = session
            .client
            .watch_stat(&self.path)
            .await
            .map_err(|error| session.explain(error, "look at", &self.path))?;
        self.watch = Some(watcher.fired().map(drop).boxed());
        let Some(version) = version else {
            let ours = stat.is_some_and(|stat| self.is_ours(&stat));
            self.loss = ours.then(|| Loss::Gone("it is out of traffic and stands again".to_owned()));
            return Ok(());
        };
        self.loss = match stat {
            None => Some(Loss::Gone("its node was deleted by someone else".to_owned())),
            Some(stat) if !self.is_ours(&stat) && self.is_newer(&stat) => Some(Loss::Replaced),
            // See `write`: the next publication takes the node back.
            Some(stat) if !self.is_ours(&stat) => {
                Some(Loss::Gone("ZooKeeper was restored from an older state".to_owned()))
            }
            Some(stat) if stat.version != version && !self.unanswered => {
                Some(Loss::Gone("its node was overwritten by someone else".to_owned()))
            }
            Some(stat) => {
                self.hold(&session, &stat);
                None
            }
        };
        Ok(())
    }

    /// One thing that may have happened to our node. Cancel-safe: what was learnt is kept in `self`.
    async fn hear(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.await; // the node tells, not the event
            self.watch = None;
            self.looked = false;
            self.backoff.reset();
        }
        if self.looked {
            tokio::time::sleep(self.backoff.next_pause()).await;
        }
        self.looked = true;
        // A failed look is not a loss by itself: the session tells when it is one.
        let _ = self.look().await;
    }
}

#[async_trait]
impl Presence for ZookeeperPresence {
    async fn publish(&mut self, instance: &ServiceInstance, intent: Intent) -> Result<()> {
        let value = self.shared.paths.value(instance);
        let session = self.session().await?;
        self.unanswered = true; // until it is answered: this future may be dropped at any await
        let stat = self.write(&session, value.as_bytes(), intent).await?;
        self.unanswered = false;
        self.loss = None;
        if self.held.as_ref().is_none_or(|held| held.session.id != session.id) {
            self.watch = None; // of a session of before
            self.looked = false;
        }
        self.hold(&session, &stat);
        Ok(())
    }

    async fn lost(&mut self) -> Loss {
        loop {
            if let Some(loss) = &self.loss {
                return loss.clone();
            }
            let Some(session) = self.held.as_ref().map(|held| Arc::clone(&held.session)) else {
                return Loss::Gone("it has no node".to_owned());
            };
            tokio::select! {
                why = session.lapsed() => self.loss = Some(Loss::Gone(why)),
                () = self.hear() => {}
            }
        }
    }

    /// The session, which others share, goes on: the node stands until it is withdrawn.
    fn stop(&mut self) {
        self.watch = None;
    }

    async fn withdraw(&mut self) -> Result<()> {
        self.loss = None;
        if !self.sent {
            return Ok(());
        }
        let session = self.session().await?;
        for _ in 0..RACES {
            let stat = session.client.stat(&self.path).await;
            let Some(stat) = stat
                .map_err(|error| session.explain(error, "look at", &self.path))?
                .filter(|stat| self.is_ours(stat))
            else {
                self.put_away();
                return Ok(());
            };
            match session.client.delete(&self.path, stat.version).await {
                Ok(()) | Err(ZkError::NoNode) => {
                    self.put_away();
                    sweep_after_breaks(&self.shared, &session);
                    return Ok(());
                }
                Err(ZkError::BadVersion) => {} // written since, by an attempt of ours or by a newer owner
                Err(error) => return Err(session.explain(error, "delete", &self.path)),
            }
        }
        let why = "changes faster than it can be deleted";
        Err(self.error(&session, ErrorKind::Unavailable, why))
    }

    async fn reappeared(&mut self) {
        if self.written.is_none() {
            std::future::pending::<()>().await; // nothing was ever there
        }
        while self.loss.is_none() {
            self.hear().await;
        }
        self.sent = true;
    }

    fn ttl(&self) -> Duration {
        self.ttl
    }
}

impl ZookeeperPresence {
    /// Nothing of ours is there any more. Whose it is stays known: with an older state of ZooKeeper a node of ours comes back.
    fn put_away(&mut self) {
        self.sent = false;
        self.unanswered = false;
        self.looked = true; // whoever comes back at once need not have looked
        self.backoff.reset();
        if let Some(held) = self.held.take() {
            self.shared.owners.with(|made| made.by_czxid.remove(&held.czxid));
        }
    }
}

impl Drop for ZookeeperPresence {
    fn drop(&mut self) {
        self.put_away();
        self.shared.owners.with(|made| {
            if made.by_path.get(&self.path) == Some(&self.token) {
                made.by_path.remove(&self.path);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_older_than_our_last_write_is_no_newer_owner() {
        assert!(is_newer(901, Some(900)));
        assert!(!is_newer(899, Some(900)));
        assert!(is_newer(1, None), "who has written nothing has nothing to compare with");
    }
}
