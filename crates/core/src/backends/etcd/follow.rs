//! A range followed, that of a name or that of all names: one read at revision R, then the watch from R + 1 folded into it.
//! One snapshot per answer of etcd that changes anything, or per several of them when they wait together; the work of a
//! snapshot is proportional to the list that it holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::keys::Keys;
use super::shared::Shared;
use crate::backend::{BadRecord, Snapshot, Steps, steps};
use crate::error::{Error, ErrorKind, Result};
use crate::etcd::{Batch, Cause, Change, Fault, OnDisconnect, Subscription, WatchEnd, WatchRequest};
use crate::instance::ServiceInstance;
use crate::store::Moment;

/// What a range comes to, kept up by its changes.
#[async_trait]
pub(super) trait Fold: Send + 'static {
    type Read: Send + 'static;

    /// The range.
    fn range(&self, keys: &Keys) -> (Vec<u8>, Vec<u8>);

    /// What messages call it.
    fn called(&self, keys: &Keys) -> String;

    /// The prefix that somebody who may not has to be granted.
    fn granted(&self, keys: &Keys) -> String {
        keys.prefix().to_owned()
    }

    /// Reads all of it anew, at one moment.
    async fn read(&mut self, shared: &Shared) -> Result<Moment>;

    /// Whether a change makes any difference.
    fn change(&mut self, keys: &Keys, change: Change) -> bool;

    /// What it comes to now.
    fn give(&self) -> Self::Read;
}

struct RangeWatch<F> {
    shared: Arc<Shared>,
    fold: F,
    watch: Option<Subscription>,
    /// Whether it has been read once. Later reads are many at a time, and take turns.
    has_read: bool,
}

/// Follows the instances of a name.
pub(super) fn follow(shared: Arc<Shared>, name: &str) -> BoxStream<'static, Result<Snapshot>> {
    let instances = Instances {
        common: shared.keys.service_prefix(name).len(),
        name: name.into(),
        entries: BTreeMap::new(),
    };
    follow_range(shared, instances)
}

/// Follows what a range comes to.
pub(super) fn follow_range<F: Fold>(shared: Arc<Shared>, fold: F) -> BoxStream<'static, Result<F::Read>> {
    let start = RangeWatch {
        shared,
        fold,
        watch: None,
        has_read: false,
    };
    steps(start)
}

impl<F: Fold> Steps for RangeWatch<F> {
    type Read = F::Read;

    async fn next(&mut self) -> Result<F::Read> {
        loop {
            let Some(watch) = &mut self.watch else {
                self.read().await?;
                return Ok(self.fold.give());
            };
            match watch.next().await {
                Ok(batch) => {
                    let mut changed = self.fold(batch);
                    // One read for all that waits: it is the work, and those in between are old already.
                    while let Some(batch) = self.watch.as_mut().and_then(Subscription::queued) {
                        changed |= self.fold(batch);
                    }
                    if changed {
                        return Ok(self.fold.give());
                    }
                }
                // The connection stands and so does the history: read anew here, nobody need know.
                Err(WatchEnd::Lapsed | WatchEnd::Compacted(_)) => self.watch = None,
                Err(WatchEnd::Disconnected(error)) => return Err(error),
                Err(WatchEnd::HistoryBroke(why)) => return Err(Error::new(ErrorKind::Unavailable, why)),
                Err(WatchEnd::Refused(error)) => {
                    let fault = Fault::of(Cause::Refused, error);
                    let keys = &self.shared.keys;
                    let (what, prefix) = (self.fold.called(keys), self.fold.granted(keys));
                    return Err(self.shared.explain_under(fault, "watch", &what, &prefix));
                }
                Err(WatchEnd::Closed) => return Err(Error::new(ErrorKind::Closed, "the client was closed")),
            }
        }
    }
}

impl<F: Fold> RangeWatch<F> {
    async fn read(&mut self) -> Result<()> {
        let client = &self.shared.client;
        let _turn = if self.has_read {
            // Who waits for longer than a read may take knows nothing any more, and has to say so.
            let turn = tokio::time::timeout(client.options().timeout, client.watches.catching_up().acquire()).await;
            Some(turn.map_err(|_| Error::new(ErrorKind::Timeout, "too many lists are being read anew from etcd"))?)
        } else {
            None // paced by who follows
        };
        let Moment { revision, cluster } = self.fold.read(&self.shared).await?;
        self.has_read = true;
        let (key, range_end) = self.fold.range(&self.shared.keys);
        self.watch = Some(self.shared.client.watches.subscribe(WatchRequest {
            key,
            range_end,
            from_revision: revision + 1,
            cluster,
            on_disconnect: OnDisconnect::End,
            ..WatchRequest::default()
        }));
        Ok(())
    }

    /// Whether anything changed.
    fn fold(&mut self, batch: Batch) -> bool {
        let mut changed = false;
        for change in batch.changes {
            changed |= self.fold.change(&self.shared.keys, change);
        }
        changed
    }
}

/// The instances of a name.
struct Instances {
    name: Arc<str>,
    /// By what of the key is the record's own: the id, as a rule.
    entries: BTreeMap<Box<[u8]>, Record>,
    /// How much of every key is the name's.
    common: usize,
}

/// What a key holds.
#[derive(PartialEq)]
enum Record {
    Good(Arc<ServiceInstance>),
    Bad(Box<BadRecord>),
}

#[async_trait]
impl Fold for Instances {
    type Read = Snapshot;

    fn range(&self, keys: &Keys) -> (Vec<u8>, Vec<u8>) {
        keys.service(&self.name)
    }

    fn called(&self, keys: &Keys) -> String {
        keys.service_prefix(&self.name)
    }

    async fn read(&mut self, shared: &Shared) -> Result<Moment> {
        let read = shared.read_service(&self.name).await?;
        let mut before = std::mem::take(&mut self.entries);
        for record in read.records {
            let (key, value) = record.into_key_value();
            if let Some(entry) = self.entry(&shared.keys, &key, &value) {
                // An instance that has not changed keeps its `Arc`.
                let own = self.own(&key);
                let entry = before.remove(&own).filter(|old| *old == entry).unwrap_or(entry);
                self.entries.insert(own, entry);
            }
        }
        Ok(Moment {
            revision: read.revision,
            cluster: read.cluster,
        })
    }

    fn change(&mut self, keys: &Keys, Change { key, value, .. }: Change) -> bool {
        let entry = value.and_then(|value| self.entry(keys, &key, &value));
        let own = self.own(&key);
        if self.entries.get(&own) == entry.as_ref() {
            return false; // the same value written again, or a record of another name
        }
        match entry {
            Some(entry) => self.entries.insert(own, entry),
            None => self.entries.remove(&own),
        };
        true
    }

    fn give(&self) -> Snapshot {
        let mut snapshot = Snapshot {
            instances: Vec::with_capacity(self.entries.len()),
            bad: Vec::new(),
        };
        for entry in self.entries.values() {
            match entry {
                Record::Good(instance) => snapshot.instances.push(Arc::clone(instance)),
                Record::Bad(bad) => snapshot.bad.push((**bad).clone()),
            }
        }
        snapshot
    }
}

impl Instances {
    fn own(&self, key: &[u8]) -> Box<[u8]> {
        key.get(self.common..).unwrap_or(key).into()
    }

    fn entry(&self, keys: &Keys, key: &[u8], value: &[u8]) -> Option<Record> {
        Some(match keys.read(&self.name, key, value)? {
            Ok(instance) => Record::Good(Arc::new(instance)),
            Err(bad) => Record::Bad(Box::new(bad)),
        })
    }
}
