//! The embedded registry: shared by the whole process, with real expiry, and with faults on request.
//!
//! A [`MemoryServer`] is to this backend what etcd is to its own: it lives apart from the clients, keeps records with a
//! TTL, and knows nothing of retries. Clients in any thread reach it by its namespace.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, StreamExt as _};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::backend::{Backend, BadRecord, Capabilities, Follow, Intent, Loss, Presence, ServiceName, Snapshot};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::{Codec, ServiceInstance};
use crate::sync::lock;

/// How late the names that have expired are noticed, so that those of a moment are noticed together.
const SWEEP: Duration = Duration::from_millis(50);

/// The servers of this process, by namespace.
static SERVERS: LazyLock<Mutex<HashMap<String, Arc<MemoryServer>>>> = LazyLock::new(Mutex::default);

/// An embedded registry, and the faults it can be made to show. Usable from any thread.
#[derive(Default)]
pub struct MemoryServer {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    services: BTreeMap<String, Service>,
    /// Bumped when a name comes or goes or has another number of instances, and by every break.
    names: Arc<watch::Sender<u64>>,
    away: bool,
    /// Counts the times its history broke: away, wiped.
    epoch: u64,
}

struct Service {
    /// How the list of names shows it, if it has an instance.
    listed: Option<Arc<ServiceName>>,
    names: Arc<watch::Sender<u64>>,
    records: BTreeMap<String, Record>,
    /// No record expires before this. It may be too early (renewal moves the true one on), never too late.
    next_expiry: Option<Instant>,
    /// Bumped by every change of the service's records and by every break.
    changed: watch::Sender<u64>,
}

struct Record {
    value: Value,
    /// Who wrote it; `None` is someone else, by [`MemoryServer::put`].
    owner: Option<Arc<Owner>>,
    expires: Option<Instant>,
}

enum Value {
    Good(Arc<ServiceInstance>),
    Bad(BadRecord),
    /// A good record of another name, which belongs in no list of this one.
    Foreign,
}

/// One presence, as the server knows it.
struct Owner {
    crashed: AtomicBool,
    /// What has become of its record. One channel an owner, so that a change wakes the one it concerns.
    fate: watch::Sender<Fate>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Standing,
    Gone,
    Replaced,
}

impl MemoryServer {
    /// The server of a namespace, made on first use.
    pub fn of(namespace: &str) -> Arc<Self> {
        let mut servers = lock(&SERVERS);
        if let Some(server) = servers.get(namespace) {
            return server.clone();
        }
        // Test files use a namespace each: forget those that nobody holds and that hold nothing.
        servers.retain(|_, server| Arc::strong_count(server) > 1 || !server.is_empty());
        servers.entry(namespace.to_owned()).or_default().clone()
    }

    /// The owner of a record dies without a word: renewal stops, the record goes after its TTL, the owner never comes
    /// back. Says whether there was such a record with an owner.
    pub fn crash(&self, name: &str, id: &str) -> bool {
        let state = self.lock();
        let owner = state
            .services
            .get(name)
            .and_then(|s| s.records.get(id))
            .and_then(|r| r.owner.as_ref());
        owner
            .inspect(|owner| owner.crashed.store(true, Ordering::SeqCst))
            .is_some()
    }

    /// The session behind a record is lost: the record goes at once, and its owner finds out. Says whether there was one.
    pub fn expire(&self, name: &str, id: &str) -> bool {
        self.remove(name, id)
    }

