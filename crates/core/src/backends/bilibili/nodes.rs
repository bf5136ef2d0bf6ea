//! The nodes of a cluster: which of them is asked, how, and what their answers mean.
//!
//! Each node answers by itself, from its own memory, and passes on what it is told. The cluster is asked for its other
//! nodes every so often; those of the options stay before them, because the list of a cluster that was restarted may be
//! wrong for a while.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Client, redirect};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use url::Url;

use super::options::BilibiliOptions;
use super::record::{ITSELF, Info, Raw, form};
use crate::crypto;
use crate::error::{Error, ErrorKind, Result};
use crate::heard::{Heard, while_heard};
use crate::http::{Unread, innermost, one_line, read_body};
use crate::sync::lock;

/// How often the cluster is asked for its nodes.
const LEARN_EVERY: Duration = Duration::from_secs(30);
/// So many nodes are learned of at most.
const MOST: usize = 64;
/// Calls in flight, by [`Queue`].
const TURNS: [usize; 3] = [16, 16, 16];
/// A node that does not answer gets at least this long before the next one is asked, and at most [`SHARE`].
const LEAST: Duration = Duration::from_secs(1);
/// A healthy node may never answer a write: it waits for its peers, without end where one of them is frozen.
const SHARE: Duration = Duration::from_secs(3);
/// Connections that are kept for the next call, and for how long.
const IDLE: (usize, Duration) = (8, Duration::from_secs(15));
/// Longer parameters travel as a form: proxies cut long URLs off.
const LONG: usize = 4096;

/// Nothing is newer than what was asked with.
pub(super) const NOT_MODIFIED: i64 = -304;
/// An application, a zone of it or an instance that is not there.
pub(super) const NOT_FOUND: i64 = -404;
/// What is stored is newer.
pub(super) const CONFLICT: i64 = -409;

/// One node.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// How messages call it.
    pub host: String,
    base: String,
}

/// Where a call waits for its turn: what is answered late keeps those of its own kind waiting and nobody else.
#[derive(Debug, Clone, Copy)]
pub(super) enum Queue {
    Reads,
    Writes,
    Renewals,
}

/// What is asked.
pub(super) struct Call {
    posts: bool,
    path: &'static str,
    query: String,
}

impl Call {
    pub(super) fn get(path: &'static str, query: String) -> Self {
        let posts = false;
        Self { posts, path, query }
    }

    pub(super) fn post(path: &'static str, query: String) -> Self {
        let posts = true;
        Self { posts, path, query }
    }
}

/// What a node answered: 0, or one of the codes above, and what came with it.
pub(super) struct Answer<T> {
    pub code: i64,
    pub data: Option<T>,
}

#[derive(Deserialize)]
struct Envelope<T> {
    code: i64,
    #[serde(default = "Option::default")]
    data: Option<T>,
}

/// The nodes of one client.
pub(super) struct Nodes {
    http: Client,
    state: Mutex<State>,
    turns: [Semaphore; TURNS.len()],
    timeout: Duration,
    max_bytes: usize,
    learns: bool,
    env: String,
    zone: String,
}

struct State {
    /// How many of the first are those of the options.
    seeds: usize,
    all: Vec<Arc<Node>>,
    /// The one that is asked first.
    current: usize,
    /// When the cluster is to be asked for its nodes.
    due: Instant,
    learning: Option<AbortHandle>,
}

