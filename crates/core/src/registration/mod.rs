//! Keeps one instance registered: one state machine for all backends.
//!
//! [`phase`] says where it may stand, and [`machine`] does what follows from it.
//!
//! What is wanted (the instance, what holds it out of traffic, and whether it should be there at all) is level-triggered: callers set it, the machine
//! works until the registry shows it. That is what makes `update()` during an outage, `deregister()` in the middle of a
//! repair, and an attempt whose answer is lost plain cases rather than special ones.

mod machine;
mod out;
mod phase;
mod standing;
mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::machine::Machine;
pub use self::out::{OutFor, OutReason};
use self::phase::Phase;
use self::standing::Standing;
pub use self::state::{Event, OnEvent, State};
use self::state::{Progress, RegistrationInner, Wanted};
use crate::advertise;
use crate::backend::{Backend, Presence};
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::instance::{Endpoints, Metadata, ServiceInstance};
use crate::log::Log;
use crate::metrics::Meter;
use crate::stall::Stall;
use crate::status::Reach;

/// What to change by [`Registration::update`]. Fields that are `None` stay as they are; the others are replaced whole.
#[derive(Debug, Clone, Default)]
pub struct Patch {
    /// The new version.
    pub version: Option<Box<str>>,
    /// The new metadata, whole.
    pub metadata: Option<Metadata>,
    /// The new endpoints, whole.
    pub endpoints: Option<Endpoints>,
}

/// A handle on one registration. Dropping it changes nothing: the registration lives until `deregister()`, a newer
/// owner, or the close of its client.
#[derive(Clone)]
pub struct Registration {
    inner: Arc<RegistrationInner>,
}

/// What the machine needs from its client.
pub(crate) struct Setup {
    pub presence: Box<dyn Presence>,
    /// Asked what it can hold.
    pub backend: Arc<dyn Backend>,
    pub instance: ServiceInstance,
    /// What stands in the place of a wildcard host.
    pub advertise_host: Option<String>,
    /// Cancelled when the client's time to remove things is over: then the machine ends, and nobody waits any more.
    pub over: CancellationToken,
    /// Where the machine runs, so that the client can wait for its end.
    pub tasks: TaskTracker,
    /// The silence of the owner's thread, and how much of it is a stall.
    pub stall: Option<Stall>,
    /// One attempt.
    pub timeout: Duration,
    pub publications: Arc<Semaphore>,
    pub withdrawals: Arc<Semaphore>,
    pub on_event: OnEvent,
    pub log: Log,
    pub meter: Arc<Meter>,
    pub reach: Arc<Reach>,
}

