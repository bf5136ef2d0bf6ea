//! One registration in Consul: a service of one agent, and wherever else it had to be written.
//!
//! Consul's agents have no compare-and-set. A registration is read before it is written or removed, and whose it is, its
//! mark tells; two processes that write one id in the same instant are told apart by their next renewal. What is one id
//! here, [twins] says.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::agents::Queue;
use super::renewal::Renewal;
use super::service::{Held, Record};
use super::shared::Shared;
use crate::backend::{Intent, Loss, Presence};
use crate::error::{Error, ErrorKind, Result};
use crate::http::LATE;
use crate::instance::ServiceInstance;
use crate::upkeep::Upkeep;

/// The longest pause between two looks whether what was taken away stands again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

pub(super) struct ConsulPresence {
    pub(super) record: Arc<Record>,
    /// Counts the publications. A record of an older one is a write that came late.
    generation: u64,
    renewal: Upkeep,
}

impl ConsulPresence {
    pub(super) fn new(shared: Arc<Shared>, name: &str, id: &str) -> Self {
        Self {
            record: Arc::new(Record::new(shared, name, id)),
            generation: 0,
            renewal: Upkeep::default(),
        }
    }

    /// One attempt at the agents in turn: the one that holds the record first, else the one that answers calls.
    async fn register(&self, instance: &ServiceInstance, intent: Intent) -> Result<usize> {
        let agents = &self.record.shared.agents;
        let mut failure = None;
        let holder = self.record.lock().at;
        for agent in agents.order(holder) {
            let registered = self
                .record
                .register(agent, instance, self.generation, intent, agents.limit());
            match registered.await {
                Ok(()) => return Ok(agent),
                Err(error) if error.is_retryable() && agents.len() > 1 => {
                    agents.failed(agent);
                    failure = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(ErrorKind::Internal, "there is no agent to register at")))
    }
}

/// Renews what was written and is not seen yet, without end: the catalog may take longer than the TTL.
async fn pass(record: &Record, agent: usize) {
    let every = record.shared.options.ttl / 3;
    let limit = record.shared.agents.limit();
    loop {
        sleep(every).await;
        // What comes of it the waiting finds out.
        let _ = record.pass(agent, Queue::Renewals, limit).await;
    }
}

#[async_trait]
impl Presence for ConsulPresence {
    async fn publish(&mut self, instance: &ServiceInstance, intent: Intent) -> Result<()> {
        let published = self.publish_once(instance, intent).await;
        published.map_err(|error| self.record.named(error))
    }

    async fn lost(&mut self) -> Loss {
        self.renewal.lost().await
    }

    fn stop(&mut self) {
        self.renewal.stop();
    }

    async fn withdraw(&mut self) -> Result<()> {
        let withdrawn = self.withdraw_once().await;
        withdrawn.map_err(|error| self.record.named(error))
    }

    /// An agent whose disk is an older one has back what stood there then, and renews nothing of it: so it is looked for, three
    /// times per TTL and more often where that is long.
    async fn reappeared(&mut self) {
        let (record, options) = (&self.record, &self.record.shared.options);
        if !options.heartbeat {
            std::future::pending::<()>().await; // nobody can tell whose it is
        }
        let every = (options.ttl / 3).min(LOOK_AGAIN);
        let found: Vec<usize> = loop {
            sleep(every.mul_f64(0.9 + fastrand::f64() / 10.0)).await;
            let stood = record.lock().stood.clone();
            let limit = record.shared.agents.limit();
            let looks = stood.into_iter().map(|agent| async move {
                let held = record.look(agent, Queue::Renewals, limit).await;
                matches!(held, Ok(Held::Ours { .. })).then_some(agent)
            });
            let found: Vec<usize> = join_all(looks).await.into_iter().flatten().collect();
            if !found.is_empty() {
                break found;
            }
        };
        let mut state = record.lock();
        for agent in found {
            state.wrote(agent, Instant::now());
        }
    }

    fn ttl(&self) -> Duration {
        self.record.shared.options.ttl
    }
}

impl ConsulPresence {
    async fn publish_once(&mut self, instance: &ServiceInstance, intent: Intent) -> Result<()> {
        self.generation += 1;
        let generation = self.generation;
        let record = Arc::clone(&self.record);
        let _moving = record.moving.lock().await;
        let agent = self.register(instance, intent).await?;
        tokio::select! {
            seen = record.seen(agent, instance, generation, intent) => seen?,
            error = record.overtaken(agent, generation) => return Err(error),
            () = pass(&record, agent), if record.shared.options.heartbeat => {} // never
        }
        {
            let mut state = self.record.lock();
            state.at = Some(agent);
            state.published = generation;
            state.instance = Arc::new(instance.clone());
        }
        self.renewal.ensure(Renewal::new(Arc::clone(&self.record)).run());
        Ok(())
    }

    async fn withdraw_once(&mut self) -> Result<()> {
        self.stop();
        let (written, late) = {
            let mut state = self.record.lock();
            state.at = None;
            (state.written.clone(), state.unanswered)
        };
        let limit = self.record.shared.agents.limit();
        let ttl = self.ttl();
        let mut failure: Option<(Instant, Error)> = None;
        let mut reached = None;
        for (agent, renewed) in written {
            let mut removed = self.record.remove(agent, limit).await;
            if late && removed.is_ok() {
                // A write that nobody answered may arrive after its removal.
                sleep(LATE).await;
                removed = self.record.remove(agent, limit).await;
            }
            match removed {
                Ok(()) => {
                    self.record.lock().forget(agent);
                    reached = Some(agent);
                }
                // The one that was renewed last decides whether all are hidden.
                Err(error) if failure.as_ref().is_none_or(|(last, _)| *last < renewed) => {
                    failure = Some((renewed, error));
                }
                Err(_) => {}
            }
        }
        match (failure, reached) {
            // Agents that we have left, away for so long that their records are hidden.
            (Some((renewed, _)), Some(agent)) if renewed.elapsed() > ttl => self.leave(agent).await?,
            (Some((_, error)), _) => return Err(error),
            (None, _) => self.record.lock().unanswered = false,
        }
        match reached {
            Some(agent) => self.record.invisible(agent).await,
            None => Ok(()),
        }
    }

    /// Leaves the agents that could not be reached with what they hold: it goes out of the catalog, through one that was reached,
    /// and there once they answer.
    async fn leave(&self, reached: usize) -> Result<()> {
        let (record, shared) = (&self.record, &self.record.shared);
        record.strike(reached).await?;
        for (agent, _) in &record.lock().written {
            shared.leftovers.add(&shared.agents, *agent, Arc::clone(record) as _);
        }
        Ok(())
    }
}
