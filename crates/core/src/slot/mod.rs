//! Worker ids: numbers of which each is one process's, so that ids made of such a number and the time are unique.
//!
//! Two keys stand for a slot. `ids/{n}` lies under a lease and says who lives, so that others choose another one; `until/{n}`
//! lies under none, and says up to which millisecond its holder may stamp. It is written **before** anything is stamped up to
//! it, and whoever takes the slot next stamps after it. So no two holders of a slot stamp the same millisecond, whatever became of the
//! lease, of the process or of its clock meanwhile: the idea is that of the timestamp oracles of Percolator and TiDB.
//!
//! ```text
//!            both keys written at once          the window extended, each third of it
//!   Asking ───────────────────────────► Held ─────────────────────────────────────────┐
//!     ▲ refused: full, not allowed        │ ▲                                         │
//!     │                                   │ └─────────────────────────────────────────┘
//!     └── lease lost, window another's ───┘   release(): until = what was stamped last, then the lease ends
//! ```

mod choice;
mod clock;
mod machine;
mod record;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use self::machine::{Machine, State};
use crate::error::{Error, Result};
use crate::store::{Store, problem_of_key};
use crate::watch::{Source, closed};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Whose slots: one part of a key.
    pub service: Arc<str>,
    /// How many there are: from 1 to this.
    pub slots: u32,
    /// For how long may be stamped ahead of an extension.
    pub window: Duration,
    /// The time to live of the lease; what the store grants counts.
    pub ttl: Duration,
    /// Who asks, for people.
    pub holder: Arc<str>,
}

/// Why there is none.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// All are held: by these.
    Full(Vec<String>),
    /// The clock is ahead, by so many milliseconds, of what can be believed.
    Clock(i64),
    /// It was given back.
    Over,
    /// The store refused, or could not be asked in time.
    Call(Error),
}

/// Which slot it is, and what may be stamped with it.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// Grows when the slot is another one, or was somebody else's meanwhile; 0: none was ever held.
    pub generation: u32,
    /// Its number.
    pub n: u32,
    /// What is stamped is after this millisecond.
    pub since: i64,
    /// And not after this one. It holds whatever else is said here.
    pub until: i64,
    /// The clock is not believed, and the window not extended.
    pub is_clock_off: bool,
    /// How often the clock was seen to have been set, and by how much the last time, in milliseconds.
    pub steps: u32,
    /// See `steps`.
    pub step: i64,
    /// Why the last extension failed; `None`: it did not.
    pub hindrance: Option<Error>,
}

/// Called on the runtime's thread when the window has changed. It must not block, and not call the slot.
pub type OnChange = Box<dyn Fn() + Send + Sync>;

/// The slots of one client. Cloning shares them. All methods must be called inside the runtime.
#[derive(Clone)]
pub struct Slots {
    store: Arc<dyn Store>,
    source: Arc<Source>,
}

impl Slots {
    pub(crate) fn new(store: Arc<dyn Store>, source: Arc<Source>) -> Self {
        Self { store, source }
    }

    /// Takes a slot. What may pass by itself is tried again until `deadline`; that all are held is told at once. Dropping the
    /// future gives it back.
    pub async fn take(&self, ask: Ask, deadline: Instant, on_change: OnChange) -> Result<Slot, Refusal> {
        let named = format!("/{}", ask.service);
        if let Some(problem) = problem_of_key(&named) {
            return Err(Refusal::Call(Error::invalid(format!("service: {problem}"))));
        }
        if self.source.closed.is_cancelled() {
            return Err(Refusal::Call(closed()));
        }
        let machine = Arc::new(Machine::new(
            Arc::clone(&self.store),
            Arc::clone(&self.source),
            ask,
            on_change,
        ));
        let running = Arc::clone(&machine);
        self.source.tasks.spawn(async move { running.run().await });
        let slot = Slot {
            machine,
            runtime: tokio::runtime::Handle::current(),
        };
        let mut now = slot.machine.now.subscribe();
        let settled = timeout_at(deadline, now.wait_for(|now| !matches!(now.state, State::Asking))).await;
        let state = settled.ok().and_then(Result::ok).map(|now| now.state.clone());
        match state {
            Some(State::Over(refusal)) => Err(refusal),
            Some(_) => Ok(slot),
            None => Err(slot.late()),
        }
    }
}

/// A slot that was taken. Dropping it ends its renewal.
pub struct Slot {
    machine: Arc<Machine>,
    runtime: tokio::runtime::Handle,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.machine.finish(Refusal::Over);
    }
}

impl Slot {
    /// Which slot it is, and up to when it may be used.
    pub fn window(&self) -> Window {
        self.machine.now.borrow().window.clone()
    }

    /// Gives it back: nothing is stamped any more. `last` is the last millisecond that was stamped by who knew of `generation`.
    /// Tried for ten seconds; then the lease expires, and who comes next stamps after the window.
    pub fn release(&self, generation: u32, last: i64) -> impl Future<Output = Result<()>> + Send + use<> {
        self.machine.finish(Refusal::Over);
        let machine = Arc::clone(&self.machine);
        let done = self
            .runtime
            .spawn(async move { machine.give_back(generation, last).await });
        async move { done.await.unwrap_or_else(|_| Err(closed())) }
    }

    fn late(&self) -> Refusal {
        let Window {
            is_clock_off,
            step,
            hindrance,
            ..
        } = self.window();
        match hindrance {
            _ if is_clock_off => Refusal::Clock(step),
            Some(error) => Refusal::Call(error),
            None => Refusal::Call(Error::new(
                crate::error::ErrorKind::Timeout,
                "no slot could be taken in the time given",
            )),
        }
    }
}

#[cfg(test)]
mod tests;
