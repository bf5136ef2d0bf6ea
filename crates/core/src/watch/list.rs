//! Lists: what a snapshot becomes, and how two of them compare.

use std::sync::Arc;

use crate::instance::{Metadata, ServiceInstance};

/// A whole, consistent read of a name: sorted by id, no instance twice. Unchanged instances keep their `Arc` from list
/// to list.
pub type List = Arc<[Arc<ServiceInstance>]>;

/// Sorts by id and endpoints, removes repeats of both, and takes over unchanged instances from the list before. Total
/// order: what comes out depends on what is there, not on the order in which it was read.
pub(crate) fn to_list(mut instances: Vec<Arc<ServiceInstance>>, before: &[Arc<ServiceInstance>]) -> List {
    instances.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| rest(a).cmp(&rest(b))));
    instances.dedup_by(|later, earlier| place(later) == place(earlier));
    let mut at = 0;
    for instance in &mut instances {
        while before.get(at).is_some_and(|old| place(old) < place(instance)) {
            at += 1;
        }
        if let Some(old) = before.get(at)
            && !Arc::ptr_eq(old, instance)
            && old == instance
        {
            *instance = old.clone();
        }
    }
    instances.into()
}

/// For each instance of a list, where the very same one stood in the list before, or -1: what a reader who has that one
/// need not be handed again.
pub fn places(before: &List, list: &List) -> Vec<i32> {
    let mut at = 0;
    list.iter()
        .map(|instance| {
            while before.get(at).is_some_and(|old| place(old) < place(instance)) {
                at += 1;
            }
            let same = before.get(at).is_some_and(|old| Arc::ptr_eq(old, instance));
            i32::try_from(at).ok().filter(|_| same).unwrap_or(-1)
        })
        .collect()
}

/// What makes an instance one: in Consul two agents may hold one id.
fn place(instance: &ServiceInstance) -> (&str, &[Box<str>]) {
    (&instance.id, &instance.endpoints)
}

fn rest(instance: &ServiceInstance) -> (&str, &Metadata) {
    (&instance.version, &instance.metadata)
}

/// Whether more than half of the old list's ids are missing in the new one. Both are sorted by id.
pub(super) fn lacks_more_than_half(old: &[Arc<ServiceInstance>], new: &[Arc<ServiceInstance>]) -> bool {
    let mut at = 0;
    let missing = old
        .iter()
        .filter(|old| {
            while new.get(at).is_some_and(|new| new.id < old.id) {
                at += 1;
            }
            new.get(at).is_none_or(|new| new.id != old.id)
        })
        .count();
    missing * 2 > old.len()
}
