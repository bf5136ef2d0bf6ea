//! The task behind all watches of a client: one stream to etcd, opened anew on another member when it breaks, with every
//! watch created again from where it was. As Go's `client/v3/watch.go`, but for what a lost connection means, which each
//! subscription says for itself.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::proto::{PbEvent, PbResponseHeader, PbWatchResponse};
use etcd_client::{GetOptions, WatchOptions, WatchRequestSender, WatchResponseStream};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::{EtcdClient, Route};
use super::endpoints::Connection;
use super::error::{Cause, Fault, judge, judge_reason};
use super::watch::{Batch, Change, Command, HubState, OnDisconnect, Outlet, WatchEnd, WatchRequest};
use crate::error::{Error, ErrorKind};

/// The longest pause between two tries to open the stream, before jitter.
const PAUSE_MOST: Duration = Duration::from_secs(5);
/// How often one watch may be refused for its token before that is told.
const TOKEN_TRIES: u32 = 3;
/// After how many answers the tasks that read them get a turn. A quarter of what waits for one at most.
const ANSWERS_IN_A_ROW: u32 = 64;
/// The pause before a question that was not answered is asked again, before jitter.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// One watch as the hub keeps it.
pub(super) struct Watch {
    request: WatchRequest,
    /// The first revision not yet delivered.
    next_revision: i64,
    outlet: Outlet,
    /// Changes of a response that came in parts so far, and their size.
    parts: Vec<Change>,
    parts_bytes: usize,
    token_refusals: u32,
    /// Whether the stream that it is being created on carries a token that was got after it was asked for.
    has_new_token: bool,
}

impl Watch {
    pub(super) fn new(request: WatchRequest, outlet: Outlet) -> Self {
        Self {
            next_revision: request.from_revision,
            request,
            outlet,
            parts: Vec::new(),
            parts_bytes: 0,
            token_refusals: 0,
            has_new_token: false,
        }
    }

    fn options(&self, id: i64) -> WatchOptions {
        let options = WatchOptions::new()
            .with_watch_id(id)
            .with_start_revision(self.next_revision)
            // Revisions that pass without events are told every ten minutes, so that a quiet watch that resumes does
            // not ask for a revision compacted long ago.
            .with_progress_notify()
            // Without it one large transaction would exceed the decode limit and end the stream, again and again.
            .with_fragment();
        if self.request.range_end.is_empty() {
            options
        } else {
            options.with_range(self.request.range_end.clone())
        }
    }

    fn is_of_another_cluster(&self, header: &PbResponseHeader) -> bool {
        self.request.cluster != 0 && header.cluster_id != 0 && self.request.cluster != header.cluster_id
    }
}

/// Whether who waits for `next_revision` has seen more than all there is at `revision`.
fn is_ahead(next_revision: i64, revision: i64) -> bool {
    revision + 1 < next_revision
}

enum Wanted {
    Create(i64),
    Cancel(i64),
}

struct Open {
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    route: Route,
    /// Requests that wait for room: the stream takes a hundred at a time, and its answers must be read meanwhile.
    wanted: VecDeque<Wanted>,
    /// Creations sent and not answered, in order. Some servers answer a denied one with id -1.
    unanswered: VecDeque<i64>,
    /// Watches that are ahead of the member that took them. It may lag behind the cluster, or the cluster may have lost
    /// its data: the leader is asked.
    ahead: Ahead,
    leader: Option<BoxFuture<'static, Result<i64, Fault>>>,
}

/// Watches that are ahead, and whom the question under way is about.
#[derive(Default)]
struct Ahead {
    /// For whom the next question will be.
    waiting: Vec<i64>,
    /// For whom the last one is, each with its next revision at that time: an answer says nothing about what came after.
    asked: Vec<(i64, i64)>,
}

impl Ahead {
    /// Asks for all who wait and are still there, unless a question is under way. Returns whose range is to be read.
    fn ask(&mut self, next_revision: impl Fn(i64) -> Option<i64>) -> Option<i64> {
        if !self.asked.is_empty() {
            return None;
        }
        let waiting = self.waiting.drain(..);
        self.asked = waiting.filter_map(|id| Some((id, next_revision(id)?))).collect();
        self.asked.first().map(|(id, _)| *id)
    }

