//! Whether an agent that holds blocking queries of ours still lives. A held query is silent for a minute; an agent that
//! was frozen, or cut off without a reset, would not be missed for as long. So one short question is asked every few
//! seconds for all the queries of an agent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::agents::Agents;
use crate::error::{Error, ErrorKind};
use crate::sync::lock;

/// Between two questions.
const EVERY: Duration = Duration::from_secs(5);
/// How long an answer of the agent itself may take. Asked twice before it is believed.
const LIMIT: Duration = Duration::from_secs(3);
/// What an agent answers by itself, without a token.
const ITSELF: &str = "/";
/// What it asks the servers for. They have as long as any call, since slow ones are no dead agent.
const SERVERS: &str = "/v1/status/leader";

/// The lives of the agents of one client.
#[derive(Default)]
pub(super) struct Lives {
    by_agent: Mutex<HashMap<usize, Weak<Life>>>,
}

/// An agent under observation, for as long as somebody holds this.
pub(super) struct Life {
    over: watch::Receiver<bool>,
    task: AbortHandle,
    agents: Arc<Agents>,
    agent: usize,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lives {
    /// The life of an agent, watched from now on.
    pub(super) fn of(&self, agents: &Arc<Agents>, agent: usize) -> Arc<Life> {
        let mut lives = lock(&self.by_agent);
        if let Some(life) = lives.get(&agent).and_then(Weak::upgrade)
            && !*life.over.borrow()
        {
            return life;
        }
        let (told, over) = watch::channel(false);
        let observed = Arc::clone(agents);
        let task = tokio::spawn(async move {
            while answers(&observed, agent).await {
                sleep(EVERY.mul_f64(0.8 + fastrand::f64() * 0.4)).await;
            }
            observed.failed(agent);
            told.send_replace(true);
        });
        let life = Arc::new(Life {
            over,
            task: task.abort_handle(),
            agents: Arc::clone(agents),
            agent,
        });
        lives.insert(agent, Arc::downgrade(&life));
        life
    }

    /// Observes nothing any more.
    pub(super) fn stop(&self) {
        let mut lives = lock(&self.by_agent);
        for life in lives.drain().filter_map(|(_, life)| life.upgrade()) {
            life.task.abort();
        }
    }
}

impl Life {
    /// Resolves when the agent does not answer any more.
    pub(super) async fn over(&self) -> Error {
        let mut over = self.over.clone();
        if over.wait_for(|over| *over).await.is_err() {
            std::future::pending::<()>().await; // the observation was stopped, and with it everything
        }
        let host = self.agents.host(self.agent);
        let why = format!("the Consul agent at {host} does not answer any more");
        self.agents.error(self.agent, ErrorKind::Unavailable, why)
    }
}

/// Whether the agent lives, and its servers with it. The servers may be slow; an agent that falls silent meanwhile is not
/// waited for as long as they are.
async fn answers(agents: &Agents, agent: usize) -> bool {
    if !answers_to(agents, agent, ITSELF, LIMIT).await {
        return false;
    }
    let falls_silent = async {
        loop {
            sleep(EVERY).await;
            if !answers_to(agents, agent, ITSELF, LIMIT).await {
                return;
            }
        }
    };
    tokio::select! {
        answered = answers_to(agents, agent, SERVERS, agents.timeout()) => answered,
        () = falls_silent => false,
    }
}

/// Any answer will do, and the first silence is not believed.
async fn answers_to(agents: &Agents, agent: usize, path: &str, limit: Duration) -> bool {
    agents.answers(agent, path, limit).await || agents.answers(agent, path, limit).await
}
