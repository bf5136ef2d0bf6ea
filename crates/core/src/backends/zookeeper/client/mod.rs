//! A client of ZooKeeper: one session, kept through any number of connections.
//!
//! It is made of three things, one upon the other: [`wire`] knows the records, [`connection`] carries requests, answers
//! and events over one connection, and the task here keeps the session by finding the next connection when one breaks.
//! All of it runs on the runtime that it is made on, and the TLS is that of the other backends.
//!
//! What it promises to those above:
//!
//! - A request is sent once or not at all. One that is asked without a connection fails at once, with
//!   [`ZkError::NoConnection`], and when a connection breaks, all that was asked on it and not answered fails with
//!   [`ZkError::ConnectionLoss`]: it may have been carried out, and is never sent again. So nothing overtakes anything, but for what overtakes a reading: that then shows it.
//! - A watch ends with its connection (see [`watches`]).
//! - The session is asked for again, member by member, until a server says that it is over, or for as long as its timeout: a
//!   registry that was restored from nothing knows fewer transactions than we do, and never takes us. The pauses do not
//!   grow: a session lives for seconds, and what is late is lost.

mod connection;
mod dial;
mod error;
mod sasl;
mod watches;
mod wire;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

pub(super) use self::connection::Part;
use self::connection::{Ask, Conversation, End, Order, Read, Rhythm, fail_all, next_part, put_end, put_part, request};
use self::dial::{Identity, Opened, Pace, Resume};
pub(super) use self::dial::{Members, Proof};
pub(super) use self::error::ZkError;
use self::error::check;
pub(super) use self::watches::Broken;
use self::watches::{Heard, Of, Once};
pub(super) use self::wire::{Acl, Stat};
use self::wire::{Reader, Write as _, op};

/// The longest request: a server with the usual `jute.maxbuffer` breaks the connection over a longer one.
const LONGEST_REQUEST: usize = 0xf_ffff;
/// How long the server's answer to our goodbye is waited for.
const GOODBYE: Duration = Duration::from_secs(1);

/// How a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    Up,
    /// No connection since then.
    Down(Instant),
    /// It will never come back.
    Over(ZkError),
}

/// A session. Its last clone that is dropped ends it.
pub(super) struct Client {
    orders: mpsc::UnboundedSender<Order>,
    state: watch::Receiver<State>,
    closing: CancellationToken,
    chroot: Arc<str>,
    id: i64,
    granted: Duration,
    hosts: Arc<[String]>,
    /// Which of them it is connected to, or was last.
    at: Arc<AtomicUsize>,
    /// The newest transaction that a server told of.
    zxid: Arc<AtomicI64>,
}

/// How a node is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Persistent,
    Ephemeral,
    /// Its name ends in ten digits that the server adds: how many nodes were made in its parent before, whatever became of them.
    Numbered,
}

/// A part of a transaction.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change<'a> {
    Create {
        path: &'a str,
        data: &'a [u8],
        mode: Mode,
        acls: &'a [Acl],
    },
    Delete {
        path: &'a str,
        version: i32,
    },
    /// -1: whatever its version.
    SetData {
        path: &'a str,
        data: &'a [u8],
        version: i32,
    },
    /// Changes nothing, and fails unless the node is there and of this version; -1: whatever it is.
    Check {
        path: &'a str,
        version: i32,
    },
}

/// What a transaction has come to.
#[derive(Debug)]
pub(super) struct Changed {
    /// What is known of each node that was made or written, in order.
    pub(super) stats: Vec<Stat>,
    /// Its number.
    pub(super) zxid: i64,
}

