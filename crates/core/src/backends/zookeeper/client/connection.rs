//! One connection that carries the session, from its greeting to its end.

use std::collections::VecDeque;
use std::sync::Weak;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::dial::Io;
use super::error::{ZkError, check};
use super::watches::{Heard, Once, Watches};
use super::wire::{self, Frame, Malformed, Reader, Stat, Write as _, op, xid};

/// How long a request of several readings, or of several watches, may become.
const AT_ONCE: usize = 32 * 1024;

/// How much is read from the socket at once.
const READ: usize = 32 * 1024;

/// In a removal: whatever kind the watch is of.
const ANY_WATCH: i32 = 3;

/// How much may wait to be written before no more requests are taken from their queue.
const WAITING: usize = 256 * 1024;

/// A request.
pub(super) struct Ask {
    /// A whole frame, with room for its number.
    pub(super) frame: BytesMut,
    /// Set when the answer is good.
    pub(super) watch: Option<Once>,
    /// Whether the watch is also set when there is no such node.
    pub(super) watches_nothing: bool,
    /// Gets the answer, and the newest transaction that the server had carried out.
    pub(super) reply: Option<Reply<(Reader, i64)>>,
}

/// Parts of a reading at one moment. What is asked side by side goes as one request: ten thousand names that are read anew
/// after a break are a hundred requests, and each is still read at one moment.
pub(super) struct Read {
    /// The parts, encoded, and how many they are.
    pub(super) parts: BytesMut,
    pub(super) count: usize,
    /// Gets what they came to, and the newest transaction that the server had carried out.
    pub(super) reply: Reply<(Vec<Part>, i64)>,
}

/// What one part came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Part {
    Data(Bytes, Stat),
    Children(Vec<String>),
    Failed(ZkError),
}

/// What the task is told.
pub(super) enum Order {
    Ask(Ask),
    Read(Read),
    /// A watch of a node and all below it. What is asked side by side goes as one request, before the readings.
    Watch {
        path: String,
        heard: Weak<Heard>,
        reply: Reply<()>,
    },
    /// Who watched this node and all below it has let go.
    LetGo(String),
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Broken(&'static str),
    /// The server has ended the session, or we have.
    Over(ZkError),
}

/// Times of one connection, which follow from the timeout of the session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rhythm {
    /// After so long without a word from us a ping is sent.
    ping: Duration,
    /// After so long without a word from the server it is left.
    silence: Duration,
}

impl Rhythm {
    /// The server counts the timeout from our last word. What lies between that and a break is taken from an outage that
    /// the session survives: with a ping every third of the timeout, as in ZooKeeper's own client, a third of it.
    ///
    /// A member that is frozen is left within a third of the timeout, which leaves two thirds to find another.
    pub(super) fn of(granted: Duration) -> Self {
        Self {
            ping: granted / 30,
            silence: granted / 3,
        }
    }
}

/// What the connections of a session share.
pub(super) struct Conversation<'a> {
    pub(super) orders: &'a mut mpsc::UnboundedReceiver<Order>,
    /// The newest transaction that a server told of.
    pub(super) zxid: &'a AtomicI64,
    pub(super) closing: &'a CancellationToken,
}

type Reply<T> = oneshot::Sender<Result<T, ZkError>>;

/// Who waits for an answer.
enum Waiting {
    One(Ask),
    Readers(Vec<Read>),
    Watchers(Vec<Reply<()>>),
    /// Our goodbye.
    End,
}

struct Connection<'a> {
    zxid: &'a AtomicI64,
    watches: Watches,
    /// Sent and not answered. A server answers in their order.
    asked: VecDeque<(i32, Waiting)>,
    /// Readings that go with the next request, their parts behind its head. What was asked after them may go before them,
    /// so they never show less than was asked for.
    reads: Vec<Read>,
    reads_length: usize,
    /// Watches that go with the next request: their paths, encoded.
    watching: (BytesMut, Vec<Reply<()>>),
    /// Bytes still to come of an answer that is not taken.
    passed_over: usize,
    next: i32,
    out: BytesMut,
    sent: Instant,
}

