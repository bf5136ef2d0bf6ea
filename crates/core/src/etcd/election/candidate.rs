//! One candidate's key in etcd, and what is asked about it. The transactions of `election.go` and `mutex.go` of etcd's
//! `client/v3/concurrency`, with two differences: a key is ours only if it lies under our lease, and whether a candidate
//! is the oldest is read together with its own key, in one linearizable transaction.
//!
//! Everything here does the same twice as once, so an answer that was lost is answered by asking again.

use std::time::Duration;

use etcd_client::proto::PbTxnResponse;
use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp};
use tokio::time::Instant;

use super::elections::Elections;
use super::queue::{End, Queue, counts, end_of, hex, keys};
use crate::etcd::error::Fault;
use crate::etcd::watch::request::{OnDisconnect, WatchRequest};
use crate::etcd::watch::subscription::Subscription;

/// How the last part of a candidate's key is made from its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// The decimal id, as the npm package etcd3 writes it.
    Decimal,
    /// The hexadecimal id, as etcd's Go client and `etcdctl` write it.
    Hex,
}

/// What candidates compete for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Every candidate has a key of its own below a prefix, `<prefix><lease id>`; the one created first leads.
    Queue {
        /// What the keys of all candidates begin with, with its slash at the end. A key below it is that of a candidate
        /// if and only if the rest of it is the id of its own lease, in either naming.
        prefix: Vec<u8>,
        /// The rest of the key.
        naming: Naming,
    },
    /// One key for all: whoever creates it leads, and nobody waits for it.
    Key(Vec<u8>),
}

impl Place {
    /// The key of the candidate with this lease.
    pub fn key(&self, lease: i64) -> Vec<u8> {
        match self {
            Self::Key(key) => key.clone(),
            Self::Queue { prefix, naming } => {
                let id = match naming {
                    Naming::Decimal => lease.to_string(),
                    Naming::Hex => hex(lease),
                };
                let mut key = prefix.clone();
                key.extend_from_slice(id.as_bytes());
                key
            }
        }
    }
}

/// One candidate: its lease, its key, and where it competes.
pub(super) struct Seat<'a> {
    pub elections: &'a Elections,
    pub place: &'a Place,
    pub lease: i64,
    pub key: &'a [u8],
    /// How long one question may take: a member that is silent is to cost a part of the lease's time only.
    pub patience: Duration,
}

/// Where and when an answer was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub revision: i64,
    pub cluster: u64,
}

/// Our key as it was written.
pub(super) struct Created {
    /// Its create revision: the fencing token.
    pub revision: i64,
    pub mod_revision: i64,
    pub value: Vec<u8>,
    /// Whether it was the oldest key of all at that moment. One that was not may still be the oldest candidate.
    pub is_first: bool,
    pub at: Moment,
}

pub(super) enum Creation {
    Ours(Created),
    /// The key is there and not under our lease.
    Taken,
    /// It was to be found there and is not.
    Missing,
}

/// What a look at our key and at those before it found.
pub(super) enum Look {
    /// Ours is not there any more, is not the one that was created, or is not under our lease.
    Gone,
    /// Ours is the oldest.
    First(Moment),
    /// `older` was created last before ours, at the revision `created`.
    Behind { older: Vec<u8>, created: i64, at: Moment },
}

/// What became of a write to our key.
pub(super) enum Written {
    Done {
        mod_revision: i64,
    },
    /// It is ours and was changed meanwhile: by a write of ours without an answer, or by hand.
    Changed {
        mod_revision: i64,
        value: Vec<u8>,
    },
    Gone,
}

