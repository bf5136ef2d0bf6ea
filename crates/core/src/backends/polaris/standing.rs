//! How an instance stands at a server: whose it is, writing it and removing it.
//!
//! A server knows no owners and no ids. Both travel in the metadata: a claim writes a greater owner than what it finds, and
//! whoever reads a greater one than its own gives way. So of any two the same one does, whatever the order of their writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::client::{Connection, Instance, Method};
use super::record::{Place, Writing, at, leaving, mark_of, place_of};
use super::shared::{LOOK, Lists, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::ServiceInstance;
use crate::parts::owner_after;
use crate::sync::lock;

/// After what time what was written is written again, if it was not seen: twice the time that it takes.
const SEEN: Duration = Duration::from_millis(2500);
/// Owners that are remembered: what was written by older ones is long gone.
const OWNERS: usize = 16;
/// Records that are written at once: a server takes so many together.
const AT_ONCE: usize = 64;

/// One registration, and where it was written.
pub(super) struct Record {
    pub(super) shared: Arc<Shared>,
    pub(super) name: Arc<str>,
    pub(super) id: Arc<str>,
    /// By which Kratos knows that the records are of one instance.
    merge: String,
    state: Mutex<Standing>,
    /// Held while it is written or removed.
    pub(super) moving: tokio::sync::Mutex<()>,
    /// Held while a server is told to. What was begun is ended before anything else is, whoever has lost interest in it: no
    /// write arrives after one that came later.
    sending: tokio::sync::Mutex<()>,
}

#[derive(Default)]
pub(super) struct Standing {
    /// Ours, the newest last.
    owners: Vec<String>,
    /// Counts the writings.
    writing: u64,
    /// The one that was published last.
    published: u64,
    /// What was published last.
    pub(super) records: BTreeMap<Place, Instance>,
    /// Where something of ours may stand.
    pub(super) written: BTreeSet<Place>,
    /// Where records of our id stood without an owner when we claimed it.
    nobodys: BTreeSet<Place>,
    /// The connection by which it was written last.
    pub(super) on: Option<Arc<Connection>>,
    pub(super) registered: Option<Instant>,
    pub(super) renewed: Option<Instant>,
    /// A writing was not answered, and may arrive late.
    pub(super) unanswered: bool,
    /// Where its operators have isolated it, as it was seen last. A server forgets it with the record.
    switched: BTreeSet<Place>,
    /// Where it may have been isolated by us, on its way out.
    left: BTreeSet<Place>,
}

/// What somebody else has where we want to be: where, by which owner, and whether it has our id.
pub(super) struct Rival {
    pub(super) place: Place,
    owner: Option<String>,
    pub(super) has_our_id: bool,
}

/// How it stands, by lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stands {
    Whole,
    /// A server has not heard it for too long.
    Unhealthy,
    Missing,
    Replaced,
}

