//! The names: those of the catalog but those of which nothing is listed. They are read again when the [bell](super::bell)
//! rings, whose blocking queries are for the names of the catalog and for the checks that fail. Consul tells no difference:
//! a reading is all names, and a question more for each name of which an instance fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::bell::Bell;
use super::index::{AGAIN, Index};
use super::life::Life;
use super::shared::{Shared, snapshot};
use super::words::CONSUL;
use crate::backend::{ServiceName, Steps, steps};
use crate::error::{Error, Result};

/// They are read at least this often, should the bell have missed something.
const ANYWAY: Duration = Duration::from_secs(60);

/// One reading.
pub(super) struct Reading {
    agent: usize,
    index: u64,
    /// Sorted.
    pub(super) names: Vec<String>,
}

/// Reads the names; `how` is more of the question.
pub(super) async fn read(shared: &Shared, how: &str) -> Result<Reading> {
    let at = shared.options.read_query();
    let path = format!("/v1/catalog/services?{at}{how}");
    let (agent, answer) = shared.agents.read(&path).await?;
    let names: BTreeMap<String, Value> = answer.json()?;
    let mut names: BTreeSet<String> = names.into_keys().filter(|name| name != CONSUL).collect();
    for name in shared.doubtful(&names).await? {
        let (_, answer) = shared.agents.read(&shared.health_path(&name)?).await?;
        if snapshot(&name, &answer)?.instances.is_empty() {
            names.remove(&name);
        }
    }
    Ok(Reading {
        agent,
        index: answer.index.unwrap_or(0),
        names: names.into_iter().collect(),
    })
}

struct NamesWatch {
    shared: Arc<Shared>,
    at: Option<At>,
    index: Index,
    names: Vec<String>,
}

/// The agent that told the names last, and what rings when they may be others.
struct At {
    agent: usize,
    life: Arc<Life>,
    /// Rings for as long as it is held.
    _bell: Arc<Bell>,
    rung: watch::Receiver<u64>,
}

pub(super) fn follow(shared: Arc<Shared>) -> BoxStream<'static, Result<Vec<Arc<ServiceName>>>> {
    let start = NamesWatch {
        index: Index::new(shared.options.consistency),
        shared,
        at: None,
        names: Vec::new(),
    };
    steps(start)
}

impl Steps for NamesWatch {
    type Read = Vec<Arc<ServiceName>>;

    async fn next(&mut self) -> Result<Vec<Arc<ServiceName>>> {
        self.differs().await?;
        let entry = |name: &String| {
            Arc::new(ServiceName {
                name: name.as_str().into(),
                count: None,
            })
        };
        Ok(self.names.iter().map(entry).collect())
    }

    fn ended(&mut self, error: Error) -> Error {
        if let Some(at) = &self.at {
            self.shared.agents.failed_by(at.agent, &error);
        }
        error
    }
}

impl NamesWatch {
    /// Until there is a list that differs.
    async fn differs(&mut self) -> Result<()> {
        let Some(at) = &mut self.at else {
            // The bell is heard before the reading, so that nothing falls between.
            let bell = self.shared.bells.hear(&self.shared.agents, &self.shared.options);
            let rung = bell.listen();
            let reading = read(&self.shared, self.shared.options.first_read()).await?;
            self.index.moves_to(reading.index);
            self.names = reading.names;
            self.at = Some(At {
                agent: reading.agent,
                life: self.shared.lives.of(&self.shared.agents, reading.agent),
                _bell: bell,
                rung,
            });
            return Ok(());
        };
        let life = Arc::clone(&at.life);
        tokio::select! {
            error = life.over() => Err(error),
            changed = Self::changed(&self.shared, at, &mut self.index, &mut self.names) => changed,
        }
    }

    async fn changed(shared: &Arc<Shared>, at: &mut At, index: &mut Index, names: &mut Vec<String>) -> Result<()> {
        loop {
            if index.is_behind() {
                sleep(AGAIN).await;
            } else {
                let anyway = ANYWAY.mul_f64(0.5 + fastrand::f64() / 2.0);
                let _ = timeout(anyway, at.rung.changed()).await; // an end of the bell is as good as a ring
            }
            let limit = shared.agents.timeout();
            let reading = timeout(limit, read(shared, "")).await;
            let reading = reading.unwrap_or_else(|_| Err(shared.agents.silent(at.agent, limit)))?;
            if reading.index < index.at() {
                index
                    .went_back(reading.index, Instant::now())
                    .map_err(|error| shared.agents.said_by(reading.agent, error))?;
                continue;
            }
            index.moves_to(reading.index);
            if reading.agent != at.agent {
                at.agent = reading.agent;
                at.life = shared.lives.of(&shared.agents, reading.agent);
            }
            if *names != reading.names {
                *names = reading.names;
                return Ok(());
            }
        }
    }
}
