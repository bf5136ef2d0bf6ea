//! The agents: one HTTP client each, which of them is asked, and what their answers mean.

use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder, Method, redirect};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tower::Service;
use tower::layer::layer_fn;
use url::Url;

use super::options::{Consistency, ConsulOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::heard::{Heard, while_heard};
use crate::log::Log;
use crate::tls::{self, Tls, TlsOptions};

/// Calls in flight, by [`Queue`]. With the blocking queries this keeps a client well below the 200 connections that an
/// agent takes from one address (`http_max_conns_per_client`).
const TURNS: [usize; 4] = [16, 8, 16, 8];
/// Connections that are kept for the next call.
const IDLE: usize = 8;
/// An agent that does not answer gets at least this long before the next one is asked.
const LEAST: Duration = Duration::from_secs(1);
/// How much of an error page is shown.
const SHOWN: usize = 200;

/// Where a call waits for its turn. What a server answers late keeps those of its own kind waiting and nobody else: an
/// agent renews a check by itself, however slow the servers are by which it answers a list.
#[derive(Debug, Clone, Copy)]
pub(super) enum Queue {
    /// Lists and indexes.
    Reads,
    /// What registers and deregisters.
    Writes,
    /// Whether others see what was written.
    Sight,
    /// What keeps a registration standing.
    Renewals,
}

/// The agents of one client.
pub(super) struct Agents {
    all: Vec<Agent>,
    /// The one that is asked first.
    current: AtomicUsize,
    turns: [Semaphore; TURNS.len()],
    timeout: Duration,
    token: Option<String>,
    /// `ns=…&partition=…`, or empty.
    tenancy: String,
    max_bytes: usize,
}

struct Agent {
    /// How messages call it.
    host: String,
    base: String,
    http: Client,
}

/// What an agent answered, read to its end.
pub(super) struct Answer {
    /// How messages call the agent.
    host: String,
    pub status: u16,
    /// `X-Consul-Index`.
    pub index: Option<u64>,
    /// Whether the answer lacks what the token may not see.
    pub filtered: bool,
    pub body: Vec<u8>,
}

/// An entry of a list that could not be decoded.
pub(super) struct Unread {
    pub value: Value,
    pub reason: String,
}

impl Agents {
    pub(super) fn new(options: &ConsulOptions, log: &Log) -> Result<Self> {
        // One for all agents, even if only some of them are spoken to by TLS.
        let is_secure = options.tls.is_some() || options.hosts.iter().any(|host| host.starts_with("https://"));
        let given = options.tls.clone().unwrap_or_default();
        let tls = is_secure.then(|| Tls::new(&given, log.clone())).transpose()?;
        let all = options
            .hosts
            .iter()
            .map(|host| Agent::new(host, options, tls.as_ref(), &given))
            .collect::<Result<_>>()?;
        let tenancy = [("ns", &options.namespace), ("partition", &options.partition)]
            .into_iter()
            .filter_map(|(name, value)| Some(format!("&{name}={}", segment(value.as_ref()?))))
            .collect();
        Ok(Self {
            all,
            current: AtomicUsize::new(0),
            turns: TURNS.map(Semaphore::new),
            timeout: options.timeout,
            token: options.token.clone(),
            tenancy,
            max_bytes: options.max_message_bytes,
        })
    }

    /// How long one call may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn host(&self, agent: usize) -> &str {
        &self.all[agent].host
    }

    /// The agents in the order in which they are to be asked, `first` before all, else the one that answered last.
    pub(super) fn order(&self, first: Option<usize>) -> impl Iterator<Item = usize> + use<> {
        let (n, first) = (
            self.all.len(),
            first.unwrap_or_else(|| self.current.load(Ordering::Relaxed)),
        );
        (0..n).map(move |i| (first + i) % n)
    }

    /// The agent does not answer: others are asked before it from now on.
    pub(super) fn failed(&self, agent: usize) {
        let next = (agent + 1) % self.all.len();
        let _ = self
            .current
            .compare_exchange(agent, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The limit of one call where another agent may be asked after it; more while its answer is coming.
    pub(super) fn limit(&self) -> Duration {
        let share = self.timeout / u32::try_from(self.all.len()).unwrap_or(1);
        share.max(LEAST).min(self.timeout)
    }

    /// One read, by the first agent that answers it with 200. Says which one.
    pub(super) async fn read(&self, path: &str) -> Result<(usize, Answer)> {
        self.first(path, true).await
    }

    /// One read, by the first agent that answers at all.
    pub(super) async fn ask(&self, path: &str) -> Result<(usize, Answer)> {
        self.first(path, false).await
    }

    async fn first(&self, path: &str, checked: bool) -> Result<(usize, Answer)> {
        let mut failure = None;
        for agent in self.order(None) {
            let answer = self
                .call(agent, Queue::Reads, Method::GET, path, None, self.limit())
                .await;
            let answer = answer.and_then(|answer| if checked { answer.checked() } else { Ok(answer) });
            match answer {
                Err(error) if error.is_retryable() => {
                    self.failed(agent);
                    failure = Some(error);
                }
                other => return other.map(|answer| (agent, answer)),
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(ErrorKind::Internal, "there is no agent to ask")))
    }

    /// One short call of one agent, in its turn in its queue. It has `limit`; one whose answer has begun goes on while pieces of it
    /// come, for the time of the options at most.
    pub(super) async fn call(
        &self,
        agent: usize,
        queue: Queue,
        method: Method,
        path: &str,
        body: Option<String>,
        limit: Duration,
    ) -> Result<Answer> {
        let (start, heard) = (Instant::now(), Heard::default());
        let whole = std::pin::pin!(async {
            let _turn = self.turns[queue as usize].acquire().await; // never closed
            self.send(agent, method, path, body, &heard).await
        });
        let deadline = start + self.timeout.max(limit);
        let answer = while_heard(whole, &heard, start + limit, Some(deadline)).await;
        answer.unwrap_or_else(|| {
            let (host, waited) = (self.host(agent), start.elapsed().as_millis());
            let text = format!("the Consul agent at {host} did not answer within {waited} ms");
            Err(Error::new(ErrorKind::Timeout, text))
        })
    }

    /// Whether the agent answers within `limit`, whatever it does, in no queue.
    pub(super) async fn answers(&self, agent: usize, path: &str, limit: Duration) -> bool {
        let heard = Heard::default();
        let question = self.send(agent, Method::GET, path, None, &heard);
        matches!(timeout(limit, question).await, Ok(Ok(_)))
    }

    /// A blocking query, which has a connection to itself for as long as it is held. Its limit is the caller's.
    pub(super) async fn block(&self, agent: usize, path: &str) -> Result<Answer> {
        self.send(agent, Method::GET, path, None, &Heard::default())
            .await?
            .checked()
    }

    async fn send(
        &self,
        agent: usize,
        method: Method,
        path: &str,
        body: Option<String>,
        heard: &Heard,
    ) -> Result<Answer> {
        let Agent { host, base, http } = &self.all[agent];
        let joint = if path.contains('?') { "" } else { "?" };
        let mut request = http.request(method, format!("{base}{path}{joint}{}", self.tenancy));
        if let Some(token) = &self.token {
            request = request.header("x-consul-token", token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let lost = |error: reqwest::Error| lost(host, &error);
        let mut response = request.send().await.map_err(lost)?;
        heard.note();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let mut answer = Answer {
            host: host.clone(),
            status: response.status().as_u16(),
            index: header("x-consul-index").and_then(|index| index.parse().ok()),
            filtered: header("x-consul-results-filtered-by-acls") == Some("true"),
            body: Vec::new(),
        };
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            heard.note();
            if answer.body.len() + chunk.len() > self.max_bytes {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "the answer of the Consul agent at {host} is larger than {} bytes (maxMessageBytes)",
                        self.max_bytes
                    ),
                ));
            }
            answer.body.extend_from_slice(&chunk);
        }
        Ok(answer)
    }
}