impl Record {
    pub(super) fn new(shared: Arc<Shared>, name: &str, id: &str) -> Self {
        Self {
            shared,
            name: name.into(),
            id: id.into(),
            merge: Uuid::new_v4().to_string(),
            state: Mutex::default(),
            moving: tokio::sync::Mutex::default(),
            sending: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Standing> {
        lock(&self.state)
    }

    /// Names what an error is about.
    pub(super) fn named(&self, error: Error) -> Error {
        error.about(&format!("{}/{}/{}", self.shared.form.namespace, self.name, self.id))
    }

    pub(super) fn replaced(&self) -> Error {
        let text = format!(
            "another owner holds the id {:?} of {:?}, or one of its addresses",
            self.id, self.name
        );
        Error::new(ErrorKind::Replaced, text)
    }

    /// What of an instance is to stand, of the next writing.
    pub(super) fn write(&self, instance: &ServiceInstance) -> Result<BTreeMap<Place, Instance>> {
        let mut state = self.lock();
        state.writing += 1;
        let writing = Writing {
            owner: state.owners.last().map_or("-", String::as_str),
            merge: &self.merge,
            number: state.writing,
        };
        self.shared.form.write(instance, &writing)
    }

    /// What stands of our id, or where ours is to stand, and is not ours.
    pub(super) fn rivals(&self, lists: &Lists, places: &BTreeMap<Place, Instance>) -> Vec<Rival> {
        let state = self.lock();
        let mut rivals = Vec::new();
        for (service, list) in lists {
            for instance in list {
                let mark = mark_of(instance);
                let place = place_of(service, instance);
                let has_our_id = mark.as_ref().is_some_and(|mark| mark.id == *self.id);
                if !has_our_id && !places.contains_key(&place) {
                    continue;
                }
                let owner = mark.and_then(|mark| mark.owner);
                if !owner.as_ref().is_some_and(|owner| state.owners.contains(owner)) {
                    rivals.push(Rival {
                        place,
                        owner,
                        has_our_id,
                    });
                }
            }
        }
        rivals
    }

    /// Whether a rival has the id, and not we.
    pub(super) fn is_newer(&self, rival: &Rival) -> bool {
        let state = self.lock();
        match &rival.owner {
            Some(owner) => state.owners.last().is_none_or(|ours| owner > ours),
            // Somebody has written it around us.
            None => !state.nobodys.contains(&rival.place),
        }
    }

    /// Takes the id, by a greater owner than any that there is.
    pub(super) fn claim(&self, rivals: &[Rival]) {
        let mut state = self.lock();
        let greatest = rivals.iter().filter_map(|rival| rival.owner.as_deref()).max();
        if state
            .owners
            .last()
            .is_none_or(|ours| greatest.is_some_and(|greatest| greatest >= ours.as_str()))
        {
            if state.owners.len() == OWNERS {
                state.owners.remove(0);
            }
            state.owners.push(owner_after(greatest));
        }
        let nobodys = rivals.iter().filter(|rival| rival.owner.is_none());
        state.nobodys = nobodys.map(|rival| rival.place.clone()).collect();
    }

    /// What was published last stands as it was written.
    pub(super) fn published(&self, records: BTreeMap<Place, Instance>) {
        let mut state = self.lock();
        state.published = state.writing;
        state.records = records;
    }

    /// Whether a record in a list is ours.
    fn is_ours(&self, instance: &Instance) -> bool {
        let owner = mark_of(instance)
            .filter(|mark| mark.id == *self.id)
            .and_then(|mark| mark.owner);
        owner.is_some_and(|owner| self.lock().owners.contains(&owner))
    }

    /// How what was published last stands.
    pub(super) fn stands(&self, lists: &Lists) -> Stands {
        self.note_switches(lists);
        let (records, published) = {
            let state = self.lock();
            (state.records.clone(), state.published)
        };
        if self.rivals(lists, &records).iter().any(|rival| self.is_newer(rival)) {
            return Stands::Replaced;
        }
        let mut is_healthy = true;
        for place in records.keys() {
            let is_of_late = |instance: &&Instance| {
                let writing = mark_of(instance)
                    .and_then(|mark| mark.part)
                    .map_or(0, |(_, _, writing)| writing);
                self.is_ours(instance) && writing >= published
            };
            let Some(instance) = find(lists, place).filter(is_of_late) else {
                return Stands::Missing;
            };
            is_healthy &= instance.healthy != Some(false);
        }
        if is_healthy { Stands::Whole } else { Stands::Unhealthy }
    }

    /// Remembers what its operators have set, as lists tell it of the newest writing.
    fn note_switches(&self, lists: &Lists) {
        let mut state = self.lock();
        for (service, list) in lists {
            for instance in list {
                let is_newest = mark_of(instance).is_some_and(|mark| {
                    let writing = mark.part.map_or(0, |(_, _, writing)| writing);
                    *mark.id == *self.id && mark.owner.as_ref() == state.owners.last() && writing == state.writing
                });
                let place = place_of(service, instance);
                if !is_newest || state.left.contains(&place) {
                    continue;
                }
                if instance.isolate == Some(true) {
                    state.switched.insert(place);
                } else {
                    state.switched.remove(&place);
                }
            }
        }
    }

    /// Writes records, all at once, by what lists told before. What stands keeps what its operators have set; what does not
    /// gets it back.
    pub(super) async fn register(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        lists: &Lists,
        records: &BTreeMap<Place, Instance>,
    ) -> Result<()> {
        let mut records = records.clone();
        for (place, record) in &mut records {
            let state = self.lock();
            if state.left.contains(place) || find(lists, place).is_none() {
                record.isolate = Some(state.switched.contains(place));
            }
        }
        let (this, connection) = (Arc::clone(self), Arc::clone(connection));
        to_the_end(async move { this.send(&connection, records).await }).await
    }

    async fn send(&self, connection: &Arc<Connection>, records: BTreeMap<Place, Instance>) -> Result<()> {
        let _sending = self.sending.lock().await;
        let began = Instant::now();
        {
            let mut state = self.lock();
            state.written.extend(records.keys().cloned());
            state.unanswered = true;
        }
        let calls = records
            .values()
            .cloned()
            .map(|record| connection.call(Method::Register, record));
        let answers: Vec<_> = stream::iter(calls).buffer_unordered(AT_ONCE).collect().await;
        let failures: Vec<Error> = answers.into_iter().filter_map(Result::err).collect();
        if !failures.iter().any(Error::is_retryable) {
            self.lock().unanswered = false;
        }
        // What can't be mended is told first.
        if let Some(failure) = failures.into_iter().min_by_key(Error::is_retryable) {
            return Err(failure);
        }
        let mut state = self.lock();
        state.left.retain(|place| !records.contains_key(place));
        state.on = Some(Arc::clone(connection));
        state.registered = Some(Instant::now());
        state.renewed = Some(began);
        Ok(())
    }

    /// Waits until others see what was written, for as long as that may take; whether they do.
    pub(super) async fn seen(&self, connection: &Connection, records: &BTreeMap<Place, Instance>) -> Result<bool> {
        let until = Instant::now() + SEEN;
        while Instant::now() < until {
            let lists = self.shared.read(connection, &self.name).await?;
            if self.rivals(&lists, records).iter().any(|rival| self.is_newer(rival)) {
                return Err(self.replaced());
            }
            let is_seen = |(place, wanted): (&Place, &Instance)| {
                let part = |instance: &Instance| mark_of(instance).map(|mark| (mark.owner, mark.part));
                find(&lists, place).is_some_and(|instance| part(instance) == part(wanted))
            };
            if records.iter().all(is_seen) {
                self.note_switches(&lists);
                return Ok(true);
            }
            sleep(LOOK).await;
        }
        Ok(false)
    }

    /// Removes what is ours, or of our id without an owner that is newer than ours, in these places. What stands there is
    /// written once more before, out of traffic: a server with its store in a file goes on telling for a minute of a record
    /// that is removed more than 5 s after it was written.
    pub(super) async fn remove(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        lists: &Lists,
        places: &BTreeSet<Place>,
    ) -> Result<()> {
        self.note_switches(lists);
        let places: Vec<_> = places
            .iter()
            .map(|place| (place.clone(), find(lists, place).cloned()))
            .collect();
        let (this, connection) = (Arc::clone(self), Arc::clone(connection));
        to_the_end(async move { this.send_removals(&connection, &places).await }).await
    }

    async fn send_removals(&self, connection: &Connection, places: &[(Place, Option<Instance>)]) -> Result<()> {
        let _sending = self.sending.lock().await;
        let mut removals = Vec::with_capacity(places.len());
        for (place, stands) in places {
            removals.push(self.remove_one(connection, stands.as_ref(), place));
        }
        let failures = join_all(removals).await.into_iter().filter_map(Result::err);
        failures.min_by_key(Error::is_retryable).map_or(Ok(()), Err)
    }

    async fn remove_one(&self, connection: &Connection, stands: Option<&Instance>, place: &Place) -> Result<()> {
        let form = &self.shared.form;
        if let Some(instance) = stands {
            if !self.may_remove(place, instance) {
                return Ok(());
            }
            let leaving = leaving(form, &place.0, instance);
            self.lock().left.insert(place.clone());
            connection.call(Method::Register, leaving).await?;
        }
        connection.call(Method::Deregister, at(form, place)).await.map(drop)
    }

    fn may_remove(&self, place: &Place, instance: &Instance) -> bool {
        if self.is_ours(instance) {
            return true;
        }
        let mark = mark_of(instance);
        let has_our_id = mark.as_ref().is_some_and(|mark| mark.id == *self.id);
        let rival = Rival {
            place: place.clone(),
            owner: mark.and_then(|mark| mark.owner),
            has_our_id,
        };
        has_our_id && !self.is_newer(&rival)
    }

    /// Removes, and waits until others see it.
    pub(super) async fn vanish(self: &Arc<Self>, connection: &Arc<Connection>, places: &BTreeSet<Place>) -> Result<()> {
        let mut lists = self.shared.read(connection, &self.name).await?;
        loop {
            self.remove(connection, &lists, places).await?;
            let until = Instant::now() + SEEN;
            loop {
                lists = self.shared.read(connection, &self.name).await?;
                let stands = |place: &Place| find(&lists, place).is_some_and(|instance| self.is_ours(instance));
                if !places.iter().any(stands) {
                    return Ok(());
                }
                if Instant::now() >= until {
                    break;
                }
                sleep(LOOK).await;
            }
        }
    }
}

/// Does what must not be left half done, also when nobody waits for it any more.
async fn to_the_end(work: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|error| Err(Error::new(ErrorKind::Internal, error.to_string())))
}

/// The record at a place.
pub(super) fn find<'a>(lists: &'a Lists, (service, host, port): &Place) -> Option<&'a Instance> {
    let (_, list) = lists.iter().find(|(of, _)| of == service)?;
    let is_there = |instance: &&Instance| instance.host.as_ref() == Some(host) && instance.port.unwrap_or(0) == *port;
    list.iter().find(is_there)
}
