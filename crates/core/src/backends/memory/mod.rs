//! The embedded registry: shared by the whole process, with real expiry, and with faults on request.
//!
//! A [`MemoryServer`] is to this backend what etcd is to its own: it lives apart from the clients, keeps records with a
//! TTL, and knows nothing of retries. Clients in any thread reach it by its namespace.

mod pairs;
mod server;
mod store;
mod tenure;
mod tenures;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, StreamExt as _};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

pub use self::server::MemoryServer;
use self::server::{Fate, Owner, Record, SWEEP, Value};
use self::store::MemoryStore;
use crate::backend::{Backend, Capabilities, Follow, Intent, Loss, Presence, ServiceName, Snapshot};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::ServiceInstance;
use crate::store::Store;

/// A client of a memory server.
pub struct MemoryBackend {
    server: Arc<MemoryServer>,
    ttl: Duration,
}

impl MemoryBackend {
    /// A client of the server of `namespace`, whose records stand for `ttl` without renewal.
    pub fn new(namespace: &str, ttl: Duration) -> Self {
        Self {
            server: MemoryServer::of(namespace),
            ttl,
        }
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            counts_names: true,
            ..Capabilities::USUAL
        }
    }

    fn place(&self) -> String {
        "the memory of this process".to_owned()
    }

    async fn contact(&self) -> Result<()> {
        self.server.lock().ensure_here()
    }

    fn presence(&self, name: &str, id: &str) -> Result<Box<dyn Presence>> {
        Ok(Box::new(MemoryPresence {
            server: self.server.clone(),
            name: name.to_owned(),
            id: id.to_owned(),
            ttl: self.ttl,
            owner: Arc::new(Owner {
                crashed: AtomicBool::new(false),
                fate: watch::Sender::new(Fate::Gone),
            }),
            renewed: Arc::new(Renewed::default()),
            renewal: None,
            wrote: false,
        }))
    }

    async fn fetch(&self, name: &str) -> Result<Snapshot> {
        let mut state = self.server.lock();
        state.ensure_here()?;
        Ok(state.snapshot(name))
    }

    fn follow(&self, name: &str) -> Follow {
        let (epoch, changed) = {
            let mut state = self.server.lock();
            (state.epoch, state.service(name).changed.subscribe())
        };
        let start = (self.server.clone(), name.to_owned(), changed, true);
        let snapshots = stream::unfold(start, move |(server, name, mut changed, first)| async move {
            if !first {
                let next_expiry = server.lock().services.get(&name).and_then(|s| s.next_expiry);
                tokio::select! {
                    _ = changed.changed() => {}
                    () = until(next_expiry) => {}
                }
            }
            changed.mark_unchanged();
            let read = {
                let mut state = server.lock();
                match state.ensure_here() {
                    Err(error) => Err(error),
                    Ok(()) if state.epoch != epoch => return None, // its history broke: follow anew
                    Ok(()) => Ok(state.snapshot(&name)),
                }
            };
            Some((read, (server, name, changed, false)))
        });
        Follow::Stream(snapshots.boxed())
    }

    async fn services(&self) -> Result<Vec<String>> {
        let mut state = self.server.lock();
        state.ensure_here()?;
        Ok(state
            .names()
            .into_iter()
            .map(|listed| listed.name.to_string())
            .collect())
    }

    fn follow_services(&self) -> Follow<Vec<Arc<ServiceName>>> {
        let (epoch, changed) = {
            let state = self.server.lock();
            (state.epoch, state.names.subscribe())
        };
        let start = (self.server.clone(), changed, true);
        let lists = stream::unfold(start, move |(server, mut changed, first)| async move {
            if !first {
                changes_or_expires(&server, &mut changed).await;
            }
            changed.mark_unchanged();
            let read = {
                let mut state = server.lock();
                match state.ensure_here() {
                    Err(error) => Err(error),
                    Ok(()) if state.epoch != epoch => return None, // its history broke: follow anew
                    Ok(()) => Ok(state.names()),
                }
            };
            Some((read, (server, changed, false)))
        });
        Follow::Stream(lists.boxed())
    }

    fn store(&self) -> Option<Arc<dyn Store>> {
        Some(Arc::new(MemoryStore(self.server.clone())))
    }

    async fn close(&self) {}
}

