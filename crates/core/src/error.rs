//! The one error of the crate: what went wrong, in which operation, and whether trying again can help.

use std::fmt;
use std::sync::Arc;

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Each kind is one error class and one written code in TypeScript.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The client, registration or watcher was closed. `ClosedError`.
    Closed,
    /// The time allowed for the operation ran out. `TimeoutError`. May be tried again.
    Timeout,
    /// The registry cannot be reached or cannot answer now. `UnavailableError`. May be tried again.
    Unavailable,
    /// The registry does not know who we are: wrong user, password or token. `UnauthenticatedError`.
    Unauthenticated,
    /// The registry knows who we are and refuses. `PermissionDeniedError`.
    PermissionDenied,
    /// An argument or option cannot be right. `InvalidArgumentError`.
    InvalidArgument,
    /// A newer owner holds the instance id. `ReplacedError`.
    Replaced,
    /// A record in the registry is not a service instance. `BadRecordError`.
    BadRecord,
    /// The caller aborted the operation. `AbortedError`, whose `name` is `AbortError`.
    Aborted,
    /// The registry cannot do this at all. `UnsupportedError`.
    Unsupported,
    /// A fault of rollcall itself. `InternalError`.
    Internal,
}

impl ErrorKind {
    /// The stable code of the public API.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Closed => "ERR_CLOSED",
            Self::Timeout => "ERR_TIMEOUT",
            Self::Unavailable => "ERR_UNAVAILABLE",
            Self::Unauthenticated => "ERR_UNAUTHENTICATED",
            Self::PermissionDenied => "ERR_PERMISSION_DENIED",
            Self::InvalidArgument => "ERR_INVALID_ARGUMENT",
            Self::Replaced => "ERR_REPLACED",
            Self::BadRecord => "ERR_BAD_RECORD",
            Self::Aborted => "ERR_ABORTED",
            Self::Unsupported => "ERR_UNSUPPORTED",
            Self::Internal => "ERR_INTERNAL",
        }
    }

    /// Whether the same call may succeed later without any change by the caller.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Timeout | Self::Unavailable)
    }
}

/// An error with its kind, the operation it ended, a lower-case message, and its source.
///
/// Cheap to clone: every watcher of a name may be handed the same one.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    operation: &'static str,
    message: Arc<str>,
    context: Option<Box<Context>>, // apart, so that results stay small
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// What the libraries below say of an error that they only hand up.
const SAY_NOTHING: [&str; 3] = ["transport error", "error sending request", "client error (Connect)"];

/// What it is about, as far as that is known.
#[derive(Debug, Clone, Default)]
struct Context {
    endpoint: Option<Arc<str>>,
    key: Option<Arc<str>>,
    revision: Option<i64>,
    outcome_unknown: bool,
}

impl Error {
    /// A new error. `message` is lower-case, without a full stop, and says what to do where that is known.
    /// It must hold no secret: it is logged and shown.
    pub fn new(kind: ErrorKind, message: impl AsRef<str>) -> Self {
        Self {
            kind,
            operation: "",
            message: Arc::from(message.as_ref()),
            context: None,
            source: None,
        }
    }

