//! The machine behind a slot: it takes one, extends its window until it is given back, and takes another where it loses it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::ask::{Ask, OnChange, Refusal, Window};
use super::choice::{Free, Slots};
use super::clock::{Clock, Reading};
use super::mark::Mark;
use super::record::{Places, Record};
use crate::backend::no_answer;
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Commit, Compare, Range, Read, Store, Write};
use crate::sync::lock;
use crate::tenure::Tenure;
use crate::watch::{Source, closed};

/// How often a clock is looked at that has jumped ahead.
const CLOCK_LOOK: Duration = Duration::from_secs(1);
/// The longest pause after a slot that somebody else took in that moment.
const DODGE_MS: u64 = 20;

/// How it stands.
#[derive(Debug, Clone)]
pub(super) enum State {
    /// None was taken yet.
    Asking,
    /// One was. Up to when it may be used its window says.
    Held,
    /// For good.
    Over(Refusal),
}

/// What is known now.
#[derive(Debug, Clone)]
pub(super) struct Now {
    pub state: State,
    pub window: Window,
}

/// Why a term ended: with what is refused, for good, or to begin another.
enum End {
    Again,
    Refused(Refusal),
}

pub(super) struct Machine {
    pub store: Arc<dyn Store>,
    pub source: Arc<Source>,
    pub ask: Ask,
    pub places: Places,
    pub now: watch::Sender<Now>,
    pub over: CancellationToken,
    pub mark: Mutex<Option<Mark>>,
    pub tenure: Mutex<Option<Arc<dyn Tenure>>>,
    clock: Mutex<Clock>,
    on_change: OnChange,
}

