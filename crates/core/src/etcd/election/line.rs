//! A place in a queue in which more than one may hold at a time, or others count than those of one prefix: its key, and what
//! is asked about it. For machines above the client; an election and a lock of this client have their own
//! ([`Seat`](super::candidate::Seat)).
//!
//! Everything here does the same twice as once, so an answer that was lost is answered by asking again.

use std::future::pending;

use etcd_client::proto::{PbKeyValue, PbTxnResponse};
use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp};
use tokio::time::Instant;

use super::elections::Elections;
use super::queue::{counts, end_of, keys};
use crate::error::{Error, ErrorKind, Result};
use crate::etcd::error::{Cause, Fault};
use crate::etcd::watch::events::Change;
use crate::etcd::watch::request::{OnDisconnect, WatchRequest};
use crate::etcd::watch::sink::WatchEnd;
use crate::etcd::watch::subscription::Subscription;

/// How many keys that are nobody's place are read along at first; four times as many each time that they hide what is sought.
const SPARE: usize = 4;

/// A place in a queue.
pub struct Line<'a> {
    /// What it is asked of.
    pub elections: &'a Elections,
    /// The lease that its key lies under.
    pub lease: i64,
    /// Its key.
    pub key: &'a [u8],
    /// What the keys begin with that may come before it.
    pub prefixes: &'a [&'a [u8]],
    /// How many of those before it are sought: the youngest.
    pub most: usize,
}

/// What was found about a place at one moment.
pub struct Standing {
    /// Whether its key is there as it was created, under its lease.
    pub stands: bool,
    /// The youngest before it.
    pub older: Vec<Vec<u8>>,
    /// The revision of that moment.
    pub revision: i64,
}

/// A key that is there.
pub struct Placed {
    /// Its create revision.
    pub at: i64,
    /// The cluster.
    pub cluster: u64,
    /// What stood there when it was created. `None`: it was there already, or those before it hide behind too many others.
    pub seen: Option<Standing>,
}

/// The youngest that stand, of what was read.
struct Older {
    keys: Vec<Vec<u8>>,
    /// There may be more than were read.
    is_hidden: bool,
}

