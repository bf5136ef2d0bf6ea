//! A client of a memory server as a store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::server::MemoryServer;
use super::tenure::MemoryTenure;
use super::tenures::Tenures;
use crate::backend::{Steps, steps};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Commit, Compare, Range, Read, Store, Write};
use crate::tenure::{Reading, Tenure};

/// A client of a memory server as a store.
pub(super) struct MemoryStore(pub(super) Arc<MemoryServer>);

#[async_trait]
impl Store for MemoryStore {
    async fn read(&self, ranges: &[Range]) -> Result<Read> {
        let mut state = self.0.lock();
        state.ensure_here()?;
        state.tenures.sweep(Instant::now());
        let mut read = state.pairs.read(ranges);
        read.pairs.extend(state.tenures.read(ranges));
        Ok(read)
    }

    fn follow(&self, ranges: &Arc<[Range]>) -> BoxStream<'static, Result<Read>> {
        let (epoch, changed) = {
            let state = self.0.lock();
            (state.epoch, state.pairs.changed.subscribe())
        };
        steps(Following {
            server: Arc::clone(&self.0),
            ranges: Arc::clone(ranges),
            changed,
            epoch,
            has_read: false,
        })
    }

    async fn commit(&self, compares: &[Compare], writes: &[Write], _: Duration) -> Result<Commit> {
        let mut state = self.0.lock();
        state.ensure_here()?;
        let state = &mut *state;
        state.tenures.sweep(Instant::now());
        Ok(state.pairs.commit(compares, writes, &state.tenures))
    }

    fn hold(&self, ttl: Duration) -> Result<Arc<dyn Tenure>> {
        Ok(Arc::new(MemoryTenure::new(Arc::clone(&self.0), ttl)))
    }

    async fn leader(&self, prefix: &str) -> Result<Reading> {
        self.0.with_tenures(|tenures| tenures.leader(prefix))
    }

    async fn stirs(&self, prefix: &str, since: &Reading) -> Result<()> {
        let is_another = |tenures: &Tenures| tenures.leader(prefix).leader != since.leader;
        self.0.until_tenures(is_another).await
    }
}

struct Following {
    server: Arc<MemoryServer>,
    ranges: Arc<[Range]>,
    changed: watch::Receiver<u64>,
    epoch: u64,
    has_read: bool,
}

impl Steps for Following {
    type Read = Read;

    async fn next(&mut self) -> Result<Read> {
        if std::mem::replace(&mut self.has_read, true) {
            let _ = self.changed.changed().await; // the sender lives as long as the server
        }
        self.changed.mark_unchanged();
        let state = self.server.lock();
        state.ensure_here()?;
        if state.epoch != self.epoch {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the history of the memory server broke",
            ));
        }
        Ok(state.pairs.read(&self.ranges))
    }
}
