//! The batched boundary: the calls of one tick come in by one native call, and all answers of one turn of the I/O thread
//! go out with one wake-up. Every unary call of the etcd client goes through it.
//!
//! ```text
//!  JS thread                                        I/O thread
//!  get() put() … → page: records, then bodies
//!  one submit() a tick ──── one copy ──────────►    inbox ─ one notify ─► dispatcher: a task per call
//!                                                   task done → outbox
//!  drain() ◄── one weak callback a turn ────────    … everything that was ready has run → wake once
//! ```
//!
//! A drain takes a share of what there is (`lib/common/turns.ts` says how much). While some is left nobody is woken: JavaScript
//! comes back by itself, after a turn of its event loop.
//!
//! Why so, and what it costs: `docs/decisions/0004-batched-boundary.md`. A page is a buffer that JavaScript owns and hands
//! over for the time of one call: nothing here keeps a pointer into it.

mod outbox;
mod reply;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use napi::{Error, Result, Status};
use napi_derive::napi;
use rollcall_core::etcd::{Call, EtcdClient, Fault};
use rollcall_core::sync::lock;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::events::Wake;
use crate::failure::NativeFailure;
use crate::io::Io;
use outbox::Outbox;
use reply::Reply;
pub use reply::Want;

/// Records in a page, and so calls in one `submit()`.
const RECORDS: usize = 1024;
/// Words (of 32 bits, in the machine's order) of a record of a call: its id; what it is (method, wanted form, flags);
/// its time in milliseconds, 0 for none; the host it is for, -1 for any; the length of its body.
const WORDS: usize = 5;
const HEAD: usize = RECORDS * WORDS * 4;
/// Bytes of bodies in a page of calls.
const BODY: usize = 256 * 1024;
/// Bytes of a page of answers.
const ANSWERS: usize = 512 * 1024;
/// A body of an answer above this leaves the page and is taken by itself.
const LARGE: usize = 8 * 1024;

// Flags of a call.
const READS: u32 = 1;
const POINT: u32 = 2;
const NEEDS_LEADER: u32 = 4;
/// A get of one key that may share a transaction with others.
const GROUPS: u32 = 8;
/// `cancel()` may be called for it.
const CANCELS: u32 = 16;

/// The measures that JavaScript writes and reads pages by.
#[napi(object, object_from_js = false)]
pub struct NativePageLayout {
    pub records: u32,
    pub words: u32,
    pub head_bytes: u32,
    pub body_bytes: u32,
    pub answer_bytes: u32,
}

#[allow(clippy::cast_possible_truncation)] // constants above, far below the limit
pub fn layout() -> NativePageLayout {
    NativePageLayout {
        records: RECORDS as u32,
        words: WORDS as u32,
        head_bytes: HEAD as u32,
        body_bytes: BODY as u32,
        answer_bytes: ANSWERS as u32,
    }
}

/// One call as it came.
struct Request {
    id: u32,
    method: usize,
    want: Want,
    flags: u32,
    timeout_ms: u32,
    member: i32,
    body: Bytes,
}

impl Request {
    fn new(id: u32, what: u32, timeout_ms: u32, member: i32, body: Bytes) -> Self {
        Self {
            id,
            method: (what & 0xff) as usize,
            want: Want::from_word((what >> 8) & 0xff),
            flags: what >> 16,
            timeout_ms,
            member,
            body,
        }
    }

    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    fn deadline(&self) -> Option<Instant> {
        (self.timeout_ms > 0).then(|| Instant::now() + Duration::from_millis(self.timeout_ms.into()))
    }

    fn call(self) -> Call {
        Call {
            deadline: self.deadline(),
            method: self.method,
            reads: self.has(READS),
            point: self.has(POINT),
            needs_leader: self.has(NEEDS_LEADER),
            only: usize::try_from(self.member).ok(),
            body: self.body,
        }
    }
}

/// The boundary of one client.
pub struct Pages {
    inner: Arc<PagesInner>,
}

struct PagesInner {
    client: EtcdClient,
    inbox: Mutex<Vec<Request>>,
    submitted: Notify,
    outbox: Arc<Outbox>,
    /// Calls that may be cancelled, from the moment they come in, by id; `None` before their task is made.
    running: Mutex<HashMap<u32, Option<AbortHandle>>>,
    stop: CancellationToken,
}