impl Conversation<'_> {
    /// Carries requests and answers until the connection breaks or the session ends. Then everything that was asked and
    /// not answered has failed, and every watch is gone.
    pub(super) async fn run(self, io: Box<dyn Io>, mut came: BytesMut, rhythm: Rhythm) -> End {
        let (mut reader, mut writer) = tokio::io::split(io);
        let mut connection = Connection {
            zxid: self.zxid,
            watches: Watches::default(),
            asked: VecDeque::new(),
            reads: Vec::new(),
            reads_length: 0,
            passed_over: 0,
            watching: (BytesMut::new(), Vec::new()),
            next: 1,
            out: BytesMut::new(),
            sent: Instant::now(),
        };
        // A session that goes on is taken by no member that knows less than it has seen. A new one may be given by a member
        // that lags behind; what is asked after this is answered when it has caught up with the leader.
        if connection.zxid.load(Ordering::Acquire) == 0 {
            connection.catch_up();
        }
        let mut heard = Instant::now();
        let (mut says_goodbye, mut is_dirty) = (false, false);
        let end = loop {
            match connection.take_in(&mut came) {
                Ok(()) => {}
                Err(end) => break end,
            }
            if came.capacity() - came.len() < READ / 8 {
                came.reserve(READ);
            }
            tokio::select! {
                read = reader.read_buf(&mut came) => match read {
                    Ok(0) | Err(_) if says_goodbye => break End::Over(ZkError::Closed),
                    Ok(0) => break End::Broken("the server closed it"),
                    Ok(_) => heard = Instant::now(),
                    Err(_) => break End::Broken("it was cut"),
                },
                written = write_some(&mut writer, &mut connection.out), if is_dirty || !connection.out.is_empty() => match written {
                    Ok(is_flushed) => is_dirty = !is_flushed,
                    Err(_) => break End::Broken("it was cut"),
                },
                order = self.orders.recv(), if connection.out.len() < WAITING && !says_goodbye => {
                    let mut order = order;
                    while let Some(taken) = order {
                        connection.order(taken);
                        order = if connection.out.len() < WAITING { self.orders.try_recv().ok() } else { None };
                    }
                    connection.ask_gathered();
                }
                () = sleep_until(connection.sent + rhythm.ping) => connection.ping(),
                () = sleep_until(heard + rhythm.silence) => break End::Broken("nothing was heard for a third of the session timeout"),
                () = self.closing.cancelled(), if !says_goodbye => {
                    says_goodbye = true;
                    connection.goodbye();
                }
            }
        };
        connection.fail_all(&end);
        // What waits was asked of a connection that is gone.
        fail_all(self.orders, &lost(&end));
        end
    }
}

/// Writes some of what waits, or flushes when nothing does; whether it flushed. Nothing is lost when it is dropped.
async fn write_some(writer: &mut (impl AsyncWrite + Unpin), out: &mut BytesMut) -> std::io::Result<bool> {
    if out.is_empty() {
        writer.flush().await?;
        return Ok(true);
    }
    match writer.write_buf(out).await? {
        0 => Err(std::io::ErrorKind::WriteZero.into()),
        _ => Ok(false),
    }
}

/// Fails what waits to be sent.
pub(super) fn fail_all(orders: &mut mpsc::UnboundedReceiver<Order>, error: &ZkError) {
    while let Ok(order) = orders.try_recv() {
        match order {
            Order::Ask(Ask { reply: Some(reply), .. }) => drop(reply.send(Err(error.clone()))),
            Order::Read(Read { reply, .. }) => drop(reply.send(Err(error.clone()))),
            Order::Watch { reply, .. } => drop(reply.send(Err(error.clone()))),
            Order::Ask(_) | Order::LetGo(_) => {}
        }
    }
}

fn lost(end: &End) -> ZkError {
    match end {
        End::Broken(why) => ZkError::ConnectionLoss(why),
        End::Over(error) => error.clone(),
    }
}

