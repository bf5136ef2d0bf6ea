//! One call, tried over the members of the cluster within its time, with a token that renews itself.
//!
//! What Go's client does in `client/v3/retry_interceptor.go`, with two differences: writes too are tried again when
//! their author says that applying them twice is the same as once, and a member that accepts calls without answering
//! gets a part of the time only.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost::Message as _;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};

use super::endpoints::{Connection, EndpointSet};
use super::error::{Cause, Fault, judge, judge_status};
use super::group::GroupSize;
use super::keepalive::KeepAlives;
use super::listening::listening;
use super::metrics::Metrics;
use super::options::EtcdOptions;
use super::tries::{Time, Tried, Tries};
use super::watch::WatchHub;
use super::wire::{AuthenticateRequest, AuthenticateResponse};
use crate::error::{ErrorKind, Result};
use crate::heard::Heard;
use crate::log::Log;

/// Reads under way per client, of those who have lost the thread of their watch. A compaction or a burst of changes
/// makes many of them at once, and nobody above paces them.
const CATCHING_UP: usize = 32;
/// The least that one try is given.
const TRY_LEAST: Duration = Duration::from_millis(500);
/// From how long a silence on a connection is given up, when calls may take that long. A shorter one is a slow disk.
const SILENCE: Duration = Duration::from_secs(1);
/// How long a member may say nothing before others are preferred. A write waits on; one that was not sent, because the
/// member has not even said that it speaks HTTP/2, goes to another one.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a refused token is replaced within one try. Twice, because the auth store may change in between.
const TOKEN_TRIES: u32 = 2;
/// How often all members are gone through within one call.
const ROUNDS: u32 = 2;
/// How often the one member is asked that there is, while that takes no longer than `QUICK`: two resets in a row, as of a
/// proxy that restarts, are then over.
const ROUNDS_OF_ONE: u32 = 4;
const QUICK: Duration = Duration::from_secs(2);
/// The method that gives a token for a password.
const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

/// A client of one etcd cluster. Cheap to clone; all clones share connections, tokens and the watch stream.
///
/// Making one does no I/O. It belongs to the tokio runtime that it is first used on.
#[derive(Clone)]
pub struct EtcdClient {
    shared: Arc<Shared>,
}

struct Shared {
    endpoints: EndpointSet,
    options: EtcdOptions,
    log: Log,
    /// Set once the cluster has said that it has no authentication, so that it is said once.
    auth_off_told: AtomicBool,
    catching_up: tokio::sync::Semaphore,
    watches: WatchHub,
    keep_alives: KeepAlives,
    metrics: Metrics,
    group: GroupSize,
    closed: CancellationToken,
}

/// Over which connection, with which token, a call was answered. A stream's later failures are charged to it.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) member: usize,
    pub(crate) connection: Arc<Connection>,
    pub(crate) token: u64,
}

impl EtcdClient {
    /// A client for these options. Errors: `InvalidArgument`, naming the option.
    pub fn new(options: EtcdOptions, log: Log) -> Result<Self> {
        options.validate()?;
        let endpoints = EndpointSet::new(&options, &log)?;
        Ok(Self {
            shared: Arc::new(Shared {
                endpoints,
                options,
                log,
                auth_off_told: AtomicBool::new(false),
                catching_up: tokio::sync::Semaphore::new(CATCHING_UP),
                watches: WatchHub::default(),
                keep_alives: KeepAlives::default(),
                metrics: Metrics::default(),
                group: GroupSize::default(),
                closed: CancellationToken::new(),
            }),
        })
    }

    /// What it was made with.
    pub fn options(&self) -> &EtcdOptions {
        &self.shared.options
    }

    pub(crate) fn log(&self) -> &Log {
        &self.shared.log
    }

    pub(crate) fn keep_alives(&self) -> &KeepAlives {
        &self.shared.keep_alives
    }

