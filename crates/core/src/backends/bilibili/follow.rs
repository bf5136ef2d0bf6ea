//! Names followed by long polls, many in one request.
//!
//! A node answers a poll when one of its names changes, and after 30 s. Two polls under one host name are given each
//! other's answers, so each has one of its own. One name that the node does not know fails the whole poll: unknown ones are
//! asked for apart, once a second. What a poll is told with each name is a counter that begins anew when the last instance
//! leaves, so a poll may wait for a number that does not come: after each that was not answered the lists are read.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::future::pending;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::nodes::{Answer, Call, NOT_FOUND, NOT_MODIFIED, Node, Queue};
use super::record::{Entry, Info, form, snapshot};
use super::shared::Shared;
use crate::backend::Snapshot;
use crate::error::{Error, Result};
use crate::sync::lock;

/// Names of one poll, and how long their part of its URL may be: proxies cut long ones off.
const NAMES: usize = 100;
const LONG: usize = 6144;
/// More than a node holds a poll.
const HELD: Duration = Duration::from_secs(40);
/// How often unknown names are asked for.
const UNKNOWN_EVERY: Duration = Duration::from_secs(1);
/// Names that come together are asked for together.
const TOGETHER: Duration = Duration::from_millis(10);
/// A held poll is silent. So a short question is asked beside it this often, and twice before its silence is believed.
const LIFE_EVERY: Duration = Duration::from_secs(5);
const LIFE_LIMIT: Duration = Duration::from_secs(3);
/// How long after the answer to a poll its names are read once more. What happens until the next poll stands may be heard of
/// by none: the server looks whether there is news, and notes who waits, in two steps; and an operator's switch moves no counter.
const CONFIRM_AFTER: Duration = Duration::from_millis(200);
/// The pause after an answer that should not have come yet.
const AGAIN: Duration = Duration::from_millis(200);

/// The polls of one client.
#[derive(Default)]
pub(super) struct Hub {
    batches: Mutex<Vec<Weak<Batch>>>,
}

/// Names that share a poll.
#[derive(Default)]
struct Batch {
    state: Mutex<BatchState>,
    /// A name came or went.
    changed: Notify,
    task: Mutex<Option<AbortHandle>>,
}

#[derive(Default)]
struct BatchState {
    /// Those that the task has not seen yet.
    new: Vec<(Weak<Followed>, bool)>,
    names: usize,
    length: usize,
    /// It takes no more names.
    over: bool,
}

/// What is told to the stream of a name.
#[derive(Clone)]
enum Told {
    Nothing,
    List(Snapshot),
    Broken(Error),
}

/// A name that somebody follows, for as long as they hold it.
struct Followed {
    name: Arc<str>,
    told: watch::Sender<Told>,
    batch: Arc<Batch>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        let mut state = lock(&self.batch.state);
        state.names -= 1;
        state.length -= length(&self.name);
        drop(state);
        self.batch.changed.notify_one();
    }
}

/// What a name takes of a URL.
fn length(name: &str) -> usize {
    form(&[("appid", name), ("latest_timestamp", "1234567890")]).len() + 1
}

impl Hub {
    /// A name in a batch that has room.
    fn join(&self, shared: &Arc<Shared>, name: &Arc<str>, is_known: bool) -> Arc<Followed> {
        let mut batches = lock(&self.batches);
        batches.retain(|batch| batch.strong_count() > 0);
        let length = length(name);
        let has_room = |batch: &Arc<Batch>| {
            let state = lock(&batch.state);
            !state.over && state.names < NAMES && state.length + length <= LONG
        };
        let batch = batches.iter().filter_map(Weak::upgrade).find(has_room);
        let is_new = batch.is_none();
        let batch = batch.unwrap_or_default();
        let followed = Arc::new(Followed {
            name: Arc::clone(name),
            told: watch::Sender::new(Told::Nothing),
            batch: Arc::clone(&batch),
        });
        {
            let mut state = lock(&batch.state);
            state.names += 1;
            state.length += length;
            state.new.push((Arc::downgrade(&followed), is_known));
        }
        if is_new {
            let task = tokio::spawn(run(Arc::clone(shared), Arc::clone(&batch)));
            *lock(&batch.task) = Some(task.abort_handle());
            batches.push(Arc::downgrade(&batch));
        }
        batch.changed.notify_one();
        followed
    }

    /// Ends all polls, whoever follows.
    pub(super) fn stop(&self) {
        for batch in lock(&self.batches).drain(..).filter_map(|batch| batch.upgrade()) {
            if let Some(task) = lock(&batch.task).take() {
                task.abort();
            }
        }
    }
}

