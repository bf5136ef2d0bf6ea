//! Gets that were asked for together, in one read-only transaction. The call, not the key, is what costs etcd and us: a
//! get in a transaction of 128 takes a fifth of the server's time (`docs/decisions/0005-grouped-gets.md`).
//!
//! etcd answers such a transaction as one linearizable read without an entry in its log (`Txn` of
//! `server/etcdserver/v3_server.go`: `isTxnReadonly`). All its gets are of one revision, which each of them could have
//! seen alone.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use prost::Message as _;
use tokio::time::Instant;

use super::caller::Caller;
use super::exec::Call;
use super::methods::{RANGE, TXN};
use crate::error::ErrorKind;
use crate::etcd::error::{Cause, Fault};
use crate::etcd::messages::{RangeOp, RangeResponse, ReadTxn, ReadTxnResponse};

impl Caller {
    /// Gets of single keys, each an encoded `RangeRequest`: linearizable, of the present revision. Answers in order.
    ///
    /// When the transaction is refused for what one of its members asks (a permission, a size) or for how many they are,
    /// each member is asked alone: a failure reaches only the get that it belongs to.
    pub async fn get_group(&self, gets: Vec<Bytes>, deadline: Option<Instant>) -> Vec<Result<RangeResponse, Fault>> {
        match self.get_together(&gets, deadline).await {
            Ok(answers) => answers.into_iter().map(Ok).collect(),
            // Every member was tried in vain: that is true of each get.
            Err(fault) if fault.cause.is_elsewhere_better() => gets.iter().map(|_| Err(fault.clone())).collect(),
            Err(fault) if fault.error.kind() == ErrorKind::Closed => gets.iter().map(|_| Err(fault.clone())).collect(),
            Err(fault) => {
                if fault
                    .status()
                    .is_some_and(|status| status.message().contains("too many operations"))
                {
                    self.shrink_groups((gets.len() / 2).max(1));
                }
                futures::future::join_all(gets.into_iter().map(|get| self.get_alone(get, deadline))).await
            }
        }
    }

    /// One get of an encoded `RangeRequest`.
    pub async fn get_alone(&self, get: Bytes, deadline: Option<Instant>) -> Result<RangeResponse, Fault> {
        let answer = self.exec(read(RANGE, get, deadline)).await?;
        RangeResponse::decode(answer).map_err(|e| unreadable(&e))
    }

    async fn get_together(&self, gets: &[Bytes], deadline: Option<Instant>) -> Result<Vec<RangeResponse>, Fault> {
        let success = gets.iter().map(|get| RangeOp {
            request_range: get.clone(),
        });
        let request = ReadTxn {
            success: success.collect(),
        };
        self.metrics().groups.fetch_add(1, Ordering::Relaxed);
        self.metrics().grouped.fetch_add(gets.len() as u64, Ordering::Relaxed);
        let answer = self.exec(read(TXN, request.encode_to_vec().into(), deadline)).await?;
        let answer = ReadTxnResponse::decode(answer).map_err(|e| unreadable(&e))?;
        let answers: Vec<RangeResponse> = answer
            .responses
            .into_iter()
            .filter_map(|op| op.response_range)
            .collect();
        if answers.len() == gets.len() {
            return Ok(answers);
        }
        let text = format!(
            "etcd answered {} of {} gets of a transaction",
            answers.len(),
            gets.len()
        );
        Err(Fault::new(Cause::Refused, ErrorKind::Internal, text))
    }
}

fn read(method: usize, body: Bytes, deadline: Option<Instant>) -> Call {
    Call {
        method,
        body,
        reads: true,
        point: true,
        needs_leader: true,
        deadline,
        only: None,
    }
}

fn unreadable(why: &prost::DecodeError) -> Fault {
    Fault::new(
        Cause::Refused,
        ErrorKind::Internal,
        format!("an answer of etcd cannot be read: {why}"),
    )
}