    /// Makes the server unreachable, or reachable again: calls fail, watches break, nothing is renewed.
    pub fn set_away(&self, away: bool) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.away, away) != away {
            state.breaks();
        }
    }

    /// Loses all data, like a server that was set up anew. Watches break.
    pub fn wipe(&self) {
        let mut state = self.lock();
        for (name, service) in &mut state.services {
            for (_, record) in std::mem::take(&mut service.records) {
                record.ends(Fate::Gone);
            }
            service.recount(name);
        }
        state.breaks();
    }

    /// Writes a record as someone else would, without expiry: `value` is its raw text and may be broken.
    pub fn put(&self, name: &str, id: &str, value: &str) {
        let value = match Codec::Kratos.read(&name.into(), id, &format!("{name}/{id}"), value.as_bytes()) {
            Some(Ok(instance)) => Value::Good(Arc::new(instance)),
            Some(Err(bad)) => Value::Bad(bad),
            None => Value::Foreign,
        };
        let record = Record {
            value,
            owner: None,
            expires: None,
        };
        self.lock().service(name).write(name, id, record);
    }

    /// Deletes a record by hand. Says whether there was one.
    pub fn remove(&self, name: &str, id: &str) -> bool {
        let mut state = self.lock();
        let removed = state
            .services
            .get_mut(name)
            .is_some_and(|service| service.delete(name, id));
        state.expire(name); // and forget the name with its last record
        removed
    }

    fn is_empty(&self) -> bool {
        let state = self.lock();
        let now = Instant::now();
        state
            .services
            .values()
            .all(|s| s.records.values().all(|r| r.is_over(now)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn service(&mut self, name: &str) -> &mut Service {
        let names = &self.names;
        self.services.entry(name.to_owned()).or_insert_with(|| Service {
            listed: None,
            names: Arc::clone(names),
            records: BTreeMap::new(),
            next_expiry: None,
            changed: watch::Sender::new(0),
        })
    }

    fn breaks(&mut self) {
        self.epoch += 1;
        self.names.send_modify(|n| *n += 1);
        for service in self.services.values() {
            service.changed.send_modify(|n| *n += 1);
        }
    }

    fn ensure_here(&self) -> Result<()> {
        if self.away {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the memory server is away (it was told to be)",
            ));
        }
        Ok(())
    }

    /// Forgets what has expired in a service, and the service when nothing is left of it and nobody looks.
    fn expire(&mut self, name: &str) {
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        service.sweep(name, Instant::now());
        if service.records.is_empty() && service.changed.receiver_count() == 0 {
            self.services.remove(name);
        }
    }

    /// Forgets what has expired, of all services.
    fn sweep(&mut self) {
        let now = Instant::now();
        for (name, service) in &mut self.services {
            service.sweep(name, now);
        }
        self.services
            .retain(|_, service| !service.records.is_empty() || service.changed.receiver_count() > 0);
    }

    /// No record expires before this.
    fn next_expiry(&self) -> Option<Instant> {
        self.services.values().filter_map(|service| service.next_expiry).min()
    }

    /// The names that have an instance.
    fn names(&mut self) -> Vec<Arc<ServiceName>> {
        self.sweep();
        self.services
            .values()
            .filter_map(|service| service.listed.clone())
            .collect()
    }

    fn snapshot(&mut self, name: &str) -> Snapshot {
        self.expire(name);
        let mut snapshot = Snapshot::default();
        let Some(service) = self.services.get(name) else {
            return snapshot;
        };
        for record in service.records.values() {
            match &record.value {
                Value::Good(instance) => snapshot.instances.push(instance.clone()),
                Value::Bad(bad) => snapshot.bad.push(bad.clone()),
                Value::Foreign => {}
            }
        }
        snapshot
    }
}

impl Service {
    fn write(&mut self, name: &str, id: &str, record: Record) {
        if let Some(expires) = record.expires {
            self.next_expiry = Some(self.next_expiry.map_or(expires, |next| next.min(expires)));
        }
        if let Some(owner) = &record.owner {
            owner.fate.send_replace(Fate::Standing);
        }
        let owner = record.owner.clone();
        if let Some(before) = self.records.insert(id.to_owned(), record)
            && !owner.is_some_and(|owner| before.is_of(&owner))
        {
            before.ends(Fate::Replaced);
        }
        self.changes(name);
    }

    fn delete(&mut self, name: &str, id: &str) -> bool {
        let Some(record) = self.records.remove(id) else {
            return false;
        };
        record.ends(Fate::Gone);
        self.changes(name);
        true
    }

    /// Forgets what has expired. Looks at the records only when one may have.
    fn sweep(&mut self, name: &str, now: Instant) {
        if self.next_expiry.is_none_or(|next| next > now) {
            return;
        }
        let before = self.records.len();
        self.records.retain(|_, record| {
            let over = record.is_over(now);
            if over {
                record.ends(Fate::Gone);
            }
            !over
        });
        self.next_expiry = self.records.values().filter_map(|r| r.expires).min();
        if self.records.len() != before {
            self.changes(name);
        }
    }

    fn changes(&mut self, name: &str) {
        self.changed.send_modify(|n| *n += 1);
        self.recount(name);
    }

    /// Shows how many instances there are now, as a list would.
    fn recount(&mut self, name: &str) {
        let good = self.records.values().filter(|r| matches!(r.value, Value::Good(_)));
        let count = Some(u32::try_from(good.count()).unwrap_or(u32::MAX)).filter(|count| *count > 0);
        if self.listed.as_ref().and_then(|listed| listed.count) != count {
            self.listed = count.map(|_| {
                Arc::new(ServiceName {
                    name: name.into(),
                    count,
                })
            });
            self.names.send_modify(|n| *n += 1);
        }
    }
}

impl Record {
    fn is_over(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    fn is_of(&self, owner: &Arc<Owner>) -> bool {
        self.owner.as_ref().is_some_and(|o| Arc::ptr_eq(o, owner))
    }

    fn ends(&self, fate: Fate) {
        if let Some(owner) = &self.owner {
            owner.fate.send_replace(fate);
        }
    }
}

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
