//! How a record stands at a node: looking at it, writing it and removing it, one attempt each.
//!
//! A node that can't reach a peer, because that is frozen, takes a write and never answers it. So what a call that timed
//! out has done is looked for.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use uuid::Uuid;

use super::nodes::{Call, NOT_FOUND, Node, Queue};
use super::record::{self, Raw, UP, Writing};
use super::shared::Shared;
use crate::backend::Intent;
use crate::error::{Error, ErrorKind, Result};
use crate::instance::ServiceInstance;
use crate::sync::lock;

/// How long a look after a call that timed out may take.
const LOOK: Duration = Duration::from_secs(1);
/// So often a record is written before whoever writes it as well is let have it.
const TRIES: u32 = 2;

/// One registration, and where it was written.
pub(super) struct Record {
    pub shared: Arc<Shared>,
    pub name: Arc<str>,
    pub id: Arc<str>,
    owner: String,
    state: Mutex<Standing>,
    /// Held while the record is written or removed.
    pub moving: tokio::sync::Mutex<()>,
}

pub(super) struct Standing {
    /// The nodes that it was sent to.
    pub written: Vec<Arc<Node>>,
    /// The one that renews it.
    pub at: Option<Arc<Node>>,
    pub renewed: Option<Instant>,
    /// The generation that was published last.
    pub published: u64,
    pub instance: Arc<ServiceInstance>,
    /// What operators have set. The registry forgets it with the record.
    status: u32,
    /// Of the last writing.
    dirty: i64,
    /// A writing was not answered, and may arrive late.
    pub unanswered: bool,
}

/// What stands at a node.
pub(super) enum Held {
    Nothing,
    Ours { generation: u64, dirty: i64 },
    Other { dirty: i64, status: u32 },
}

