//! Keeps one name followed: one state machine for all backends, one follower per name and client, however many watchers.
//!
//! ```text
//!            first list                    connection lost, history broken
//!  Loading ─────────────► Live ◄─────────────────────────────► Stale
//!     │                             whole list read anew         │ ▲
//!     │ refused (permission, argument)                           ▼ │ read, but more than half is missing
//!     ▼                                                        Guarded ── emptyGraceMs over: the truth ──► Live
//!  Refused: every waiting `next()` rejects
//! ```
//!
//! The newest list lies in a `tokio::sync::watch` channel: the latest wins, nothing queues, a slow consumer skips states.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::{Backend, BadRecord, Follow, Snapshot};
use crate::backoff::{Backoff, CEILING};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::{Metadata, ServiceInstance};
use crate::log::Log;
use crate::sync::lock;

mod breaks;

pub(crate) use self::breaks::Breaks;

/// A whole, consistent read of a name: sorted by id, no instance twice. Unchanged instances keep their `Arc` from list
/// to list.
pub type List = Arc<[Arc<ServiceInstance>]>;

/// What is known of a name.
#[derive(Clone, Default)]
pub struct View {
    /// The last list; `None` until the first has been read.
    pub list: Option<List>,
    /// Counts the lists, from 1; 0 before the first.
    pub version: u64,
    /// Whether the registry can't vouch for `list` at the moment.
    pub stale: bool,
    /// Why the registry refuses to say anything of this name. Set only while `list` is `None`.
    pub refused: Option<Error>,
}

/// Told of the bad records of each snapshot of a name.
pub(crate) type OnBad = Arc<dyn Fn(&str, &[BadRecord]) + Send + Sync>;

/// What a follower needs from its client.
pub(crate) struct Source {
    pub backend: Arc<dyn Backend>,
    /// Reads in flight, of the whole client.
    pub reads: Arc<Semaphore>,
    /// One read.
    pub timeout: Duration,
    /// How long a list that lost more than half its instances in a break is held back; zero switches that off.
    pub empty_grace: Duration,
    pub on_bad: OnBad,
    pub closed: CancellationToken,
    /// Where followers run, so that the client can wait for their end.
    pub tasks: TaskTracker,
    pub log: Log,
    pub breaks: Breaks,
}

/// The followers of one client, by name.
pub(crate) struct Followers {
    source: Arc<Source>,
    by_name: Mutex<std::collections::HashMap<String, Weak<Following>>>,
}

/// One name being followed. The task ends with the last `Arc`.
struct Following {
    view: watch::Sender<View>,
    over: CancellationToken,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

/// Follows a name. Dropping it frees everything; the last watcher of a name ends its follower.
#[derive(Clone)]
pub struct Watcher {
    following: Arc<Following>,
    view: watch::Receiver<View>,
    delivered: Option<List>,
    closed: CancellationToken,
}

impl Followers {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source: Arc::new(source),
            by_name: Mutex::default(),
        }
    }

    /// A watcher of `name`, with a follower of its own if there is none. Must be called inside the runtime.
    pub(crate) fn watch(&self, name: &str) -> Watcher {
        let mut by_name = lock(&self.by_name);
        let following = by_name.get(name).and_then(Weak::upgrade).unwrap_or_else(|| {
            // Amortized: the map is swept when it has doubled since the last time.
            if by_name.len() == by_name.capacity() {
                by_name.retain(|_, following| following.strong_count() > 0);
            }
            let following = Arc::new(Following {
                view: watch::Sender::new(View::default()),
                over: CancellationToken::new(),
            });
            by_name.insert(name.to_owned(), Arc::downgrade(&following));
            let follower = Follower {
                source: self.source.clone(),
                name: name.to_owned(),
                view: following.view.clone(),
                grace: None,
            };
            let (over, closed) = (following.over.clone(), self.source.closed.clone());
            self.source.tasks.spawn(async move {
                tokio::select! {
                    () = over.cancelled() => {}
                    () = closed.cancelled() => {}
                    () = follower.run() => {}
                }
            });
            following
        });
        Watcher {
            view: following.view.subscribe(),
            following,
            delivered: None,
            closed: self.source.closed.clone(),
        }
    }

    /// The list of a name that is being followed and has been read, stale or not.
    pub(crate) fn current(&self, name: &str) -> Option<List> {
        let by_name = lock(&self.by_name);
        by_name.get(name)?.upgrade()?.view.borrow().list.clone()
    }
}

