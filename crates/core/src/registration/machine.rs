//! The machine behind a registration: publish, hold, repair, stay out of traffic, withdraw.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::out::OutReason;
use super::phase::{Input, Phase};
use super::standing::{Name, Standing};
use super::state::{RegistrationInner, State, Wanted};
use crate::backend::{Loss, Presence};
use crate::backoff::{Backoff, FIRST};
use crate::error::{Error, ErrorKind, Result};
use crate::stall::{Stall, stalled};
use crate::status::Reach;

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
    /// The owner wants it out of traffic.
    Out,
    /// The owner's thread does not tick.
    Stall,
}

pub(super) struct Machine {
    pub presence: Box<dyn Presence>,
    pub wanted: watch::Receiver<Wanted>,
    pub standing: Standing,
    pub stall: Option<Stall>,
    pub timeout: Duration,
    pub publications: Arc<Semaphore>,
    pub withdrawals: Arc<Semaphore>,
    /// When the last attempt began; without one nothing can have been written.
    pub attempt: Option<Instant>,
    /// The generation that was last tried.
    pub tried: u64,
    /// When it was last taken out, if it was called back before nothing of it stood.
    pub called_back: Option<Instant>,
    pub backoff: Backoff,
    pub reach: Arc<Reach>,
}

impl Machine {
    /// Runs to the end of the registration.
    pub async fn run(mut self) {
        loop {
            let mut interrupt = match self.publish().await {
                Err(interrupt) => Some(interrupt),
                Ok(Err(error)) if error.kind() == ErrorKind::Replaced => return self.end_replaced().await,
                Ok(Err(_)) => self.pause().await,
                Ok(Ok(())) => self.hold().await,
            };
            while let Some(why @ (Interrupt::Out | Interrupt::Stall)) = interrupt {
                interrupt = self.sit_out(why == Interrupt::Stall).await;
                if interrupt.is_none() && self.standing.phase.is_failing() {
                    interrupt = self.pause().await; // going out and in is no way around the back-off
                }
            }
            if interrupt == Some(Interrupt::Gone) {
                return self.withdraw_for_good().await;
            }
            if self.standing.phase.state() == State::Replaced {
                return self.end_replaced().await;
            }
        }
    }

    /// One attempt to publish what is wanted now. `Err` when it was interrupted.
    async fn publish(&mut self) -> Result<Result<()>, Interrupt> {
        let (instance, generation) = {
            let wanted = self.wanted.borrow();
            (wanted.instance.clone(), wanted.generation)
        };
        self.tried = generation;
        let (permits, intent) = (self.publications.clone(), self.standing.phase.intent());
        let attempt = async {
            // Never closed; if it were, an attempt too many would be the lesser evil.
            let _permit = permits.acquire().await;
            self.attempt = Some(Instant::now());
            self.standing.meter.attempts.add();
            self.standing.inner.count();
            match timeout(self.timeout, self.presence.publish(&instance, intent)).await {
                Ok(result) => result,
                Err(_) => Err(self.standing.inner.no_answer(self.timeout)),
            }
        };
        let result = tokio::select! {
            biased;
            interrupt = interrupted(&self.wanted, self.stall.as_ref()) => return Err(interrupt),
            result = attempt => result,
        };
        self.reach.note(&result);
        if result.is_err() {
            self.standing.meter.failed_attempts.add();
        }
        match &result {
            Ok(()) => {
                self.standing
                    .step(Input::Published(Instant::now()), Some((generation, None)));
                self.standing.inner.is_back();
            }
            Err(error) => self
                .standing
                .step(Input::Failed(error.clone()), Some((generation, Some(error.clone())))),
        }
        Ok(result)
    }

