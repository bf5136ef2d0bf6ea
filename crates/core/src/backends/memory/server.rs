//! The server of the memory backend: records with a TTL, who wrote them, what has become of them, and faults on request.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::pairs::Pairs;
use super::tenures::Tenures;
use crate::backend::{BadRecord, ServiceName, Snapshot};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::{Codec, ServiceInstance};
use crate::sync::lock;

/// How late the names that have expired are noticed, so that those of a moment are noticed together.
pub(super) const SWEEP: Duration = Duration::from_millis(50);

/// The servers of this process, by namespace.
static SERVERS: LazyLock<Mutex<HashMap<String, Arc<MemoryServer>>>> = LazyLock::new(Mutex::default);

/// An embedded registry, and the faults it can be made to show. Usable from any thread.
#[derive(Default)]
pub struct MemoryServer {
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) services: BTreeMap<String, Service>,
    /// Bumped when a name comes or goes or has another number of instances, and by every break.
    pub(super) names: Arc<watch::Sender<u64>>,
    /// What it keeps as a store.
    pub(super) pairs: Pairs,
    /// Who holds what there.
    pub(super) tenures: Tenures,
    pub(super) away: bool,
    /// Counts the times its history broke: away, wiped.
    pub(super) epoch: u64,
}

pub(super) struct Service {
    /// How the list of names shows it, if it has an instance.
    pub(super) listed: Option<Arc<ServiceName>>,
    pub(super) names: Arc<watch::Sender<u64>>,
    pub(super) records: BTreeMap<String, Record>,
    /// No record expires before this. It may be too early (renewal moves the true one on), never too late.
    pub(super) next_expiry: Option<Instant>,
    /// Bumped by every change of the service's records and by every break.
    pub(super) changed: watch::Sender<u64>,
}

pub(super) struct Record {
    pub(super) value: Value,
    /// Who wrote it; `None` is someone else, by [`MemoryServer::put`].
    pub(super) owner: Option<Arc<Owner>>,
    pub(super) expires: Option<Instant>,
}

pub(super) enum Value {
    Good(Arc<ServiceInstance>),
    Bad(BadRecord),
    /// A good record of another name, which belongs in no list of this one.
    Foreign,
}

/// One presence, as the server knows it.
pub(super) struct Owner {
    pub(super) crashed: AtomicBool,
    /// What has become of its record. One channel an owner, so that a change wakes the one it concerns.
    pub(super) fate: watch::Sender<Fate>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
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
        state.pairs.wipe();
        state.tenures.wipe();
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

    pub(super) fn is_empty(&self) -> bool {
        let state = self.lock();
        let now = Instant::now();
        let is_over = |service: &Service| service.records.values().all(|record| record.is_over(now));
        state.pairs.is_empty() && state.tenures.is_empty(now) && state.services.values().all(is_over)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    pub(super) fn service(&mut self, name: &str) -> &mut Service {
        let names = &self.names;
        self.services.entry(name.to_owned()).or_insert_with(|| Service {
            listed: None,
            names: Arc::clone(names),
            records: BTreeMap::new(),
            next_expiry: None,
            changed: watch::Sender::new(0),
        })
    }

    pub(super) fn breaks(&mut self) {
        self.epoch += 1;
        self.names.send_modify(|n| *n += 1);
        self.pairs.breaks();
        self.tenures.breaks();
        for service in self.services.values() {
            service.changed.send_modify(|n| *n += 1);
        }
    }

    pub(super) fn ensure_here(&self) -> Result<()> {
        if self.away {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the memory server is away (it was told to be)",
            ));
        }
        Ok(())
    }

    /// Forgets what has expired in a service, and the service when nothing is left of it and nobody looks.
    pub(super) fn expire(&mut self, name: &str) {
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        service.sweep(name, Instant::now());
        if service.records.is_empty() && service.changed.receiver_count() == 0 {
            self.services.remove(name);
        }
    }

    /// Forgets what has expired, of all services.
    pub(super) fn sweep(&mut self) {
        let now = Instant::now();
        for (name, service) in &mut self.services {
            service.sweep(name, now);
        }
        self.services
            .retain(|_, service| !service.records.is_empty() || service.changed.receiver_count() > 0);
    }

    /// No record expires before this.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.services.values().filter_map(|service| service.next_expiry).min()
    }

    /// The names that have an instance.
    pub(super) fn names(&mut self) -> Vec<Arc<ServiceName>> {
        self.sweep();
        self.services
            .values()
            .filter_map(|service| service.listed.clone())
            .collect()
    }

    pub(super) fn snapshot(&mut self, name: &str) -> Snapshot {
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
    pub(super) fn write(&mut self, name: &str, id: &str, record: Record) {
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

    pub(super) fn delete(&mut self, name: &str, id: &str) -> bool {
        let Some(record) = self.records.remove(id) else {
            return false;
        };
        record.ends(Fate::Gone);
        self.changes(name);
        true
    }

    /// Forgets what has expired. Looks at the records only when one may have.
    pub(super) fn sweep(&mut self, name: &str, now: Instant) {
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

    pub(super) fn changes(&mut self, name: &str) {
        self.changed.send_modify(|n| *n += 1);
        self.recount(name);
    }

    /// Shows how many instances there are now, as a list would.
    pub(super) fn recount(&mut self, name: &str) {
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
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    pub(super) fn is_of(&self, owner: &Arc<Owner>) -> bool {
        self.owner.as_ref().is_some_and(|o| Arc::ptr_eq(o, owner))
    }

    pub(super) fn ends(&self, fate: Fate) {
        if let Some(owner) = &self.owner {
            owner.fate.send_replace(fate);
        }
    }
}
