//! Answers on their way to JavaScript.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use napi::threadsafe_function::ThreadsafeFunctionCallMode;
use rollcall_core::sync::lock;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::LARGE;
use super::reply::Reply;
use crate::events::Wake;

/// Words of the record of an answer: its id, its form, the length of its body. The body follows, padded to a whole word.
const WORDS: usize = 3;
/// In the word of the form: the body is to be taken by `take()`.
const APART: u32 = 1 << 16;
/// In the number that a drain gives: there is more.
const MORE: u32 = 1 << 31;
/// What an empty outbox keeps of its memory, in bytes.
const KEPT: usize = 1 << 20;
/// How long after the last answers JavaScript is woken once more, to see that no call is under way and let the process
/// end. Doing so after each answer would cost whoever makes one call after the other a fifth of the thread's time.
const QUIET: Duration = Duration::from_millis(10);

/// `append` may run on any thread, `drain` and `take` only on the JavaScript thread.
pub struct Outbox {
    ready: Mutex<Ready>,
    /// A wake-up is on its way, or JavaScript comes back by itself because a drain left something.
    waking: AtomicBool,
    /// There is something to flush at the end of this turn.
    turn: Notify,
    wake: Wake,
}

#[derive(Default)]
struct Ready {
    /// Records as a page takes them, from `from` on.
    packed: Vec<u8>,
    from: usize,
    /// How long each record is, and what it weighs.
    records: VecDeque<(usize, usize)>,
    /// Bodies that have no room in a page. Several of one call come in order.
    apart: HashMap<u32, VecDeque<Vec<u8>>>,
}

impl Outbox {
    pub fn new(wake: Wake) -> Self {
        Self {
            ready: Mutex::default(),
            waking: AtomicBool::new(false),
            turn: Notify::new(),
            wake,
        }
    }

    pub fn append(&self, id: u32, reply: Reply) {
        self.lock().push(id, reply); // first the record,
        if !self.waking.swap(true, Ordering::AcqRel) {
            self.turn.notify_one(); // then the flag: no wake-up can be lost
        }
    }

    /// Runs on the I/O thread. Yielding once puts this task behind everything that is ready now, so that one wake-up
    /// carries all that came with one read of the socket.
    pub async fn flush_turns(&self, stop: CancellationToken) {
        let mut stopping = false;
        let mut quiet = true;
        loop {
            tokio::select! {
                () = self.turn.notified() => {
                    tokio::task::yield_now().await;
                    quiet = false;
                }
                () = tokio::time::sleep(QUIET), if !quiet => quiet = true,
                // What was under way is answered as closed in the turns to come.
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    continue;
                }
                () = tokio::time::sleep(Duration::from_secs(1)), if stopping => return,
            }
            // An environment that is closing answers with an error: then nobody will drain, and nobody needs to.
            let _ = self.wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
        }
    }

    /// Copies what fits into `page`, records of a weight of about `most`, and says how many that are; with [`MORE`] when
    /// some are left. Then nobody is woken for them: JavaScript comes back when the event loop has had its turn.
    pub fn drain(&self, page: &mut [u8], most: usize) -> u32 {
        self.waking.store(false, Ordering::SeqCst); // first the flag, then the records
        let (count, has_more) = self.lock().move_into(page, most);
        if has_more {
            self.waking.store(true, Ordering::SeqCst);
            return count | MORE;
        }
        count
    }

    pub fn take(&self, id: u32) -> Option<Vec<u8>> {
        let mut ready = self.lock();
        let bodies = ready.apart.get_mut(&id)?;
        let body = bodies.pop_front();
        if bodies.is_empty() {
            ready.apart.remove(&id);
        }
        body
    }

    fn lock(&self) -> MutexGuard<'_, Ready> {
        lock(&self.ready)
    }
}

