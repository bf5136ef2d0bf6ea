//! The stall guard's clock: for how long has the user's thread not ticked?
//!
//! A tick is the answer to a ping. A stall is counted in the pinger's own beats, not by the clock: when the whole
//! process was suspended or stopped, pinger and pinged both stood still, and no beat was missed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::sync::lock;

/// The thread that is asked for signs of life.
pub trait Pulse: Send + Sync + 'static {
    /// Asks the thread for an answer, and gives the number of this question, higher than any before. Must not block; the
    /// question may be dropped on the floor when the thread is gone.
    fn ping(&self) -> u64;
    /// The highest question answered so far; an answer answers all before it.
    fn answered(&self) -> u64;
}

/// Pings a thread for as long as anybody wants to know, and says how long it has been silent.
pub struct StallMonitor {
    pulse: Arc<dyn Pulse>,
    /// One pinger for each beat in use: as a rule one, since limits are as a rule those of the client.
    pingers: Mutex<Vec<(Duration, watch::Sender<Duration>)>>,
}

impl StallMonitor {
    /// Watches `pulse`.
    pub fn new(pulse: Arc<dyn Pulse>) -> Self {
        Self {
            pulse,
            pingers: Mutex::default(),
        }
    }

    /// A limit for its silence.
    pub fn limit(&self, limit: Duration) -> Stall {
        Stall::new(self.subscribe(limit), limit)
    }

    /// How long the thread has been silent, in whole beats; zero again as soon as it answers. A beat is a tenth of
    /// `limit`, the silence that the caller looks for, at least 50 ms and at most 1 s. Pinging goes on while there is a
    /// receiver.
    pub fn subscribe(&self, limit: Duration) -> watch::Receiver<Duration> {
        let length = (limit / 10).clamp(Duration::from_millis(50), Duration::from_secs(1));
        let mut pingers = lock(&self.pingers);
        pingers.retain(|(_, silence)| !silence.is_closed());
        if let Some((_, silence)) = pingers.iter().find(|(beat, _)| *beat == length) {
            return silence.subscribe();
        }
        let (silence, receiver) = watch::channel(Duration::ZERO);
        tokio::spawn(beat(self.pulse.clone(), length, silence.clone()));
        pingers.push((length, silence));
        receiver
    }
}

/// A limit for the silence of a thread.
#[derive(Debug, Clone)]
pub struct Stall {
    silence: watch::Receiver<Duration>,
    limit: Duration,
}

impl Stall {
    /// `silence` is that of [`StallMonitor::subscribe`] with the same limit.
    pub fn new(silence: watch::Receiver<Duration>, limit: Duration) -> Self {
        Self { silence, limit }
    }

    /// How much silence is a stall.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Resolves when the thread has been silent for the limit, with how long. Never when nobody pings it any more: then
    /// nobody can say that it does not tick. Cancel-safe.
    pub async fn reached(&self) -> Duration {
        let mut silence = self.silence.clone();
        let reached = silence
            .wait_for(|silence| *silence >= self.limit)
            .await
            .map(|silence| *silence);
        match reached {
            Ok(silence) => silence,
            Err(_) => std::future::pending().await,
        }
    }

    /// Resolves when the thread ticks, or nobody pings it any more. Cancel-safe.
    pub async fn is_over(&self) {
        let _ = self.silence.clone().wait_for(Duration::is_zero).await;
    }
}

/// Resolves when a thread stalls that has a limit.
pub(crate) async fn stalled(stall: Option<&Stall>) -> Duration {
    match stall {
        Some(stall) => stall.reached().await,
        None => std::future::pending().await,
    }
}

/// Several pingers may ask one thread: what each goes by is whether anything was answered since it asked.
async fn beat(pulse: Arc<dyn Pulse>, beat: Duration, silence: watch::Sender<Duration>) {
    let mut missed: u32 = 0;
    let mut asked = pulse.ping();
    loop {
        tokio::select! {
            () = silence.closed() => return,
            () = sleep(beat) => {}
        }
        missed = if pulse.answered() >= asked {
            0
        } else {
            missed.saturating_add(1)
        };
        // An unanswered ping is repeated: the first may have fallen on the floor while the thread was starting. The
        // answer to either will do.
        let again = pulse.ping();
        if missed == 0 {
            asked = again;
        }
        silence.send_if_modified(|now| {
            let new = beat.saturating_mul(missed);
            std::mem::replace(now, new) != new
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    #[derive(Default)]
    struct Thread {
        asked: AtomicU64,
        answered: AtomicU64,
        blocked: AtomicBool,
    }

    impl Pulse for Thread {
        fn ping(&self) -> u64 {
            let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            if !self.blocked.load(Ordering::SeqCst) {
                self.answered.store(asked, Ordering::SeqCst);
            }
            asked
        }
        fn answered(&self) -> u64 {
            self.answered.load(Ordering::SeqCst)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_grows_while_the_thread_is_blocked_and_ends_with_its_answer() {
        let thread = Arc::new(Thread::default());
        let monitor = StallMonitor::new(thread.clone());
        let mut silence = monitor.subscribe(Duration::from_secs(30));
        sleep(Duration::from_secs(10)).await;
        assert_eq!(*silence.borrow_and_update(), Duration::ZERO);
        thread.blocked.store(true, Ordering::SeqCst);
        sleep(Duration::from_secs(31)).await;
        assert!(*silence.borrow_and_update() >= Duration::from_secs(29));
        thread.blocked.store(false, Ordering::SeqCst);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(*silence.borrow_and_update(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn one_long_beat_is_no_stall() {
        let thread = Arc::new(Thread::default());
        let monitor = StallMonitor::new(thread.clone());
        let silence = monitor.subscribe(Duration::from_secs(30));
        thread.blocked.store(true, Ordering::SeqCst);
        // What a process that was stopped for an hour sees: one jump of the clock, in which no beat fell.
        tokio::time::advance(Duration::from_secs(3600)).await;
        thread.blocked.store(false, Ordering::SeqCst);
        sleep(Duration::from_secs(2)).await;
        assert!(*silence.borrow() <= Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn pinging_starts_again_after_everyone_had_left() {
        let thread = Arc::new(Thread::default());
        let monitor = StallMonitor::new(thread.clone());
        drop(monitor.subscribe(Duration::from_secs(30)));
        sleep(Duration::from_secs(5)).await;
        let before = thread.answered();
        sleep(Duration::from_secs(5)).await;
        assert_eq!(thread.answered(), before, "nobody wants to know");
        let _silence = monitor.subscribe(Duration::from_secs(30));
        sleep(Duration::from_secs(5)).await;
        assert!(thread.answered() > before);
    }

    #[tokio::test(start_paused = true)]
    async fn each_limit_has_a_beat_that_fits_it() {
        let thread = Arc::new(Thread::default());
        let monitor = StallMonitor::new(thread.clone());
        let (long, short) = (
            monitor.subscribe(Duration::from_secs(30)),
            monitor.subscribe(Duration::from_millis(200)),
        );
        sleep(Duration::from_secs(2)).await;
        thread.blocked.store(true, Ordering::SeqCst);
        sleep(Duration::from_millis(300)).await;
        assert!(*short.borrow() >= Duration::from_millis(200));
        assert_eq!(*long.borrow(), Duration::ZERO);
        thread.blocked.store(false, Ordering::SeqCst);
        sleep(Duration::from_millis(100)).await;
        assert_eq!(*short.borrow(), Duration::ZERO);
    }
}