    /// Whoever reads anew because its watch ended, and not because somebody asked, holds one of these meanwhile.
    pub(crate) fn catching_up(&self) -> &tokio::sync::Semaphore {
        &self.shared.catching_up
    }

    pub(crate) fn watches(&self) -> &WatchHub {
        &self.shared.watches
    }

    /// What it has done so far.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    pub(crate) fn group(&self) -> &GroupSize {
        &self.shared.group
    }

    /// Cancelled when the client is closed.
    pub fn closed_token(&self) -> CancellationToken {
        self.shared.closed.clone()
    }

    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.shared.closed
    }

    pub(crate) fn url_of(&self, route: &Route) -> &str {
        &self.shared.endpoints.member(route.member).url
    }

    /// The key-value calls of a connection, with the decode limit of the options.
    pub fn kv(&self, connection: &etcd_client::Client) -> etcd_client::KvClient {
        connection
            .kv_client()
            .max_decoding_message_size(self.shared.options.max_message_bytes)
    }

    /// Makes a call within the time of the options, over as many members as that takes.
    ///
    /// `op` names it in messages. `make` is called once per try with the client of one connection; a try whose answer was
    /// lost is followed by another, so the call must do the same twice as once.
    /// A first try gets a third of the time, so that a member that is frozen does not eat it all. One whose answer has
    /// begun goes on for as long as pieces of it come.
    pub async fn call<T, F, Fut>(&self, op: &'static str, make: F) -> Result<T, Fault>
    where
        F: Fn(etcd_client::Client) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        let deadline = Instant::now() + self.shared.options.timeout;
        self.call_until(op, deadline, make).await.map(|(answer, _)| answer)
    }

    /// [`call`](Self::call) until `deadline`, saying who answered.
    pub(crate) async fn call_until<T, F, Fut>(
        &self,
        op: &'static str,
        deadline: Instant,
        make: F,
    ) -> Result<(T, Route), Fault>
    where
        F: Fn(etcd_client::Client) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.attempt(op, Tries::until(deadline), |connection| {
            let answer = make(connection.client.clone());
            async move { answer.await.map_err(|error| judge(error, &connection.url)) }
        })
        .await
    }

    /// The one loop over members and rounds. See [`Tries`] for what stops it.
    pub(crate) async fn attempt<T, F, Fut>(&self, op: &'static str, tries: Tries, make: F) -> Result<(T, Route), Fault>
    where
        F: Fn(Arc<Connection>) -> Fut,
        Fut: Future<Output = Result<T, Fault>>,
    {
        if self.shared.closed.is_cancelled() {
            return Err(Fault::new(Cause::Refused, ErrorKind::Closed, "the client was closed"));
        }
        let start = Instant::now();
        let mut share = tries
            .deadline
            .map(|deadline| (deadline.saturating_duration_since(start) / 3).max(TRY_LEAST));
        if let Some(most) = tries.most {
            share = Some(share.map_or(most, |share| share.min(most)));
        }
        if let Some(place) = tries.only {
            let Some(member) = self.shared.endpoints.index_of(place) else {
                return Err(Fault::new(Cause::Refused, ErrorKind::Internal, "there is no such host"));
            };
            return self
                .try_member(op, member, Time::of_the_last(tries.deadline), &make)
                .await
                .map_err(|fault| if tries.repeatable { fault } else { fault.of_a_write() });
        }
        let mut past = Tried::default();
        let rounds = if self.shared.endpoints.count() == 1 {
            ROUNDS_OF_ONE
        } else {
            ROUNDS
        };
        for round in 0..rounds {
            let last_round = round + 1 == rounds || (round + 1 >= ROUNDS && start.elapsed() >= QUICK);
            let order = self.shared.endpoints.order();
            for (i, member) in order.iter().copied().enumerate() {
                let is_last = last_round && i + 1 == order.len();
                let until = if is_last || !tries.repeatable {
                    tries.deadline
                } else {
                    match (tries.deadline, share.map(|share| Instant::now() + share)) {
                        (Some(deadline), Some(until)) => Some(until.min(deadline)),
                        (deadline, until) => until.or(deadline),
                    }
                };
                let time = Time {
                    until,
                    deadline: tries.deadline,
                    patience: (self.shared.endpoints.count() > 1 && !is_last).then(|| Instant::now() + PATIENCE),
                };
                let fault = match self.try_member(op, member, time, &make).await {
                    Ok(done) => return Ok(done),
                    Err(fault) => fault,
                };
                if !tries.repeatable && !fault.is_surely_not_applied() {
                    return Err(past.told_with(fault.of_a_write()));
                }
                if !fault.cause.is_elsewhere_better() {
                    return Err(past.told_with(fault));
                }
                self.shared.log.debug(format_args!("etcd {op}: {}", fault.error));
                past.add(&self.shared.endpoints.member(member).url, fault);
                if tries.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    return Err(self.out_of_time(op, start, past));
                }
            }
            if last_round {
                break;
            }
            // A moment for a member that is just starting, or for an election; longer waits are the caller's.
            let pause = Duration::from_millis(fastrand::u64(50..150));
            let fits = tries.deadline.is_none_or(|deadline| Instant::now() + pause < deadline);
            if fits {
                tokio::time::sleep(pause).await;
            }
        }
        Err(past.all())
    }

    fn out_of_time(&self, op: &str, start: Instant, tried: Tried) -> Fault {
        // What a member said is worth more than that time is over too.
        if tried.somebody_spoke() {
            return tried.all();
        }
        tried.told_with(Fault::new(
            Cause::Broken,
            ErrorKind::Timeout,
            format!(
                "no answer to {op} from etcd at {} within {} ms",
                self.shared.endpoints.urls(),
                start.elapsed().as_millis()
            ),
        ))
    }

    async fn try_member<T, F, Fut>(
        &self,
        op: &'static str,
        member: usize,
        time: Time,
        make: &F,
    ) -> Result<(T, Route), Fault>
    where
        F: Fn(Arc<Connection>) -> Fut,
        Fut: Future<Output = Result<T, Fault>>,
    {
        let endpoint = self.shared.endpoints.member(member);
        let connection = endpoint
            .connection()
            .map_err(|error| Fault::of(Cause::Refused, error))?;
        let start = Instant::now();
        let heard = Arc::<Heard>::default();
        let unopened = connection.link.unopened();
        let result = {
            // Pinned where they are made: each move would keep room for another copy in the future of every call.
            let work = std::pin::pin!(listening(Arc::clone(&heard), async {
                let mut work = std::pin::pin!(self.with_token(&connection, make));
                let Some(patience) = time.patience else {
                    return work.await;
                };
                if let Ok(done) = timeout_at(patience, work.as_mut()).await {
                    return done;
                }
                if unopened.is_some_and(|mark| connection.link.shut(mark)) {
                    endpoint.abandon(&connection);
                    let text = format!(
                        "cannot connect to {}: it said nothing in {} ms",
                        endpoint.url,
                        PATIENCE.as_millis()
                    );
                    return Err(Fault::new(Cause::NotSent, ErrorKind::Unavailable, text));
                }
                if !connection.has_answered_since(start) {
                    self.shared.endpoints.failed(member);
                }
                work.await
            }));
            time.give(work, &heard).await.unwrap_or_else(|| {
                // It may be the member or a connection that died in silence: the next try makes a new one either way.
                // Tries that are too short to tell, as those of renewals, tell it together. What others hear over the
                // connection says that it is alive.
                let since = heard.last().unwrap_or(start);
                let long = since.elapsed() >= SILENCE.min(self.shared.options.timeout / 3);
                if connection.is_silent_again(since) || (long && !connection.has_answered_since(since)) {
                    endpoint.abandon(&connection);
                }
                let text = format!("{} did not answer {op} in time", endpoint.url);
                Err(Fault::new(Cause::Broken, ErrorKind::Timeout, text))
            })
        };
        match result {
            Ok((answer, token)) => {
                connection.has_answered();
                self.shared.endpoints.succeeded(member);
                Ok((
                    answer,
                    Route {
                        member,
                        connection,
                        token,
                    },
                ))
            }
            Err(mut fault) => {
                // A connection that broke before it opened has sent nothing. One that is still waited for may open yet.
                let is_lost = matches!(fault.cause, Cause::Broken | Cause::NotSent)
                    && fault.error.kind() == ErrorKind::Unavailable;
                let never_opened = is_lost && unopened.is_some_and(|mark| connection.link.is_unopened(mark));
                let why = never_opened.then(|| connection.link.why()).flatten();
                let was_broken = fault.cause == Cause::Broken;
                if never_opened {
                    fault.cause = Cause::NotSent;
                }
                if let Some(why) = &why {
                    let text = format!("cannot connect to {}: {why}", endpoint.url);
                    fault.error = crate::Error::new(ErrorKind::Unavailable, text).caused_by(fault.error);
                }
                if fault.cause.is_elsewhere_better() {
                    self.shared.endpoints.failed(member);
                }
                // A member that says why it can't has answered too.
                if !matches!(fault.cause, Cause::NotSent | Cause::Broken) {
                    connection.has_answered();
                }
                let is_tls = endpoint.url.starts_with("https");
                let ended = was_broken || fault.error.message().contains("ended before the request was sent");
                if is_lost && (ended || why.is_some()) && !connection.answered.load(Ordering::Relaxed) {
                    // With TLS 1.3 a server says so after the handshake, and its word may be lost.
                    let hint = if is_tls {
                        "does the server want a certificate of the client, or is it a plain port, without TLS?"
                    } else {
                        "is the server TLS, or something else than etcd?"
                    };
                    let text = format!("{}; {hint}", fault.error.message());
                    fault.error = crate::Error::new(ErrorKind::Unavailable, text).caused_by(fault.error);
                }
                Err(fault)
            }
        }
    }

    /// One try on one connection: authenticates first where that is needed, and again when the token is refused.
    async fn with_token<T, F, Fut>(&self, connection: &Arc<Connection>, make: &F) -> Result<(T, u64), Fault>
    where
        F: Fn(Arc<Connection>) -> Fut,
        Fut: Future<Output = Result<T, Fault>>,
    {
        let url = &connection.url;
        let has_user = self.shared.options.username.is_some();
        let mut tries = 0;
        loop {
            let mut token = connection.token.load(Ordering::Acquire);
            if has_user && token == 0 {
                token = Box::pin(self.authenticate(connection, url, 0)).await?; // boxed: rare, and large
            }
            let fault = match make(Arc::clone(connection)).await {
                Ok(answer) => return Ok((answer, token)),
                Err(fault) => fault,
            };
            if fault.cause != Cause::StaleToken || !has_user {
                return Err(fault);
            }
            if tries == TOKEN_TRIES {
                // The password was right a moment ago, so this passes: say so by a kind that is tried again.
                return Err(Fault::new(
                    Cause::Refused,
                    ErrorKind::Unavailable,
                    format!(
                        "{url} refuses the token that it has just given: {}",
                        fault.error.message()
                    ),
                ));
            }
            tries += 1;
            Box::pin(self.authenticate(connection, url, token)).await?;
        }
    }

    /// Gets a token over `connection`, unless a newer one than `refused` is there. One caller at a time authenticates.
    async fn authenticate(&self, connection: &Arc<Connection>, url: &str, refused: u64) -> Result<u64, Fault> {
        let (Some(user), Some(password)) = (&self.shared.options.username, &self.shared.options.password) else {
            return Ok(0);
        };
        let _turn = connection.authenticating.lock().await;
        let current = connection.token.load(Ordering::Acquire);
        if current != refused {
            return Ok(current);
        }
        let limit = match &self.shared.options.token_time {
            Some(ask) => ask().await.map_err(|error| Fault::of(Cause::Refused, error))?,
            None => None,
        };
        let exchange = self.ask_for_token(connection, url, user, password);
        let exchanged = match limit {
            // What needs the token is not sent, and another member may be quicker.
            Some(limit) => timeout(limit, exchange).await.unwrap_or_else(|_| {
                let text = format!(
                    "{url} did not answer authenticate in the {} ms given",
                    limit.as_millis()
                );
                Err(Fault::new(Cause::NotSent, ErrorKind::Timeout, text))
            }),
            None => exchange.await,
        };
        match exchanged {
            Ok(token) => connection.transport.set_token(Some(token)),
            Err(fault) if fault.cause == Cause::AuthOff => {
                connection.transport.set_token(None);
                if !self.shared.auth_off_told.swap(true, Ordering::Relaxed) {
                    self.shared.log.warn(format_args!(
                        "etcd at {url} has no authentication enabled; going on without the user {user:?}"
                    ));
                }
            }
            Err(fault) => return Err(fault),
        }
        connection.token.store(current + 1, Ordering::Release);
        Ok(current + 1)
    }

    async fn ask_for_token(
        &self,
        connection: &Connection,
        url: &str,
        user: &str,
        password: &str,
    ) -> Result<MetadataValue<Ascii>, Fault> {
        let request = AuthenticateRequest {
            name: user.to_owned(),
            password: password.to_owned(),
        };
        let body = request.encode_to_vec().into();
        let limit = self.shared.options.max_message_bytes;
        // Without a token: an old one would be refused before the password is looked at.
        let anonymous = connection.transport.anonymous();
        let answer = anonymous.unary(AUTHENTICATE, body, false, limit).await;
        let answer = answer.map_err(|status| judge_status(status, url))?;
        let unreadable = |why: &dyn std::fmt::Display| {
            let text = format!("the answer of {url} to authenticate cannot be read: {why}");
            Fault::new(Cause::Refused, ErrorKind::Internal, text)
        };
        let answer = AuthenticateResponse::decode(answer).map_err(|e| unreadable(&e))?;
        let mut token: MetadataValue<Ascii> = answer.token.parse().map_err(|e| unreadable(&e))?;
        token.set_sensitive(true);
        Ok(token)
    }

    /// Replaces the token of `route` because a stream was refused with it.
    pub(crate) async fn renew_token(&self, route: &Route) -> Result<(), Fault> {
        if self.shared.options.username.is_none() {
            return Err(Fault::new(
                Cause::Refused,
                ErrorKind::Unauthenticated,
                "etcd asks for a user and a password: set username and password",
            ));
        }
        let url = self.url_of(route);
        let until = Instant::now() + self.shared.options.timeout;
        let renewed = timeout_at(until, self.authenticate(&route.connection, url, route.token)).await;
        renewed.map_or_else(
            |_| {
                let text = format!("{url} did not answer authenticate in time");
                Err(Fault::new(Cause::Broken, ErrorKind::Timeout, text))
            },
            |done| done.map(|_| ()),
        )
    }

    /// A stream over `route` broke: its member is avoided for a while.
    pub(crate) fn broke(&self, route: &Route) {
        self.shared.endpoints.failed(route.member);
    }

    /// A stream over `route` has said nothing since `since`, though it was asked: its member is avoided for a while, and
    /// the connection given up unless something else came over it meanwhile.
    pub(crate) fn fell_silent(&self, route: &Route, since: Instant) {
        if !route.connection.has_answered_since(since) {
            self.shared.endpoints.member(route.member).abandon(&route.connection);
        }
        self.broke(route);
    }

    /// Ends the watch stream and the renewal of leases, and gives the connections up. Calls under way end by themselves,
    /// later ones fail with `Closed`.
    pub fn close(&self) {
        self.shared.closed.cancel();
        self.shared.endpoints.close();
    }
}
