//! Why a request failed.

use super::wire::Malformed;

/// Why a request, or a session, came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum ZkError {
    #[error("no node")]
    NoNode,
    #[error("not authorized")]
    NoAuth,
    #[error("another version")]
    BadVersion,
    #[error("the node exists")]
    NodeExists,
    #[error("the node has children")]
    NotEmpty,
    #[error("the access list is refused")]
    InvalidAcl,
    #[error("the user or the password is refused")]
    AuthFailed,
    #[error("the quota is exceeded")]
    QuotaExceeded,
    #[error("the server does not know this request")]
    Unimplemented,
    #[error("the session has expired")]
    SessionExpired,
    #[error("the session was closed")]
    Closed,
    /// It was not sent.
    #[error("there is no connection now")]
    NoConnection,
    /// It may have been carried out, or not.
    #[error("the connection was lost: {0}")]
    ConnectionLoss(&'static str),
    #[error("the request is {0} bytes long, which is more than a ZooKeeper takes")]
    TooLarge(usize),
    /// It was passed over.
    #[error("the answer is longer than any that is taken (64 MiB)")]
    AnswerTooLarge,
    #[error("no member of ZooKeeper gave a session: {0}")]
    NoSession(String),
    #[error("what came is no answer of a ZooKeeper")]
    Malformed,
    #[error("ZooKeeper's error {0}")]
    Other(i32),
}

impl ZkError {
    /// Whether what was asked may have been carried out all the same.
    pub(in super::super) const fn is_outcome_unknown(&self) -> bool {
        matches!(
            self,
            Self::ConnectionLoss(_) | Self::SessionExpired | Self::Closed | Self::Malformed | Self::AnswerTooLarge
        )
    }
}

impl From<Malformed> for ZkError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// The error that a number stands for; `Ok` for 0. The numbers are those of `org.apache.zookeeper.KeeperException.Code`.
pub(super) fn check(code: i32) -> Result<(), ZkError> {
    Err(match code {
        0 => return Ok(()),
        -4 => ZkError::ConnectionLoss("the server says so"),
        -6 => ZkError::Unimplemented,
        -101 => ZkError::NoNode,
        -102 => ZkError::NoAuth,
        -103 => ZkError::BadVersion,
        -110 => ZkError::NodeExists,
        -111 => ZkError::NotEmpty,
        -112 => ZkError::SessionExpired,
        -114 => ZkError::InvalidAcl,
        -115 | -124 => ZkError::AuthFailed,
        -125 => ZkError::QuotaExceeded,
        code => ZkError::Other(code),
    })
}