    /// Shorthand for the commonest kind raised by validation.
    pub fn invalid(message: impl AsRef<str>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// Names the public operation (`register`, `getService`, …) unless a name was given deeper down.
    #[must_use]
    pub fn during(mut self, operation: &'static str) -> Self {
        if self.operation.is_empty() {
            self.operation = operation;
        }
        self
    }

    /// Names the server that was asked, unless one was named deeper down.
    #[must_use]
    pub fn at(mut self, endpoint: &str) -> Self {
        if self.endpoint().is_none() && !endpoint.is_empty() {
            self.context().endpoint = Some(endpoint.into());
        }
        self
    }

    /// Names the key, node or path that it is about, unless one was named deeper down.
    #[must_use]
    pub fn about(mut self, key: &str) -> Self {
        if self.key().is_none() && !key.is_empty() {
            self.context().key = Some(key.into());
        }
        self
    }

    /// Names the revision of the registry that it is about.
    #[must_use]
    pub fn of_revision(mut self, revision: i64) -> Self {
        self.context().revision = Some(revision);
        self
    }

    /// Says of a write that it may have been applied all the same: nobody repeats it.
    #[must_use]
    pub fn with_unknown_outcome(mut self) -> Self {
        self.context().outcome_unknown = true;
        self
    }

    fn context(&mut self) -> &mut Context {
        self.context.get_or_insert_default()
    }

    /// Keeps the error that caused this one, and what that one knows and this one does not.
    #[must_use]
    pub fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        let any: &(dyn std::error::Error + 'static) = &source;
        if let Some(below) = any.downcast_ref::<Self>().and_then(|below| below.context.as_deref()) {
            let context = self.context();
            context.endpoint = context.endpoint.take().or_else(|| below.endpoint.clone());
            context.key = context.key.take().or_else(|| below.key.clone());
            context.revision = context.revision.or(below.revision);
            context.outcome_unknown |= below.outcome_unknown;
        }
        self.source = Some(Arc::new(source));
        self
    }

    /// The server that was asked, when it is known.
    pub fn endpoint(&self) -> Option<&str> {
        self.context.as_ref()?.endpoint.as_deref()
    }

    /// The key, node or path that it is about, when it is about one.
    pub fn key(&self) -> Option<&str> {
        self.context.as_ref()?.key.as_deref()
    }

    /// The revision of the registry that it is about, when it is about one.
    pub fn revision(&self) -> Option<i64> {
        self.context.as_ref()?.revision
    }

    /// Of a write: whether it may have been applied all the same.
    pub fn is_outcome_unknown(&self) -> bool {
        self.context.as_ref().is_some_and(|context| context.outcome_unknown)
    }

    /// What lies below, outermost first, each in its own words. What has been said already, by the message or by one above, is
    /// left out, as is what says only that something failed.
    pub fn causes(&self) -> Vec<String> {
        let mut said = vec![self.message.to_string()];
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let text = cause.to_string();
            if !SAY_NOTHING.contains(&text.as_str()) && !said.iter().any(|above| above.contains(&text)) {
                said.push(text);
            }
            next = cause.source();
        }
        said.split_off(1)
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The public operation that ended with this error; empty when it has not been named yet.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The message alone, without operation or source.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// See [`ErrorKind::is_retryable`]. What may have been applied is not to be done again.
    pub fn is_retryable(&self) -> bool {
        self.kind.is_retryable() && !self.is_outcome_unknown()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.operation.is_empty() {
            write!(f, "{}: ", self.operation)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({self})", self.kind.code())?;
        if let Some(source) = &self.source {
            write!(f, " caused by {source:?}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|s| s.as_ref() as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below_is_a_chain_and_hands_up_what_it_knows() {
        let io = std::io::Error::other("connection refused");
        let inner = Error::new(ErrorKind::Unavailable, "cannot connect")
            .at("http://a:2379")
            .caused_by(io);
        let outer = Error::new(ErrorKind::Timeout, "not visible")
            .about("/k")
            .of_revision(7)
            .caused_by(inner);
        assert_eq!(outer.causes(), ["cannot connect", "connection refused"]);
        assert_eq!(
            (outer.endpoint(), outer.key(), outer.revision()),
            (Some("http://a:2379"), Some("/k"), Some(7))
        );
        // The first to name a server is the one that was asked.
        assert_eq!(outer.clone().at("http://b:2379").endpoint(), Some("http://a:2379"));
        assert_eq!(outer.about("/").key(), Some("/k"));
    }

    #[test]
    fn no_cause_repeats_what_stands_above_it() {
        let io = || std::io::Error::other("connection refused");
        let below = Error::new(ErrorKind::Unavailable, "tcp connect error").caused_by(io());
        let handed_up = Error::new(ErrorKind::Unavailable, "transport error").caused_by(below);
        let inner = Error::new(ErrorKind::Unavailable, "cannot connect: connection refused").caused_by(handed_up);
        assert_eq!(inner.causes(), ["tcp connect error"]);
        let outer = Error::new(ErrorKind::Unavailable, format!("no contact: {inner}")).caused_by(inner);
        assert_eq!(outer.causes(), ["tcp connect error"]);
        let all_said = Error::invalid("x: connection refused").caused_by(io());
        assert!(all_said.causes().is_empty());
        let repeated = Error::invalid("x").caused_by(std::io::Error::other(Error::invalid("the same")));
        assert_eq!(repeated.causes(), ["the same"]);
    }
}
