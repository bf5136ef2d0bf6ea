//! The agents: one HTTP client each, which of them is asked, and what their answers mean.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Client, Method};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::http::{Lane, Way};
use super::options::{Consistency, ConsulOptions};
use super::room::{Place, Room};
use crate::error::{Error, ErrorKind, Result};
use crate::heard::{Heard, while_heard};
use crate::http::{Unread as UnreadBody, innermost, one_line, read_body, segment};
use crate::log::Log;
use crate::tls::Tls;

/// Calls in flight, by [`Queue`]. With the blocking queries this keeps a client well below the 200 connections that an
/// agent takes from one address (`http_max_conns_per_client`).
const TURNS: [usize; 4] = [16, 8, 16, 8];
/// An agent that does not answer gets at least this long before the next one is asked.
const LEAST: Duration = Duration::from_secs(1);
/// The pause before a call to an agent that takes no more connections is tried again, at most.
const FULL_PAUSE: Duration = Duration::from_millis(300);
/// A connection that ends this soon, unanswered, may have been one too many.
const SOON: Duration = Duration::from_secs(1);
/// So many such ends of a call are tried again.
const CUTS: u32 = 3;
/// The status of an answer of an agent that has too many connections; checks that warn have it too.
const TOO_MANY: u16 = 429;

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
    all: Vec<Way>,
    /// The one that is asked first.
    current: AtomicUsize,
    turns: [Semaphore; TURNS.len()],
    room: Arc<Room>,
    /// The most connections that are held for watches.
    most: usize,
    timeout: Duration,
    token: Option<String>,
    /// `ns=…&partition=…`, or empty.
    tenancy: String,
    max_bytes: usize,
}

/// What a held question of one name goes by.
pub(super) enum Own {
    /// A connection of its own.
    Connection(Place),
    /// A connection of HTTP/2, with others.
    Lane(Arc<Lane>),
}

/// Why there is no answer.
enum Failure {
    /// The agent takes no more connections from this address.
    Full(Error),
    /// It may be that, too: a connection that was cut as soon as it was made.
    Cut(Error),
    /// No connection can be made.
    Unreached(Error),
    Lost(Error),
}

/// What an agent answered, read to its end.
pub(super) struct Answer {
    /// How messages call the agent.
    host: String,
    /// Where it is, as errors have it.
    base: String,
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
            .map(|host| Way::new(host, options, tls.as_ref(), &given))
            .collect::<Result<_>>()?;
        let tenancy = [("ns", &options.namespace), ("partition", &options.partition)]
            .into_iter()
            .filter_map(|(name, value)| Some(format!("&{name}={}", segment(value.as_ref()?))))
            .collect();
        Ok(Self {
            all,
            current: AtomicUsize::new(0),
            turns: TURNS.map(Semaphore::new),
            room: Room::new(options.max_watch_connections),
            most: options.max_watch_connections,
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

    /// The agent that is asked first, as errors have it.
    pub(super) fn next(&self) -> Option<&str> {
        Some(&self.all[self.order(None).next()?].base)
    }

    /// An error of one agent.
    pub(super) fn error(&self, agent: usize, kind: ErrorKind, message: impl AsRef<str>) -> Error {
        self.said_by(agent, Error::new(kind, message))
    }

    /// The same error, of what an agent has said.
    pub(super) fn said_by(&self, agent: usize, error: Error) -> Error {
        error.at(&self.all[agent].base)
    }

    /// The error of an agent that did not answer in time.
    pub(super) fn silent(&self, agent: usize, waited: Duration) -> Error {
        let (host, ms) = (self.host(agent), waited.as_millis());
        let text = format!("the Consul agent at {host} did not answer within {ms} ms");
        self.error(agent, ErrorKind::Timeout, text)
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

    /// The same, if that is what an error says.
    pub(super) fn failed_by(&self, agent: usize, error: &Error) {
        if error.is_retryable() {
            self.failed(agent);
        }
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
            let http = &self.all[agent].calls;
            let mut cuts = 0;
            loop {
                // Neither kind of call that was turned away has done anything, or does other things the second time.
                let error = match self.send(http, agent, &method, path, body.as_deref(), &heard).await {
                    Ok(answer) => return Ok(answer),
                    Err(Failure::Cut(error)) if cuts < CUTS => {
                        cuts += 1;
                        error
                    }
                    Err(Failure::Full(error)) => error,
                    Err(Failure::Cut(error) | Failure::Unreached(error) | Failure::Lost(error)) => return Err(error),
                };
                self.room.is_full();
                let pause = FULL_PAUSE.mul_f64(0.3 + fastrand::f64() * 0.7);
                if start.elapsed() + pause > limit {
                    return Err(error);
                }
                sleep(pause).await;
            }
        });
        let deadline = start + self.timeout.max(limit);
        let answer = while_heard(whole, &heard, start + limit, Some(deadline)).await;
        let answer = answer.unwrap_or_else(|| Err(self.silent(agent, start.elapsed())));
        answer.map_err(|error| error.at(&self.all[agent].base))
    }

    /// One write that must not be made twice. It is sent once, unless an agent that is full has turned it away; an error says so
    /// where its outcome is not known.
    pub(super) async fn once(
        &self,
        agent: usize,
        method: Method,
        path: &str,
        body: String,
        limit: Duration,
    ) -> Result<Answer> {
        let start = Instant::now();
        let heard = Heard::default();
        // Its turn is part of its time, and nothing has been sent by then.
        let Ok(_turn) = timeout(limit, self.turns[Queue::Writes as usize].acquire()).await else {
            return Err(self.silent(agent, limit));
        };
        loop {
            let left = limit.saturating_sub(start.elapsed());
            let sent = self.send(&self.all[agent].calls, agent, &method, path, Some(&body), &heard);
            let result = match timeout(left, sent).await {
                Ok(Ok(answer)) if answer.status >= 500 && !answer.says("No cluster leader") => {
                    Err(answer.refusal("the write failed").with_unknown_outcome())
                }
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(Failure::Full(error))) => {
                    self.room.is_full();
                    let pause = FULL_PAUSE.mul_f64(0.3 + fastrand::f64() * 0.7);
                    if pause < limit.saturating_sub(start.elapsed()) {
                        sleep(pause).await;
                        continue;
                    }
                    Err(error)
                }
                Ok(Err(Failure::Unreached(error))) => Err(error),
                Ok(Err(Failure::Cut(error) | Failure::Lost(error))) => Err(error.with_unknown_outcome()),
                Err(_) => Err(self.silent(agent, limit).with_unknown_outcome()),
            };
            return result.map_err(|error| error.at(&self.all[agent].base));
        }
    }

