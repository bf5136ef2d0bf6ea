//! The trait of a store: keys with values that are changed together or not at all, in an order that everybody sees. What is
//! kept there (configuration) and how it is followed is written once, above it ([`config`](crate::config)), and so is who holds
//! what, and how long (`queue`).
//!
//! What is said of attempts, deadlines, dropping and errors at the top of [`backend`](crate::backend) holds here too.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::error::{Error, ErrorKind, Result};
use crate::tenure::{Reading, Tenure};
pub use crate::transaction::{Commit, Compare, Moment, Pair, Write};

/// The longest key, in bytes.
pub const KEY_MOST: usize = 1024;
/// The largest value, in bytes: 1 MiB, what etcd takes of a request unless it was started to take more.
pub const VALUE_MOST: usize = 1024 * 1024;

/// Which keys are meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Range {
    /// This one.
    Key(Arc<str>),
    /// Those that begin so. It ends in a slash, so that `/config/orders/` holds nothing of `/config/orders-admin/`.
    Under(Arc<str>),
}

impl Range {
    /// Whether a key is meant.
    pub fn has(&self, key: &str) -> bool {
        match self {
            Self::Key(own) => **own == *key,
            Self::Under(prefix) => key.starts_with(&**prefix),
        }
    }

    /// The key, or what all of them begin with.
    pub fn text(&self) -> &str {
        match self {
            Self::Key(text) | Self::Under(text) => text,
        }
    }

    /// What is wrong with it, if anything is.
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::Key(key) => problem_of_key(key),
            Self::Under(prefix) => match prefix.strip_suffix('/') {
                Some(folder) => problem_of_key(folder),
                None => Some("expected a prefix that ends in \"/\"".to_owned()),
            },
        }
    }
}

/// What is wrong with a key, if anything is.
pub fn problem_of_key(key: &str) -> Option<String> {
    let Some(path) = key.strip_prefix('/') else {
        return Some("expected a path that begins with \"/\", such as \"/config/orders/limits\"".to_owned());
    };
    if key.len() > KEY_MOST {
        return Some(format!("expected at most {KEY_MOST} bytes, got {}", key.len()));
    }
    if key.chars().any(char::is_control) {
        return Some("expected no control characters".to_owned());
    }
    match path.split('/').find(|part| matches!(*part, "" | "." | "..")) {
        Some("") => Some("expected no empty part between two \"/\", nor at the end".to_owned()),
        Some(part) => Some(format!(
            "expected no part that is {part:?}: a store knows no folders to go up to"
        )),
        None => None,
    }
}

/// A key up to its last slash.
pub fn folder(key: &str) -> &str {
    key.rfind('/').map_or(key, |at| &key[..=at])
}

/// The folder that all of some ranges lie in.
pub fn common_folder(ranges: &[Range]) -> &str {
    let mut texts = ranges.iter().map(Range::text);
    let first = texts.next().unwrap_or_default();
    let common = texts.fold(first, |common, text| {
        let same = common.chars().zip(text.chars()).take_while(|(a, b)| a == b);
        let end = same.map(|(c, _)| c.len_utf8()).sum();
        &common[..end]
    });
    folder(common)
}

/// The pairs of some ranges, all of one moment.
#[derive(Debug, Clone, Default)]
pub struct Read {
    /// Each once. Sharing the `Arc` of an unchanged one with the read before saves comparing it.
    pub pairs: Vec<Arc<Pair>>,
    /// When they stood there.
    pub moment: Moment,
}

/// A store: memory, etcd, …
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// One read, of all ranges at one moment, which is after everything that anybody was told to be written.
    async fn read(&self, ranges: &[Range]) -> Result<Read>;

    /// Whole reads, the first at once, each later one after a change: each is of one revision, so none holds half of a
    /// transaction, and no change is missed (one that is overwritten at once may be). A repeat does no harm.
    ///
    /// It ends as [`Follow::Stream`](crate::backend::Follow::Stream) does, and is followed anew. No I/O before it is polled.
    fn follow(&self, ranges: &Arc<[Range]>) -> BoxStream<'static, Result<Read>>;

    /// One attempt at a transaction: all of `writes` at one revision, if all of `compares` hold. It ends `within` the time given,
    /// for it knows whether it was sent by then; core, which cuts it off a moment later, does not.
    ///
    /// An error says that nothing was changed and nothing will be, unless it is
    /// [`is_outcome_unknown`](crate::Error::is_outcome_unknown). A future that is dropped leaves it open.
    async fn commit(&self, compares: &[Compare], writes: &[Write], within: Duration) -> Result<Commit>;

    /// A time to live of its own for who is to hold something, not asked for yet: no I/O. What is here is `Unsupported`.
    fn hold(&self, _ttl: Duration) -> Result<Arc<dyn Tenure>> {
        Err(no_locks())
    }

    /// One linearizable read of who stands first among the keys that begin so. What is here is `Unsupported`.
    async fn leader(&self, _prefix: &str) -> Result<Reading> {
        Err(no_locks())
    }

    /// Resolves when something below the prefix has changed since that moment, or for another reason, for to read again does no
    /// harm.
    async fn stirs(&self, _prefix: &str, _since: &Reading) -> Result<()> {
        Err(no_locks())
    }
}

fn no_locks() -> Error {
    Error::new(ErrorKind::Unsupported, "this store holds no locks")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_path() {
        for good in [
            "/a",
            "/config/dev/orders/limits",
            "/config/dev/orders/limits/@canary=true",
            "/配置/…",
        ] {
            assert_eq!(problem_of_key(good), None, "{good}");
        }
        let long = format!("/{}", "x".repeat(KEY_MOST));
        for bad in [
            "", "/", "a", "a/b", "//a", "/a//b", "/a/", "/a/../b", "/..", "/a/.", "/a\n", "/a\0b", &long,
        ] {
            assert!(problem_of_key(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn a_prefix_is_a_key_with_a_slash() {
        let under = |prefix: &str| Range::Under(prefix.into());
        assert_eq!(under("/config/").problem(), None);
        for bad in ["", "/", "//", "/config", "config/", "/a/../"] {
            assert!(under(bad).problem().is_some(), "{bad:?}");
        }
        assert!(under("/a/").has("/a/b") && !under("/a/").has("/a-b/c"));
        assert!(Range::Key("/a".into()).has("/a") && !Range::Key("/a".into()).has("/a/b"));
    }
}
