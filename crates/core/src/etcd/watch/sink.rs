//! Who a watch delivers to, and why it ended.

use super::events::{Created, Response};
use crate::error::{Error, ErrorKind};
use crate::etcd::error::{Cause, Fault, judge_reason};

/// What became of a response that was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It was taken, and there is room for another.
    Taken,
    /// It was taken, but there is room for no other until [`WatchControl::resume`](super::watches::WatchControl::resume).
    Full,
    /// It was not taken: the consumer lags behind or is gone.
    Lagging,
}

/// Who a watch delivers to. Called by the task of the stream, so nothing here may wait.
pub trait WatchSink: Send + Sync {
    /// The watch is being created: at first, and after each disconnection that was told. Of the watches of a client one
    /// at a time is between this and [`created`](Self::created), although their requests are under way together.
    fn connecting(&mut self) {}

    /// etcd has created it.
    fn created(&mut self, _created: Created) {}

    /// With [`WatchRequest::settle`](super::request::WatchRequest::settle): the revision to start from is not compacted. Once at most.
    fn settled(&mut self) {}

    /// Events or progress.
    fn deliver(&mut self, response: Response) -> Delivery;

    /// The stream is lost, or none can be opened: once per drop. False ends the watch with [`WatchEnd::Refused`].
    fn disconnected(&mut self, _fault: &Fault) -> bool {
        true
    }

    /// The last call.
    fn end(self: Box<Self>, why: WatchEnd);
}

/// Why a watch ended. In every case its user reads anew, if it wants to go on.
#[derive(Debug, Clone)]
pub enum WatchEnd {
    /// The connection was lost ([`OnDisconnect::End`](super::request::OnDisconnect::End)), etcd cancelled the watch without a reason, or a fault of this crate
    /// ended the task of all watches.
    Disconnected(Error),
    /// The revision to go on from has been compacted, up to this one (0: etcd did not say).
    Compacted(i64),
    /// The consumer did not keep up, or one revision was larger than the largest message.
    Lapsed,
    /// The cluster is another one, or its revision went back: its data was lost or restored from a backup.
    HistoryBroke(String),
    /// etcd refuses to let this range be watched; the error is for good unless it is retryable.
    Refused(Error),
    /// The client was closed.
    Closed,
}

impl WatchEnd {
    /// The same as a failed call.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Disconnected(error) | Self::Refused(error) => Fault::of(Cause::Refused, error.clone()),
            Self::Compacted(revision) => {
                let mut fault = judge_reason("etcdserver: mvcc: required revision has been compacted", "");
                if *revision > 0 {
                    fault.error = fault.error.of_revision(*revision);
                }
                fault
            }
            Self::Lapsed => Fault::new(
                Cause::TooLarge,
                ErrorKind::InvalidArgument,
                "one revision of the watch is larger than the option maxMessageBytes allows; let it come in fragments",
            ),
            Self::HistoryBroke(why) => Fault::new(Cause::Refused, ErrorKind::Unavailable, why),
            Self::Closed => Fault::new(Cause::Refused, ErrorKind::Closed, "the client was closed"),
        }
    }
}