impl PagesInner {
    /// Answers what has come in and was not begun: the client is closed.
    fn refuse_waiting(&self) {
        for request in std::mem::take(&mut *lock(&self.inbox)) {
            self.outbox.append(request.id, Reply::failed(&NativeFailure::closed()));
        }
    }
}

impl Pages {
    pub fn start(io: &Arc<Io>, client: EtcdClient, groups: bool, wake: Wake) -> Self {
        let inner = Arc::new(PagesInner {
            client,
            inbox: Mutex::default(),
            submitted: Notify::new(),
            outbox: Arc::new(Outbox::new(wake)),
            running: Mutex::default(),
            stop: CancellationToken::new(),
        });
        io.handle().spawn(dispatch(inner.clone(), groups));
        let (outbox, stop) = (inner.outbox.clone(), inner.stop.clone());
        io.handle().spawn(async move { outbox.flush_turns(stop).await });
        Self { inner }
    }

    /// Ends the boundary: calls under way are answered as closed.
    pub fn stopper(&self) -> CancellationToken {
        self.inner.stop.clone()
    }

    pub fn submit(&self, page: &[u8], count: u32, len: u32) -> Result<()> {
        let wrong = || Error::new(Status::InvalidArg, "a page of calls does not keep to its layout");
        let (count, len) = (count as usize, len as usize);
        if count > RECORDS || len > BODY || page.len() < HEAD + len {
            return Err(wrong());
        }
        let (words, rest) = page[..count * WORDS * 4].as_chunks::<4>();
        debug_assert!(rest.is_empty());
        let bodies = Bytes::copy_from_slice(&page[HEAD..HEAD + len]);
        let mut at = 0;
        let mut requests = Vec::with_capacity(count);
        for record in words.chunks_exact(WORDS) {
            let word = |i: usize| u32::from_ne_bytes(record[i]);
            let end = at + word(4) as usize;
            if end > len {
                return Err(wrong());
            }
            let member = i32::from_ne_bytes(record[3]);
            requests.push(Request::new(word(0), word(1), word(2), member, bodies.slice(at..end)));
            at = end;
        }
        self.put(requests);
        Ok(())
    }

    pub fn submit_large(&self, id: u32, what: u32, timeout_ms: u32, member: i32, body: &[u8]) {
        let body = Bytes::copy_from_slice(body);
        self.put(vec![Request::new(id, what, timeout_ms, member, body)]);
    }

    fn put(&self, requests: Vec<Request>) {
        let inner = &self.inner;
        {
            let mut running = lock(&inner.running);
            let cancels = requests.iter().filter(|request| request.has(CANCELS));
            running.extend(cancels.map(|request| (request.id, None)));
        }
        {
            let mut inbox = lock(&inner.inbox);
            if inbox.is_empty() {
                *inbox = requests;
            } else {
                inbox.extend(requests);
            }
        }
        inner.submitted.notify_one(); // one write to an eventfd a tick, not one spawn a call
        // JavaScript refuses calls of a closed client; these were on their way. First in the inbox and then asked: who ends
        // the boundary does both the other way round, so one of the two answers them.
        if inner.stop.is_cancelled() {
            inner.refuse_waiting();
        }
    }

    pub fn cancel(&self, id: u32) {
        // Its ticket answers; one that has no task yet is missed by `start_one`.
        if let Some(Some(task)) = lock(&self.inner.running).remove(&id) {
            task.abort();
        }
    }

    pub fn drain(&self, page: &mut [u8], most: u32) -> u32 {
        self.inner.outbox.drain(page, most as usize)
    }

    pub fn take(&self, id: u32) -> Option<Vec<u8>> {
        self.inner.outbox.take(id)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.inner.stop.cancel();
    }
}

/// Starts every call that comes in, until the client is closed. Dropping the tasks answers what is under way.
async fn dispatch(inner: Arc<PagesInner>, groups: bool) {
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => break,
            () = inner.submitted.notified() => {
                // Swept here and not awaited: a wake-up of this task for every call that ends would cost as much again.
                // A task that panicked has answered by its ticket.
                while tasks.try_join_next().is_some() {}
                let requests = std::mem::take(&mut *lock(&inner.inbox));
                start(&inner, requests, groups, &mut tasks);
            }
        }
    }
    tasks.shutdown().await;
    inner.refuse_waiting();
    lock(&inner.running).clear();
}