    /// Whether the agent answers within `limit`, in no queue. By a connection of its own, so that the others are given up
    /// in time where the agent has none left, unless its connections are shared.
    pub(super) async fn answers(&self, agent: usize, path: &str, limit: Duration) -> bool {
        let (way, heard) = (&self.all[agent], Heard::default());
        let http = if way.is_shared() { &way.calls } else { &way.fresh };
        let question = self.send(http, agent, &Method::GET, path, None, &heard);
        let answer = timeout(limit, question).await;
        if matches!(answer, Ok(Err(Failure::Full(_) | Failure::Cut(_)))) {
            self.room.is_full();
        }
        matches!(answer, Ok(Ok(_) | Err(Failure::Full(_))))
    }

    /// What a held question of one name may go by, while there is room.
    pub(super) fn own(&self, agent: usize) -> Option<Own> {
        let way = &self.all[agent];
        if way.is_shared() {
            way.lane(self.most).map(Own::Lane)
        } else {
            self.room.take().map(Own::Connection)
        }
    }

    /// Whether it still is what held questions go by at this agent.
    pub(super) fn suits(&self, agent: usize, own: &Own) -> bool {
        self.all[agent].is_shared() == matches!(own, Own::Lane(_))
    }

    /// A blocking query; it has a connection to itself for as long as it is held, unless connections are shared. Its limit
    /// is the caller's. `None` when the agent takes no more connections, of which some have been given up by then.
    pub(super) async fn block(&self, agent: usize, own: Option<&Own>, path: &str) -> Result<Option<Answer>> {
        self.held(agent, own, path).await?.map(Answer::checked).transpose()
    }

    /// The same, whatever the status of the answer.
    pub(super) async fn held(&self, agent: usize, own: Option<&Own>, path: &str) -> Result<Option<Answer>> {
        let http = match own {
            Some(Own::Lane(lane)) => &lane.http,
            _ => &self.all[agent].calls,
        };
        match self
            .send(http, agent, &Method::GET, path, None, &Heard::default())
            .await
        {
            Ok(answer) => Ok(Some(answer)),
            Err(Failure::Full(_) | Failure::Cut(_) | Failure::Unreached(_)) => {
                self.room.is_full();
                Ok(None)
            }
            Err(Failure::Lost(error)) => Err(error.at(&self.all[agent].base)),
        }
    }

