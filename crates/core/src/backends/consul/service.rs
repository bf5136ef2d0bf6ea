//! One registration as its presence and its renewal know it: what each agent holds under its id, and how that is written,
//! renewed and removed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::agents::{Answer, Queue};
use super::leftovers::Leftover;
use super::record::{self, Check, Mark, ServiceEntry};
use super::shared::Shared;
use super::twins::twins;
use super::words::{filter_text, refused_word};
use crate::backend::Intent;
use crate::error::{Error, ErrorKind, Result};
use crate::http::segment;
use crate::instance::ServiceInstance;
use crate::sync::lock;

/// The pauses between two looks for our own record in the catalog: the first one, and the longest, to which they double.
const LOOK_PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(500));
/// Between two looks whether a record that nobody sees yet still lies where it was written.
const OVERTAKEN: Duration = Duration::from_millis(500);
/// How long an agent that was away has for each call by which it is cleared.
const CLEARED: Duration = Duration::from_secs(1);

/// One registration, as its presence and its renewal know it.
pub(super) struct Record {
    pub shared: Arc<Shared>,
    pub name: String,
    pub id: String,
    /// Of the marks: this presence and no other.
    owner: String,
    /// Of the marks: tells a record of an earlier life of the id, which comes back with an old disk of an agent or waits
    /// at an agent that we move to, from a newer owner. The time of the claim by this machine's clock, in milliseconds,
    /// and more than that of an owner whom the claim found: clocks count only between owners that never met.
    order: AtomicU64,
    state: Mutex<State>,
    /// Held while a publication chooses its agent, and while what lies at another one is taken away.
    pub moving: tokio::sync::Mutex<()>,
}

#[derive(Default)]
pub(super) struct State {
    /// Every agent that may hold a record of ours, since before the first byte went to it, and when it was last renewed.
    pub written: Vec<(usize, Instant)>,
    /// Every agent that ever held one.
    pub stood: Vec<usize>,
    /// The agent that holds the record that is renewed.
    pub at: Option<usize>,
    /// The last publication that succeeded, and of what.
    pub published: u64,
    pub instance: Arc<ServiceInstance>,
    /// When the last renewal that was answered was sent.
    pub renewed: Option<Instant>,
    /// Whether a write is without an answer.
    pub unanswered: bool,
    switch: Switch,
}

/// An operator's switch of the service (maintenance), with the reason given. Consul forgets it with the service, so we put it
/// back where we have taken the service away, or found it gone.
#[derive(Default, PartialEq, Eq)]
enum Switch {
    #[default]
    On,
    /// Seen at our record.
    Off(String),
    /// Our record may stand without it, until we have put it back.
    Owed(String),
}

impl State {
    pub(super) fn wrote(&mut self, agent: usize, when: Instant) {
        self.forget(agent);
        self.written.push((agent, when));
        if !self.stood.contains(&agent) {
            self.stood.push(agent);
        }
    }

    /// The agent holds nothing of ours.
    pub(super) fn forget(&mut self, agent: usize) {
        self.written.retain(|(one, _)| *one != agent);
    }
}

/// What an agent holds under our id.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Held {
    Nothing,
    Ours {
        /// Of which publication; none without a heartbeat.
        generation: Option<u64>,
        /// Whether its TTL check lets it be seen.
        passes: bool,
    },
    /// Another owner's, whose mark may have an order.
    Other(Option<u64>),
}

/// `/v1/agent/health/service/id`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AgentService {
    #[allow(dead_code)] // that it is there tells Consul's answer from a page of somebody else
    aggregated_status: String,
    service: Option<serde::de::IgnoredAny>,
    checks: Option<Vec<Check>>,
}