fn start(inner: &Arc<PagesInner>, requests: Vec<Request>, groups: bool, tasks: &mut tokio::task::JoinSet<()>) {
    let mut gets: Vec<Request> = Vec::new();
    for request in requests {
        if groups && request.has(GROUPS) {
            gets.push(request);
        } else {
            start_one(inner, request, tasks);
        }
    }
    // A get that came alone stays a plain one. Those that may take equally long go together.
    gets.sort_by_key(|get| get.timeout_ms); // stable
    let size = inner.client.calls.group_size().max(1);
    while !gets.is_empty() {
        let same = gets
            .iter()
            .take_while(|get| get.timeout_ms == gets[0].timeout_ms)
            .count();
        let rest = gets.split_off(same.min(size));
        let group = std::mem::replace(&mut gets, rest);
        start_group(inner, group, tasks);
    }
}

fn start_one(inner: &Arc<PagesInner>, request: Request, tasks: &mut tokio::task::JoinSet<()>) {
    let ticket = Ticket::new(request.id, inner);
    let (id, cancels) = (request.id, request.has(CANCELS));
    if cancels && !lock(&inner.running).contains_key(&id) {
        return; // cancelled before it was begun: the ticket answers
    }
    let client = inner.client.clone();
    let task = tasks.spawn(async move {
        let want = request.want;
        match client.calls.exec(request.call()).await {
            Ok(answer) => ticket.settle(want, answer).await,
            Err(fault) => ticket.fail(&fault),
        }
    });
    if cancels {
        let taken = match lock(&inner.running).get_mut(&id) {
            Some(place) => place.replace(task),
            None => Some(task), // cancelled in this moment
        };
        if let Some(task) = taken {
            task.abort();
        }
    }
}

fn start_group(inner: &Arc<PagesInner>, group: Vec<Request>, tasks: &mut tokio::task::JoinSet<()>) {
    if group.len() == 1 {
        for alone in group {
            start_one(inner, alone, tasks);
        }
        return;
    }
    let deadline = group[0].deadline();
    let client = inner.client.clone();
    let tickets: Vec<(Ticket, Want)> = group.iter().map(|get| (Ticket::new(get.id, inner), get.want)).collect();
    tasks.spawn(async move {
        let gets = group.into_iter().map(|get| get.body).collect();
        let answers = client.calls.get_group(gets, deadline).await;
        for ((ticket, want), answer) in tickets.into_iter().zip(answers) {
            match answer {
                Ok(answer) => ticket.settle_range(want, &answer),
                Err(fault) => ticket.fail(&fault),
            }
        }
    });
}

/// The duty to answer a call. One that is dropped, because its task was aborted, panicked or shut down, answers too.
struct Ticket {
    id: u32,
    inner: Option<Arc<PagesInner>>,
}

impl Ticket {
    fn new(id: u32, inner: &Arc<PagesInner>) -> Self {
        Self {
            id,
            inner: Some(inner.clone()),
        }
    }

    fn reply(mut self, reply: Reply) {
        if let Some(inner) = self.inner.take() {
            self.forget(&inner);
            inner.outbox.append(self.id, reply);
        }
    }

    fn forget(&self, inner: &PagesInner) {
        let mut running = lock(&inner.running);
        if !running.is_empty() {
            running.remove(&self.id);
        }
    }

    async fn settle(self, want: Want, answer: Bytes) {
        let id = self.id;
        let outbox = self.inner.as_ref().map(|inner| inner.outbox.clone());
        let Some(outbox) = outbox else { return };
        let last = reply::of(want, answer, |part| outbox.append(id, part)).await;
        self.reply(last);
    }

    fn settle_range(self, want: Want, answer: &rollcall_core::etcd::RangeResponse) {
        self.reply(reply::of_one(want, answer));
    }

    fn fail(self, fault: &Fault) {
        self.reply(Reply::failed(&NativeFailure::from(fault)));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            self.forget(&inner);
            let failure = if inner.stop.is_cancelled() {
                NativeFailure::closed()
            } else {
                NativeFailure::given_up()
            };
            inner.outbox.append(self.id, Reply::failed(&failure));
        }
    }
}
