//! The machine behind a registration: publish, hold, repair, sit out a stall, withdraw.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::phase::{Input, Phase, Told};
use super::state::{OnEvent, Shared, State, Wanted};
use crate::backend::{Loss, Presence};
use crate::backoff::{Backoff, FIRST};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::ServiceInstance;
use crate::log::{Level, Log};
use crate::stall::{Stall, stalled};

/// A longer TTL is as good as this one, and does not overflow the clock.
const LONGEST_TTL: Duration = Duration::from_secs(86_400);

/// How long a withdrawal that nobody waits for any more is tried on. By then the record has expired many times over
/// unless the registry itself was away, and then it goes one TTL after the registry's return.
pub(super) const WITHDRAW_FOR: Duration = Duration::from_secs(600);

/// Why the machine stopped what it was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interrupt {
    /// The owner wants the record gone.
    Gone,
    /// The owner's thread does not tick.
    Stall,
}

pub(super) struct Machine {
    pub presence: Box<dyn Presence>,
    pub wanted: watch::Receiver<Wanted>,
    pub shared: Arc<Shared>,
    pub stall: Option<Stall>,
    pub timeout: Duration,
    pub publications: Arc<Semaphore>,
    pub withdrawals: Arc<Semaphore>,
    pub on_event: OnEvent,
    pub log: Log,
    pub phase: Phase,
    /// When the last attempt began; without one nothing can have been written.
    pub attempt: Option<Instant>,
    pub backoff: Backoff,
}

impl Machine {
    /// Runs to the end of the registration.
    pub async fn run(mut self) {
        loop {
            let interrupt = match self.publish().await {
                Err(interrupt) => Some(interrupt),
                Ok(Err(error)) if error.kind() == ErrorKind::Replaced => return self.end_replaced().await,
                Ok(Err(_)) => self.pause().await,
                Ok(Ok(())) => self.hold().await,
            };
            let interrupt = match interrupt {
                Some(Interrupt::Stall) => self.sit_out_stall().await,
                other => other,
            };
            if interrupt == Some(Interrupt::Gone) {
                return self.withdraw_for_good().await;
            }
            if self.phase.state() == State::Replaced {
                return self.end_replaced().await;
            }
        }
    }

    /// One attempt to publish what is wanted now. `Err` when it was interrupted.
    async fn publish(&mut self) -> Result<Result<()>, Interrupt> {
        let (instance, generation) = {
            let wanted = self.wanted.borrow_and_update();
            (wanted.instance.clone(), wanted.generation)
        };
        let (permits, intent) = (self.publications.clone(), self.phase.intent());
        let attempt = async {
            // Never closed; if it were, an attempt too many would be the lesser evil.
            let _permit = permits.acquire().await;
            self.attempt = Some(Instant::now());
            match timeout(self.timeout, self.presence.publish(&instance, intent)).await {
                Ok(result) => result,
                Err(_) => Err(Error::no_answer(self.timeout)),
            }
        };
        let result = tokio::select! {
            biased;
            interrupt = interrupted(&self.wanted, self.stall.as_ref()) => return Err(interrupt),
            result = attempt => result,
        };
        match &result {
            Ok(()) => self.step(Input::Published(Instant::now()), Some((generation, None))),
            Err(error) => self.step(Input::Failed(error.clone()), Some((generation, Some(error.clone())))),
        }
        Ok(result)
    }

    /// While the record stands: until it is lost, something else is wanted, or an interrupt.
    async fn hold(&mut self) -> Option<Interrupt> {
        // Counted over updates: one more often than every TTL must not keep the back-off where it is.
        let since = self.phase.stands_since().unwrap_or_else(Instant::now);
        let settled = since + self.presence.ttl().min(LONGEST_TTL);
        let mut reset = false;
        loop {
            tokio::select! {
                biased;
                interrupt = interrupted(&self.wanted, self.stall.as_ref()) => return Some(interrupt),
                loss = self.presence.lost() => return self.note_loss(loss).await,
                () = changed(&self.wanted) => return None,
                () = sleep_until(settled), if !reset => {
                    // Only a record that has held for one TTL proves that the trouble is over.
                    self.backoff.reset();
                    reset = true;
                }
            }
        }
    }

