//! What a lock is asked for with.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::kind::Kind;
use crate::stall::Stall;

/// What is asked for.
#[derive(Clone)]
pub struct Ask {
    /// What the keys of all who ask for it begin with, without the slash at the end.
    pub path: Arc<str>,
    /// Whom it waits for.
    pub kind: Kind,
    /// How many may hold a semaphore, at least 1. Who waits goes by the latest number, who holds by the one it came to hold with.
    pub permits: watch::Receiver<usize>,
    /// What others see of the holder: the value of its key.
    pub value: Box<[u8]>,
    /// The time to live of its lease; what the store grants counts.
    pub ttl: Duration,
    /// Whether to wait. Without it, a turn that has not come at once is [`Failure::Taken`].
    pub waits: bool,
    /// Gives up when the user's thread has been silent for so long.
    pub stall: Option<Stall>,
}