    async fn send(
        &self,
        http: &Client,
        agent: usize,
        method: &Method,
        path: &str,
        body: Option<&str>,
        heard: &Heard,
    ) -> Result<Answer, Failure> {
        let way = &self.all[agent];
        let (host, base) = (&way.host, &way.base);
        let joint = if path.contains('?') { "" } else { "?" };
        let mut request = http.request(method.clone(), format!("{base}{path}{joint}{}", self.tenancy));
        if let Some(token) = &self.token {
            request = request.header("x-consul-token", token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        let start = Instant::now();
        let response = request.send().await;
        let mut response = response.map_err(|error| unanswered(host, error, start.elapsed()))?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let mut answer = Answer {
            host: host.clone(),
            base: base.clone(),
            status: response.status().as_u16(),
            index: header("x-consul-index").and_then(|index| index.parse().ok()),
            filtered: header("x-consul-results-filtered-by-acls") == Some("true"),
            body: Vec::new(),
        };
        if answer.status != TOO_MANY {
            heard.note(); // one that is turned away has as long as any other
            if !std::ptr::eq(http, &raw const way.fresh) {
                way.answered(response.version());
            }
        }
        answer.body = read_body(&mut response, self.max_bytes, heard)
            .await
            .map_err(|unread| match unread {
                UnreadBody::Broken(error) => Failure::Lost(lost(host, error)),
                UnreadBody::TooLarge => Failure::Lost(Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "the answer of the Consul agent at {host} is larger than {} bytes (maxMessageBytes)",
                        self.max_bytes
                    ),
                )),
            })?;
        if answer.status == TOO_MANY && answer.says("too many concurrent connections") {
            return Err(Failure::Full(full(host)));
        }
        Ok(answer)
    }
}

/// There was no answer, or not the beginning of one.
fn unanswered(host: &str, error: reqwest::Error, after: Duration) -> Failure {
    let inner = innermost(&error);
    let kind = inner.downcast_ref::<io::Error>().map(io::Error::kind);
    let is_cut = matches!(
        kind,
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof)
    );
    if inner.to_string().contains("unexpected message from connection") {
        // hyper's words for an answer that came before the question was sent: nobody else's than that of a full agent.
        Failure::Full(full(host))
    } else if error.is_connect() && !is_cut {
        Failure::Unreached(lost(host, error))
    } else if after < SOON {
        Failure::Cut(lost(host, error))
    } else {
        Failure::Lost(lost(host, error))
    }
}

fn full(host: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "the Consul agent at {host} takes no more connections from this address (limits.http_max_conns_per_client)"
        ),
    )
}

/// An error of the way, which the same call may not meet again.
fn lost(host: &str, error: reqwest::Error) -> Error {
    let what = if error.is_connect() {
        "can't be reached"
    } else {
        "broke the connection off"
    };
    Error::new(
        ErrorKind::Unavailable,
        format!("the Consul agent at {host} {what}: {}", innermost(&error)),
    )
    .caused_by(error.without_url()) // which may hold what is asked for
}

/// A number for what is said, to tell whether it is the same as before.
pub(super) fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

impl Answer {
    #[cfg(test)]
    pub(super) fn of(status: u16, body: &str) -> Self {
        Self {
            host: "h:1".to_owned(),
            base: "http://h:1".to_owned(),
            status,
            index: None,
            filtered: false,
            body: body.as_bytes().to_vec(),
        }
    }

    /// Where the agent is that gave it.
    pub(super) fn base(&self) -> &str {
        &self.base
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
        let text = one_line(&self.body);
        let no_filter = self.says("boolean expression evaluator");
        let what = if no_filter { "options.filter is refused" } else { what };
        let no_token = self.says("ACL not found");
        let kind = if no_token || self.status == 401 {
            ErrorKind::Unauthenticated
        } else if self.status == 403 || self.says("Permission denied") {
            ErrorKind::PermissionDenied
        } else if matches!(self.status, 400 | 413) || no_filter {
            ErrorKind::InvalidArgument
        } else {
            ErrorKind::Unavailable
        };
        let hint = if no_token {
            "; options.token is none that Consul knows: it was deleted, has expired, or is of another datacenter"
        } else {
            ""
        };
        Error::new(
            kind,
            format!(
                "{what}: the Consul agent at {} answered {}: {text}{hint}",
                self.host, self.status
            ),
        )
        .at(&self.base)
    }

    /// The body as JSON. Anything else is no answer of Consul's, or not the whole of one.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the Consul agent at {} answered something else than Consul does ({error}): {}",
                    self.host,
                    one_line(&self.body)
                ),
            )
            .at(&self.base)
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
}

impl ConsulOptions {
    /// What the first list of a watch is asked with beside that. A leader that has just been elected answers the usual
    /// reads before it has caught up with its own log: after a restart of the servers, with lists of long ago. A consistent
    /// read waits for that. Where stale lists are wanted, they are taken.
    pub(super) fn first_read(&self) -> &'static str {
        match self.consistency {
            Consistency::Default => "&consistent",
            Consistency::Stale | Consistency::Consistent => "",
        }
    }

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
