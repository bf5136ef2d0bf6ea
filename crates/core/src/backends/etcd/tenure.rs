//! A lease of etcd as a tenure.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::shared::Shared;
use super::transact::{Under, transact};
use crate::error::{Error, ErrorKind, Result};
use crate::etcd::{Fault, Lease, LeaseOptions, Line, Placed, Standing, lost, whole_seconds};
use crate::store::{Commit, Compare, Write, folder};
use crate::sync::lock;
use crate::tenure::{Before, Entered, Look, Since, Tenure};

/// A lease of its own, over the client of the backend.
pub(super) struct EtcdTenure {
    shared: Arc<Shared>,
    id: i64,
    ttl: Duration,
    phase: Mutex<Phase>,
}

enum Phase {
    /// etcd was never asked for it.
    Unasked,
    /// It was asked for, and may be there.
    Asked,
    /// It was granted, and is renewed.
    Kept(Arc<Lease>),
    /// It is not renewed any more; whether it was ever asked for.
    Stopped(bool),
}

impl EtcdTenure {
    pub(super) fn new(shared: Arc<Shared>, ttl: Duration) -> Self {
        Self {
            shared,
            id: Lease::new_id(),
            ttl,
            phase: Mutex::new(Phase::Unasked),
        }
    }

    fn kept(&self) -> Option<Arc<Lease>> {
        match &*lock(&self.phase) {
            Phase::Kept(lease) => Some(Arc::clone(lease)),
            _ => None,
        }
    }

    /// What is asked about a key of this lease.
    async fn line<T>(
        &self,
        key: &str,
        before: &Before,
        ask: impl AsyncFnOnce(Line<'_>) -> Result<T, Fault>,
    ) -> Result<T> {
        let prefixes: Vec<&[u8]> = before.prefixes.iter().map(|prefix| prefix.as_bytes()).collect();
        let line = Line {
            elections: &self.shared.client.elections,
            lease: self.id,
            key: key.as_bytes(),
            prefixes: &prefixes,
            most: before.most,
        };
        let asked = ask(line).await;
        asked.map_err(|fault| self.shared.explain_under(fault, "write", key, folder(key)))
    }
}

#[async_trait]
impl Tenure for EtcdTenure {
    fn lease(&self) -> i64 {
        self.id
    }

    async fn begin(&self, within: Duration) -> Result<()> {
        {
            let mut phase = lock(&self.phase);
            match *phase {
                Phase::Unasked => *phase = Phase::Asked, // before it is asked for: the answer may be lost
                Phase::Asked => {}
                Phase::Kept(_) => return Ok(()),
                Phase::Stopped(_) => return Err(Error::new(ErrorKind::Closed, "it was given up")),
            }
        }
        let until = Instant::now() + within;
        let leases = &self.shared.client.leases;
        let lease = leases
            .grant_for(self.id, whole_seconds(self.ttl), until, LeaseOptions::default())
            .await
            .map_err(|fault| fault.error)?;
        let mut phase = lock(&self.phase);
        if matches!(*phase, Phase::Asked) {
            *phase = Phase::Kept(Arc::new(lease));
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        self.kept()
            .filter(|lease| lease.is_alive())
            .map(|lease| lease.deadline())
    }

    async fn lost(&self) -> String {
        // The lease is not held meanwhile: its renewal ends when it is let go.
        let state = self.kept().map(|lease| lease.state());
        match state {
            Some(mut state) => lost(&mut state).await,
            None => "its renewal ended".to_owned(),
        }
    }

    async fn enter(&self, key: &str, value: &[u8], before: &Before, within: Duration) -> Result<Entered> {
        let until = Instant::now() + within;
        let created = self.line(key, before, async |line: Line<'_>| line.create(value, until).await);
        let Some(Placed { at, cluster, seen }) = created.await? else {
            let text = "its key was there, under another lease";
            return Err(Error::new(ErrorKind::Unavailable, text).about(key));
        };
        Ok(Entered {
            since: Since { created: at, cluster },
            seen: seen.map(look),
        })
    }

    async fn look(&self, key: &str, since: Since, before: &Before, within: Duration) -> Result<Look> {
        let until = Instant::now() + within;
        let seen = self.line(key, before, async |line: Line<'_>| {
            line.look(since.created, since.cluster, until).await
        });
        Ok(look(seen.await?))
    }

    async fn changed(&self, key: &str, since: Since, before: &Before, seen: &Look) -> Result<()> {
        let seen = Standing {
            stands: seen.stands,
            older: seen.older.iter().map(|key| key.as_bytes().to_vec()).collect(),
            revision: seen.revision,
        };
        let changed = self.line(key, before, async |line: Line<'_>| {
            Ok(line.changed(since.cluster, &seen).await)
        });
        changed.await?
    }

    async fn claim(
        &self,
        key: &str,
        value: &[u8],
        compares: &[Compare],
        writes: &[Write],
        within: Duration,
    ) -> Result<Commit> {
        let lease = self.id;
        let under = Under { lease, key, value };
        transact(&self.shared, Some(under), compares, writes, within).await
    }

    fn stop(&self) {
        let mut phase = lock(&self.phase);
        let is_asked = match *phase {
            Phase::Unasked => false,
            Phase::Asked | Phase::Kept(_) => true,
            Phase::Stopped(is_asked) => is_asked,
        };
        *phase = Phase::Stopped(is_asked);
    }

    async fn end(&self, within: Duration) -> Result<()> {
        if !matches!(*lock(&self.phase), Phase::Stopped(true)) {
            return Ok(());
        }
        let leases = &self.shared.client.leases;
        let ended = leases.revoke_until(self.id, Instant::now() + within).await;
        ended.map_err(|fault| fault.error)
    }
}

fn look(seen: Standing) -> Look {
    let text = |key: Vec<u8>| String::from_utf8(key).ok().map(Arc::from); // what counts is a prefix and digits
    Look {
        stands: seen.stands,
        older: seen.older.into_iter().filter_map(text).collect(),
        revision: seen.revision,
    }
}
