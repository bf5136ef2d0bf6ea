//! The machine behind a campaign: terms, one after another, each with its lease and its key.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::candidate::{Creation, Look, Moment, Place, Seat, Written};
use super::elections::Elections;
use super::queue::counts;
use super::state::{CampaignEvent, CampaignFailure, CampaignOptions, CampaignState, OnEvent};
use super::tidy::{Leftover, tidy};
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind};
use crate::etcd::error::{Cause, Fault};
use crate::etcd::lease::lease::Lease;
use crate::etcd::lease::slot::{LeaseOptions, lost};
use crate::etcd::options::whole_seconds;
use crate::etcd::watch::events::{Batch, Change};
use crate::etcd::watch::sink::WatchEnd;
use crate::etcd::watch::subscription::Subscription;
use crate::stall::stalled;

/// How often a key of ours may change between being read and being written before a proclamation is given up.
const RACES: u32 = 4;
/// How often a candidate looks although its watches say nothing: every time to live, within these bounds. A member that
/// stopped takes the watches on it along, until the connection is given up.
const LOOK_LEAST: Duration = Duration::from_secs(2);
const LOOK_MOST: Duration = Duration::from_secs(10);
/// The least that one question may take, whatever the lease.
const PATIENCE_LEAST: Duration = Duration::from_millis(1500);
/// How long it may take to find out why a key is gone, which changes nothing but the words.
const ASKING_WHY: Duration = Duration::from_secs(1);

/// A lease, the key under it, and who renews it.
pub(super) struct Term {
    lease: Lease,
    key: Vec<u8>,
    /// A write found its key gone.
    gone: CancellationToken,
    /// Somebody was told that it may not act because its time was over. Then it stays over.
    pub expired: CancellationToken,
}

/// What is known now.
pub(super) struct Now {
    pub state: CampaignState,
    /// Whether `Elected` was told in this term.
    led: bool,
    pub term: Option<Arc<Term>>,
    /// The create revision of the key of this term, or of the last one; 0 before it is written.
    pub created: i64,
    /// The lease that is ours to revoke: one that was asked for, whether it is granted or not, and one that was attached to
    /// once our key was found under it.
    asked: Option<i64>,
    /// The lease and the key of the last term.
    pub last: Option<(i64, Vec<u8>)>,
    pub failure: Option<CampaignFailure>,
}

/// What was heard while waiting or leading.
enum Heard {
    /// Our key is gone or another's; how that was found.
    Gone(&'static str),
    /// The one before us is gone.
    OlderGone,
    /// Nothing certain: a watch ended.
    Nothing,
    /// Nothing, for long enough to look.
    Due,
    /// etcd does not let us watch.
    Refused(Error),
}

/// The candidate before ours.
struct Older {
    key: Vec<u8>,
    /// Its create revision.
    created: i64,
    watch: Subscription,
}

/// The value as etcd has it.
#[derive(Default)]
struct Value {
    wanted: Vec<u8>,
    /// Of which create revision the rest is.
    created: i64,
    /// What the key holds; `None` while a write is without an answer.
    written: Option<Vec<u8>>,
    mod_revision: i64,
}

/// One campaign.
pub(super) struct Machine {
    pub elections: Elections,
    options: CampaignOptions,
    pub now: watch::Sender<Now>,
    value: Mutex<Value>,
    /// It is over.
    pub over: CancellationToken,
    on_event: OnEvent,
}

impl Now {
    pub fn may_act(&self) -> bool {
        self.state == CampaignState::Leading
            && self.term.as_ref().is_some_and(|term| {
                Instant::now() < term.lease.deadline() && term.lease.is_alive() && !term.expired.is_cancelled()
            })
    }

    /// Takes the term out: its renewal ends with the last who holds it.
    fn end_term(&mut self) -> Option<Leftover> {
        let granted = self.term.take().is_some();
        self.led = false;
        self.asked.take().map(|lease| Leftover { lease, granted })
    }
}

impl Machine {
    pub fn new(elections: Elections, options: CampaignOptions, on_event: OnEvent) -> Self {
        let value = Value {
            wanted: options.value.clone(),
            ..Value::default()
        };
        Self {
            elections,
            options,
            now: watch::Sender::new(Now {
                state: CampaignState::Granting,
                led: false,
                term: None,
                created: 0,
                asked: None,
                last: None,
                failure: None,
            }),
            value: Mutex::new(value),
            over: CancellationToken::new(),
            on_event,
        }
    }

