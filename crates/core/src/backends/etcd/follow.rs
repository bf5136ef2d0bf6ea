//! A name followed: one read at revision R, then the watch from R + 1 folded into it. One snapshot per answer of etcd
//! that changes anything, or per several of them when they wait together; the work of a snapshot is proportional to the
//! list of its own name.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt as _};

use super::shared::Shared;
use crate::backend::{BadRecord, Snapshot};
use crate::error::{Error, ErrorKind, Result};
use crate::etcd::{Batch, Cause, Change, Fault, OnDisconnect, Subscription, WatchEnd, WatchRequest};
use crate::instance::ServiceInstance;

/// What a key holds.
#[derive(PartialEq)]
enum Record {
    Good(Arc<ServiceInstance>),
    Bad(Box<BadRecord>),
}

struct PrefixWatch {
    shared: Arc<Shared>,
    name: Arc<str>,
    /// By what of the key is the record's own: the id, as a rule.
    entries: BTreeMap<Box<[u8]>, Record>,
    /// How much of every key is the name's.
    common: usize,
    watch: Option<Subscription>,
    /// Whether it has been read once. Later reads are many at a time, and take turns.
    has_read: bool,
}

pub(super) fn follow(shared: Arc<Shared>, name: &str) -> BoxStream<'static, Result<Snapshot>> {
    let start = PrefixWatch {
        common: shared.keys.service_prefix(name).len(),
        shared,
        name: name.into(),
        entries: BTreeMap::new(),
        watch: None,
        has_read: false,
    };
    stream::unfold(Some(start), |state| async move {
        let mut follow = state?;
        match follow.next().await {
            Ok(snapshot) => Some((Ok(snapshot), Some(follow))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

impl PrefixWatch {
    async fn next(&mut self) -> Result<Snapshot> {
        loop {
            let Some(watch) = &mut self.watch else {
                self.read().await?;
                return Ok(self.snapshot());
            };
            match watch.next().await {
                Ok(batch) => {
                    let mut changed = self.fold(batch);
                    // One snapshot for all that waits: it is the work, and the lists in between are old already.
                    while let Some(batch) = self.watch.as_mut().and_then(Subscription::queued) {
                        changed |= self.fold(batch);
                    }
                    if changed {
                        return Ok(self.snapshot());
                    }
                }
                // The connection stands and so does the history: read anew here, nobody need know.
                Err(WatchEnd::Lapsed | WatchEnd::Compacted(_)) => self.watch = None,
                Err(WatchEnd::Disconnected(error)) => return Err(error),
                Err(WatchEnd::HistoryBroke(why)) => return Err(Error::new(ErrorKind::Unavailable, why)),
                Err(WatchEnd::Refused(error)) => {
                    let fault = Fault::of(Cause::Refused, error);
                    let what = self.shared.keys.service_prefix(&self.name);
                    return Err(self.shared.explain(fault, "watch", &what));
                }
                Err(WatchEnd::Closed) => return Err(Error::new(ErrorKind::Closed, "the client was closed")),
            }
        }
    }

    async fn read(&mut self) -> Result<()> {
        let client = &self.shared.client;
        let _turn = if self.has_read {
            // Who waits for longer than a read may take knows nothing any more, and has to say so.
            let turn = tokio::time::timeout(client.options().timeout, client.watches.catching_up().acquire()).await;
            Some(turn.map_err(|_| Error::new(ErrorKind::Timeout, "too many lists are being read anew from etcd"))?)
        } else {
            None // paced by who follows
        };
        let read = self.shared.read_service(&self.name).await?;
        self.has_read = true;
        let mut before = std::mem::take(&mut self.entries);
        for record in read.records {
            let (key, value) = record.into_key_value();
            if let Some(entry) = self.entry(&key, &value) {
                // An instance that has not changed keeps its `Arc`.
                let own = self.own(&key);
                let entry = before.remove(&own).filter(|old| *old == entry).unwrap_or(entry);
                self.entries.insert(own, entry);
            }
        }
        let (key, range_end) = self.shared.keys.service(&self.name);
        self.watch = Some(self.shared.client.watches.subscribe(WatchRequest {
            key,
            range_end,
            from_revision: read.revision + 1,
            cluster: read.cluster,
            on_disconnect: OnDisconnect::End,
            ..WatchRequest::default()
        }));
        Ok(())
    }

    /// Whether anything changed.
    fn fold(&mut self, batch: Batch) -> bool {
        let mut changed = false;
        for Change { key, value, .. } in batch.changes {
            let entry = value.and_then(|value| self.entry(&key, &value));
            let own = self.own(&key);
            if self.entries.get(&own) == entry.as_ref() {
                continue; // the same value written again, or a record of another name
            }
            changed = true;
            match entry {
                Some(entry) => self.entries.insert(own, entry),
                None => self.entries.remove(&own),
            };
        }
        changed
    }

    fn own(&self, key: &[u8]) -> Box<[u8]> {
        key.get(self.common..).unwrap_or(key).into()
    }

    fn entry(&self, key: &[u8], value: &[u8]) -> Option<Record> {
        Some(match self.shared.keys.read(&self.name, key, value)? {
            Ok(instance) => Record::Good(Arc::new(instance)),
            Err(bad) => Record::Bad(Box::new(bad)),
        })
    }

    fn snapshot(&self) -> Snapshot {
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
