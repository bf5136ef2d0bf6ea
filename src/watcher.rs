//! One watcher, of a name, of the names or of the pairs of a store, as JavaScript holds it. It is told that there is something new and takes the
//! latest list itself: nothing queues, and a slow consumer skips states.

use std::sync::{Arc, Mutex};

use napi::bindgen_prelude::{Array, Int32Array};
use napi::{Env, Result};
use napi_derive::napi;
use rollcall_core::ServiceInstance;
use rollcall_core::backend::ServiceName;
use rollcall_core::store::{Moment, Pair};
use rollcall_core::sync::lock;
use rollcall_core::watch::{Difference, Entry, List, View, Watcher, difference};
use tokio::task::AbortHandle;

use crate::convert::to_array;
use crate::events::Mailbox;
use crate::failure::NativeFailure;
use crate::io::Io;
use crate::pairs::{NativePair, revision_of};

/// What the handles of all kinds are made of.
struct WatcherInner<E: Entry> {
    id: u32,
    /// `None` once it was stopped. Holding it keeps the subject followed.
    watcher: Mutex<Option<Watcher<E>>>,
    task: AbortHandle,
    /// The list that JavaScript took last through this handle, and its number.
    taken: Mutex<(u64, List<E>)>,
}

/// The latest list, and how it differs from the one that was taken before.
struct Taken<E> {
    version: f64,
    moment: Option<Moment>,
    list: List<E>,
    /// `None` where the reader has another one than that.
    difference: Option<Difference>,
}

impl<E: Entry> WatcherInner<E> {
    fn start(id: u32, watcher: &Watcher<E>, mailbox: Arc<Mailbox>, io: &Arc<Io>) -> Self {
        let mut views = watcher.views();
        let task = io.handle().spawn(async move {
            let (mut version, mut resets, mut stale, mut refused) = (0, 0, false, false);
            loop {
                {
                    let view = views.borrow_and_update();
                    // Before the list that it explains.
                    if std::mem::replace(&mut resets, view.resets) != view.resets {
                        mailbox.put("reset", id, None);
                    }
                    if std::mem::replace(&mut version, view.version) != view.version {
                        mailbox.notice(id);
                    }
                    if std::mem::replace(&mut stale, view.stale) != view.stale {
                        mailbox.put(if view.stale { "stale" } else { "fresh" }, id, None);
                    }
                    if view.refused.is_some() && !std::mem::replace(&mut refused, true) {
                        mailbox.put("watchError", id, None);
                    }
                }
                if views.changed().await.is_err() {
                    return;
                }
            }
        });
        Self {
            id,
            watcher: Mutex::new(Some(watcher.clone())),
            task: task.abort_handle(),
            taken: Mutex::new((0, List::from([]))),
        }
    }

    /// Looks at what is known; the default once it was stopped.
    fn peek<T: Default>(&self, look: impl FnOnce(&View<E>) -> T) -> T {
        let watcher = lock(&self.watcher);
        watcher.as_ref().map(|watcher| watcher.peek(look)).unwrap_or_default()
    }

    /// 0 once it was stopped.
    fn attempts(&self) -> u32 {
        lock(&self.watcher).as_ref().map_or(0, Watcher::attempts)
    }

    #[allow(clippy::cast_precision_loss)] // exact to 2^53 lists
    fn version(&self) -> f64 {
        self.peek(|view| view.version as f64)
    }

    #[allow(clippy::cast_precision_loss, clippy::float_cmp)] // counts, exact to 2^53
    fn take(&self, known: f64) -> Taken<E> {
        let view = self.peek(View::clone);
        let list = view.list.unwrap_or_else(|| List::from([]));
        let before = {
            let mut taken = lock(&self.taken);
            std::mem::replace(&mut *taken, (view.version, list.clone()))
        };
        let difference = (before.0 > 0 && before.0 as f64 == known).then(|| difference(&before.1, &list));
        Taken {
            version: view.version as f64,
            moment: view.moment,
            list,
            difference,
        }
    }

    fn error(&self) -> Option<NativeFailure> {
        self.peek(|view| view.refused.as_ref().map(NativeFailure::from))
    }

    fn stop(&self) {
        self.task.abort();
        lock(&self.watcher).take();
    }
}

impl<E: Entry> Drop for WatcherInner<E> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<E> Taken<E> {
    /// What the reader does not have yet.
    fn unknown(&self) -> Vec<&E> {
        match &self.difference {
            None => self.list.iter().map(AsRef::as_ref).collect(),
            Some(Difference { head, places, .. }) => {
                let between = self.list[*head..].iter().zip(places);
                between
                    .filter(|(_, place)| **place < 0)
                    .map(|(new, _)| &**new)
                    .collect()
            }
        }
    }
}

