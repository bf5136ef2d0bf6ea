//! One watcher, as JavaScript holds it. It is told that there is something new and takes the latest list itself:
//! nothing queues, and a slow consumer skips states.

use std::sync::{Arc, Mutex};

use napi::bindgen_prelude::{Array, Int32Array};
use napi::{Env, Result};
use napi_derive::napi;
use rollcall_core::sync::lock;
use rollcall_core::watch::{List, View, Watcher, places};
use tokio::task::AbortHandle;

use crate::convert::to_array;
use crate::events::Mailbox;
use crate::failure::NativeFailure;
use crate::io::Io;

#[napi]
pub struct WatcherHandle {
    id: u32,
    /// `None` once it was stopped. Holding it keeps the name followed.
    watcher: Mutex<Option<Watcher>>,
    task: AbortHandle,
    /// The list that JavaScript took last through this handle, and its number.
    taken: Mutex<(u64, List)>,
}

/// A list and its number. Numbers grow with each new list of a name.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct NativeList<'env> {
    pub version: f64,
    /// For each place of the list, where the same instance stood in the list known before, or -1 for the next of
    /// `instances`; `null` when `instances` is the whole list.
    pub kept: Option<Int32Array>,
    #[napi(ts_type = "Array<NativeInstance>")]
    pub instances: Array<'env>,
}

impl WatcherHandle {
    pub fn start(id: u32, watcher: &Watcher, mailbox: Arc<Mailbox>, io: &Arc<Io>) -> Self {
        let mut views = watcher.views();
        let task = io.handle().spawn(async move {
            let (mut version, mut stale, mut refused) = (0, false, false);
            loop {
                {
                    let view = views.borrow_and_update();
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
    fn peek<T: Default>(&self, look: impl FnOnce(&View) -> T) -> T {
        let watcher = lock(&self.watcher);
        watcher.as_ref().map(|watcher| watcher.peek(look)).unwrap_or_default()
    }
}

#[napi]
impl WatcherHandle {
    #[napi(catch_unwind)]
    pub fn id(&self) -> u32 {
        self.id
    }

    #[napi(catch_unwind)]
    pub fn stale(&self) -> bool {
        self.peek(|view| view.stale)
    }

    /// The number of the latest list; 0 while there is none.
    #[napi(catch_unwind)]
    #[allow(clippy::cast_precision_loss)] // exact to 2^53 lists
    pub fn version(&self) -> f64 {
        self.peek(|view| view.version as f64)
    }

    /// The latest list: what is new in it, if the list `known` was the last one taken through this handle.
    #[napi(catch_unwind)]
    #[allow(clippy::cast_precision_loss, clippy::float_cmp)] // counts, exact to 2^53
    pub fn take<'env>(&self, env: &'env Env, known: f64) -> Result<NativeList<'env>> {
        let view = self.peek(View::clone);
        let list = view.list.unwrap_or_else(|| List::from([]));
        let before = {
            let mut taken = lock(&self.taken);
            std::mem::replace(&mut *taken, (view.version, list.clone()))
        };
        let kept = (before.0 > 0 && before.0 as f64 == known).then(|| places(&before.1, &list));
        let instances = match &kept {
            None => to_array(env, list.iter().map(AsRef::as_ref))?,
            Some(kept) => {
                let new: Vec<_> = list
                    .iter()
                    .zip(kept)
                    .filter(|(_, place)| **place < 0)
                    .map(|(new, _)| &**new)
                    .collect();
                to_array(env, new.into_iter())?
            }
        };
        Ok(NativeList {
            version: view.version as f64,
            kept: kept.map(Int32Array::new),
            instances,
        })
    }

    /// Why the registry refuses the watch, if it does.
    #[napi(catch_unwind)]
    pub fn error(&self) -> Option<NativeFailure> {
        self.peek(|view| view.refused.as_ref().map(NativeFailure::from))
    }

    /// Ends it and frees the native side. May be repeated.
    #[napi(catch_unwind)]
    pub fn stop(&self) {
        self.task.abort();
        lock(&self.watcher).take();
    }
}

impl Drop for WatcherHandle {
    fn drop(&mut self) {
        self.stop();
    }
}