impl Record {
    pub(super) fn new(shared: Arc<Shared>, name: &str, id: &str) -> Self {
        Self {
            shared,
            name: name.into(),
            id: id.into(),
            owner: Uuid::new_v4().to_string(),
            state: Mutex::new(Standing {
                written: Vec::new(),
                at: None,
                renewed: None,
                published: 0,
                instance: Arc::default(),
                status: UP,
                dirty: 0,
                unanswered: false,
            }),
            moving: tokio::sync::Mutex::new(()),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Standing> {
        lock(&self.state)
    }

    /// Names what an error is about.
    pub(super) fn named(&self, error: Error) -> Error {
        error.about(&format!("{}/{}", self.name, self.id))
    }

    fn key(&self) -> String {
        record::key(&self.shared.options, &self.name, &self.id)
    }

    /// What a record in an answer is to us.
    fn read(&self, raw: Option<Raw>) -> Held {
        let Some(raw) = raw else {
            return Held::Nothing;
        };
        let dirty = raw.dirty;
        match raw.mark() {
            Some((owner, generation)) if owner == self.owner => {
                self.lock().status = raw.status;
                Held::Ours { generation, dirty }
            }
            _ => Held::Other {
                dirty,
                status: raw.status,
            },
        }
    }

    /// What the node has, of whomever. A renewal on behalf of a peer tells without telling the peers.
    pub(super) async fn look(&self, node: &Arc<Node>, queue: Queue, limit: Duration) -> Result<Held> {
        let query = format!("{}&replication=true&dirty_timestamp=0", self.key());
        let call = Call::post("/discovery/renew", query);
        let answer = self.shared.nodes.call::<Raw>(node, queue, &call, limit).await?;
        Ok(match answer.code {
            NOT_FOUND => Held::Nothing,
            _ => self.read(answer.data),
        })
    }

    /// Renews, at the node and its peers. One that is not answered may have been taken all the same.
    pub(super) async fn renew(&self, node: &Arc<Node>, limit: Duration) -> Result<Held> {
        let nodes = &self.shared.nodes;
        let call = Call::post("/discovery/renew", self.key());
        let sent = Instant::now();
        let held = match nodes.call::<Raw>(node, Queue::Renewals, &call, limit).await {
            Ok(answer) if answer.code == NOT_FOUND => Held::Nothing,
            Ok(answer) => self.read(answer.data),
            Err(error) if error.kind() == ErrorKind::Timeout => {
                self.look(node, Queue::Renewals, LOOK).await.map_err(|_| error)?
            }
            Err(error) => return Err(error),
        };
        if matches!(held, Held::Ours { .. }) {
            self.lock().renewed = Some(sent);
        }
        Ok(held)
    }

    /// Writes the record at a node, and looks whether it stands.
    pub(super) async fn register(
        &self,
        node: &Arc<Node>,
        instance: &ServiceInstance,
        generation: u64,
        intent: Intent,
        limit: Duration,
    ) -> Result<()> {
        let Shared { nodes, options, .. } = &*self.shared;
        let mut held = self.look(node, Queue::Writes, limit).await?;
        for _ in 0..TRIES {
            let below = match held {
                Held::Other { .. } if intent == Intent::Keep => return Err(replaced()),
                Held::Other { dirty, status } => {
                    self.lock().status = status; // what operators have set is of the id
                    dirty
                }
                Held::Ours { dirty, .. } => dirty,
                Held::Nothing => 0,
            };
            let writing = {
                let mut state = self.lock();
                // Above our own writings before, so that none of them undoes this one when it comes late. Where ours stands
                // no higher than that: whoever takes the id in between is above it.
                let next = below.max(state.dirty) + 1;
                let is_ours = matches!(held, Held::Ours { .. });
                state.dirty = if is_ours { next } else { next.max(now()) };
                if !state.written.contains(node) {
                    state.written.push(Arc::clone(node));
                }
                state.unanswered = true;
                Writing {
                    owner: &self.owner,
                    generation,
                    dirty: state.dirty,
                    status: state.status,
                }
            };
            let call = Call::post("/discovery/register", record::registration(options, instance, &writing));
            let sent = Instant::now();
            let answer = nodes.call::<serde_json::Value>(node, Queue::Writes, &call, limit).await;
            held = match answer {
                Ok(answer) if answer.code == 0 => self.look(node, Queue::Writes, limit).await?,
                Ok(answer) => return Err(node.strange(&format!("the code {} to a registration", answer.code))),
                Err(error) if error.kind() == ErrorKind::Timeout => {
                    self.look(node, Queue::Writes, LOOK).await.map_err(|_| error)?
                }
                Err(error) => return Err(error),
            };
            match held {
                Held::Ours { generation: stands, .. } if stands == generation => {
                    self.lock().renewed = Some(sent);
                    return Ok(());
                }
                Held::Nothing => {
                    let (host, why) = (&node.host, "has not kept the record: somebody canceled it");
                    let text = format!("the discovery node at {host} {why}");
                    return Err(node.error(ErrorKind::Unavailable, text));
                }
                Held::Ours { .. } | Held::Other { .. } => {} // it stands above ours
            }
        }
        Err(replaced())
    }

    /// Removes what is ours at a node, and with it at its peers.
    pub(super) async fn remove(&self, node: &Arc<Node>, limit: Duration) -> Result<()> {
        if !matches!(self.look(node, Queue::Writes, limit).await?, Held::Ours { .. }) {
            return Ok(());
        }
        let call = Call::post("/discovery/cancel", self.key());
        let nodes = &self.shared.nodes;
        match nodes.call::<serde_json::Value>(node, Queue::Writes, &call, limit).await {
            Ok(_) => Ok(()), // gone, or gone before
            Err(error) if error.kind() == ErrorKind::Timeout => match self.look(node, Queue::Writes, LOOK).await {
                Ok(Held::Nothing | Held::Other { .. }) => Ok(()),
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }
}

fn replaced() -> Error {
    Error::new(ErrorKind::Replaced, "another owner holds the id")
}

/// What a node takes where it is told none: nanoseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX - 1)
}