/// What is read of a node.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked<'a> {
    Data(&'a str),
    Children(&'a str),
}

/// Fires once, or ends with the connection. Either is a reason to look again.
pub(super) struct OneShot(oneshot::Receiver<()>);

impl OneShot {
    /// The same as `fired`, for who may wait again.
    pub(super) async fn wait(&mut self) -> Result<(), Broken> {
        (&mut self.0).await.map_err(|_| Broken)
    }

    /// `Err` when the connection, and with it the watch, is gone.
    pub(super) async fn fired(self) -> Result<(), Broken> {
        self.0.await.map_err(|_| Broken)
    }
}

/// A watch of a node and all below it, until it is dropped or its connection breaks.
pub(super) struct Recursive {
    heard: Arc<Heard>,
    path: String,
    chroot: Arc<str>,
    orders: mpsc::UnboundedSender<Order>,
}

impl Recursive {
    /// The nodes that have changed, been made or been deleted, awaited; each once.
    pub(super) async fn changed(&self) -> Result<HashSet<String>, Broken> {
        self.heard.wait().await.map(|paths| self.below_chroot(paths))
    }

    /// Those that are known to have by now.
    pub(super) fn waiting(&self) -> Result<HashSet<String>, Broken> {
        self.heard.take().map(|paths| self.below_chroot(paths))
    }

    fn below_chroot(&self, paths: HashSet<String>) -> HashSet<String> {
        if self.chroot.is_empty() {
            return paths;
        }
        let strip = |path: String| match path.strip_prefix(&*self.chroot) {
            Some("") => "/".to_owned(),
            Some(below) => below.to_owned(),
            None => path,
        };
        paths.into_iter().map(strip).collect()
    }
}

impl Drop for Recursive {
    fn drop(&mut self) {
        // The task of a session that is over takes no orders, and nobody needs it to.
        let _ = self.orders.send(Order::LetGo(std::mem::take(&mut self.path)));
    }
}

impl Client {
    /// Opens a session. Each member is asked, side by side if need be, until one grants it, all have failed, or the time is
    /// over.
    pub(super) async fn connect(members: Members, chroot: &str, within: Duration) -> Result<Self, ZkError> {
        let mut place = fastrand::usize(..members.hosts.len().max(1));
        let resume = Resume {
            identity: None,
            zxid: 0,
        };
        let times = Pace {
            round: within / 2,
            longest: within,
        };
        let opening = timeout(within, members.open(resume, &mut place, times, false));
        let opened = opening
            .await
            .unwrap_or_else(|_| Err(ZkError::NoSession(format!("none within {} ms", within.as_millis()))))?;
        let (orders, taken) = mpsc::unbounded_channel();
        let (told, state) = watch::channel(State::Up);
        let closing = CancellationToken::new();
        let (id, granted) = (opened.identity.id, opened.identity.granted);
        let (hosts, at) = (members.hosts.as_slice().into(), Arc::new(AtomicUsize::new(place)));
        let zxid = Arc::new(AtomicI64::new(0));
        let known = (Arc::clone(&at), Arc::clone(&zxid));
        tokio::spawn(keep(members, known, opened, taken, told, closing.clone()));
        Ok(Self {
            orders,
            state,
            closing,
            chroot: chroot.into(),
            id,
            granted,
            hosts,
            at,
            zxid,
        })
    }

    /// The member that it is connected to, or was last.
    pub(super) fn member(&self) -> &str {
        self.hosts
            .get(self.at.load(Ordering::Relaxed))
            .map_or("", String::as_str)
    }

    /// How it is, now and later.
    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    pub(super) fn id(&self) -> i64 {
        self.id
    }

    /// The newest transaction that a server told of. Whatever was heard of transactions up to it was told before.
    pub(super) fn zxid(&self) -> i64 {
        self.zxid.load(Ordering::Acquire)
    }

    /// How long it lives without a word from us: what the server granted, whatever was asked for.
    pub(super) fn granted(&self) -> Duration {
        self.granted
    }

    /// Makes a node.
    pub(super) async fn create(&self, path: &str, data: &[u8], mode: Mode, acls: &[Acl]) -> Result<Stat, ZkError> {
        let path = self.path(path);
        let frame = request(op::CREATE2, |out| put_create(out, &path, data, mode, acls));
        let mut answer = self.ask(frame, None, false).await?;
        let _path = answer.text()?;
        Ok(answer.stat()?)
    }

    /// Deletes a node of this version.
    pub(super) async fn delete(&self, path: &str, version: i32) -> Result<(), ZkError> {
        let path = self.path(path);
        let frame = request(op::DELETE, |out| {
            out.text(&path);
            out.int(version);
        });
        self.ask(frame, None, false).await.map(drop)
    }

    /// Writes the data of a node of this version.
    pub(super) async fn set_data(&self, path: &str, data: &[u8], version: i32) -> Result<Stat, ZkError> {
        let path = self.path(path);
        let frame = request(op::SET_DATA, |out| {
            out.text(&path);
            out.bytes(data);
            out.int(version);
        });
        Ok(self.ask(frame, None, false).await?.stat()?)
    }

    /// What is known of a node; `None` if there is none.
    pub(super) async fn stat(&self, path: &str) -> Result<Option<Stat>, ZkError> {
        self.look(path, None).await
    }

    /// The same, and tells when the node is made, written or deleted.
    pub(super) async fn watch_stat(&self, path: &str) -> Result<(Option<Stat>, OneShot), ZkError> {
        let (sender, receiver) = oneshot::channel();
        let stat = self.look(path, Some(sender)).await?;
        Ok((stat, OneShot(receiver)))
    }

    async fn look(&self, path: &str, sender: Option<oneshot::Sender<()>>) -> Result<Option<Stat>, ZkError> {
        match self.inspect(op::EXISTS, Of::Node, path, sender).await {
            Ok(mut answer) => Ok(Some(answer.stat()?)),
            Err(ZkError::NoNode) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn data(&self, path: &str) -> Result<(Bytes, Stat), ZkError> {
        self.read(path, None).await
    }

    /// The same, and tells when the node is written or deleted.
    pub(super) async fn watch_data(&self, path: &str) -> Result<(Bytes, Stat, OneShot), ZkError> {
        let (sender, receiver) = oneshot::channel();
        let (data, stat) = self.read(path, Some(sender)).await?;
        Ok((data, stat, OneShot(receiver)))
    }

    async fn read(&self, path: &str, sender: Option<oneshot::Sender<()>>) -> Result<(Bytes, Stat), ZkError> {
        let mut answer = self.inspect(op::GET_DATA, Of::Node, path, sender).await?;
        Ok((answer.bytes()?, answer.stat()?))
    }

    /// The names of the nodes right below one.
    pub(super) async fn children(&self, path: &str) -> Result<(Vec<String>, Stat), ZkError> {
        self.list(path, None).await
    }

    /// The same, and tells when they change or the node is deleted.
    pub(super) async fn watch_children(&self, path: &str) -> Result<(Vec<String>, Stat, OneShot), ZkError> {
        let (sender, receiver) = oneshot::channel();
        let (children, stat) = self.list(path, Some(sender)).await?;
        Ok((children, stat, OneShot(receiver)))
    }

    async fn list(&self, path: &str, sender: Option<oneshot::Sender<()>>) -> Result<(Vec<String>, Stat), ZkError> {
        let mut answer = self.inspect(op::GET_CHILDREN2, Of::Children, path, sender).await?;
        Ok((answer.texts()?, answer.stat()?))
    }

    /// Asks for one node, with a watch if there is somebody to be told.
    async fn inspect(
        &self,
        opcode: i32,
        of: Of,
        path: &str,
        sender: Option<oneshot::Sender<()>>,
    ) -> Result<Reader, ZkError> {
        let path = self.path(path);
        let frame = request(opcode, |out| {
            out.text(&path);
            out.bool(sender.is_some());
        });
        let watch = sender.map(|sender| Once { of, path, sender });
        self.ask(frame, watch, opcode == op::EXISTS).await
    }

    /// Watches a node and all that is, or will be, below it. `Unimplemented` before ZooKeeper 3.6.
    pub(super) async fn watch_all(&self, path: &str) -> Result<Recursive, ZkError> {
        let path = self.path(path);
        let heard = Arc::new(Heard::default());
        let (reply, answer) = oneshot::channel();
        let order = Order::Watch {
            path: path.clone(),
            heard: Arc::downgrade(&heard),
            reply,
        };
        // Made first: whoever stops waiting for the answer lets go of the watch, too.
        let watch = Recursive {
            heard,
            path,
            chroot: Arc::clone(&self.chroot),
            orders: self.orders.clone(),
        };
        self.order(watch.path.len(), order)?;
        answer.await.unwrap_or(Err(ZkError::Closed))?;
        Ok(watch)
    }

    /// All of it or nothing; the error is that of the first part that failed.
    pub(super) async fn change(&self, changes: &[Change<'_>]) -> Result<Changed, ZkError> {
        let frame = request(op::MULTI, |out| {
            for change in changes {
                match *change {
                    Change::Create { path, data, mode, acls } => {
                        put_part(out, op::CREATE2);
                        put_create(out, &self.path(path), data, mode, acls);
                    }
                    Change::Delete { path, version } => {
                        put_part(out, op::DELETE);
                        out.text(&self.path(path));
                        out.int(version);
                    }
                    Change::SetData { path, data, version } => {
                        put_part(out, op::SET_DATA);
                        out.text(&self.path(path));
                        out.bytes(data);
                        out.int(version);
                    }
                    Change::Check { path, version } => {
                        put_part(out, op::CHECK);
                        out.text(&self.path(path));
                        out.int(version);
                    }
                }
            }
            put_end(out);
        });
        let (mut answer, zxid) = self.ask_at(frame, None, false).await?;
        let mut stats = Vec::new();
        while let Some(part) = next_part(&mut answer)? {
            match part {
                op::CREATE2 => {
                    let _path = answer.text()?;
                    stats.push(answer.stat()?);
                }
                // Before 3.5 it was not told what was made.
                op::CREATE => drop(answer.text()?),
                op::SET_DATA => stats.push(answer.stat()?),
                op::DELETE | op::CHECK => {}
                // Those before the one that failed say 0, those after it that they were not tried.
                op::ERROR => check(answer.int()?)?,
                _ => return Err(ZkError::Malformed),
            }
        }
        // That of what it made, where it made something: the server may have gone on since.
        let zxid = stats.last().map_or(zxid, |stat| stat.mzxid);
        Ok(Changed { stats, zxid })
    }

    /// Reads some nodes at one moment; the answers are in the order of what is asked. `Unimplemented` before ZooKeeper 3.6.
    pub(super) async fn read_all(&self, asked: &[Asked<'_>]) -> Result<Vec<Part>, ZkError> {
        self.read_at(asked).await.map(|(parts, _)| parts)
    }

    /// The same, with the moment: the newest transaction that the server had carried out.
    pub(super) async fn read_at(&self, asked: &[Asked<'_>]) -> Result<(Vec<Part>, i64), ZkError> {
        let mut parts = BytesMut::new();
        for one in asked {
            let (op, path) = match *one {
                Asked::Data(path) => (op::GET_DATA, path),
                Asked::Children(path) => (op::GET_CHILDREN, path),
            };
            put_part(&mut parts, op);
            parts.text(&self.path(path));
            parts.bool(false);
        }
        let (reply, answer) = oneshot::channel();
        let read = Read {
            parts,
            count: asked.len(),
            reply,
        };
        self.order(read.parts.len(), Order::Read(read))?;
        answer.await.unwrap_or(Err(ZkError::Closed))
    }

    /// The nodes of this session below one, however deep. `Unimplemented` before ZooKeeper 3.6, which ends the connection.
    pub(super) async fn ephemerals(&self, path: &str) -> Result<Vec<String>, ZkError> {
        let above = self.path(path);
        let frame = request(op::GET_EPHEMERALS, |out| out.text(&above));
        let paths = self.ask(frame, None, false).await?.texts()?;
        let above = above.trim_end_matches('/'); // what is asked for is how a path begins, be it in the middle of a name
        let is_below = |path: &str| path.strip_prefix(above).is_some_and(|below| below.starts_with('/'));
        let below = paths.iter().filter(|path| is_below(path));
        Ok(below
            .filter_map(|path| Some(path.strip_prefix(&*self.chroot)?.to_owned()))
            .collect())
    }

    /// Ends the session, and with it everything that hangs on it; resolves when the server has been told, or can't be.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        let mut state = self.state.clone();
        let _ = state.wait_for(|state| matches!(state, State::Over(_))).await;
    }

    async fn ask(&self, frame: BytesMut, watch: Option<Once>, watches_nothing: bool) -> Result<Reader, ZkError> {
        let answer = self.ask_at(frame, watch, watches_nothing).await;
        answer.map(|(answer, _)| answer)
    }

    /// With the newest transaction that the server had carried out when it answered.
    async fn ask_at(
        &self,
        frame: BytesMut,
        watch: Option<Once>,
        watches_nothing: bool,
    ) -> Result<(Reader, i64), ZkError> {
        let (reply, answer) = oneshot::channel();
        let length = frame.len() - 4;
        let ask = Ask {
            frame,
            watch,
            watches_nothing,
            reply: Some(reply),
        };
        self.order(length, Order::Ask(ask))?;
        answer.await.unwrap_or(Err(ZkError::Closed))
    }

    fn order(&self, length: usize, order: Order) -> Result<(), ZkError> {
        if length > LONGEST_REQUEST {
            return Err(ZkError::TooLarge(length));
        }
        // Held until it is sent: what is sent while the session is up is answered or failed by its connection.
        let state = self.state.borrow();
        match &*state {
            State::Up => {}
            State::Down(_) => return Err(ZkError::NoConnection),
            State::Over(why) => return Err(why.clone()),
        }
        self.orders.send(order).map_err(|_| ZkError::Closed)
    }

    /// As the server knows it.
    fn path(&self, path: &str) -> String {
        match path {
            "/" if !self.chroot.is_empty() => self.chroot.to_string(),
            path => format!("{}{path}", self.chroot),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

fn put_create(out: &mut BytesMut, path: &str, data: &[u8], mode: Mode, acls: &[Acl]) {
    out.text(path);
    out.bytes(data);
    wire::put_acls(out, acls);
    out.int(match mode {
        Mode::Persistent => 0,
        Mode::Ephemeral => 1,
        Mode::Numbered => 2,
    });
}

/// Keeps the session until it is over.
async fn keep(
    members: Members,
    (at, zxid): (Arc<AtomicUsize>, Arc<AtomicI64>),
    first: Opened,
    mut orders: mpsc::UnboundedReceiver<Order>,
    state: watch::Sender<State>,
    closing: CancellationToken,
) {
    let mut identity = first.identity.clone();
    let mut place = at.load(Ordering::Relaxed);
    let mut opened = first;
    let over = loop {
        let rhythm = Rhythm::of(identity.granted);
        let conversation = Conversation {
            orders: &mut orders,
            zxid: &zxid,
            closing: &closing,
        };
        let end = async {
            let carried = conversation.run(opened.io, opened.came, rhythm);
            tokio::select! {
                end = carried => end,
                // A server that does not take our goodbye is left.
                () = async { closing.cancelled().await; tokio::time::sleep(GOODBYE).await } => End::Over(ZkError::Closed),
            }
        };
        if let End::Over(why) = end.await {
            break why;
        }
        state.send_replace(State::Down(Instant::now()));
        // What was asked between the end and this word of it.
        fail_all(&mut orders, &ZkError::NoConnection);
        let resumed = tokio::select! {
            () = closing.cancelled() => Err(ZkError::Closed),
            resumed = timeout(identity.granted, resume(&members, &mut place, &identity, zxid.load(Ordering::Acquire))) => {
                resumed.unwrap_or(Err(ZkError::SessionExpired))
            }
        };
        match resumed {
            Ok(again) => {
                at.store(place, Ordering::Relaxed);
                identity.clone_from(&again.identity);
                opened = again;
                state.send_replace(State::Up);
            }
            Err(why) => break why,
        }
    };
    state.send_replace(State::Over(over.clone()));
    orders.close();
    fail_all(&mut orders, &over);
}

/// Tries each member every fortieth of the timeout: after an outage that lasted until shortly before the session's end there
/// is time for one more.
async fn resume(members: &Members, place: &mut usize, identity: &Identity, zxid: i64) -> Result<Opened, ZkError> {
    let times = Pace {
        round: (identity.granted / 40).clamp(Duration::from_millis(25), Duration::from_secs(1)),
        longest: identity.granted / 3,
    };
    let resume = Resume {
        identity: Some(identity),
        zxid,
    };
    members.open(resume, place, times, true).await
}

#[cfg(test)]
mod tests;