impl Agent {
    fn new(host: &str, options: &ConsulOptions, tls: Option<&Tls>, given: &TlsOptions) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("options.hosts: expected \"host:port\", {why}"));
        let mut http = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(IDLE)
            .pool_idle_timeout(Duration::from_secs(60));
        let secure = options.tls.is_some() || host.starts_with("https://");
        match tls.filter(|_| secure && !host.starts_with("unix://")) {
            // Without TLS no authority is needed, and reading the system's takes longer than all the rest.
            None => http = http.tls_backend_preconfigured(tls::none()?),
            Some(tls) => {
                let tls = tls.clone();
                http = http
                    .tls_backend_preconfigured(tls.config(&[]))
                    .connector_layer(layer_fn(move |inner| Refreshed {
                        inner,
                        tls: tls.clone(),
                    }));
            }
        }
        if let Some(path) = host.strip_prefix("unix://") {
            #[cfg(unix)]
            {
                http = http.unix_socket(std::path::PathBuf::from(path));
            }
            #[cfg(not(unix))]
            return Err(wrong("a unix socket needs a system that has them"));
            return Ok(Self {
                host: path.to_owned(),
                base: "http://localhost".to_owned(),
                http: built(http)?,
            });
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
            http = http.dns_resolver(Arc::new(Elsewhere { host, port }));
            url.set_host(Some(name))
                .map_err(|error| Error::invalid(format!("options.tls.serverName: {error}")))?;
        }
        Ok(Self {
            host: shown,
            base: url[..url::Position::AfterPort].to_owned(),
            http: built(http)?,
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

/// Reads the files of TLS again before a connection is made.
#[derive(Clone)]
struct Refreshed<S> {
    inner: S,
    tls: Tls,
}

impl<S, To> Service<To> for Refreshed<S>
where
    S: Service<To> + Clone + Send + 'static,
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

fn built(http: ClientBuilder) -> Result<Client> {
    http.build().map_err(|error| {
        Error::invalid(format!(
            "options: no HTTP client can be made of them: {}",
            chain(&error)
        ))
    })
}

/// An error of the way, which the same call may not meet again.
fn lost(host: &str, error: &reqwest::Error) -> Error {
    let what = if error.is_connect() {
        "can't be reached"
    } else {
        "broke the connection off"
    };
    Error::new(
        ErrorKind::Unavailable,
        format!("the Consul agent at {host} {what}: {}", chain(error)),
    )
}

/// The innermost error, which says what happened; those around it repeat the URL.
fn chain(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

impl Answer {
    #[cfg(test)]
    pub(super) fn of(status: u16, body: &str) -> Self {
        Self {
            host: "h:1".to_owned(),
            status,
            index: None,
            filtered: false,
            body: body.as_bytes().to_vec(),
        }
    }

    pub(super) fn is_ok(&self) -> bool {
        self.status == 200
    }

    /// Whether the text of the answer holds this.
    pub(super) fn says(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.body).contains(text)
    }

    /// The answer, unless it is a refusal.
    pub(super) fn checked(self) -> Result<Self> {
        if self.is_ok() {
            return Ok(self);
        }
        Err(self.refusal("the call failed"))
    }

    /// What an answer other than 200 comes to.
    pub(super) fn refusal(&self, what: &str) -> Error {
        let text = self.shown();
        let no_filter = self.says("boolean expression evaluator");
        let what = if no_filter { "options.filter is refused" } else { what };
        let kind = if self.says("ACL not found") || self.status == 401 {
            ErrorKind::Unauthenticated
        } else if self.status == 403 || self.says("Permission denied") {
            ErrorKind::PermissionDenied
        } else if matches!(self.status, 400 | 413) || no_filter {
            ErrorKind::InvalidArgument
        } else {
            ErrorKind::Unavailable
        };
        Error::new(
            kind,
            format!(
                "{what}: the Consul agent at {} answered {}: {text}",
                self.host, self.status
            ),
        )
    }

    /// The body as JSON. Anything else is no answer of Consul's, or not the whole of one.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the Consul agent at {} answered something else than Consul does ({error}): {}",
                    self.host,
                    self.shown()
                ),
            )
        })
    }

    /// The body as a JSON list, each entry decoded by itself: one that can't be read is handed out with the reason, and
    /// the others stand. `null` is an empty list. A list of anything else than objects is none of Consul's.
    pub(super) fn list<T: DeserializeOwned>(&self) -> Result<Vec<Result<T, Unread>>> {
        // All at once where nothing is amiss, which is the quick way.
        if let Ok(all) = serde_json::from_slice::<Option<Vec<T>>>(&self.body) {
            return Ok(all.into_iter().flatten().map(Ok).collect());
        }
        let entries: Option<Vec<Map<String, Value>>> = self.json()?;
        let read = entries.into_iter().flatten().map(Value::Object).map(|value| {
            T::deserialize(&value).map_err(|error| Unread {
                value,
                reason: error.to_string(),
            })
        });
        Ok(read.collect())
    }

    /// The beginning of the body, in one line.
    fn shown(&self) -> String {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(SHOWN)]);
        text.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect::<String>()
            .trim()
            .to_owned()
    }
}

impl ConsulOptions {
    /// What every read of the catalog is asked with.
    pub(super) fn read_query(&self) -> String {
        let named = [("dc", &self.datacenter), ("near", &self.near), ("filter", &self.filter)];
        let mut query: String = named
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}&", segment(value.as_ref()?))))
            .collect();
        query.push_str(match self.consistency {
            Consistency::Default => "",
            Consistency::Stale => "stale",
            Consistency::Consistent => "consistent",
        });
        query.trim_end_matches('&').to_owned()
    }
}

/// Percent-encodes a word of a path or query.
pub(super) fn segment(text: &str) -> String {
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
