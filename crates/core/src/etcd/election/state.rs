//! What a campaign is made with, how it stands, and what it tells.

use std::time::Duration;

use super::candidate::Place;
use crate::error::{Error, ErrorKind};
use crate::etcd::error::Fault;
use crate::stall::Stall;

/// What a campaign is made with.
#[derive(Clone)]
pub struct CampaignOptions {
    /// What is competed for.
    pub place: Place,
    /// The value of the key: what others learn about the leader.
    pub value: Vec<u8>,
    /// The time to live of the lease, rounded up to whole seconds; what the server grants counts.
    pub ttl: Duration,
    /// Whether to wait in the queue. Without it, a candidate that is not the oldest at once fails as [`CampaignFailure::Taken`].
    pub waits: bool,
    /// Whether a lost term is followed by another one, with a new lease at the end of the queue.
    pub again: bool,
    /// Goes on with the key of this lease instead of writing one.
    pub attach: Option<i64>,
    /// Gives up when the user's thread has been silent for so long; from a [`StallMonitor`](crate::stall::StallMonitor).
    pub stall: Option<Stall>,
}

/// How a campaign stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CampaignState {
    /// Its lease is being granted or its key being written.
    Granting,
    /// It has a key, and there are older ones.
    Waiting,
    /// It is the oldest. Whether it may act is a question of time, too: [`Campaign::is_leading`](super::campaign::Campaign::is_leading).
    Leading,
    /// It was told to end. For good.
    Resigned,
    /// Its lease or key is gone. For good.
    Failed,
}

impl CampaignState {
    /// Its name in the public API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Granting => "granting",
            Self::Waiting => "waiting",
            Self::Leading => "leading",
            Self::Resigned => "resigned",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing follows.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Resigned | Self::Failed)
    }
}

/// Why a term or a campaign ended.
#[derive(Debug, Clone)]
pub enum CampaignFailure {
    /// The lease expired, was revoked, or could not be vouched for any longer.
    LeaseLost {
        /// Its id.
        lease: i64,
        /// How that was found.
        why: String,
    },
    /// The key was deleted or overwritten, and not by the end of its lease.
    KeyGone(String),
    /// The user's thread was silent for too long.
    Stalled(Duration),
    /// Someone else leads, and it was not to wait.
    Taken,
    /// It was told to end, or ended before.
    Over,
    /// etcd could not be asked, or refused.
    Call(Fault),
}

impl CampaignFailure {
    /// As an error with a message.
    pub fn error(&self) -> Error {
        let unavailable = |text: String| Error::new(ErrorKind::Unavailable, text);
        match self {
            Self::LeaseLost { lease, why } => unavailable(format!("lease {lease}: {why}")),
            Self::KeyGone(why) => unavailable(why.clone()),
            Self::Stalled(silence) => unavailable(format!(
                "given up: the JavaScript thread was silent for {} ms",
                silence.as_millis()
            )),
            Self::Taken => unavailable("the key is held by someone else".to_owned()),
            Self::Over => Error::new(ErrorKind::Closed, "the campaign is over"),
            Self::Call(fault) => fault.error.clone(),
        }
    }

    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::LeaseLost { .. } | Self::KeyGone(_) | Self::Stalled(_) => true,
            Self::Taken | Self::Over => false,
            Self::Call(fault) => fault.error.is_retryable(),
        }
    }
}

/// What a campaign tells. Nothing after [`Failed`](Self::Failed) or after it was told to resign.
#[derive(Debug, Clone)]
pub enum CampaignEvent {
    /// It leads, with this fencing token.
    Elected(i64),
    /// It led and does not any more; it goes on as a candidate ([`CampaignOptions::again`] only).
    Lost(CampaignFailure),
    /// It ended.
    Failed(CampaignFailure),
}

/// Called on the runtime's thread. It must not block, and not call the campaign.
pub type OnEvent = Box<dyn Fn(CampaignEvent) + Send + Sync>;
