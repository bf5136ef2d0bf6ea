//! A lease of a memory server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::server::MemoryServer;
use super::tenures::Tenures;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Commit, Compare, Write};
use crate::sync::lock;
use crate::tenure::{Before, Entered, Look, Since, Tenure};

impl MemoryServer {
    /// Asks for who holds what, or changes it, once what has expired is forgotten.
    pub(super) fn with_tenures<T>(&self, ask: impl FnOnce(&mut Tenures) -> T) -> Result<T> {
        let mut state = self.lock();
        state.ensure_here()?;
        state.tenures.sweep(Instant::now());
        Ok(ask(&mut state.tenures))
    }

    /// Resolves when `is_so`. That is asked now, when a key has come or gone, and when a lease has expired.
    pub(super) async fn until_tenures(&self, is_so: impl Fn(&Tenures) -> bool + Send) -> Result<()> {
        let mut changes = self.lock().tenures.changed.subscribe();
        loop {
            changes.mark_unchanged();
            let (done, next_expiry) = self.with_tenures(|tenures| (is_so(tenures), tenures.next_expiry()))?;
            if done {
                return Ok(());
            }
            let expiry = async {
                match next_expiry {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = changes.changed() => {}
                () = expiry => {}
            }
        }
    }
}

/// A lease of its own in a memory server.
pub(super) struct MemoryTenure {
    server: Arc<MemoryServer>,
    id: i64,
    ttl: Duration,
    vouched: Arc<watch::Sender<Vouched>>,
    renewal: Mutex<Option<AbortHandle>>,
}

/// Until when it can be vouched for, and why it can't any more.
#[derive(Clone, Default)]
struct Vouched {
    until: Option<Instant>,
    lost: Option<&'static str>,
}

impl MemoryTenure {
    pub(super) fn new(server: Arc<MemoryServer>, ttl: Duration) -> Self {
        Self {
            server,
            id: fastrand::i64(1..=i64::MAX),
            ttl,
            vouched: Arc::default(),
            renewal: Mutex::default(),
        }
    }

    fn lose(&self, why: &'static str) {
        lose(&self.vouched, why);
    }
}

fn lose(vouched: &watch::Sender<Vouched>, why: &'static str) {
    vouched.send_if_modified(|now| {
        let first = now.lost.is_none();
        now.lost.get_or_insert(why);
        first
    });
}

impl Drop for MemoryTenure {
    fn drop(&mut self) {
        self.stop();
    }
}

#[async_trait]
impl Tenure for MemoryTenure {
    fn lease(&self) -> i64 {
        self.id
    }

    async fn begin(&self, _: Duration) -> Result<()> {
        let until = Instant::now() + self.ttl;
        {
            let mut state = self.server.lock();
            state.ensure_here()?;
            state.tenures.grant(self.id, until);
        }
        self.vouched.send_modify(|now| now.until = Some(until));
        let (server, vouched, id, ttl) = (Arc::clone(&self.server), Arc::clone(&self.vouched), self.id, self.ttl);
        let task = tokio::spawn(async move { renew(&server, &vouched, id, ttl).await });
        if let Some(before) = lock(&self.renewal).replace(task.abort_handle()) {
            before.abort();
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        let now = self.vouched.borrow();
        now.until.filter(|_| now.lost.is_none())
    }

    async fn lost(&self) -> String {
        let mut now = self.vouched.subscribe();
        let lost = now.wait_for(|now| now.lost.is_some()).await;
        lost.ok()
            .and_then(|now| now.lost)
            .unwrap_or("its renewal ended")
            .to_owned()
    }

    async fn enter(&self, key: &str, value: &[u8], before: &Before, _: Duration) -> Result<Entered> {
        let entered = self.server.with_tenures(|tenures| {
            let since = tenures.enter(key, self.id, value)?;
            let seen = Some(tenures.look(key, self.id, since, before));
            Some(Entered { since, seen })
        })?;
        entered.ok_or_else(|| lease_gone(key))
    }

    async fn look(&self, key: &str, since: Since, before: &Before, _: Duration) -> Result<Look> {
        self.server
            .with_tenures(|tenures| tenures.look(key, self.id, since, before))
    }

    async fn changed(&self, key: &str, since: Since, before: &Before, seen: &Look) -> Result<()> {
        let waits = seen.older.len() >= before.most;
        let is_another =
            |tenures: &Tenures| !tenures.stands(key, self.id, since) || (waits && !tenures.has_all(&seen.older));
        self.server.until_tenures(is_another).await
    }

    async fn claim(
        &self,
        key: &str,
        value: &[u8],
        compares: &[Compare],
        writes: &[Write],
        _: Duration,
    ) -> Result<Commit> {
        let mut state = self.server.lock();
        state.ensure_here()?;
        let (now, state) = (Instant::now(), &mut *state);
        state.tenures.sweep(now);
        if !state.tenures.lives(self.id) {
            return Err(lease_gone(key));
        }
        if state.tenures.has_all(&[key.into()]) {
            return Ok(state.pairs.conflict(compares, &state.tenures));
        }
        let done = state.pairs.commit(compares, writes, &state.tenures);
        if matches!(done, Commit::Done { .. }) {
            state.tenures.enter(key, self.id, value);
        }
        Ok(done)
    }

    fn stop(&self) {
        if let Some(renewal) = lock(&self.renewal).take() {
            renewal.abort();
        }
        self.lose("its renewal ended");
    }

    async fn end(&self, _: Duration) -> Result<()> {
        let mut state = self.server.lock();
        state.ensure_here()?;
        state.tenures.end(self.id);
        Ok(())
    }
}

fn lease_gone(key: &str) -> Error {
    Error::new(ErrorKind::Unavailable, "its lease is gone from the memory server").about(key)
}

/// Renews a lease each third of its time to live, until it is gone or was not renewed for as long as it lives.
async fn renew(server: &MemoryServer, vouched: &watch::Sender<Vouched>, id: i64, ttl: Duration) {
    let mut until = Instant::now() + ttl;
    loop {
        sleep_until(until.min(Instant::now() + ttl / 3)).await;
        let now = Instant::now();
        if now >= until {
            return lose(vouched, "it was not renewed within its time to live");
        }
        let renewed = {
            let mut state = server.lock();
            if state.away {
                continue;
            }
            state.tenures.sweep(now);
            state.tenures.renew(id, now + ttl)
        };
        if !renewed {
            return lose(vouched, "it expired or was revoked");
        }
        until = now + ttl;
        vouched.send_modify(|now| now.until = Some(until));
    }
}
