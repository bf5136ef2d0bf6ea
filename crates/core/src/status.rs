//! Whether a client reaches its registry, as far as what it does anyway has shown. It causes no traffic of its own.
//!
//! ```text
//!               answered               no answer
//!  Connecting ───────────► Connected ─────────────► Disconnected
//!       │                      │ ▲     answered          │ │
//!       │                      │ └───────────────────────┘ │
//!       └──────────────────────┴──── close() ──────────────┴──► Closed
//! ```

use std::sync::{Arc, Mutex};

use crate::error::Result;
use crate::sync::lock;

/// Whether a client reaches its registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Status {
    /// Nothing has answered yet.
    #[default]
    Connecting,
    /// What was done last was answered.
    Connected,
    /// What was done last, or a watch, broke or got no answer.
    Disconnected,
    /// The client is closed.
    Closed,
}

impl Status {
    /// The word of the public API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Closed => "closed",
        }
    }

    /// After an answer, or after none.
    const fn after(self, answered: bool) -> Self {
        match (self, answered) {
            (Self::Closed, _) => Self::Closed,
            (_, true) => Self::Connected,
            (Self::Connecting, false) => Self::Connecting,
            (_, false) => Self::Disconnected,
        }
    }
}

/// Told of each change to `Connected` or `Disconnected`, in order, while the status changes: it must not block, and must
/// not ask for the status.
pub type OnStatus = Arc<dyn Fn(Status) + Send + Sync>;

/// The status of one client, moved on by all that ask the registry something.
#[derive(Default)]
pub(crate) struct Reach {
    status: Mutex<Status>,
    on_status: Option<OnStatus>,
}

impl Reach {
    pub(crate) fn new(on_status: Option<OnStatus>) -> Self {
        Self {
            status: Mutex::default(),
            on_status,
        }
    }

    pub(crate) fn status(&self) -> Status {
        *lock(&self.status)
    }

    /// What an attempt came to. A refusal says nothing: who refuses may stand in front of the registry.
    pub(crate) fn note<T>(&self, result: &Result<T>) {
        match result {
            Ok(_) => self.step(true),
            Err(error) if error.is_retryable() => self.step(false),
            Err(_) => {}
        }
    }

    /// The end.
    pub(crate) fn close(&self) {
        *lock(&self.status) = Status::Closed;
    }

    fn step(&self, answered: bool) {
        let mut status = lock(&self.status);
        let next = status.after(answered);
        if std::mem::replace(&mut *status, next) == next {
            return;
        }
        if let Some(on_status) = &self.on_status {
            on_status(next); // under the lock, so that nobody hears of two changes in the wrong order
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

    #[test]
    fn it_begins_with_an_answer_and_alternates() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = told.clone();
        let reach = Reach::new(Some(Arc::new(move |status: Status| lock(&sink).push(status.as_str()))));
        let fails = |kind| reach.note::<()>(&Err(Error::new(kind, "on purpose")));
        fails(ErrorKind::Unavailable);
        fails(ErrorKind::PermissionDenied);
        assert_eq!(reach.status(), Status::Connecting);
        reach.note(&Ok(()));
        reach.note(&Ok(()));
        fails(ErrorKind::PermissionDenied);
        assert_eq!(reach.status(), Status::Connected);
        fails(ErrorKind::Timeout);
        fails(ErrorKind::Unavailable);
        fails(ErrorKind::Unauthenticated);
        assert_eq!(reach.status(), Status::Disconnected);
        reach.note(&Ok(()));
        reach.close();
        fails(ErrorKind::Unavailable);
        reach.note(&Ok(()));
        assert_eq!(reach.status(), Status::Closed);
        assert_eq!(*lock(&told), ["connected", "disconnected", "connected"]);
    }
}
