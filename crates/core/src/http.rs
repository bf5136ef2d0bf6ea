//! What backends over HTTP have in common: a text in a URL, an answer that is read to a bound, what an error says, and how
//! long a write may be under way.

use std::time::Duration;
#[cfg(any(feature = "consul", feature = "kubernetes"))]
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use reqwest::Response;
#[cfg(any(feature = "bilibili", feature = "kubernetes"))]
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use crate::heard::Heard;
#[cfg(any(feature = "consul", feature = "kubernetes"))]
use crate::tls::Tls;

/// After what time a write that was not answered is taken to have arrived, or never to.
pub(crate) const LATE: Duration = Duration::from_millis(300);
/// How much of a page that is no answer is shown.
const SHOWN: usize = 200;

/// Why the body of an answer could not be read.
pub(crate) enum Unread {
    /// It is larger than it may be.
    TooLarge,
    /// The connection broke.
    Broken(reqwest::Error),
}

/// Reads the body of an answer of at most so many bytes, and notes each piece that comes.
pub(crate) async fn read_body(response: &mut Response, max_bytes: usize, heard: &Heard) -> Result<Vec<u8>, Unread> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Unread::Broken)? {
        heard.note();
        if body.len() + chunk.len() > max_bytes {
            return Err(Unread::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The beginning of a body, in one line.
pub(crate) fn one_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]);
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim()
        .to_owned()
}

/// The innermost error, which says what happened; those around it repeat the URL.
pub(crate) fn innermost<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner
}

/// Percent-encodes a word of a path or query.
pub(crate) fn segment(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}"); // writing to a String cannot fail
        }
    }
    out
}

/// Reads a field that may be null, which is what it is without a value.
#[cfg(any(feature = "bilibili", feature = "kubernetes"))]
pub(crate) fn or_null<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// Reads the files of TLS again before a connection is made.
#[cfg(any(feature = "consul", feature = "kubernetes"))]
#[derive(Clone)]
pub(crate) struct Refreshed<S> {
    inner: S,
    tls: Tls,
}

#[cfg(any(feature = "consul", feature = "kubernetes"))]
impl<S> Refreshed<S> {
    pub(crate) fn new(inner: S, tls: Tls) -> Self {
        Self { inner, tls }
    }
}

#[cfg(any(feature = "consul", feature = "kubernetes"))]
impl<S, To> tower::Service<To> for Refreshed<S>
where
    S: tower::Service<To> + Clone + Send + 'static,
    S::Future: Send,
    To: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, to: To) -> Self::Future {
        let fresh = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, fresh);
        let tls = self.tls.clone();
        Box::pin(async move {
            tls.refresh().await;
            ready.call(to).await
        })
    }
}
