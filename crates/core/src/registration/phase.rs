//! Where a registration stands in its life. A step does no I/O and reads no clock.
//!
//! ```text
//!                 published                       lost (gone, expired)
//!  Registering ───────────────► Registered ◄─────────────────────────► Lost
//!       │                        │      ▲          published            │
//!       │            thread      │      │ thread ticks                  │
//!       │            silent      ▼      │ and published                 │
//!       │                        Stalled                                │
//!       │                                                               │
//!       ├───────────── another owner holds the id ──► Replaced ◄────────┤
//!       └─ from every state: deregister(), close() ─► Deregistering ─► Deregistered
//! ```

use std::time::Duration;

use tokio::time::Instant;

use super::state::{Event, State};
use crate::backend::{Intent, Loss};
use crate::error::{Error, ErrorKind};

/// Where it stands, with what is known there. `failing`: the last try to publish came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// It was never published.
    Registering { failing: bool },
    /// It stands in the registry as far as is known, since then without a loss.
    Registered { since: Instant, failing: bool },
    /// It stood, and does not any more.
    Lost { failing: bool },
    /// It is not wanted there until the thread ticks again.
    Stalled { failing: bool },
    /// A newer owner has it. The end.
    Replaced,
    /// It is not wanted any more.
    Deregistering,
    /// It is gone, or left to expire. The end.
    Deregistered,
}

/// What happens to it.
#[derive(Debug, Clone)]
pub(super) enum Input {
    /// What is wanted was published, then.
    Published(Instant),
    /// It was not.
    Failed(Error),
    /// The record does not stand any more.
    Lost(Loss),
    /// The owner's thread has not ticked for so long.
    Stalled(Duration),
    /// The owner wants the record gone.
    Gone,
    /// The record is removed, or (false) left to expire.
    Removed(bool),
}

/// What is to be told of a step: to the owner, or to the log alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// It is published for the first time.
    Registered,
    /// It is published again.
    Restored,
    /// It could not be published; whether that is the first time in a row.
    NotPublished { first: bool },
    /// It was lost, and why.
    Lost(String),
    /// It is withdrawn, and why.
    Withdrawn(String),
    /// A newer owner has it.
    Replaced,
    /// It is removed.
    Removed,
    /// It could not be removed for as long as that was tried.
    LeftToExpire,
}

impl Told {
    /// What its owner hears of it. Nothing of the owner's own doing.
    pub(super) fn event(&self) -> Option<Event> {
        match self {
            Self::Restored => Some(Event::Restored),
            Self::Lost(why) | Self::Withdrawn(why) => Some(Event::Lost(why.clone())),
            Self::Replaced => Some(Event::Replaced),
            Self::Registered | Self::NotPublished { .. } | Self::Removed | Self::LeftToExpire => None,
        }
    }
}

impl Phase {
    /// The first.
    pub(super) const NEW: Self = Self::Registering { failing: false };

    /// As callers know it.
    pub(super) fn state(&self) -> State {
        match self {
            Self::Registering { .. } => State::Registering,
            Self::Registered { .. } => State::Registered,
            Self::Lost { .. } => State::Lost,
            Self::Stalled { .. } => State::Stalled,
            Self::Replaced => State::Replaced,
            Self::Deregistering => State::Deregistering,
            Self::Deregistered => State::Deregistered,
        }
    }

    /// How the next publication treats a record of somebody else. Until the first success the newest registration wins;
    /// from then on two processes never fight.
    pub(super) fn intent(&self) -> Intent {
        match self {
            Self::Registering { .. } => Intent::Claim,
            _ => Intent::Keep,
        }
    }

    /// Since when the record has stood without a loss; `None` when it does not stand.
    pub(super) fn stands_since(&self) -> Option<Instant> {
        match self {
            Self::Registered { since, .. } => Some(*since),
            _ => None,
        }
    }