impl Watcher {
    /// The next list that differs from the last one this watcher gave; the first at once when it is known. `None` when
    /// the client was closed. Waits while the registry can't be reached; fails only when it refuses before the first
    /// list. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<List>> {
        loop {
            {
                let view = self.view.borrow_and_update();
                match (&view.list, &self.delivered) {
                    (Some(list), Some(before)) if list == before => {}
                    (Some(list), _) => {
                        self.delivered = Some(list.clone());
                        return Ok(Some(list.clone()));
                    }
                    (None, _) => {
                        if let Some(refusal) = &view.refused {
                            return Err(refusal.clone());
                        }
                    }
                }
            }
            tokio::select! {
                () = self.closed.cancelled() => return Ok(None),
                changed = self.view.changed() => if changed.is_err() { return Ok(None) },
            }
        }
    }

    /// What is known now.
    pub fn view(&self) -> View {
        self.peek(View::clone)
    }

    /// Looks at what is known now without copying it. `look` must be short: it holds up the next list.
    pub fn peek<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.following.view.borrow())
    }

    /// Changes of the view, for those who look at it themselves.
    pub fn views(&self) -> watch::Receiver<View> {
        self.following.view.subscribe()
    }
}

struct Follower {
    source: Arc<Source>,
    name: String,
    view: watch::Sender<View>,
    /// How long a list that lacks too much is still held back. Set by the first such read, cleared by the next
    /// delivery. Runs only while reading goes on: who comes back from an outage deserves the time to.
    grace: Option<Duration>,
}

impl Follower {
    async fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            let started = Instant::now();
            let error = self.follow_once().await;
            // A stream that stood longer than the longest pause was no failed try.
            if started.elapsed() > CEILING {
                backoff.reset();
            }
            self.note_break(&error);
            sleep(backoff.next_pause()).await;
        }
    }

    /// From one connection to its loss. Says why it ended.
    async fn follow_once(&mut self) -> Error {
        let (mut stream, first) = match self.source.backend.follow(&self.name) {
            Follow::Poll(every) => {
                let mut stream = self.polled(every);
                let first = stream.next().await;
                (stream, first)
            }
            Follow::Stream(mut stream) => {
                // Never closed. The permit covers the read that opens the stream, not the stream.
                let _permit = self.source.reads.acquire().await;
                let Ok(first) = timeout(self.source.timeout, stream.next()).await else {
                    return Error::no_answer(self.source.timeout);
                };
                (stream, first)
            }
        };
        let mut held_back = match first {
            Some(Ok(snapshot)) => self.read(snapshot),
            other => return broken(other),
        };
        let began = Instant::now();
        let allowed = self.grace.unwrap_or_default();
        let end = loop {
            tokio::select! {
                biased;
                item = stream.next() => match item {
                    Some(Ok(snapshot)) if held_back.is_some() => held_back = self.read(snapshot),
                    Some(Ok(snapshot)) => {
                        let list = self.take(snapshot);
                        self.deliver(list);
                    }
                    other => break broken(other),
                },
                () = sleep_until(began + allowed), if held_back.is_some() => {
                    if let Some(list) = held_back.take() {
                        self.source.log.warn(format_args!(
                            "{}: the list is still without more than half of its instances; believing it now ({} left)",
                            self.name, list.len()
                        ));
                        self.deliver(list);
                    }
                }
            }
        };
        if held_back.is_some() {
            self.grace = Some(allowed.saturating_sub(began.elapsed()));
        }
        end
    }

    /// The stream of a registry that can only be asked: a paced, bounded read about `every` so often. Ends with the
    /// first failure.
    fn polled(&self, every: Duration) -> BoxStream<'static, Result<Snapshot>> {
        let (source, name) = (self.source.clone(), self.name.clone());
        stream::unfold(Some(Duration::ZERO), move |pause| {
            let (source, name) = (source.clone(), name.clone());
            async move {
                sleep(pause?).await;
                let _permit = source.reads.acquire().await; // never closed
                let read = timeout(source.timeout, source.backend.fetch(&name)).await;
                let read = read.unwrap_or_else(|_| Err(Error::no_answer(source.timeout)));
                // Jittered, so that a thousand names do not fall into step.
                let next = read.is_ok().then(|| every.mul_f64(0.9 + fastrand::f64() / 5.0));
                Some((read, next))
            }
        })
        .boxed()
    }

    /// The first reads after a break: delivers the list, or gives it back when it lacks too much to be believed yet.
    fn read(&mut self, snapshot: Snapshot) -> Option<List> {
        let list = self.take(snapshot);
        let grace = self.source.empty_grace;
        let lacking = {
            let view = self.view.borrow();
            view.list
                .as_ref()
                .map_or(0, |old| if lacks_more_than_half(old, &list) { old.len() } else { 0 })
        };
        if lacking == 0 || grace.is_zero() {
            self.deliver(list);
            return None;
        }
        let left = *self.grace.get_or_insert_with(|| {
            self.source.log.warn(format_args!(
                "{}: after a break {} of {lacking} instances are left; keeping the old list for up to {} ms (emptyGraceMs)",
                self.name,
                list.len(),
                grace.as_millis()
            ));
            grace
        });
        if left.is_zero() {
            self.deliver(list);
            return None;
        }
        Some(list)
    }

    /// Reports bad records and brings a snapshot into the form of a list.
    fn take(&self, snapshot: Snapshot) -> List {
        (self.source.on_bad)(&self.name, &snapshot.bad);
        let view = self.view.borrow();
        to_list(snapshot.instances, view.list.as_deref().unwrap_or(&[]))
    }

    fn deliver(&mut self, list: List) {
        self.grace = None;
        self.view.send_if_modified(|view| {
            let changed = view.list.as_ref() != Some(&list);
            if changed {
                view.list = Some(list);
                view.version += 1;
            }
            let fresh = std::mem::replace(&mut view.stale, false);
            view.refused = None;
            changed || fresh
        });
    }

    fn note_break(&self, error: &Error) {
        let mut known = false;
        let changed = self.view.send_if_modified(|view| {
            known = view.list.is_some();
            if known {
                !std::mem::replace(&mut view.stale, true)
            } else if error.is_retryable() {
                false
            } else {
                view.refused = Some(error.clone());
                true
            }
        });
        if changed && known {
            self.source.breaks.tell(&self.name, error);
        } else {
            self.source
                .log
                .debug(format_args!("{}: the watch could not be opened: {error}", self.name));
        }
    }
}

