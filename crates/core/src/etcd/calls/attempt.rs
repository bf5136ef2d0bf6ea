//! One call, tried over the members of the cluster within its time.
//!
//! What Go's client does in `client/v3/retry_interceptor.go`, with two differences: writes too are tried again when
//! their author says that applying them twice is the same as once, and a member that accepts calls without answering
//! gets a part of the time only.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::caller::{Caller, Route};
use super::tries::{Time, Tried, Tries};
use crate::error::{Error, ErrorKind};
use crate::etcd::error::{Cause, Fault, judge};
use crate::etcd::transport::endpoints::Connection;
use crate::etcd::transport::listening::listening;
use crate::heard::Heard;

/// The least that one try is given.
const TRY_LEAST: Duration = Duration::from_millis(500);
/// From how long a silence on a connection is given up, when calls may take that long. A shorter one is a slow disk.
const SILENCE: Duration = Duration::from_secs(1);
/// How long a member may say nothing before others are preferred. A write waits on; one that was not sent, because the
/// member has not even said that it speaks HTTP/2, goes to another one.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often all members are gone through within one call.
const ROUNDS: u32 = 2;
/// How often the one member is asked that there is, while that takes no longer than `QUICK`: two resets in a row, as of a
/// proxy that restarts, are then over.
const ROUNDS_OF_ONE: u32 = 4;
const QUICK: Duration = Duration::from_secs(2);

impl Caller {
    /// Makes a call within the time of this caller, over as many members as that takes.
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
        let deadline = Instant::now() + self.timeout();
        self.call_until(op, deadline, make).await.map(|(answer, _)| answer)
    }

    /// The same until `deadline` for what must not be done twice: it is sent again only where it surely was not applied, and fails with
    /// [`Fault::outcome_unknown`] where that can't be said.
    pub(crate) async fn call_once<T, F, Fut>(&self, op: &'static str, deadline: Instant, make: F) -> Result<T, Fault>
    where
        F: Fn(etcd_client::Client) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        let tries = Tries {
            repeatable: false,
            ..Tries::until(deadline)
        };
        self.attempt_with(op, tries, make).await.map(|(answer, _)| answer)
    }

    /// [`call`](Self::call) until `deadline`, saying who answered.
    pub(in crate::etcd) async fn call_until<T, F, Fut>(
        &self,
        op: &'static str,
        deadline: Instant,
        make: F,
    ) -> Result<(T, Route), Fault>
    where
        F: Fn(etcd_client::Client) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.attempt_with(op, Tries::until(deadline), make).await
    }

    /// [`attempt`](Self::attempt) with the client of each connection.
    async fn attempt_with<T, F, Fut>(&self, op: &'static str, tries: Tries, make: F) -> Result<(T, Route), Fault>
    where
        F: Fn(etcd_client::Client) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.attempt(op, tries, |connection| {
            let answer = make(connection.client.clone());
            async move { answer.await.map_err(|error| judge(error, &connection.url)) }
        })
        .await
    }

    /// The one loop over members and rounds. See [`Tries`] for what stops it.
    pub(in crate::etcd) async fn attempt<T, F, Fut>(
        &self,
        op: &'static str,
        tries: Tries,
        make: F,
    ) -> Result<(T, Route), Fault>
    where
        F: Fn(Arc<Connection>) -> Fut,
        Fut: Future<Output = Result<T, Fault>>,
    {
        if self.closed().is_cancelled() {
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
            let Some(member) = self.endpoints().index_of(place) else {
                return Err(Fault::new(Cause::Refused, ErrorKind::Internal, "there is no such host"));
            };
            return self
                .try_member(op, member, Time::of_the_last(tries.deadline), &make)
                .await
                .map_err(|fault| if tries.repeatable { fault } else { fault.of_a_write() });
        }
        let mut past = Tried::default();
        let rounds = if self.endpoints().count() == 1 {
            ROUNDS_OF_ONE
        } else {
            ROUNDS
        };
        for round in 0..rounds {
            let last_round = round + 1 == rounds || (round + 1 >= ROUNDS && start.elapsed() >= QUICK);
            let order = self.endpoints().order();
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
                    patience: (self.endpoints().count() > 1 && !is_last).then(|| Instant::now() + PATIENCE),
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
                self.log().debug(format_args!("etcd {op}: {}", fault.error));
                past.add(&self.endpoints().member(member).url, fault);
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
                self.endpoints().urls(),
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
        let endpoint = self.endpoints().member(member);
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
                    self.endpoints().failed(member);
                }
                work.await
            }));
            time.give(work, &heard).await.unwrap_or_else(|| {
                // It may be the member or a connection that died in silence: the next try makes a new one either way.
                // Tries that are too short to tell, as those of renewals, tell it together. What others hear over the
                // connection says that it is alive.
                let since = heard.last().unwrap_or(start);
                let long = since.elapsed() >= SILENCE.min(self.options().timeout / 3);
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
                self.endpoints().succeeded(member);
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
                fault.error = fault.error.at(&endpoint.url);
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
                    fault.error = Error::new(ErrorKind::Unavailable, text).caused_by(fault.error);
                }
                if fault.cause.is_elsewhere_better() {
                    self.endpoints().failed(member);
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
                    fault.error = Error::new(ErrorKind::Unavailable, text).caused_by(fault.error);
                }
                Err(fault)
            }
        }
    }
}
