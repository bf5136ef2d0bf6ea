//! Which lease is to be renewed when, which are waiting for their turn, and which requests are not answered yet. It does
//! no I/O and reads no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::slot::{Keep, LeaseEvent, Renewed, Slot};
use crate::etcd::messages::LeaseKeepAliveResponse;
use crate::etcd::options::MAX_TTL;

/// The bounds of how long a stream with requests on it may say nothing.
const PATIENCE_LEAST: Duration = Duration::from_millis(500);
const PATIENCE_MOST: Duration = Duration::from_secs(5);

/// Where a lease stands between two renewals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Renewed not long ago.
    Resting,
    /// To be renewed as soon as there is a stream and fewer than [`IN_FLIGHT`] are ahead of it. The one that is lost
    /// first comes first.
    Due,
    /// The request was sent.
    Asked,
}

/// One lease as the task keeps it.
pub(super) struct Kept {
    /// Who has it kept: one, unless somebody attached to a lease that this client kept already.
    slots: Vec<Arc<Slot>>,
    ttl: Duration,
    /// When the last request was sent that was answered.
    confirmed: Instant,
    deadline: Instant,
    pub(super) phase: Phase,
    /// Its place in [`Book::timers`].
    wake: Instant,
    /// The stream that its observers were told of.
    told: u64,
    /// Who awaits the next request, and who the one under way.
    pub(super) waiting: Vec<oneshot::Sender<Renewed>>,
    asking: Vec<oneshot::Sender<Renewed>>,
}

impl Kept {
    pub(super) fn renews_itself(&self) -> bool {
        self.slots.iter().any(|slot| slot.renews_itself())
    }

    /// Whether anybody listens to more than the loss.
    fn is_heard(&self) -> bool {
        self.slots.iter().any(|slot| slot.is_heard())
    }

    fn lose(self, why: &str) {
        for awaited in self.waiting.into_iter().chain(self.asking) {
            let _ = awaited.send(Err(why.to_owned())); // who asked may have gone
        }
        for slot in &self.slots {
            slot.lose(why);
        }
    }

    fn tell(&self, event: &LeaseEvent) {
        for slot in &self.slots {
            slot.tell(event);
        }
    }
}

/// A request that is not answered yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) id: i64,
    pub(super) sent: Instant,
}

/// All leases, and what is to happen to which of them when. No I/O.
#[derive(Default)]
pub(super) struct Book {
    pub(super) leases: HashMap<i64, Kept>,
    /// When to look at which lease next. Every lease is in it once.
    pub(super) timers: BTreeSet<(Instant, i64)>,
    /// Those that are due, by their deadlines.
    pub(super) due: BTreeSet<(Instant, i64)>,
    /// In the order in which they were sent.
    pub(super) in_flight: VecDeque<Asked>,
    /// How many leases have which time to live.
    ttls: BTreeMap<Duration, usize>,
}

impl Book {
    /// How long a stream may leave requests unanswered: a sixth of the shortest time to live, so that half of it is left
    /// when the renewal is tried elsewhere.
    pub(super) fn patience(&self) -> Duration {
        let shortest = self.ttls.first_key_value().map_or(PATIENCE_MOST, |(ttl, _)| *ttl / 6);
        shortest.clamp(PATIENCE_LEAST, PATIENCE_MOST)
    }

    pub(super) fn keep(&mut self, keep: Keep, now: Instant) {
        let id = keep.slot.id();
        if let Some(entry) = self.leases.get_mut(&id) {
            keep.slot.confirm(entry.deadline, entry.ttl);
            entry.slots.push(keep.slot);
            if entry.phase == Phase::Resting {
                self.rest(id, now);
            }
            return;
        }
        let entry = Kept {
            slots: vec![keep.slot],
            ttl: keep.ttl,
            confirmed: keep.confirmed,
            deadline: keep.confirmed + keep.ttl,
            phase: Phase::Resting,
            wake: keep.confirmed,
            told: 0,
            waiting: Vec::new(),
            asking: Vec::new(),
        };
        *self.ttls.entry(keep.ttl).or_default() += 1;
        self.timers.insert((entry.wake, id));
        // Anywhere in the second half of the third: ten thousand leases that were granted together part here.
        let first = keep.confirmed + (keep.ttl / 3).mul_f64(0.5 + fastrand::f64() / 2.0);
        let renews_itself = entry.renews_itself();
        let deadline = entry.deadline;
        self.leases.insert(id, entry);
        self.set_timer(id, if renews_itself { first.min(deadline) } else { deadline });
    }

    /// Takes a slot out, and the lease with the last one.
    pub(super) fn forget(&mut self, slot: &Arc<Slot>) {
        let id = slot.id();
        if let Some(entry) = self.leases.get_mut(&id) {
            entry.slots.retain(|kept| !Arc::ptr_eq(kept, slot));
            if entry.slots.is_empty() {
                self.remove(id);
            }
        }
    }

    fn remove(&mut self, id: i64) -> Option<Kept> {
        let entry = self.leases.remove(&id)?;
        self.timers.remove(&(entry.wake, id));
        self.due.remove(&(entry.deadline, id));
        self.no_more_of(entry.ttl);
        Some(entry)
    }

    fn no_more_of(&mut self, ttl: Duration) {
        if let Some(count) = self.ttls.get_mut(&ttl) {
            *count -= 1;
            if *count == 0 {
                self.ttls.remove(&ttl);
            }
        }
    }

    pub(super) fn lose(&mut self, id: i64, why: &str) {
        if let Some(entry) = self.remove(id) {
            entry.lose(why);
        }
    }

