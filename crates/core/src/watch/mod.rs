//! Keeps one name followed, or the names: one state machine for all backends, one reflector per [subject] and client,
//! however many watchers.
//!
//! [`state`] says where a subject may stand, and [`reflector`] does what follows from it.
//!
//! The newest list lies in a `tokio::sync::watch` channel: the latest wins, nothing queues, a slow consumer skips states.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::reflector::Reflector;
use crate::error::Result;
use crate::instance::ServiceInstance;
use crate::sync::lock;

mod breaks;
mod list;
mod reflector;
mod source;
mod state;
mod subject;

pub(crate) use self::breaks::Breaks;
pub(crate) use self::list::to_list;
pub use self::list::{Difference, Entry, List, difference};
pub use self::reflector::View;
pub(crate) use self::source::{Source, closed};
pub(crate) use self::subject::{Instances, Names, OnBad, Subject};

/// The reflectors of one client for one kind of subject.
pub(crate) struct Reflectors<S: Subject> {
    source: Arc<Source>,
    by_subject: Mutex<HashMap<S, Weak<Store<S::Entry>>>>,
}

/// Where a reflector puts what it reads. Its task ends with the last `Arc`.
struct Store<E> {
    view: watch::Sender<View<E>>,
    attempts: Arc<AtomicU32>,
    over: CancellationToken,
}

impl<E> Drop for Store<E> {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

/// Follows a name, or the names. Dropping it frees everything; the last watcher of a subject ends its reflector.
#[derive(Clone)]
pub struct Watcher<E = ServiceInstance> {
    store: Arc<Store<E>>,
    view: watch::Receiver<View<E>>,
    delivered: Option<List<E>>,
    closed: CancellationToken,
}

impl<S: Subject> Reflectors<S> {
    pub(crate) fn new(source: Arc<Source>) -> Self {
        Self {
            source,
            by_subject: Mutex::default(),
        }
    }

    /// A watcher of `subject`, with a reflector of its own if there is none. Must be called inside the runtime.
    pub(crate) fn watch(&self, subject: S) -> Watcher<S::Entry> {
        let mut by_subject = lock(&self.by_subject);
        let store = by_subject.get(&subject).and_then(Weak::upgrade).unwrap_or_else(|| {
            // Amortized: the map is swept when it has doubled since the last time.
            if by_subject.len() == by_subject.capacity() {
                by_subject.retain(|_, store| store.strong_count() > 0);
            }
            let store = Arc::new(Store {
                view: watch::Sender::new(View::default()),
                attempts: Arc::default(),
                over: CancellationToken::new(),
            });
            by_subject.insert(subject.clone(), Arc::downgrade(&store));
            let reflector = Reflector::new(self.source.clone(), subject, store.view.clone(), store.attempts.clone());
            let (over, closed) = (store.over.clone(), self.source.closed.clone());
            self.source.tasks.spawn(async move {
                tokio::select! {
                    () = over.cancelled() => {}
                    () = closed.cancelled() => {}
                    () = reflector.run() => {}
                }
            });
            store
        });
        Watcher {
            view: store.view.subscribe(),
            store,
            delivered: None,
            closed: self.source.closed.clone(),
        }
    }

    /// The list of a subject that is being followed and has been read, stale or not.
    pub(crate) fn current(&self, subject: &S) -> Option<List<S::Entry>> {
        let by_subject = lock(&self.by_subject);
        by_subject.get(subject)?.upgrade()?.view.borrow().list.clone()
    }
}

impl<E: Entry> Watcher<E> {
    /// The next list that differs from the last one this watcher gave; the first at once when it is known. `None` when
    /// the client was closed. Waits while the registry can't be reached; fails only when it refuses before the first
    /// list. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<List<E>>> {
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
    pub fn view(&self) -> View<E> {
        self.peek(View::clone)
    }

    /// Looks at what is known now without copying it. `look` must be short: it holds up the next list.
    pub fn peek<T>(&self, look: impl FnOnce(&View<E>) -> T) -> T {
        look(&self.store.view.borrow())
    }

    /// How often it was tried up to now to begin to follow the subject, for all its watchers: once, and once more after each
    /// break.
    pub fn attempts(&self) -> u32 {
        self.store.attempts.load(Ordering::Relaxed)
    }

    /// Changes of the view, for those who look at it themselves.
    pub fn views(&self) -> watch::Receiver<View<E>> {
        self.store.view.subscribe()
    }
}

#[cfg(test)]
mod tests;
