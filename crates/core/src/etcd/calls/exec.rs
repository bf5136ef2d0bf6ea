//! One call in bytes: which methods there are, how often each may be sent, and until when.
//!
//! | the call | is tried again |
//! |---|---|
//! | only reads | on another member, and on each of them twice, while there is time; on a single one up to four times |
//! | changes something | only where it surely was not applied: it was not sent, or a member refused it before proposing it |
//!
//! A change whose outcome is not known ends with [`Fault::outcome_unknown`]. Go's client draws the same line
//! (`isSafeRetryMutableRPC` of `client/v3/retry_interceptor.go`).

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::caller::Caller;
use super::methods::METHODS;
use super::tries::Tries;
use crate::etcd::error::{Fault, judge_status};

/// The most that a read of one key waits for one member while there are others.
const POINT_READ_MOST: Duration = Duration::from_secs(3);

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its place in [`METHODS`].
    pub method: usize,
    /// The request, encoded.
    pub body: Bytes,
    /// It changes nothing, so it may be sent as often as it takes.
    pub reads: bool,
    /// It reads or writes one key: a member that is silent for longer than that takes is left for another one.
    pub point: bool,
    /// A member without a leader is to refuse it at once. Not for what a member answers by itself.
    pub needs_leader: bool,
    /// When it must have ended; `None` leaves it to the pings of the connection.
    pub deadline: Option<Instant>,
    /// One try, on this host of the options.
    pub only: Option<usize>,
}

impl Caller {
    /// Makes a call. See the table of this module for how often it is sent.
    ///
    /// A write that is tried has the whole time for one member; when the member says nothing for three seconds, others are
    /// preferred by later calls meanwhile. One that waits for a connection as long goes to another member.
    pub async fn exec(&self, call: Call) -> Result<Bytes, Fault> {
        let Some(path) = METHODS.get(call.method).copied() else {
            return Err(Fault::unknown_method(call.method));
        };
        let limit = self.options().max_message_bytes;
        let metrics = self.metrics();
        let begun = metrics.begin(call.method);
        let tries = Tries {
            deadline: call.deadline,
            most: call.point.then_some(POINT_READ_MOST),
            repeatable: call.reads,
            only: call.only,
        };
        let answer = self
            .attempt(path, tries, |connection| {
                metrics.attempts.fetch_add(1, Ordering::Relaxed);
                let body = call.body.clone();
                async move {
                    let answer = connection.transport.unary(path, body, call.needs_leader, limit).await;
                    answer.map_err(|status| judge_status(status, &connection.url))
                }
            })
            .await;
        metrics.end(call.method, begun, answer.as_ref().err());
        answer.map(|(body, _)| body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::calls::methods::RANGE;
    use crate::etcd::options::EtcdOptions;
    use crate::log::Log;

    #[tokio::test]
    async fn a_call_is_small_enough_to_be_moved() {
        let client = Caller::new(EtcdOptions::default(), Log::default()).unwrap();
        let call = Call {
            method: RANGE,
            body: Bytes::new(),
            reads: true,
            point: true,
            needs_leader: true,
            deadline: None,
            only: None,
        };
        let size = size_of_val(&client.exec(call));
        assert!(size < 3 * 1024, "every call allocates this: {size} bytes");
    }
}
