//! The task behind all watches of a client: one stream to etcd, opened anew on another member when it breaks, with every
//! watch created again from where it was. As Go's `client/v3/watch.go`, but for what a lost connection means, which each
//! watch says for itself, and for consumers that are slow, which hold up nobody.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow::Break;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::ahead::{Ahead, ask_leader};
use self::door::{HubCommand, HubState};
use self::entry::Watch;
use self::progress::Progress;
use self::stream::{Gone, Open, Silence, Unanswered, Wanted, asked, send};
use super::request::OnDisconnect;
use super::sink::WatchEnd;
use crate::error::{Error, ErrorKind};
use crate::etcd::calls::caller::{Caller, Route};
use crate::etcd::calls::methods::WATCH;
use crate::etcd::error::{Cause, Fault};

mod ahead;
mod answers;
mod codec;
pub(super) mod door;
pub(super) mod entry;
mod progress;
mod stream;

/// The longest pause between two tries to open the stream, before jitter.
const PAUSE_MOST: Duration = Duration::from_secs(5);
/// How often one watch may be refused for its token before that is told.
const TOKEN_TRIES: u32 = 3;
/// After how many answers all else gets a turn: the tasks that read them, commands and requests. A quarter of what waits
/// for one at most.
const ANSWERS_IN_A_ROW: u32 = 64;
/// The pause before a question that was not answered is asked again, before jitter.
const ASK_AGAIN: Duration = Duration::from_secs(1);

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
    calls: Caller,
    /// Of those who read because of a watch.
    catching_up: Arc<Semaphore>,
    commands: mpsc::UnboundedReceiver<HubCommand>,
    /// For tasks of the hub's own.
    sender: mpsc::WeakUnboundedSender<HubCommand>,
    state: Arc<Mutex<HubState>>,
    watches: HashMap<i64, Box<Watch>>,
    /// The last id that was given on a stream. Each creation gets another, so that late answers find nobody.
    last_wire: i64,
    failures: u32,
    /// Whose token has been renewed since the last stream was opened.
    renewed: Option<Route>,
}

impl Hub {
    pub(super) fn new(
        calls: Caller,
        catching_up: Arc<Semaphore>,
        commands: mpsc::UnboundedReceiver<HubCommand>,
        sender: mpsc::WeakUnboundedSender<HubCommand>,
        state: Arc<Mutex<HubState>>,
    ) -> Self {
        Self {
            calls,
            catching_up,
            commands,
            sender,
            state,
            watches: HashMap::new(),
            last_wire: 0,
            failures: 0,
            renewed: None,
        }
    }