impl Connection<'_> {
    /// Hands out what has come.
    fn take_in(&mut self, came: &mut BytesMut) -> Result<(), End> {
        let malformed = |_: Malformed| End::Broken("what came is no answer of a ZooKeeper");
        loop {
            let over = self.passed_over.min(came.len());
            came.advance(over);
            self.passed_over -= over;
            let (mut frame, is_taken) = match wire::frame(came).map_err(malformed)? {
                None => return Ok(()),
                Some(Frame::Whole(frame)) => (Reader::new(frame), true),
                Some(Frame::TooLong { head, rest }) => {
                    self.passed_over = rest;
                    (Reader::new(head), false)
                }
            };
            let number = frame.int().map_err(malformed)?;
            let zxid = frame.long().map_err(malformed)?;
            let code = frame.int().map_err(malformed)?;
            match number {
                xid::EVENT => {
                    if let Some((kind, path)) = wire::event(&mut frame).map_err(malformed)? {
                        self.watches.fire(kind, &path);
                    }
                    continue;
                }
                xid::PING | xid::AUTH => continue,
                _ => {}
            }
            if zxid > 0 {
                self.zxid.store(zxid, Ordering::Release);
            }
            // Who is answered out of turn stays, and fails with the connection.
            if self.asked.front().is_none_or(|(expected, _)| *expected != number) {
                return Err(End::Broken("an answer came to what was not asked"));
            }
            let answer = match check(code) {
                Ok(()) if is_taken => Ok(frame),
                Ok(()) => Err(ZkError::AnswerTooLarge),
                Err(error) => Err(error),
            };
            match self.asked.pop_front() {
                Some((_, Waiting::One(ask))) => self.answer(ask, answer.map(|answer| (answer, zxid)))?,
                // One of them asked for too much: the others are not to pay for it.
                Some((_, Waiting::Readers(reads))) if !is_taken && reads.len() > 1 => {
                    for read in reads {
                        self.ask_reads(vec![read]);
                    }
                }
                Some((_, Waiting::Readers(reads))) => answer_reads(reads, answer, zxid),
                Some((_, Waiting::Watchers(watchers))) => answer_watchers(watchers, &answer.map(drop)),
                Some((_, Waiting::End)) | None => return Err(End::Over(ZkError::Closed)),
            }
        }
    }

    fn answer(&mut self, ask: Ask, answer: Result<(Reader, i64), ZkError>) -> Result<(), End> {
        let is_set = match &answer {
            Ok(_) => true,
            Err(ZkError::NoNode) => ask.watches_nothing,
            Err(_) => false,
        };
        if let Some(watch) = ask.watch.filter(|_| is_set) {
            self.watches.set(watch);
        }
        let over = match &answer {
            Err(error @ (ZkError::SessionExpired | ZkError::AuthFailed)) => Some(End::Over(error.clone())),
            _ => None,
        };
        if let Some(reply) = ask.reply {
            let _ = reply.send(answer); // who asked may have gone
        }
        over.map_or(Ok(()), Err)
    }

    fn order(&mut self, order: Order) {
        match order {
            // What nobody waits for any more, and was never sent, is not.
            Order::Ask(ask) if ask.reply.as_ref().is_some_and(oneshot::Sender::is_closed) => {}
            Order::Ask(ask) => self.ask(ask),
            Order::Read(read) if read.reply.is_closed() => {}
            Order::Read(read) => {
                self.reads_length += read.parts.len();
                if self.reads_length > AT_ONCE {
                    self.ask_gathered();
                    self.reads_length = read.parts.len();
                }
                self.reads.push(read);
            }
            Order::Watch { reply, .. } if reply.is_closed() => {}
            Order::Watch { path, heard, reply } => {
                if self.watching.0.len() + path.len() > AT_ONCE {
                    self.ask_gathered();
                }
                // From here on, not from its answer: an older watch of the node that is let go meanwhile must not be taken for
                // the last.
                self.watching.0.text(&path);
                self.watches.set_recursive(path, heard);
                self.watching.1.push(reply);
            }
            Order::LetGo(path) => {
                if !self.watches.is_left(&path) {
                    return;
                }
                self.ask_gathered(); // it may be one of these
                let frame = request(op::REMOVE_WATCHES, |out| {
                    out.text(&path);
                    out.int(ANY_WATCH);
                });
                self.ask(Ask {
                    frame,
                    watch: None,
                    watches_nothing: false,
                    reply: None,
                });
            }
        }
    }

    fn catch_up(&mut self) {
        self.ask(Ask {
            frame: request(op::SYNC, |out| out.text("/")),
            watch: None,
            watches_nothing: false,
            reply: None,
        });
    }

    fn ask(&mut self, mut ask: Ask) {
        // The bytes are on their way; what is kept is who waits.
        let frame = std::mem::take(&mut ask.frame);
        self.send(&frame, Waiting::One(ask));
    }

    /// Asks for all watches and readings that were gathered; a reading shows nothing that its watch could miss.
    fn ask_gathered(&mut self) {
        let (paths, watchers) = std::mem::take(&mut self.watching);
        if !watchers.is_empty() {
            let frame = request(op::SET_WATCHES2, |out| {
                out.long(self.zxid.load(Ordering::Acquire)); // of watches that fire once: there are none
                for _ in ["data", "exists", "children", "persistent"] {
                    out.int(0);
                }
                out.int(i32::try_from(watchers.len()).unwrap_or(i32::MAX));
                out.extend_from_slice(&paths);
            });
            self.send(&frame, Waiting::Watchers(watchers));
        }
        self.reads_length = 0;
        let reads = std::mem::take(&mut self.reads);
        if !reads.is_empty() {
            self.ask_reads(reads);
        }
    }

    fn ask_reads(&mut self, reads: Vec<Read>) {
        let frame = request(op::MULTI_READ, |out| {
            for read in &reads {
                out.extend_from_slice(&read.parts);
            }
            put_end(out);
        });
        self.send(&frame, Waiting::Readers(reads));
    }

    fn send(&mut self, frame: &[u8], waiting: Waiting) {
        let number = self.next;
        self.next = self.next.checked_add(1).unwrap_or(1);
        let start = self.out.len();
        self.out.extend_from_slice(frame);
        self.out[start + 4..start + 8].copy_from_slice(&number.to_be_bytes());
        self.sent = Instant::now();
        self.asked.push_back((number, waiting));
    }

    fn ping(&mut self) {
        wire::put_frame(&mut self.out, |out| {
            out.int(xid::PING);
            out.int(op::PING);
        });
        self.sent = Instant::now();
    }

    fn goodbye(&mut self) {
        self.send(&request(op::CLOSE, |_| ()), Waiting::End);
    }

    fn fail_all(&mut self, end: &End) {
        for (_, waiting) in self.asked.drain(..) {
            match waiting {
                Waiting::One(Ask { reply: Some(reply), .. }) => drop(reply.send(Err(lost(end)))),
                Waiting::Readers(reads) => answer_reads(reads, Err(lost(end)), 0),
                Waiting::Watchers(watchers) => answer_watchers(watchers, &Err(lost(end))),
                Waiting::One(_) | Waiting::End => {}
            }
        }
    }
}

