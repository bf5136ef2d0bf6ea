//! A scripted backend for the tests of the state machines: what it answers is set beforehand, what it was asked is
//! written down. Time is tokio's paused clock.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::backend::{Backend, Capabilities, Follow, Intent, Loss, NAMES_EVERY, Presence, ServiceName, Snapshot};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::ServiceInstance;

/// What one attempt does.
#[derive(Debug, Clone)]
pub enum Answer {
    Ok,
    Fail(ErrorKind),
    /// No answer, ever.
    Hang,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Publish(String, Intent),
    Stop,
    Withdraw,
    Follow,
    FollowServices,
}

/// What a stream of names gives.
pub type NamesRead = Result<Vec<Arc<ServiceName>>>;
pub type Snapshots = mpsc::UnboundedSender<Result<Snapshot>>;

pub struct Scripted {
    pub publish: Mutex<VecDeque<Answer>>,
    pub withdraw: Mutex<VecDeque<Answer>>,
    pub asked: Mutex<Vec<(Instant, Asked)>>,
    pub loss: watch::Sender<Option<Loss>>,
    /// What was taken away stands again, until it is taken away once more.
    pub reappears: watch::Sender<bool>,
    /// The streams that the next calls of `follow` give; without one they fail as unavailable.
    pub streams: Mutex<VecDeque<mpsc::UnboundedReceiver<Result<Snapshot>>>>,
    /// Follow by polling instead, this often; and what the reads give: a snapshot, no answer, or (empty) an error.
    pub poll: Mutex<Option<Duration>>,
    pub reads: Mutex<VecDeque<Option<Snapshot>>>,
    pub in_flight: Mutex<(usize, usize)>,
    pub capabilities: Mutex<Capabilities>,
    /// As `streams`, of `follow_services`; without one the names are polled.
    pub names: Mutex<VecDeque<mpsc::UnboundedReceiver<NamesRead>>>,
    /// What the reads of the names give; an error when there is no more.
    pub name_reads: Mutex<VecDeque<Vec<String>>>,
}

impl Scripted {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            publish: Mutex::default(),
            withdraw: Mutex::default(),
            asked: Mutex::default(),
            loss: watch::Sender::new(None),
            reappears: watch::Sender::new(false),
            streams: Mutex::default(),
            poll: Mutex::default(),
            reads: Mutex::default(),
            in_flight: Mutex::default(),
            capabilities: Mutex::new(Capabilities::USUAL),
            names: Mutex::default(),
            name_reads: Mutex::default(),
        })
    }

    pub fn answers(&self, publish: impl IntoIterator<Item = Answer>) {
        self.publish.lock().unwrap().extend(publish);
    }

    pub fn withdrawals(&self, withdraw: impl IntoIterator<Item = Answer>) {
        self.withdraw.lock().unwrap().extend(withdraw);
    }

    pub fn lose(&self, loss: Loss) {
        self.loss.send_replace(Some(loss));
    }

    /// Lines up a stream for a call of `follow`.
    pub fn stream(&self) -> Snapshots {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.streams.lock().unwrap().push_back(receiver);
        sender
    }

    /// The same for a call of `follow_services`.
    pub fn names(&self) -> mpsc::UnboundedSender<NamesRead> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.names.lock().unwrap().push_back(receiver);
        sender
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .map(|(_, asked)| asked.clone())
            .collect()
    }

    pub fn published(&self) -> usize {
        self.asked()
            .iter()
            .filter(|asked| matches!(asked, Asked::Publish(..)))
            .count()
    }

    fn note(&self, asked: Asked) {
        self.asked.lock().unwrap().push((Instant::now(), asked));
    }
}

async fn answer(answer: Option<Answer>) -> Result<()> {
    match answer.unwrap_or(Answer::Ok) {
        Answer::Ok => Ok(()),
        Answer::Fail(kind) => Err(Error::new(kind, "scripted")),
        Answer::Hang => std::future::pending().await,
    }
}

