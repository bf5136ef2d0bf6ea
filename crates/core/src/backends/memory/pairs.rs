//! What a memory server keeps as a store: pairs, and the revision that they are at.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::tenures::Tenures;
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

    /// What stands at a key, under a lease or without.
    fn at(&self, key: &str, tenures: &Tenures) -> Option<Arc<Pair>> {
        self.by_key.get(key).cloned().or_else(|| tenures.at(key))
    }

    /// What stands at the keys of a transaction that is not made.
    pub(super) fn conflict(&self, compares: &[Compare], tenures: &Tenures) -> Commit {
        let current = compares.iter().map(|compare| self.at(&compare.key, tenures));
        Commit::Conflict {
            current: current.collect(),
        }
    }

    /// Compares keys that are held as well, as in etcd they are keys like others.
    pub(super) fn commit(&mut self, compares: &[Compare], writes: &[Write], tenures: &Tenures) -> Commit {
        let is_other = |compare: &Compare| {
            let revision = self.at(&compare.key, tenures).map_or(0, |pair| pair.revision);
            revision != compare.revision
        };
        if compares.iter().any(is_other) {
            return self.conflict(compares, tenures);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    #[test]
    fn a_transaction_sees_what_is_held() {
        let (mut pairs, mut tenures) = (Pairs::default(), Tenures::default());
        tenures.grant(7, Instant::now() + Duration::from_secs(60));
        tenures.enter("/locks/a/7", 7, b"me").unwrap();
        let compare = |revision| Compare {
            key: "/locks/a/7".into(),
            revision,
        };
        let put = [Write::Put("/b".into(), (*b"1").into())];
        let commit = pairs.commit(&[compare(0)], &put, &tenures);
        let Commit::Conflict { current } = commit else {
            panic!("it holds that nothing stands there");
        };
        let held = current[0].as_ref().unwrap();
        assert_eq!(*held.value, *b"me");
        assert!(matches!(
            pairs.commit(&[compare(held.revision)], &put, &tenures),
            Commit::Done { .. }
        ));
        tenures.end(7);
        assert!(matches!(
            pairs.commit(&[compare(held.revision)], &put, &tenures),
            Commit::Conflict { .. }
        ));
    }
}