impl Node {
    fn new(host: &str) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("options.hosts: expected \"host:port\", {why}"));
        if host.contains("://") {
            return Err(wrong("without a scheme: discovery speaks plain HTTP only"));
        }
        let mut url = Url::parse(&format!("http://{host}")).map_err(|error| wrong(&error.to_string()))?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("got none"));
        }
        if url.port().is_none() && !host.ends_with(":80") {
            let _ = url.set_port(Some(7171)); // fails only for URLs without a host
        }
        Ok(Self {
            host: url[url::Position::BeforeHost..url::Position::AfterPort].to_owned(),
            base: url[..url::Position::AfterPort].to_owned(),
        })
    }

    /// An error that this node is the endpoint of.
    pub(super) fn error(&self, kind: ErrorKind, message: impl AsRef<str>) -> Error {
        Error::new(kind, message).at(&self.base)
    }

    /// The error of a node that did not answer in time.
    pub(super) fn silent(&self, waited: Duration) -> Error {
        let (host, ms) = (&self.host, waited.as_millis());
        self.error(
            ErrorKind::Timeout,
            format!("the discovery node at {host} did not answer within {ms} ms"),
        )
    }

    /// It said something that a node of discovery does not say.
    pub(super) fn strange(&self, what: &str) -> Error {
        let host = &self.host;
        self.error(
            ErrorKind::Unavailable,
            format!("the discovery node at {host} answered something else than discovery does ({what})"),
        )
    }

    fn lost(&self, error: reqwest::Error) -> Error {
        let host = &self.host;
        let what = if error.is_connect() {
            "can't be reached"
        } else {
            "broke the connection off"
        };
        self.error(
            ErrorKind::Unavailable,
            format!("the discovery node at {host} {what}: {}", innermost(&error)),
        )
        .caused_by(error.without_url()) // which holds all that is asked
    }

    /// What an answer comes to.
    fn judge<T: DeserializeOwned>(&self, status: u16, body: &[u8]) -> Result<Answer<T>> {
        let refused = |kind, status: &str| {
            let (host, text) = (&self.host, one_line(body));
            Err(self.error(kind, format!("the discovery node at {host} answered {status}: {text}")))
        };
        match status {
            200 => {}
            // Discovery has no access control: a proxy before it has.
            401 => return refused(ErrorKind::Unauthenticated, "401"),
            403 => return refused(ErrorKind::PermissionDenied, "403"),
            400 | 413 | 414 | 431 => return refused(ErrorKind::InvalidArgument, &status.to_string()),
            _ => return refused(ErrorKind::Unavailable, &status.to_string()),
        }
        let Envelope { code, data } = serde_json::from_slice::<Envelope<T>>(body)
            .map_err(|error| self.strange(&format!("{error}: {}", one_line(body))))?;
        match code {
            0 | NOT_MODIFIED | NOT_FOUND | CONFLICT => Ok(Answer { code, data }),
            -400 => refused(ErrorKind::InvalidArgument, "that the parameters are wrong"),
            _ => refused(ErrorKind::Unavailable, &format!("with the code {code}")),
        }
    }
}

impl Nodes {
    pub(super) fn new(options: &BilibiliOptions) -> Result<Self> {
        let all: Vec<_> = options
            .hosts
            .iter()
            .map(|host| Node::new(host).map(Arc::new))
            .collect::<Result<_>>()?;
        let http = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(IDLE.0)
            .pool_idle_timeout(IDLE.1)
            .tls_backend_preconfigured(crypto::none()?)
            .build()
            .map_err(|error| {
                let inner = innermost(&error).to_string();
                Error::invalid(format!("options: no HTTP client can be made of them: {inner}"))
            })?;
        Ok(Self {
            http,
            state: Mutex::new(State {
                seeds: all.len(),
                all,
                current: 0,
                due: Instant::now(),
                learning: None,
            }),
            turns: TURNS.map(Semaphore::new),
            timeout: options.timeout,
            max_bytes: options.max_message_bytes,
            learns: options.discover_nodes,
            env: options.env.clone(),
            zone: options.zone.clone(),
        })
    }

    /// The nodes in the order in which they are to be asked, `first` before all, else the one that answered last.
    pub(super) fn order(&self, first: Option<&Arc<Node>>) -> Vec<Arc<Node>> {
        let state = lock(&self.state);
        let n = state.all.len();
        let begin = first.and_then(|first| state.all.iter().position(|node| node == first));
        let begin = begin.unwrap_or(state.current);
        (0..n).map(|i| Arc::clone(&state.all[(begin + i) % n])).collect()
    }

    /// The node that is asked first.
    pub(super) fn current(&self) -> Arc<Node> {
        let state = lock(&self.state);
        Arc::clone(&state.all[state.current])
    }

    /// The node that is asked first, as errors have it.
    pub(super) fn endpoint(&self) -> String {
        self.current().base.clone()
    }

    /// Whether there is one node only.
    pub(super) fn is_single(&self) -> bool {
        lock(&self.state).all.len() == 1
    }

    /// The node does not answer: others are asked before it from now on.
    pub(super) fn failed(&self, node: &Node) {
        let mut state = lock(&self.state);
        if *state.all[state.current] == *node {
            state.current = (state.current + 1) % state.all.len();
        }
    }

    /// The limit of one call where another node may be asked after it; more while its answer is coming.
    pub(super) fn limit(&self) -> Duration {
        match lock(&self.state).all.len() {
            1 => self.timeout,
            n => (self.timeout / u32::try_from(n).unwrap_or(u32::MAX))
                .clamp(LEAST, SHARE)
                .min(self.timeout),
        }
    }

    /// One read, by the first node that answers it.
    pub(super) async fn read<T: DeserializeOwned>(self: &Arc<Self>, call: &Call) -> Result<Answer<T>> {
        let mut failure = None;
        for node in self.order(None) {
            match self.call(&node, Queue::Reads, call, self.limit()).await {
                Err(error) if error.is_retryable() => {
                    self.failed(&node);
                    failure = Some(error);
                }
                other => return other,
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(ErrorKind::Internal, "there is no node to ask")))
    }