impl Ready {
    fn push(&mut self, id: u32, reply: Reply) {
        let weight = reply.weight();
        let (form, body) = reply.into_record();
        let is_apart = body.len() > LARGE;
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let form = if is_apart { form | APART } else { form };
        let before = self.packed.len();
        for word in [id, form, length] {
            self.packed.extend_from_slice(&word.to_ne_bytes());
        }
        if is_apart {
            self.apart.entry(id).or_default().push_back(body.into());
        } else {
            self.packed.extend_from_slice(&body);
            let padded = self.packed.len().next_multiple_of(4);
            self.packed.resize(padded, 0);
        }
        self.records.push_back((self.packed.len() - before, weight));
    }

    fn move_into(&mut self, page: &mut [u8], most: usize) -> (u32, bool) {
        let (mut count, mut weight, mut length) = (0, 0, 0);
        while let Some((more, weighs)) = self.records.front() {
            if length + more > page.len() || (count > 0 && weight + weighs > most) {
                break;
            }
            (count, weight, length) = (count + 1, weight + weighs, length + more);
            self.records.pop_front();
        }
        page[..length].copy_from_slice(&self.packed[self.from..self.from + length]);
        self.from += length;
        self.forget();
        (count, !self.records.is_empty())
    }

    /// Frees what was handed over. By halves, so that what waits is moved once for each time it was written at most.
    fn forget(&mut self) {
        if self.from * 2 < self.packed.len() {
            return;
        }
        self.packed.drain(..self.from);
        self.from = 0;
        if self.packed.capacity() > KEPT && self.packed.len() < KEPT / 2 {
            self.packed.shrink_to(KEPT);
        }
    }
}

const _: () = assert!(WORDS * 4 + LARGE < super::ANSWERS, "every record fits into a page");

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u32, body: &[u8]) -> Vec<u8> {
        let mut ready = Ready::default();
        ready.push(id, Reply::Raw(body.to_vec().into()));
        ready.packed
    }

    #[test]
    fn records_are_padded_and_come_in_order() {
        let mut ready = Ready::default();
        ready.push(7, Reply::Raw(b"abcde".to_vec().into()));
        ready.push(8, Reply::Raw(Vec::new().into()));
        let mut page = [0; 64];
        assert_eq!(ready.move_into(&mut page, 9), (2, false));
        let mut wanted = record(7, b"abcde");
        assert_eq!(wanted.len(), 12 + 8);
        wanted.extend(record(8, b""));
        assert_eq!(page[..wanted.len()], wanted);
        assert!(ready.packed.is_empty());
    }

    #[test]
    fn what_has_no_room_waits_for_the_next_page() {
        let mut ready = Ready::default();
        for id in 0..3 {
            ready.push(id, Reply::Raw(b"abcd".to_vec().into()));
        }
        let mut page = [0; 32];
        assert_eq!(ready.move_into(&mut page, 9), (2, true));
        assert_eq!(ready.move_into(&mut page, 9), (1, false));
        assert_eq!(page[0], 2);
    }

    #[test]
    fn a_drain_is_bounded() {
        let mut ready = Ready::default();
        for id in 0..2000 {
            ready.push(id, Reply::Raw(Vec::new().into()));
        }
        let mut page = vec![0; 512 * 1024];
        assert_eq!(ready.move_into(&mut page, 1024), (1024, true));
        assert_eq!(ready.move_into(&mut page, 1024), (976, false));
    }

    #[test]
    fn what_is_handed_over_is_freed_though_others_wait() {
        let mut ready = Ready::default();
        let mut page = [0; 32];
        let push = |ready: &mut Ready| ready.push(1, Reply::Raw(b"abcd".to_vec().into()));
        (0..3).for_each(|_| push(&mut ready));
        for _ in 0..100_000 {
            push(&mut ready);
            push(&mut ready);
            assert_eq!(ready.move_into(&mut page, 9), (2, true));
        }
        assert!(ready.packed.len() < 256, "{} bytes are kept", ready.packed.len());
    }

    #[test]
    fn a_large_body_is_apart() {
        let mut ready = Ready::default();
        ready.push(1, Reply::Raw(vec![9; LARGE + 1].into()));
        let mut page = [0; 16];
        assert_eq!(ready.move_into(&mut page, 9), (1, false));
        assert_eq!(ready.apart[&1][0].len(), LARGE + 1);
    }
}
