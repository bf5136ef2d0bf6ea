//! One registration in etcd: a key under a lease of its own.
//!
//! Every write here does the same twice as once, so that a lost answer is answered by writing again:
//!
//! - a grant names its lease, and is repeated with the same name;
//! - a put is made by transaction where it may not take the key from another owner, and whose key it is, is told by the
//!   lease on it: ours are known, because they were ours before the first byte was sent;
//! - a revocation of a lease that is gone is a success.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::proto::{PbTxnOpResponse, PbTxnResponse};
use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp};

use super::Shared;
use crate::backend::{Intent, Loss, Presence};
use crate::error::{Error, ErrorKind, Result};
use crate::etcd::client::Repeat;
use crate::etcd::error::{Cause, Fault};
use crate::etcd::lease::{Lease, lost};
use crate::etcd::watch::{Batch, OnDisconnect, Subscription, WatchEnd, WatchRequest};
use crate::instance::ServiceInstance;

/// How often a key of ours may change between being read and being written before the attempt is given up.
const RACES: u32 = 3;
/// How long revoking the leases of before a repair may hold up its publication.
const TIDYING: Duration = Duration::from_secs(1);

pub(super) struct EtcdPresence {
    shared: Arc<Shared>,
    key: String,
    /// Every lease that we asked for and do not know to be gone. A record under one of them is ours.
    leases: Vec<i64>,
    /// Asked for, no answer yet: the next attempt asks for the same, so that no number of failures adds up.
    unanswered: Option<i64>,
    /// The one that is being renewed.
    lease: Option<Lease>,
    /// What the last grant said.
    granted: Duration,
    published: Option<Published>,
    /// The value of that write.
    value: String,
    own: OwnKey,
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
    /// We may write it and not read it. The lease alone must tell.
    Unreadable,
}

/// Whose the key is.
enum Holder {
    Nobody,
    Ours { mod_revision: i64 },
    Other,
}

