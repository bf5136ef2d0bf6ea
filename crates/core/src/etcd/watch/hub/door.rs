//! How commands come to the task of all watches, which runs while there are any, and what others have set for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;

use super::entry::Watch;
use crate::error::Error;
use crate::sync::lock;

/// How often etcd is asked how far a stream of watches is: as often as a quiet one is asked whether it is alive. What passed
/// by a quiet watch is compacted five minutes later at the earliest as a rule, but not as a law.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

pub(in crate::etcd::watch) enum HubCommand {
    Create(i64, Box<Watch>),
    Cancel(i64),
    Resume(i64),
    Rewind(i64, i64),
    Settled(i64),
    /// The watch that was asked for under this id of the stream is denied: etcd denies a read of its range too.
    Denied(i64, i64, Error),
    /// It is not: the token of the stream is older than the permission.
    Permitted(i64, i64),
}

#[derive(Default)]
pub(in crate::etcd::watch) struct HubState {
    pub(in crate::etcd::watch) commands: Option<mpsc::UnboundedSender<HubCommand>>,
    pub(in crate::etcd::watch) last_id: i64,
    /// The pauses between tries to open the stream, in place of our own; the last one for all that follow.
    pub(in crate::etcd::watch) pauses: Arc<[Duration]>,
    /// In place of [`PROGRESS_EVERY`].
    pub(in crate::etcd::watch) progress_every: Option<Duration>,
}

impl HubState {
    pub(in crate::etcd::watch) fn progress_every(state: &Mutex<Self>) -> Duration {
        let state = lock(state);
        state.progress_every.unwrap_or(PROGRESS_EVERY)
    }

    /// The pause after this many failures in a row, if somebody has said so.
    pub(in crate::etcd::watch) fn pause(state: &Mutex<Self>, failures: u32) -> Option<Duration> {
        let state = lock(state);
        let place = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
        state.pauses.get(place).or(state.pauses.last()).copied()
    }

    /// Called by the hub's task when it ends and has not retired: who comes from then on starts another.
    pub(in crate::etcd::watch) fn leave(state: &Mutex<Self>) {
        lock(state).commands = None;
    }

    /// Called by the hub's task when it has nothing to watch: takes itself out, unless a command has just come.
    pub(in crate::etcd::watch) fn retire(state: &Mutex<Self>, commands: &mpsc::UnboundedReceiver<HubCommand>) -> bool {
        let mut state = lock(state);
        let idle = commands.is_empty();
        if idle {
            state.commands = None;
        }
        idle
    }
}
