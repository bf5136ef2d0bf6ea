//! One watch of a kind of objects for all who follow a name, or the names, while somebody does.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::client::Cluster;
use super::store::{Kind, Store};
use super::watching::{Sink, Watching};
use crate::backend::{ServiceName, Snapshot};
use crate::error::Error;
use crate::instance::ServiceInstance;
use crate::sync::lock;

/// An endpoint that moves may be in no slice for a moment: it is given up after this.
const SETTLES: Duration = Duration::from_millis(100);
/// What is told to who follows.
#[derive(Clone)]
pub(super) enum Told<T> {
    Nothing,
    List(T),
    Broken(Error),
}

/// What is done to what is known, and the names that it changes.
type Apply<'a> = dyn FnMut(&mut Store, &mut HashSet<Arc<str>>) + Send + 'a;

pub(super) type Names = Vec<Arc<ServiceName>>;

/// The watch of one kind, and who follows.
pub(super) struct Feed {
    pub kind: Kind,
    cluster: Arc<Cluster>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Counts the tasks: what was told by one that has ended is nobody's any more.
    run: u64,
    task: Option<AbortHandle>,
    /// What there is, once it is read.
    store: Option<Store>,
    topics: HashMap<Arc<str>, Topic>,
    names: Option<NamesTopic>,
}

/// A name that somebody follows.
struct Topic {
    told: watch::Sender<Told<Snapshot>>,
    /// Those that were told and are missing, and until when they are told all the same.
    missing: HashMap<Box<str>, (Arc<ServiceInstance>, Instant)>,
}

struct NamesTopic {
    told: watch::Sender<Told<Names>>,
    known: HashMap<Arc<str>, Arc<ServiceName>>,
    due: Option<Instant>,
}

/// Somebody who follows a name, or the names.
pub(super) struct Follower<T> {
    pub told: Option<watch::Receiver<Told<T>>>,
    feed: Arc<Feed>,
    /// The name; `None` for the names.
    name: Option<Arc<str>>,
    run: u64,
}

impl<T> Drop for Follower<T> {
    fn drop(&mut self) {
        drop(self.told.take());
        let mut state = lock(&self.feed.state);
        if state.run != self.run {
            return;
        }
        match &self.name {
            Some(name) => {
                if state
                    .topics
                    .get(name)
                    .is_some_and(|topic| topic.told.receiver_count() == 0)
                {
                    state.topics.remove(name);
                }
            }
            None => {
                if state
                    .names
                    .as_ref()
                    .is_some_and(|names| names.told.receiver_count() == 0)
                {
                    state.names = None;
                }
            }
        }
        if state.topics.is_empty() && state.names.is_none() {
            state.end();
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop();
    }
}

impl State {
    fn end(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.store = None;
        self.topics.clear();
        self.names = None;
    }
}

impl Feed {
    pub(super) fn new(kind: Kind, cluster: Arc<Cluster>) -> Arc<Self> {
        let state = Mutex::default();
        Arc::new(Self { kind, cluster, state })
    }

    /// Follows a name. Begins to watch, if nobody does yet.
    pub(super) fn follow(self: &Arc<Self>, name: &Arc<str>) -> Follower<Snapshot> {
        let mut state = lock(&self.state);
        self.begin(&mut state);
        let known = state
            .store
            .as_ref()
            .map(|store| store.snapshot(&self.cluster.options, name));
        let topic = state.topics.entry(Arc::clone(name)).or_insert_with(|| Topic {
            told: watch::Sender::new(known.map_or(Told::Nothing, Told::List)),
            missing: HashMap::new(),
        });
        let mut told = topic.told.subscribe();
        told.mark_changed();
        let (told, run) = (Some(told), state.run);
        drop(state);
        let (feed, name) = (Arc::clone(self), Some(Arc::clone(name)));
        Follower { told, feed, name, run }
    }

    /// Follows the names.
    pub(super) fn follow_names(self: &Arc<Self>) -> Follower<Names> {
        let mut state = lock(&self.state);
        self.begin(&mut state);
        let State { store, names, .. } = &mut *state;
        let topic = names.get_or_insert_with(|| {
            let mut topic = NamesTopic {
                told: watch::Sender::new(Told::Nothing),
                known: HashMap::new(),
                due: None,
            };
            if let Some(store) = store {
                topic.replace(store.names(&self.cluster.options));
            }
            topic
        });
        let mut told = topic.told.subscribe();
        told.mark_changed();
        let (told, run) = (Some(told), state.run);
        drop(state);
        let (feed, name) = (Arc::clone(self), None);
        Follower { told, feed, name, run }
    }