fn answer_watchers(watchers: Vec<Reply<()>>, answer: &Result<(), ZkError>) {
    for reply in watchers {
        let _ = reply.send(answer.clone()); // who asked may have gone
    }
}

/// Gives each who reads its parts.
fn answer_reads(reads: Vec<Read>, answer: Result<Reader, ZkError>, zxid: i64) {
    let mut answer = answer;
    for Read { count, reply, .. } in reads {
        let parts = answer.as_mut().map_err(|error| error.clone()).and_then(|answer| {
            let parts = (0..count)
                .map(|_| next_read(answer))
                .collect::<Result<Vec<Part>, Malformed>>();
            Ok(parts?)
        });
        // Where one can't be read, nobody knows where the next begins.
        if let (Err(error), true) = (&parts, answer.is_ok()) {
            answer = Err(error.clone());
        }
        let _ = reply.send(parts.map(|parts| (parts, zxid))); // who asked may have gone
    }
}

fn next_read(answer: &mut Reader) -> Result<Part, Malformed> {
    match next_part(answer)? {
        Some(op::GET_DATA) => Ok(Part::Data(answer.bytes()?, answer.stat()?)),
        Some(op::GET_CHILDREN) => Ok(Part::Children(answer.texts()?)),
        Some(op::ERROR) => Ok(Part::Failed(check(answer.int()?).err().unwrap_or(ZkError::Malformed))),
        _ => Err(Malformed),
    }
}

/// Before each part of a request that has several.
pub(super) fn put_part(out: &mut BytesMut, op: i32) {
    out.int(op);
    out.bool(false);
    out.int(-1);
}

pub(super) fn put_end(out: &mut BytesMut) {
    out.int(-1);
    out.bool(true);
    out.int(-1);
}

/// What the next part of an answer is of; `None` after the last.
pub(super) fn next_part(answer: &mut Reader) -> Result<Option<i32>, Malformed> {
    let op = answer.int()?;
    let is_end = answer.bool()?;
    let _code = answer.int()?;
    Ok((!is_end).then_some(op))
}

/// A request, with room for its number.
pub(super) fn request(op: i32, fill: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut frame = BytesMut::new();
    wire::put_frame(&mut frame, |out| {
        out.int(0);
        out.int(op);
        fill(out);
    });
    frame
}