impl EtcdPresence {
    pub(super) fn new(shared: Arc<Shared>, name: &str, id: &str) -> Self {
        Self {
            key: shared.keys.instance(name, id),
            granted: Duration::from_secs(u64::try_from(shared.client.options().ttl_seconds()).unwrap_or(0)),
            shared,
            leases: Vec::new(),
            unanswered: None,
            lease: None,
            published: None,
            value: String::new(),
            own: OwnKey::Unwatched,
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
        let lease = self.shared.client.grant(id).await?;
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
            let Holder::Ours { mod_revision } = self.holder(&fresh) else {
                return Err(Fault::new(
                    Cause::Refused,
                    ErrorKind::Replaced,
                    format!("{:?} belongs to a newer registration of the same id", self.key),
                ));
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
            .call("publish", Repeat::Freely, |connection| {
                let (mut kv, txn) = (client.kv(&connection), txn.clone());
                async move { kv.txn(txn).await }
            })
            .await?;
        let (revision, cluster) = answer.header().map_or((0, 0), |h| (h.revision(), h.cluster_id()));
        Ok((answer.0, Published { revision, cluster }))
    }

    fn holder(&self, read: &PbTxnResponse) -> Holder {
        let Some(PbTxnOpResponse::ResponseRange(range)) = read.responses.first().and_then(|r| r.response.as_ref())
        else {
            return Holder::Other;
        };
        match range.kvs.first() {
            None => Holder::Nobody,
            Some(kv) if self.is_ours(kv.lease) => Holder::Ours {
                mod_revision: kv.mod_revision,
            },
            Some(_) => Holder::Other,
        }
    }

    fn is_ours(&self, lease: i64) -> bool {
        lease != 0 && self.leases.contains(&lease)
    }

    /// Revokes the leases of before, now that the key is under `current`. What is not done in time is left to their
    /// time to live, and to `withdraw`.
    async fn tidy(&mut self, current: i64) {
        let old: Vec<i64> = self.leases.iter().copied().filter(|id| *id != current).collect();
        let _ = tokio::time::timeout(TIDYING, async {
            for id in old {
                if self.shared.client.revoke(id).await.is_ok() {
                    self.leases.retain(|kept| *kept != id);
                }
            }
        })
        .await;
    }

    fn watch_from(&self, published: Published) -> OwnKey {
        OwnKey::Watched(self.shared.client.subscribe(WatchRequest {
            key: self.key.clone().into_bytes(),
            range_end: Vec::new(),
            from_revision: published.revision + 1,
            cluster: published.cluster,
            on_disconnect: OnDisconnect::Resume,
        }))
    }

    /// What a batch of changes of our key comes to: the last one counts.
    fn judge(&mut self, batch: &Batch) {
        let written = self.published.map_or(0, |published| published.revision);
        for change in batch.changes.iter().filter(|change| change.mod_revision > written) {
            self.loss = self.loss_by(change.value.as_deref().map(|value| (change.lease, value)));
        }
    }

    /// What it means that the key holds this, by lease and value.
    fn loss_by(&self, held: Option<(i64, &[u8])>) -> Option<Loss> {
        match held {
            None => Some(Loss::Gone(
                "its key was deleted by someone else, or its lease expired or was revoked".to_owned(),
            )),
            Some((lease, _)) if !self.is_ours(lease) => Some(Loss::Replaced),
            // A write of ours that timed out may be applied after the one that followed it.
            Some((_, value)) if value != self.value.as_bytes() => Some(Loss::Gone(
                "an older write of it was applied after a newer one".to_owned(),
            )),
            Some(_) => None,
        }
    }

    /// Reads the key after a gap in its watch. With its value: etcd 3.7 answers a keys-only read from its index, which
    /// knows no leases.
    async fn look(&mut self) -> Result<(), Fault> {
        let key = self.key.clone().into_bytes();
        let read = self.shared.range("read our own key", key, GetOptions::new()).await?;
        let held = read.records.first().map(|record| (record.lease(), record.value()));
        self.loss = self.loss_by(held);
        if self.loss.is_none() {
            let seen = Published {
                revision: read.revision,
                cluster: read.cluster,
            };
            self.published = Some(seen);
            self.own = self.watch_from(seen);
        }
        Ok(())
    }

    /// One thing that may have happened to our key. Cancel-safe: what was learnt is kept in `self`.
    async fn hear(&mut self) {
        match &mut self.own {
            OwnKey::Watched(watch) => match watch.next().await {
                Ok(batch) => self.judge(&batch),
                Err(WatchEnd::Closed) => self.own = OwnKey::Unreadable,
                Err(WatchEnd::Refused(error)) if !error.is_retryable() => self.unreadable(&error),
                Err(_) => self.own = OwnKey::Unwatched,
            },
            OwnKey::Unwatched => {
                if let Err(fault) = self.look().await {
                    if fault.error.kind() == ErrorKind::PermissionDenied {
                        self.unreadable(&fault.error);
                        return;
                    }
                    // Not a loss by itself: the lease tells when it is one.
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(250..1000))).await;
                }
            }
            OwnKey::Unreadable => std::future::pending().await,
        }
    }

    fn unreadable(&mut self, error: &Error) {
        self.shared.client.log().warn(format_args!(
            "etcd does not let us watch {:?} ({error}): a deletion by others will not be noticed",
            self.key
        ));
        self.own = OwnKey::Unreadable;
    }
}

#[async_trait]
impl Presence for EtcdPresence {
    async fn publish(&mut self, instance: &ServiceInstance, intent: Intent) -> Result<()> {
        let value = self.shared.keys.encode(instance);
        let lease = self.live_lease().await?;
        let published = match self.write(&value, lease, intent).await {
            Ok(published) => published,
            Err(fault) => {
                if fault.cause == Cause::LeaseNotFound {
                    self.lease = None; // the next attempt asks for another
                    self.leases.retain(|id| *id != lease);
                }
                return Err(self.shared.explain(fault, "write", &self.key));
            }
        };
        // A watch that is under way goes on: changes up to our own are passed over. But what it still holds of a history
        // that went back, or of another cluster, is of records with higher revisions that never were.
        let new_history = self
            .published
            .is_some_and(|before| published.revision <= before.revision || published.cluster != before.cluster);
        self.loss = None;
        self.published = Some(published);
        self.value = value;
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
        self.published = None;
        self.loss = None;
        while let Some(id) = self.leases.last().copied() {
            match self.shared.client.revoke(id).await {
                Ok(()) => {}
                // Its grant was never answered, so nothing was ever written under it: there is nothing to remove.
                Err(_) if self.unanswered == Some(id) => {}
                Err(fault) => return Err(self.shared.explain(fault, "write", &self.key)),
            }
            self.leases.pop();
        }
        self.unanswered = None;
        Ok(())
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