    /// The next one.
    pub(super) fn step(self, input: Input) -> (Self, Option<Told>) {
        let over = matches!(self, Self::Replaced | Self::Deregistering | Self::Deregistered);
        match (self, input) {
            (Self::Deregistering, Input::Removed(done)) => {
                let told = if done { Told::Removed } else { Told::LeftToExpire };
                (Self::Deregistered, Some(told))
            }
            (phase, _) if over => (phase, None),
            (_, Input::Gone) => (Self::Deregistering, None),
            (_, Input::Failed(error)) if error.kind() == ErrorKind::Replaced => (Self::Replaced, Some(Told::Replaced)),
            (phase, Input::Failed(_)) => phase.failed(),
            (Self::Registered { since, .. }, Input::Published(_)) => (Self::Registered { since, failing: false }, None),
            (before, Input::Published(since)) => {
                let first = matches!(before, Self::Registering { .. });
                let told = if first { Told::Registered } else { Told::Restored };
                (Self::Registered { since, failing: false }, Some(told))
            }
            (Self::Registered { .. }, Input::Lost(Loss::Replaced)) => (Self::Replaced, Some(Told::Replaced)),
            (Self::Registered { failing, .. }, Input::Lost(Loss::Gone(why))) => {
                (Self::Lost { failing }, Some(Told::Lost(why)))
            }
            (Self::Registered { failing, .. }, Input::Stalled(limit)) => {
                let why = format!(
                    "stalled: the JavaScript thread has not ticked for {} ms (stallTimeoutMs)",
                    limit.as_millis()
                );
                (Self::Stalled { failing }, Some(Told::Withdrawn(why)))
            }
            (Self::Lost { failing }, Input::Stalled(_)) => (Self::Stalled { failing }, None),
            // What does not stand can't be lost, and what is not wanted gone is not removed.
            (phase, Input::Lost(_) | Input::Stalled(_) | Input::Removed(_)) => (phase, None),
        }
    }

