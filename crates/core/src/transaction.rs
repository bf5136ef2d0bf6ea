//! What is changed in a store together or not at all: keys with values, and what became of it. A [`Store`](crate::store::Store) makes
//! transactions, and so does who holds something in one ([`Tenure`](crate::tenure::Tenure)).

use std::sync::Arc;

/// A key and what stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: Arc<str>,
    /// Its value.
    pub value: Box<[u8]>,
    /// The revision of the store at which it was written last; at least 1.
    pub revision: i64,
}

/// When something was read: at which revision of which history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// Tells one cluster, or one life of it, from another.
    pub cluster: u64,
    /// How many changes there were before. It grows by each transaction that changes something.
    pub revision: i64,
}

impl Moment {
    /// Whether what was read now can't come after what was read `before`: the store is another one, or was set back.
    pub fn breaks_with(self, before: Self) -> bool {
        self.cluster != before.cluster || self.revision < before.revision
    }
}

/// What must be so for a transaction to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: Arc<str>,
    /// The revision at which it was written last; 0: there is none.
    pub revision: i64,
}

/// What a transaction does with a key. It has no key twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Writes it.
    Put(Arc<str>, Box<[u8]>),
    /// Deletes it, if it is there.
    Delete(Arc<str>),
}

impl Write {
    /// The key.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }
}

/// What became of a transaction.
#[derive(Debug, Clone)]
pub enum Commit {
    /// It was made.
    Done {
        /// When.
        moment: Moment,
        /// How many of the keys that it deleted were there.
        deleted: usize,
    },
    /// Nothing was changed.
    Conflict {
        /// What stands at the keys that were compared, in their order.
        current: Vec<Option<Arc<Pair>>>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_is_later_in_the_same_history() {
        let at = |cluster, revision| Moment { cluster, revision };
        assert!(!at(1, 5).breaks_with(at(1, 5)) && !at(1, 6).breaks_with(at(1, 5)));
        assert!(at(1, 4).breaks_with(at(1, 5)) && at(2, 9).breaks_with(at(1, 5)));
    }
}