    /// Between two attempts. A record that still stands (an update failed) may be lost meanwhile.
    async fn pause(&mut self) -> Option<Interrupt> {
        // From start to start: an attempt that waited ten seconds in vain was pause enough.
        let last = self.attempt.unwrap_or_else(Instant::now);
        let next = last + self.backoff.next_pause();
        tokio::select! {
            biased;
            interrupt = interrupted(&self.wanted, self.stall.as_ref()) => Some(interrupt),
            loss = self.presence.lost(), if self.phase.stands_since().is_some() => self.note_loss(loss).await,
            // Who wants something else now need not wait for the next try of what failed; but one update after the other
            // is no way around the back-off.
            () = async { changed(&self.wanted).await; sleep_until(last + FIRST).await } => None,
            () = sleep_until(next) => None,
        }
    }

    /// Tells of a loss once, and waits the first pause before the repair.
    async fn note_loss(&mut self, loss: Loss) -> Option<Interrupt> {
        self.step(Input::Lost(loss), None);
        if self.phase == Phase::Replaced {
            return None;
        }
        let pause = self.backoff.next_pause();
        tokio::select! {
            biased;
            interrupt = interrupted(&self.wanted, self.stall.as_ref()) => Some(interrupt),
            () = sleep(pause) => None,
        }
    }

    /// Withdraws the instance because its thread does not tick, and waits until it ticks again.
    async fn sit_out_stall(&mut self) -> Option<Interrupt> {
        let limit = self.stall.as_ref().map_or(Duration::ZERO, Stall::limit);
        self.step(Input::Stalled(limit), None);
        let mut withdrawn = false;
        loop {
            tokio::select! {
                biased;
                () = wants_gone(&self.wanted) => return Some(Interrupt::Gone),
                () = ticking(self.stall.as_ref()) => return None,
                done = withdraw(&mut self.presence, &self.withdrawals, self.timeout, WITHDRAW_FOR, |error| {
                    self.log.warn(format_args!("a stalled instance could not be withdrawn yet: {error}"));
                }), if !withdrawn => withdrawn = done || withdrawn,
            }
        }
    }

    /// The end by the owner's wish: removes the record, however long it takes within reason.
    async fn withdraw_for_good(mut self) {
        self.step(Input::Gone, None);
        let name = Name(&self.instance()).to_string();
        let done = self.attempt.is_none()
            || withdraw(
                &mut self.presence,
                &self.withdrawals,
                self.timeout,
                WITHDRAW_FOR,
                |error| {
                    self.log.warn(format_args!("{name} could not be removed yet: {error}"));
                    self.shared
                        .progress
                        .send_modify(|p| p.failure = Some((p.published, error)));
                },
            )
            .await;
        self.step(Input::Removed(done), None);
    }

    /// The end by a newer owner: what we wrote under is cleaned up, the newer record is not touched.
    async fn end_replaced(mut self) {
        // Best effort: what cannot be cleaned up expires.
        withdraw(
            &mut self.presence,
            &self.withdrawals,
            self.timeout,
            self.timeout,
            |_| (),
        )
        .await;
    }

    fn instance(&self) -> Arc<ServiceInstance> {
        self.wanted.borrow().instance.clone()
    }

