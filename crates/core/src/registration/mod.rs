//! Keeps one instance registered: one state machine for all backends.
//!
//! [`phase`] says where it may stand, and [`machine`] does what follows from it.
//!
//! What is wanted (the instance, and whether it should be there at all) is level-triggered: callers set it, the machine
//! works until the registry shows it. That is what makes `update()` during an outage, `deregister()` in the middle of a
//! repair, and an attempt whose answer is lost plain cases rather than special ones.

mod machine;
mod phase;
mod state;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::machine::Machine;
use self::phase::Phase;
pub use self::state::{Event, OnEvent, State};
use self::state::{Progress, Shared, Wanted};
use crate::advertise;
use crate::backend::{Backend, Presence};
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::instance::{Endpoints, Metadata, ServiceInstance};
use crate::log::Log;
use crate::stall::Stall;

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
    shared: Arc<Shared>,
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
}

impl Registration {
    /// Starts the machine; returns at once. Must be called inside the runtime.
    pub(crate) fn start(setup: Setup) -> Self {
        let (wanted, wanted_rx) = watch::channel(Wanted {
            instance: Arc::new(setup.instance),
            generation: 1,
            gone: false,
        });
        let (progress, _) = watch::channel(Progress {
            state: State::Registering,
            published: 0,
            failure: None,
        });
        let shared = Arc::new(Shared {
            wanted,
            progress,
            backend: setup.backend,
            advertise_host: setup.advertise_host,
            over: setup.over,
        });
        let machine = Machine {
            presence: setup.presence,
            wanted: wanted_rx,
            shared: shared.clone(),
            stall: setup.stall,
            timeout: setup.timeout,
            publications: setup.publications,
            withdrawals: setup.withdrawals,
            on_event: setup.on_event,
            log: setup.log,
            phase: Phase::NEW,
            attempt: None,
            backoff: Backoff::new(),
        };
        let over = shared.over.clone();
        setup.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = over.cancelled() => {}
                () = machine.run() => {}
            }
        });
        Self { shared }
    }

    /// The instance as it is wanted now.
    pub fn instance(&self) -> Arc<ServiceInstance> {
        self.shared.wanted.borrow().instance.clone()
    }

    /// Where the registration stands.
    pub fn state(&self) -> State {
        self.shared.progress.borrow().state
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

    /// Replaces the fields given and waits until the registry shows it.
    ///
    /// Fails with `InvalidArgument` before anything is changed; with the registry's refusal, or when `limit` has run
    /// out, though the next repair or try still publishes what was asked for; with `Replaced` or `Closed` when the
    /// registration has ended.
    pub async fn update(&self, mut patch: Patch, limit: Duration) -> Result<()> {
        self.ended().map_or(Ok(()), Err)?;
        if let Some(endpoints) = &mut patch.endpoints {
            advertise::all_reachable(endpoints, self.shared.advertise_host.as_deref())?;
        }
        let mut changed = (*self.instance()).clone();
        patch.apply(&mut changed);
        changed.validate()?;
        self.shared.backend.check(&changed)?; // what can't be held would be tried for ever
        let mut generation = 0;
        self.shared.wanted.send_modify(|wanted| {
            // Applied to what is wanted now: two updates of different fields both count.
            patch.apply(Arc::make_mut(&mut wanted.instance));
            wanted.generation += 1;
            generation = wanted.generation;
        });
        self.reached(generation, limit).await
    }

    /// Removes the record and waits until it is gone. May be repeated.
    ///
    /// Fails with `Timeout` when that has not been achieved within `limit`; then it is tried on in the background, the
    /// record is not renewed any more, and it expires; after ten minutes of trying it is left to that, and later calls
    /// resolve. In no case does the instance come back.
    pub async fn deregister(&self, limit: Duration) -> Result<()> {
        self.begin_deregister();
        let mut progress = self.shared.progress.subscribe();
        let outcome = tokio::select! {
            biased;
            _ = progress.wait_for(|p| p.state.is_final()) => return Ok(()),
            () = self.shared.over.cancelled() => {
                return Err(Error::new(
                    ErrorKind::Closed,
                    "the client was closed before the record could be removed; it is not renewed any more and expires",
                ));
            }
            () = sleep(limit) => self.shared.progress.borrow().failure.clone(),
        };
        let why = outcome.map(|(_, e)| format!(" ({e})")).unwrap_or_default();
        Err(Error::new(
            ErrorKind::Timeout,
            format!(
                "the record could not be removed within {} ms{why}; it is not renewed any more, removal is tried on in the background, and it expires",
                limit.as_millis()
            ),
        ))
    }

    /// Wants the record gone, without waiting.
    pub(crate) fn begin_deregister(&self) {
        self.shared
            .wanted
            .send_if_modified(|wanted| !std::mem::replace(&mut wanted.gone, true));
    }

    /// Resolves when nothing will happen any more.
    pub(crate) async fn finished(&self) {
        let mut progress = self.shared.progress.subscribe();
        let _ = progress.wait_for(|p| p.state.is_final()).await; // never an error: this handle holds the sender
    }

    /// The error of a registration that has ended.
    fn ended(&self) -> Option<Error> {
        if self.shared.wanted.borrow().gone {
            return Some(Error::new(ErrorKind::Closed, "the registration was deregistered"));
        }
        (self.state() == State::Replaced).then(replaced)
    }

    /// Waits until a generation has been published.
    async fn reached(&self, generation: u64, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut progress = self.shared.progress.subscribe();
        loop {
            {
                let now = progress.borrow_and_update();
                if now.published >= generation {
                    return Ok(());
                }
                if let Some(error) = self.ended() {
                    return Err(error);
                }
                if let Some((of, error)) = &now.failure
                    && *of >= generation
                    && !error.is_retryable()
                {
                    return Err(error.clone());
                }
            }
            match timeout_at(deadline, progress.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Error::new(ErrorKind::Internal, "the registration's task ended")),
                Err(_) => {
                    let hindrance = progress.borrow().failure.clone().filter(|(of, _)| *of >= generation);
                    let ms = limit.as_millis();
                    return Err(match hindrance {
                        Some((_, error)) => {
                            Error::new(ErrorKind::Timeout, format!("not visible within {ms} ms: {error}"))
                                .caused_by(error)
                        }
                        None => Error::no_answer(limit),
                    });
                }
            }
        }
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

fn replaced() -> Error {
    Error::new(
        ErrorKind::Replaced,
        "another process registered the same id later and holds it now; give each instance an id of its own",
    )
}

#[cfg(test)]
mod tests;