/// Follows a name: what one read tells, then what the polls do.
pub(super) fn follow(shared: Arc<Shared>, hub: Arc<Hub>, name: &str) -> BoxStream<'static, Result<Snapshot>> {
    enum State {
        Start,
        On(Arc<Followed>, watch::Receiver<Told>),
        Over,
    }
    let start = (shared, Arc::<str>::from(name), State::Start);
    stream::unfold(start, move |(shared, name, state)| {
        let hub = Arc::clone(&hub);
        async move {
            match state {
                State::Start => match shared.fetch(&name).await {
                    Ok((list, is_known)) => {
                        let followed = hub.join(&shared, &name, is_known);
                        let told = followed.told.subscribe();
                        Some((Ok(list), (shared, name, State::On(followed, told))))
                    }
                    Err(error) => Some((Err(error), (shared, name, State::Over))),
                },
                State::On(followed, mut told) => loop {
                    told.changed().await.ok()?; // we hold the sender
                    // Taken: whoever keeps a list has what did not change of the one before, and the rest would be held twice.
                    let now = take(&followed.told);
                    match now {
                        Told::List(list) => break Some((Ok(list), (shared, name, State::On(followed, told)))),
                        Told::Broken(error) => break Some((Err(error.about(&name)), (shared, name, State::Over))),
                        Told::Nothing => {} // taken with the one before
                    }
                },
                State::Over => None,
            }
        }
    })
    .boxed()
}

/// What was told last, without a word to anybody.
fn take(told: &watch::Sender<Told>) -> Told {
    let mut taken = Told::Nothing;
    told.send_if_modified(|held| {
        taken = std::mem::replace(held, Told::Nothing);
        false
    });
    taken
}

type Lists = HashMap<Box<str>, Option<Info<Entry>>>;
type Held = Pin<Box<dyn Future<Output = Result<Answer<Lists>>> + Send>>;

/// What the task of a batch knows of a name.
struct Member {
    followed: Weak<Followed>,
    name: Arc<str>,
    /// The counter that its last list came with, 0 before the first; `None` where the node does not know the name.
    at: Option<i64>,
    /// Its last list came by a poll, and is to be read once more.
    is_fresh: bool,
}

/// The task of a batch.
struct Polling {
    shared: Arc<Shared>,
    batch: Arc<Batch>,
    node: Arc<Node>,
    members: Vec<Member>,
    /// When unknown names are asked for next.
    ask: Instant,
    /// When lists are read once more.
    confirm: Option<Instant>,
    held: Option<Held>,
}

async fn run(shared: Arc<Shared>, batch: Arc<Batch>) {
    let mut polling = Polling {
        node: shared.nodes.current(),
        shared,
        batch,
        members: Vec::new(),
        ask: Instant::now(),
        confirm: None,
        held: None,
    };
    let ended = polling.run().await;
    let left = {
        let mut state = lock(&polling.batch.state);
        state.over = true;
        std::mem::take(&mut state.new)
    };
    if let Err(error) = ended {
        polling.shared.nodes.failed(&polling.node);
        let members = polling.members.iter().map(|member| &member.followed);
        for followed in members.chain(left.iter().map(|(followed, _)| followed)) {
            if let Some(followed) = followed.upgrade() {
                followed.told.send_replace(Told::Broken(error.clone()));
            }
        }
    }
}

