//! Where a registration stands, what it tells, and what is wanted of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::out::{OutFor, OutReason};
use crate::backend::{Backend, no_answer};
use crate::error::{Error, ErrorKind};
use crate::instance::ServiceInstance;

/// Where a registration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not visible yet: the first publication is under way or waiting for its next try.
    Registering,
    /// Visible to others, as far as the registry has told.
    Registered,
    /// It was visible and is not any more; it is being put back.
    Lost,
    /// The stall guard holds it out of traffic, alone or beside other reasons; it ends when the thread ticks again.
    Stalled,
    /// The program holds it out of traffic, or nothing does any more and it is not back yet.
    Out,
    /// A newer owner holds the id. The end.
    Replaced,
    /// Being removed.
    Deregistering,
    /// Removed. The end.
    Deregistered,
}

impl State {
    /// The word of the public API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registering => "registering",
            Self::Registered => "registered",
            Self::Lost => "lost",
            Self::Stalled => "stalled",
            Self::Out => "out",
            Self::Replaced => "replaced",
            Self::Deregistering => "deregistering",
            Self::Deregistered => "deregistered",
        }
    }

    /// Whether nothing will happen any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Replaced | Self::Deregistered)
    }
}

/// What a registration tells its owner. Nothing of the owner's own doing (`withdraw()`, `deregister()`) is a loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The record is gone, for this reason. Once per loss.
    Lost(String),
    /// The record is back. Once per repair.
    Restored,
    /// A newer owner holds the id; the registration has ended.
    Replaced,
    /// This reason holds it out of traffic from now on, with all that do. Once for each reason.
    Out(OutReason, OutFor),
    /// Nothing holds it out any more, and it is visible again.
    In,
}

/// Receives the events of one registration, on the thread of the machine, while its state changes: it must not block, and
/// must not ask the registration anything.
pub type OnEvent = Box<dyn Fn(Event) + Send + Sync>;

/// What the owner wants.
pub(super) struct Wanted {
    pub(super) instance: Arc<ServiceInstance>,
    /// Counts the changes of `instance`, from 1.
    pub(super) generation: u64,
    pub(super) gone: bool,
    /// The owner's reasons to have it out of traffic; the stall guard's is none of them.
    pub(super) out: OutFor,
    /// Those that the owner has taken back since it stood last.
    pub(super) taken_back: OutFor,
}

/// What has been reached.
#[derive(Clone)]
pub(super) struct Progress {
    pub(super) state: State,
    /// All reasons that hold it out, as far as the machine has heard.
    pub(super) out: OutFor,
    /// It is out, and nothing of it stands in the registry.
    pub(super) is_removed: bool,
    /// The generation that the registry shows or has shown.
    pub(super) published: u64,
    /// The last failure, and for which generation.
    pub(super) failure: Option<(u64, Error)>,
}

impl Progress {
    /// Why publishing this generation, or a later one, can't succeed by trying again.
    pub(super) fn refusal(&self, generation: u64) -> Option<Error> {
        let (of, error) = self.failure.as_ref()?;
        (*of >= generation && !error.is_retryable()).then(|| error.clone())
    }
}

/// What the handles and the machine of a registration share.
pub(super) struct RegistrationInner {
    pub(super) wanted: watch::Sender<Wanted>,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) advertise_host: Option<String>,
    pub(super) over: CancellationToken,
    /// How often something was tried for it: to publish it and to remove it.
    pub(super) attempts: AtomicU32,
}

impl RegistrationInner {
    /// One more attempt begins.
    pub(super) fn count(&self) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
    }

    /// The registry did not answer a question about the instance in time.
    pub(super) fn no_answer(&self, within: Duration) -> Error {
        no_answer(&*self.backend, within, Some(&self.key()))
    }

    /// The error of what was not achieved in time, by what hindered it last.
    pub(super) fn late(&self, message: String, hindrance: Option<Error>) -> Error {
        let error = Error::new(ErrorKind::Timeout, message).about(&self.key());
        match hindrance {
            Some(cause) => error.caused_by(cause),
            None => error.at(&self.backend.endpoint().unwrap_or_default()),
        }
    }

    /// How errors call the instance.
    pub(super) fn key(&self) -> String {
        let instance = self.wanted.borrow().instance.clone();
        self.backend.key(&instance.name, Some(&instance.id))
    }

    /// It stands: what was taken back is done with. Nothing that anybody waits for.
    pub(super) fn is_back(&self) {
        self.wanted.send_if_modified(|wanted| {
            wanted.taken_back = OutFor::NONE;
            false
        });
    }
}
