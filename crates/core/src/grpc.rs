//! What backends that speak gRPC have in common: a TCP connection of HTTP/2 to one server, for one logical connection. It is
//! never made anew underneath: a server may know its clients by it, and who uses it has to know that it has ended. Servers
//! allow one ping of HTTP/2 in five minutes, so none is sent. [`Servers`] says which server is dialled, and who waits for that;
//! [`End`] is the end of a connection.

use std::io::Error as IoError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::rt::{Read, Write};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tower::Service as _;

use crate::error::{Error, ErrorKind, Result};
use crate::sync::lock;
use crate::tls::Tls;

/// How long nobody tries again what has just failed, however many want a connection.
const AGAIN: Duration = Duration::from_millis(100);

/// The servers of a client, one of which it has a connection to.
pub(crate) struct Servers {
    /// `host:port` of gRPC.
    pub(crate) addresses: Vec<String>,
    /// Where dialling begins; held by whoever dials.
    pub(crate) place: tokio::sync::Mutex<usize>,
    /// When dialling failed last, and with what: all who wait for it have that answer.
    failed: Mutex<Option<(Instant, Error)>>,
}

impl Servers {
    pub(crate) fn new(addresses: Vec<String>) -> Self {
        Self {
            addresses,
            place: tokio::sync::Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// What is `current`, or a connection made by `open`: one attempt at each server, which share the time. `open` makes the
    /// connection what is current. Whoever comes meanwhile waits for that.
    pub(crate) async fn connection<T, O>(
        &self,
        time: Duration,
        current: impl Fn() -> Option<T>,
        open: impl Fn(String, Duration) -> O,
    ) -> Result<T>
    where
        O: Future<Output = Result<T>>,
    {
        if let Some(connection) = current() {
            return Ok(connection);
        }
        let asked = Instant::now();
        let mut place = self.place.lock().await;
        if let Some(connection) = current() {
            return Ok(connection);
        }
        if let Some((at, error)) = &*lock(&self.failed)
            && (*at >= asked || at.elapsed() < AGAIN)
        {
            return Err(error.clone());
        }
        let limit = time / u32::try_from(self.addresses.len()).unwrap_or(1).max(1);
        let mut failure = None;
        for _ in 0..self.addresses.len() {
            match open(self.addresses[*place].clone(), limit).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = Some(error),
            }
            *place = (*place + 1) % self.addresses.len();
        }
        let failure = failure.unwrap_or_else(|| Error::new(ErrorKind::Internal, "there is no server to connect to"));
        *lock(&self.failed) = Some((Instant::now(), failure.clone()));
        Err(failure)
    }
}

/// Whether a connection has ended, and why.
pub(crate) struct End(watch::Sender<Option<Error>>);

impl Default for End {
    fn default() -> Self {
        Self(watch::channel(None).0)
    }
}

impl End {
    /// It has ended; the first reason counts.
    pub(crate) fn come(&self, why: Error) {
        self.0.send_if_modified(|end| {
            let is_first = end.is_none();
            end.get_or_insert(why);
            is_first
        });
    }

    /// Why, if it has.
    pub(crate) fn why(&self) -> Option<Error> {
        self.0.borrow().clone()
    }

    pub(crate) fn has_come(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Resolves when it has ended, with why.
    pub(crate) async fn wait(&self) -> Error {
        let mut end = self.0.subscribe();
        loop {
            if let Some(error) = end.borrow_and_update().clone() {
                return error;
            }
            let _ = end.changed().await; // the sender is ours
        }
    }
}

trait Io: Read + Write + Send + Unpin {}
impl<T: Read + Write + Send + Unpin> Io for T {}

/// Connects to `address`, the `host:port` of gRPC.
pub(crate) async fn dial(
    address: &str,
    tls: Option<&Tls>,
    server_name: Option<&str>,
    limit: Duration,
) -> Result<Channel> {
    let wrong = |error: &dyn std::fmt::Display| Error::invalid(format!("options.hosts: {address:?}: {error}"));
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).map_err(|error| wrong(&error))?;
    let secure = match tls {
        None => None,
        Some(tls) => {
            tls.refresh().await;
            let host = server_name.unwrap_or_else(|| address.rsplit_once(':').map_or(address, |(host, _)| host));
            let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|error| wrong(&error))?;
            Some((TlsConnector::from(Arc::new(tls.config(&[b"h2"]))), name))
        }
    };
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(limit));
    let is_used = Arc::new(AtomicBool::new(false));
    let connector = tower::service_fn(move |uri: Uri| {
        let (mut http, secure, is_used) = (http.clone(), secure.clone(), Arc::clone(&is_used));
        async move {
            if is_used.swap(true, Ordering::Relaxed) {
                return Err(IoError::other("the connection has ended"));
            }
            let io = http.call(uri).await.map_err(IoError::other)?;
            let Some((connector, name)) = secure else {
                return Ok(Box::new(io) as Box<dyn Io>);
            };
            let stream = connector.connect(name, TokioIo::new(io)).await?;
            Ok(Box::new(TokioIo::new(stream)) as Box<dyn Io>)
        }
    });
    endpoint.connect_with_connector(connector).await.map_err(|error| {
        Error::new(
            ErrorKind::Unavailable,
            format!("cannot connect to the port of gRPC at {address}"),
        )
        .at(address)
        .caused_by(error)
    })
}