    /// One call of one node, in its turn in its queue. It has `limit`; one whose answer has begun goes on while pieces of it
    /// come, for the time of the options at most.
    pub(super) async fn call<T: DeserializeOwned>(
        self: &Arc<Self>,
        node: &Arc<Node>,
        queue: Queue,
        call: &Call,
        limit: Duration,
    ) -> Result<Answer<T>> {
        let (start, heard) = (Instant::now(), Heard::default());
        let whole = std::pin::pin!(async {
            let _turn = self.turns[queue as usize].acquire().await; // never closed
            self.send(node, call, &heard).await
        });
        let deadline = start + self.timeout.max(limit);
        let answer = while_heard(whole, &heard, start + limit, Some(deadline)).await;
        let answer = answer.unwrap_or_else(|| Err(node.silent(start.elapsed())));
        if answer.is_ok() {
            self.learn_when_due();
        }
        answer
    }

    /// A question that the node holds, in no queue.
    pub(super) async fn hold<T: DeserializeOwned>(
        &self,
        node: &Arc<Node>,
        call: &Call,
        limit: Duration,
    ) -> Result<Answer<T>> {
        let held = timeout(limit, self.send(node, call, &Heard::default())).await;
        held.unwrap_or_else(|_| Err(node.silent(limit)))
    }

    /// Whether the node answers within `limit`, in no queue. Any answer will do.
    pub(super) async fn answers(&self, node: &Arc<Node>, limit: Duration) -> bool {
        let url = format!("{}/discovery/nodes", node.base);
        matches!(timeout(limit, self.http.get(url).send()).await, Ok(Ok(_)))
    }

    async fn send<T: DeserializeOwned>(&self, node: &Node, call: &Call, heard: &Heard) -> Result<Answer<T>> {
        let Call { posts, path, query } = call;
        let base = &node.base;
        let request = if !posts {
            self.http.get(format!("{base}{path}?{query}"))
        } else if query.len() > LONG {
            let form = self.http.post(format!("{base}{path}"));
            form.header("content-type", "application/x-www-form-urlencoded")
                .body(query.clone())
        } else {
            // As Kratos does.
            self.http.post(format!("{base}{path}?{query}"))
        };
        let mut response = request.send().await.map_err(|error| node.lost(error))?;
        heard.note();
        let status = response.status().as_u16();
        let body = read_body(&mut response, self.max_bytes, heard)
            .await
            .map_err(|unread| match unread {
                Unread::Broken(error) => node.lost(error),
                Unread::TooLarge => node.error(
                    ErrorKind::Unavailable,
                    format!(
                        "the answer of the discovery node at {} is larger than {} bytes (maxMessageBytes)",
                        node.host, self.max_bytes
                    ),
                ),
            })?;
        node.judge(status, &body)
    }

    /// Asks for the nodes, in the background, when that is due.
    fn learn_when_due(self: &Arc<Self>) {
        if !self.learns {
            return;
        }
        let mut state = lock(&self.state);
        if state.due > Instant::now() {
            return;
        }
        state.due = Instant::now() + LEARN_EVERY.mul_f64(0.8 + fastrand::f64() * 0.4);
        let nodes = Arc::clone(self);
        // The next call learns what this one can't.
        let learning = async move { drop(nodes.learn().await) };
        state.learning = Some(tokio::spawn(learning).abort_handle());
    }

    /// Asks for the nodes of the environment, by the first node that answers. `None`: it has none.
    pub(super) async fn learn(self: &Arc<Self>) -> Result<Option<Info<Raw>>> {
        let query = form(&[("appid", ITSELF), ("env", &self.env), ("status", "1")]);
        let answer = self.read::<Info<Raw>>(&Call::get("/discovery/fetch", query)).await?;
        if let Some(info) = &answer.data {
            self.learned(info);
        }
        Ok(answer.data)
    }

    fn learned(&self, info: &Info<Raw>) {
        let of = |own: bool| {
            let zones = info
                .instances
                .iter()
                .filter(move |(zone, _)| (**zone == self.zone) == own);
            zones.flat_map(|(_, list)| list.iter().flatten())
        };
        let hosts = of(true).chain(of(false)).flat_map(Raw::addresses);
        let found = hosts.filter_map(|address| Node::new(address.strip_prefix("http://")?).ok());
        let mut state = lock(&self.state);
        let current = Arc::clone(&state.all[state.current]);
        let seeds = state.seeds;
        state.all.truncate(seeds);
        for node in found.take(MOST) {
            if !state.all.iter().any(|known| **known == node) {
                state.all.push(Arc::new(node));
            }
        }
        // The one that is asked may be on its way out of the list: it goes when it does not answer.
        state.current = state.all.iter().position(|node| *node == current).unwrap_or_else(|| {
            state.all.push(current);
            state.all.len() - 1
        });
    }

    /// Learns nothing any more.
    pub(super) fn stop(&self) {
        if let Some(learning) = lock(&self.state).learning.take() {
            learning.abort();
        }
    }
}
