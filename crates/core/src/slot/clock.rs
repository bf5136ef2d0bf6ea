//! What time it is, if the clock of the machine is set meanwhile: without I/O, the clocks are handed in.
//!
//! A window in the store must not follow a clock that has jumped ahead: years of ids would be lost with it. A clock that was set
//! back does no harm, since time then goes on by the monotonic one.

use std::time::Duration;

use tokio::time::Instant;

/// By how many milliseconds the clock may move against the monotonic one between two readings.
pub(super) const SLACK_MS: i64 = 1000;

/// What a reading says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// This is the time. `step`: the clock was set, by so much, since the last reading.
    At { now: i64, step: Option<i64> },
    /// The clock has jumped ahead, by so much, and is not believed yet.
    Ahead { by: i64 },
    /// It has stood where it jumped to for so long that it may be believed: see [`Clock::believe`].
    Settled { by: i64 },
}

pub(super) struct Clock {
    /// The time at a moment: never less than the clock of the machine showed, and never going back.
    base: (i64, Instant),
    /// What the clock showed at a moment.
    shown: (i64, Instant),
    /// Since when it is ahead, and where it stood then.
    ahead: Option<(i64, Instant)>,
    /// How long it has to stand where it jumped to.
    patience: Duration,
}

fn passed(since: Instant, now: Instant) -> i64 {
    i64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(i64::MAX)
}

impl Clock {
    pub fn new(wall: i64, mono: Instant, patience: Duration) -> Self {
        Self {
            base: (wall, mono),
            shown: (wall, mono),
            ahead: None,
            patience,
        }
    }

    pub fn read(&mut self, wall: i64, mono: Instant) -> Reading {
        let expected = self.base.0 + passed(self.base.1, mono);
        let by = wall - expected;
        if by <= SLACK_MS {
            let shown = self.shown.0 + passed(self.shown.1, mono);
            let step = wall - shown;
            let now = wall.max(expected);
            self.base = (now, mono);
            self.shown = (wall, mono);
            self.ahead = None;
            return Reading::At {
                now,
                step: (step.abs() > SLACK_MS).then_some(step),
            };
        }
        let (stood, since) = *self.ahead.get_or_insert((wall, mono));
        if (wall - stood - passed(since, mono)).abs() > SLACK_MS {
            self.ahead = Some((wall, mono)); // it was set once more
        } else if mono.saturating_duration_since(since) >= self.patience {
            return Reading::Settled { by };
        }
        Reading::Ahead { by }
    }

    /// The clock is right, however far it has jumped.
    pub fn believe(&mut self, wall: i64, mono: Instant) {
        self.base = (wall, mono);
        self.shown = (wall, mono);
        self.ahead = None;
    }

    /// It is at least so late: somebody has stamped up to there.
    pub fn lift(&mut self, to: i64, mono: Instant) {
        let expected = self.base.0 + passed(self.base.1, mono);
        self.base = (expected.max(to), mono);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: i64 = 365 * 86_400_000;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn time_goes_on_by_the_monotonic_clock_when_the_other_is_set_back() {
        let start = Instant::now();
        let mut clock = Clock::new(1_000_000, start, ms(60_000));
        let at = |now, step| Reading::At { now, step };
        assert_eq!(clock.read(1_020_000, start + ms(20_000)), at(1_020_000, None));
        // An hour back: told once.
        assert_eq!(
            clock.read(1_040_000 - 3_600_000, start + ms(40_000)),
            at(1_040_000, Some(-3_600_000))
        );
        assert_eq!(
            clock.read(1_060_000 - 3_600_000, start + ms(60_000)),
            at(1_060_000, None)
        );
        assert_eq!(
            clock.read(1_080_000, start + ms(80_000)),
            at(1_080_000, Some(3_600_000)),
            "and on again"
        );
        assert_eq!(
            clock.read(1_100_500, start + ms(100_000)),
            at(1_100_500, None),
            "it may be slewed"
        );
    }

    #[test]
    fn a_jump_ahead_is_believed_when_it_has_lasted() {
        let start = Instant::now();
        let mut clock = Clock::new(0, start, ms(60_000));
        assert!(matches!(clock.read(YEAR, start + ms(10)), Reading::Ahead { .. }));
        assert!(matches!(
            clock.read(YEAR + 30_000, start + ms(30_010)),
            Reading::Ahead { .. }
        ));
        assert!(
            matches!(clock.read(2 * YEAR, start + ms(60_000)), Reading::Ahead { .. }),
            "it jumped once more"
        );
        assert!(matches!(
            clock.read(2 * YEAR + 59_000, start + ms(119_000)),
            Reading::Ahead { .. }
        ));
        let (wall, mono) = (2 * YEAR + 60_000, start + ms(120_000));
        assert!(matches!(clock.read(wall, mono), Reading::Settled { .. }));
        clock.believe(wall, mono);
        assert_eq!(
            clock.read(wall + 5, mono + ms(5)),
            Reading::At {
                now: wall + 5,
                step: None
            }
        );
    }

    #[test]
    fn a_jump_that_is_taken_back_leaves_nothing() {
        let start = Instant::now();
        let mut clock = Clock::new(0, start, ms(1000));
        assert!(matches!(clock.read(YEAR, start + ms(10)), Reading::Ahead { .. }));
        assert_eq!(
            clock.read(1010, start + ms(1010)),
            Reading::At { now: 1010, step: None }
        );
    }

    #[test]
    fn it_is_as_late_as_somebody_has_stamped() {
        let start = Instant::now();
        let mut clock = Clock::new(0, start, ms(1000));
        clock.lift(50_000, start);
        assert_eq!(
            clock.read(10, start + ms(10)),
            Reading::At {
                now: 50_010,
                step: None
            }
        );
    }
}