    /// The leader has said its revision: returns who is ahead of that too.
    fn answered(&mut self, revision: i64) -> Vec<i64> {
        let asked = self.asked.drain(..);
        asked
            .filter(|(_, next_revision)| is_ahead(*next_revision, revision))
            .map(|(id, _)| id)
            .collect()
    }

    /// The leader could not be asked: all wait again, the one whose range was to be read behind the others.
    fn unanswered(&mut self) {
        let mut asked = self.asked.drain(..).map(|(id, _)| id);
        let first = asked.next();
        self.waiting.extend(asked);
        self.waiting.extend(first);
    }
}

/// Why no more is read from a stream.
enum Stop {
    /// Nothing is left to watch.
    Idle,
    /// Open it anew at once, nothing was lost: the token of this one is too old for new watches.
    Rollover,
    Broke(Fault),
}

/// The task.
pub(super) struct Hub {
    client: EtcdClient,
    commands: mpsc::UnboundedReceiver<Command>,
    state: Arc<Mutex<HubState>>,
    watches: HashMap<i64, Watch>,
    failures: u32,
    /// Whose token has been renewed since the last stream was opened.
    renewed: Option<Arc<Connection>>,
}

impl Hub {
    pub(super) fn new(
        client: EtcdClient,
        commands: mpsc::UnboundedReceiver<Command>,
        state: Arc<Mutex<HubState>>,
    ) -> Self {
        Self {
            client,
            commands,
            state,
            watches: HashMap::new(),
            failures: 0,
            renewed: None,
        }
    }

    pub(super) async fn run(mut self, closed: CancellationToken) {
        let _ = closed.run_until_cancelled(Box::pin(self.serve())).await;
        self.commands.close();
        self.take_commands();
        for (_, watch) in self.watches.drain() {
            watch.outlet.end(WatchEnd::Closed);
        }
    }

    /// Until there is nothing left to watch.
    async fn serve(&mut self) {
        loop {
            self.take_commands();
            if self.watches.is_empty() {
                if HubState::retire(&self.state, &self.commands) {
                    return;
                }
                continue;
            }
            match self.open().await {
                Ok(mut open) => match self.pump(&mut open).await {
                    Stop::Idle => {}
                    Stop::Broke(fault) => {
                        self.client.broke(&open.route);
                        drop(open);
                        self.disconnected(&fault);
                    }
                    // A new stream carries the token of now.
                    Stop::Rollover => match self.client.renew_token(&open.route).await {
                        Ok(()) => self.renewed = Some(open.route.connection),
                        Err(fault) => self.disconnected(&fault),
                    },
                },
                Err(fault) => self.disconnected(&fault),
            }
            self.pause().await;
        }
    }

