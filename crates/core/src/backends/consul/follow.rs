//! A name followed by blocking queries, as Consul documents them:
//! <https://developer.hashicorp.com/consul/api-docs/features/blocking>.
//!
//! Over TLS, which is HTTP/2, each name holds a query. Over HTTP/1.1 the first names do, each with a connection; an agent
//! takes 200 of them from one address, so there is [room](super::room) for some. The other names wait for the
//! [bell](super::bell) and then ask for their index, without a list, in turns. See `docs/decisions`.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};
use reqwest::Method;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::agents::{Answer, Own, Queue, hash};
use super::bell::{Bell, SLACK};
use super::index::{AGAIN, Index};
use super::life::Life;
use super::options::Consistency;
use super::shared::{Shared, snapshot};
use crate::backend::{Snapshot, Steps, steps};
use crate::error::{Error, Result};
use crate::http::segment;

/// Queries of one name: so many at once, then one every so often.
const BURST: u32 = 20;
const GAP: Duration = Duration::from_millis(50);
/// A name without a query of its own asks for its index at least this often, should the bell have missed something.
const ANYWAY: Duration = Duration::from_secs(60);

/// A tag that no instance has. A filter that lets nothing through would first join every instance with its node and its
/// checks; a tag is looked at before.
const NO_TAG: &str = "rollcall-none";

struct HealthWatch {
    shared: Arc<Shared>,
    name: String,
    path: String,
    /// The agent that is asked, once there was an answer.
    agent: Option<(usize, Arc<Life>)>,
    index: Index,
    /// What the last list said.
    digest: u64,
    turn: Option<Turn>,
    /// When a query would be allowed if there were no burst.
    allowed: Instant,
}

/// How a name learns of changes.
enum Turn {
    /// By a query of its own.
    Own(Own),
    /// By the bell.
    Bell(Arc<Bell>, watch::Receiver<u64>),
}

pub(super) fn follow(shared: Arc<Shared>, name: &str) -> BoxStream<'static, Result<Snapshot>> {
    let path = match shared.health_path(name) {
        Ok(path) => path,
        Err(error) => return stream::once(async { Err(error) }).boxed(),
    };
    let start = HealthWatch {
        index: Index::new(shared.options.consistency),
        shared,
        name: name.to_owned(),
        path,
        agent: None,
        digest: 0,
        turn: None,
        allowed: Instant::now(),
    };
    steps(start)
}

impl Steps for HealthWatch {
    type Read = Snapshot;

    async fn next(&mut self) -> Result<Snapshot> {
        let Some((agent, life)) = self.agent.clone() else {
            let path = format!("{}{}", self.path, self.shared.options.first_read());
            let (agent, answer) = self.shared.agents.read(&path).await?;
            let snapshot = snapshot(&self.name, &answer)?;
            self.index.moves_to(index_of(&answer));
            self.digest = digest(&snapshot);
            self.agent = Some((agent, self.shared.lives.of(&self.shared.agents, agent)));
            return Ok(snapshot);
        };
        tokio::select! {
            error = life.over() => Err(error),
            snapshot = self.changed(agent) => snapshot,
        }
    }

    fn ended(&mut self, error: Error) -> Error {
        if let Some((agent, _)) = &self.agent {
            self.shared.agents.failed_by(*agent, &error);
        }
        error.about(&self.name)
    }
}

impl HealthWatch {
    /// The next list with a higher index.
    async fn changed(&mut self, agent: usize) -> Result<Snapshot> {
        loop {
            let turn = self.take_turn(agent);
            let answer = match &mut *self.turn.insert(turn) {
                Turn::Own(_) => match self.hold(agent).await? {
                    Some(answer) => answer,
                    None => continue,
                },
                Turn::Bell(bell, rung) => {
                    let (bell, index) = (Arc::clone(bell), self.index.at());
                    let anyway = ANYWAY.mul_f64(0.5 + fastrand::f64() / 2.0);
                    let _ = timeout(anyway, rung.changed()).await; // an end of the bell is as good as a ring
                    self.pace().await;
                    let _turn = bell.turns.acquire().await; // never closed
                    if self.probe(agent).await? == index {
                        continue;
                    }
                    let agents = &self.shared.agents;
                    let limit = agents.limit();
                    let answer = agents.call(agent, Queue::Reads, Method::GET, &self.path, None, limit);
                    answer.await?.checked()?
                }
            };
            let index = index_of(&answer);
            if index == self.index.at() {
                self.index.moves_to(index); // whoever lagged has caught up
                continue;
            }
            let snapshot = snapshot(&self.name, &answer)?;
            let digest = digest(&snapshot);
            if index > self.index.at() {
                self.index.moves_to(index);
                self.digest = digest;
                return Ok(snapshot);
            }
            if digest == self.digest {
                // The same list, counted otherwise: a read is answered by the store, a held query by the agent's view of
                // this one name, whose index knows nothing of other names. From here on the view's is asked for.
                self.index.moves_to(index);
            } else {
                self.index
                    .went_back(index, Instant::now())
                    .map_err(|error| self.shared.agents.said_by(agent, error))?;
                sleep(AGAIN).await;
            }
        }
    }

