//! What this client wants to stand in each service, and the task of each service that makes it so.
//!
//! An original server keeps one publication of each connection and service: a second replaces the first. So everything of one
//! service is sent as one batch whenever it changes, and again on every new connection. r-nacos adds what it is sent instead,
//! and removes what it is told to; which of the two a server does, the first removal shows.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::client::{Client, Connection, Host};
use super::record::{KIND, Place, mark_of};
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::parts::Mark;
use crate::sync::lock;

/// How long a removal may take to show: an original server tells its lists half a second late.
const SHOWS: Duration = Duration::from_millis(1500);
/// Between two looks for it.
const LOOK: Duration = Duration::from_millis(50);

/// Ip and port, within a service.
type Address = (String, u16);

/// The services of one client.
pub(super) struct Book {
    client: Arc<Client>,
    services: Mutex<HashMap<String, Kept>>,
    ways: Arc<Ways>,
}

/// A service, and the task that keeps it.
struct Kept {
    service: Arc<Service>,
    _task: AbortOnDropHandle<()>,
}

/// Whether a server adds what it is sent to what it has of a connection, by its address; one that is not here is not known.
#[derive(Default)]
struct Ways(Mutex<HashMap<String, bool>>);

/// One service.
pub(super) struct Service {
    name: String,
    client: Arc<Client>,
    ways: Arc<Ways>,
    state: Mutex<State>,
    kick: Notify,
    progress: watch::Sender<Progress>,
}

#[derive(Default)]
struct State {
    /// What is to stand, and who wants it.
    wanted: BTreeMap<Address, (u64, Host)>,
    /// What is to go, and by which owners it was written.
    unwanted: BTreeMap<Address, Vec<String>>,
    /// Counts the wishes.
    asked: u64,
}

/// How far the task has come.
#[derive(Default)]
struct Progress {
    /// The wish that is fulfilled.
    done: u64,
    /// On which connection.
    on: Option<Arc<Connection>>,
    failures: u64,
    error: Option<Error>,
}

impl Book {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self {
            client,
            services: Mutex::default(),
            ways: Arc::default(),
        }
    }

    pub(super) fn service(&self, name: &str) -> Arc<Service> {
        let mut services = lock(&self.services);
        if let Some(kept) = services.get(name) {
            return Arc::clone(&kept.service);
        }
        let service = Arc::new(Service {
            name: name.to_owned(),
            client: Arc::clone(&self.client),
            ways: Arc::clone(&self.ways),
            state: Mutex::default(),
            kick: Notify::new(),
            progress: watch::channel(Progress::default()).0,
        });
        let kept = Kept {
            service: Arc::clone(&service),
            _task: AbortOnDropHandle::new(tokio::spawn(Arc::clone(&service).run())),
        };
        services.insert(name.to_owned(), kept);
        service
    }

    /// A service of which something was wanted before.
    pub(super) fn find(&self, name: &str) -> Option<Arc<Service>> {
        lock(&self.services).get(name).map(|kept| Arc::clone(&kept.service))
    }

    /// Forgets a service of which nothing is wanted any more.
    pub(super) fn tidy(&self, name: &str) {
        let mut services = lock(&self.services);
        let is_idle = services.get(name).is_some_and(|Kept { service, .. }| {
            let state = lock(&service.state);
            // The two are this and the task.
            state.wanted.is_empty() && state.unwanted.is_empty() && Arc::strong_count(service) <= 2
        });
        if is_idle {
            services.remove(name);
        }
    }

    /// Ends every task.
    pub(super) fn close(&self) {
        lock(&self.services).clear();
    }
}

impl Service {
    /// Wants a host to stand, from now on and until it is taken back. Whoever has wanted one there before has lost it.
    pub(super) fn put(&self, holder: u64, host: Host) {
        let mut state = lock(&self.state);
        let address = (host.ip.clone(), host.port);
        state.unwanted.remove(&address);
        state.wanted.insert(address, (holder, host));
    }

    /// Wants what a holder has there to go, and all that these owners have written there.
    pub(super) fn take(&self, holder: u64, (ip, port): (&str, u16), owners: &[String]) {
        let mut state = lock(&self.state);
        let address = (ip.to_owned(), port);
        match state.wanted.get(&address) {
            Some((other, _)) if *other != holder => return, // it was written over
            _ => {}
        }
        state.wanted.remove(&address);
        state.unwanted.insert(address, owners.to_vec());
    }

    /// Whether what a holder wants there is what is wanted.
    pub(super) fn holds(&self, holder: u64, (ip, port): (&str, u16)) -> bool {
        let state = lock(&self.state);
        let wanted = state.wanted.get(&(ip.to_owned(), port));
        wanted.is_some_and(|(by, _)| *by == holder)
    }

    /// When the server that everything stands in was last heard; `None` before that.
    pub(super) fn vouched(&self) -> Option<Instant> {
        self.progress.borrow().on.as_ref().map(|connection| connection.heard())
    }

