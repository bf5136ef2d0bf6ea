//! What etcd's refusals mean. etcd says it in the message alone, so this is a table of messages, taken from
//! `api/v3rpc/rpctypes/error.go` of etcd 3.4 to 3.7; the gRPC code decides only where the table is silent.

use std::error::Error as StdError;
use std::fmt;

use tonic::{Code, ConnectError, Status};

use crate::error::{Error, ErrorKind};

/// What a refusal means to the code that gets it, where the [`ErrorKind`] alone does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The request did not reach the server: no connection, or none in time.
    NotSent,
    /// The connection broke, or nothing was heard in time. The request may have been applied or not.
    Broken,
    /// The member cannot answer now (no leader, stopping, too busy, learner). Another one may.
    Member,
    /// The token is old, unknown or missing: authenticate and try again.
    StaleToken,
    /// `Authenticate` was called on a cluster without authentication.
    AuthOff,
    /// The lease is not there: expired, revoked, or never granted.
    LeaseNotFound,
    /// A lease of this id is there already.
    LeaseExists,
    /// The revision asked for has been compacted.
    Compacted,
    /// The answer exceeds our decode limit. A part of it may not.
    TooLarge,
    /// Anything else: asking another member would change nothing.
    Refused,
}

impl Cause {
    /// Whether another member, or the same one a moment later, may answer better.
    pub(crate) fn is_elsewhere_better(self) -> bool {
        matches!(self, Self::NotSent | Self::Broken | Self::Member)
    }
}

/// A failed call: the error for the caller, and what it means to the client's own code.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What it means.
    pub cause: Cause,
    /// What is told.
    pub error: Error,
    /// Of a write: whether it may have been applied all the same.
    pub outcome_unknown: bool,
    /// The members asked before the one that this is about, and what came of each.
    pub tried: Vec<(String, String)>,
}

impl Fault {
    pub(crate) fn new(cause: Cause, kind: ErrorKind, message: impl AsRef<str>) -> Self {
        Self::of(cause, Error::new(kind, message))
    }

    pub(crate) fn of(cause: Cause, error: Error) -> Self {
        Self {
            cause,
            error,
            outcome_unknown: false,
            tried: Vec::new(),
        }
    }

    pub(crate) fn unknown_method(place: usize) -> Self {
        Self::new(
            Cause::Refused,
            ErrorKind::Internal,
            format!("no method has the place {place}"),
        )
    }

    /// What the server or the transport answered in gRPC's terms, when either did.
    pub fn status(&self) -> Option<&Status> {
        let source = StdError::source(&self.error)?;
        chain(source).find_map(|e| e.downcast_ref::<Said>()).map(|said| &said.0)
    }

    /// Whether a write that failed so is certain to have changed nothing, and never will.
    pub(crate) fn is_surely_not_applied(&self) -> bool {
        match self.cause {
            Cause::Broken => false,
            Cause::Member => {
                let said = self.status().map_or("", Status::message);
                BEFORE_PROPOSAL.iter().any(|words| said.contains(words))
            }
            // Not sent, or refused in words: by the authenticator, or by the store itself.
            _ => true,
        }
    }

    /// The failure of a call that was to change something.
    pub(crate) fn of_a_write(mut self) -> Self {
        self.outcome_unknown = !self.is_surely_not_applied();
        self
    }
}

/// What a member says when it refuses a write before it proposes it to the cluster (`server/etcdserver/v3_server.go` and
/// the interceptors of `api/v3rpc`). "request timed out", "leader changed" and "server stopped" are not among them: the
/// proposal was made, and may come through.
const BEFORE_PROPOSAL: &[&str] = &[
    "no leader",
    "not leader",
    "too many requests",
    "proposal dropped",
    "learner",
    "not capable",
];

/// A status below an error, in its own words: `Status` prints itself with all that lies below it, which is told on its own.
#[derive(Debug)]
pub(in crate::etcd) struct Said(pub(in crate::etcd) Status);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.message())
    }
}

impl StdError for Said {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        fault.error
    }
}

