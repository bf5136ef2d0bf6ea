//! What stands between HTTP/2 and the socket of a member: it knows whether the member has ever spoken.
//!
//! HTTP/2 lets a client send its first request before the server has said a word, and so hyper does. With a member that is
//! frozen, or that is no etcd, nobody could tell then whether a write has reached it. Here requests wait for the server's
//! first frame, as in Go's client, for `connect_timeout` at most. What fails on a connection that never opened was surely
//! not sent, and goes to another member.

use std::future::Future;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tower::Service as _;

use crate::heard::Heard;
use crate::sync::lock;
use crate::tls::Tls;

/// The preface of HTTP/2.
const PREFACE: usize = 24;
/// The head of a frame: three bytes of length, its type, flags, four bytes of its stream.
const HEAD: usize = 9;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;

/// The state of the sockets of one connection, which it may make anew: one after the other, or a new one while an old one
/// ends.
#[derive(Debug, Default)]
pub(in crate::etcd) struct Link {
    state: Mutex<State>,
    /// When something last came over an open socket, whoever it was for: also an answer that nobody waits for any more.
    pub(in crate::etcd) heard: Heard,
    /// A socket whose server has not spoken ends at once.
    over: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    /// How many sockets the server has spoken on.
    opened: u64,
    /// How many of them are there still.
    open: u32,
    shut: bool,
    /// Why the last socket did not open.
    why: Option<String>,
}

impl Link {
    /// `None` while it is open; else what to ask [`is_unopened`](Self::is_unopened) and [`shut`](Self::shut) with.
    pub(in crate::etcd) fn unopened(&self) -> Option<u64> {
        let state = self.lock();
        (state.open == 0).then_some(state.opened)
    }

    /// Whether no socket has been open since `mark` was taken: then no request has been sent since.
    pub(in crate::etcd) fn is_unopened(&self, mark: u64) -> bool {
        self.lock().opened == mark
    }

    /// Shuts it for good unless it has opened since `mark`. True when it did: then no request that waits has been sent,
    /// nor ever will be.
    pub(in crate::etcd) fn shut(&self, mark: u64) -> bool {
        let mut state = self.lock();
        let unopened = state.opened == mark;
        state.shut |= unopened;
        drop(state);
        if unopened {
            self.over.cancel();
        }
        unopened
    }

    /// Nobody wants it any more: no socket is opened, and one that waits for its server's first words is closed.
    pub(in crate::etcd) fn end(&self) {
        self.lock().shut = true;
        self.over.cancel();
    }

    /// Why the last socket did not open, if the server did it: the calls that waited were told of an end alone.
    pub(in crate::etcd) fn why(&self) -> Option<String> {
        self.lock().why.clone()
    }

    fn failed(&self, why: String) {
        self.lock().why = Some(why);
    }

    /// As if the server had spoken.
    #[cfg(test)]
    pub(in crate::etcd) fn pretend_open(&self) {
        let _ = self.open();
    }

    fn open(&self) -> Result<()> {
        let mut state = self.lock();
        if state.shut {
            return Err(given_up());
        }
        state.opened += 1;
        state.open += 1;
        Ok(())
    }

    fn close(&self) {
        let mut state = self.lock();
        state.open = state.open.saturating_sub(1);
    }

