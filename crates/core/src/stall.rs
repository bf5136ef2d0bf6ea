//! The stall guard's clock: for how long has the user's thread not ticked?
//!
//! A tick is the answer to a ping. A stall is counted in the pinger's own beats, not by the clock: when the whole
//! process was suspended or stopped, pinger and pinged both stood still, and no beat was missed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

/// The thread that is asked for signs of life.
pub trait Pulse: Send + Sync + 'static {
    /// Asks the thread to answer with `beat`. Must not block, and may be dropped on the floor when the thread is gone.
    fn ping(&self, beat: u64);
    /// The highest beat answered so far.
    fn answered(&self) -> u64;
}

/// Pings a thread for as long as anybody wants to know, and says how long it has been silent.
pub struct StallMonitor {
    pulse: Arc<dyn Pulse>,
    beat: Duration,
    silence: Mutex<Option<watch::Sender<Duration>>>,
}

impl StallMonitor {
    /// Watches `pulse` in beats of a tenth of `timeout`, at least 50 ms and at most 1 s.
    pub fn new(pulse: Arc<dyn Pulse>, timeout: Duration) -> Self {
        Self {
            pulse,
            beat: (timeout / 10).clamp(Duration::from_millis(50), Duration::from_secs(1)),
            silence: Mutex::new(None),
        }
    }

    /// How long the thread has been silent, in whole beats; zero again as soon as it answers. Pinging goes on while
    /// there is a receiver.
    pub fn subscribe(&self) -> watch::Receiver<Duration> {
        let mut silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*silence
            && !sender.is_closed()
        {
            return sender.subscribe();
        }
        let (sender, receiver) = watch::channel(Duration::ZERO);
        tokio::spawn(beat(self.pulse.clone(), self.beat, sender.clone()));
        *silence = Some(sender);
        receiver
    }
}

async fn beat(pulse: Arc<dyn Pulse>, beat: Duration, silence: watch::Sender<Duration>) {
    let mut asked = pulse.answered() + 1;
    let mut missed: u32 = 0;
    pulse.ping(asked);
    loop {
        tokio::select! {
            () = silence.closed() => return,
            () = sleep(beat) => {}
        }
        if pulse.answered() >= asked {
            missed = 0;
            asked += 1;
        } else {
            missed = missed.saturating_add(1);
        }
        // An unanswered ping is repeated: the first may have fallen on the floor while the thread was starting.
        pulse.ping(asked);
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
        answered: AtomicU64,
        blocked: AtomicBool,
    }

    impl Pulse for Thread {
        fn ping(&self, beat: u64) {
            if !self.blocked.load(Ordering::SeqCst) {
                self.answered.store(beat, Ordering::SeqCst);
            }
        }
        fn answered(&self) -> u64 {
            self.answered.load(Ordering::SeqCst)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_grows_while_the_thread_is_blocked_and_ends_with_its_answer() {
        let thread = Arc::new(Thread::default());
        let monitor = StallMonitor::new(thread.clone(), Duration::from_secs(30));
        let mut silence = monitor.subscribe();
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
        let monitor = StallMonitor::new(thread.clone(), Duration::from_secs(30));
        let silence = monitor.subscribe();
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
        let monitor = StallMonitor::new(thread.clone(), Duration::from_secs(1));
        drop(monitor.subscribe());
        sleep(Duration::from_secs(5)).await;
        let before = thread.answered();
        sleep(Duration::from_secs(5)).await;
        assert_eq!(thread.answered(), before, "nobody wants to know");
        let _silence = monitor.subscribe();
        sleep(Duration::from_secs(5)).await;
        assert!(thread.answered() > before);
    }
}