impl Record {
    pub(super) fn new(shared: Arc<Shared>, name: &str, id: &str) -> Self {
        Self {
            shared,
            name: name.to_owned(),
            id: id.to_owned(),
            owner: uuid::Uuid::new_v4().to_string(),
            order: AtomicU64::new(now_ms()),
            state: Mutex::default(),
            moving: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// An error of ours, with what it is about.
    pub(super) fn named(&self, error: Error) -> Error {
        error.about(&format!("{}/{}", self.name, self.id))
    }

    /// Looks at what an agent holds under our id.
    pub(super) async fn look(&self, agent: usize, queue: Queue, limit: Duration) -> Result<Held> {
        Ok(self.look_closely(agent, queue, limit).await?.0)
    }

    /// The same, with the checks of the service itself.
    async fn look_closely(&self, agent: usize, queue: Queue, limit: Duration) -> Result<(Held, Vec<Check>)> {
        let path = format!("/v1/agent/health/service/id/{}", segment(&self.id));
        let agents = &self.shared.agents;
        let answer = agents.call(agent, queue, Method::GET, &path, None, limit).await?;
        if !matches!(answer.status, 200 | 404 | 429 | 503) {
            return Err(self.refused(&answer, "read"));
        }
        // The status is that of the service, if it is Consul that answers.
        let service: AgentService = match answer.json() {
            Ok(service) => service,
            Err(error) if matches!(answer.status, 200 | 404) => return Err(error),
            Err(_) => return Err(self.refused(&answer, "read")),
        };
        if service.service.is_none() {
            return Ok((Held::Nothing, Vec::new()));
        }
        let mut checks = service.checks.unwrap_or_default();
        checks.retain(|check| check.service == self.id); // the others are of the node
        let mark = record::mark_of(&checks, &self.id);
        let held = match mark {
            Some(mark) if mark.owner == self.owner => Held::Ours {
                generation: Some(mark.generation),
                passes: checks
                    .iter()
                    .any(|check| check.id == record::check_id(&self.id) && check.status == "passing"),
            },
            // Without a heartbeat there is no mark, and what stands there may as well be ours.
            None if !self.shared.options.heartbeat => Held::Ours {
                generation: None,
                passes: true,
            },
            mark => Held::Other(mark.and_then(|mark| mark.order)),
        };
        if matches!(held, Held::Ours { .. }) {
            let mut state = self.lock();
            let is_current = state.at.is_none_or(|at| at == agent);
            if is_current && !matches!(state.switch, Switch::Owed(_)) {
                let reason = record::switched_off(&checks);
                state.switch = reason.map_or(Switch::On, |reason| Switch::Off(reason.to_owned()));
            }
        }
        Ok((held, checks))
    }

    /// Whether another owner, by the order of its mark, came before us. One without an order is taken for a newer one.
    pub(super) fn outlived(&self, order: Option<u64>) -> bool {
        order.is_some_and(|order| order < self.order.load(Ordering::Relaxed))
    }

    /// The ids at an agent that others can't tell from ours.
    pub(super) async fn twins(&self, agent: usize, queue: Queue, limit: Duration) -> Result<Vec<String>> {
        twins(&self.shared.agents, agent, queue, &self.id, limit).await
    }

    /// Registers at one agent, unless another owner keeps the id there. What is there must be known to be free or ours
    /// for `Keep`; for `Claim` the question finds out whether the id can be asked for at all.
    pub(super) async fn register(
        &self,
        agent: usize,
        instance: &ServiceInstance,
        generation: u64,
        intent: Intent,
        limit: Duration,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        let (held, before) = self.look_closely(agent, Queue::Writes, limit).await?;
        let is_newer = match held {
            Held::Other(order) if intent == Intent::Claim => {
                self.order
                    .fetch_max(order.map_or(0, |order| order.saturating_add(1)), Ordering::Relaxed);
                false
            }
            Held::Other(order) => !self.outlived(order),
            Held::Nothing if intent == Intent::Keep => !self.twins(agent, Queue::Writes, limit).await?.is_empty(),
            Held::Nothing | Held::Ours { .. } => false,
        };
        if is_newer {
            let why = format!("the service id {:?} belongs to a newer registration", self.id);
            return Err(self.shared.agents.error(agent, ErrorKind::Replaced, why));
        }
        let mark = Mark {
            order: Some(self.order.load(Ordering::Relaxed)),
            owner: self.owner.clone(),
            generation,
        };
        let owed = {
            let mut state = self.lock();
            state.wrote(agent, Instant::now()); // before it is sent: this future may be dropped at any await
            state.unanswered = true;
            if held == Held::Nothing
                && let Switch::Off(reason) = &state.switch
            {
                state.switch = Switch::Owed(reason.clone());
            }
            match &state.switch {
                Switch::Owed(reason) => Some(reason.clone()),
                Switch::On | Switch::Off(_) => None,
            }
        };
        // Nobody is to see it before the switch is back.
        let status = if owed.is_some() {
            record::CRITICAL
        } else {
            record::PASSING
        };
        let body = record::body(instance, &self.shared.options, &mark, status);
        // Without `replace-existing-checks`: it would undo the switch of an operator with all other checks.
        let path = "/v1/agent/service/register";
        let agents = &self.shared.agents;
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = agents
            .call(agent, Queue::Writes, Method::PUT, path, Some(body), left)
            .await?;
        self.lock().unanswered = false;
        if !answer.is_ok() {
            return Err(self.refused(&answer, "register"));
        }
        if let Some(reason) = owed {
            let left = deadline.saturating_duration_since(Instant::now());
            self.switch_off(agent, &reason, left).await?;
        }
        // Checks that someone else left under this id, or we with more endpoints, would be counted with ours.
        let ours = record::check_ids(instance, &self.shared.options);
        for check in before
            .iter()
            .filter(|check| !record::is_switch(&check.id) && !ours.contains(&check.id))
        {
            let path = format!("/v1/agent/check/deregister/{}", segment(&check.id));
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = agents
                .call(agent, Queue::Writes, Method::PUT, &path, None, left)
                .await?;
            if !(answer.is_ok() || answer.status == 404) {
                return Err(self.refused(&answer, "take a check away from"));
            }
        }
        if self.shared.options.heartbeat {
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.pass(agent, Queue::Writes, left).await? {
                let why = "it was deregistered by someone else as soon as it was registered";
                return Err(self.shared.agents.error(agent, ErrorKind::Unavailable, why));
            }
        }
        Ok(())
    }

    /// Puts an operator's switch back where the service had to go.
    async fn switch_off(&self, agent: usize, reason: &str, limit: Duration) -> Result<()> {
        let (id, text) = (segment(&self.id), segment(reason));
        let path = format!("/v1/agent/service/maintenance/{id}?enable=true&reason={text}");
        let agents = &self.shared.agents;
        let answer = agents
            .call(agent, Queue::Writes, Method::PUT, &path, None, limit)
            .await?;
        if !answer.is_ok() {
            return Err(self.refused(&answer, "put into maintenance again"));
        }
        self.lock().switch = Switch::Off(reason.to_owned());
        Ok(())
    }

    /// Renews the TTL check. `false` when the agent does not know it.
    pub(super) async fn pass(&self, agent: usize, queue: Queue, limit: Duration) -> Result<bool> {
        let sent = Instant::now();
        let path = format!("/v1/agent/check/update/{}", segment(&record::check_id(&self.id)));
        let body = r#"{"Status":"passing","Output":"pass"}"#.to_owned();
        let answer = self
            .shared
            .agents
            .call(agent, queue, Method::PUT, &path, Some(body), limit)
            .await?;
        match answer.status {
            200 => {
                let mut state = self.lock();
                state.renewed = Some(sent);
                state.wrote(agent, sent);
                Ok(true)
            }
            404 => Ok(false),
            _ => Err(self.refused(&answer, "renew")),
        }
    }

    /// Removes what is ours from one agent.
    pub(super) async fn remove(&self, agent: usize, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        if !matches!(self.look(agent, Queue::Writes, limit).await?, Held::Ours { .. }) {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        self.deregister(agent, &self.id, left).await
    }

    /// Deregisters a service of an agent, whosever it is.
    async fn deregister(&self, agent: usize, id: &str, limit: Duration) -> Result<()> {
        let path = format!("/v1/agent/service/deregister/{}", segment(id));
        let agents = &self.shared.agents;
        let answer = agents
            .call(agent, Queue::Writes, Method::PUT, &path, None, limit)
            .await?;
        if answer.is_ok() || answer.status == 404 {
            Ok(())
        } else {
            Err(self.refused(&answer, "deregister"))
        }
    }

    fn refused(&self, answer: &Answer, what: &str) -> Error {
        if let Some(error) = refused_word(answer, "instance.id", &self.id) {
            return error.at(answer.base());
        }
        let error = answer.refusal(&format!("could not {what} the service {:?}", self.id));
        if error.kind() != ErrorKind::PermissionDenied {
            return error;
        }
        let message = format!(
            "{}; the token needs a policy with: service {:?} {{ policy = \"write\" }}",
            error.message(),
            self.name
        );
        Error::new(ErrorKind::PermissionDenied, message).caused_by(error)
    }

    /// Where the catalog's entries of our id are read.
    fn entries_path(&self) -> String {
        let filter = segment(&format!("Service.ID == {}", filter_text(&self.id)));
        format!("/v1/health/service/{}?filter={filter}", segment(&self.name))
    }

    /// Takes what is ours out of the catalog, through an agent that answers, where the one that holds it does not. Were it left
    /// to its TTL check, others would see it from when its agent goes on until that has told of the check.
    pub(super) async fn strike(&self, agent: usize) -> Result<()> {
        let agents = &self.shared.agents;
        let path = self.entries_path();
        let call = |queue, method, path, body| agents.call(agent, queue, method, path, body, agents.limit());
        let answer = call(Queue::Sight, Method::GET, &path, None).await?;
        if !answer.is_ok() && (answer.status == 403 || answer.says("Permission denied")) {
            return Ok(()); // who may write and not read leaves it to its check
        }
        for entry in answer.checked()?.list::<ServiceEntry>()?.into_iter().flatten() {
            if entry.id() != self.id || entry.mark().is_none_or(|mark| mark.owner != self.owner) {
                continue;
            }
            let body = serde_json::json!({ "Node": entry.node(), "ServiceID": self.id }).to_string();
            let answer = call(Queue::Writes, Method::PUT, "/v1/catalog/deregister", Some(body)).await?;
            // Who may not leaves it to its check.
            if !(answer.is_ok() || answer.status == 403) {
                return Err(self.refused(&answer, "take out of the catalog"));
            }
        }
        Ok(())
    }

    /// Waits until the catalog, which others read, satisfies `done` of our entries in it; `what` it waits for is shown
    /// when it takes too long, with what `done` says hinders it.
    async fn settled(
        &self,
        agent: usize,
        what: &str,
        done: impl Fn(Vec<ServiceEntry>) -> Result<(), String>,
    ) -> Result<()> {
        let agents = &self.shared.agents;
        let path = self.entries_path();
        let started = Instant::now();
        let limit = self.shared.options.timeout.mul_f64(0.9);
        let mut pause = LOOK_PAUSE.0;
        loop {
            // Never a blocking query: for each of these an agent keeps a view of its own, twenty minutes after the last.
            let answer = agents
                .call(agent, Queue::Sight, Method::GET, &path, None, agents.limit())
                .await?;
            if !answer.is_ok() && (answer.status == 403 || answer.says("Permission denied")) || answer.filtered {
                return Ok(()); // who may write and not read has to believe it
            }
            if let Some(error) = refused_word(&answer, "instance.name", &self.name) {
                return Err(error.at(answer.base()));
            }
            let answer = answer.checked()?;
            let entries = answer.list::<ServiceEntry>()?.into_iter().flatten(); // what can't be read is not of ours
            let mine = entries.filter(|entry| entry.id() == self.id);
            let Err(why) = done(mine.collect()) else {
                return Ok(());
            };
            if started.elapsed() > limit {
                return Err(agents.error(agent, ErrorKind::Unavailable, format!("{what}: {why}")));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LOOK_PAUSE.1);
        }
    }

    /// Waits until others see this publication.
    async fn visible(&self, agent: usize, instance: &ServiceInstance, generation: u64) -> Result<()> {
        let wanted = record::as_read(instance);
        let (heartbeat, passing) = (self.shared.options.heartbeat, self.shared.options.passing_only);
        self.settled(agent, "registered, but not visible", |entries| {
            let mut why = "the catalog does not have it yet".to_owned();
            for entry in entries {
                let current = match entry.mark() {
                    Some(mark) => mark.owner == self.owner && mark.generation >= generation,
                    None => false,
                };
                // What an operator has taken out of traffic is there; nobody sees it until the operator wants it.
                let failing = entry.failing().filter(|_| !entry.is_switched_off());
                let failing = failing.map(|check| check.id.clone());
                let current =
                    current || !heartbeat && entry.into_instance(&wanted.name).is_ok_and(|read| read == wanted);
                match failing {
                    _ if !current => {}
                    Some(check) if passing => why = format!("its check {check:?} does not pass"),
                    _ => return Ok(()),
                }
            }
            Err(why)
        })
        .await
    }

    /// Waits until others see this publication, and nobody another spelling of its id.
    pub(super) async fn seen(
        &self,
        agent: usize,
        instance: &ServiceInstance,
        generation: u64,
        intent: Intent,
    ) -> Result<()> {
        let visible = self.visible(agent, instance, generation);
        tokio::try_join!(visible, self.alone(agent, intent)).map(|_| ())
    }

    /// Waits until the agent holds this publication no more: somebody else claims its id as well, and it will not be seen.
    pub(super) async fn overtaken(&self, agent: usize, generation: u64) -> Error {
        loop {
            sleep(OVERTAKEN).await;
            let held = self.look(agent, Queue::Writes, self.shared.agents.limit()).await;
            let is_there = match held {
                Ok(Held::Ours { generation: last, .. }) => last.is_none_or(|last| last >= generation),
                Ok(Held::Nothing | Held::Other(_)) => false,
                Err(_) => true, // for all we know
            };
            if !is_there {
                let why = "it was removed or written over by someone else as soon as it was registered";
                return self.shared.agents.error(agent, ErrorKind::Unavailable, why);
            }
        }
    }

    /// Whether the id that was claimed is ours in every spelling. If not, all go, ours too: the agent tells the catalog
    /// so before it answers, and what it is told anew after that is shown.
    async fn alone(&self, agent: usize, intent: Intent) -> Result<()> {
        if intent == Intent::Keep {
            return Ok(());
        }
        let limit = self.shared.agents.limit();
        let twins = self.twins(agent, Queue::Writes, limit).await?;
        let Some(twin) = twins.first() else {
            return Ok(());
        };
        let why = format!("the service id {twin:?}, which is the same to Consul, stood there and had to go first");
        for id in twins.iter().chain([&self.id]) {
            self.deregister(agent, id, limit).await?;
        }
        Err(self.shared.agents.error(agent, ErrorKind::Unavailable, why))
    }

    /// Waits until nobody sees a record of ours.
    pub(super) async fn invisible(&self, agent: usize) -> Result<()> {
        if !self.shared.options.heartbeat {
            return self
                .settled(agent, "deregistered, but still visible", |entries| {
                    if entries.is_empty() {
                        Ok(())
                    } else {
                        Err("the catalog still has it".to_owned())
                    }
                })
                .await;
        }
        self.settled(agent, "deregistered, but still visible", |entries| {
            let visible = entries
                .iter()
                .any(|entry| entry.mark().is_some_and(|mark| mark.owner == self.owner) && entry.failing().is_none());
            if visible {
                Err("the catalog still has it".to_owned())
            } else {
                Ok(())
            }
        })
        .await
    }
}

/// Milliseconds since 1970 by the clock on the wall; 0 before.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

#[async_trait]
impl Leftover for Record {
    /// All that is not the record that stands.
    async fn clear(&self, agent: usize) -> bool {
        // A publication may be moving there right now.
        let Ok(_moving) = self.moving.try_lock() else {
            return false;
        };
        if self.lock().at == Some(agent) {
            return true;
        }
        let is_removed = self.remove(agent, CLEARED).await.is_ok();
        if is_removed {
            self.lock().forget(agent);
        }
        is_removed
    }
}
