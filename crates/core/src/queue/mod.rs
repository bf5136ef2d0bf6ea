//! Locks: who stands in a queue, whose turn it is, and how long one may act. One machine for all kinds and all stores; a kind
//! is the rule whom it waits for ([`Kind`]), a store is a [`Tenure`].
//!
//! ```text
//!             granted, key written           its turn, seen so within the lease
//!   Granting ──────────────────────► Waiting ──────────────────────────────────► Held
//!      │                                │                                          │
//!      └── refused, out of time ────────┴── lease lost, key gone, thread silent ───┴──► Failed
//!   from every state: release(), drop ──► Released
//! ```
//!
//! Who holds may act until the deadline of its lease, and [`Held::is_held`] asks the clock each time. Whoever comes next
//! comes after the key is gone, which is after the lease expired in the store, which is after that deadline. What the clock of
//! this process can't tell (it was stopped between asking and acting) the fencing token does: the create revision of the key.

mod ask;
mod kind;
mod machine;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

pub use self::ask::Ask;
pub use self::kind::Kind;
pub use self::machine::{Ending, Failure, OnLost};
use self::machine::{Machine, State};
use crate::backend::no_answer;
use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::store::{Store, problem_of_key};
use crate::tenure::Leader;
use crate::watch::{Source, closed};

/// The queues of one client. Cloning shares them. All methods must be called inside the runtime.
#[derive(Clone)]
pub struct Queues {
    store: Arc<dyn Store>,
    source: Arc<Source>,
}

impl Queues {
    pub(crate) fn new(store: Arc<dyn Store>, source: Arc<Source>) -> Self {
        Self { store, source }
    }

    /// Waits for its turn until `deadline` at most. What may pass by itself is tried again until then; the place in the queue is
    /// kept while its lease lives. Dropping the future gives the place back.
    ///
    /// After a failure nothing stays in the store: the lease is ended, with tries for ten minutes while the store is away, and
    /// expires at the latest. `on_lost` is called with the reason when it was held and is lost, not after its release.
    pub async fn acquire(&self, ask: Ask, deadline: Option<Instant>, on_lost: OnLost) -> Result<Held, Failure> {
        if let Some(problem) = problem_of_key(&ask.path) {
            return Err(Failure::Call(
                Error::invalid(format!("key: {problem}")).about(&ask.path),
            ));
        }
        if self.source.closed.is_cancelled() {
            return Err(Failure::Call(closed()));
        }
        let tenure = self.store.hold(ask.ttl).map_err(Failure::Call)?;
        let machine = Arc::new(Machine::new(tenure, ask, Arc::clone(&self.source), on_lost));
        let running = Arc::clone(&machine);
        self.source
            .tasks
            .spawn(async move { running.over.run_until_cancelled(running.run()).await });
        let held = Held {
            machine,
            runtime: tokio::runtime::Handle::current(),
        };
        let turn = held.machine.turn();
        match deadline {
            Some(deadline) => match timeout_at(deadline, turn).await {
                Ok(done) => done?,
                Err(_) => return Err(held.machine.hindrance().map_or(Failure::Late, Failure::Call)),
            },
            None => turn.await?,
        }
        Ok(held)
    }
}

impl Queues {
    /// Who stands first below `path`: at once where that is another than `seen`, or another value of the same, else as soon as it
    /// is. `seen: None` is whoever it is; `Some(None)` that there was nobody. Tried again while that may help, without end; dropping
    /// it ends it.
    pub async fn leader_after(&self, path: &str, seen: Option<Option<(i64, &[u8])>>) -> Result<Option<Leader>> {
        if let Some(problem) = problem_of_key(path) {
            return Err(Error::invalid(format!("name: {problem}")).about(path));
        }
        let prefix = format!("{path}/");
        let mut backoff = Backoff::new();
        let follow = async {
            loop {
                let step = async {
                    let read = timeout(self.source.timeout, self.store.leader(&prefix)).await;
                    let read = read
                        .unwrap_or_else(|_| Err(no_answer(&*self.source.backend, self.source.timeout, Some(path))))?;
                    let now = read.leader.as_ref().map(|leader| (leader.created, &*leader.value));
                    if seen != Some(now) {
                        return Ok(Some(read.leader));
                    }
                    self.store.stirs(&prefix, &read).await.map(|()| None)
                };
                match step.await {
                    Ok(Some(leader)) => return Ok(leader),
                    Ok(None) => backoff.reset(),
                    Err(error) if error.is_retryable() => sleep(backoff.next_pause()).await,
                    Err(error) => return Err(error),
                }
            }
        };
        let followed = self.source.closed.run_until_cancelled(follow).await;
        followed.unwrap_or_else(|| Err(closed()))
    }
}

/// What was acquired. Dropping it releases it.
pub struct Held {
    machine: Arc<Machine>,
    runtime: tokio::runtime::Handle,
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.begin_release();
    }
}

impl Held {
    /// Whether it is held at this moment, by the clock. Once it was said that it is not, it never is again.
    pub fn is_held(&self) -> bool {
        self.machine.may_act()
    }

    /// How long it can be vouched for from now on without another renewal; zero when it is not held.
    pub fn remaining(&self) -> Duration {
        let deadline = self.machine.tenure.deadline().filter(|_| self.is_held());
        deadline.map_or(Duration::ZERO, |deadline| {
            deadline.saturating_duration_since(Instant::now())
        })
    }

    /// The fencing token: the create revision of the key, higher than that of any key created before.
    pub fn token(&self) -> i64 {
        self.machine.token()
    }

    /// The key that stands for it.
    pub fn key(&self) -> &str {
        &self.machine.key
    }

    /// Its lease.
    pub fn lease(&self) -> i64 {
        self.machine.tenure.lease()
    }

    /// Ends it, at once as far as this process is concerned. What is given can be waited for; it need not.
    pub fn begin_release(&self) -> Ending {
        self.machine.finish(State::Released, None);
        self.machine.tidy(&self.runtime)
    }
}

#[cfg(test)]
mod tests;
