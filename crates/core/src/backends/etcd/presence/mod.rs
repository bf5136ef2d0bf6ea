//! One registration in etcd: a key under a lease of its own.
//!
//! Every write here does the same twice as once, so that a lost answer is answered by writing again:
//!
//! - a grant names its lease, and is repeated with the same name;
//! - a put is made by transaction where it may not take the key from another owner, and whose key it is, is told by the
//!   lease on it: ours are known, because they were ours before the first byte was sent;
//! - a revocation of a lease that is gone is a success.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::proto::{PbTxnOpResponse, PbTxnResponse};
use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp};

use super::shared::Shared;
use crate::backend::{Intent, Loss, Presence};
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::etcd::{
    Batch, Cause, Fault, Lease, OnDisconnect, Subscription, WatchEnd, WatchRequest, lost, whole_seconds,
};
use crate::instance::ServiceInstance;

/// How often a key of ours may change between being read and being written before the attempt is given up.
const RACES: u32 = 3;
/// How many writes without an answer are remembered. Beyond it the oldest is taken for a late one, and written over.
const UNANSWERED: usize = 4;
/// How many leases that were revoked are remembered: a backup of etcd may hold what stood under them.
const REVOKED: usize = 32;
/// How long revoking the leases of before a repair may hold up its publication.
const TIDYING: Duration = Duration::from_secs(1);

pub(super) struct EtcdPresence {
    shared: Arc<Shared>,
    key: String,
    /// Every lease that we asked for and do not know to be gone. A record under one of them is ours.
    leases: Vec<i64>,
    /// Those that are gone, the newest last: with an older state of etcd they, and the record under them, come back.
    revoked: VecDeque<i64>,
    /// Asked for, no answer yet: the next attempt asks for the same, so that no number of failures adds up.
    unanswered: Option<i64>,
    /// The one that is being renewed.
    lease: Option<Lease>,
    /// What the last grant said.
    granted: Duration,
    published: Option<Published>,
    /// The value of that write.
    value: String,
    /// The values of writes since that were not answered: any of them may stand instead.
    unanswered_values: Vec<String>,
    own: OwnKey,
    /// Between two readings of our key that brought no watch that holds.
    backoff: Backoff,
    /// Whether the last reading brought none yet.
    looked: bool,
    /// Whether it was said that our key can't be read.
    unreadable_told: bool,
    /// Whether the record is taken away, so that one of ours is what is not to be there.
    is_out: bool,
    loss: Option<Loss>,
}

/// The last write that was answered.
#[derive(Clone, Copy)]
struct Published {
    /// Changes up to this revision are older than the write.
    revision: i64,
    cluster: u64,
}

/// What is known about the key without asking.
enum OwnKey {
    /// Changes are told.
    Watched(Subscription),
    /// The watch has a gap: read it, then watch it again.
    Unwatched,
    /// We may write it and not read it. The lease alone must tell, until reading is tried again.
    Unreadable,
}

/// Whose the key is.
enum Holder {
    Nobody,
    Ours { mod_revision: i64 },
    Other { mod_revision: i64 },
}

/// What our key holds.
struct Found<'a> {
    lease: i64,
    value: &'a [u8],
    mod_revision: i64,
    /// Of the cluster that holds it.
    cluster: u64,
}

impl EtcdPresence {
    pub(super) fn new(shared: Arc<Shared>, name: &str, id: &str) -> Self {
        Self {
            key: shared.keys.instance(name, id),
            granted: Duration::from_secs(u64::try_from(whole_seconds(shared.ttl)).unwrap_or(0)),
            shared,
            leases: Vec::new(),
            revoked: VecDeque::new(),
            unanswered: None,
            lease: None,
            published: None,
            value: String::new(),
            unanswered_values: Vec::new(),
            own: OwnKey::Unwatched,
            backoff: Backoff::new(),
            looked: false,
            unreadable_told: false,
            is_out: false,
            loss: None,
        }
    }

    /// The id of a lease that is alive as far as is known: the one we have, or a new one.
    async fn live_lease(&mut self) -> Result<i64> {
        if let Some(lease) = self.lease.as_ref().filter(|lease| lease.is_alive()) {
            return Ok(lease.id());
        }
        self.lease = None;
        let id = *self.unanswered.get_or_insert_with(Lease::new_id);
        if !self.leases.contains(&id) {
            self.leases.push(id); // before it is asked for: this future may be dropped at any await
        }
        let lease = self.shared.client.leases.grant(id, self.shared.ttl).await?;
        self.unanswered = None;
        self.granted = lease.granted();
        self.lease = Some(lease);
        Ok(id)
    }