    /// Waits after a failure, as long as there were failures before it. Commands go on being taken.
    async fn pause(&mut self) {
        if self.failures == 0 {
            return;
        }
        let most = Duration::from_millis(100)
            .saturating_mul(1 << self.failures.min(10))
            .min(PAUSE_MOST);
        let until = Instant::now() + most.mul_f64(0.5 + fastrand::f64() / 2.0);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                command = self.commands.recv() => {
                    // Who watches has just read: there is somebody to connect to.
                    let done = !matches!(command, Some(Command::Cancel(_)));
                    if let Some(command) = command {
                        self.accept(command, None);
                    }
                    if done || self.watches.is_empty() {
                        return;
                    }
                }
            }
        }
    }

    /// Opens a stream with one watch on it and lists the others as wanted.
    async fn open(&mut self) -> Result<Open, Fault> {
        for watch in self.watches.values_mut() {
            // Half a revision is not kept: the rest will not come, the whole will.
            watch.parts.clear();
            watch.parts_bytes = 0;
        }
        let mut ids: VecDeque<i64> = self.watches.keys().copied().collect();
        ids.make_contiguous().sort_unstable();
        let Some((first, watch)) = ids.pop_front().and_then(|id| Some((id, self.watches.get(&id)?))) else {
            return Err(Fault::new(Cause::Refused, ErrorKind::Internal, "nothing to watch"));
        };
        let (key, options) = (watch.request.key.clone(), watch.options(first));
        let limit = self.client.options().max_message_bytes;
        let deadline = Instant::now() + self.client.options().timeout;
        let (stream, route) = self
            .client
            .call_until("watch", deadline, |client| {
                let (key, options) = (key.clone(), options.clone());
                async move {
                    let mut watches = client.watch_client().max_decoding_message_size(limit);
                    watches.watch(key, Some(options)).await
                }
            })
            .await?;
        let renewed = self.renewed.take();
        let has_new_token = renewed.is_some_and(|renewed| Arc::ptr_eq(&renewed, &route.connection));
        for watch in self.watches.values_mut() {
            watch.has_new_token = has_new_token;
        }
        let (requests, responses) = stream.split();
        Ok(Open {
            requests,
            responses,
            route,
            wanted: ids.into_iter().map(Wanted::Create).collect(),
            unanswered: VecDeque::from([first]),
            ahead: Ahead::default(),
            leader: None,
        })
    }

    /// Moves requests, answers and commands until the stream ends.
    async fn pump(&mut self, open: &mut Open) -> Stop {
        let mut answers = 0;
        loop {
            if self.watches.is_empty() {
                return Stop::Idle;
            }
            if answers == ANSWERS_IN_A_ROW {
                answers = 0;
                tokio::task::yield_now().await;
            }
            // Answers first: while requests wait for room, the server may be waiting for us to read.
            tokio::select! {
                biased;
                message = open.responses.message() => {
                    answers += 1;
                    let url = self.client.url_of(&open.route);
                    let next = match message {
                        Ok(Some(response)) => self.answer(response.0, open),
                        Ok(None) => Break(Stop::Broke(Fault::new(
                            Cause::Broken,
                            ErrorKind::Unavailable,
                            format!("{url} ended the watch stream"),
                        ))),
                        Err(error) => Break(Stop::Broke(judge(error, url))),
                    };
                    if let Break(stop) = next {
                        return stop;
                    }
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.accept(command, Some(open)),
                    None => return Stop::Idle,
                },
                said = asked(&mut open.leader) => {
                    open.leader = None;
                    self.compare(said, open);
                }
                sent = send(&mut open.requests, open.wanted.front(), &self.watches), if !open.wanted.is_empty() => {
                    if sent.is_err() {
                        // The stream is going; its answers say why.
                        open.wanted.clear();
                    } else if let Some(Wanted::Create(id)) = open.wanted.pop_front() {
                        open.unanswered.push_back(id);
                    }
                }
            }
        }
    }

    fn take_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            self.accept(command, None);
        }
    }

    fn accept(&mut self, command: Command, open: Option<&mut Open>) {
        match command {
            Command::Create(id, watch) => {
                self.watches.insert(id, watch);
                if let Some(open) = open {
                    open.wanted.push_back(Wanted::Create(id));
                }
            }
            Command::Cancel(id) => {
                if self.watches.remove(&id).is_some()
                    && let Some(open) = open
                {
                    open.wanted.push_back(Wanted::Cancel(id));
                }
            }
        }
    }

    fn answer(&mut self, response: PbWatchResponse, open: &mut Open) -> ControlFlow<Stop> {
        let mut id = response.watch_id;
        if response.created {
            match open.unanswered.iter().position(|sent| *sent == id) {
                Some(at) => drop(open.unanswered.remove(at)),
                // etcd 3.5 and later answer a denied creation with id -1. They answer in order.
                None => id = open.unanswered.pop_front().unwrap_or(id),
            }
        }
        let Some(watch) = self.watches.get_mut(&id) else {
            return Continue(()); // cancelled by us a moment ago
        };
        if response.canceled {
            return self.canceled(id, &response, open);
        }
        if response
            .header
            .as_ref()
            .is_some_and(|header| watch.is_of_another_cluster(header))
        {
            open.wanted.push_back(Wanted::Cancel(id));
            let why = "etcd at this address is another cluster now".to_owned();
            self.finish(id, WatchEnd::HistoryBroke(why));
            return Continue(());
        }
        let revision = response.header.as_ref().map_or(0, |h| h.revision);
        if response.created {
            self.failures = 0;
            watch.token_refusals = 0;
            watch.has_new_token = false;
            if is_ahead(watch.next_revision, revision) {
                open.ahead.waiting.push(id);
                self.ask(open, Duration::ZERO);
            }
            return Continue(());
        }
        if response.events.is_empty() && !response.fragment && watch.parts.is_empty() {
            // Progress: everything up to this revision has been delivered.
            watch.next_revision = watch.next_revision.max(revision + 1);
            return Continue(());
        }
        for change in response.events.into_iter().filter_map(change_of) {
            watch.parts_bytes += change.key.len() + change.value.as_ref().map_or(0, Vec::len);
            // After a resumption the server may begin a revision earlier than asked for. Nothing is delivered twice.
            if change.mod_revision >= watch.next_revision {
                watch.parts.push(change);
            }
        }
        if response.fragment {
            if watch.parts_bytes > self.client.options().max_message_bytes {
                open.wanted.push_back(Wanted::Cancel(id));
                self.finish(id, WatchEnd::Lapsed);
            }
            return Continue(());
        }
        watch.parts_bytes = 0;
        let changes = std::mem::take(&mut watch.parts);
        let Some(last) = changes.last().map(|change| change.mod_revision) else {
            return Continue(());
        };
        watch.next_revision = last + 1;
        if !watch.outlet.deliver(Batch { changes }) {
            open.wanted.push_back(Wanted::Cancel(id));
            self.finish(id, WatchEnd::Lapsed);
        }
        Continue(())
    }

    fn canceled(&mut self, id: i64, response: &PbWatchResponse, open: &Open) -> ControlFlow<Stop> {
        if response.compact_revision > 0 {
            self.finish(id, WatchEnd::Compacted);
            return Continue(());
        }
        let url = self.client.url_of(&open.route);
        let fault = judge_reason(&response.cancel_reason, url);
        match fault.cause {
            Cause::Compacted => self.finish(id, WatchEnd::Compacted),
            Cause::StaleToken => {
                if let Some(watch) = self.watches.get_mut(&id) {
                    watch.token_refusals += 1;
                    if watch.token_refusals < TOKEN_TRIES {
                        return Break(Stop::Rollover);
                    }
                }
                // The token is new and the password right, so this passes: say so by a kind that is tried again.
                let error = Error::new(
                    ErrorKind::Unavailable,
                    format!("{url} refuses its own token for a watch"),
                );
                self.finish(id, WatchEnd::Refused(error));
            }
            // Servers without etcd's #14322 (of 2022) say so of a token that is too old as well.
            Cause::Refused
                if fault.error.kind() == ErrorKind::PermissionDenied && self.client.options().username.is_some() =>
            {
                if let Some(watch) = self.watches.get_mut(&id) {
                    watch.token_refusals += 1;
                    if !watch.has_new_token && watch.token_refusals < TOKEN_TRIES {
                        return Break(Stop::Rollover);
                    }
                }
                self.finish(id, WatchEnd::Refused(fault.error));
            }
            Cause::Member if !response.cancel_reason.is_empty() => return Break(Stop::Broke(fault)),
            _ if response.cancel_reason.is_empty() => {
                let error = Error::new(
                    ErrorKind::Unavailable,
                    format!("{url} cancelled a watch without a reason"),
                );
                self.finish(id, WatchEnd::Disconnected(error));
            }
            _ => self.finish(id, WatchEnd::Refused(fault.error)),
        }
        Continue(())
    }

    /// Asks the leader about those who are ahead, unless a question is under way: then its answer leads here again.
    fn ask(&self, open: &mut Open, pause: Duration) {
        let first = open.ahead.ask(|id| Some(self.watches.get(&id)?.next_revision));
        if let Some(first) = first.and_then(|id| self.watches.get(&id)) {
            open.leader = Some(ask_leader(self.client.clone(), &first.request, pause));
        }
    }

    /// The leader has said its revision, or could not be asked.
    fn compare(&mut self, said: Result<i64, Fault>, open: &mut Open) {
        let mut pause = Duration::ZERO;
        match said {
            Ok(revision) => {
                for id in open.ahead.answered(revision) {
                    if !self.watches.contains_key(&id) {
                        continue;
                    }
                    open.wanted.push_back(Wanted::Cancel(id));
                    let why = format!("etcd's revision went back to {revision}: its data was lost or restored");
                    self.finish(id, WatchEnd::HistoryBroke(why));
                }
            }
            Err(fault) => {
                self.client.log().debug(format_args!("etcd watch: {}", fault.error));
                open.ahead.unanswered();
                pause = ASK_AGAIN.mul_f64(0.5 + fastrand::f64() / 2.0);
            }
        }
        self.ask(open, pause);
    }

    fn finish(&mut self, id: i64, why: WatchEnd) {
        if let Some(watch) = self.watches.remove(&id) {
            watch.outlet.end(why);
        }
    }

    /// The stream is lost, or none can be opened.
    fn disconnected(&mut self, fault: &Fault) {
        // Whoever has asked meanwhile has to know now too, and not after the next try, which may take long.
        self.take_commands();
        self.failures = self.failures.saturating_add(1);
        self.client.log().debug(format_args!("etcd watch: {}", fault.error));
        let ends: Vec<i64> = self
            .watches
            .iter()
            .filter(|(_, watch)| watch.request.on_disconnect == OnDisconnect::End)
            .map(|(id, _)| *id)
            .collect();
        for id in ends {
            self.finish(id, WatchEnd::Disconnected(fault.error.clone()));
        }
    }
}

