//! The bell: rings when anything changed in the catalog, for the names that have no blocking query of their own.
//!
//! Two blocking queries whose filters let nothing through, one over the checks and one over the services: their answers
//! are empty, and what counts is that there is one. Names that hear the bell then ask for their own index.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::Shared;
use super::agents::segment;
use crate::backoff::Backoff;

/// Questions for an index in flight.
const PROBES: usize = 8;
/// The bell rings no more often than this.
const PAUSE: Duration = Duration::from_millis(200);
/// More than Consul adds to the wait by its own jitter, and the way there and back.
pub(super) const SLACK: Duration = Duration::from_secs(5);

/// The bell of one client, while somebody listens.
#[derive(Default)]
pub(super) struct Bells {
    bell: Mutex<Weak<Bell>>,
}

/// Rings for as long as somebody holds it.
pub(super) struct Bell {
    rung: watch::Receiver<u64>,
    tasks: Vec<AbortHandle>,
    /// The turns of those who ask for an index.
    pub turns: Semaphore,
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.silence();
    }
}

impl Bell {
    fn silence(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }

    /// What tells each ring from now on.
    pub(super) fn listen(&self) -> watch::Receiver<u64> {
        let mut rung = self.rung.clone();
        rung.mark_unchanged();
        rung
    }
}

impl Bells {
    pub(super) fn hear(&self, shared: &Arc<Shared>) -> Arc<Bell> {
        let mut bell = self.bell.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bell) = bell.upgrade() {
            return bell;
        }
        let (rings, rung) = watch::channel(0);
        let nothing = segment("Node == \"\"");
        // Every check of the datacenter, and every service: together, all that lists are made of.
        let paths = [
            format!("/v1/health/state/any?filter={nothing}"),
            format!("/v1/catalog/services?filter={nothing}"),
        ];
        let tasks = paths
            .into_iter()
            .map(|path| tokio::spawn(ring(Arc::clone(shared), path, rings.clone())).abort_handle())
            .collect();
        let new = Arc::new(Bell {
            rung,
            tasks,
            turns: Semaphore::new(PROBES),
        });
        *bell = Arc::downgrade(&new);
        new
    }

    /// Ends it, whoever listens.
    pub(super) fn stop(&self) {
        let bell = self.bell.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bell) = bell.upgrade() {
            bell.silence();
        }
    }
}

/// Rings at every change of the index, and at every failure too: then nobody knows what happened meanwhile.
async fn ring(shared: Arc<Shared>, path: String, rings: watch::Sender<u64>) {
    let agents = &shared.agents;
    let wait = shared.options.wait;
    let query = match &shared.options.datacenter {
        Some(datacenter) => format!("&dc={}", segment(datacenter)),
        None => String::new(),
    };
    let mut backoff = Backoff::new();
    let mut index = 0;
    let mut agent = None;
    loop {
        let Some(at) = agent.or_else(|| agents.order(None).next()) else {
            return;
        };
        let blocking = format!("{path}{query}&index={index}&wait={}ms", wait.as_millis());
        let answer = timeout(wait + wait / 8 + SLACK, agents.block(at, &blocking)).await;
        if let Ok(Ok(answer)) = answer {
            let new = answer.index.unwrap_or(0).max(1);
            if new != index {
                rings.send_modify(|n| *n += 1);
            }
            // An index that goes back is begun anew, as Consul asks for.
            index = if new < index { 0 } else { new };
            agent = Some(at);
            backoff.reset();
            sleep(PAUSE).await;
        } else {
            rings.send_modify(|n| *n += 1);
            agents.failed(at);
            (agent, index) = (None, 0);
            sleep(backoff.next_pause()).await;
        }
    }
}
