//! What a memory server keeps as a store: pairs, and the revision that they are at.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::store::{Commit, Compare, Moment, Pair, Range, Read, Write};

/// What a memory server keeps as a store.
#[derive(Default)]
pub(super) struct Pairs {
    by_key: BTreeMap<Arc<str>, Arc<Pair>>,
    moment: Moment,
    /// Bumped by every transaction that changes something, and by every break.
    pub(super) changed: watch::Sender<u64>,
}

impl Pairs {
    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Whoever follows looks anew.
    pub(super) fn breaks(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Loses everything, and begins to count anew.
    pub(super) fn wipe(&mut self) {
        self.by_key.clear();
        self.moment = Moment {
            cluster: self.moment.cluster + 1,
            revision: 0,
        };
    }

    pub(super) fn read(&self, ranges: &[Range]) -> Read {
        let mut read = Read {
            pairs: Vec::new(),
            moment: self.moment,
        };
        for range in ranges {
            match range {
                Range::Key(key) => read.pairs.extend(self.by_key.get(key).cloned()),
                Range::Under(prefix) => {
                    let from = self.by_key.range(Arc::clone(prefix)..);
                    let under = from.take_while(|(key, _)| key.starts_with(&**prefix));
                    read.pairs.extend(under.map(|(_, pair)| Arc::clone(pair)));
                }
            }
        }
        read
    }

    /// What stands at the keys of a transaction that is not made.
    pub(super) fn conflict(&self, compares: &[Compare]) -> Commit {
        let current = compares.iter().map(|compare| self.by_key.get(&compare.key).cloned());
        Commit::Conflict {
            current: current.collect(),
        }
    }

    pub(super) fn commit(&mut self, compares: &[Compare], writes: &[Write]) -> Commit {
        let revision_of = |key: &str| self.by_key.get(key).map_or(0, |pair| pair.revision);
        if compares
            .iter()
            .any(|compare| revision_of(&compare.key) != compare.revision)
        {
            return self.conflict(compares);
        }
        let revision = self.moment.revision + 1;
        let (mut put, mut deleted) = (0, 0);
        for write in writes {
            match write {
                Write::Put(key, value) => {
                    let pair = Pair {
                        key: Arc::clone(key),
                        value: value.clone(),
                        revision,
                    };
                    self.by_key.insert(Arc::clone(key), Arc::new(pair));
                    put += 1;
                }
                Write::Delete(key) => deleted += usize::from(self.by_key.remove(key).is_some()),
            }
        }
        if put + deleted > 0 {
            self.moment.revision = revision;
            self.changed.send_modify(|n| *n += 1);
        }
        Commit::Done {
            moment: self.moment,
            deleted,
        }
    }
}
