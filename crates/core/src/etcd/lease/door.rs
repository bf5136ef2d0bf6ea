//! How commands come to the task that keeps leases, which runs while there are any.

use std::sync::Mutex;

use tokio::sync::mpsc;

use super::slot::KeeperCommand;
use crate::sync::lock;

#[derive(Default)]
pub(super) struct Door {
    pub(super) commands: Option<mpsc::UnboundedSender<KeeperCommand>>,
}

impl Door {
    /// Called by the task when it ends and has not retired: who comes from then on starts another.
    pub(super) fn leave(door: &Mutex<Self>) {
        lock(door).commands = None;
    }

    /// Called by the task when no lease is left: takes itself out, unless a command has just come.
    pub(super) fn retire(door: &Mutex<Self>, commands: &mpsc::UnboundedReceiver<KeeperCommand>) -> bool {
        let mut door = lock(door);
        let idle = commands.is_empty();
        if idle {
            door.commands = None;
        }
        idle
    }
}
