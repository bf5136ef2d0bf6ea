//! What a store gives to who holds something: a time to live of its own that renews itself, and keys that are gone with it.
//! Who waits for whom, and who is told what, is written once, above it ([`queue`](crate::queue)).
//!
//! What is said of dropping and errors at the top of [`backend`](crate::backend) holds here too.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::error::Result;
use crate::transaction::{Commit, Compare, Write};

/// The id of a lease as the last part of a key: as etcd's Go client and `etcdctl` write it.
pub fn hex(lease: i64) -> String {
    let sign = if lease < 0 { "-" } else { "" };
    format!("{sign}{:x}", lease.unsigned_abs())
}

/// Whom a key waits for: it holds while fewer than `most` of those that were created before it stand.
///
/// A key below one of the prefixes stands if what follows the prefix is the id of the lease that it lies under. So what else
/// is written there, such as the keys of a longer name, is nobody's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    /// What the keys begin with that count.
    pub prefixes: Vec<Arc<str>>,
    /// At least 1.
    pub most: usize,
}

/// Since when a key is there, and in which history of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// The revision at which it was created: higher than that of every key created before.
    pub created: i64,
    /// Tells one cluster, or one life of it, from another.
    pub cluster: u64,
}

/// What was seen at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Whether our key is there as it was created, under our lease.
    pub stands: bool,
    /// The youngest of those before it that stand, as many as `most` at the most. With fewer it is our turn.
    pub older: Vec<Arc<str>>,
    /// The revision of the store at that moment.
    pub revision: i64,
}

/// A key that was entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    /// Since when it is there.
    pub since: Since,
    /// What stood there at that very moment. `None`: that was not told; a look tells.
    pub seen: Option<Look>,
}

/// Who leads: the oldest of those that stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Its key.
    pub key: Arc<str>,
    /// What it tells of itself.
    pub value: Box<[u8]>,
    /// The revision at which its key was created: its fencing token.
    pub created: i64,
}

/// Who leads at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// `None`: nobody.
    pub leader: Option<Leader>,
    /// The revision of the store at that moment.
    pub revision: i64,
    /// Tells one cluster, or one life of it, from another.
    pub cluster: u64,
}

/// A time to live in a store, from before it is asked for to its end. Every acquisition has one of its own, with an id that
/// nobody had before: to end it takes away what was written under it, whether the answers arrived or not, and nothing else.
/// Dropping it stops its renewal, without I/O.
#[async_trait]
pub trait Tenure: Send + Sync + 'static {
    /// Its id. Drawn here, so that it is known before it is asked for.
    fn lease(&self) -> i64;

    /// One attempt to be granted it. From its success on it is renewed by itself. May be repeated: there is one in the end.
    async fn begin(&self, within: Duration) -> Result<()>;

    /// Until when it can be vouched for, by the monotonic clock: when the last confirmed renewal was *sent*, plus the time to
    /// live. `None` while it was not granted, and once it was lost or stopped.
    fn deadline(&self) -> Option<Instant>;

    /// Resolves when it is lost, with how that was found: at its deadline at the latest. Once lost it stays so. Cancel-safe;
    /// called after a success of `begin`.
    async fn lost(&self) -> String;

    /// One attempt to create a key under it, and to see who is before it. A key that is there under it already is success:
    /// may be repeated.
    async fn enter(&self, key: &str, value: &[u8], before: &Before, within: Duration) -> Result<Entered>;

    /// One look at our key and at those before it, all of one moment that is after everything that anybody was told to be
    /// written.
    async fn look(&self, key: &str, since: Since, before: &Before, within: Duration) -> Result<Look>;

    /// Resolves when our key is gone or one of `seen.older` is; or for another reason, for to look again does no harm. What
    /// happened between the look and the call counts. An error that is retryable says that nobody looks any more.
    async fn changed(&self, key: &str, since: Since, before: &Before, seen: &Look) -> Result<()>;

    /// One attempt at a transaction that also creates a key under it: all of `writes` and the key, if all of `compares` hold and the
    /// key is not there. Of its outcome holds what is said of [`Store::commit`](crate::store::Store::commit).
    async fn claim(
        &self,
        key: &str,
        value: &[u8],
        compares: &[Compare],
        writes: &[Write],
        within: Duration,
    ) -> Result<Commit>;

    /// It is not renewed any more, and can't be vouched for. No I/O. For good.
    fn stop(&self);

    /// One attempt to end it in the store, with every key under it; after `stop`. May be repeated. Nothing is asked of a
    /// store that was never asked for it.
    async fn end(&self, within: Duration) -> Result<()>;
}