    fn begin(self: &Arc<Self>, state: &mut State) {
        if state.task.is_some() {
            return;
        }
        state.run += 1;
        let sink = Run {
            feed: Arc::downgrade(self),
            run: state.run,
        };
        let watching = Watching {
            sink,
            cluster: Arc::clone(&self.cluster),
            kind: self.kind,
        };
        let task = async move {
            let error = match watching.go().await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            if let Some(feed) = watching.sink.feed.upgrade() {
                feed.broken(watching.sink.run, &error);
            }
        };
        state.task = Some(tokio::spawn(task).abort_handle());
    }

    /// Ends it, whoever follows.
    pub(super) fn stop(&self) {
        lock(&self.state).end();
    }

    /// What was read anew.
    fn install(&self, run: u64, store: Store) {
        let mut state = lock(&self.state);
        if state.run != run || state.task.is_none() {
            return;
        }
        let options = &self.cluster.options;
        let State { topics, names, .. } = &mut *state;
        for (name, topic) in topics {
            topic.missing.clear();
            topic.told.send_replace(Told::List(store.snapshot(options, name)));
        }
        if let Some(names) = names {
            names.replace(store.names(options));
        }
        state.store = Some(store);
    }

    /// Takes in what has changed, and tells who follows it. Returns when there is more to tell.
    fn change(&self, run: u64, apply: &mut Apply<'_>) -> Option<Instant> {
        let mut state = lock(&self.state);
        if state.run != run {
            return None;
        }
        let options = &self.cluster.options;
        let (is_slow, now) = (self.kind == Kind::Slices, Instant::now());
        let State {
            store, topics, names, ..
        } = &mut *state;
        let store = store.as_mut()?;
        let mut changed = HashSet::new();
        apply(store, &mut changed);
        let mut next = None;
        let mut later = |due: Instant| next = Some(next.map_or(due, |next: Instant| next.min(due)));
        for (name, topic) in topics {
            if changed.contains(name) || topic.due().is_some_and(|due| due <= now) {
                let mut list = store.snapshot(options, name);
                if is_slow {
                    topic.settle(&mut list, now);
                }
                topic.told.send_replace(Told::List(list));
            }
            topic.due().into_iter().for_each(&mut later);
        }
        if let Some(names) = names {
            for name in &changed {
                names.note(name, store.has(options, name));
            }
        }
        if let Some(names) = names {
            match names.due {
                Some(due) if due <= now || !is_slow => names.replace(store.names(options)),
                Some(due) => later(due),
                None => {}
            }
        }
        next
    }

    fn broken(&self, run: u64, error: &Error) {
        let mut state = lock(&self.state);
        if state.run != run {
            return;
        }
        for topic in state.topics.values() {
            topic.told.send_replace(Told::Broken(error.clone()));
        }
        if let Some(names) = &state.names {
            names.told.send_replace(Told::Broken(error.clone()));
        }
        state.end();
        state.run += 1; // those who follow hold what is nobody's any more
    }
}

impl Topic {
    /// Adds to a list what was told before and is missing for a moment only.
    fn settle(&mut self, list: &mut Snapshot, now: Instant) {
        let ids: HashSet<&str> = list.instances.iter().map(|instance| &*instance.id).collect();
        self.missing.retain(|id, _| !ids.contains(&**id));
        if let Told::List(before) = &*self.told.borrow() {
            for instance in before.instances.iter().filter(|instance| !ids.contains(&*instance.id)) {
                let missing = (Arc::clone(instance), now + SETTLES);
                self.missing.entry(instance.id.clone()).or_insert(missing);
            }
        }
        self.missing.retain(|_, (_, until)| *until > now);
        list.instances
            .extend(self.missing.values().map(|(instance, _)| Arc::clone(instance)));
    }

    /// When what is missing is given up.
    fn due(&self) -> Option<Instant> {
        self.missing.values().map(|(_, until)| *until).min()
    }
}

impl NamesTopic {
    /// A name has instances, or none.
    fn note(&mut self, name: &Arc<str>, has: bool) {
        if self.known.contains_key(name) != has && self.due.is_none() {
            self.due = Some(Instant::now() + SETTLES);
        }
    }

    fn replace(&mut self, names: Vec<Arc<str>>) {
        self.due = None;
        let before = std::mem::take(&mut self.known);
        for name in names {
            let known = before.get(&name).cloned();
            let known = known.unwrap_or_else(|| {
                let name = Arc::clone(&name);
                Arc::new(ServiceName { name, count: None })
            });
            self.known.insert(name, known);
        }
        self.told
            .send_replace(Told::List(self.known.values().cloned().collect()));
    }
}

/// A feed, as one of its tasks tells it.
struct Run {
    feed: Weak<Feed>,
    run: u64,
}

impl Sink for Run {
    fn install(&self, store: Store) {
        if let Some(feed) = self.feed.upgrade() {
            feed.install(self.run, store);
        }
    }

    fn change(&self, apply: &mut Apply<'_>) -> Option<Instant> {
        self.feed.upgrade()?.change(self.run, apply)
    }
}