fn broken(end: Option<Result<Snapshot>>) -> Error {
    match end {
        Some(Err(error)) => error,
        _ => Error::new(ErrorKind::Unavailable, "the registry ended the watch"),
    }
}

/// Sorts by id and endpoints, removes repeats of both, and takes over unchanged instances from the list before. Total
/// order: what comes out depends on what is there, not on the order in which it was read.
pub(crate) fn to_list(mut instances: Vec<Arc<ServiceInstance>>, before: &[Arc<ServiceInstance>]) -> List {
    instances.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| rest(a).cmp(&rest(b))));
    instances.dedup_by(|later, earlier| place(later) == place(earlier));
    let mut at = 0;
    for instance in &mut instances {
        while before.get(at).is_some_and(|old| place(old) < place(instance)) {
            at += 1;
        }
        if let Some(old) = before.get(at)
            && !Arc::ptr_eq(old, instance)
            && old == instance
        {
            *instance = old.clone();
        }
    }
    instances.into()
}

/// For each instance of a list, where the very same one stood in the list before, or -1: what a reader who has that one
/// need not be handed again.
pub fn places(before: &List, list: &List) -> Vec<i32> {
    let mut at = 0;
    list.iter()
        .map(|instance| {
            while before.get(at).is_some_and(|old| place(old) < place(instance)) {
                at += 1;
            }
            let same = before.get(at).is_some_and(|old| Arc::ptr_eq(old, instance));
            i32::try_from(at).ok().filter(|_| same).unwrap_or(-1)
        })
        .collect()
}

/// What makes an instance one: in Consul two agents may hold one id.
fn place(instance: &ServiceInstance) -> (&str, &[Box<str>]) {
    (&instance.id, &instance.endpoints)
}

fn rest(instance: &ServiceInstance) -> (&str, &Metadata) {
    (&instance.version, &instance.metadata)
}

/// Whether more than half of the old list's ids are missing in the new one. Both are sorted by id.
fn lacks_more_than_half(old: &[Arc<ServiceInstance>], new: &[Arc<ServiceInstance>]) -> bool {
    let mut at = 0;
    let missing = old
        .iter()
        .filter(|old| {
            while new.get(at).is_some_and(|new| new.id < old.id) {
                at += 1;
            }
            new.get(at).is_none_or(|new| new.id != old.id)
        })
        .count();
    missing * 2 > old.len()
}

#[cfg(test)]
mod tests;