impl Polling {
    /// Until nobody follows any of its names, or the node can't be believed.
    async fn run(&mut self) -> Result<()> {
        let silent = silent(Arc::clone(&self.shared), Arc::clone(&self.node));
        let mut silent = std::pin::pin!(silent);
        loop {
            if !self.settle() {
                return Ok(());
            }
            if self.held.is_none() && self.members.iter().any(|member| member.at.is_some()) {
                self.held = Some(self.poll());
            }
            let unknown = self.members.iter().any(|member| member.at.is_none());
            let held = async {
                match &mut self.held {
                    Some(held) => held.await,
                    None => pending().await,
                }
            };
            let asks = async {
                if unknown {
                    sleep_until(self.ask).await;
                } else {
                    pending::<()>().await;
                }
            };
            let confirms = async {
                match self.confirm {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                answer = held => {
                    self.held = None;
                    self.answered(answer?).await?;
                }
                () = asks => {
                    self.ask = Instant::now() + UNKNOWN_EVERY.mul_f64(0.9 + fastrand::f64() / 10.0);
                    self.read(|member| member.at.is_none()).await?;
                }
                () = confirms => {
                    self.confirm = None;
                    self.read(|member| member.is_fresh).await?;
                }
                () = self.batch.changed.notified() => sleep(TOGETHER).await,
                error = &mut silent => return Err(error),
            }
        }
    }

    /// Takes in what came and drops what went. False when nothing is left, and then nothing comes any more.
    fn settle(&mut self) -> bool {
        let new = std::mem::take(&mut lock(&self.batch.state).new);
        let before = self.members.len();
        self.members.retain(|member| member.followed.strong_count() > 0);
        let mut is_changed = self.members.len() != before;
        for (followed, is_known) in new {
            let Some(name) = followed.upgrade().map(|followed| Arc::clone(&followed.name)) else {
                continue;
            };
            if !is_known {
                self.ask = Instant::now(); // it may have come since it was read
            }
            let at = is_known.then_some(0);
            is_changed |= is_known;
            let is_fresh = false;
            self.members.push(Member {
                followed,
                name,
                at,
                is_fresh,
            });
        }
        if is_changed {
            self.held = None;
        }
        let mut state = lock(&self.batch.state);
        state.over = self.members.is_empty() && state.new.is_empty();
        !state.over
    }

    /// A poll of all names that are known, under a host name of its own.
    fn poll(&self) -> Held {
        static POLLS: AtomicU64 = AtomicU64::new(0);
        let mut at: HashMap<&str, i64> = HashMap::new();
        for member in &self.members {
            if let Some(seen) = member.at {
                // A name may be here twice, where somebody begins to follow it anew.
                at.entry(&member.name)
                    .and_modify(|at| *at = seen.min(*at))
                    .or_insert(seen);
            }
        }
        let host = format!("rollcall-{}-{}", Uuid::new_v4(), POLLS.fetch_add(1, Ordering::Relaxed));
        let mut query = form(&[("env", &self.shared.options.env), ("hostname", &host)]);
        for (name, at) in at {
            let _ = write!(query, "&{}&latest_timestamp={at}", form(&[("appid", name)])); // writing to a String cannot fail
        }
        let (shared, node) = (Arc::clone(&self.shared), Arc::clone(&self.node));
        Box::pin(async move {
            let call = Call::get("/discovery/polls", query);
            shared.nodes.hold(&node, &call, HELD).await
        })
    }

    async fn answered(&mut self, answer: Answer<Lists>) -> Result<()> {
        match answer.code {
            0 => {
                let mut lists = answer.data.unwrap_or_default();
                let names: Vec<_> = self.members.iter().map(|member| Arc::clone(&member.name)).collect();
                lists.retain(|name, _| names.iter().any(|asked| **asked == **name));
                if lists.is_empty() {
                    sleep(AGAIN).await; // of a name that sounds like one of ours with the environment before it
                }
                if !lists.is_empty() {
                    self.confirm = Some(Instant::now() + CONFIRM_AFTER);
                }
                self.take_in(lists, true)
            }
            NOT_MODIFIED | NOT_FOUND => {
                let read = self.read(|_| true).await;
                if answer.code == NOT_FOUND && self.members.iter().all(|member| member.at.is_some()) {
                    sleep(AGAIN).await; // it is known meanwhile
                }
                read
            }
            code => Err(self.node.strange(&format!("the code {code} to a poll"))),
        }
    }

    /// Reads the lists of names at once.
    async fn read(&mut self, which: impl Fn(&Member) -> bool) -> Result<()> {
        let asked: Vec<Arc<str>> = self
            .members
            .iter()
            .filter(|member| which(member))
            .map(|member| Arc::clone(&member.name))
            .collect();
        let mut query = form(&[("env", &self.shared.options.env), ("status", "1")]);
        for name in &asked {
            query.push('&');
            query.push_str(&form(&[("appid", name)]));
        }
        let nodes = &self.shared.nodes;
        let call = Call::get("/discovery/fetchs", query);
        let answer = nodes
            .call::<Lists>(&self.node, Queue::Reads, &call, nodes.limit())
            .await?;
        let mut lists = answer.data.unwrap_or_default();
        for name in asked {
            lists.entry(Box::from(&*name)).or_insert(None);
        }
        self.take_in(lists, false)
    }

    /// Hands lists to those who follow. A name without one is not known, and so has no instance.
    fn take_in(&mut self, lists: Lists, are_polled: bool) -> Result<()> {
        for (name, info) in lists {
            let name = Arc::from(name);
            let at = info.as_ref().map(|info| info.latest_timestamp);
            if at.is_some_and(|at| at <= 0) {
                return Err(self.node.strange("a list without its latest_timestamp"));
            }
            let list = info.map(|info| snapshot(&self.shared.options, &name, info));
            for member in self.members.iter_mut().filter(|member| member.name == name) {
                let was_known = member.at.is_some();
                member.at = at;
                member.is_fresh = are_polled;
                if was_known && at.is_none() {
                    self.ask = Instant::now(); // another may have come in its place
                }
                if (was_known || at.is_some())
                    && let Some(followed) = member.followed.upgrade()
                {
                    followed.told.send_replace(Told::List(list.clone().unwrap_or_default()));
                }
                if !was_known && at.is_some() {
                    self.held = None; // it is polled with the others from now on
                }
            }
        }
        Ok(())
    }
}

/// Resolves when the node does not answer any more.
async fn silent(shared: Arc<Shared>, node: Arc<Node>) -> Error {
    loop {
        sleep(LIFE_EVERY.mul_f64(0.8 + fastrand::f64() * 0.4)).await;
        let nodes = &shared.nodes;
        if !nodes.answers(&node, LIFE_LIMIT).await && !nodes.answers(&node, LIFE_LIMIT).await {
            return node.silent(LIFE_LIMIT * 2);
        }
    }
}
