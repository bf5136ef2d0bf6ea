//! Whether an answer is coming.
//!
//! A call is done with its last byte, and that of a large list over a slow link comes long after its first. Whether a
//! server is dead or is telling can't be seen from the end, so what comes is noted on its way, and a call whose answer has
//! begun is given more than its share of the time. Who reads the bytes notes them; here is what follows from it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;

use tokio::time::{Instant, timeout_at};

use crate::sync::lock;

/// When something was last heard: the head of an answer, or a piece of its body.
#[derive(Debug, Default)]
pub(crate) struct Heard(Mutex<Option<Instant>>);

impl Heard {
    pub(crate) fn note(&self) {
        *lock(&self.0) = Some(Instant::now());
    }

    pub(crate) fn last(&self) -> Option<Instant> {
        *lock(&self.0)
    }
}

/// Awaits `work`, which begins now, until `until`, and longer while its answer is coming. `None` when nothing of it has come
/// for as long as the first wait was, or at `deadline`.
pub(crate) async fn while_heard<F: Future>(
    mut work: Pin<&mut F>,
    heard: &Heard,
    mut until: Instant,
    deadline: Option<Instant>,
) -> Option<F::Output> {
    let share = until.saturating_duration_since(Instant::now());
    loop {
        if let Ok(done) = timeout_at(until, work.as_mut()).await {
            return Some(done);
        }
        let next = heard.last()? + share;
        let next = deadline.map_or(next, |deadline| next.min(deadline));
        if next <= until {
            return None;
        }
        until = next;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Something comes every `each`, `pieces` times, and then nothing.
    async fn waited(pieces: u32, each: Duration, deadline: Option<Duration>) -> (bool, Duration) {
        let (heard, start) = (Heard::default(), Instant::now());
        let work = pin!(async {
            for _ in 0..pieces {
                sleep(each).await;
                heard.note();
            }
            if pieces == 5 {
                return; // all of it
            }
            pending::<()>().await;
        });
        let until = start + 3 * SECOND;
        let done = while_heard(work, &heard, until, deadline.map(|deadline| start + deadline)).await;
        (done.is_some(), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_as_long_as_something_comes() {
        assert_eq!(waited(0, SECOND, None).await, (false, 3 * SECOND));
        assert_eq!(waited(5, SECOND, None).await, (true, 5 * SECOND));
        // It stops in the middle: a share after its last piece.
        assert_eq!(waited(2, SECOND, None).await, (false, 5 * SECOND));
        // Not beyond the deadline, though it is still coming.
        assert_eq!(waited(5, 2 * SECOND, Some(7 * SECOND)).await, (false, 7 * SECOND));
        // Begun too late.
        assert_eq!(waited(5, 4 * SECOND, None).await, (false, 3 * SECOND));
    }
}
