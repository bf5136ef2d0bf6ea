//! The way to one agent: its HTTP clients, which are its connections.
//!
//! In plain text an agent speaks HTTP/1.1, where a question in flight has a connection to itself. Over TLS it speaks
//! HTTP/2, where one connection carries many: held questions then share [lanes](Lane) of their own.

use std::io;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, redirect};
use tower::layer::layer_fn;
use url::Url;

use super::options::ConsulOptions;
use crate::crypto;
use crate::error::{Error, Result};
use crate::http::{Refreshed, innermost};
use crate::sync::lock;
use crate::tls::{Tls, TlsOptions};

/// Connections that are kept for the next call.
const IDLE: usize = 8;
/// For how long.
const IDLE_FOR: Duration = Duration::from_secs(15);
/// Held questions of one connection of HTTP/2. Agents take 250 at once on each, and what is beyond waits in it unasked.
const STREAMS: usize = 200;
/// How often a connection of HTTP/2 is asked whether it stands, and how long it may take to answer. Over HTTP/1.1 a call
/// that timed out closes its connection; here the next one would go by the same.
const PING: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(6));

pub(super) struct Way {
    /// How messages call the agent.
    pub host: String,
    pub base: String,
    /// For calls, and for held questions over HTTP/1.1.
    pub calls: Client,
    /// Makes a connection for each question, which shows whether the agent takes one more.
    pub fresh: Client,
    door: Door,
    lanes: Mutex<Vec<Weak<Lane>>>,
    is_shared: AtomicBool,
}

/// One connection of HTTP/2 for held questions, while somebody holds it.
pub(super) struct Lane {
    pub http: Client,
}

/// How connections to the agent are made.
struct Door {
    connect_timeout: Duration,
    tls: Option<Tls>,
    resolver: Option<Arc<Elsewhere>>,
    #[cfg(unix)]
    socket: Option<PathBuf>,
}

/// What a client is for.
enum For {
    Calls,
    Fresh,
    Lane,
}

impl Way {
    pub(super) fn new(host: &str, options: &ConsulOptions, tls: Option<&Tls>, given: &TlsOptions) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("options.hosts: expected \"host:port\", {why}"));
        let secure = options.tls.is_some() || host.starts_with("https://");
        let mut door = Door {
            connect_timeout: options.connect_timeout,
            tls: tls.filter(|_| secure && !host.starts_with("unix://")).cloned(),
            resolver: None,
            #[cfg(unix)]
            socket: host.strip_prefix("unix://").map(PathBuf::from),
        };
        if let Some(path) = host.strip_prefix("unix://") {
            if cfg!(not(unix)) {
                return Err(wrong("a unix socket needs a system that has them"));
            }
            return Self::by(door, path.to_owned(), "http://localhost".to_owned());
        }
        let rest = host.split_once("://").map_or(host, |(_, rest)| rest);
        let scheme = if secure { "https" } else { "http" };
        let mut url = Url::parse(&format!("{scheme}://{rest}")).map_err(|error| wrong(&error.to_string()))?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("got none"));
        }
        if url.port().is_none() && !rest.ends_with(if secure { ":443" } else { ":80" }) {
            let _ = url.set_port(Some(if secure { 8501 } else { 8500 })); // fails only for URLs without a host
        }
        let shown = url[url::Position::BeforeHost..url::Position::AfterPort].to_owned();
        if let Some(name) = given.server_name.as_ref().filter(|_| secure) {
            // What is asked for and checked is the name; where it is, the host tells.
            let port = url.port_or_known_default().unwrap_or(8501);
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            door.resolver = Some(Arc::new(Elsewhere { host, port }));
            url.set_host(Some(name))
                .map_err(|error| Error::invalid(format!("options.tls.serverName: {error}")))?;
        }
        Self::by(door, shown, url[..url::Position::AfterPort].to_owned())
    }

    fn by(door: Door, host: String, base: String) -> Result<Self> {
        Ok(Self {
            host,
            base,
            calls: door.client(&For::Calls)?,
            fresh: door.client(&For::Fresh)?,
            door,
            lanes: Mutex::default(),
            is_shared: AtomicBool::new(false),
        })
    }

    /// Whether its connections carry many questions at once, by its last answer.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared.load(Ordering::Relaxed)
    }

    /// Remembers by which version it answered.
    pub(super) fn answered(&self, version: reqwest::Version) {
        self.is_shared
            .store(version == reqwest::Version::HTTP_2, Ordering::Relaxed);
    }

    /// A lane that has room for one more name, of at most so many.
    pub(super) fn lane(&self, most: usize) -> Option<Arc<Lane>> {
        let mut lanes = lock(&self.lanes);
        lanes.retain(|lane| lane.strong_count() > 0);
        let mut free = lanes.iter().filter(|lane| lane.strong_count() < STREAMS);
        if let Some(lane) = free.find_map(Weak::upgrade) {
            return Some(lane);
        }
        if lanes.len() >= most {
            return None;
        }
        let http = self.door.client(&For::Lane).ok()?; // made of what the others are made of
        let lane = Arc::new(Lane { http });
        lanes.push(Arc::downgrade(&lane));
        Some(lane)
    }
}

impl Door {
    fn client(&self, purpose: &For) -> Result<Client> {
        let mut http = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING.0)
            .http2_keep_alive_timeout(PING.1)
            .http2_keep_alive_while_idle(true)
            .pool_max_idle_per_host(if matches!(purpose, For::Fresh) { 0 } else { IDLE })
            // The pool would forget a lane of few names while questions are held on it, and make another for the next.
            .pool_idle_timeout((!matches!(purpose, For::Lane)).then_some(IDLE_FOR));
        if let Some(resolver) = &self.resolver {
            http = http.dns_resolver(Arc::clone(resolver));
        }
        #[cfg(unix)]
        if let Some(socket) = &self.socket {
            http = http.unix_socket(socket.clone());
        }
        match &self.tls {
            // Without TLS no authority is needed, and reading the system's takes longer than all the rest.
            None => http = http.tls_backend_preconfigured(crypto::none()?),
            Some(tls) => {
                let protocols: &[&[u8]] = match purpose {
                    For::Calls => &[b"h2", b"http/1.1"],
                    For::Fresh => &[b"http/1.1"],
                    For::Lane => &[b"h2"],
                };
                if matches!(purpose, For::Lane) {
                    // Known beforehand, so that many questions at once make one connection.
                    http = http.http2_prior_knowledge();
                }
                let tls = tls.clone();
                http = http
                    .tls_backend_preconfigured(tls.config(protocols))
                    .connector_layer(layer_fn(move |inner| Refreshed::new(inner, tls.clone())));
            }
        }
        http.build().map_err(|error| {
            Error::invalid(format!(
                "options: no HTTP client can be made of them: {}",
                innermost(&error)
            ))
        })
    }
}

/// Resolves every name to one host.
struct Elsewhere {
    host: String,
    port: u16,
}

impl Resolve for Elsewhere {
    fn resolve(&self, _: Name) -> Resolving {
        let (host, port) = (self.host.clone(), self.port);
        Box::pin(async move {
            // Not tokio's, which would need its feature `net`: reqwest brings that.
            let found: io::Result<Vec<SocketAddr>> = tokio::task::spawn_blocking(move || {
                std::net::ToSocketAddrs::to_socket_addrs(&(host.as_str(), port)).map(Iterator::collect)
            })
            .await?;
            Ok(Box::new(found?.into_iter()) as Addrs)
        })
    }
}