/// Reads the revision of the cluster after a pause, by a linearizable read of what this user may read for certain.
fn ask_leader(client: EtcdClient, request: &WatchRequest, pause: Duration) -> BoxFuture<'static, Result<i64, Fault>> {
    let (key, range_end) = (request.key.clone(), request.range_end.clone());
    async move {
        tokio::time::sleep(pause).await;
        let answer = client
            .call("compare revisions", |connection| {
                let mut options = GetOptions::new().with_limit(1).with_keys_only();
                if !range_end.is_empty() {
                    options = options.with_range(range_end.clone());
                }
                let (key, mut kv) = (key.clone(), client.kv(&connection));
                async move { kv.get(key, Some(options)).await }
            })
            .await?;
        Ok(answer.header().map_or(0, etcd_client::ResponseHeader::revision))
    }
    .boxed()
}

/// The answer to a question, if one was asked.
async fn asked<T>(question: &mut Option<BoxFuture<'static, T>>) -> T {
    match question {
        Some(question) => question.await,
        None => std::future::pending().await,
    }
}

/// Puts a request on the stream. Cancel-safe: a request that was not taken has not been sent.
async fn send(
    requests: &mut WatchRequestSender,
    wanted: Option<&Wanted>,
    watches: &HashMap<i64, Watch>,
) -> Result<(), etcd_client::Error> {
    match wanted {
        Some(Wanted::Create(id)) => match watches.get(id) {
            Some(watch) => {
                requests
                    .watch(watch.request.key.clone(), Some(watch.options(*id)))
                    .await
            }
            None => Ok(()), // dropped before it was created
        },
        Some(Wanted::Cancel(id)) => requests.cancel(*id).await,
        None => Ok(()),
    }
}

/// `None` for what is no change of a key that we know: a later etcd may tell more than puts and deletes.
fn change_of(event: PbEvent) -> Option<Change> {
    let kv = event.kv?;
    let value = match event.r#type {
        0 => Some(kv.value),
        1 => None,
        _ => return None,
    };
    Some(Change {
        key: kv.key,
        value,
        lease: kv.lease,
        mod_revision: kv.mod_revision,
    })
}

#[cfg(test)]
mod tests;
