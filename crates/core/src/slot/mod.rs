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

mod ask;
mod choice;
mod clock;
mod farewell;
mod machine;
mod mark;
mod record;

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

pub use self::ask::{Ask, OnChange, Refusal, Window};
use self::machine::{Machine, State};
use crate::error::{Error, Result};
use crate::store::{Store, problem_of_key};
use crate::watch::{Source, closed};

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

/// A slot that was taken. Dropping it ends its lease; who comes next stamps after its window.
pub struct Slot {
    machine: Arc<Machine>,
    runtime: tokio::runtime::Handle,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.machine.finish(Refusal::Over);
        let machine = Arc::clone(&self.machine);
        self.runtime.spawn(async move { machine.abandon().await });
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