    fn failed(self) -> (Self, Option<Told>) {
        let (before, phase) = match self {
            Self::Registering { failing } => (failing, Self::Registering { failing: true }),
            Self::Registered { failing, since } => (failing, Self::Registered { since, failing: true }),
            Self::Lost { failing } => (failing, Self::Lost { failing: true }),
            Self::Stalled { failing } => (failing, Self::Stalled { failing: true }),
            end => return (end, None),
        };
        (phase, Some(Told::NotPublished { first: !before }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failure(kind: ErrorKind) -> Input {
        Input::Failed(Error::new(kind, "as the script has it"))
    }

    fn gone() -> Input {
        Input::Lost(Loss::Gone("gone".to_owned()))
    }

    /// Goes through a script: where it ends, and all that is told.
    fn after(inputs: impl IntoIterator<Item = Input>) -> (Phase, Vec<Told>) {
        let mut told = Vec::new();
        let phase = inputs.into_iter().fold(Phase::NEW, |phase, input| {
            let (phase, say) = phase.step(input);
            told.extend(say);
            phase
        });
        (phase, told)
    }

    #[test]
    fn it_claims_until_it_was_published_and_keeps_from_then_on() {
        let now = Instant::now();
        let away = || failure(ErrorKind::Unavailable);
        let (phase, told) = after([away(), away(), Input::Stalled(Duration::ZERO), away()]);
        assert_eq!((phase.intent(), phase.state()), (Intent::Claim, State::Registering));
        let first = |first| Told::NotPublished { first };
        assert_eq!(told, [first(true), first(false), first(false)]);
        for inputs in [
            vec![],
            vec![gone()],
            vec![gone(), Input::Stalled(Duration::ZERO)],
            vec![away()],
        ] {
            let (phase, _) = after([Input::Published(now)].into_iter().chain(inputs));
            assert_eq!(phase.intent(), Intent::Keep, "{phase:?}");
        }
    }

    #[test]
    fn an_update_that_fails_leaves_the_record_standing() {
        let now = Instant::now();
        let later = now + Duration::from_secs(9);
        let (phase, _) = after([
            Input::Published(now),
            failure(ErrorKind::Unavailable),
            Input::Published(later),
        ]);
        assert_eq!(phase.stands_since(), Some(now));
        let (phase, _) = after([Input::Published(now), gone(), Input::Published(later)]);
        assert_eq!(phase.stands_since(), Some(later), "a loss begins it anew");
    }

    #[test]
    fn a_newer_owner_ends_it_however_that_is_found() {
        let now = Instant::now();
        for found in [Input::Lost(Loss::Replaced), failure(ErrorKind::Replaced)] {
            let (phase, told) = after([Input::Published(now), found, gone(), Input::Published(now), Input::Gone]);
            assert_eq!((phase, told), (Phase::Replaced, vec![Told::Registered, Told::Replaced]));
        }
    }

    #[test]
    fn a_stall_is_a_loss_of_what_stood_alone() {
        let (now, limit) = (Instant::now(), Duration::from_secs(30));
        let (phase, told) = after([Input::Published(now), Input::Stalled(limit), Input::Published(now)]);
        assert_eq!(phase.state(), State::Registered);
        assert!(
            matches!(&told[1..], [Told::Withdrawn(why), Told::Restored] if why.contains("30000 ms")),
            "{told:?}"
        );
        let (phase, told) = after([Input::Published(now), gone(), Input::Stalled(limit)]);
        assert_eq!(phase.state(), State::Stalled);
        assert_eq!(told[1..], [Told::Lost("gone".to_owned())], "one loss");
    }

    #[test]
    fn whoever_wants_it_gone_hears_nothing_more() {
        let (phase, told) = after([
            Input::Published(Instant::now()),
            Input::Gone,
            gone(),
            Input::Removed(true),
        ]);
        assert_eq!(
            (phase, told),
            (Phase::Deregistered, vec![Told::Registered, Told::Removed])
        );
        let (_, told) = after([Input::Gone, Input::Removed(false)]);
        assert_eq!(told, [Told::LeftToExpire]);
        assert!(told.iter().all(|told| told.event().is_none()));
    }

    fn input() -> impl Strategy<Value = Input> {
        prop_oneof![
            6 => Just(()).prop_map(|()| Input::Published(Instant::now())),
            4 => Just(()).prop_map(|()| failure(ErrorKind::Unavailable)),
            4 => Just(()).prop_map(|()| gone()),
            3 => Just(Input::Stalled(Duration::from_secs(1))),
            1 => Just(()).prop_map(|()| Input::Lost(Loss::Replaced)),
            1 => Just(()).prop_map(|()| failure(ErrorKind::Replaced)),
            1 => Just(Input::Gone),
            1 => any::<bool>().prop_map(Input::Removed),
        ]
    }

    proptest! {
        #[test]
        fn losses_and_repairs_alternate_and_an_end_is_one(inputs in prop::collection::vec(input(), 0..60)) {
            let (mut phase, mut published, mut lost) = (Phase::NEW, false, false);
            for input in inputs {
                let before = phase.clone();
                let (next, told) = phase.step(input.clone());
                phase = next;
                if before.state().is_final() {
                    prop_assert_eq!((&phase, &told), (&before, &None));
                }
                if matches!(before, Phase::Deregistering) {
                    prop_assert!(told.as_ref().and_then(Told::event).is_none());
                }
                match told.and_then(|told| told.event()) {
                    Some(Event::Lost(_)) => {
                        prop_assert!(!lost);
                        lost = true;
                    }
                    Some(Event::Restored) => prop_assert!(std::mem::take(&mut lost)),
                    Some(Event::Replaced) => prop_assert!(phase.state().is_final()),
                    None => {}
                }
                published |= matches!(phase, Phase::Registered { .. });
                prop_assert_eq!(phase.intent() == Intent::Claim, phase.state() == State::Registering);
                prop_assert!(published || !matches!(phase.state(), State::Lost | State::Stalled));
                // Nobody is told that it stands who was told of a loss and not of its end.
                prop_assert!(!(phase.state() == State::Registered && lost));
            }
        }
    }
}