    /// Whether anything is wanted to stand.
    pub(super) fn is_wanted(&self) -> bool {
        !lock(&self.state).wanted.is_empty()
    }

    /// Resolves when everything stands by this connection.
    pub(super) async fn stands_by(&self, connection: &Arc<Connection>) {
        let mut progress = self.progress.subscribe();
        let is_there = |progress: &Progress| progress.on.as_ref().is_some_and(|on| Arc::ptr_eq(on, connection));
        let _ = progress.wait_for(is_there).await; // its sender is ours
    }

    /// One attempt to make what is wanted now stand, and only that.
    pub(super) async fn sync(&self) -> Result<()> {
        let mut progress = self.progress.subscribe();
        let asked = {
            let mut state = lock(&self.state);
            state.asked += 1;
            state.asked
        };
        let failures = progress.borrow().failures;
        self.kick.notify_one();
        let reached = progress
            .wait_for(|progress| progress.done >= asked || progress.failures > failures)
            .await;
        match reached.as_deref() {
            Ok(progress) if progress.done >= asked => Ok(()),
            Ok(Progress { error: Some(error), .. }) => Err(error.clone()),
            _ => Err(Error::new(ErrorKind::Closed, "the client is closed")),
        }
    }

    async fn run(self: Arc<Self>) {
        let mut backoff = Backoff::new();
        let mut changes = self.client.changes();
        loop {
            changes.borrow_and_update();
            let (asked, is_empty) = {
                let state = lock(&self.state);
                (state.asked, state.wanted.is_empty() && state.unwanted.is_empty())
            };
            let (done, on) = {
                let progress = self.progress.borrow();
                (progress.done, progress.on.clone())
            };
            let is_current = match (&on, self.client.current()) {
                (Some(on), Some(current)) => Arc::ptr_eq(on, &current),
                _ => false,
            };
            if asked <= done && (is_empty || is_current) {
                tokio::select! {
                    () = self.kick.notified() => {}
                    _ = changes.changed() => {}
                    () = over(on.as_ref()), if !is_empty => {}
                }
                continue;
            }
            match self.sync_once().await {
                Ok(connection) => {
                    backoff.reset();
                    self.progress.send_modify(|progress| {
                        progress.done = asked;
                        progress.on = Some(connection);
                        progress.error = None;
                    });
                }
                Err(error) => {
                    self.progress.send_modify(|progress| {
                        progress.failures += 1;
                        progress.error = Some(error);
                    });
                    tokio::select! {
                        () = sleep(backoff.next_pause()) => {}
                        () = self.kick.notified() => {}
                    }
                }
            }
        }
    }

    async fn sync_once(&self) -> Result<Arc<Connection>> {
        let connection = self.client.connection().await?;
        let was_elsewhere = {
            let progress = self.progress.borrow();
            progress.on.as_ref().is_some_and(|on| !Arc::ptr_eq(on, &connection))
        };
        if was_elsewhere {
            self.give_way(&connection).await?;
        }
        let (hosts, unwanted) = {
            let state = lock(&self.state);
            let hosts: Vec<Host> = state.wanted.values().map(|(_, host)| host.clone()).collect();
            (hosts, state.unwanted.clone())
        };
        let sent = async {
            if !hosts.is_empty() {
                self.batch(&connection, &hosts).await?;
            }
            if !unwanted.is_empty() {
                self.remove(&connection, &hosts, &unwanted).await?;
            }
            Ok(())
        };
        let sent: Result<()> = sent.await;
        if let Err(error) = &sent
            && error.kind() == ErrorKind::Timeout
        {
            // What was sent may land later; with the connection all of it ends.
            connection.end(error.clone());
        }
        sent?;
        let mut state = lock(&self.state);
        for (address, owners) in &unwanted {
            if state.unwanted.get(address) == Some(owners) {
                state.unwanted.remove(address);
            }
        }
        drop(state);
        Ok(connection)
    }

    /// Wants nothing more where somebody has taken the id or the address by a greater owner while we were away: on some servers
    /// our host would be written over theirs.
    async fn give_way(&self, connection: &Connection) -> Result<()> {
        let list = connection.query(&self.name).await?;
        let mut by_id: HashMap<(String, String), String> = HashMap::new();
        let mut by_address: HashMap<Address, String> = HashMap::new();
        let keep_greater = |held: &mut String, owner: String| *held = std::mem::take(held).max(owner);
        for host in &list.hosts {
            let Some(Mark {
                id, owner: Some(owner), ..
            }) = mark_of(host)
            else {
                continue;
            };
            let kind = host.get(KIND).unwrap_or_default().to_owned();
            keep_greater(by_id.entry((id, kind)).or_default(), owner.clone());
            keep_greater(by_address.entry((host.ip.clone(), host.port)).or_default(), owner);
        }
        lock(&self.state).wanted.retain(|address, (_, host)| {
            let Some(Mark {
                id, owner: Some(owner), ..
            }) = mark_of(host)
            else {
                return true;
            };
            let kind = host.get(KIND).unwrap_or_default().to_owned();
            let others = [by_id.get(&(id, kind)), by_address.get(address)];
            others.into_iter().flatten().all(|other| *other <= owner)
        });
        Ok(())
    }

