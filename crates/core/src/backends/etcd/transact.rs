//! One transaction of etcd, with or without a key under a lease; and what is read in one.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::{PbKeyValue, PbTxnOpResponse, PbTxnResponse};
use etcd_client::{Compare as EtcdCompare, CompareOp, PutOptions, Txn, TxnOp};
use tokio::time::Instant;

use super::shared::Shared;
use crate::error::{Error, Result};
use crate::etcd::Fault;
use crate::store::folder;
use crate::transaction::{Commit, Compare, Moment, Pair, Write};

/// A key that is to be created under a lease.
pub(super) struct Under<'a> {
    pub lease: i64,
    pub key: &'a str,
    pub value: &'a [u8],
}

/// One transaction, and with it a key that is not there yet.
pub(super) async fn transact(
    shared: &Shared,
    under: Option<Under<'_>>,
    compares: &[Compare],
    writes: &[Write],
    within: Duration,
) -> Result<Commit> {
    let holds = |c: &Compare| EtcdCompare::mod_revision(&*c.key, CompareOp::Equal, c.revision);
    let write = |write: &Write| match write {
        Write::Put(key, value) => TxnOp::put(&**key, &**value, None),
        Write::Delete(key) => TxnOp::delete(&**key, None),
    };
    let look = |compare: &Compare| TxnOp::get(&*compare.key, None);
    let mut when: Vec<_> = compares.iter().map(holds).collect();
    let mut then: Vec<_> = writes.iter().map(write).collect();
    if let Some(Under { lease, key, value }) = under {
        when.push(EtcdCompare::create_revision(key, CompareOp::Equal, 0));
        then.push(TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease))));
    }
    let txn = Txn::new()
        .when(when)
        .and_then(then)
        .or_else(compares.iter().map(look).collect::<Vec<_>>());
    let calls = &shared.client.calls;
    let answer = calls
        .call_once("commit", Instant::now() + within, |client| {
            let (mut kv, txn) = (calls.kv(&client), txn.clone());
            async move { kv.txn(txn).await }
        })
        .await
        .map_err(|fault| explain_write(shared, fault, writes))?;
    let answer = answer.0;
    if !answer.succeeded {
        let found = (0..compares.len()).map(|place| found(&answer, place).first().and_then(pair));
        return Ok(Commit::Conflict {
            current: found.collect(),
        });
    }
    let deleted = answer.responses.iter().filter_map(|one| match &one.response {
        Some(PbTxnOpResponse::ResponseDeleteRange(deleted)) => usize::try_from(deleted.deleted).ok(),
        _ => None,
    });
    Ok(Commit::Done {
        moment: moment(&answer),
        deleted: deleted.sum(),
    })
}

fn explain_write(shared: &Shared, fault: Fault, writes: &[Write]) -> Error {
    let is_unknown = fault.outcome_unknown;
    let key = writes.first().map(Write::key).unwrap_or_default();
    let error = shared.explain_under(fault, "write", key, folder(key));
    if is_unknown {
        error.with_unknown_outcome()
    } else {
        error
    }
}

pub(super) fn moment(answer: &PbTxnResponse) -> Moment {
    answer.header.as_ref().map_or_else(Moment::default, |header| Moment {
        revision: header.revision,
        cluster: header.cluster_id,
    })
}

/// What the get at a place of a transaction has found.
pub(super) fn found(answer: &PbTxnResponse, place: usize) -> &[PbKeyValue] {
    match answer.responses.get(place).and_then(|one| one.response.as_ref()) {
        Some(PbTxnOpResponse::ResponseRange(range)) => &range.kvs,
        _ => &[],
    }
}

/// A key that is no text has no name here, and is left out.
pub(super) fn pair(kv: &PbKeyValue) -> Option<Arc<Pair>> {
    Some(Arc::new(Pair {
        key: std::str::from_utf8(&kv.key).ok()?.into(),
        value: kv.value.as_slice().into(),
        revision: kv.mod_revision,
    }))
}
