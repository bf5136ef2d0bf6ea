//! One registration in Nacos: a host for each endpoint, in the batches of their services.
//!
//! A server knows no owners and no ids. Both travel in the metadata: a claim writes a greater owner than what it finds, and
//! whoever reads a greater one than its own gives way. So of any two the same one does, whatever the order of their writes.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::repeat;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{join_all, try_join_all};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::book::address;
use super::client::{Connection, Host, List};
use super::follow::Subscribed;
use super::record::{Place, mark_of};
use super::shared::{SETTLES, Shared};
use crate::backend::{Intent, Loss, Presence};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::ServiceInstance;
use crate::parts::owner_after;

/// Between two looks for what was written.
const LOOK: Duration = Duration::from_millis(100);
/// The first of them: some servers tell at once.
const LOOKS: [Duration; 3] = [
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(40),
];
/// Between two tries to look, when the first failed.
const AGAIN: Duration = Duration::from_millis(500);
/// Owners that are remembered: what was written by older ones is long gone.
const OWNERS: usize = 16;

pub(super) struct NacosPresence {
    shared: Arc<Shared>,
    name: Arc<str>,
    id: String,
    /// The number of this presence in the book.
    holder: u64,
    /// Ours, the newest last.
    owners: Vec<String>,
    /// Counts the writings.
    writing: u64,
    /// What is wanted to stand.
    hosts: BTreeMap<Place, Host>,
    /// Where something of ours may stand.
    written: BTreeSet<Place>,
    /// Where records of our id stood without an owner when we claimed it.
    nobodys: BTreeSet<Place>,
    seen: Seen,
}

/// How our record stands, by lists.
enum Standing {
    Whole,
    /// It is not in them, but they may be older than it.
    Missing,
    Gone,
    Replaced,
}

/// When our record was in the list of each of its services, by the clock of the server of one connection.
#[derive(Default)]
struct Seen {
    on: Weak<Connection>,
    at_ms: BTreeMap<String, i64>,
}

impl NacosPresence {
    pub(super) fn new(shared: Arc<Shared>, name: &str, id: &str) -> Self {
        Self {
            holder: shared.holders.fetch_add(1, Ordering::Relaxed),
            shared,
            name: name.into(),
            id: id.to_owned(),
            owners: Vec::new(),
            writing: 0,
            hosts: BTreeMap::new(),
            written: BTreeSet::new(),
            nobodys: BTreeSet::new(),
            seen: Seen::default(),
        }
    }

    fn owner(&self) -> &str {
        self.owners.last().map_or("", String::as_str)
    }

    /// What stands of our id, or where ours is to stand, and is not ours: where, and by which owner.
    fn rivals(&self, lists: &[List], places: &BTreeMap<Place, Host>) -> Vec<(Place, Option<String>)> {
        let mut rivals = Vec::new();
        for list in lists {
            for host in &list.hosts {
                let mark = mark_of(host);
                let place = (list.service.clone(), host.ip.clone(), host.port);
                let is_of_name = || self.shared.form.belongs(&list.service, host).0 == &*self.name;
                let is_ours = mark.as_ref().is_some_and(|mark| mark.id == self.id) && is_of_name();
                if !is_ours && !places.contains_key(&place) {
                    continue;
                }
                let owner = mark.and_then(|mark| mark.owner);
                if !owner.as_ref().is_some_and(|owner| self.owners.contains(owner)) {
                    rivals.push((place, owner));
                }
            }
        }
        rivals
    }

    /// Whether a rival has the id, and not we.
    fn is_newer(&self, (place, owner): &(Place, Option<String>)) -> bool {
        match owner {
            Some(owner) => owner.as_str() > self.owner(),
            // Somebody has written it around us.
            None => !self.nobodys.contains(place),
        }
    }

    /// Takes the id, by a greater owner than any that there is.
    fn claim(&mut self, rivals: Vec<(Place, Option<String>)>) {
        let greatest = rivals.iter().filter_map(|(_, owner)| owner.as_deref()).max();
        if self.owners.is_empty() || greatest.is_some_and(|greatest| greatest >= self.owner()) {
            let owner = owner_after(greatest);
            if self.owners.len() == OWNERS {
                self.owners.remove(0);
            }
            self.owners.push(owner);
        }
        self.nobodys = rivals
            .into_iter()
            .filter(|(_, owner)| owner.is_none())
            .map(|(place, _)| place)
            .collect();
    }

    fn replaced(&self) -> Error {
        let text = format!(
            "another owner holds the id {:?} of {:?}, or one of its addresses",
            self.id, self.name
        );
        Error::new(ErrorKind::Replaced, text)
    }

    /// The services that what we want to stand lies in.
    fn services(&self) -> BTreeSet<&String> {
        self.hosts.keys().map(|place| &place.0).collect()
    }