    /// Moves the phase on, and tells of it in the same step: who reads the new state finds its event on the way, and who
    /// hears of the event reads the new state. `published`: which generation was tried, and what hindered it.
    fn step(&mut self, input: Input, published: Option<(u64, Option<Error>)>) {
        let (phase, told) = std::mem::replace(&mut self.phase, Phase::NEW).step(input);
        self.phase = phase;
        let hindrance = published.as_ref().and_then(|(_, error)| error.clone());
        self.shared.progress.send_modify(|progress| {
            progress.state = self.phase.state();
            match published {
                Some((generation, None)) => {
                    progress.published = generation;
                    progress.failure = None;
                }
                Some((generation, Some(error))) => progress.failure = Some((generation, error)),
                None => {}
            }
            if let Some(event) = told.as_ref().and_then(Told::event) {
                (self.on_event)(event);
            }
        });
        if let Some(told) = told {
            self.say(&told, hindrance.as_ref());
        }
    }

    fn say(&self, told: &Told, hindrance: Option<&Error>) {
        let instance = self.instance();
        let (log, name) = (&self.log, Name(&instance));
        match told {
            Told::Registered => log.info(format_args!("{name} is registered at {}", Where(&instance))),
            Told::Restored => log.info(format_args!("{name} is registered again")),
            Told::NotPublished { first } => {
                // Once per series of failures: an outage is long, and a client may hold a thousand registrations.
                let level = if *first { Level::Warn } else { Level::Debug };
                if let Some(error) = hindrance {
                    log.log(level, format_args!("{name} could not be published: {error}"));
                }
            }
            Told::Lost(why) => log.warn(format_args!("{name} was lost: {why}; putting it back")),
            Told::Withdrawn(why) => log.warn(format_args!("{name} is withdrawn: {why}")),
            Told::Replaced => log.warn(format_args!("{name} was replaced by a newer registration of its id")),
            Told::Removed => log.info(format_args!("{name} is deregistered")),
            Told::LeftToExpire => log.error(format_args!("{name} could not be removed and is left to expire")),
        }
    }
}

/// Tries to withdraw until it is done or `within` has passed; says whether it is done.
async fn withdraw(
    presence: &mut Box<dyn Presence>,
    withdrawals: &Semaphore,
    attempt: Duration,
    within: Duration,
    mut failed: impl FnMut(Error),
) -> bool {
    let give_up = Instant::now() + within;
    let mut backoff = Backoff::new();
    presence.stop(); // at once, not when its turn comes
    loop {
        let result = {
            // A thousand removals at once are paced like publications. Never closed.
            let _permit = withdrawals.acquire().await;
            timeout(attempt, presence.withdraw()).await
        };
        match result {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => failed(error),
            Err(_) => failed(Error::no_answer(attempt)),
        }
        let pause = backoff.next_pause();
        if Instant::now() + pause > give_up {
            return false;
        }
        sleep(pause).await;
    }
}

/// Resolves when the owner wants the record gone or its thread stalls.
async fn interrupted(wanted: &watch::Receiver<Wanted>, stall: Option<&Stall>) -> Interrupt {
    tokio::select! {
        biased;
        () = wants_gone(wanted) => Interrupt::Gone,
        _ = stalled(stall) => Interrupt::Stall,
    }
}

// The receivers are cloned, because `Machine::wanted` remembers which change was last published.

/// Resolves when the owner wants the record gone.
async fn wants_gone(wanted: &watch::Receiver<Wanted>) {
    let _ = wanted.clone().wait_for(|w| w.gone).await; // the sender lives in `Machine::shared`
}

/// Resolves when something else is wanted than was last published.
async fn changed(wanted: &watch::Receiver<Wanted>) {
    let _ = wanted.clone().changed().await;
}

async fn ticking(stall: Option<&Stall>) {
    if let Some(stall) = stall {
        stall.is_over().await;
    }
}

/// How a log line calls an instance.
struct Name<'a>(&'a ServiceInstance);

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.0.name, self.0.id)
    }
}

/// Where callers reach it.
struct Where<'a>(&'a ServiceInstance);

impl std::fmt::Display for Where<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.endpoints.is_empty() {
            return f.write_str("no endpoint");
        }
        f.write_str(&self.0.endpoints.join(", "))
    }
}