    /// While the record stands: until it is lost, something else is wanted, or an interrupt.
    async fn hold(&mut self) -> Option<Interrupt> {
        // Counted over updates: one more often than every TTL must not keep the back-off where it is.
        let since = self.standing.phase.stands_since().unwrap_or_else(Instant::now);
        let settled = since + self.presence.ttl().min(LONGEST_TTL);
        let mut reset = false;
        loop {
            tokio::select! {
                biased;
                interrupt = interrupted(&self.wanted, self.stall.as_ref()) => return Some(interrupt),
                loss = self.presence.lost() => return self.note_loss(loss).await,
                () = changed(&self.wanted, self.tried) => return None,
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
            loss = self.presence.lost(), if self.standing.phase.stands_since().is_some() => self.note_loss(loss).await,
            // Who wants something else now need not wait for the next try of what failed; but one update after the other
            // is no way around the back-off.
            () = async { changed(&self.wanted, self.tried).await; sleep_until(last + FIRST).await } => None,
            () = sleep_until(next) => None,
        }
    }

    /// Tells of a loss once, and waits the first pause before the repair.
    async fn note_loss(&mut self, loss: Loss) -> Option<Interrupt> {
        self.standing.step(Input::Lost(loss), None);
        if self.standing.phase == Phase::Replaced {
            return None;
        }
        let pause = self.backoff.next_pause();
        tokio::select! {
            biased;
            interrupt = interrupted(&self.wanted, self.stall.as_ref()) => Some(interrupt),
            () = sleep(pause) => None,
        }
    }

    /// Out of traffic: removes what stands, as often as that takes, and waits until no reason holds it out any more.
    async fn sit_out(&mut self, mut is_stalled: bool) -> Option<Interrupt> {
        let since = Instant::now();
        let never_tried = self.attempt.is_none();
        let called_back = self.called_back.take();
        let Self {
            presence,
            wanted,
            standing,
            stall,
            timeout,
            withdrawals,
            reach,
            ..
        } = self;
        let limit = stall.as_ref().map_or(Duration::ZERO, Stall::limit);
        let (shared, failed) = (standing.inner.clone(), note_failure(standing, "taken out of traffic"));
        // Tells by turns that it is removed, and that something of it stands again.
        let (withdrawals, reach, timeout) = (&**withdrawals, &**reach, *timeout);
        let (shared, failed) = (&*shared, &failed);
        let removals = stream::unfold((presence, false), move |(presence, is_removed)| async move {
            if is_removed {
                presence.reappeared().await;
                return Some((false, (presence, false)));
            }
            if never_tried {
                return Some((true, (presence, true)));
            }
            presence.stop(); // at once, not when its turn comes
            if let Some(last) = called_back {
                sleep_until(last + FIRST).await; // an attempt that was called back may have been in vain
            }
            while !withdraw(presence, shared, withdrawals, reach, timeout, WITHDRAW_FOR, failed).await {}
            Some((true, (presence, true)))
        });
        let mut removals = pin!(removals);
        let mut is_removed = false;
        loop {
            let own = wanted.borrow().out;
            let reasons = if is_stalled { own.with(OutReason::Stalled) } else { own };
            standing.step(Input::Out { reasons, stall: limit }, None);
            if reasons.is_empty() {
                self.called_back = (!is_removed).then_some(since);
                return None;
            }
            tokio::select! {
                biased;
                () = wants_gone(wanted) => return Some(Interrupt::Gone),
                () = wants(wanted, |wanted| wanted.out != own) => {}
                () = ticking(stall.as_ref()), if is_stalled => is_stalled = false,
                _ = stalled(stall.as_ref()), if !is_stalled => is_stalled = true,
                Some(removed) = removals.next() => {
                    is_removed = removed;
                    standing.step(if removed { Input::Withdrawn } else { Input::Reappeared }, None);
                }
            }
        }
    }

    /// The end by the owner's wish: removes the record, however long it takes within reason.
    async fn withdraw_for_good(mut self) {
        self.standing.step(Input::Gone, None);
        let failed = note_failure(&self.standing, "removed");
        let done = self.attempt.is_none()
            || withdraw(
                &mut self.presence,
                &self.standing.inner,
                &self.withdrawals,
                &self.reach,
                self.timeout,
                WITHDRAW_FOR,
                failed,
            )
            .await;
        self.standing.step(Input::Removed(done), None);
    }

    /// The end by a newer owner: what we wrote under is cleaned up, the newer record is not touched.
    async fn end_replaced(mut self) {
        // Best effort: what cannot be cleaned up expires.
        withdraw(
            &mut self.presence,
            &self.standing.inner,
            &self.withdrawals,
            &self.reach,
            self.timeout,
            self.timeout,
            |_| (),
        )
        .await;
    }
}

/// Logs why a record could not be removed yet, and keeps it for who waits for that.
fn note_failure(standing: &Standing, what: &'static str) -> impl Fn(Error) + use<> {
    let name = Name(&standing.instance()).to_string();
    let (log, inner) = (standing.log.clone(), standing.inner.clone());
    move |error| {
        log.warn(format_args!("{name} could not be {what} yet: {error}"));
        inner.progress.send_modify(|p| p.failure = Some((p.published, error)));
    }
}

/// Tries to withdraw until it is done or `within` has passed; says whether it is done.
async fn withdraw(
    presence: &mut Box<dyn Presence>,
    shared: &RegistrationInner,
    withdrawals: &Semaphore,
    reach: &Reach,
    attempt: Duration,
    within: Duration,
    failed: impl Fn(Error),
) -> bool {
    let give_up = Instant::now() + within;
    let mut backoff = Backoff::new();
    presence.stop(); // at once, not when its turn comes
    loop {
        let result = {
            // A thousand removals at once are paced like publications. Never closed.
            let _permit = withdrawals.acquire().await;
            shared.count();
            let answer = timeout(attempt, presence.withdraw()).await;
            answer.unwrap_or_else(|_| Err(shared.no_answer(attempt)))
        };
        reach.note(&result);
        match result {
            Ok(()) => return true,
            Err(error) => failed(error),
        }
        let pause = backoff.next_pause();
        if Instant::now() + pause > give_up {
            return false;
        }
        sleep(pause).await;
    }
}

/// Resolves when the owner wants the record gone or out of traffic, or its thread stalls.
async fn interrupted(wanted: &watch::Receiver<Wanted>, stall: Option<&Stall>) -> Interrupt {
    tokio::select! {
        biased;
        () = wants_gone(wanted) => Interrupt::Gone,
        () = wants(wanted, |wanted| !wanted.out.is_empty()) => Interrupt::Out,
        _ = stalled(stall) => Interrupt::Stall,
    }
}

/// Resolves when the owner wants the record gone.
async fn wants_gone(wanted: &watch::Receiver<Wanted>) {
    wants(wanted, |wanted| wanted.gone).await;
}

/// Resolves when something else is wanted than was last tried.
async fn changed(wanted: &watch::Receiver<Wanted>, tried: u64) {
    wants(wanted, |wanted| wanted.generation != tried).await;
}

/// Resolves when that is wanted.
async fn wants(wanted: &watch::Receiver<Wanted>, that: impl FnMut(&Wanted) -> bool) {
    let _ = wanted.clone().wait_for(that).await; // the sender lives in `Standing::inner`
}

async fn ticking(stall: Option<&Stall>) {
    if let Some(stall) = stall {
        stall.is_over().await;
    }
}