impl Registration {
    /// Starts the machine; returns at once. Must be called inside the runtime.
    pub(crate) fn start(setup: Setup) -> Self {
        let (wanted, wanted_rx) = watch::channel(Wanted {
            instance: Arc::new(setup.instance),
            generation: 1,
            gone: false,
            out: OutFor::NONE,
            taken_back: OutFor::NONE,
        });
        let (progress, _) = watch::channel(Progress {
            state: State::Registering,
            out: OutFor::NONE,
            is_removed: false,
            published: 0,
            failure: None,
        });
        let inner = Arc::new(RegistrationInner {
            wanted,
            progress,
            backend: setup.backend,
            advertise_host: setup.advertise_host,
            over: setup.over,
            attempts: AtomicU32::new(0),
        });
        let machine = Machine {
            presence: setup.presence,
            wanted: wanted_rx,
            standing: Standing {
                phase: Phase::NEW,
                inner: inner.clone(),
                on_event: setup.on_event,
                log: setup.log,
                is_alive: Some(setup.meter.registered.hold()),
                is_out: None,
                meter: setup.meter,
            },
            reach: setup.reach,
            stall: setup.stall,
            timeout: setup.timeout,
            publications: setup.publications,
            withdrawals: setup.withdrawals,
            attempt: None,
            tried: 0,
            called_back: None,
            backoff: Backoff::new(),
        };
        let over = inner.over.clone();
        setup.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = over.cancelled() => {}
                () = machine.run() => {}
            }
        });
        Self { inner }
    }

    /// The instance as it is wanted now.
    pub fn instance(&self) -> Arc<ServiceInstance> {
        self.inner.wanted.borrow().instance.clone()
    }

    /// Where the registration stands.
    pub fn state(&self) -> State {
        self.inner.progress.borrow().state
    }

    /// What holds it out of traffic: the owner's reasons from the moment they are given to the moment they are taken back,
    /// and the stall guard's. Empty: it stands in the registry, or is being put there, or has ended.
    pub fn out_for(&self) -> OutFor {
        let own = self.inner.wanted.borrow().out;
        let progress = self.inner.progress.borrow();
        if progress.state.is_final() {
            return OutFor::NONE;
        }
        if progress.out.has(OutReason::Stalled) {
            own.with(OutReason::Stalled)
        } else {
            own
        }
    }

    /// How often it was tried up to now to publish it and to remove it, whoever asked for that.
    pub fn attempts(&self) -> u32 {
        self.inner.attempts.load(Ordering::Relaxed)
    }

    /// Waits until the first publication is visible.
    ///
    /// Fails with the registry's refusal at once, with what hindered it when `limit` has run out. After a failure the
    /// registration is given up: what may have been written is taken back, in the background if need be.
    pub(crate) async fn visible(&self, limit: Duration) -> Result<()> {
        let result = self.reached(1, limit).await;
        if result.is_err() {
            self.begin_deregister();
        }
        result
    }

    /// Replaces the fields given and waits until the registry shows it; while the owner holds it out of traffic it is kept
    /// for the return, and that is all there is to wait for.
    ///
    /// Fails with `InvalidArgument` before anything is changed; with the registry's refusal, or when `limit` has run
    /// out, though the next repair or try still publishes what was asked for; with `Replaced` or `Closed` when the
    /// registration has ended.
    pub async fn update(&self, mut patch: Patch, limit: Duration) -> Result<()> {
        self.ended().map_or(Ok(()), Err)?;
        if let Some(endpoints) = &mut patch.endpoints {
            advertise::all_reachable(endpoints, self.inner.advertise_host.as_deref())?;
        }
        let mut changed = (*self.instance()).clone();
        patch.apply(&mut changed);
        changed.validate()?;
        self.inner.backend.check(&changed)?; // what can't be held would be tried for ever
        let mut generation = 0;
        self.inner.wanted.send_modify(|wanted| {
            // Applied to what is wanted now: two updates of different fields both count.
            patch.apply(Arc::make_mut(&mut wanted.instance));
            wanted.generation += 1;
            generation = wanted.generation;
        });
        self.reached(generation, limit).await
    }

    /// Takes the instance out of traffic for this reason, and waits until others do not see it. Reasons add up; giving one
    /// again only waits. The registration goes on: its id is not held meanwhile, and an owner who claims it and still has
    /// it at the return ends this registration as replaced.
    ///
    /// Fails with `Timeout` when that has not been achieved within `limit`: it is still wanted, and tried for as long as
    /// the registration lives, while the record is not renewed; with `Aborted` when the reason was taken back before; with
    /// `Replaced` or `Closed` when the registration has ended. Dropping the future changes nothing of what is wanted.
    pub async fn withdraw(&self, reason: OutReason, limit: Duration) -> Result<()> {
        self.begin_withdraw(reason)?;
        self.withdrawn(reason, limit).await
    }

    /// Takes a reason back, and waits until others see the instance again; while other reasons of the owner hold it out
    /// there is nothing to wait for. Repeating it before the instance is back only waits.
    ///
    /// Fails with `InvalidArgument` when the reason does not hold it out; with the registry's refusal at once, or with
    /// `Timeout` when `limit` has run out: it is tried on; with `Aborted` when the reason was given again before; with
    /// `Replaced` or `Closed` when the registration has ended.
    pub async fn restore(&self, reason: OutReason, limit: Duration) -> Result<()> {
        self.begin_restore(reason)?;
        self.restored(reason, limit).await
    }

    /// The end with notice: out of traffic as by `withdraw`, for `OutReason::Draining`, then `wait`, then `deregister`.
    /// While it waits the registration lives; whoever deregisters it meanwhile cuts the wait short.
    ///
    /// Fails as `deregister` does, and without the wait: in every case the registration ends and does not come back.
    pub async fn drain(&self, wait: Duration, limit: Duration) -> Result<()> {
        self.begin_withdraw(OutReason::Draining)?;
        self.drained(wait, limit).await
    }

    /// The half of `withdraw` that does not wait: gives one more reason to have it out of traffic.
    pub fn begin_withdraw(&self, reason: OutReason) -> Result<()> {
        self.ended().map_or(Ok(()), Err)?;
        self.inner.wanted.send_if_modified(|wanted| {
            let before = wanted.out;
            wanted.out = before.with(reason);
            wanted.taken_back = wanted.taken_back.without(reason);
            wanted.out != before
        });
        Ok(())
    }

    /// The half of `restore` that does not wait: takes a reason back.
    pub fn begin_restore(&self, reason: OutReason) -> Result<()> {
        self.ended().map_or(Ok(()), Err)?;
        let mut refused = None;
        self.inner.wanted.send_if_modified(|wanted| {
            if wanted.out.has(reason) {
                wanted.out = wanted.out.without(reason);
                wanted.taken_back = wanted.taken_back.with(reason);
                return true;
            }
            if !wanted.taken_back.has(reason) {
                refused = Some(does_not_hold(reason, wanted.out));
            }
            false
        });
        refused.map_or(Ok(()), Err)
    }

    /// The half of `withdraw` that waits.
    pub async fn withdrawn(&self, reason: OutReason, limit: Duration) -> Result<()> {
        let is_out = |wanted: &Wanted, progress: &Progress| {
            if !wanted.out.has(reason) {
                return Some(Err(Error::new(
                    ErrorKind::Aborted,
                    format!(
                        "it was taken back (\"{}\") before the instance was out of traffic",
                        reason.as_str()
                    ),
                )));
            }
            (progress.out.has(reason) && progress.is_removed).then_some(Ok(()))
        };
        self.wait(limit, is_out).await.unwrap_or_else(|| {
            Err(self.late(
                "the instance is not out of traffic",
                limit,
                "it is not renewed any more, and its removal is tried for as long as the registration lives",
            ))
        })
    }

    /// The half of `restore` that waits.
    pub async fn restored(&self, reason: OutReason, limit: Duration) -> Result<()> {
        let is_back = |wanted: &Wanted, progress: &Progress| {
            if wanted.out.has(reason) {
                return Some(Err(Error::new(
                    ErrorKind::Aborted,
                    format!(
                        "it was taken out of traffic again (\"{}\") before it was back",
                        reason.as_str()
                    ),
                )));
            }
            if !wanted.out.is_empty() || progress.state == State::Registered {
                return Some(Ok(()));
            }
            // Once the machine has heard of it: before, a failure is one of going out.
            let refusal = progress.refusal(wanted.generation);
            refusal.filter(|_| progress.out.is_empty()).map(Err)
        };
        self.wait(limit, is_back)
            .await
            .unwrap_or_else(|| Err(self.late("the instance is not back in traffic", limit, "it is tried on")))
    }

    /// What is left of `drain` after `begin_withdraw`.
    pub async fn drained(&self, wait: Duration, limit: Duration) -> Result<()> {
        match self.withdrawn(OutReason::Draining, limit).await {
            Err(error) if error.kind() == ErrorKind::Timeout => {
                self.begin_deregister();
                return Err(error);
            }
            // It has ended: how, `deregister` tells.
            Err(_) => {}
            Ok(()) => {
                self.wait(wait, |_, _| None::<Result<()>>).await; // ends early only with the registration
            }
        }
        self.deregister(limit).await
    }

    /// Removes the record and waits until it is gone. May be repeated.
    ///
    /// Fails with `Timeout` when that has not been achieved within `limit`; then it is tried on in the background, the
    /// record is not renewed any more, and it expires; after ten minutes of trying it is left to that, and later calls
    /// resolve. In no case does the instance come back.
    pub async fn deregister(&self, limit: Duration) -> Result<()> {
        self.begin_deregister();
        let mut progress = self.inner.progress.subscribe();
        tokio::select! {
            biased;
            _ = progress.wait_for(|p| p.state.is_final()) => Ok(()),
            () = self.inner.over.cancelled() => Err(Error::new(
                ErrorKind::Closed,
                "the client was closed before the record could be removed; it is not renewed any more and expires",
            )
            .about(&self.inner.key())),
            () = sleep(limit) => Err(self.late(
                "the record could not be removed",
                limit,
                "it is not renewed any more, removal is tried on in the background, and it expires",
            )),
        }
    }

    /// Wants the record gone, without waiting.
    pub(crate) fn begin_deregister(&self) {
        self.inner
            .wanted
            .send_if_modified(|wanted| !std::mem::replace(&mut wanted.gone, true));
    }

    /// Resolves when nothing will happen any more.
    pub(crate) async fn finished(&self) {
        let mut progress = self.inner.progress.subscribe();
        let _ = progress.wait_for(|p| p.state.is_final()).await; // never an error: this handle holds the sender
    }

    /// The error of a registration that has ended.
    fn ended(&self) -> Option<Error> {
        if self.inner.wanted.borrow().gone {
            return Some(Error::new(
                ErrorKind::Closed,
                "the registration was deregistered; register the instance anew",
            ));
        }
        (self.state() == State::Replaced).then(|| replaced().about(&self.inner.key()))
    }

    /// Waits until a generation has been published, or kept for the return.
    async fn reached(&self, generation: u64, limit: Duration) -> Result<()> {
        let reached = |wanted: &Wanted, progress: &Progress| {
            let is_kept = !wanted.out.is_empty();
            if progress.published >= generation || is_kept {
                return Some(Ok(()));
            }
            progress.refusal(generation).map(Err)
        };
        self.wait(limit, reached).await.unwrap_or_else(|| {
            let failure = self.inner.progress.borrow().failure.clone();
            Err(match failure.filter(|(of, _)| *of >= generation) {
                Some((_, error)) => {
                    let message = format!("not visible within {} ms: {error}", limit.as_millis());
                    self.inner.late(message, Some(error))
                }
                None => self.inner.no_answer(limit),
            })
        })
    }

    /// The error of what was not achieved in time, with what hindered it, and what becomes of it.
    fn late(&self, what: &str, limit: Duration, then: &str) -> Error {
        let hindrance = self.inner.progress.borrow().failure.clone().map(|(_, error)| error);
        let why = hindrance
            .as_ref()
            .map(|error| format!(" ({error})"))
            .unwrap_or_default();
        let message = format!("{what} within {} ms{why}; {then}", limit.as_millis());
        self.inner.late(message, hindrance)
    }

    /// Waits until `look` has an answer, looking after every change; the error of a registration that ends meanwhile.
    /// `None`: `limit` has run out.
    async fn wait<T>(
        &self,
        limit: Duration,
        look: impl Fn(&Wanted, &Progress) -> Option<Result<T>>,
    ) -> Option<Result<T>> {
        let (mut wanted, mut progress) = (self.inner.wanted.subscribe(), self.inner.progress.subscribe());
        let answer = async {
            loop {
                let now = progress.borrow_and_update().clone();
                if let Some(answer) = look(&wanted.borrow_and_update(), &now) {
                    return answer;
                }
                if let Some(error) = self.ended() {
                    return Err(error);
                }
                // Never errors: this handle holds the senders.
                tokio::select! {
                    _ = wanted.changed() => {}
                    _ = progress.changed() => {}
                }
            }
        };
        timeout(limit, answer).await.ok()
    }
}

impl Patch {
    fn apply(&self, instance: &mut ServiceInstance) {
        if let Some(version) = &self.version {
            instance.version.clone_from(version);
        }
        if let Some(metadata) = &self.metadata {
            instance.metadata = metadata.clone();
        }
        if let Some(endpoints) = &self.endpoints {
            instance.endpoints.clone_from(endpoints);
        }
    }
}

/// The error of a `restore` that has nothing to take back.
fn does_not_hold(reason: OutReason, own: OutFor) -> Error {
    let what_does = if own.is_empty() {
        "nothing does".to_owned()
    } else {
        format!("that is {own}")
    };
    Error::invalid(format!(
        "reason: \"{}\" does not hold the instance out of traffic, {what_does}; restore() takes back what withdraw() gave",
        reason.as_str()
    ))
}

fn replaced() -> Error {
    Error::new(
        ErrorKind::Replaced,
        "another process registered the same id later and holds it now; give each instance an id of its own",
    )
}

#[cfg(test)]
mod tests;
