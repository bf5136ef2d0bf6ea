//! Why a registration is out of traffic: the reasons, and the set of those that hold now.

use std::fmt;

use crate::error::{Error, Result};

/// Why an instance is to be out of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutReason {
    /// The owner's thread does not tick. The stall guard's own.
    Stalled,
    /// The program has taken it out.
    Withdrawn,
    /// The program has found it unfit to serve.
    Unhealthy,
    /// It leaves for good, and its callers are given time to hear of it.
    Draining,
}

impl OutReason {
    /// All, in the order in which they are told.
    pub const ALL: [Self; 4] = [Self::Stalled, Self::Withdrawn, Self::Unhealthy, Self::Draining];

    /// The word of the public API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stalled => "stalled",
            Self::Withdrawn => "withdrawn",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
        }
    }

    /// The reason of this word, if it is one that a program gives and takes back itself; else `InvalidArgument`.
    pub fn of_program(word: &str) -> Result<Self> {
        let problem = match Self::ALL.into_iter().find(|reason| reason.as_str() == word) {
            Some(reason @ (Self::Withdrawn | Self::Unhealthy)) => return Ok(reason),
            Some(Self::Stalled) => "\"stalled\" is the stall guard's own (stallTimeoutMs)",
            Some(_) => "\"draining\" is set by drain() alone",
            None => "unknown reason",
        };
        Err(Error::invalid(format!(
            "reason: expected \"withdrawn\" or \"unhealthy\"; {problem}"
        )))
    }
}

/// A set of reasons. Empty: nothing holds it out.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct OutFor(u8);

impl OutFor {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// This set and the reason.
    #[must_use]
    pub const fn with(self, reason: OutReason) -> Self {
        Self(self.0 | 1 << reason as u8)
    }

    /// This set without the reason.
    #[must_use]
    pub const fn without(self, reason: OutReason) -> Self {
        Self(self.0 & !(1 << reason as u8))
    }

    /// Whether the reason holds.
    pub const fn has(self, reason: OutReason) -> bool {
        self.0 & (1 << reason as u8) != 0
    }

    /// Whether nothing holds it out.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its reasons, in the order of [`OutReason::ALL`].
    pub fn iter(self) -> impl Iterator<Item = OutReason> {
        OutReason::ALL.into_iter().filter(move |reason| self.has(*reason))
    }
}

impl fmt::Display for OutFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.iter().map(OutReason::as_str).collect();
        f.write_str(&words.join(", "))
    }
}

impl fmt::Debug for OutFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_add_up_and_each_goes_by_itself() {
        let all = OutReason::ALL.into_iter().fold(OutFor::NONE, OutFor::with);
        assert_eq!(all.to_string(), "stalled, withdrawn, unhealthy, draining");
        let left = all.without(OutReason::Withdrawn).without(OutReason::Withdrawn);
        assert!(!left.has(OutReason::Withdrawn) && left.has(OutReason::Unhealthy));
        assert!(OutReason::ALL.into_iter().fold(all, OutFor::without).is_empty());
    }

    #[test]
    fn a_program_gives_two_of_them_only() {
        assert_eq!(OutReason::of_program("unhealthy").ok(), Some(OutReason::Unhealthy));
        for (word, part) in [("stalled", "stall guard"), ("draining", "drain()"), ("ill", "unknown")] {
            let error = OutReason::of_program(word).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
