//! The index that a blocking query goes on from. It grows with what it counts; one that goes back is of a server that lags
//! behind, where such a one may answer, or of another history.

use std::time::Duration;

use tokio::time::Instant;

use super::options::Consistency;
use super::shared::LAG;
use crate::error::{Error, ErrorKind, Result};

/// Between two looks at a server that lags behind.
pub(super) const AGAIN: Duration = Duration::from_millis(100);

/// The index of the last answer that was believed.
#[derive(Debug)]
pub(super) struct Index {
    at: u64,
    /// Since when every answer has had a lower one.
    behind: Option<Instant>,
    /// Whether any server may answer: then one may not know yet what another has told.
    may_lag: bool,
}

impl Index {
    /// Before the first answer.
    pub(super) fn new(consistency: Consistency) -> Self {
        Self {
            at: 0,
            behind: None,
            may_lag: consistency == Consistency::Stale,
        }
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Whether the last answer came from a server that lags behind.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// An answer with this index is believed: it goes on from there.
    pub(super) fn moves_to(&mut self, at: u64) {
        self.at = at;
        self.behind = None;
    }

    /// An answer had this lower index, and says something else than the last one. Ask again after [`AGAIN`]; fails when that
    /// has gone on for longer than a server lags, or when none may.
    pub(super) fn went_back(&mut self, to: u64, now: Instant) -> Result<()> {
        let since = *self.behind.get_or_insert(now);
        if self.may_lag && now.duration_since(since) < LAG {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("Consul's index went back from {} to {to}", self.at),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index at 9, and the time then.
    fn at_nine(consistency: Consistency) -> (Index, Instant) {
        let mut index = Index::new(consistency);
        index.moves_to(9);
        (index, Instant::now())
    }

    #[test]
    fn one_that_goes_back_is_another_history_unless_a_server_may_lag() {
        for consistency in [Consistency::Default, Consistency::Consistent] {
            let (mut index, now) = at_nine(consistency);
            let error = index.went_back(4, now).unwrap_err();
            assert_eq!(error.message(), "Consul's index went back from 9 to 4");
            assert!(error.is_retryable());
        }
    }

    #[test]
    fn a_server_may_lag_for_so_long_and_no_longer() {
        let (mut index, now) = at_nine(Consistency::Stale);
        let nearly = LAG.checked_sub(Duration::from_millis(1)).unwrap();
        index.went_back(4, now).unwrap();
        assert!(index.is_behind());
        index.went_back(5, now + nearly).unwrap();
        assert_eq!(index.at(), 9, "what is asked for stays");
        assert!(index.went_back(8, now + LAG).is_err());
    }

    #[test]
    fn who_has_caught_up_may_lag_anew() {
        let (mut index, now) = at_nine(Consistency::Stale);
        index.went_back(4, now).unwrap();
        index.moves_to(9);
        assert!(!index.is_behind());
        index.went_back(8, now + LAG).unwrap();
        assert!(index.went_back(8, now + LAG * 2).is_err());
    }
}