    pub async fn run(&self) {
        let mut backoff = Backoff::new();
        loop {
            let failure = Box::pin(self.term()).await;
            let closed = self.elections.calls.closed().is_cancelled();
            if closed || !self.options.again || !failure.is_passing() {
                let failure = if closed { CampaignFailure::Over } else { failure };
                self.drop_lease(self.finish(CampaignState::Failed, Some(failure)));
                return;
            }
            let error = failure.error();
            self.elections
                .calls
                .log()
                .debug(format_args!("a campaign goes on in a new term: {error}"));
            let mut left = None;
            self.change(|now| {
                now.failure = Some(failure.clone());
                if now.led {
                    backoff.reset();
                    (self.on_event)(CampaignEvent::Lost(failure));
                }
                left = now.end_term();
                now.state = CampaignState::Granting;
            });
            self.drop_lease(left);
            sleep(backoff.next_pause()).await;
            if let Some(stall) = &self.options.stall {
                stall.is_over().await; // a thread that does not tick is not to hold the next term either
            }
        }
    }

    /// Changes what is known, unless it is over.
    fn change(&self, change: impl FnOnce(&mut Now)) -> bool {
        self.now.send_if_modified(|now| {
            let goes_on = !now.state.is_final();
            if goes_on {
                change(now);
            }
            goes_on
        })
    }

    /// Ends the campaign unless it is over. Gives the lease that is to be revoked.
    pub fn finish(&self, state: CampaignState, failure: Option<CampaignFailure>) -> Option<Leftover> {
        let mut left = None;
        self.change(|now| {
            now.state = state;
            left = now.end_term();
            now.failure.clone_from(&failure);
            if let Some(failure) = failure {
                (self.on_event)(CampaignEvent::Failed(failure));
            }
        });
        self.over.cancel();
        left
    }

    fn drop_lease(&self, left: Option<Leftover>) {
        if let Some(left) = left {
            let leases = self.elections.leases.clone();
            tokio::spawn(async move { tidy(&leases, left, None).await });
        }
    }

    /// One lease from its grant to its end; gives why it ended.
    async fn term(&self) -> CampaignFailure {
        let stalled = stalled(self.options.stall.as_ref());
        tokio::pin!(stalled);
        let id = self.options.attach.unwrap_or_else(Lease::new_id);
        if self.options.attach.is_none() {
            self.change(|now| now.asked = Some(id)); // before it is asked for: the answer may be lost
        }
        let granted = tokio::select! {
            biased;
            silence = &mut stalled => return CampaignFailure::Stalled(silence),
            granted = self.grant(id) => granted,
        };
        let lease = match granted {
            Ok(lease) => lease,
            Err(fault) if fault.cause == Cause::LeaseNotFound => {
                let why = "it expired or was revoked".to_owned();
                return CampaignFailure::LeaseLost { lease: id, why };
            }
            Err(fault) => return CampaignFailure::Call(fault),
        };
        let mut state = lease.state();
        let term = Arc::new(Term {
            key: self.options.place.key(id),
            lease,
            gone: CancellationToken::new(),
            expired: CancellationToken::new(),
        });
        let begun = self.change(|now| {
            now.last = Some((id, term.key.clone()));
            now.created = 0;
            now.term = Some(Arc::clone(&term));
        });
        if !begun {
            return CampaignFailure::Over;
        }
        tokio::select! {
            biased;
            why = lost(&mut state) => CampaignFailure::LeaseLost { lease: id, why },
            () = term.expired.cancelled() => CampaignFailure::LeaseLost {
                lease: id,
                why: "it was not renewed within its time to live".to_owned(),
            },
            silence = &mut stalled => CampaignFailure::Stalled(silence),
            () = term.gone.cancelled() => self.explain(id, "a write did not find it").await,
            failure = self.candidate(&term) => failure,
        }
    }

    async fn grant(&self, id: i64) -> Result<Lease, Fault> {
        let until = Instant::now() + self.elections.calls.options().timeout;
        if self.options.attach.is_some() {
            return self.elections.leases.attach(id, until, LeaseOptions::default()).await;
        }
        let ttl = whole_seconds(self.options.ttl);
        self.elections
            .leases
            .grant_for(id, ttl, until, LeaseOptions::default())
            .await
    }

