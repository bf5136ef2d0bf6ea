//! What is known of one kind of objects: by their keys, and by the names that they are instances of.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::value::RawValue;

use super::model::{EndpointSlice, Head, Pod};
use super::options::KubernetesOptions;
use super::slices::{self, Slice};
use super::{pods, slices::SERVICE};
use crate::backend::{BadRecord, Snapshot};
use crate::instance::ServiceInstance;

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Pods,
    Slices,
}

impl Kind {
    /// The group and the word of its path.
    pub(super) fn path(self) -> (&'static str, &'static str) {
        match self {
            Self::Pods => ("/api/v1", "pods"),
            Self::Slices => ("/apis/discovery.k8s.io/v1", "endpointslices"),
        }
    }

    /// The label that all of them carry, whose value is the name of the service.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Pods => pods::APP,
            Self::Slices => SERVICE,
        }
    }

    /// How many are read in one page: a slice is large.
    pub(super) fn page(self) -> usize {
        match self {
            Self::Pods => 500,
            Self::Slices => 50,
        }
    }
}

/// One object that is of a name.
#[derive(Debug)]
enum Record {
    Pod(Arc<ServiceInstance>),
    Slice(Slice),
    Bad(BadRecord),
}

/// Where an object lies.
pub(super) type Key = Arc<str>;

#[derive(Debug, Default)]
pub(super) struct Store {
    /// Which name each object is of.
    names: HashMap<Key, Arc<str>>,
    by_name: HashMap<Arc<str>, BTreeMap<Key, Record>>,
}

impl Store {
    /// Takes an object in. Returns its key, and the version of the whole that it was read at.
    pub(super) fn put(
        &mut self,
        kind: Kind,
        options: &KubernetesOptions,
        text: &RawValue,
        changed: &mut HashSet<Arc<str>>,
    ) -> Option<(Key, String)> {
        let head: Head = serde_json::from_str(text.get()).ok()?;
        let key: Key = format!("{}/{}", head.metadata.namespace, head.metadata.name).into();
        let read = match kind {
            Kind::Pods => match serde_json::from_str::<Pod>(text.get()) {
                Ok(pod) => pods::read(options, pod).map(|(name, read)| {
                    let read = read.map(|instance| Record::Pod(Arc::new(instance)));
                    (name, read.unwrap_or_else(Record::Bad))
                }),
                Err(error) => bad(kind, &head, &error.to_string()),
            },
            Kind::Slices => match serde_json::from_str::<EndpointSlice>(text.get()) {
                Ok(slice) => slices::read(options, slice).map(|(name, read)| {
                    let read = read.map(Record::Slice);
                    (name, read.unwrap_or_else(Record::Bad))
                }),
                Err(error) => bad(kind, &head, &error.to_string()),
            },
        };
        match read {
            None => self.take(&key, changed),
            Some((name, record)) => self.keep(&key, &name, record, changed),
        }
        Some((key, head.metadata.resource_version))
    }

    fn keep(&mut self, key: &Key, name: &str, record: Record, changed: &mut HashSet<Arc<str>>) {
        if self.names.get(key).is_some_and(|before| **before != *name) {
            self.take(key, changed);
        }
        let name = match self.by_name.get_key_value(name) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(name),
        };
        let records = self.by_name.entry(Arc::clone(&name)).or_default();
        // Most changes of a pod are none of what is read of it.
        let is_same = match (records.get(key), &record) {
            (Some(Record::Pod(before)), Record::Pod(now)) => before == now,
            (Some(Record::Bad(before)), Record::Bad(now)) => before == now,
            _ => false,
        };
        if is_same {
            return;
        }
        records.insert(Arc::clone(key), record);
        self.names.insert(Arc::clone(key), Arc::clone(&name));
        changed.insert(name);
    }

    /// Forgets an object.
    pub(super) fn take(&mut self, key: &str, changed: &mut HashSet<Arc<str>>) {
        let Some(name) = self.names.remove(key) else {
            return;
        };
        if let Some(records) = self.by_name.get_mut(&name) {
            records.remove(key);
            if records.is_empty() {
                self.by_name.remove(&name);
            }
        }
        changed.insert(name);
    }

    /// The list of a name.
    pub(super) fn snapshot(&self, options: &KubernetesOptions, name: &Arc<str>) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let Some(records) = self.by_name.get(name) else {
            return snapshot;
        };
        let mut slices = Vec::new();
        for record in records.values() {
            match record {
                Record::Pod(instance) => snapshot.instances.push(Arc::clone(instance)),
                Record::Slice(slice) => slices.push(slice),
                Record::Bad(bad) => snapshot.bad.push(bad.clone()),
            }
        }
        snapshot
            .instances
            .extend(slices::merge(options, name, slices.into_iter()));
        snapshot
    }

    /// Whether a name has an instance.
    pub(super) fn has(&self, options: &KubernetesOptions, name: &Arc<str>) -> bool {
        !self.snapshot(options, name).instances.is_empty()
    }

    /// The names that have an instance.
    pub(super) fn names(&self, options: &KubernetesOptions) -> Vec<Arc<str>> {
        let each = self.by_name.keys();
        each.filter(|name| self.has(options, name)).cloned().collect()
    }
}

fn bad(kind: Kind, head: &Head, why: &str) -> Option<(String, Record)> {
    let name = head.metadata.labels.get(kind.label()).filter(|name| !name.is_empty())?;
    let word = match kind {
        Kind::Pods => "pod",
        Kind::Slices => "endpointslice",
    };
    let record = BadRecord {
        key: format!("{word} {}/{}", head.metadata.namespace, head.metadata.name),
        reason: why.to_owned(),
    };
    Some((name.clone(), Record::Bad(record)))
}