    fn is_shut(&self) -> bool {
        self.lock().shut
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn given_up() -> Error {
    Error::new(ErrorKind::TimedOut, "it was given up before the server said anything")
}

/// TLS with one member.
#[derive(Clone)]
pub(in crate::etcd) struct Secure {
    tls: Tls,
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Secure {
    /// `name` is what the certificate must hold; the host of `url` unless given.
    pub(in crate::etcd) fn new(tls: &Tls, url: &str, name: Option<&str>) -> crate::error::Result<Self> {
        let wrong =
            |option: &str| crate::error::Error::invalid(format!("options.{option}: expected a DNS name or an address"));
        let uri: Uri = url.parse().map_err(|_| wrong("hosts"))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let option = if name.is_some() { "tls.serverName" } else { "hosts" };
        let name = ServerName::try_from(name.unwrap_or(host).to_owned()).map_err(|_| wrong(option))?;
        Ok(Self {
            connector: TlsConnector::from(Arc::new(tls.config(&[b"h2"]))),
            tls: tls.clone(),
            name,
        })
    }

    /// etcd speaks HTTP/2 on its client port whether or not a proxy in between passes ALPN on: it is not looked at.
    async fn handshake(&self, io: Guarded<TokioIo<TcpStream>>, until: Instant) -> Result<Socket> {
        let shake = self.connector.connect(self.name.clone(), TokioIo::new(io));
        let stream = timeout_at(until, shake)
            .await
            .map_err(|_| Error::new(ErrorKind::TimedOut, "the TLS handshake took too long"))??;
        Ok(Box::new(TokioIo::new(stream)))
    }
}

/// A socket, with TLS or without.
type Socket = Box<dyn ReadWrite>;

trait ReadWrite: Read + Write + Send + Unpin {}

impl<T: Read + Write + Send + Unpin> ReadWrite for T {}

/// A channel to `endpoint` that connects with its first call, and the state of its link.
pub(in crate::etcd) fn connect_lazy(
    endpoint: &Endpoint,
    timeout: Duration,
    tls: Option<Secure>,
) -> (Channel, Arc<Link>) {
    let link = Arc::new(Link::default());
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(timeout));
    let of = Arc::clone(&link);
    let connector = tower::service_fn(move |uri: Uri| {
        let (mut http, link, tls) = (http.clone(), Arc::clone(&of), tls.clone());
        async move {
            if link.is_shut() {
                return Err(given_up());
            }
            link.lock().why = None;
            if let Some(tls) = &tls {
                tls.tls.refresh().await;
            }
            let until = Instant::now() + timeout;
            // TLS waits for the server by itself, and its bytes say nothing here.
            let is_plain = tls.is_none();
            let io = http.call(uri).await.map_err(Error::other)?;
            let over = Box::pin(link.over.clone().cancelled_owned());
            let guarded = Guarded {
                io,
                link,
                phase: Phase::Silent(Box::new(Silent {
                    skip: PREFACE,
                    head: [0; HEAD],
                    got: 0,
                    is_plain,
                    timeout,
                    timer: Box::pin(sleep_until(until)),
                    over,
                    held: None,
                })),
            };
            match tls {
                None => Ok(Box::new(guarded) as Socket),
                // For as long as the connection took, once more.
                Some(tls) => tls.handshake(guarded, Instant::now() + timeout).await,
            }
        }
    });
    (endpoint.connect_with_connector_lazy(connector), link)
}

/// A socket that holds requests back until the server has spoken.
struct Guarded<T> {
    io: T,
    link: Arc<Link>,
    phase: Phase,
}

enum Phase {
    Silent(Box<Silent>),
    /// What of the first frame's head is still to be handed on.
    Opening([u8; HEAD], usize),
    Open,
}

/// Before the server has spoken.
struct Silent {
    /// Bytes to be written before the next head of a frame.
    skip: usize,
    head: [u8; HEAD],
    got: usize,
    is_plain: bool,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
    /// Nobody wants the socket any more.
    over: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Who has something to write that is held back.
    held: Option<Waker>,
}

impl Silent {
    /// How much of `bytes` may go out: everything before the first request.
    fn allowed(&self, bytes: &[u8]) -> usize {
        if !self.is_plain {
            return bytes.len();
        }
        let mut at = self.skip;
        while let Some(head) = bytes.get(at..at + HEAD) {
            if head[3] == HEADERS {
                return at;
            }
            at += HEAD + length_of(head);
        }
        at.min(bytes.len())
    }

    fn written(&mut self, bytes: &[u8], count: usize) {
        let mut at = self.skip;
        while at < count
            && let Some(head) = bytes.get(at..at + HEAD)
        {
            at += HEAD + length_of(head);
        }
        self.skip = at.saturating_sub(count);
    }

    /// Whether what has come is the beginning of HTTP/2.
    fn judge(&self) -> Result<()> {
        if self.head[3] == SETTINGS && self.head[5..] == [0; 4] {
            return Ok(());
        }
        let what = if self.head.starts_with(b"HTTP/") {
            "it answers with HTTP/1"
        } else {
            "it does not speak HTTP/2 without TLS"
        };
        Err(Error::new(ErrorKind::InvalidData, what))
    }
}

fn length_of(head: &[u8]) -> usize {
    usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])
}

impl<T: Read + Unpin> Guarded<T> {
    /// Waits for the server's first words. Ready with the head of its first frame, or of nothing when it has hung up or
    /// its words are TLS.
    fn poll_first(io: &mut T, silent: &mut Silent, cx: &mut Context<'_>) -> Poll<Result<bool>> {
        loop {
            let mut buffer = ReadBuf::new(&mut silent.head[silent.got..]);
            match Pin::new(&mut *io).poll_read(cx, buffer.unfilled()) {
                Poll::Ready(done) => done?,
                Poll::Pending => {
                    if silent.over.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Err(given_up()));
                    }
                    ready!(silent.timer.as_mut().poll(cx));
                    let text = format!("it said nothing within {} ms", silent.timeout.as_millis());
                    return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, text)));
                }
            }
            let count = buffer.filled().len();
            silent.got += count;
            if count == 0 || !silent.is_plain {
                return Poll::Ready(Ok(count > 0));
            }
            if silent.got == HEAD {
                return Poll::Ready(silent.judge().map(|()| true));
            }
        }
    }
}