    /// Writes the key if it is nobody's or ours; says under which revision, and of which cluster.
    async fn write(&self, value: &str, lease: i64, intent: Intent) -> Result<Published, Fault> {
        if intent == Intent::Claim {
            return self.commit(self.put(value, lease)).await.map(|(_, done)| done);
        }
        for _ in 0..RACES {
            // One round trip while nothing is amiss: our lease is on the key, or nothing is.
            let fresh = Txn::new()
                .when(vec![Compare::version(self.key.as_str(), CompareOp::Equal, 0)])
                .and_then(vec![self.put_op(value, lease)])
                .or_else(vec![TxnOp::get(self.key.as_str(), None)]); // not keys-only: see `look`
            let txn = Txn::new()
                .when(vec![Compare::lease(self.key.as_str(), CompareOp::Equal, lease)])
                .and_then(vec![self.put_op(value, lease)])
                .or_else(vec![TxnOp::txn(fresh)]);
            let (answer, done) = self.commit(txn).await?;
            if answer.succeeded {
                return Ok(done);
            }
            let Some(PbTxnOpResponse::ResponseTxn(fresh)) = first_response(answer) else {
                return Err(odd_answer());
            };
            if fresh.succeeded {
                return Ok(done);
            }
            let mod_revision = match self.holder(&fresh)? {
                Holder::Nobody => continue, // it went away meanwhile
                Holder::Ours { mod_revision } => mod_revision,
                // A restored backup holds what stood long ago, under leases of earlier lives: no rival.
                Holder::Other { mod_revision } if !self.is_newer(mod_revision, done.cluster) => mod_revision,
                Holder::Other { mod_revision } => {
                    let text = format!("{:?} belongs to a newer registration of the same id", self.key);
                    let error = Error::new(ErrorKind::Replaced, text).of_revision(mod_revision);
                    return Err(Fault::of(Cause::Refused, error));
                }
            };
            // Under a lease of ours from before: take it over, unless somebody is quicker.
            let takeover = Txn::new()
                .when(vec![Compare::mod_revision(
                    self.key.as_str(),
                    CompareOp::Equal,
                    mod_revision,
                )])
                .and_then(vec![self.put_op(value, lease)]);
            let (answer, done) = self.commit(takeover).await?;
            if answer.succeeded {
                return Ok(done);
            }
        }
        Err(Fault::new(
            Cause::Refused,
            ErrorKind::Unavailable,
            format!("{:?} changes faster than it can be written", self.key),
        ))
    }

    fn put(&self, value: &str, lease: i64) -> Txn {
        Txn::new().and_then(vec![self.put_op(value, lease)])
    }

    fn put_op(&self, value: &str, lease: i64) -> TxnOp {
        TxnOp::put(self.key.as_str(), value, Some(PutOptions::new().with_lease(lease)))
    }

    async fn commit(&self, txn: Txn) -> Result<(PbTxnResponse, Published), Fault> {
        let client = &self.shared.client;
        let answer = client
            .calls
            .call("publish", |connection| {
                let (mut kv, txn) = (client.calls.kv(&connection), txn.clone());
                async move { kv.txn(txn).await }
            })
            .await?;
        let (revision, cluster) = answer.header().map_or((0, 0), |h| (h.revision(), h.cluster_id()));
        Ok((answer.0, Published { revision, cluster }))
    }

    fn holder(&self, read: &PbTxnResponse) -> Result<Holder, Fault> {
        let Some(PbTxnOpResponse::ResponseRange(range)) = read.responses.first().and_then(|r| r.response.as_ref())
        else {
            return Err(odd_answer());
        };
        Ok(match range.kvs.first() {
            None => Holder::Nobody,
            Some(kv) if self.is_ours(kv.lease) || self.was_ours(kv.lease) => Holder::Ours {
                mod_revision: kv.mod_revision,
            },
            Some(kv) => Holder::Other {
                mod_revision: kv.mod_revision,
            },
        })
    }

    /// Whether an answer is of another history than our last write: of another cluster, or of one that went back.
    fn is_new_history(&self, answer: Published) -> bool {
        self.published
            .is_some_and(|before| answer.revision < before.revision || answer.cluster != before.cluster)
    }

    /// Whether a record of another owner, which `cluster` holds, is newer than our last write. The record tells, not the
    /// revision of the answer: a restored cluster may have gone on from a higher one, with what stood long ago.
    fn is_newer(&self, mod_revision: i64, cluster: u64) -> bool {
        self.published
            .is_none_or(|before| cluster == before.cluster && mod_revision > before.revision)
    }