/// The clock of the machine, in milliseconds.
fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Machine {
    pub fn new(store: Arc<dyn Store>, source: Arc<Source>, ask: Ask, on_change: OnChange) -> Self {
        Self {
            places: Places::of(&ask.service),
            clock: Mutex::new(Clock::new(wall(), Instant::now(), ask.window)),
            store,
            source,
            ask,
            now: watch::Sender::new(Now {
                state: State::Asking,
                window: Window::default(),
            }),
            over: CancellationToken::new(),
            mark: Mutex::default(),
            tenure: Mutex::default(),
            on_change,
        }
    }

    pub async fn run(&self) {
        let refusal = tokio::select! {
            biased;
            () = self.source.closed.cancelled() => Refusal::Call(closed()),
            () = self.over.cancelled() => Refusal::Over,
            refusal = self.terms() => refusal,
        };
        self.finish(refusal);
    }

    pub fn finish(&self, refusal: Refusal) {
        self.now.send_if_modified(|now| {
            let goes_on = !matches!(now.state, State::Over(_));
            if goes_on {
                now.state = State::Over(refusal);
            }
            goes_on
        });
        self.over.cancel();
    }

    async fn terms(&self) -> Refusal {
        let mut backoff = Backoff::new();
        loop {
            let tenure = match self.store.hold(self.ask.ttl) {
                Ok(tenure) => tenure,
                Err(error) => return Refusal::Call(error),
            };
            *lock(&self.tenure) = Some(Arc::clone(&tenure));
            match self.term(&tenure, &mut backoff).await {
                // The lease may be a clone's as well: it is left to expire.
                End::Again => tenure.stop(),
                End::Refused(refusal) => return refusal,
            }
        }
    }

    async fn term(&self, tenure: &Arc<dyn Tenure>, backoff: &mut Backoff) -> End {
        while let Err(error) = tenure.begin(self.patience()).await {
            if let Err(end) = self.hindered(error, backoff).await {
                return end;
            }
        }
        tokio::select! {
            biased;
            why = tenure.lost() => {
                self.source.log.warn(format_args!("the slot of {} is taken anew: {why}", self.ask.service));
                // It may stand in the store for a while yet, and keep us from the slot that we had.
                tenure.stop();
                let _ = tenure.end(self.patience()).await;
                End::Again
            }
            end = self.hold(tenure, backoff) => end,
        }
    }

    async fn hold(&self, tenure: &Arc<dyn Tenure>, backoff: &mut Backoff) -> End {
        if let Err(end) = self.claim(tenure, backoff).await {
            return end;
        }
        backoff.reset();
        let third = self.ask.window / 3;
        let mut pause = third;
        loop {
            sleep(pause).await;
            let began = Instant::now();
            pause = match self.extend().await {
                Ok(Extended::Done) => {
                    backoff.reset();
                    third.saturating_sub(began.elapsed())
                }
                Ok(Extended::ClockOff) => CLOCK_LOOK.min(third),
                Ok(Extended::Lost) => {
                    let log = &self.source.log;
                    log.warn(format_args!(
                        "the slot of {} is not ours any more in the store",
                        self.ask.service
                    ));
                    return End::Again;
                }
                Err(error) => {
                    self.note(|window| window.hindrance = Some(error));
                    backoff.next_pause().min(third)
                }
            };
        }
    }

    /// Takes a slot: the last one again if nobody had it meanwhile.
    async fn claim(&self, tenure: &Arc<dyn Tenure>, backoff: &mut Backoff) -> Result<(), End> {
        let mut pending: Option<Mark> = None;
        loop {
            let read = match self.read().await {
                Ok(read) => read,
                Err(error) => {
                    self.hindered(error, backoff).await?;
                    continue;
                }
            };
            if let Some(mark) = pending.as_mut()
                && self.has_written(mark, &read)
            {
                self.taken(mark.clone());
                return Ok(());
            }
            let slots = Slots::read(&self.places, &read.pairs, self.ask.slots);
            let Some(now) = self.time(&slots) else {
                sleep(CLOCK_LOOK).await;
                continue;
            };
            let own = lock(&self.mark).as_mut().map(|mark| {
                self.has_written(mark, &read);
                (mark.n, mark.revision, mark.since)
            });
            let Some(free) = slots.choose(own.map(|(n, revision, _)| (n, revision))) else {
                if matches!(self.now.borrow().state, State::Asking) {
                    return Err(End::Refused(Refusal::Full(slots.holders)));
                }
                let text = format!("all {} slots of {} are held", self.ask.slots, self.ask.service);
                self.note(|window| window.hindrance = Some(Error::new(ErrorKind::Unavailable, text)));
                sleep(self.pause(backoff)).await;
                continue;
            };
            let mut mark = self.mark_of(free, own, now);
            let key = self.places.until(free.n);
            let compare = Compare {
                key: Arc::clone(&key),
                revision: free.revision,
            };
            let put = Write::Put(key, mark.record.bytes());
            let id = self.places.id(free.n);
            let n = free.n.to_string();
            match tenure
                .claim(&id, n.as_bytes(), &[compare], &[put], self.patience())
                .await
            {
                Ok(Commit::Done { moment, .. }) => {
                    mark.revision = moment.revision;
                    mark.tried.clear();
                    self.taken(mark);
                    return Ok(());
                }
                Ok(Commit::Conflict { .. }) => sleep(Duration::from_millis(fastrand::u64(..DODGE_MS))).await,
                Err(error) => {
                    let is_over = tenure.deadline().is_none();
                    let is_unknown = error.is_outcome_unknown();
                    pending = Some(mark).filter(|_| is_unknown);
                    if is_over {
                        sleep(self.pause(backoff)).await;
                        return Err(End::Again);
                    }
                    if is_unknown {
                        self.note(|window| window.hindrance = Some(error));
                        sleep(self.pause(backoff)).await;
                    } else {
                        self.hindered(error, backoff).await?;
                    }
                }
            }
        }
    }

    /// What is written to take a slot.
    fn mark_of(&self, free: Free, own: Option<(u32, i64, i64)>, now: i64) -> Mark {
        let is_own = own.is_some_and(|(n, revision, _)| (n, revision) == (free.n, free.revision));
        let used = Some(&self.now.borrow().window)
            .filter(|window| window.n == free.n)
            .map_or(0, |window| window.until); // the store may have been set back since
        let taken = free.until.max(used);
        let since = own.filter(|_| is_own).map_or(taken, |(_, _, since)| since);
        let start = if is_own { now } else { now.max(taken) };
        let until = taken.max(start.saturating_add(millis(self.ask.window)));
        let record = Record::new(until, &self.ask.holder);
        Mark {
            n: free.n,
            since,
            tried: vec![record.nonce.clone()],
            record,
            revision: free.revision,
        }
    }

    /// Whether a write of a mark whose answer was lost stands there after all.
    fn has_written(&self, mark: &mut Mark, read: &Read) -> bool {
        let key = self.places.until(mark.n);
        let found = read.pairs.iter().find(|pair| pair.key == key);
        found.is_some_and(|pair| mark.adopts(&pair.value, pair.revision))
    }

    fn taken(&self, mark: Mark) {
        lock(&self.clock).lift(mark.since, Instant::now());
        self.now.send_modify(|now| {
            let window = &mut now.window;
            if (window.n, window.since) != (mark.n, mark.since) || window.generation == 0 {
                window.generation += 1;
            }
            window.n = mark.n;
            window.since = mark.since;
            window.until = mark.record.until;
            window.is_clock_off = false;
            window.hindrance = None;
            now.state = State::Held;
        });
        *lock(&self.mark) = Some(mark);
        (self.on_change)();
    }

    /// The time, if the clock can be believed.
    fn time(&self, slots: &Slots) -> Option<i64> {
        let (wall, mono) = (wall(), Instant::now());
        let mut clock = lock(&self.clock);
        let reading = clock.read(wall, mono);
        let was_right = matches!(self.now.borrow().state, State::Held);
        let off = match reading {
            Reading::Ahead { by } => Some(by),
            // It was right once, and has gone evenly since: after an outage of the store all windows lie behind.
            Reading::At { .. } if was_right => None,
            Reading::At { .. } | Reading::Settled { .. } => slots.is_ahead(wall),
        };
        if let Some(by) = off {
            drop(clock);
            self.clock_is_off(by);
            return None;
        }
        if let Reading::At { now, step } = reading {
            drop(clock);
            self.clock_is_right(step);
            return Some(now);
        }
        clock.believe(wall, mono);
        drop(clock);
        self.clock_is_right(None);
        Some(wall)
    }

    fn clock_is_off(&self, by: i64) {
        if self.now.borrow().window.is_clock_off {
            return;
        }
        self.source.log.warn(format_args!(
            "the clock is {by} ms ahead: the window of {} is not extended by it",
            self.ask.service
        ));
        self.note(|window| {
            window.is_clock_off = true;
            window.steps += 1;
            window.step = by;
        });
        (self.on_change)();
    }

    fn clock_is_right(&self, step: Option<i64>) {
        if step.is_none() && !self.now.borrow().window.is_clock_off {
            return;
        }
        self.note(|window| {
            window.is_clock_off = false;
            if let Some(step) = step {
                window.steps += 1;
                window.step = step;
            }
        });
    }

    async fn extend(&self) -> Result<Extended> {
        let reading = lock(&self.clock).read(wall(), Instant::now());
        let now = match reading {
            Reading::At { now, step } => {
                self.clock_is_right(step);
                now
            }
            Reading::Ahead { by } => {
                self.clock_is_off(by);
                return Ok(Extended::ClockOff);
            }
            Reading::Settled { .. } => {
                let read = self.read().await?;
                let mut slots = Slots::read(&self.places, &read.pairs, self.ask.slots);
                slots.without(lock(&self.mark).as_ref().map_or(0, |mark| mark.record.until));
                match self.time(&slots) {
                    Some(now) => now,
                    None => return Ok(Extended::ClockOff),
                }
            }
        };
        let Some((record, compare)) = self.next(now) else {
            return Ok(Extended::Lost);
        };
        let put = Write::Put(Arc::clone(&compare.key), record.bytes());
        let done = self.store.commit(&[compare], &[put], self.patience()).await;
        self.source.reach.note(&done);
        let mut ours = lock(&self.mark);
        let Some(mark) = ours.as_mut() else {
            return Ok(Extended::Lost);
        };
        match done? {
            Commit::Done { moment, .. } => {
                mark.record = record;
                mark.revision = moment.revision;
                mark.tried.clear();
            }
            Commit::Conflict { current } => {
                let Some(Some(pair)) = current.first() else {
                    return Ok(Extended::Lost); // it is remembered: nobody is known to have it
                };
                if !mark.adopts(&pair.value, pair.revision) {
                    *ours = None;
                    return Ok(Extended::Lost);
                }
            }
        }
        let until = mark.record.until;
        self.note(|window| {
            window.until = window.until.max(until);
            window.hindrance = None;
        });
        (self.on_change)();
        Ok(Extended::Done)
    }

    /// What is to be written next, and over what.
    fn next(&self, now: i64) -> Option<(Record, Compare)> {
        let mut mark = lock(&self.mark);
        let mark = mark.as_mut()?;
        let until = mark.record.until.max(now.saturating_add(millis(self.ask.window)));
        let record = Record::new(until, &self.ask.holder);
        mark.tries(&record);
        let compare = Compare {
            key: self.places.until(mark.n),
            revision: mark.revision,
        };
        Some((record, compare))
    }

    async fn read(&self) -> Result<Read> {
        let ranges = [
            Range::Under(Arc::clone(&self.places.ids)),
            Range::Under(Arc::clone(&self.places.until)),
        ];
        let limit = self.source.timeout;
        let read = timeout(limit, self.store.read(&ranges)).await;
        let read = read.unwrap_or_else(|_| Err(no_answer(&*self.source.backend, limit, Some(&self.places.ids))));
        self.source.reach.note(&read);
        read
    }

    fn note(&self, change: impl FnOnce(&mut Window)) {
        self.now.send_modify(|now| change(&mut now.window));
    }

    /// Waits a little after what may pass by itself. All else ends it, where nothing is held yet.
    async fn hindered(&self, error: Error, backoff: &mut Backoff) -> Result<(), End> {
        if !error.is_retryable() && matches!(self.now.borrow().state, State::Asking) {
            return Err(End::Refused(Refusal::Call(error)));
        }
        self.note(|window| window.hindrance = Some(error));
        sleep(self.pause(backoff)).await;
        Ok(())
    }

    fn pause(&self, backoff: &mut Backoff) -> Duration {
        backoff.next_pause().min(self.ask.window / 3)
    }

    fn patience(&self) -> Duration {
        self.source.timeout.min(self.ask.window / 3)
    }
}

/// What became of an extension.
enum Extended {
    Done,
    /// The clock has jumped: nothing was asked for.
    ClockOff,
    /// Somebody else wrote there, or nothing stands there any more.
    Lost,
}
