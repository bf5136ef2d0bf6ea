//! What a failure of Nacos means.

use serde_json::Value;
use tonic::{Code, Status};

use crate::error::{Error, ErrorKind};

/// The connection is not set up: what was sent was not looked at.
pub(super) const UNREGISTERED: i64 = 301;
/// Access is refused: no token, a wrong one, one that has expired, or no right.
pub(super) const FORBIDDEN: i64 = 403;

/// The code of an answer; 200 is success.
pub(super) fn code_of(answer: &Value) -> i64 {
    let number = |key: &str| answer.get(key).and_then(Value::as_i64).unwrap_or(0);
    match (number("resultCode"), number("errorCode")) {
        // What has no code of its own is as good as its error.
        (500 | 0, error) if error != 0 => error,
        (result, _) => result,
    }
}

/// The error of an answer that is none of success.
pub(super) fn refusal(answer: &Value) -> Error {
    let message = answer.get("message").and_then(Value::as_str).unwrap_or("").trim();
    let code = code_of(answer);
    let kind = if message.contains("is illegal") || (message.contains("Namespace") && message.contains("exist")) {
        ErrorKind::InvalidArgument
    } else {
        match code {
            400 | 22_000 | 22_001 => ErrorKind::InvalidArgument,
            401 => ErrorKind::Unauthenticated,
            FORBIDDEN => ErrorKind::PermissionDenied,
            302 | 501 => ErrorKind::Unsupported,
            _ => ErrorKind::Unavailable,
        }
    };
    let hint = if message.contains("Namespace") && kind == ErrorKind::InvalidArgument {
        "; create the namespace, options.namespace is its id"
    } else {
        ""
    };
    Error::new(kind, format!("Nacos refused with code {code}: {message:?}{hint}"))
}

/// The error of a request that was not answered.
pub(super) fn unanswered(status: Status) -> Error {
    let kind = match status.code() {
        Code::DeadlineExceeded => ErrorKind::Timeout,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Unavailable,
    };
    let text = format!("the connection to Nacos failed: {}", status.message());
    Error::new(kind, text).caused_by(status)
}
