//! What backends that speak gRPC have in common: a TCP connection of HTTP/2 to one server, for one logical connection. It is
//! never made anew underneath: a server may know its clients by it, and who uses it has to know that it has ended. Servers
//! allow one ping of HTTP/2 in five minutes, so none is sent.

use std::io::Error as IoError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::rt::{Read, Write};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tower::Service as _;

use crate::error::{Error, ErrorKind, Result};
use crate::tls::Tls;

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
