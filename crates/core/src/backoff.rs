//! The one back-off of the crate: exponential, jittered, with a ceiling, reset by the caller.
//!
//! The jitter is "full" for the first pause and "equal" for later ones, in the words of
//! <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>: the first retry of a thousand clients
//! spreads over the whole first half second, and a later one never comes at once.

use std::time::Duration;

/// The first pause is random between zero and this.
pub const FIRST: Duration = Duration::from_millis(500);
/// No pause is longer than this.
pub const CEILING: Duration = Duration::from_secs(10);

/// A series of growing, random pauses.
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// Starts at the first pause.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next pause: the first below [`FIRST`], then between half and the whole of a bound that doubles up to
    /// [`CEILING`].
    pub fn next_pause(&mut self) -> Duration {
        let bound = FIRST.saturating_mul(1 << self.tries.min(8)).min(CEILING);
        let jitter = fastrand::f64();
        let pause = if self.tries == 0 {
            bound.mul_f64(jitter)
        } else {
            bound.mul_f64(0.5 + jitter / 2.0)
        };
        self.tries = self.tries.saturating_add(1);
        pause
    }

    /// Whether the next pause is a first one.
    pub fn is_fresh(&self) -> bool {
        self.tries == 0
    }

    /// The next pause is a first one again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pause_is_below_half_a_second_and_none_above_the_ceiling() {
        for _ in 0..1000 {
            let mut backoff = Backoff::new();
            assert!(backoff.next_pause() <= FIRST);
            for _ in 0..20 {
                let pause = backoff.next_pause();
                assert!(pause >= FIRST / 2, "a later pause is never next to nothing: {pause:?}");
                assert!(pause <= CEILING);
            }
            assert!(backoff.next_pause() >= CEILING / 2);
            backoff.reset();
            assert!(backoff.next_pause() <= FIRST);
        }
    }
}
