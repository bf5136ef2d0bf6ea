//! What an error of ZooKeeper means for the caller.

use super::client::ZkError;
use crate::error::{Error, ErrorKind};

/// The error of a request that was to do what `verb` says with the node at `path`.
pub(super) fn explain(error: ZkError, verb: &str, path: &str) -> Error {
    let what = format!("{verb} {path}");
    let (kind, message) = match &error {
        ZkError::NoAuth => (
            ErrorKind::PermissionDenied,
            format!(
                "ZooKeeper does not let us {what}: its access list does not name our user, or the password is another (the scheme digest refuses no password by itself)"
            ),
        ),
        ZkError::AuthFailed => (
            ErrorKind::Unauthenticated,
            "ZooKeeper refused our user or password".to_owned(),
        ),
        ZkError::InvalidAcl => (
            ErrorKind::Unauthenticated,
            format!("ZooKeeper does not take the access list with which we would {what}: it knows us by no user"),
        ),
        ZkError::QuotaExceeded => (
            ErrorKind::PermissionDenied,
            format!("the quota of ZooKeeper does not let us {what}"),
        ),
        ZkError::TooLarge(_) => (ErrorKind::InvalidArgument, format!("can't {what}: {error}")),
        ZkError::Unimplemented => (
            ErrorKind::Unsupported,
            format!("this ZooKeeper can't {what}: it is too old"),
        ),
        other => (ErrorKind::Unavailable, format!("ZooKeeper could not {what}: {other}")),
    };
    Error::new(kind, message).about(path).caused_by(error)
}

/// Why no session could be had of any of `hosts`.
pub(super) fn no_session(error: ZkError, place: &str, hosts: &[String]) -> Error {
    let why = match &error {
        ZkError::AuthFailed => {
            let refused = Error::new(ErrorKind::Unauthenticated, "ZooKeeper refused our user or password");
            return only(hosts, refused).caused_by(error);
        }
        ZkError::NoSession(_) => error.to_string(), // it names the member
        other => format!("{place}: no session: {other}"),
    };
    only(hosts, Error::new(ErrorKind::Unavailable, why)).caused_by(error)
}

/// The server is known where there is one; of several the message says what was wrong with the last.
fn only(hosts: &[String], error: Error) -> Error {
    match hosts {
        [host] => error.at(host),
        _ => error,
    }
}
