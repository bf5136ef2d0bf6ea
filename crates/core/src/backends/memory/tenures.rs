//! What a memory server keeps of who holds what: leases that expire, and keys below them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::store::{Pair, Range};
use crate::tenure::{Before, Leader, Look, Reading, Since, hex};

/// What a memory server keeps of who holds what.
#[derive(Default)]
pub(super) struct Tenures {
    /// When each lease expires.
    expires: HashMap<i64, Instant>,
    by_key: BTreeMap<Arc<str>, Place>,
    /// Counts keys that were created; it is never set back.
    revision: i64,
    cluster: u64,
    /// Bumped when a key comes or goes, and by every break.
    pub(super) changed: watch::Sender<u64>,
}

struct Place {
    lease: i64,
    created: i64,
    value: Box<[u8]>,
}

fn pair(key: &Arc<str>, place: &Place) -> Arc<Pair> {
    Arc::new(Pair {
        key: Arc::clone(key),
        value: place.value.clone(),
        revision: place.created,
    })
}

impl Tenures {
    pub(super) fn is_empty(&self, now: Instant) -> bool {
        self.expires.values().all(|expires| *expires <= now)
    }

    /// Whoever waits looks anew.
    pub(super) fn breaks(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Loses everything.
    pub(super) fn wipe(&mut self) {
        self.expires.clear();
        self.by_key.clear();
        self.cluster += 1;
        self.breaks();
    }

    /// Forgets what has expired.
    pub(super) fn sweep(&mut self, now: Instant) {
        let over = |expires: &Instant| *expires <= now;
        let gone: Vec<i64> = self
            .expires
            .iter()
            .filter_map(|(lease, expires)| over(expires).then_some(*lease))
            .collect();
        for lease in gone {
            self.end(lease);
        }
    }

    /// No lease expires before this.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expires.values().min().copied()
    }

    pub(super) fn grant(&mut self, lease: i64, expires: Instant) {
        self.expires.insert(lease, expires);
    }

    /// Whether a lease is there.
    pub(super) fn lives(&self, lease: i64) -> bool {
        self.expires.contains_key(&lease)
    }

    /// The keys of some ranges, as a read of the store shows them.
    pub(super) fn read(&self, ranges: &[Range]) -> impl Iterator<Item = Arc<Pair>> {
        let meant = |key: &str| ranges.iter().any(|range| range.has(key));
        let keys = self.by_key.iter().filter(move |(key, _)| meant(key));
        keys.map(|(key, place)| pair(key, place))
    }

    /// What is held at a key.
    pub(super) fn at(&self, key: &str) -> Option<Arc<Pair>> {
        self.by_key.get_key_value(key).map(|(key, place)| pair(key, place))
    }

    /// False: it is not there.
    pub(super) fn renew(&mut self, lease: i64, expires: Instant) -> bool {
        self.expires.get_mut(&lease).map(|at| *at = expires).is_some()
    }

    pub(super) fn end(&mut self, lease: i64) {
        self.expires.remove(&lease);
        let before = self.by_key.len();
        self.by_key.retain(|_, place| place.lease != lease);
        if self.by_key.len() != before {
            self.breaks();
        }
    }

    /// `None`: the lease is not there, or the key is another's.
    pub(super) fn enter(&mut self, key: &str, lease: i64, value: &[u8]) -> Option<Since> {
        if !self.lives(lease) {
            return None;
        }
        let created = match self.by_key.get(key) {
            Some(place) if place.lease != lease => return None,
            Some(place) => place.created,
            None => {
                self.revision += 1;
                let created = self.revision;
                let value = value.into();
                let place = Place { lease, created, value };
                self.by_key.insert(key.into(), place);
                self.breaks();
                created
            }
        };
        Some(Since {
            created,
            cluster: self.cluster,
        })
    }

    /// Whether a key is there as it was created.
    pub(super) fn stands(&self, key: &str, lease: i64, since: Since) -> bool {
        let place = self.by_key.get(key);
        self.cluster == since.cluster
            && place.is_some_and(|place| place.lease == lease && place.created == since.created)
    }

    /// Whether all of these are there. No key is written anew under its name: it has the id of its lease in it.
    pub(super) fn has_all(&self, keys: &[Arc<str>]) -> bool {
        keys.iter().all(|key| self.by_key.contains_key(key))
    }

    pub(super) fn look(&self, key: &str, lease: i64, since: Since, before: &Before) -> Look {
        let mut older: Vec<(i64, Arc<str>)> = Vec::new();
        for prefix in &before.prefixes {
            let standing = self.standing(prefix).filter(|(_, place)| place.created < since.created);
            older.extend(standing.map(|(key, place)| (place.created, Arc::clone(key))));
        }
        older.sort_unstable_by_key(|(created, _)| -created);
        older.truncate(before.most);
        Look {
            stands: self.stands(key, lease, since),
            older: older.into_iter().map(|(_, key)| key).collect(),
            revision: self.revision,
        }
    }

    /// The keys below a prefix that stand there: whose rest is the id of their lease.
    fn standing(&self, prefix: &str) -> impl Iterator<Item = (&Arc<str>, &Place)> {
        let from: (Bound<&str>, Bound<&str>) = (Bound::Included(prefix), Bound::Unbounded);
        let under = self.by_key.range::<str, _>(from);
        let under = under.take_while(move |(key, _)| key.starts_with(prefix));
        under.filter(move |(key, place)| key.strip_prefix(prefix) == Some(hex(place.lease).as_str()))
    }

    /// Who stands first below a prefix.
    pub(super) fn leader(&self, prefix: &str) -> Reading {
        let first = self.standing(prefix).min_by_key(|(_, place)| place.created);
        Reading {
            leader: first.map(|(key, place)| Leader {
                key: Arc::clone(key),
                value: place.value.clone(),
                created: place.created,
            }),
            revision: self.revision,
            cluster: self.cluster,
        }
    }
}
