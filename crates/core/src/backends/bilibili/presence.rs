//! One registration in discovery: a record at one node, which passes it on to its peers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use super::nodes::Node;
use super::renewal::Renewal;
use super::shared::Shared;
use super::standing::Record;
use crate::backend::{Intent, Loss, Presence};
use crate::error::{Error, ErrorKind, Result};
use crate::http::LATE;
use crate::instance::ServiceInstance;
use crate::upkeep::Upkeep;

/// How long a node has to remove what its peers have removed already.
const BRIEF: Duration = Duration::from_secs(1);

pub(super) struct BilibiliPresence {
    record: Arc<Record>,
    /// Counts the publications. A record of an older one is a write that came late.
    generation: u64,
    renewal: Upkeep,
}

impl BilibiliPresence {
    pub(super) fn new(shared: Arc<Shared>, name: &str, id: &str) -> Self {
        Self {
            record: Arc::new(Record::new(shared, name, id)),
            generation: 0,
            renewal: Upkeep::default(),
        }
    }

    /// One attempt at the nodes in turn: the one that renews the record first, else the one that answers calls.
    async fn register(&self, instance: &ServiceInstance, intent: Intent) -> Result<Arc<Node>> {
        let nodes = &self.record.shared.nodes;
        let mut failure = None;
        let at = self.record.lock().at.clone();
        for node in nodes.order(at.as_ref()) {
            let registered = self
                .record
                .register(&node, instance, self.generation, intent, nodes.limit());
            match registered.await {
                Ok(()) => return Ok(node),
                Err(error) if error.is_retryable() => {
                    nodes.failed(&node);
                    failure = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(ErrorKind::Internal, "there is no node to register at")))
    }

    async fn publish_once(&mut self, instance: &ServiceInstance, intent: Intent) -> Result<()> {
        self.generation += 1;
        let record = Arc::clone(&self.record);
        let _moving = record.moving.lock().await;
        let node = self.register(instance, intent).await?;
        {
            let mut state = record.lock();
            state.at = Some(node);
            state.published = self.generation;
            state.instance = Arc::new(instance.clone());
        }
        self.renewal.ensure(Renewal::new(Arc::clone(&self.record)).run());
        Ok(())
    }

    /// The first node that takes it away passes that on. The others it was sent to are asked as well, since they may not
    /// have heard; what one of them keeps is evicted there.
    async fn withdraw_once(&mut self) -> Result<()> {
        self.stop();
        let record = Arc::clone(&self.record);
        let _moving = record.moving.lock().await;
        let (written, at, late) = {
            let mut state = record.lock();
            (state.written.clone(), state.at.take(), state.unanswered)
        };
        if written.is_empty() {
            return Ok(());
        }
        let nodes = &record.shared.nodes;
        let mut removed = self.remove(&written, at.as_ref(), nodes.limit()).await;
        if late && removed.is_ok() {
            // A write that nobody answered may arrive after its removal.
            sleep(LATE).await;
            removed = self.remove(&written, at.as_ref(), nodes.limit()).await;
        }
        removed?;
        let mut state = record.lock();
        state.unanswered = false;
        state.written.clear();
        Ok(())
    }

    async fn remove(&self, written: &[Arc<Node>], at: Option<&Arc<Node>>, limit: Duration) -> Result<()> {
        let nodes = &self.record.shared.nodes;
        let mut failure = None;
        let mut is_gone = false;
        for node in nodes.order(at.or(written.last())) {
            if is_gone && !written.contains(&node) {
                continue;
            }
            let limit = if is_gone { limit.min(BRIEF) } else { limit };
            match self.record.remove(&node, limit).await {
                Ok(()) => is_gone = true,
                Err(error) => {
                    if error.is_retryable() {
                        nodes.failed(&node);
                    }
                    failure = Some(error);
                }
            }
        }
        match failure {
            Some(error) if !is_gone => Err(error),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Presence for BilibiliPresence {
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

    fn ttl(&self) -> Duration {
        self.record.shared.options.ttl
    }
}