/// The table: part of etcd's message, what it means, its kind, and what is said instead (empty: etcd's own words).
const TABLE: &[(&str, Cause, ErrorKind, &str)] = &[
    ("invalid auth token", Cause::StaleToken, ErrorKind::Unauthenticated, ""),
    (
        "revision of auth store is old",
        Cause::StaleToken,
        ErrorKind::Unauthenticated,
        "",
    ),
    (
        "user name is empty",
        Cause::StaleToken,
        ErrorKind::Unauthenticated,
        "etcd asks for a user and a password: set username and password",
    ),
    ("authentication failed", Cause::Refused, ErrorKind::Unauthenticated, ""),
    (
        "authentication is not enabled",
        Cause::AuthOff,
        ErrorKind::InvalidArgument,
        "",
    ),
    ("permission denied", Cause::Refused, ErrorKind::PermissionDenied, ""),
    (
        "requested lease not found",
        Cause::LeaseNotFound,
        ErrorKind::Unavailable,
        "",
    ),
    ("lease already exists", Cause::LeaseExists, ErrorKind::Unavailable, ""),
    ("too large lease TTL", Cause::Refused, ErrorKind::InvalidArgument, ""),
    (
        "revision has been compacted",
        Cause::Compacted,
        ErrorKind::Unavailable,
        "",
    ),
    ("is a future revision", Cause::Member, ErrorKind::Unavailable, ""),
    (
        "request is too large",
        Cause::Refused,
        ErrorKind::InvalidArgument,
        "etcd refuses the record as too large: keep large values elsewhere, or raise the server's --max-request-bytes",
    ),
    // Of gRPC in front of etcd, which looks at the length before it takes the request.
    (
        "received message larger than max",
        Cause::Refused,
        ErrorKind::InvalidArgument,
        "etcd refuses the request as too large: keep large values elsewhere, or raise the server's --max-request-bytes",
    ),
    (
        "database space exceeded",
        Cause::Refused,
        ErrorKind::Unavailable,
        "etcd's database is full and takes no writes: compact, defragment and disarm the NOSPACE alarm, or raise --quota-backend-bytes",
    ),
    ("no leader", Cause::Member, ErrorKind::Unavailable, ""),
    ("leader changed", Cause::Member, ErrorKind::Unavailable, ""),
    ("not leader", Cause::Member, ErrorKind::Unavailable, ""),
    ("request timed out", Cause::Member, ErrorKind::Unavailable, ""),
    ("too many requests", Cause::Member, ErrorKind::Unavailable, ""),
    ("server stopped", Cause::Member, ErrorKind::Unavailable, ""),
    ("learner", Cause::Member, ErrorKind::Unavailable, ""),
    ("corrupt cluster", Cause::Member, ErrorKind::Unavailable, ""),
    ("not capable", Cause::Member, ErrorKind::Unavailable, ""),
    ("unhealthy cluster", Cause::Member, ErrorKind::Unavailable, ""),
    ("proposal dropped", Cause::Member, ErrorKind::Unavailable, ""),
];

/// What a failed call of `etcd_client` means: what [`judge_status`] says of its status. `endpoint` is the member that was
/// asked.
pub(crate) fn judge(error: etcd_client::Error, endpoint: &str) -> Fault {
    match error {
        etcd_client::Error::GRpcStatus(status) => judge_status(status, endpoint),
        // It connects by itself nowhere here, and opens no stream: what is left is no answer of a server.
        other => {
            let message = format!("unexpected failure of the etcd client: {other}");
            Fault::of(
                Cause::Refused,
                Error::new(ErrorKind::Internal, message).caused_by(other),
            )
        }
    }
}

/// What the text of a watch's `cancel_reason` means. Go servers put `rpc error: code = … desc = …` or etcd's words.
pub(crate) fn judge_reason(reason: &str, endpoint: &str) -> Fault {
    let (_, words) = reason.split_once("desc = ").unwrap_or(("", reason));
    judge_status(Status::new(Code::Unknown, words), endpoint)
}

pub(crate) fn judge_status(status: Status, endpoint: &str) -> Fault {
    let said = status.message();
    if let Some((_, cause, kind, ours)) = TABLE.iter().find(|(words, ..)| said.contains(words)) {
        let message = if ours.is_empty() { said } else { ours };
        return Fault::of(*cause, Error::new(*kind, message).at(endpoint).caused_by(Said(status)));
    }
    let (cause, kind, message) = judge_unlisted(&status, endpoint);
    Fault::of(cause, Error::new(kind, message).at(endpoint).caused_by(Said(status)))
}

fn judge_unlisted(status: &Status, endpoint: &str) -> (Cause, ErrorKind, String) {
    let said = status.message();
    if said.contains("message length too large") {
        return (
            Cause::TooLarge,
            ErrorKind::InvalidArgument,
            format!("the answer of etcd is larger than the option maxMessageBytes allows ({said})"),
        );
    }
    if let Some(source) = status.source() {
        let root = root_of(source);
        return if chain(source).any(|e| e.downcast_ref::<ConnectError>().is_some()) {
            (
                Cause::NotSent,
                ErrorKind::Unavailable,
                not_connected(endpoint, source, &root),
            )
        } else if chain(source).any(was_never_sent) {
            let text = format!("the connection to {endpoint} ended before the request was sent: {root}");
            (Cause::NotSent, ErrorKind::Unavailable, text)
        } else {
            let text = format!("the connection to {endpoint} broke: {root}");
            (Cause::Broken, ErrorKind::Unavailable, text)
        };
    }
    match status.code() {
        Code::Unauthenticated => (Cause::StaleToken, ErrorKind::Unauthenticated, said.to_owned()),
        Code::PermissionDenied => (Cause::Refused, ErrorKind::PermissionDenied, said.to_owned()),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange | Code::AlreadyExists | Code::NotFound => {
            (Cause::Refused, ErrorKind::InvalidArgument, said.to_owned())
        }
        Code::Unimplemented => (
            Cause::Refused,
            ErrorKind::Unsupported,
            format!("{endpoint} does not speak etcd's v3 API: {said}"),
        ),
        Code::DeadlineExceeded => (
            Cause::Broken,
            ErrorKind::Timeout,
            format!("{endpoint} did not answer in time: {said}"),
        ),
        // Unknown and Internal are also what a broken HTTP/2 stream or a proxy in between makes of itself. To try again
        // where nothing would help costs little; to give up where it would have helped loses a registration.
        _ => (
            Cause::Broken,
            ErrorKind::Unavailable,
            format!("{endpoint} failed: {said}"),
        ),
    }
}