impl Line<'_> {
    /// Creates the key under its lease, unless it is there under it. `None`: the key is there and lies under another lease.
    pub async fn create(&self, value: &[u8], until: Instant) -> Result<Option<Placed>, Fault> {
        let put = TxnOp::put(self.key, value, Some(PutOptions::new().with_lease(self.lease)));
        let most = self.most.saturating_add(SPARE); // the key itself is read along
        let mut then = vec![put];
        then.extend(self.reads(most, None));
        let txn = Txn::new()
            .when(vec![Compare::create_revision(self.key, CompareOp::Equal, 0)])
            .and_then(then)
            .or_else(vec![TxnOp::get(self.key, None)]);
        let (answer, revision, cluster) = self.commit("enter a queue", &txn, until).await?;
        if answer.succeeded {
            let older = self.older(&answer, most)?;
            let seen = (!older.is_hidden).then_some(Standing {
                stands: true,
                older: older.keys,
                revision,
            });
            let at = revision;
            return Ok(Some(Placed { at, cluster, seen }));
        }
        let own = keys(&answer, 0)?.first().filter(|own| own.lease == self.lease);
        Ok(own.map(|own| Placed {
            at: own.create_revision,
            cluster,
            seen: None,
        }))
    }

    /// Reads the key and those before it in one linearizable transaction.
    pub async fn look(&self, created: i64, cluster: u64, until: Instant) -> Result<Standing, Fault> {
        let mut spare = SPARE;
        loop {
            let most = self.most.saturating_add(spare);
            let mut reads = vec![TxnOp::get(self.key, None)];
            reads.extend(self.reads(most, Some(created)));
            let (answer, revision, at) = self
                .commit("look at a queue", &Txn::new().and_then(reads), until)
                .await?;
            let is_own = |own: &PbKeyValue| own.create_revision == created && own.lease == self.lease && at == cluster;
            let stands = keys(&answer, 0)?.first().is_some_and(is_own);
            let older = self.older(&answer, most)?;
            if older.is_hidden && stands {
                spare = spare.saturating_mul(4);
                continue;
            }
            return Ok(Standing {
                stands,
                older: older.keys,
                revision,
            });
        }
    }

    /// What asks for the `most` youngest below each prefix, of those before a revision. Not keys-only: etcd 3.7 answers that
    /// without the lease.
    fn reads(&self, most: usize, created: Option<i64>) -> impl Iterator<Item = TxnOp> {
        let mut youngest = GetOptions::new()
            .with_sort(SortTarget::Create, SortOrder::Descend)
            .with_limit(i64::try_from(most).unwrap_or(i64::MAX));
        if let Some(created) = created {
            youngest = youngest.with_max_create_revision((created - 1).max(1)); // to etcd 0 is no bound; nothing is created at 1
        }
        let of = move |prefix: &&[u8]| TxnOp::get(*prefix, Some(youngest.clone().with_range(end_of(prefix))));
        self.prefixes.iter().map(of)
    }

    /// Those before the key, of an answer to [`reads`](Self::reads), which follow one other operation.
    fn older(&self, answer: &PbTxnResponse, most: usize) -> Result<Older, Fault> {
        let (mut older, mut hidden) = (Vec::new(), false);
        for (place, prefix) in self.prefixes.iter().enumerate() {
            let found = keys(answer, place + 1)?;
            let before = older.len();
            let standing = found
                .iter()
                .filter(|kv| kv.key != self.key && counts(prefix, &kv.key, kv.lease));
            older.extend(standing.map(|kv| (kv.create_revision, kv.key.clone())));
            hidden |= found.len() >= most && older.len() - before < self.most;
        }
        let is_hidden = hidden && older.len() < self.most;
        older.sort_unstable_by_key(|(created, _)| -created);
        older.truncate(self.most);
        let keys = older.into_iter().map(|(_, key)| key).collect();
        Ok(Older { keys, is_hidden })
    }

    /// Resolves when the key is deleted or put under another lease, or one of `seen.older` is; or with why nobody watches any
    /// more. What happened since that moment counts.
    pub async fn changed(&self, cluster: u64, seen: &Standing) -> Result<()> {
        let mut own = self.watch(self.key, Vec::new(), seen.revision, cluster);
        // Who holds has nobody to wait for; who waits for one watches that one alone, so that a handover wakes one.
        let mut others = match seen.older.as_slice() {
            _ if seen.older.len() < self.most => Vec::new(),
            [one] => vec![self.watch(one, Vec::new(), seen.revision, cluster)],
            _ => {
                let watched = self.prefixes.iter();
                watched
                    .map(|prefix| self.watch(prefix, end_of(prefix), seen.revision, cluster))
                    .collect()
            }
        };
        let older_gone = |change: &Change| {
            seen.older.iter().any(|key| **key == *change.key)
                && (change.value.is_none()
                    || !self
                        .prefixes
                        .iter()
                        .any(|prefix| counts(prefix, &change.key, change.lease)))
        };
        let others = async {
            if others.is_empty() {
                return pending().await;
            }
            let each = others.iter_mut().map(|watch| Box::pin(heard(watch, &older_gone)));
            futures::future::select_all(each).await.0
        };
        let own_gone = |change: &Change| change.value.is_none() || change.lease != self.lease;
        tokio::select! {
            biased;
            end = heard(&mut own, &own_gone) => end,
            end = others => end,
        }
    }

    fn watch(&self, key: &[u8], range_end: Vec<u8>, revision: i64, cluster: u64) -> Subscription {
        self.elections.watches.subscribe(WatchRequest {
            key: key.to_vec(),
            range_end,
            from_revision: revision + 1,
            cluster,
            on_disconnect: OnDisconnect::Resume,
            ..WatchRequest::default()
        })
    }

    async fn commit(&self, op: &'static str, txn: &Txn, until: Instant) -> Result<(PbTxnResponse, i64, u64), Fault> {
        let calls = &self.elections.calls;
        let (answer, _) = calls
            .call_until(op, until, |connection| {
                let (mut kv, txn) = (calls.kv(&connection), txn.clone());
                async move { kv.txn(txn).await }
            })
            .await?;
        let (revision, cluster) = answer
            .header()
            .map_or((0, 0), |header| (header.revision(), header.cluster_id()));
        if revision == 0 {
            let text = "etcd answered a transaction without a header";
            return Err(Fault::new(Cause::Refused, ErrorKind::Internal, text));
        }
        Ok((answer.0, revision, cluster))
    }
}

impl Elections {
    /// Resolves when something below a prefix changes after that revision; or with why nobody watches any more.
    pub async fn stirs(&self, prefix: &[u8], revision: i64, cluster: u64) -> Result<()> {
        let mut watch = self.watches.subscribe(WatchRequest {
            key: prefix.to_vec(),
            range_end: end_of(prefix),
            from_revision: revision + 1,
            cluster,
            on_disconnect: OnDisconnect::Resume,
            ..WatchRequest::default()
        });
        heard(&mut watch, &|_| true).await
    }
}

/// Resolves when a watch tells of such a change, or ends.
async fn heard(watch: &mut Subscription, of: &impl Fn(&Change) -> bool) -> Result<()> {
    loop {
        match watch.next().await {
            Ok(batch) if batch.changes.iter().any(of) => return Ok(()),
            Ok(_) => {}
            Err(WatchEnd::Refused(error)) => return Err(error),
            Err(WatchEnd::Closed) => return pending().await, // the end of the lease tells
            Err(_) => return Err(Error::new(ErrorKind::Unavailable, "a watch of the queue ended")),
        }
    }
}
