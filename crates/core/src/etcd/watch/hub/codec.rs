//! The messages of the stream: how requests go out, and what answers say.

use bytes::Bytes;
use prost::Message as _;

use crate::error::ErrorKind;
use crate::etcd::error::{Cause, Fault};
use crate::etcd::messages::{WatchMessage, WatchResponse};

/// A request as it goes out.
pub(super) fn encode(request: impl Into<WatchMessage>) -> Bytes {
    request.into().encode_to_vec().into()
}

/// What came next on a stream from `url`, whose good end is a failure too: it is to go on.
pub(super) fn read(answer: Result<Option<Bytes>, Fault>, url: &str) -> Result<WatchResponse, Fault> {
    let (kind, text) = match answer? {
        Some(body) => match WatchResponse::decode(body) {
            Ok(response) => return Ok(response),
            Err(error) => {
                let text = format!("what {url} tells of a watch cannot be read: {error}");
                (ErrorKind::Internal, text)
            }
        },
        None => (ErrorKind::Unavailable, format!("{url} ended the watch stream")),
    };
    Err(Fault::new(Cause::Broken, kind, text))
}