    /// Writes the key, waits for its turn and leads, until the key is gone. Others look after the lease meanwhile.
    async fn candidate(&self, term: &Term) -> CampaignFailure {
        let seat = self.seat(term);
        let mut backoff = Backoff::new();
        let (created, mut first) = match self.create(&seat, &mut backoff).await {
            Ok(created) => created,
            Err(failure) => return failure,
        };
        // Not all candidates in step, and not much more often than their leases are renewed.
        let due = term.lease.granted().clamp(LOOK_LEAST, LOOK_MOST);
        // No candidate between this create revision and ours stands before ours. Candidates go and none comes, unless etcd is
        // restored from a backup; so this holds for one look, and each look that nothing led to looks at all of them.
        let mut below = created.revision;
        let mut own: Option<Subscription> = None;
        let mut older: Option<Older> = None;
        loop {
            let seen = match first.take() {
                Some(first) => Ok(first),
                None => self.look(&seat, created, below, &mut backoff).await,
            };
            match seen {
                Err(failure) => return failure,
                Ok(Look::Gone) => return self.explain(seat.lease, "it is not there any more").await,
                Ok(Look::First(at)) => {
                    older = None;
                    own.get_or_insert_with(|| seat.watch(seat.key, at));
                    if !self.lead(term) {
                        sleep(backoff.next_pause()).await; // whoever looks after the lease will tell
                        continue;
                    }
                }
                Ok(Look::Behind { .. }) if self.now.borrow().led => {
                    let why = "an older candidate has come back: etcd was restored from a backup";
                    return CampaignFailure::KeyGone(why.to_owned());
                }
                Ok(Look::Behind {
                    older: key,
                    created,
                    at,
                }) => {
                    own.get_or_insert_with(|| seat.watch(seat.key, at));
                    if older.as_ref().is_none_or(|known| known.key != key) {
                        let watch = seat.watch(&key, at);
                        older = Some(Older { key, created, watch });
                    }
                }
            }
            below = created.revision;
            let heard = tokio::select! {
                biased;
                heard = own_gone(own.as_mut(), seat.lease) => heard,
                heard = self.gives_way(older.as_mut()) => heard,
                () = sleep(due.mul_f64(0.8 + fastrand::f64() * 0.4)) => Heard::Due,
            };
            match heard {
                Heard::Gone(how) => return self.explain(seat.lease, how).await,
                Heard::Due => {}
                Heard::OlderGone => {
                    below = older.take().map_or(below, |gone| gone.created);
                    backoff.reset();
                }
                Heard::Nothing => {
                    (own, older) = (None, None);
                    sleep(backoff.next_pause()).await;
                }
                Heard::Refused(error) => return CampaignFailure::Call(Fault::of(Cause::Refused, error)),
            }
        }
    }

    fn seat<'a>(&'a self, term: &'a Term) -> Seat<'a> {
        Seat {
            elections: &self.elections,
            place: &self.options.place,
            lease: term.lease.id(),
            key: &term.key,
            patience: term
                .lease
                .granted()
                .max(PATIENCE_LEAST)
                .min(self.elections.calls.options().timeout),
        }
    }

    /// Writes the key, and says since when and of which cluster it is, and whether it was the oldest at once.
    async fn create(&self, seat: &Seat<'_>, backoff: &mut Backoff) -> Result<(Moment, Option<Look>), CampaignFailure> {
        let mut value = self.value.lock().await;
        let attach = self.options.attach.is_some();
        let created = loop {
            match seat.create(&value.wanted, attach).await {
                Ok(Creation::Ours(created)) => break created,
                Ok(Creation::Taken) => return Err(CampaignFailure::Taken),
                Ok(Creation::Missing) => {
                    return Err(CampaignFailure::KeyGone("no key lies under this lease".to_owned()));
                }
                Err(fault) if fault.cause == Cause::LeaseNotFound => {
                    return Err(CampaignFailure::LeaseLost {
                        lease: seat.lease,
                        why: "it expired or was revoked".to_owned(),
                    });
                }
                Err(fault) if fault.error.is_retryable() => sleep(backoff.next_pause()).await,
                Err(fault) => return Err(CampaignFailure::Call(fault)),
            }
        };
        backoff.reset();
        value.created = created.revision;
        value.mod_revision = created.mod_revision;
        value.written = Some(created.value);
        // While the value is held: who proclaims sees both or neither.
        self.change(|now| {
            now.asked = Some(seat.lease);
            now.created = created.revision;
            now.state = CampaignState::Waiting;
        });
        let since = Moment {
            revision: created.revision,
            cluster: created.at.cluster,
        };
        if created.is_first {
            return Ok((since, Some(Look::First(created.at))));
        }
        drop(value);
        if self.options.waits {
            return Ok((since, None));
        }
        // An older key is there; whether it is that of a candidate is to be seen.
        match self.look(seat, since, since.revision, backoff).await? {
            Look::Behind { .. } => Err(CampaignFailure::Taken),
            seen => Ok((since, Some(seen))),
        }
    }

    /// Looks until etcd answers. `below`: see [`Seat::look`].
    async fn look(
        &self,
        seat: &Seat<'_>,
        created: Moment,
        below: i64,
        backoff: &mut Backoff,
    ) -> Result<Look, CampaignFailure> {
        loop {
            match seat.look(created.revision, below).await {
                Ok(Look::First(at) | Look::Behind { at, .. }) if at.cluster != created.cluster => {
                    return Ok(Look::Gone);
                }
                Ok(look) => return Ok(look),
                // Compacted: the moment that was being looked through.
                Err(fault) if fault.error.is_retryable() || fault.cause == Cause::Compacted => {
                    sleep(backoff.next_pause()).await;
                }
                Err(fault) => return Err(CampaignFailure::Call(fault)),
            }
        }
    }