    /// Holds a query. `None` when it had to be given up for want of connections: then the bell is heard.
    async fn hold(&mut self, agent: usize) -> Result<Option<Answer>> {
        self.pace().await;
        let wait = self.shared.options.wait.mul_f64(0.9 + fastrand::f64() / 10.0);
        let path = format!("{}&index={}&wait={}ms", self.path, self.index.at(), wait.as_millis());
        let limit = wait + wait / 8 + SLACK;
        let own = match &self.turn {
            Some(Turn::Own(own)) => Some(own),
            _ => None,
        };
        let recalled = async {
            match own {
                Some(Own::Connection(place)) => place.recalled().await,
                _ => pending().await,
            }
        };
        let answer = tokio::select! {
            answer = timeout(limit, self.shared.agents.block(agent, own, &path)) => {
                answer.unwrap_or_else(|_| Err(self.shared.agents.silent(agent, limit)))?
            }
            () = recalled => None,
        };
        if answer.is_none() {
            self.turn = Some(self.hear());
        }
        Ok(answer)
    }

    /// How the next change is learned of: by a query of its own while there is one left.
    fn take_turn(&mut self, agent: usize) -> Turn {
        let agents = &self.shared.agents;
        match self.turn.take() {
            Some(Turn::Own(own)) if agents.suits(agent, &own) => Turn::Own(own),
            // Once it was asked to wait for the bell, it does.
            Some(Turn::Bell(bell, rung)) if rung.has_changed().unwrap_or(false) => Turn::Bell(bell, rung),
            before => match (agents.own(agent), before) {
                (Some(own), _) => Turn::Own(own),
                (None, Some(bell @ Turn::Bell(..))) => bell,
                (None, _) => self.hear(),
            },
        }
    }

    fn hear(&self) -> Turn {
        let bell = self.shared.bells.hear(&self.shared.agents, &self.shared.options);
        let mut rung = bell.listen();
        rung.mark_changed(); // something may have changed since the list was read
        Turn::Bell(bell, rung)
    }

    /// The index of the name, without its list.
    async fn probe(&self, agent: usize) -> Result<u64> {
        let agents = &self.shared.agents;
        let options = &self.shared.options;
        let datacenter = options.datacenter.as_ref();
        let path = format!(
            "/v1/health/service/{}?tag={NO_TAG}{}{}",
            segment(&self.name),
            datacenter.map_or_else(String::new, |datacenter| format!("&dc={}", segment(datacenter))),
            match options.consistency {
                Consistency::Stale => "&stale",
                Consistency::Consistent => "&consistent",
                Consistency::Default => "",
            }
        );
        let limit = agents.limit();
        let answer = agents
            .call(agent, Queue::Reads, Method::GET, &path, None, limit)
            .await?;
        Ok(index_of(&answer.checked()?))
    }

    /// Waits while this name has asked too often.
    async fn pace(&mut self) {
        let now = Instant::now();
        let earliest = now.checked_sub(GAP * BURST).unwrap_or(now);
        self.allowed = self.allowed.max(earliest) + GAP;
        sleep_until(self.allowed).await;
    }
}

/// A number for what a list says, in whatever order.
fn digest(Snapshot { instances, bad }: &Snapshot) -> u64 {
    let each = instances.iter().map(hash).chain(bad.iter().map(hash));
    each.fold(0, u64::wrapping_add)
}

/// Never 0, which would not block.
fn index_of(answer: &Answer) -> u64 {
    answer.index.unwrap_or(0).max(1)
}
