//! Keeps one name followed: one state machine for all backends, one reflector per name and client, however many watchers.
//!
//! [`state`] says where a name may stand, and [`reflector`] does what follows from it.
//!
//! The newest list lies in a `tokio::sync::watch` channel: the latest wins, nothing queues, a slow consumer skips states.

use std::sync::{Arc, Mutex, Weak};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::reflector::Reflector;
use crate::error::Result;
use crate::sync::lock;

mod breaks;
mod list;
mod reflector;
mod state;

pub(crate) use self::breaks::Breaks;
pub(crate) use self::list::to_list;
pub use self::list::{List, places};
pub use self::reflector::View;
pub(crate) use self::reflector::{OnBad, Source};

/// The reflectors of one client, by name.
pub(crate) struct Reflectors {
    source: Arc<Source>,
    by_name: Mutex<std::collections::HashMap<String, Weak<Store>>>,
}

/// Where a reflector puts what it reads. Its task ends with the last `Arc`.
struct Store {
    view: watch::Sender<View>,
    over: CancellationToken,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

/// Follows a name. Dropping it frees everything; the last watcher of a name ends its reflector.
#[derive(Clone)]
pub struct Watcher {
    store: Arc<Store>,
    view: watch::Receiver<View>,
    delivered: Option<List>,
    closed: CancellationToken,
}

impl Reflectors {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source: Arc::new(source),
            by_name: Mutex::default(),
        }
    }

    /// A watcher of `name`, with a reflector of its own if there is none. Must be called inside the runtime.
    pub(crate) fn watch(&self, name: &str) -> Watcher {
        let mut by_name = lock(&self.by_name);
        let store = by_name.get(name).and_then(Weak::upgrade).unwrap_or_else(|| {
            // Amortized: the map is swept when it has doubled since the last time.
            if by_name.len() == by_name.capacity() {
                by_name.retain(|_, store| store.strong_count() > 0);
            }
            let store = Arc::new(Store {
                view: watch::Sender::new(View::default()),
                over: CancellationToken::new(),
            });
            by_name.insert(name.to_owned(), Arc::downgrade(&store));
            let reflector = Reflector::new(self.source.clone(), name, store.view.clone());
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
        look(&self.store.view.borrow())
    }

    /// Changes of the view, for those who look at it themselves.
    pub fn views(&self) -> watch::Receiver<View> {
        self.store.view.subscribe()
    }
}

#[cfg(test)]
mod tests;
