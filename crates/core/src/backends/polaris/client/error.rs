//! What a failure of Polaris means.

use tonic::{Code, Status};

use crate::error::{Error, ErrorKind};

/// Done.
pub(super) const OK: u32 = 200_000;
/// What is known already is what there is.
pub(super) const UNCHANGED: u32 = 200_001;

/// Whether the answer is that there is no such thing: instance, service or namespace.
pub(super) fn is_not_there(code: u32) -> bool {
    matches!(code, 400_202 | 400_301)
}

/// Whether a heartbeat was refused because the server does not know the instance, or not yet.
pub(super) fn is_unknown(code: u32) -> bool {
    is_not_there(code) || code == 400_141
}

/// What a code means.
fn kind_of(code: u32, info: &str) -> ErrorKind {
    match code {
        // The same request is on its way; a limit.
        400_208 | 403_003 => ErrorKind::Unavailable,
        400_401 | 404_000..=404_999 => ErrorKind::Unsupported,
        401_001 if !is_about_token(info) => ErrorKind::PermissionDenied,
        401_000..=401_999 => ErrorKind::Unauthenticated,
        403_000..=403_999 => ErrorKind::PermissionDenied,
        400_000..=400_999 => ErrorKind::InvalidArgument,
        500_008 => ErrorKind::Timeout,
        _ => ErrorKind::Unavailable,
    }
}

/// One code has two meanings, which its text tells apart.
fn is_about_token(info: &str) -> bool {
    let info = info.to_ascii_lowercase();
    info.contains("token") && !info.contains("permission")
}

/// The error of an answer that is none of success, about a service or none. `token` is left out of its text.
pub(super) fn refusal(code: u32, info: &str, service: &str, token: Option<&str>) -> Error {
    let kind = kind_of(code, info);
    let info: String = info.chars().take(200).collect();
    let info = match token {
        Some(token) if !token.is_empty() => info.replace(token, "…"),
        _ => info,
    };
    let what = match code {
        400_110 | 400_111 => "options.namespace: ",
        400_120 | 400_121 => "instance.name: ",
        400_131 | 400_132 | 400_136 => "instance.endpoints: ",
        400_137 => "instance.version: ",
        400_150 => "instance.metadata: ",
        _ => "",
    };
    let hint = match kind {
        ErrorKind::Unauthenticated => {
            "; options.token is none that Polaris takes: it has to be that of a user, not renewed since and not switched off"
        }
        ErrorKind::PermissionDenied => "; give the user of options.token the right to write to it",
        _ => "",
    };
    let of = if service.is_empty() {
        String::new()
    } else {
        format!(" about the service {service:?}")
    };
    Error::new(
        kind,
        format!("{what}Polaris refused a request{of} with code {code}: {info:?}{hint}"),
    )
}

/// The error of a request that was not answered.
pub(super) fn unanswered(status: Status) -> Error {
    let kind = match status.code() {
        Code::DeadlineExceeded => ErrorKind::Timeout,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::PermissionDenied,
        Code::Unimplemented => ErrorKind::Unsupported,
        _ => ErrorKind::Unavailable,
    };
    let text = format!("the connection to Polaris failed: {}", status.message());
    Error::new(kind, text).caused_by(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_says_what_to_do() {
        let kinds = [
            (400_120, "", ErrorKind::InvalidArgument),
            (400_150, "", ErrorKind::InvalidArgument),
            (400_208, "", ErrorKind::Unavailable),
            (400_401, "", ErrorKind::Unsupported),
            (
                401_001,
                "access is not approved: invalid token",
                ErrorKind::Unauthenticated,
            ),
            (
                401_001,
                "access is not approved: no permission",
                ErrorKind::PermissionDenied,
            ),
            (401_003, "", ErrorKind::Unauthenticated),
            (403_001, "", ErrorKind::PermissionDenied),
            (403_003, "", ErrorKind::Unavailable),
            (429_001, "", ErrorKind::Unavailable),
            (500_000, "", ErrorKind::Unavailable),
            (500_008, "", ErrorKind::Timeout),
            (7, "", ErrorKind::Unavailable),
        ];
        for (code, info, kind) in kinds {
            assert_eq!(refusal(code, info, "orders", None).kind(), kind, "{code} {info}");
        }
    }

    #[test]
    fn no_error_tells_the_token() {
        let error = refusal(401_001, "invalid token s3cret", "", Some("s3cret"));
        assert!(!error.message().contains("s3cret"), "{error}");
        assert!(error.message().contains("options.token"), "{error}");
    }
}