    fn is_ours(&self, lease: i64) -> bool {
        lease != 0 && self.leases.contains(&lease)
    }

    /// Whether it is a lease of ours of before, which is gone unless etcd was restored from an older state.
    fn was_ours(&self, lease: i64) -> bool {
        self.revoked.contains(&lease)
    }

    /// The lease is gone.
    fn forget(&mut self, lease: i64) {
        self.leases.retain(|kept| *kept != lease);
        if self.revoked.len() == REVOKED {
            self.revoked.pop_front();
        }
        self.revoked.push_back(lease);
    }

    /// Revokes the leases of before, now that the key is under `current`. What is not done in time is left to their
    /// time to live, and to `withdraw`.
    async fn tidy(&mut self, current: i64) {
        let old: Vec<i64> = self.leases.iter().copied().filter(|id| *id != current).collect();
        let _ = tokio::time::timeout(TIDYING, async {
            for id in old {
                if self.shared.client.leases.revoke(id).await.is_ok() {
                    self.forget(id);
                }
            }
        })
        .await;
    }

    fn watch_from(&self, published: Published) -> OwnKey {
        OwnKey::Watched(self.shared.client.watches.subscribe(WatchRequest {
            key: self.key.clone().into_bytes(),
            range_end: Vec::new(),
            from_revision: published.revision + 1,
            cluster: published.cluster,
            on_disconnect: OnDisconnect::Resume,
            ..WatchRequest::default()
        }))
    }

    /// What a batch of changes of our key comes to: the last one counts.
    fn judge(&mut self, batch: &Batch) {
        let (written, cluster) = self.published.map_or((0, 0), |p| (p.revision, p.cluster));
        for change in batch.changes.iter().filter(|change| change.mod_revision > written) {
            self.loss = self.loss_by(change.value.as_deref().map(|value| Found {
                lease: change.lease,
                value,
                mod_revision: change.mod_revision,
                cluster,
            }));
        }
    }

    /// What it means that the key holds this.
    fn loss_by(&self, held: Option<Found<'_>>) -> Option<Loss> {
        if self.is_out {
            let ours = held.is_some_and(|held| self.was_ours(held.lease));
            return ours.then(|| Loss::Gone("it is out of traffic and stands again".to_owned()));
        }
        let Some(held) = held else {
            let why = "its key was deleted by someone else, or its lease expired or was revoked";
            return Some(Loss::Gone(why.to_owned()));
        };
        if !self.is_ours(held.lease) {
            if self.is_newer(held.mod_revision, held.cluster) {
                return Some(Loss::Replaced);
            }
            // See `write`: the next publication takes the key back.
            return Some(Loss::Gone("etcd was restored from an older state".to_owned()));
        }
        let known = |wanted: &String| wanted.as_bytes() == held.value;
        if known(&self.value) || self.unanswered_values.iter().any(known) {
            return None;
        }
        // A write of ours that timed out may be applied after one that followed it.
        Some(Loss::Gone(
            "an older write of it was applied after a newer one".to_owned(),
        ))
    }

    /// Reads the key after a gap in its watch. With its value: etcd 3.7 answers a keys-only read from its index, which
    /// knows no leases.
    async fn look(&mut self) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let _turn = shared.client.watches.catching_up().acquire().await; // never closed
        let key = self.key.clone().into_bytes();
        let read = shared.range("read our own key", key, GetOptions::new()).await?;
        let seen = Published {
            revision: read.revision,
            cluster: read.cluster,
        };
        self.loss = self.loss_by(read.records.first().map(|record| Found {
            lease: record.lease(),
            value: record.value(),
            mod_revision: record.mod_revision(),
            cluster: read.cluster,
        }));
        if self.loss.is_none() {
            // While we are out, only what a restored etcd shows at first is older than our last write.
            if !self.is_out || self.is_new_history(seen) {
                self.published = Some(seen);
            }
            self.own = self.watch_from(seen);
        }
        Ok(())
    }

    /// One thing that may have happened to our key. Cancel-safe: what was learnt is kept in `self`.
    async fn hear(&mut self) {
        match &mut self.own {
            OwnKey::Watched(watch) => match watch.next().await {
                Ok(batch) => {
                    self.looked = false;
                    self.backoff.reset();
                    self.judge(&batch);
                }
                Err(WatchEnd::Closed) => std::future::pending().await,
                Err(WatchEnd::Refused(error)) if !error.is_retryable() => self.unreadable(&error),
                Err(_) => self.own = OwnKey::Unwatched,
            },
            OwnKey::Unwatched => {
                if self.looked {
                    tokio::time::sleep(self.backoff.next_pause()).await;
                }
                self.looked = true;
                match self.look().await {
                    Err(fault) if fault.error.kind() == ErrorKind::PermissionDenied => self.unreadable(&fault.error),
                    // A failed look is not a loss by itself: the lease tells when it is one.
                    Err(_) | Ok(()) => {}
                }
            }
            OwnKey::Unreadable => {
                // A right may be granted later, and a refusal may have been a member that had not heard of one yet.
                tokio::time::sleep(self.granted).await;
                self.own = OwnKey::Unwatched;
            }
        }
    }

    fn unreadable(&mut self, error: &Error) {
        if !std::mem::replace(&mut self.unreadable_told, true) {
            self.shared.client.calls.log().warn(format_args!(
                "etcd does not let us watch {:?} ({error}): a deletion or another owner will not be noticed until it does",
                self.key
            ));
        }
        self.own = OwnKey::Unreadable;
    }
}

