//! The task behind all watches of a client: one stream to etcd, opened anew on another member when it breaks, with every
//! watch created again from where it was. As Go's `client/v3/watch.go`, but for what a lost connection means, which each
//! subscription says for itself.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::proto::{PbEvent, PbResponseHeader, PbWatchResponse};
use etcd_client::{GetOptions, WatchOptions, WatchRequestSender, WatchResponseStream};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::{EtcdClient, Repeat, Route};
use super::error::{Cause, Fault, judge, judge_reason};
use super::watch::{Batch, Change, Command, HubState, OnDisconnect, Outlet, WatchEnd, WatchRequest};
use crate::error::{Error, ErrorKind};

/// The longest pause between two tries to open the stream, before jitter.
const PAUSE_MOST: Duration = Duration::from_secs(5);
/// How often one watch may be refused for its token before that is told.
const TOKEN_TRIES: u32 = 3;

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

    /// Whether what was delivered is newer than all there is.
    fn is_ahead_of(&self, revision: i64) -> bool {
        revision + 1 < self.next_revision
    }
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
    ahead: Vec<i64>,
    leader: Option<BoxFuture<'static, Result<i64, Fault>>>,
}

/// What is to be done with the stream after a message.
enum Next {
    Go,
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
        }
    }

    pub(super) async fn run(mut self, closed: CancellationToken) {
        let _ = closed.run_until_cancelled(Box::pin(self.serve())).await;
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            self.accept(command, None);
        }
        for (_, watch) in self.watches.drain() {
            watch.outlet.end(WatchEnd::Closed);
        }
    }

    /// Until there is nothing left to watch.
    async fn serve(&mut self) {
        loop {
            while let Ok(command) = self.commands.try_recv() {
                self.accept(command, None);
            }
            if self.watches.is_empty() {
                if HubState::retire(&self.state, &self.commands) {
                    return;
                }
                continue;
            }
            match self.open().await {
                Ok(mut open) => match self.pump(&mut open).await {
                    None => {}
                    Some(Next::Broke(fault)) => {
                        self.client.broke(&open.route);
                        drop(open);
                        self.disconnected(&fault);
                    }
                    // A new stream carries the token of now.
                    Some(Next::Rollover | Next::Go) => {
                        if let Err(fault) = self.client.renew_token(&open.route).await {
                            self.disconnected(&fault);
                        }
                    }
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
            .call_until("watch", Repeat::Freely, deadline, |client| {
                let (key, options) = (key.clone(), options.clone());
                async move {
                    let mut watches = client.watch_client().max_decoding_message_size(limit);
                    watches.watch(key, Some(options)).await
                }
            })
            .await?;
        let (requests, responses) = stream.split();
        Ok(Open {
            requests,
            responses,
            route,
            wanted: ids.into_iter().map(Wanted::Create).collect(),
            unanswered: VecDeque::from([first]),
            ahead: Vec::new(),
            leader: None,
        })
    }

    /// Moves requests, answers and commands until the stream ends; `None` = nothing is left to watch.
    async fn pump(&mut self, open: &mut Open) -> Option<Next> {
        loop {
            if self.watches.is_empty() {
                return None;
            }
            // Answers first: while requests wait for room, the server may be waiting for us to read.
            tokio::select! {
                biased;
                message = open.responses.message() => {
                    let url = self.client.url_of(&open.route);
                    let next = match message {
                        Ok(Some(response)) => self.answer(response.0, open),
                        Ok(None) => Next::Broke(Fault::new(
                            Cause::Broken,
                            ErrorKind::Unavailable,
                            format!("{url} ended the watch stream"),
                        )),
                        Err(error) => Next::Broke(judge(error, url)),
                    };
                    match next {
                        Next::Go => {}
                        other => return Some(other),
                    }
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.accept(command, Some(open)),
                    None => return None,
                },
                said = asked(&mut open.leader) => {
                    open.leader = None;
                    self.compare(said.as_ref(), open);
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

    fn answer(&mut self, response: PbWatchResponse, open: &mut Open) -> Next {
        let mut id = response.watch_id;
        if response.created {
            match open.unanswered.iter().position(|sent| *sent == id) {
                Some(at) => drop(open.unanswered.remove(at)),
                // etcd 3.5 and later answer a denied creation with id -1. They answer in order.
                None => id = open.unanswered.pop_front().unwrap_or(id),
            }
        }
        let Some(watch) = self.watches.get_mut(&id) else {
            return Next::Go; // cancelled by us a moment ago
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
            return Next::Go;
        }
        let revision = response.header.as_ref().map_or(0, |h| h.revision);
        if response.created {
            self.failures = 0;
            watch.token_refusals = 0;
            if watch.is_ahead_of(revision) {
                open.ahead.push(id);
                if open.leader.is_none() {
                    open.leader = Some(ask_leader(self.client.clone(), &watch.request));
                }
            }
            return Next::Go;
        }
        if response.events.is_empty() && !response.fragment && watch.parts.is_empty() {
            // Progress: everything up to this revision has been delivered.
            watch.next_revision = watch.next_revision.max(revision + 1);
            return Next::Go;
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
            return Next::Go;
        }
        watch.parts_bytes = 0;
        let changes = std::mem::take(&mut watch.parts);
        let Some(last) = changes.last().map(|change| change.mod_revision) else {
            return Next::Go;
        };
        watch.next_revision = last + 1;
        if !watch.outlet.deliver(Batch { changes }) {
            open.wanted.push_back(Wanted::Cancel(id));
            self.finish(id, WatchEnd::Lapsed);
        }
        Next::Go
    }

    fn canceled(&mut self, id: i64, response: &PbWatchResponse, open: &Open) -> Next {
        if response.compact_revision > 0 {
            self.finish(id, WatchEnd::Compacted);
            return Next::Go;
        }
        let url = self.client.url_of(&open.route);
        let fault = judge_reason(&response.cancel_reason, url);
        match fault.cause {
            Cause::Compacted => self.finish(id, WatchEnd::Compacted),
            Cause::StaleToken => {
                if let Some(watch) = self.watches.get_mut(&id) {
                    watch.token_refusals += 1;
                    if watch.token_refusals < TOKEN_TRIES {
                        return Next::Rollover;
                    }
                }
                // The token is new and the password right, so this passes: say so by a kind that is tried again.
                let error = Error::new(
                    ErrorKind::Unavailable,
                    format!("{url} refuses its own token for a watch"),
                );
                self.finish(id, WatchEnd::Refused(error));
            }
            Cause::Member if !response.cancel_reason.is_empty() => return Next::Broke(fault),
            _ if response.cancel_reason.is_empty() => {
                let error = Error::new(
                    ErrorKind::Unavailable,
                    format!("{url} cancelled a watch without a reason"),
                );
                self.finish(id, WatchEnd::Disconnected(error));
            }
            _ => self.finish(id, WatchEnd::Refused(fault.error)),
        }
        Next::Go
    }

    /// The leader has said its revision, or that it can't be asked, which the stream will soon say too.
    fn compare(&mut self, said: Result<&i64, &Fault>, open: &mut Open) {
        let ahead = std::mem::take(&mut open.ahead);
        let Ok(revision) = said else { return };
        for id in ahead {
            if self.watches.get(&id).is_some_and(|watch| watch.is_ahead_of(*revision)) {
                open.wanted.push_back(Wanted::Cancel(id));
                let why = format!("etcd's revision went back to {revision}: its data was lost or restored");
                self.finish(id, WatchEnd::HistoryBroke(why));
            }
        }
    }

    fn finish(&mut self, id: i64, why: WatchEnd) {
        if let Some(watch) = self.watches.remove(&id) {
            watch.outlet.end(why);
        }
    }

    /// The stream is lost, or none can be opened.
    fn disconnected(&mut self, fault: &Fault) {
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

/// Reads the revision of the cluster, by a linearizable read of what this user may read for certain.
fn ask_leader(client: EtcdClient, request: &WatchRequest) -> BoxFuture<'static, Result<i64, Fault>> {
    let (key, range_end) = (request.key.clone(), request.range_end.clone());
    async move {
        let answer = client
            .call("compare revisions", Repeat::Freely, |connection| {
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