    /// Whether everything that we want to stand is what this client wants there.
    fn holds(&self) -> bool {
        let mut places = self.hosts.keys();
        places.all(|place| {
            let service = self.shared.book.find(&place.0);
            service.is_some_and(|service| service.holds(self.holder, address(place)))
        })
    }

    async fn publish_once(&mut self, instance: &ServiceInstance, intent: Intent) -> Result<()> {
        let connection = self.shared.client.connection().await?;
        let lists = self.shared.read(&connection, &self.name).await?;
        let owner = if self.owners.is_empty() { "-" } else { self.owner() };
        let places = self.shared.form.write(instance, owner, self.writing)?;
        let rivals = self.rivals(&lists, &places);
        match intent {
            Intent::Claim => self.claim(rivals),
            Intent::Keep if rivals.iter().any(|rival| self.is_newer(rival)) => return Err(self.replaced()),
            Intent::Keep => {}
        }
        self.writing += 1;
        let hosts = self.shared.form.write(instance, self.owner(), self.writing)?;
        let before = std::mem::replace(&mut self.hosts, hosts);
        let published = self.stand(&connection).await;
        if let Err(error) = &published
            && !error.is_retryable()
            && error.kind() != ErrorKind::Replaced
        {
            // What was refused must not stand in the way of what is beside it.
            self.hosts = before;
            self.want();
        }
        published
    }

    /// Tells the book what we want; gives the services that this is about.
    fn want(&mut self) -> BTreeSet<String> {
        let mut services = BTreeSet::new();
        for place in self.written.iter().filter(|place| !self.hosts.contains_key(place)) {
            self.shared
                .book
                .service(&place.0)
                .take(self.holder, address(place), &self.owners);
            services.insert(place.0.clone());
        }
        for (place, host) in &self.hosts {
            self.shared.book.service(&place.0).put(self.holder, host.clone());
            self.written.insert(place.clone());
        }
        services
    }

    /// One attempt to make what we want stand, and nothing else.
    async fn stand(&mut self, connection: &Arc<Connection>) -> Result<()> {
        let left = self.want();
        let now: BTreeSet<String> = self.hosts.keys().map(|place| place.0.clone()).collect();
        self.sync(&now).await?;
        let mut pauses = LOOKS.into_iter().chain(repeat(LOOK));
        self.seen = loop {
            if let Some(seen) = self.is_seen(connection, &now).await? {
                break seen;
            }
            sleep(pauses.next().unwrap_or(LOOK)).await;
        };
        // What others have read of it is whole before its old part goes.
        self.sync(&left.difference(&now).cloned().collect()).await?;
        self.written = self.hosts.keys().cloned().collect();
        for service in left.difference(&now) {
            self.shared.book.tidy(service);
        }
        Ok(())
    }

    async fn sync(&self, services: &BTreeSet<String>) -> Result<()> {
        let services: Vec<_> = services
            .iter()
            .map(|service| self.shared.book.service(service))
            .collect();
        let all = join_all(services.iter().map(|service| service.sync())).await;
        all.into_iter().collect()
    }

    /// Whether others see what we have written, and since when.
    async fn is_seen(&self, connection: &Arc<Connection>, services: &BTreeSet<String>) -> Result<Option<Seen>> {
        let lists: Result<Vec<_>> = join_all(services.iter().map(|service| connection.query(service)))
            .await
            .into_iter()
            .collect();
        let lists = lists?;
        if !self.holds()
            || self
                .rivals(&lists, &self.hosts)
                .iter()
                .any(|rival| self.is_newer(rival))
        {
            return Err(self.replaced());
        }
        let is_there = self.hosts.iter().all(|((service, ip, port), wanted)| {
            let of_service = lists.iter().filter(|list| list.service == *service);
            let mut hosts = of_service.flat_map(|list| list.at(ip, *port));
            hosts.any(|host| host.metadata == wanted.metadata)
        });
        Ok(is_there.then(|| Seen {
            on: Arc::downgrade(connection),
            at_ms: times(&lists),
        }))
    }

    /// How our record stands by lists, of which those that were true after `seen` do not lack it for being late.
    fn standing(&self, lists: &[List], seen: &BTreeMap<String, i64>) -> Standing {
        if !self.holds() || self.rivals(lists, &self.hosts).iter().any(|rival| self.is_newer(rival)) {
            return Standing::Replaced;
        }
        let mut standing = Standing::Whole;
        for (service, ip, port) in self.hosts.keys() {
            let is_ours = |host: &Host| {
                let owner = mark_of(host).and_then(|mark| mark.owner);
                owner.is_some_and(|owner| self.owners.contains(&owner))
            };
            let list = lists.iter().find(|list| list.service == *service);
            if list.is_some_and(|list| list.at(ip, *port).any(is_ours)) {
                continue;
            }
            let is_later = |list: &List| seen.get(service).is_some_and(|seen| list.at_ms > *seen);
            if list.is_some_and(is_later) {
                return Standing::Gone;
            }
            standing = Standing::Missing;
        }
        standing
    }

