//! Tells people of watches that broke. What breaks one as a rule breaks all of a client, and a line for each of thousands
//! hides what else is said.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::Source;
use crate::error::Error;
use crate::sync::lock;

/// How long those that follow a first one are counted.
const TOGETHER: Duration = Duration::from_secs(1);

/// Those that have broken since the first was told, while they are counted.
#[derive(Default)]
pub(crate) struct Breaks(Mutex<Option<Counted>>);

#[derive(Default)]
struct Counted {
    more: usize,
    /// The name, and why.
    last: Option<(String, Error)>,
}

impl Breaks {
    /// The first is told at once, those of the second after it in one line; at debug each.
    pub(super) fn tell(&self, source: &Arc<Source>, name: &str, error: &Error) {
        if let Some(counted) = &mut *self.lock() {
            counted.more += 1;
            counted.last = Some((name.to_owned(), error.clone()));
            source.log.debug(format_args!("{name}: the watch broke: {error}"));
            return;
        }
        *self.lock() = Some(Counted::default());
        source.log.warn(format_args!(
            "{name}: the watch broke: {error}; the list is stale until it is read anew"
        ));
        let source = Arc::clone(source);
        source.tasks.clone().spawn(async move {
            let _ = tokio::time::timeout(TOGETHER, source.closed.cancelled()).await;
            let counted = source.breaks.lock().take().unwrap_or_default();
            if let Some((name, error)) = counted.last {
                source.log.warn(format_args!(
                    "{} more watches broke, the last that of {name}: {error}; their lists are stale until they are read anew",
                    counted.more
                ));
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Option<Counted>> {
        lock(&self.0)
    }
}
