//! From lists of hosts to the instances of a name.

use std::collections::HashMap;
use std::sync::Arc;

use super::client::{Host, List};
use super::record::{Form, Mark, Reading, foreign_id, read};
use crate::backend::{BadRecord, Snapshot};
use crate::instance::ServiceInstance;

/// What lists come to.
pub(super) struct Merged {
    pub(super) snapshot: Snapshot,
    /// Whether each instance has all its hosts. They lie in several services, which are not read at one moment.
    pub(super) is_whole: bool,
}

/// The hosts of one instance, as far as they are known.
#[derive(Default)]
struct Parts {
    owner: Option<String>,
    writing: u64,
    of: usize,
    /// By their number.
    read: Vec<(usize, Option<Reading>)>,
}

/// The instances of `name` in the lists of its services.
pub(super) fn merge(form: &Form, group: &str, name: &Arc<str>, lists: &[Arc<List>]) -> Merged {
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
            match Mark::of(host) {
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
    for (id, mut parts) in by_id {
        parts.read.sort_by_key(|(at, _)| *at);
        parts.read.dedup_by_key(|(at, _)| *at);
        merged.is_whole &= parts.read.len() >= parts.of.max(1);
        // One endpoint that an operator has taken out is missing; the others stand.
        let readings: Vec<Reading> = parts.read.into_iter().filter_map(|(_, reading)| reading).collect();
        let instance = instance_of(name, &id, &readings);
        merged.snapshot.instances.extend(instance.map(Arc::new));
    }
    merged
}

impl Parts {
    /// The newest owner counts, and of what it wrote the newest.
    fn add(&mut self, mark: Mark, reading: Option<Reading>) {
        let is_first = self.read.is_empty();
        let (at, of, writing) = mark.part.unwrap_or((self.read.len() + 1, 0, 0));
        // What has no owner was written around us, and counts as newer than what has one.
        let new = (mark.owner.is_none(), &mark.owner, writing);
        let old = (self.owner.is_none(), &self.owner, self.writing);
        if !is_first && new < old {
            return;
        }
        if is_first || new > old {
            let owner = mark.owner;
            *self = Self {
                owner,
                writing,
                of,
                read: Vec::new(),
            };
        }
        self.read.push((at, reading));
    }
}

fn instance_of(name: &Arc<str>, id: &str, readings: &[Reading]) -> Option<ServiceInstance> {
    let first = readings.first()?;
    Some(ServiceInstance {
        id: id.into(),
        name: Arc::clone(name),
        version: first.version.as_str().into(),
        metadata: first.metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
        endpoints: readings
            .iter()
            .filter_map(|reading| reading.endpoint.as_deref().map(Into::into))
            .collect(),
        since: None,
    })
}

/// The names of which a host of a list is a listed instance.
pub(super) fn names_of<'a>(form: &'a Form, list: &'a List) -> impl Iterator<Item = &'a str> {
    let listed = |host: &'a Host| {
        let (name, scheme) = form.belongs(&list.service, host);
        read(host, scheme).map(|_| name)
    };
    list.hosts.iter().filter_map(listed)
}