    /// Looks at what the server tells, for as long as it stands.
    async fn followed(&self) -> Loss {
        loop {
            let Ok(connection) = self.shared.client.connection().await else {
                sleep(AGAIN).await;
                continue;
            };
            tokio::select! {
                loss = self.followed_on(&connection) => match loss {
                    Ok(loss) => return loss,
                    Err(_) => sleep(AGAIN).await,
                },
                _ = connection.over() => {}
            }
        }
    }

    async fn followed_on(&self, connection: &Arc<Connection>) -> Result<Loss> {
        for service in self.services() {
            self.shared.book.service(service).stands_by(connection).await;
        }
        let mut subscribed = Subscribed::to(&self.shared, connection, &self.name, false).await?;
        let is_seen = std::ptr::eq(self.seen.on.as_ptr(), Arc::as_ptr(connection));
        let mut seen = if is_seen {
            self.seen.at_ms.clone()
        } else {
            BTreeMap::new()
        };
        loop {
            let lists = subscribed.lists()?;
            let told = times(&lists);
            match self.standing(&lists, &seen) {
                Standing::Whole => seen.clone_from(&told),
                Standing::Gone => return Ok(gone(connection)),
                // What is missing is asked for.
                Standing::Missing | Standing::Replaced => {
                    if let Some(loss) = self.missing(connection, &seen).await? {
                        return Ok(loss);
                    }
                }
            }
            // A push may get lost, and no loss is noticed later than a TTL after it.
            let quiet = self.shared.options.ttl.mul_f64(0.8 + fastrand::f64() * 0.2);
            let is_quiet = timeout(quiet, subscribed.changed()).await.is_err();
            // Unless another of ours in them has read them meanwhile.
            if is_quiet && told == subscribed.times() {
                self.read_own(connection).await?;
            }
        }
    }

    /// Reads the services that we stand in, which tells those who follow them.
    async fn read_own(&self, connection: &Connection) -> Result<()> {
        try_join_all(self.services().into_iter().map(|service| connection.query(service))).await?;
        Ok(())
    }

    /// Asks until our record is seen, or for as long as it may take to be.
    async fn missing(&self, connection: &Connection, seen: &BTreeMap<String, i64>) -> Result<Option<Loss>> {
        let until = Instant::now() + SETTLES;
        loop {
            match self.standing(&self.shared.read(connection, &self.name).await?, seen) {
                Standing::Whole => return Ok(None),
                Standing::Replaced => return Ok(Some(Loss::Replaced)),
                Standing::Gone => return Ok(Some(gone(connection))),
                Standing::Missing if Instant::now() >= until => return Ok(Some(gone(connection))),
                Standing::Missing => sleep(LOOK).await,
            }
        }
    }

    /// Resolves when no server has been heard for the TTL.
    async fn unheard(&self) -> Loss {
        let ttl = self.shared.options.ttl;
        let heard = || {
            let services = self
                .hosts
                .keys()
                .map(|place| self.shared.book.find(&place.0)?.vouched());
            services.min().flatten().unwrap_or_else(Instant::now)
        };
        loop {
            let until = heard() + ttl;
            if until <= Instant::now() {
                return Loss::Gone(format!("no Nacos has answered for {} ms", ttl.as_millis()));
            }
            sleep_until(until).await;
        }
    }

    fn named(&self, error: Error) -> Error {
        error.about(&format!("{}@@{}#{}", self.shared.options.group, self.name, self.id))
    }
}

fn gone(connection: &Connection) -> Loss {
    Loss::Gone(format!("Nacos at {} does not list it any more", connection.address()))
}

/// When lists were true, by their services.
fn times(lists: &[List]) -> BTreeMap<String, i64> {
    lists.iter().map(|list| (list.service.clone(), list.at_ms)).collect()
}

impl Drop for NacosPresence {
    fn drop(&mut self) {
        self.stop();
    }
}

#[async_trait]
impl Presence for NacosPresence {
    async fn publish(&mut self, instance: &ServiceInstance, intent: Intent) -> Result<()> {
        let published = self.publish_once(instance, intent).await;
        published.map_err(|error| self.named(error))
    }

    async fn lost(&mut self) -> Loss {
        tokio::select! {
            loss = self.followed() => loss,
            loss = self.unheard() => loss,
        }
    }

    /// What it wants to stand is not sent again by a connection to come.
    fn stop(&mut self) {
        for place in &self.written {
            if let Some(service) = self.shared.book.find(&place.0) {
                service.take(self.holder, address(place), &self.owners);
            }
        }
    }

    async fn withdraw(&mut self) -> Result<()> {
        self.hosts.clear();
        let services = self.want();
        self.sync(&services).await.map_err(|error| self.named(error))?;
        self.written.clear();
        for service in &services {
            self.shared.book.tidy(service);
        }
        Ok(())
    }

    fn ttl(&self) -> Duration {
        self.shared.options.ttl
    }
}