impl Seat<'_> {
    /// Creates the key under the lease unless it is there. With `attach` it has to be there.
    pub async fn create(&self, value: &[u8], attach: bool) -> Result<Creation, Fault> {
        let first = self.first();
        let mut created = vec![self.put(value)];
        let mut found = vec![TxnOp::get(self.key, None)];
        created.extend(first.clone());
        found.extend(first);
        let compare = if attach {
            Compare::version(self.key, CompareOp::Less, 0) // never: only look
        } else {
            Compare::create_revision(self.key, CompareOp::Equal, 0)
        };
        let txn = Txn::new().when(vec![compare]).and_then(created).or_else(found);
        let (answer, at) = self.commit("campaign", &txn).await?;
        // Without a queue the key itself is the first.
        let is_first = match self.place {
            Place::Key(_) => true,
            Place::Queue { .. } => keys(&answer, 1)?.first().is_some_and(|kv| kv.key == self.key),
        };
        if answer.succeeded {
            return Ok(Creation::Ours(Created {
                revision: at.revision,
                mod_revision: at.revision,
                value: value.to_vec(),
                is_first,
                at,
            }));
        }
        Ok(match keys(&answer, 0)?.first() {
            Some(own) if own.lease == self.lease => Creation::Ours(Created {
                revision: own.create_revision,
                mod_revision: own.mod_revision,
                value: own.value.clone(),
                is_first,
                at,
            }),
            Some(_) => Creation::Taken,
            None => Creation::Missing,
        })
    }

    /// Reads our key and the candidate before it at one moment, from the majority of the members. `below`: no candidate
    /// is sought that was created at this revision or later.
    pub async fn look(&self, created: i64, below: i64) -> Result<Look, Fault> {
        let mut reads = vec![TxnOp::get(self.key, None)]; // not keys-only: etcd 3.7 answers that without the lease
        // No key is created at revision 1 or before, and to etcd an upper bound of 0 is none.
        let queue = match self.place {
            Place::Queue { prefix, .. } if below > 1 => Some(prefix),
            _ => None,
        };
        if let Some(prefix) = queue {
            let older = GetOptions::new()
                .with_range(end_of(prefix))
                .with_max_create_revision(below - 1)
                .with_sort(SortTarget::Create, SortOrder::Descend)
                .with_limit(1); // whole, for its lease
            reads.push(TxnOp::get(prefix.as_slice(), Some(older)));
        }
        let (answer, at) = self.commit("look at a campaign", &Txn::new().and_then(reads)).await?;
        let own = keys(&answer, 0)?;
        if !own
            .first()
            .is_some_and(|own| own.create_revision == created && own.lease == self.lease)
        {
            return Ok(Look::Gone);
        }
        let Some(prefix) = queue else {
            return Ok(Look::First(at));
        };
        let Some(newest) = keys(&answer, 1)?.first() else {
            return Ok(Look::First(at));
        };
        let older = if counts(prefix, &newest.key, newest.lease) {
            Some(newest.clone())
        } else {
            let queue = Queue {
                calls: &self.elections.calls,
                prefix,
                revision: at.revision,
                patience: self.patience,
            };
            queue.find(0..newest.create_revision + 1, End::Newest).await?
        };
        Ok(older.map_or(Look::First(at), |older| Look::Behind {
            older: older.key,
            created: older.create_revision,
            at,
        }))
    }

    /// Writes a new value, if the key is the one that was created and nobody has written it since `mod_revision`. So a
    /// write of ours that a slow member applies late overwrites no newer one.
    pub async fn write(&self, value: &[u8], created: i64, mod_revision: i64) -> Result<Written, Fault> {
        let txn = Txn::new()
            .when(vec![
                Compare::create_revision(self.key, CompareOp::Equal, created),
                Compare::mod_revision(self.key, CompareOp::Equal, mod_revision),
            ])
            .and_then(vec![self.put(value)])
            .or_else(vec![TxnOp::get(self.key, None)]);
        let (answer, at) = self.commit("proclaim", &txn).await?;
        if answer.succeeded {
            return Ok(Written::Done {
                mod_revision: at.revision,
            });
        }
        Ok(match keys(&answer, 0)?.first() {
            Some(own) if own.create_revision == created && own.lease == self.lease => Written::Changed {
                mod_revision: own.mod_revision,
                value: own.value.clone(),
            },
            _ => Written::Gone,
        })
    }

    /// Changes of a key after `at`.
    pub fn watch(&self, key: &[u8], at: Moment) -> Subscription {
        self.elections.watches.subscribe(WatchRequest {
            key: key.to_vec(),
            range_end: Vec::new(),
            from_revision: at.revision + 1,
            cluster: at.cluster,
            on_disconnect: OnDisconnect::Resume,
            ..WatchRequest::default()
        })
    }

    fn put(&self, value: &[u8]) -> TxnOp {
        TxnOp::put(self.key, value, Some(PutOptions::new().with_lease(self.lease)))
    }

    /// Reads the oldest key of the queue, if there is a queue.
    fn first(&self) -> Option<TxnOp> {
        let Place::Queue { prefix, .. } = self.place else {
            return None;
        };
        let first = GetOptions::new()
            .with_range(end_of(prefix))
            .with_sort(SortTarget::Create, SortOrder::Ascend)
            .with_limit(1)
            .with_keys_only();
        Some(TxnOp::get(prefix.as_slice(), Some(first)))
    }

    async fn commit(&self, op: &'static str, txn: &Txn) -> Result<(PbTxnResponse, Moment), Fault> {
        let until = Instant::now() + self.patience;
        let (answer, _) = self
            .elections
            .calls
            .call_until(op, until, |connection| {
                let (mut kv, txn) = (self.elections.calls.kv(&connection), txn.clone());
                async move { kv.txn(txn).await }
            })
            .await?;
        let at = answer.header().map_or(
            Moment {
                revision: 0,
                cluster: 0,
            },
            |header| Moment {
                revision: header.revision(),
                cluster: header.cluster_id(),
            },
        );
        Ok((answer.0, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_other_clients() {
        let queue = |naming| Place::Queue {
            prefix: b"election/job/".to_vec(),
            naming,
        };
        let lease = 0x7587_0c2a_1b3d_4e5f;
        assert_eq!(queue(Naming::Hex).key(lease), b"election/job/75870c2a1b3d4e5f");
        assert_eq!(queue(Naming::Decimal).key(lease), b"election/job/8468750999278669407");
        assert_eq!(Place::Key(b"k".to_vec()).key(lease), b"k");
    }
}