fn not_connected(endpoint: &str, source: &(dyn StdError + 'static), root: &str) -> String {
    let all = chain(source).map(ToString::to_string).collect::<Vec<_>>().join(" ");
    if all.contains("dns error") {
        format!("the host name of {endpoint} does not resolve: {root}")
    } else if all.contains("InvalidContentType") || all.contains("handshake eof") {
        format!("no TLS with {endpoint}: {root}; is the server TLS?")
    } else if all.contains("invalid peer certificate") {
        format!("the certificate of {endpoint} is not trusted: {root}; see tls.ca and tls.serverName")
    } else if all.contains("timed out") || all.contains("deadline has elapsed") {
        format!("cannot connect to {endpoint} in time: {root}")
    } else {
        format!("cannot connect to {endpoint}: {root}")
    }
}

/// Whether the HTTP/2 layer says for certain that the server has not seen the request: it was still in the queue of a
/// connection that ended, or the server refused its stream (RFC 9113, 8.7).
fn was_never_sent(error: &(dyn StdError + 'static)) -> bool {
    error
        .downcast_ref::<hyper::Error>()
        .is_some_and(hyper::Error::is_canceled)
        || error
            .downcast_ref::<h2::Error>()
            .is_some_and(|e| e.is_remote() && e.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// An error and everything that caused it, outermost first.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |e: &&'a (dyn StdError + 'static)| StdError::source(*e))
}

/// What the innermost error says: the outer ones say "transport error".
fn root_of(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcds_words_decide() {
        for (code, words, cause, kind) in [
            (
                Code::InvalidArgument,
                "etcdserver: revision of auth store is old",
                Cause::StaleToken,
                ErrorKind::Unauthenticated,
            ),
            (
                Code::Unauthenticated,
                "etcdserver: invalid auth token",
                Cause::StaleToken,
                ErrorKind::Unauthenticated,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                Cause::Refused,
                ErrorKind::Unauthenticated,
            ),
            (
                Code::NotFound,
                "etcdserver: requested lease not found",
                Cause::LeaseNotFound,
                ErrorKind::Unavailable,
            ),
            (
                Code::ResourceExhausted,
                "etcdserver: too many requests",
                Cause::Member,
                ErrorKind::Unavailable,
            ),
            (
                Code::Unavailable,
                "etcdserver: no leader",
                Cause::Member,
                ErrorKind::Unavailable,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: request is too large",
                Cause::Refused,
                ErrorKind::InvalidArgument,
            ),
            (
                Code::NotFound,
                "etcdserver: member not found",
                Cause::Refused,
                ErrorKind::InvalidArgument,
            ),
            (
                Code::ResourceExhausted,
                "grpc: received message larger than max (3000017 vs. 2097152)",
                Cause::Refused,
                ErrorKind::InvalidArgument,
            ),
            (
                Code::PermissionDenied,
                "etcdserver: permission denied",
                Cause::Refused,
                ErrorKind::PermissionDenied,
            ),
        ] {
            let fault = judge_status(Status::new(code, words), "http://a:2379");
            assert_eq!((fault.cause, fault.error.kind()), (cause, kind), "{words}");
        }
    }

    #[test]
    fn what_etcd_said_lies_below_in_its_words_unless_the_message_has_them() {
        let judged = |words| judge_status(Status::new(Code::PermissionDenied, words), "http://a:2379");
        let fault = judged("etcdserver: permission denied");
        assert_eq!(fault.status().map(Status::code), Some(Code::PermissionDenied));
        assert!(fault.error.causes().is_empty());
        let ours = judged("etcdserver: request is too large").error;
        assert_eq!(ours.causes(), ["etcdserver: request is too large"]);
    }

    #[test]
    fn a_cancel_reason_may_be_wrapped() {
        let fault = judge_reason(
            "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token",
            "http://a:2379",
        );
        assert_eq!(fault.cause, Cause::StaleToken);
        let fault = judge_reason("etcdserver: permission denied", "http://a:2379");
        assert_eq!(fault.error.kind(), ErrorKind::PermissionDenied);
    }

    #[test]
    fn what_is_not_in_the_table_is_tried_again() {
        let fault = judge_status(Status::new(Code::Unknown, "something new"), "http://a:2379");
        assert!(fault.cause.is_elsewhere_better() && fault.error.is_retryable());
    }
}