#[async_trait]
impl Presence for EtcdPresence {
    async fn publish(&mut self, instance: &ServiceInstance, intent: Intent) -> Result<()> {
        let value = self.shared.keys.encode(instance);
        let lease = self.live_lease().await?;
        // Remembered before it is sent: its answer may be lost, and this future dropped.
        if self.unanswered_values.len() == UNANSWERED {
            self.unanswered_values.remove(0);
        }
        self.unanswered_values.push(value.clone());
        let mut written = self.write(&value, lease, intent).await;
        let mut blind = false;
        if let (Err(fault), Intent::Keep) = (&written, intent)
            && fault.error.kind() == ErrorKind::PermissionDenied
        {
            // Comparing and reading take the right to read. Who may only write can't tell owners apart.
            written = self.write(&value, lease, Intent::Claim).await;
            blind = written.is_ok();
        }
        let published = match written {
            Ok(published) => published,
            Err(fault) => {
                if fault.cause == Cause::LeaseNotFound {
                    self.lease = None; // the next attempt asks for another
                    self.forget(lease);
                }
                return Err(self.shared.explain(fault, "write", &self.key));
            }
        };
        // A watch that is under way goes on: changes up to our own are passed over. But what it still holds of a history
        // that went back, or of another cluster, is of records with higher revisions that never were.
        let new_history = self.is_new_history(published)
            || self
                .published
                .is_some_and(|before| published.revision == before.revision);
        self.loss = None;
        self.is_out = false;
        self.published = Some(published);
        self.value = value;
        self.unanswered_values.clear();
        if blind {
            self.own = OwnKey::Unreadable;
        }
        if new_history || matches!(self.own, OwnKey::Unwatched) {
            self.own = self.watch_from(published);
        }
        if self.leases.len() > 1 {
            self.tidy(lease).await;
        }
        Ok(())
    }

    async fn lost(&mut self) -> Loss {
        loop {
            if let Some(loss) = &self.loss {
                return loss.clone();
            }
            let Some(mut state) = self.lease.as_ref().map(Lease::state) else {
                return Loss::Gone("it has no lease".to_owned());
            };
            tokio::select! {
                why = lost(&mut state) => self.loss = Some(Loss::Gone(why)),
                () = self.hear() => {}
            }
        }
    }

    fn stop(&mut self) {
        self.lease = None; // ends the renewal
    }

    async fn withdraw(&mut self) -> Result<()> {
        self.lease = None;
        self.own = OwnKey::Unwatched;
        self.loss = None;
        while let Some(id) = self.leases.last().copied() {
            match self.shared.client.leases.revoke(id).await {
                Ok(()) => {}
                // Its grant was never answered, so nothing was ever written under it: there is nothing to remove.
                Err(_) if self.unanswered == Some(id) => {}
                Err(fault) => return Err(self.shared.explain(fault, "write", &self.key)),
            }
            self.forget(id);
        }
        self.unanswered = None;
        self.is_out = true;
        self.looked = true; // whoever comes back at once need not have looked
        self.backoff.reset();
        Ok(())
    }

    async fn reappeared(&mut self) {
        if self.revoked.is_empty() {
            std::future::pending::<()>().await; // nothing was ever there
        }
        while self.loss.is_none() {
            self.hear().await;
        }
        self.leases.extend(self.revoked.drain(..));
    }

    fn ttl(&self) -> Duration {
        self.granted
    }
}

fn first_response(answer: PbTxnResponse) -> Option<PbTxnOpResponse> {
    answer.responses.into_iter().next()?.response
}

fn odd_answer() -> Fault {
    Fault::new(
        Cause::Refused,
        ErrorKind::Unavailable,
        "etcd answered a transaction with something else than was asked",
    )
}

#[cfg(test)]
mod tests;