impl<T: Read + Unpin> Read for Guarded<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        if let Phase::Silent(silent) = &mut this.phase {
            let spoke =
                ready!(Self::poll_first(&mut this.io, silent, cx)).inspect_err(|e| this.link.failed(e.to_string()))?;
            if spoke {
                this.link.open()?;
            } else if silent.is_plain {
                this.link.failed("it hung up without a word of HTTP/2".to_owned()); // TLS says so itself
            }
            let (head, got) = (silent.head, silent.got);
            if let Some(held) = silent.held.take() {
                held.wake();
            }
            if !spoke {
                silent.got = 0; // the end; a few bytes before it are nobody's
                return Poll::Ready(Ok(()));
            }
            let mut rest = [0; HEAD];
            rest[HEAD - got..].copy_from_slice(&head[..got]);
            this.phase = Phase::Opening(rest, HEAD - got);
        }
        if let Phase::Opening(head, from) = &mut this.phase {
            let count = into.remaining().min(HEAD - *from);
            into.put_slice(&head[*from..*from + count]);
            *from += count;
            if *from == HEAD {
                this.phase = Phase::Open;
            }
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut this.io).poll_read(cx, into))?;
        this.link.heard.note();
        Poll::Ready(Ok(()))
    }
}

impl<T: Write + Unpin> Write for Guarded<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let this = &mut *self;
        let Phase::Silent(silent) = &mut this.phase else {
            return Pin::new(&mut this.io).poll_write(cx, bytes);
        };
        if this.link.is_shut() {
            return Poll::Ready(Err(given_up()));
        }
        let allowed = silent.allowed(bytes);
        if allowed == 0 && !bytes.is_empty() {
            silent.held = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = ready!(Pin::new(&mut this.io).poll_write(cx, &bytes[..allowed]))?;
        silent.written(bytes, count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        if matches!(self.phase, Phase::Silent(_)) {
            let first = slices.iter().find(|slice| !slice.is_empty());
            return self.poll_write(cx, first.map_or(&[], |slice| slice));
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        if !matches!(self.phase, Phase::Silent(_)) {
            self.link.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent() -> Silent {
        Silent {
            skip: PREFACE,
            head: [0; HEAD],
            got: 0,
            is_plain: true,
            timeout: Duration::ZERO,
            timer: Box::pin(sleep_until(Instant::now())),
            over: Box::pin(CancellationToken::new().cancelled_owned()),
            held: None,
        }
    }

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 0];
        frame.resize(HEAD + usize::from(length), 7);
        frame
    }

    #[tokio::test]
    async fn what_opens_a_connection_goes_out_and_the_first_request_waits() {
        let opening = [vec![7; PREFACE], frame(SETTINGS, 12), frame(8, 4)].concat();
        let all = [opening.clone(), frame(HEADERS, 30), frame(0, 9)].concat();
        // However the writes are cut.
        for cut in 1..=opening.len() {
            let mut silent = silent();
            let mut sent = 0;
            while silent.allowed(&all[sent..]) > 0 {
                let count = silent.allowed(&all[sent..]).min(cut);
                silent.written(&all[sent..], count);
                sent += count;
            }
            assert_eq!(sent, opening.len(), "in pieces of {cut}");
        }
    }

    #[test]
    fn a_link_that_never_opened_is_shut_for_good() {
        let link = Link::default();
        let mark = link.unopened().unwrap();
        assert!(link.is_unopened(mark) && link.shut(mark));
        assert!(link.open().is_err());
        assert!(link.is_unopened(mark));
    }

    #[test]
    fn one_that_has_opened_meanwhile_is_not() {
        let link = Link::default();
        let mark = link.unopened().unwrap();
        link.open().unwrap();
        assert_eq!(link.unopened(), None);
        link.close();
        assert!(!link.is_unopened(mark) && !link.shut(mark));
        let again = link.unopened().unwrap();
        assert!(link.is_unopened(again));
        // A new socket while the old one ends.
        link.open().unwrap();
        link.open().unwrap();
        link.close();
        assert_eq!(link.unopened(), None);
    }
}