/// Until the names may be others.
async fn changes_or_expires(server: &MemoryServer, changed: &mut watch::Receiver<u64>) {
    loop {
        let next_expiry = server.lock().next_expiry();
        tokio::select! {
            _ = changed.changed() => return,
            () = until(next_expiry) => {
                sleep(SWEEP).await; // what expires about now expires together
                server.lock().sweep();
            }
        }
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

struct MemoryPresence {
    server: Arc<MemoryServer>,
    name: String,
    id: String,
    ttl: Duration,
    owner: Arc<Owner>,
    renewed: Arc<Renewed>,
    renewal: Option<AbortHandle>,
    wrote: bool,
}

/// Until when the record stands as far as its owner knows.
struct Renewed {
    start: Instant,
    /// Milliseconds after `start`.
    until: AtomicU64,
}

impl Default for Renewed {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            until: AtomicU64::new(0),
        }
    }
}

impl Renewed {
    fn set(&self, until: Instant) {
        let ms = until.duration_since(self.start).as_millis();
        self.until
            .store(u64::try_from(ms).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    fn deadline(&self) -> Instant {
        self.start + Duration::from_millis(self.until.load(Ordering::SeqCst))
    }
}

impl MemoryPresence {
    fn stop_renewal(&mut self) {
        if let Some(renewal) = self.renewal.take() {
            renewal.abort();
        }
    }

    fn start_renewal(&mut self) {
        self.stop_renewal();
        let (server, name, id, ttl) = (self.server.clone(), self.name.clone(), self.id.clone(), self.ttl);
        let (owner, renewed) = (self.owner.clone(), self.renewed.clone());
        let renewal = tokio::spawn(async move {
            loop {
                sleep(ttl / 3).await;
                let mut state = server.lock();
                if owner.crashed.load(Ordering::SeqCst) {
                    return;
                }
                if state.away {
                    continue;
                }
                let Some(service) = state.services.get_mut(&name) else {
                    return;
                };
                service.sweep(&name, Instant::now());
                let record = service.records.get_mut(&id);
                let Some(record) = record.filter(|r| r.is_of(&owner)) else {
                    return;
                };
                let until = Instant::now() + ttl;
                record.expires = Some(until);
                renewed.set(until);
            }
        });
        self.renewal = Some(renewal.abort_handle());
    }
}

#[async_trait]
impl Presence for MemoryPresence {
    async fn publish(&mut self, instance: &ServiceInstance, intent: Intent) -> Result<()> {
        if self.owner.crashed.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "this instance was made to crash"));
        }
        {
            let mut state = self.server.lock();
            state.ensure_here()?;
            state.expire(&self.name);
            let holder = state.services.get(&self.name).and_then(|s| s.records.get(&self.id));
            if intent == Intent::Keep && holder.is_some_and(|record| !record.is_of(&self.owner)) {
                return Err(Error::new(ErrorKind::Replaced, "another owner holds the id"));
            }
            let until = Instant::now() + self.ttl;
            let record = Record {
                value: Value::Good(Arc::new(instance.clone())),
                owner: Some(self.owner.clone()),
                expires: Some(until),
            };
            state.service(&self.name).write(&self.name, &self.id, record);
            self.wrote = true;
            self.renewed.set(until);
        }
        self.start_renewal();
        Ok(())
    }

    async fn lost(&mut self) -> Loss {
        let mut fate = self.owner.fate.subscribe();
        loop {
            if self.owner.crashed.load(Ordering::SeqCst) {
                std::future::pending::<()>().await; // the dead notice nothing
            }
            match *fate.borrow_and_update() {
                Fate::Gone => return Loss::Gone("the record is gone from the registry".to_owned()),
                Fate::Replaced => return Loss::Replaced,
                Fate::Standing => {}
            }
            let deadline = self.renewed.deadline();
            if Instant::now() >= deadline {
                return Loss::Gone("not renewed for its TTL: the registry can't be reached".to_owned());
            }
            tokio::select! {
                _ = fate.changed() => {}
                () = sleep_until(deadline) => {}
            }
        }
    }

    fn stop(&mut self) {
        self.stop_renewal();
    }

    async fn withdraw(&mut self) -> Result<()> {
        if self.owner.crashed.load(Ordering::SeqCst) {
            return Ok(()); // the dead remove nothing
        }
        if !self.wrote {
            return Ok(());
        }
        let mut state = self.server.lock();
        state.ensure_here()?;
        if let Some(service) = state.services.get_mut(&self.name)
            && service
                .records
                .get(&self.id)
                .is_some_and(|record| record.is_of(&self.owner))
        {
            service.delete(&self.name, &self.id);
        }
        Ok(())
    }

    fn ttl(&self) -> Duration {
        self.ttl
    }
}

impl Drop for MemoryPresence {
    fn drop(&mut self) {
        self.stop_renewal();
    }
}