    async fn batch(&self, connection: &Connection, hosts: &[Host]) -> Result<()> {
        let mut body = self.body(connection, "batchRegisterInstance");
        body["instances"] = hosts.iter().map(Host::to_json).collect();
        connection.request("BatchInstanceRequest", &body).await.map(drop)
    }

    /// One host: `registerInstance` or `deregisterInstance`.
    async fn one(&self, connection: &Connection, kind: &str, host: Value) -> Result<()> {
        let mut body = self.body(connection, kind);
        body["instance"] = host;
        connection.request("InstanceRequest", &body).await.map(drop)
    }

    fn body(&self, connection: &Connection, kind: &str) -> Value {
        let scope = connection.scope();
        json!({
            "namespace": scope.namespace, "serviceName": self.name, "groupName": scope.group,
            "type": kind, "module": "naming",
        })
    }

    /// Removes what is unwanted, and is done when it does not stand any more; `hosts` stay, and their batch was sent.
    async fn remove(
        &self,
        connection: &Connection,
        hosts: &[Host],
        unwanted: &BTreeMap<Address, Vec<String>>,
    ) -> Result<()> {
        let is_last = hosts.is_empty();
        let adds = self.ways.get(connection);
        if is_last {
            // Clears an original server; others refuse it or pass over it.
            let cleared = self.batch(connection, &[]).await;
            cleared.or_else(|error| {
                if error.is_retryable() && connection.is_over() {
                    Err(error)
                } else {
                    Ok(())
                }
            })?;
        }
        let mut told = is_last || adds == Some(true);
        if told {
            for address in unwanted.keys() {
                self.deregister(connection, address).await?;
            }
        }
        let mut was_there = false;
        let mut taken = false;
        let mut until = Instant::now() + SHOWS;
        loop {
            let list = connection.query(&self.name).await?;
            let is_ours = |host: &&Host, owners: &[String]| {
                mark_of(host)
                    .and_then(|mark| mark.owner)
                    .is_some_and(|owner| owners.contains(&owner))
            };
            let mut standing = Vec::new();
            for ((ip, port), owners) in unwanted {
                standing.extend(list.at(ip, *port).filter(|host| is_ours(host, owners)));
            }
            if standing.is_empty() {
                if was_there && !is_last && !taken {
                    self.ways.learn(connection, told);
                }
                return Ok(());
            }
            was_there = true;
            if Instant::now() < until {
                sleep(LOOK).await;
                continue;
            }
            if !told && adds != Some(false) {
                told = true;
                for host in standing {
                    self.deregister(connection, &(host.ip.clone(), host.port)).await?;
                }
                // An original server has removed the rest as well.
                self.batch(connection, hosts).await?;
            } else if told && !taken {
                // Left of an older connection, which the server has not given up yet: where the newest owns an address, it
                // is ours with that.
                taken = true;
                for host in standing {
                    self.one(connection, "registerInstance", host.to_json()).await?;
                    self.deregister(connection, &(host.ip.clone(), host.port)).await?;
                }
                if !is_last {
                    self.batch(connection, hosts).await?;
                }
            } else {
                let text = "what is to be removed stands still, by a connection that Nacos has not given up yet";
                return Err(Error::new(ErrorKind::Unavailable, text).at(connection.address()));
            }
            until = Instant::now() + SHOWS;
        }
    }

    async fn deregister(&self, connection: &Connection, (ip, port): &Address) -> Result<()> {
        // Where it is alone counts, but r-nacos wants the rest.
        let host = Host {
            ip: ip.clone(),
            port: *port,
            weight: 1.0,
            healthy: true,
            enabled: true,
            cluster: connection.scope().cluster.clone(),
            metadata: Vec::new(),
        };
        self.one(connection, "deregisterInstance", host.to_json()).await
    }
}

impl Ways {
    fn get(&self, connection: &Connection) -> Option<bool> {
        lock(&self.0).get(connection.address()).copied()
    }

    fn learn(&self, connection: &Connection, adds: bool) {
        lock(&self.0).insert(connection.address().to_owned(), adds);
    }
}

/// Resolves when a connection has ended; never without one.
async fn over(connection: Option<&Arc<Connection>>) {
    match connection {
        Some(connection) => drop(connection.over().await),
        None => std::future::pending().await,
    }
}

/// Ip and port of a place.
pub(super) fn address((_, ip, port): &Place) -> (&str, u16) {
    (ip, *port)
}
