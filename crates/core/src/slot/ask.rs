//! What a slot is asked for with, and what is told of it.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Whose slots: one part of a key.
    pub service: Arc<str>,
    /// How many there are: from 1 to this.
    pub slots: u32,
    /// For how long may be stamped ahead of an extension.
    pub window: Duration,
    /// The time to live of the lease; what the store grants counts.
    pub ttl: Duration,
    /// Who asks, for people.
    pub holder: Arc<str>,
}

/// Why there is none.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// All are held: by these.
    Full(Vec<String>),
    /// The clock is ahead, by so many milliseconds, of what can be believed.
    Clock(i64),
    /// It was given back.
    Over,
    /// The store refused, or could not be asked in time.
    Call(Error),
}

/// Which slot it is, and what may be stamped with it.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// Grows when the slot is another one, or was somebody else's meanwhile; 0: none was ever held.
    pub generation: u32,
    /// Its number.
    pub n: u32,
    /// What is stamped is after this millisecond.
    pub since: i64,
    /// And not after this one. It holds whatever else is said here.
    pub until: i64,
    /// The clock is not believed, and the window not extended.
    pub is_clock_off: bool,
    /// How often the clock was seen to have been set, and by how much the last time, in milliseconds.
    pub steps: u32,
    /// See `steps`.
    pub step: i64,
    /// Why the last extension failed; `None`: it did not.
    pub hindrance: Option<Error>,
}

/// Called on the runtime's thread when the window has changed. It must not block, and not call the slot.
pub type OnChange = Box<dyn Fn() + Send + Sync>;
