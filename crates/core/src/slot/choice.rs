//! Which slot to take, by what stands in the store: without I/O.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::record::{Places, Record, number};
use crate::store::Pair;

/// How many milliseconds a clock may be ahead of the windows of all who live.
const AHEAD_MOST: i64 = 60_000;

/// A slot that nobody holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Free {
    pub n: u32,
    /// Up to when somebody may have stamped; 0: nobody has.
    pub until: i64,
    /// The revision of that; 0: nothing stands there.
    pub revision: i64,
}

/// The slots of a service at one moment.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// Those that can be taken.
    pub free: Vec<Free>,
    /// Who holds the others, for people.
    pub holders: Vec<String>,
    /// The windows of who lives.
    windows: Vec<i64>,
}

impl Slots {
    /// Of `most` slots, by all pairs that stand below the places.
    pub fn read(places: &Places, pairs: &[Arc<Pair>], most: u32) -> Self {
        let mut live = HashSet::new();
        let mut windows = HashMap::new();
        for pair in pairs {
            if let Some(n) = pair.key.strip_prefix(&*places.ids).and_then(number) {
                live.insert(n);
            } else if let Some(n) = pair.key.strip_prefix(&*places.until).and_then(number) {
                windows.insert(n, (Record::read(&pair.value), pair.revision));
            }
        }
        let mut slots = Self::default();
        for n in 1..=most {
            match (live.contains(&n), windows.get(&n)) {
                (false, None) => slots.free.push(Free {
                    n,
                    until: 0,
                    revision: 0,
                }),
                (false, Some((Some(record), revision))) => slots.free.push(Free {
                    n,
                    until: record.until,
                    revision: *revision,
                }),
                // Nobody knows up to when that was stamped.
                (false, Some((None, _))) => slots.holders.push(format!("{n}: what stands at its key can't be read")),
                (true, Some((Some(record), _))) => {
                    slots.holders.push(format!("{n}: {}", record.holder));
                    slots.windows.push(record.until);
                }
                (true, _) => slots.holders.push(format!("{n}: another program")),
            }
        }
        slots
    }

    /// The one to take: our own, if it stands as we left it or nothing stands there, or else one that was stamped the least far. Where
    /// the store has lost what stood there, others may have lost theirs as well: who took one of those would stamp what they stamp.
    pub fn choose(&self, own: Option<(u32, i64)>) -> Option<Free> {
        let is_own =
            |free: &&Free| own.is_some_and(|(n, revision)| n == free.n && [0, revision].contains(&free.revision));
        if let Some(own) = self.free.iter().find(is_own) {
            return Some(*own);
        }
        let least = self.free.iter().map(|free| free.until).min()?;
        let tied: Vec<&Free> = self.free.iter().filter(|free| free.until == least).collect();
        Some(*tied[fastrand::usize(..tied.len())]) // those who start together are not to take the same
    }

    /// By how much a clock is ahead of all who live, if that is too much to be right.
    pub fn is_ahead(&self, wall: i64) -> Option<i64> {
        let by = wall - self.windows.iter().max()?;
        (by > AHEAD_MOST).then_some(by)
    }

    /// Leaves the window of one out: our own says nothing of others' clocks.
    pub fn without(&mut self, until: i64) {
        if let Some(own) = self.windows.iter().position(|window| *window == until) {
            self.windows.swap_remove(own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: String, value: &str, revision: i64) -> Arc<Pair> {
        Arc::new(Pair {
            key: key.into(),
            value: value.as_bytes().into(),
            revision,
        })
    }

    fn until(places: &Places, n: u32, until: i64, revision: i64) -> Arc<Pair> {
        let record = String::from_utf8(Record::new(until, "orders-1").bytes().into()).unwrap();
        pair(places.until(n).to_string(), &record, revision)
    }

    #[test]
    fn the_one_that_was_stamped_the_least_far_is_taken_and_our_own_before_it() {
        let places = Places::of("orders");
        let pairs = [
            pair(places.id(1), "1", 3),
            until(&places, 1, 9000, 3),
            until(&places, 2, 8000, 4),
            until(&places, 3, 7000, 5),
            pair(places.id(4), "4", 6),
        ];
        let slots = Slots::read(&places, &pairs, 4);
        let free = |n, until, revision| Free { n, until, revision };
        assert_eq!(slots.free, [free(2, 8000, 4), free(3, 7000, 5)]);
        assert_eq!(slots.holders, ["1: orders-1", "4: another program"]);
        assert_eq!(slots.choose(None), Some(free(3, 7000, 5)));
        assert_eq!(slots.choose(Some((2, 4))), Some(free(2, 8000, 4)));
        assert_eq!(
            slots.choose(Some((2, 3))),
            Some(free(3, 7000, 5)),
            "somebody had it meanwhile"
        );
        let emptied = Slots::read(&places, &[], 4);
        assert_eq!(
            emptied.choose(Some((3, 5))),
            Some(free(3, 0, 0)),
            "it is in no other's place"
        );
        assert_eq!(slots.is_ahead(69_000), None);
        assert_eq!(slots.is_ahead(69_001), Some(60_001));
        assert_eq!(Slots::read(&places, &[], 4).is_ahead(i64::MAX), None, "nobody lives");
    }

    #[test]
    fn what_can_not_be_read_is_not_taken() {
        let places = Places::of("orders");
        let pairs = [
            pair(places.until(1).to_string(), "soon", 3),
            pair(format!("{}01", places.ids), "1", 3),
            pair(format!("{}x", places.ids), "1", 3),
        ];
        let slots = Slots::read(&places, &pairs, 2);
        assert_eq!(slots.choose(None).map(|free| free.n), Some(2));
        assert_eq!(slots.holders.len(), 1);
    }
}
