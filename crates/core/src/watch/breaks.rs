//! Tells people of watches that broke. What breaks one as a rule breaks all of a client, and a line for each of thousands
//! hides what else is said.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::Error;
use crate::log::Log;
use crate::sync::lock;

/// How long those that follow a first one are counted.
const TOGETHER: Duration = Duration::from_secs(1);

/// Those that have broken since the first was told, while they are counted.
pub(crate) struct Breaks {
    counted: Arc<Mutex<Option<Counted>>>,
    closed: CancellationToken,
    /// Where the counting runs.
    tasks: TaskTracker,
    log: Log,
}

#[derive(Default)]
struct Counted {
    more: usize,
    /// The name, and why.
    last: Option<(String, Error)>,
}

impl Breaks {
    pub(crate) fn new(closed: CancellationToken, tasks: TaskTracker, log: Log) -> Self {
        Self {
            counted: Arc::default(),
            closed,
            tasks,
            log,
        }
    }

    /// The first is told at once, those of the second after it in one line; at debug each.
    pub(super) fn tell(&self, name: &str, error: &Error) {
        if let Some(counted) = &mut *lock(&self.counted) {
            counted.more += 1;
            counted.last = Some((name.to_owned(), error.clone()));
            self.log.debug(format_args!("{name}: the watch broke: {error}"));
            return;
        }
        *lock(&self.counted) = Some(Counted::default());
        self.log.warn(format_args!(
            "{name}: the watch broke: {error}; the list is stale until it is read anew"
        ));
        let (counted, closed, log) = (Arc::clone(&self.counted), self.closed.clone(), self.log.clone());
        self.tasks.spawn(async move {
            let _ = tokio::time::timeout(TOGETHER, closed.cancelled()).await;
            let counted = lock(&counted).take().unwrap_or_default();
            if let Some((name, error)) = counted.last {
                log.warn(format_args!(
                    "{} more watches broke, the last that of {name}: {error}; their lists are stale until they are read anew",
                    counted.more
                ));
            }
        });
    }
}
