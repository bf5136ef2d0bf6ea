//! Lists: what a snapshot becomes, and how two of them compare.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::backend::ServiceName;
use crate::instance::ServiceInstance;

/// A whole, consistent read of what is followed: sorted, nothing twice. What did not change keeps its `Arc` from list to
/// list.
pub type List<E = ServiceInstance> = Arc<[Arc<E>]>;

/// What a list is made of.
pub trait Entry: Clone + Eq + Send + Sync + 'static {
    /// What makes it one; the first part of it is [`id`](Self::id).
    type Place<'a>: Ord;

    /// Where it stands in a list.
    fn place(&self) -> Self::Place<'_>;

    /// What lists are sorted by.
    fn id(&self) -> &str;

    /// Which of two at one place comes first, and stays.
    fn precedence(&self, other: &Self) -> Ordering;
}

impl Entry for ServiceInstance {
    /// In Consul two agents may hold one id.
    type Place<'a> = (&'a str, &'a [Box<str>]);

    fn place(&self) -> Self::Place<'_> {
        (&self.id, &self.endpoints)
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn precedence(&self, other: &Self) -> Ordering {
        (&self.version, &self.metadata).cmp(&(&other.version, &other.metadata))
    }
}

impl Entry for ServiceName {
    type Place<'a> = &'a str;

    fn place(&self) -> Self::Place<'_> {
        &self.name
    }

    fn id(&self) -> &str {
        &self.name
    }

    fn precedence(&self, other: &Self) -> Ordering {
        self.count.cmp(&other.count)
    }
}

/// Sorts by place, removes repeats of it, and takes over what did not change from the list before. Total order: what comes
/// out depends on what is there, not on the order in which it was read.
pub(crate) fn to_list<E: Entry>(mut entries: Vec<Arc<E>>, before: &[Arc<E>]) -> List<E> {
    entries.sort_by(|a, b| a.place().cmp(&b.place()).then_with(|| a.precedence(b)));
    entries.dedup_by(|later, earlier| later.place() == earlier.place());
    let mut at = 0;
    for entry in &mut entries {
        // Most are the very ones of before: no need to compare what they say.
        if before.get(at).is_some_and(|old| Arc::ptr_eq(old, entry)) {
            at += 1;
            continue;
        }
        while before.get(at).is_some_and(|old| old.place() < entry.place()) {
            at += 1;
        }
        if let Some(old) = before.get(at)
            && !Arc::ptr_eq(old, entry)
            && old == entry
        {
            *entry = old.clone();
        }
    }
    entries.into()
}

/// How a list differs from the one before: what a reader who has that one need not be handed again. A change of one entry
/// among many costs a look at each pointer, and nothing else.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// So many entries at the beginning are the very same.
    pub head: usize,
    /// And so many at the end, none of which is of the head.
    pub tail: usize,
    /// For each entry between them, where the very same one stood in the list before, or -1.
    pub places: Vec<i32>,
}

/// Compares two lists whose entries are shared where they are the same.
pub fn difference<E: Entry>(before: &List<E>, list: &List<E>) -> Difference {
    let same = |(old, new): &(&Arc<E>, &Arc<E>)| Arc::ptr_eq(old, new);
    let head = before.iter().zip(list.iter()).take_while(same).count();
    let (old, new) = (&before[head..], &list[head..]);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);
    let mut at = 0;
    let place = |entry: &Arc<E>| {
        if !old.get(at).is_some_and(|old| Arc::ptr_eq(old, entry)) {
            while old.get(at).is_some_and(|old| old.place() < entry.place()) {
                at += 1;
            }
            if !old.get(at).is_some_and(|old| Arc::ptr_eq(old, entry)) {
                return -1;
            }
        }
        at += 1;
        i32::try_from(head + at - 1).unwrap_or(-1)
    };
    let places = new.iter().map(place).collect();
    Difference { head, tail, places }
}

/// Whether more than half of the old list's ids are missing in the new one. Both are sorted by id.
pub(super) fn lacks_more_than_half<E: Entry>(old: &[Arc<E>], new: &[Arc<E>]) -> bool {
    let mut at = 0;
    let missing = old
        .iter()
        .filter(|old| {
            while new.get(at).is_some_and(|new| new.id() < old.id()) {
                at += 1;
            }
            new.get(at).is_none_or(|new| new.id() != old.id())
        })
        .count();
    missing * 2 > old.len()
}
