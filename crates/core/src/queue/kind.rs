//! The kinds of locks: where their keys lie, and whom each waits for. That is all they differ in.

use crate::tenure::{Before, hex};

/// What is held, and beside whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One at a time, and elections: `<path>/<lease>`, the keys of `concurrency.Mutex` and `concurrency.Election` of etcd's Go
    /// client and of `etcdctl lock` and `etcdctl elect`.
    Mutex,
    /// Beside other readers: `<path>/r-<lease>`. Waits for the youngest writer before it.
    Read,
    /// Alone: `<path>/w-<lease>`. Waits for whoever is the youngest before it, so that readers who come later do not starve it.
    Write,
    /// So many at a time: `<path>/s-<lease>`. Each goes by its own number, of [`super::Ask`].
    Semaphore,
}

impl Kind {
    /// The key of who has this lease.
    pub(super) fn key(self, path: &str, lease: i64) -> String {
        format!("{path}/{}{}", self.mark(), hex(lease))
    }

    /// Whom it waits for. `permits` is how many may hold a semaphore.
    pub(super) fn before(self, path: &str, permits: usize) -> Before {
        let (marks, most): (&[&str], usize) = match self {
            Self::Mutex => (&[""], 1),
            Self::Read => (&["w-"], 1),
            Self::Write => (&["r-", "w-"], 1),
            Self::Semaphore => (&["s-"], permits.max(1)),
        };
        Before {
            prefixes: marks.iter().map(|mark| format!("{path}/{mark}").into()).collect(),
            most,
        }
    }

    fn mark(self) -> &'static str {
        match self {
            Self::Mutex => "",
            Self::Read => "r-",
            Self::Write => "w-",
            Self::Semaphore => "s-",
        }
    }
}