    /// Waits until the key before ours is deleted or is no candidate's any more, or its watch ends.
    async fn gives_way(&self, older: Option<&mut Older>) -> Heard {
        let (Some(older), Place::Queue { prefix, .. }) = (older, &self.options.place) else {
            return pending().await;
        };
        loop {
            match older.watch.next().await {
                Ok(Batch { changes, .. }) => {
                    let stays = |change: &Change| change.value.is_some() && counts(prefix, &change.key, change.lease);
                    if !changes.iter().all(stays) {
                        return Heard::OlderGone;
                    }
                }
                Err(end) => return ended(end).await,
            }
        }
    }

    /// From here it leads, if the lease can still be vouched for: a look may have been answered late.
    fn lead(&self, term: &Term) -> bool {
        let mut leads = false;
        self.change(|now| {
            leads = now.led;
            if !now.led && Instant::now() < term.lease.deadline() && term.lease.is_alive() {
                leads = true;
                now.led = true;
                now.state = CampaignState::Leading;
                (self.on_event)(CampaignEvent::Elected(now.created));
            }
        });
        leads
    }

    /// The key is gone: stops acting at once, and then asks why.
    async fn explain(&self, lease: i64, how: &'static str) -> CampaignFailure {
        self.change(|now| now.state = CampaignState::Waiting);
        let asked = self.elections.calls.call("read a lease", |client| async move {
            client.lease_client().time_to_live(lease, None).await
        });
        match timeout(ASKING_WHY, asked).await {
            Ok(Ok(answer)) if answer.ttl() <= 0 => CampaignFailure::LeaseLost {
                lease,
                why: "it expired or was revoked".to_owned(),
            },
            Ok(Ok(_)) => CampaignFailure::KeyGone(format!("its key was deleted or overwritten by someone else: {how}")),
            _ => CampaignFailure::KeyGone(format!("its key is gone, or its lease: {how}")),
        }
    }

    pub async fn proclaim(&self, wanted: Vec<u8>) -> Result<(), CampaignFailure> {
        let mut changes = self.now.subscribe();
        let (mut value, term) = loop {
            let value = self.value.lock().await;
            changes.mark_unchanged();
            let term = {
                let now = self.now.borrow();
                let there = now.created > 0 && now.created == value.created;
                there.then(|| now.term.clone()).flatten()
            };
            if let Some(term) = term {
                break (value, term);
            }
            drop(value);
            if changes.changed().await.is_err() {
                return Err(CampaignFailure::Over);
            }
        };
        if value.written.as_ref() == Some(&wanted) {
            return Ok(());
        }
        value.wanted.clone_from(&wanted);
        value.written = None;
        for _ in 0..RACES {
            match self.seat(&term).write(&wanted, value.created, value.mod_revision).await {
                Ok(Written::Done { mod_revision }) => {
                    value.mod_revision = mod_revision;
                    value.written = Some(wanted);
                    return Ok(());
                }
                Ok(Written::Changed {
                    mod_revision,
                    value: held,
                }) => {
                    value.mod_revision = mod_revision;
                    if held == wanted {
                        value.written = Some(held);
                        return Ok(());
                    }
                }
                Ok(Written::Gone) => {
                    term.gone.cancel();
                    return Err(CampaignFailure::Over);
                }
                Err(fault) if fault.cause == Cause::LeaseNotFound => {
                    term.gone.cancel();
                    return Err(CampaignFailure::Over);
                }
                Err(fault) => return Err(CampaignFailure::Call(fault.of_a_write())),
            }
        }
        Err(CampaignFailure::Call(Fault::new(
            Cause::Refused,
            ErrorKind::Unavailable,
            "the key of the campaign changes faster than it can be written",
        )))
    }
}

/// Waits until our key is deleted or put under another lease, or its watch ends.
async fn own_gone(own: Option<&mut Subscription>, lease: i64) -> Heard {
    let Some(own) = own else { return pending().await };
    loop {
        match own.next().await {
            Ok(Batch { changes, .. }) => {
                for change in changes {
                    if change.value.is_none() {
                        return Heard::Gone("it was deleted");
                    }
                    if change.lease != lease {
                        return Heard::Gone("it was put under another lease or none");
                    }
                }
            }
            Err(end) => return ended(end).await,
        }
    }
}

async fn ended(end: WatchEnd) -> Heard {
    match end {
        WatchEnd::Refused(error) if !error.is_retryable() => Heard::Refused(error),
        WatchEnd::Closed => pending().await, // the end of the lease tells
        _ => Heard::Nothing,
    }
}

#[cfg(test)]
mod tests;
