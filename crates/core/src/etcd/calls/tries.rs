//! How a call is tried: how often, for how long, and what its tries have come to.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::ErrorKind;
use crate::etcd::error::{Cause, Fault};
use crate::heard::{Heard, while_heard};

/// How a call is tried.
#[derive(Debug, Clone, Copy)]
pub(in crate::etcd) struct Tries {
    /// When it must have ended; `None` leaves it to the pings of the connection.
    pub(in crate::etcd) deadline: Option<Instant>,
    /// The most that one try may take while another may follow and no answer is coming; `None` leaves it to the deadline.
    pub(in crate::etcd) most: Option<Duration>,
    /// Whether doing it twice is the same as doing it once. What is not repeatable is tried again only when it surely
    /// was not applied, and has the whole time for each try.
    pub(in crate::etcd) repeatable: bool,
    /// One try, on this host of the options, and no other.
    pub(in crate::etcd) only: Option<usize>,
}

impl Tries {
    /// As often as it takes, on all members, until `deadline`: for what does the same twice as once.
    pub(in crate::etcd) fn until(deadline: Instant) -> Self {
        Self {
            deadline: Some(deadline),
            most: None,
            repeatable: true,
            only: None,
        }
    }
}

/// How long one try may take.
#[derive(Clone, Copy)]
pub(in crate::etcd) struct Time {
    /// When it is the turn of the next one, unless an answer is coming; `None` leaves it to the pings of the connection.
    pub(in crate::etcd) until: Option<Instant>,
    /// When the whole call is over.
    pub(in crate::etcd) deadline: Option<Instant>,
    /// When a connection that is not open yet is no longer waited for.
    pub(in crate::etcd) patience: Option<Instant>,
}

impl Time {
    /// All that is left, for one that no other follows.
    pub(in crate::etcd) fn of_the_last(deadline: Option<Instant>) -> Self {
        Self {
            until: deadline,
            deadline,
            patience: None,
        }
    }

    /// Awaits `work`. `None` when its time is over: that of the call, or when nothing of an answer has come for as long as
    /// the try had at first.
    pub(in crate::etcd) async fn give<F: Future>(self, work: Pin<&mut F>, heard: &Heard) -> Option<F::Output> {
        match self.until {
            None => Some(work.await),
            Some(until) => while_heard(work, heard, until, self.deadline).await,
        }
    }
}

/// What the tries of a call so far have come to.
#[derive(Default)]
pub(in crate::etcd) struct Tried {
    each: Vec<(String, String)>,
    clearest: Option<Fault>,
}

impl Tried {
    pub(in crate::etcd) fn add(&mut self, url: &str, fault: Fault) {
        self.each.push((url.to_owned(), fault.error.message().to_owned()));
        // Of two failures the one that says more: a member's words before a silence.
        if fault.error.kind() != ErrorKind::Timeout || !self.somebody_spoke() {
            self.clearest = Some(fault);
        }
    }

    /// Whether a try ended with more than silence.
    pub(in crate::etcd) fn somebody_spoke(&self) -> bool {
        let clearest = self.clearest.as_ref();
        clearest.is_some_and(|fault| fault.error.kind() != ErrorKind::Timeout)
    }

    /// A failure that ends the call, with those before it.
    pub(in crate::etcd) fn told_with(self, mut fault: Fault) -> Fault {
        fault.tried = self.each;
        fault
    }

    /// Nobody could be reached.
    pub(in crate::etcd) fn all(mut self) -> Fault {
        let fault = self.clearest.take();
        let fault =
            fault.unwrap_or_else(|| Fault::new(Cause::NotSent, ErrorKind::Internal, "no etcd member was asked"));
        self.told_with(fault)
    }
}