/// The handle on a script that is the backend.
pub struct ScriptedBackend(pub Arc<Scripted>);

#[async_trait]
impl Backend for ScriptedBackend {
    fn capabilities(&self) -> Capabilities {
        *self.0.capabilities.lock().unwrap()
    }

    fn place(&self) -> String {
        "the script".to_owned()
    }

    fn endpoint(&self) -> Option<String> {
        Some("script:1".to_owned())
    }

    async fn contact(&self) -> Result<()> {
        Ok(())
    }

    fn presence(&self, _: &str, _: &str) -> Result<Box<dyn Presence>> {
        Ok(Box::new(ScriptedPresence(self.0.clone())))
    }

    async fn fetch(&self, _: &str) -> Result<Snapshot> {
        let next = self.0.reads.lock().unwrap().pop_front();
        match next {
            Some(Some(snapshot)) => Ok(snapshot),
            Some(None) => std::future::pending().await,
            None => Err(Error::new(ErrorKind::Unavailable, "scripted")),
        }
    }

    fn follow(&self, _: &str) -> Follow {
        self.0.note(Asked::Follow);
        if let Some(every) = *self.0.poll.lock().unwrap() {
            return Follow::Poll(every);
        }
        Follow::Stream(match self.0.streams.lock().unwrap().pop_front() {
            Some(stream) => UnboundedReceiverStream::new(stream).boxed(),
            None => async { Err(Error::new(ErrorKind::Unavailable, "scripted")) }
                .into_stream()
                .boxed(),
        })
    }

    async fn services(&self) -> Result<Vec<String>> {
        let next = self.0.name_reads.lock().unwrap().pop_front();
        next.ok_or_else(|| Error::new(ErrorKind::Unavailable, "scripted"))
    }

    fn follow_services(&self) -> Follow<Vec<Arc<ServiceName>>> {
        self.0.note(Asked::FollowServices);
        match self.0.names.lock().unwrap().pop_front() {
            Some(stream) => Follow::Stream(UnboundedReceiverStream::new(stream).boxed()),
            None => Follow::Poll(NAMES_EVERY),
        }
    }

    async fn close(&self) {}
}

pub struct ScriptedPresence(pub Arc<Scripted>);

pub const TTL: Duration = Duration::from_secs(15);

#[async_trait]
impl Presence for ScriptedPresence {
    async fn publish(&mut self, instance: &ServiceInstance, intent: Intent) -> Result<()> {
        self.0.note(Asked::Publish(instance.version.to_string(), intent));
        {
            let mut in_flight = self.0.in_flight.lock().unwrap();
            in_flight.0 += 1;
            in_flight.1 = in_flight.1.max(in_flight.0);
        }
        let next = self.0.publish.lock().unwrap().pop_front();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let result = answer(next).await;
        self.0.in_flight.lock().unwrap().0 -= 1;
        if result.is_ok() {
            self.0.loss.send_replace(None);
        }
        result
    }

    async fn lost(&mut self) -> Loss {
        let mut loss = self.0.loss.subscribe();
        let loss = loss.wait_for(Option::is_some).await.unwrap();
        loss.clone().unwrap()
    }

    fn stop(&mut self) {
        self.0.note(Asked::Stop);
    }

    async fn withdraw(&mut self) -> Result<()> {
        self.0.note(Asked::Withdraw);
        let next = self.0.withdraw.lock().unwrap().pop_front();
        answer(next).await?;
        self.0.reappears.send_replace(false);
        Ok(())
    }

    async fn reappeared(&mut self) {
        let mut reappears = self.0.reappears.subscribe();
        reappears.wait_for(|it_does| *it_does).await.unwrap();
    }

    fn ttl(&self) -> Duration {
        TTL
    }
}

/// An instance whose version is what the test looks at.
pub fn instance(id: &str, version: &str) -> ServiceInstance {
    ServiceInstance {
        id: id.into(),
        name: "orders".into(),
        version: version.into(),
        ..ServiceInstance::default()
    }
}