    /// Also after a fault in the middle of anything: nothing but the leases themselves is relied on.
    pub(super) fn lose_all(&mut self, why: &str) {
        for entry in std::mem::take(self).leases.into_values() {
            // The fault may be in one of their observers; the others are told all the same.
            let _ = catch_unwind(AssertUnwindSafe(|| entry.lose(why)));
        }
    }

    fn set_timer(&mut self, id: i64, wake: Instant) {
        if let Some(entry) = self.leases.get_mut(&id) {
            self.timers.remove(&(entry.wake, id));
            entry.wake = wake;
            self.timers.insert((wake, id));
        }
    }

    /// It is renewed; the next time is in a third of what it lives.
    pub(super) fn rest(&mut self, id: i64, now: Instant) {
        let Some(entry) = self.leases.get_mut(&id) else { return };
        self.due.remove(&(entry.deadline, id));
        entry.phase = Phase::Resting;
        let next = entry.confirmed + (entry.ttl / 3).mul_f64(0.9 + fastrand::f64() / 10.0);
        let wake = if entry.renews_itself() {
            next.max(now).min(entry.deadline)
        } else {
            entry.deadline
        };
        self.set_timer(id, wake);
    }

    pub(super) fn make_due(&mut self, id: i64) {
        let Some(entry) = self.leases.get_mut(&id) else { return };
        entry.phase = Phase::Due;
        let deadline = entry.deadline;
        self.due.insert((deadline, id));
        self.set_timer(id, deadline);
    }

    /// A request for it was sent on the stream of this number.
    pub(super) fn asked(&mut self, id: i64, sent: Instant, stream: u64) {
        self.in_flight.push_back(Asked { id, sent });
        let Some(entry) = self.leases.get_mut(&id) else { return };
        self.due.remove(&(entry.deadline, id));
        entry.phase = Phase::Asked;
        entry.asking.retain(|awaited| !awaited.is_closed());
        entry.asking.append(&mut entry.waiting);
        // Who begins to listen later is told of the stream then.
        if entry.is_heard() && std::mem::replace(&mut entry.told, stream) != stream {
            entry.tell(&LeaseEvent::Established);
        }
        entry.tell(&LeaseEvent::Fired);
        let again = (sent + entry.ttl / 3).min(entry.deadline);
        self.set_timer(id, again);
    }

    /// An answer has come. False when nobody asked for it.
    pub(super) fn answered(&mut self, answer: LeaseKeepAliveResponse, now: Instant) -> bool {
        let Some(at) = self.in_flight.iter().position(|asked| asked.id == answer.id) else {
            return false;
        };
        let Some(Asked { id, sent }) = self.in_flight.remove(at) else {
            return false;
        };
        let Some(entry) = self.leases.get_mut(&id) else {
            return true; // forgotten or lost meanwhile
        };
        // First of all: this process may have been stopped since, and the answer be as old as that.
        if entry.deadline <= now {
            let why = not_renewed(entry.ttl);
            self.lose(id, &why);
            return true;
        }
        let Some(ttl) = time_to_live(answer.ttl) else {
            self.lose(id, "its lease expired or was revoked");
            return true;
        };
        // Of two requests that were under way the later one counts.
        if sent >= entry.confirmed {
            self.due.remove(&(entry.deadline, id));
            entry.confirmed = sent;
            entry.deadline = sent + ttl;
            let before = std::mem::replace(&mut entry.ttl, ttl);
            for slot in &entry.slots {
                slot.confirm(entry.deadline, ttl);
            }
            if before != ttl {
                *self.ttls.entry(ttl).or_default() += 1;
                self.no_more_of(before);
            }
        }
        let Some(entry) = self.leases.get_mut(&id) else {
            return true;
        };
        entry.tell(&LeaseEvent::Succeeded(answer));
        for awaited in entry.asking.drain(..) {
            let _ = awaited.send(Ok(answer));
        }
        if entry.waiting.is_empty() {
            self.rest(id, now);
        } else {
            self.make_due(id);
        }
        true
    }

    /// Looks at all leases whose time has come: some are lost, some are due.
    pub(super) fn look(&mut self, now: Instant) {
        while let Some((wake, id)) = self.timers.first().copied()
            && wake <= now
        {
            let Some(entry) = self.leases.get(&id) else {
                self.timers.remove(&(wake, id));
                continue;
            };
            if entry.deadline <= now {
                let why = not_renewed(entry.ttl);
                self.lose(id, &why);
            } else {
                // Resting long enough, or asked for so long that it is asked again.
                self.make_due(id);
            }
        }
    }

    /// The stream is gone: all that were asked are due again.
    pub(super) fn unanswered(&mut self, why: &str) {
        let failed = LeaseEvent::Failed(why.into());
        for asked in std::mem::take(&mut self.in_flight) {
            let Some(entry) = self.leases.get_mut(&asked.id) else {
                continue;
            };
            if entry.phase == Phase::Asked {
                entry.tell(&failed);
                let mut asking = std::mem::take(&mut entry.asking);
                entry.waiting.append(&mut asking);
                self.make_due(asked.id);
            }
        }
    }

    /// No stream can be had: all that are due are told.
    pub(super) fn not_asked(&self, why: &str) {
        let failed = LeaseEvent::Failed(why.into());
        for (_, id) in &self.due {
            if let Some(entry) = self.leases.get(id) {
                entry.tell(&failed);
            }
        }
    }
}

/// The seconds of an answer; `None` when the lease is not there.
pub(super) fn time_to_live(seconds: i64) -> Option<Duration> {
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0)?;
    // At most what etcd itself allows: nothing here has to ask whether a moment can be named.
    Some(Duration::from_secs(seconds).min(MAX_TTL))
}

fn not_renewed(ttl: Duration) -> String {
    format!("its lease was not renewed for its time to live, {} s", ttl.as_secs())
}
