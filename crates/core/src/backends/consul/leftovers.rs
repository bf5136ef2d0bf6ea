//! What was left at agents that did not answer when a record of ours had to go. Others were told that it is gone, and do not
//! see it: but an agent that was stopped, and goes on, tells the catalog again what it has. So it is taken away there as
//! soon as the agent answers, also when its registration has ended by then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, StreamExt as _};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::agents::Agents;
use crate::backoff::Backoff;
use crate::http::LATE;
use crate::sync::lock;

/// For how long an agent is waited for. Its record has expired many times over by then.
const TRIED_FOR: Duration = Duration::from_secs(600);
/// How long a question lies at an agent that does not answer, before it is asked anew.
const HELD: Duration = Duration::from_secs(10);
/// So many records of an agent are taken away at once.
const AT_ONCE: usize = 64;

/// What may have been left at agents.
#[async_trait]
pub(super) trait Leftover: Send + Sync {
    /// Removes what an agent holds of it; says whether nothing is left to be done there.
    async fn clear(&self, agent: usize) -> bool;
}

fn same(a: &Arc<dyn Leftover>, b: &Arc<dyn Leftover>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}

/// What was left at the agents of one client.
#[derive(Default)]
pub(super) struct Leftovers {
    by_agent: Mutex<HashMap<usize, Left>>,
}

/// What was left at one agent, each until when it is tried, and who waits for the agent.
#[derive(Default)]
struct Left {
    records: Vec<(Arc<dyn Leftover>, Instant)>,
    task: Option<AbortHandle>,
}

impl Leftovers {
    /// Takes the record away once the agent answers, unless it stands there again by then.
    pub(super) fn add(self: &Arc<Self>, agents: &Arc<Agents>, agent: usize, record: Arc<dyn Leftover>) {
        let mut by_agent = lock(&self.by_agent);
        let left = by_agent.entry(agent).or_default();
        left.records.retain(|(one, _)| !same(one, &record));
        left.records.push((record, Instant::now() + TRIED_FOR));
        if left.task.is_none() {
            let tend = tend(Arc::downgrade(self), Arc::clone(agents), agent);
            left.task = Some(tokio::spawn(tend).abort_handle());
        }
    }

    /// Waits for nobody any more.
    pub(super) fn stop(&self) {
        for (_, left) in lock(&self.by_agent).drain() {
            if let Some(task) = left.task {
                task.abort();
            }
        }
    }

    /// What is to be taken away at an agent now; `None`, and no task of it any more, where that is nothing.
    fn due(&self, agent: usize) -> Option<Vec<Arc<dyn Leftover>>> {
        let mut by_agent = lock(&self.by_agent);
        let left = by_agent.get_mut(&agent)?;
        left.records.retain(|(_, until)| *until > Instant::now());
        if left.records.is_empty() {
            by_agent.remove(&agent);
            return None;
        }
        Some(left.records.iter().map(|(record, _)| Arc::clone(record)).collect())
    }

    fn done(&self, agent: usize, record: &Arc<dyn Leftover>) {
        if let Some(left) = lock(&self.by_agent).get_mut(&agent) {
            left.records.retain(|(one, _)| !same(one, record));
        }
    }
}

/// Waits for an agent, and takes away what was left there.
async fn tend(leftovers: Weak<Leftovers>, agents: Arc<Agents>, agent: usize) {
    let mut backoff = Backoff::new();
    loop {
        // One question for all of them. At an agent that was stopped it lies in wait, and is answered the moment it goes on.
        let answers = agents.answers(agent, "/", HELD).await;
        let Some(leftovers) = leftovers.upgrade() else {
            return;
        };
        let Some(records) = leftovers.due(agent) else {
            return;
        };
        if answers {
            let removals: Vec<_> = records
                .into_iter()
                .map(|record| take_away(Arc::clone(&leftovers), agent, record))
                .collect();
            stream::iter(removals).buffer_unordered(AT_ONCE).collect::<()>().await;
        }
        if leftovers.due(agent).is_none() {
            return;
        }
        drop(leftovers);
        sleep(backoff.next_pause()).await;
    }
}

async fn take_away(leftovers: Arc<Leftovers>, agent: usize, record: Arc<dyn Leftover>) {
    if !record.clear(agent).await {
        return;
    }
    sleep(LATE).await; // a write may have lain there as well
    if record.clear(agent).await {
        leftovers.done(agent, &record);
    }
}
