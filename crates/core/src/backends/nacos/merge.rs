//! From lists of hosts to the instances of a name.

use std::collections::HashMap;
use std::sync::Arc;

use super::client::{Host, List};
use super::record::{Form, foreign_id, mark_of, read};
use crate::backend::{BadRecord, Snapshot};
use crate::parts::{Merged, Parts, instance_of};

/// The instances of `name` in the lists of its services.
pub(super) fn merge(form: &Form, group: &str, name: &Arc<str>, lists: &[List]) -> Merged {
    let mut merged = Merged {
        snapshot: Snapshot::default(),
        is_whole: true,
    };
    let mut by_id: HashMap<String, Parts> = HashMap::new();
    for list in lists {
        for (key, reason) in &list.bad {
            let (key, reason) = (format!("{group}@@{key}"), reason.clone());
            merged.snapshot.bad.push(BadRecord { key, reason });
        }
        for host in &list.hosts {
            let (of_name, scheme) = form.belongs(&list.service, host);
            if of_name != &**name {
                continue;
            }
            let reading = read(host, scheme);
            match mark_of(host) {
                Some(mark) => by_id.entry(mark.id.clone()).or_default().add(mark, reading),
                None => {
                    if let Some(reading) = reading {
                        let id = foreign_id(&list.service, group, host);
                        let instance = instance_of(name, &id, &[reading]);
                        merged.snapshot.instances.extend(instance.map(Arc::new));
                    }
                }
            }
        }
    }
    for (id, parts) in by_id {
        let (readings, is_whole) = parts.finish();
        merged.is_whole &= is_whole;
        let instance = instance_of(name, &id, &readings);
        merged.snapshot.instances.extend(instance.map(Arc::new));
    }
    merged
}

/// The names of which a host of a list is a listed instance.
pub(super) fn names_of<'a>(form: &'a Form, list: &'a List) -> impl Iterator<Item = &'a str> {
    let listed = |host: &'a Host| {
        let (name, scheme) = form.belongs(&list.service, host);
        read(host, scheme).map(|_| name)
    };
    list.hosts.iter().filter_map(listed)
}
