//! Where the crate's log lines go: one function per client, chosen by whoever makes the client.
//!
//! Not `tracing`: its subscriber is global to the process, while two clients in two worker threads log to two
//! loggers, and an addon must not be the one that installs a global.

use std::fmt;
use std::sync::Arc;

/// How grave a line is. The names are those of people's loggers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What only a reader of the source wants to know.
    Debug,
    /// A change of state that is as it should be: registered, restored, connected.
    Info,
    /// Something that rollcall repairs by itself: a lost lease, a broken stream, a bad record.
    Warn,
    /// Something that needs a person: credentials refused.
    Error,
}

type Sink = dyn Fn(Level, String) + Send + Sync;

/// A log for one client. Cloning shares it; without a sink every line is dropped before it is formatted.
#[derive(Clone, Default)]
pub struct Log {
    sink: Option<(Level, Arc<Sink>)>,
}

impl Log {
    /// Lines of `lowest` and graver go to `sink`, on whichever thread logs.
    pub fn new(lowest: Level, sink: impl Fn(Level, String) + Send + Sync + 'static) -> Self {
        Self {
            sink: Some((lowest, Arc::new(sink))),
        }
    }

    /// Logs a line; the arguments are formatted only when somebody listens at this level.
    pub fn log(&self, level: Level, line: fmt::Arguments<'_>) {
        if let Some((lowest, sink)) = &self.sink
            && level >= *lowest
        {
            sink(level, line.to_string());
        }
    }

    /// Logs at [`Level::Debug`].
    pub fn debug(&self, line: fmt::Arguments<'_>) {
        self.log(Level::Debug, line);
    }

    /// Logs at [`Level::Info`].
    pub fn info(&self, line: fmt::Arguments<'_>) {
        self.log(Level::Info, line);
    }

    /// Logs at [`Level::Warn`].
    pub fn warn(&self, line: fmt::Arguments<'_>) {
        self.log(Level::Warn, line);
    }

    /// Logs at [`Level::Error`].
    pub fn error(&self, line: fmt::Arguments<'_>) {
        self.log(Level::Error, line);
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}