    pub(super) async fn run(mut self, closed: CancellationToken) {
        let served = AssertUnwindSafe(closed.run_until_cancelled(Box::pin(self.serve())));
        let end = match served.catch_unwind().await {
            Ok(Some(())) => return, // it has retired
            Ok(None) => WatchEnd::Closed,
            // Nobody would ever hear of it: a watch whose task is gone just says nothing.
            Err(_) => {
                let text = "the task of all watches of this client ended by a fault of its own; a new one follows";
                WatchEnd::Disconnected(Error::new(ErrorKind::Unavailable, text))
            }
        };
        HubState::leave(&self.state);
        self.commands.close();
        // The fault may be in one of them; the others are told all the same.
        while let Ok(command) = self.commands.try_recv() {
            let _ = catch_unwind(AssertUnwindSafe(|| self.accept(command, None)));
        }
        for (_, watch) in self.watches.drain() {
            let end = end.clone();
            let _ = catch_unwind(AssertUnwindSafe(|| watch.end(end)));
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
            if self.watches.values().all(|watch| watch.is_paused) {
                match self.commands.recv().await {
                    Some(command) => self.accept(command, None),
                    None => return,
                }
                continue;
            }
            match self.open().await {
                Ok(mut open) => match self.pump(&mut open).await {
                    Stop::Idle => {}
                    Stop::Broke(fault) => {
                        self.calls.broke(&open.route);
                        drop(open);
                        self.disconnected(&fault);
                    }
                    // A new stream carries the token of now.
                    Stop::Rollover => match self.calls.renew_token(&open.route).await {
                        Ok(()) => self.renewed = Some(open.route),
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
        let pause = HubState::pause(&self.state, self.failures);
        let pause = pause.unwrap_or_else(|| most.mul_f64(0.5 + fastrand::f64() / 2.0));
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                command = self.commands.recv() => {
                    // Who watches has just read: there is somebody to connect to.
                    let done = matches!(command, None | Some(HubCommand::Create(..)));
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
        let mut ids: Vec<i64> = self.watches.keys().copied().collect();
        ids.sort_unstable();
        let mut wires = HashMap::new();
        let mut wanted = VecDeque::new();
        for id in ids {
            if let Some(watch) = self.watches.get_mut(&id) {
                watch.wire = None;
                if !watch.is_paused {
                    watch.restart();
                    self.last_wire += 1;
                    watch.wire = Some(self.last_wire);
                    wires.insert(self.last_wire, id);
                    wanted.push_back(Wanted::Create(self.last_wire));
                }
            }
        }
        let first = match wanted.pop_front() {
            Some(Wanted::Create(wire)) => Some(wire),
            _ => None,
        };
        let watch = first.and_then(|wire| self.watches.get(wires.get(&wire)?));
        let (Some(first), Some(watch)) = (first, watch) else {
            return Err(Fault::new(Cause::Refused, ErrorKind::Internal, "nothing to watch"));
        };
        let creation = codec::encode(watch.creation(first));
        let deadline = Instant::now() + self.calls.options().timeout;
        let (requests, answers, route) = self.calls.open_stream("watch", WATCH, creation, true, deadline).await?;
        let renewed = self.renewed.take();
        let has_new_token = renewed.is_some_and(|renewed| renewed.is_over_the_same_connection(&route));
        for watch in self.watches.values_mut() {
            watch.has_new_token = has_new_token;
        }
        let open = Open {
            requests,
            answers,
            route,
            wanted,
            unanswered: VecDeque::from([Unanswered::Watch(first)]),
            wires,
            ahead: Ahead::default(),
            leader: None,
            silence: Silence::new(self.calls.options().keep_alive),
            is_outdated: false,
            progress: Progress::new(HubState::progress_every(&self.state)),
        };
        self.tell_connecting(&open);
        Ok(open)
    }

    /// Moves requests, answers and commands until the stream ends.
    async fn pump(&mut self, open: &mut Open) -> Stop {
        let mut answers = 0;
        loop {
            if self.watches.is_empty() {
                return Stop::Idle;
            }
            if open.is_outdated {
                return Stop::Rollover;
            }
            // Answers first: while requests wait for room, the server may be waiting for us to read. But not for ever:
            // while they are always there, what is commanded would not be done, not even the end of what brings them.
            tokio::select! {
                biased;
                answer = open.answers.message(), if answers < ANSWERS_IN_A_ROW => {
                    answers += 1;
                    open.silence.ends();
                    let url = self.calls.url_of(&open.route);
                    let next = match codec::read(answer, url) {
                        Ok(response) => self.answer(response, open),
                        Err(fault) => Break(Stop::Broke(fault)),
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
                sent = send(&open.requests, open.wanted.front(), &open.wires, &self.watches), if !open.wanted.is_empty() => {
                    match sent {
                        Ok(sent) => {
                            open.wanted.pop_front();
                            let was_idle = open.unanswered.is_empty();
                            open.unanswered.extend(sent);
                            if was_idle {
                                self.tell_connecting(open);
                            }
                        }
                        // The stream is going; its answers say why.
                        Err(Gone) => open.wanted.clear(),
                    }
                }
                () = tokio::time::sleep_until(open.progress.due()), if !open.wires.is_empty() => self.ask_progress(open),
                sure = asked(&mut open.progress.question) => open.progress.answered(sure),
                // With no watch on it nobody is kept waiting by a stream that has died.
                () = tokio::time::sleep_until(open.silence.due()), if !open.wires.is_empty() => {
                    if open.silence.is_over() {
                        let url = self.calls.url_of(&open.route);
                        let lasted = open.silence.lasted().as_millis();
                        let text = format!("{url} said nothing on the watch stream for {lasted} ms, though it was asked to");
                        return Stop::Broke(Fault::new(Cause::Broken, ErrorKind::Timeout, text));
                    }
                    open.nudge();
                }
                // All else was served, and other tasks too.
                () = tokio::task::yield_now(), if answers >= ANSWERS_IN_A_ROW => answers = 0,
            }
        }
    }

    /// Asks how far the stream is, or at first whether this member's answers can be trusted.
    fn ask_progress(&self, open: &mut Open) {
        let watch = open.wires.values().find_map(|id| self.watches.get(id));
        if let (true, Some(watch)) = (open.progress.begin(), watch) {
            let question = progress::is_held_back(self.calls.clone(), open.route.clone(), &watch.request);
            let limit = self.calls.options().timeout;
            open.progress.question = Some(async move { tokio::time::timeout(limit, question).await.ok()? }.boxed());
        } else if open.progress.is_sure() {
            open.wanted.push_back(Wanted::Progress);
        }
    }

    fn take_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            self.accept(command, None);
        }
    }

    fn accept(&mut self, command: HubCommand, open: Option<&mut Open>) {
        match command {
            HubCommand::Create(id, watch) => {
                self.watches.insert(id, watch);
                self.create(id, open);
            }
            HubCommand::Cancel(id) => {
                if let Some(watch) = self.watches.remove(&id)
                    && let (Some(wire), Some(open)) = (watch.wire, open)
                {
                    open.cancel(wire);
                }
            }
            HubCommand::Resume(id) => {
                if let Some(watch) = self.watches.get_mut(&id)
                    && std::mem::replace(&mut watch.is_paused, false)
                {
                    self.create(id, open);
                }
            }
            HubCommand::Rewind(id, revision) => {
                if let Some(watch) = self.watches.get_mut(&id) {
                    watch.rewind = Some(revision);
                }
            }
            HubCommand::Settled(id) => {
                if let Some(watch) = self.watches.get_mut(&id) {
                    watch.settled();
                }
            }
            HubCommand::Denied(id, wire, error) => {
                // One that was created again since has another answer to wait for.
                if self.watches.get(&id).is_some_and(|watch| watch.wire == Some(wire)) {
                    self.finish(id, WatchEnd::Refused(error));
                }
            }
            HubCommand::Permitted(id, wire) => {
                if let (Some(open), Some(watch)) = (open, self.watches.get_mut(&id))
                    && watch.wire == Some(wire)
                {
                    watch.token_refusals += 1;
                    open.is_outdated = true;
                }
            }
        }
    }

    /// Asks for a watch on the open stream; one that is opened later carries it anyway.
    fn create(&mut self, id: i64, open: Option<&mut Open>) {
        if let (Some(open), Some(watch)) = (open, self.watches.get_mut(&id)) {
            watch.restart();
            self.last_wire += 1;
            watch.wire = Some(self.last_wire);
            open.wires.insert(self.last_wire, id);
            open.wanted.push_back(Wanted::Create(self.last_wire));
        }
    }

    /// Tells the watch whose creation is answered next that it is being created.
    fn tell_connecting(&mut self, open: &Open) {
        let id = open.next_unanswered().and_then(|wire| open.wires.get(&wire));
        if let Some(watch) = id.and_then(|id| self.watches.get_mut(id)) {
            watch.tell_connecting();
        }
    }

    /// Asks the leader about those who are ahead, unless a question is under way: then its answer leads here again.
    fn ask(&self, open: &mut Open, pause: Duration) {
        let first = open.ahead.ask(|id| Some(self.watches.get(&id)?.next_revision));
        if let Some(first) = first.and_then(|id| self.watches.get(&id)) {
            open.leader = Some(ask_leader(self.calls.clone(), &first.request, pause));
        }
    }

    /// The leader has said its revision, or could not be asked.
    fn compare(&mut self, said: Result<i64, Fault>, open: &mut Open) {
        let mut pause = Duration::ZERO;
        match said {
            Ok(revision) => {
                for id in open.ahead.answered(revision) {
                    let Some(watch) = self.watches.get(&id) else {
                        continue;
                    };
                    if let Some(wire) = watch.wire {
                        open.cancel(wire);
                    }
                    let why = format!("etcd's revision went back to {revision}: its data was lost or restored");
                    self.finish(id, WatchEnd::HistoryBroke(why));
                }
            }
            Err(fault) => {
                self.calls.log().debug(format_args!("etcd watch: {}", fault.error));
                open.ahead.unanswered();
                pause = ASK_AGAIN.mul_f64(0.5 + fastrand::f64() / 2.0);
            }
        }
        self.ask(open, pause);
    }

    fn finish(&mut self, id: i64, why: WatchEnd) {
        if let Some(watch) = self.watches.remove(&id) {
            watch.end(why);
        }
    }

    /// The stream is lost, or none can be opened.
    fn disconnected(&mut self, fault: &Fault) {
        // Whoever has asked meanwhile has to know now too, and not after the next try, which may take long.
        self.take_commands();
        self.failures = self.failures.saturating_add(1);
        self.calls.log().debug(format_args!("etcd watch: {}", fault.error));
        let mut ids: Vec<i64> = self.watches.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(watch) = self.watches.get_mut(&id) else {
                continue;
            };
            if watch.request.on_disconnect == OnDisconnect::End {
                self.finish(id, WatchEnd::Disconnected(fault.error.clone()));
            } else if !watch.tell_disconnected(fault) {
                self.finish(id, WatchEnd::Refused(fault.error.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