/// How a list differs from the one known before.
#[napi(object, object_from_js = false)]
pub struct NativeDifference {
    /// So many entries at the beginning are as before.
    pub head: u32,
    /// And so many at the end.
    pub tail: u32,
    /// For each entry between them, where the same one stood before, or -1 for the next new one.
    pub places: Int32Array,
}

impl From<Difference> for NativeDifference {
    fn from(Difference { head, tail, places }: Difference) -> Self {
        let count = |entries| u32::try_from(entries).unwrap_or(u32::MAX);
        Self {
            head: count(head),
            tail: count(tail),
            places: Int32Array::new(places),
        }
    }
}

/// What the handles do alike. napi knows no generic classes, so each is one of its own, made of the same inside.
macro_rules! watcher_handle {
    ($handle:ident of $entry:ident) => {
        #[napi]
        pub struct $handle(WatcherInner<$entry>);

        impl $handle {
            pub fn start(id: u32, watcher: &Watcher<$entry>, mailbox: Arc<Mailbox>, io: &Arc<Io>) -> Self {
                Self(WatcherInner::start(id, watcher, mailbox, io))
            }
        }

        #[napi]
        impl $handle {
            #[napi(catch_unwind)]
            pub fn id(&self) -> u32 {
                self.0.id
            }

            #[napi(catch_unwind)]
            pub fn stale(&self) -> bool {
                self.0.peek(|view| view.stale)
            }

            /// The number of the latest list; 0 while there is none.
            #[napi(catch_unwind)]
            pub fn version(&self) -> f64 {
                self.0.version()
            }

            /// How often it was tried up to now to begin to follow it, for all its watchers.
            #[napi(catch_unwind)]
            pub fn attempts(&self) -> u32 {
                self.0.attempts()
            }

            /// Why the registry refuses the watch, if it does.
            #[napi(catch_unwind)]
            pub fn error(&self) -> Option<NativeFailure> {
                self.0.error()
            }

            /// Ends it and frees the native side. May be repeated.
            #[napi(catch_unwind)]
            pub fn stop(&self) {
                self.0.stop();
            }
        }
    };
}

watcher_handle!(WatcherHandle of ServiceInstance);

/// A list and its number. Numbers grow with each new list of a name.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct NativeList<'env> {
    pub version: f64,
    /// `null` when `instances` is the whole list.
    pub difference: Option<NativeDifference>,
    /// What is new.
    #[napi(ts_type = "Array<NativeInstance>")]
    pub instances: Array<'env>,
}

#[napi]
impl WatcherHandle {
    /// The latest list: what is new in it, if the list `known` was the last one taken through this handle.
    #[napi(catch_unwind)]
    pub fn take<'env>(&self, env: &'env Env, known: f64) -> Result<NativeList<'env>> {
        let taken = self.0.take(known);
        let instances = to_array(env, taken.unknown().into_iter())?;
        Ok(NativeList {
            version: taken.version,
            difference: taken.difference.map(Into::into),
            instances,
        })
    }
}

watcher_handle!(ServicesWatcherHandle of ServiceName);

/// A list of names and its number.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct NativeNames {
    pub version: f64,
    /// `null` when `names` is the whole list.
    pub difference: Option<NativeDifference>,
    /// Those that are new.
    pub names: Vec<String>,
    /// How many instances each of them has; -1 where the registry does not say.
    pub counts: Int32Array,
}

#[napi]
impl ServicesWatcherHandle {
    /// The latest list: what is new in it, if the list `known` was the last one taken through this handle.
    #[napi(catch_unwind)]
    pub fn take(&self, known: f64) -> NativeNames {
        let taken = self.0.take(known);
        let new = taken.unknown();
        let count = |service: &&ServiceName| {
            service
                .count
                .map_or(-1, |count| i32::try_from(count).unwrap_or(i32::MAX))
        };
        NativeNames {
            version: taken.version,
            names: new.iter().map(|service| service.name.to_string()).collect(),
            counts: Int32Array::new(new.iter().map(count).collect()),
            difference: taken.difference.map(Into::into),
        }
    }
}

watcher_handle!(PairsWatcherHandle of Pair);

/// A list of pairs, its number, and the revision of the store at which it stood there.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct NativePairs {
    pub version: f64,
    pub revision: f64,
    /// `null` when `pairs` is the whole list.
    pub difference: Option<NativeDifference>,
    /// Those that are new.
    pub pairs: Vec<NativePair>,
}

#[napi]
impl PairsWatcherHandle {
    /// The latest list: what is new in it, if the list `known` was the last one taken through this handle.
    #[napi(catch_unwind)]
    pub fn take(&self, known: f64) -> NativePairs {
        let taken = self.0.take(known);
        NativePairs {
            version: taken.version,
            revision: revision_of(taken.moment.unwrap_or_default()),
            pairs: taken.unknown().into_iter().map(Into::into).collect(),
            difference: taken.difference.map(Into::into),
        }
    }
}
