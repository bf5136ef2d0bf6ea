//! Where a registration stands in its life. A step does no I/O and reads no clock.
//!
//! ```text
//!                 published                       lost (gone, expired)
//!  Registering ───────────────► Registered ◄─────────────────────────► Lost
//!       │                        │      ▲          published            │
//!       │             a reason   │      │ the last reason is over       │
//!       │   to be out of traffic ▼      │ and published                 │
//!       ├──────────────────────► Out (for: stalled, withdrawn, …) ◄─────┤
//!       │                                                               │
//!       ├───────────── another owner holds the id ──► Replaced ◄────────┤
//!       └─ from every state: deregister(), close() ─► Deregistering ─► Deregistered
//! ```
//!
//! It is to stand in the registry if and only if nothing holds it out and it is wanted. The stall guard is one of the
//! reasons. A stall alone is a loss to the owner, who did not ask for it; what the owner asks for is none.

use std::time::Duration;

use tokio::time::Instant;

use super::out::{OutFor, OutReason};
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
    /// It is not wanted there while a reason holds it out.
    Out(Out),
    /// A newer owner has it. The end.
    Replaced,
    /// It is not wanted any more.
    Deregistering,
    /// It is gone, or left to expire. The end.
    Deregistered,
}

/// Out of traffic, with what is known there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // four independent facts, read by name
pub(super) struct Out {
    /// What holds it out. Empty: nothing any more, and it is not published again yet.
    reasons: OutFor,
    /// Nothing of it stands in the registry.
    is_removed: bool,
    /// It was never published.
    is_new: bool,
    /// A loss was told, and not its end.
    is_lost: bool,
    failing: bool,
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
    /// These are the reasons to have it out of traffic; `stall` is how long a silence of the owner's thread is one.
    Out { reasons: OutFor, stall: Duration },
    /// Nothing of it stands in the registry while it is out.
    Withdrawn,
    /// Something of it stands again all the same.
    Reappeared,
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
    /// The stall guard took out what stood, and why.
    Stalled(String),
    /// One more reason holds it out; all that do.
    Out(OutReason, OutFor),
    /// It is out, and what was removed stands again.
    Reappeared,
    /// Nothing holds it out any more, and it is published again.
    In,
    /// A newer owner has it.
    Replaced,
    /// It is removed.
    Removed,
    /// It could not be removed for as long as that was tried.
    LeftToExpire,
}

impl Told {
    /// What its owner hears of it. Nothing of the owner's own doing is a loss.
    pub(super) fn event(&self) -> Option<Event> {
        match self {
            Self::Restored => Some(Event::Restored),
            Self::Lost(why) | Self::Stalled(why) => Some(Event::Lost(why.clone())),
            Self::Out(reason, reasons) => Some(Event::Out(*reason, *reasons)),
            Self::In => Some(Event::In),
            Self::Replaced => Some(Event::Replaced),
            Self::Registered | Self::NotPublished { .. } | Self::Reappeared | Self::Removed | Self::LeftToExpire => {
                None
            }
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
            Self::Out(out) if out.reasons.has(OutReason::Stalled) => State::Stalled,
            Self::Out(_) => State::Out,
            Self::Replaced => State::Replaced,
            Self::Deregistering => State::Deregistering,
            Self::Deregistered => State::Deregistered,
        }
    }

    /// How the next publication treats a record of somebody else. Until the first success the newest registration wins;
    /// from then on two processes never fight.
    pub(super) fn intent(&self) -> Intent {
        match self {
            Self::Registering { .. } | Self::Out(Out { is_new: true, .. }) => Intent::Claim,
            _ => Intent::Keep,
        }
    }

    /// What holds it out of traffic.
    pub(super) fn out(&self) -> OutFor {
        match self {
            Self::Out(out) => out.reasons,
            _ => OutFor::NONE,
        }
    }

    /// Whether it is out, and nothing of it stands in the registry.
    pub(super) fn is_removed(&self) -> bool {
        matches!(self, Self::Out(Out { is_removed: true, .. }))
    }

    /// Whether the last try to publish came to nothing.
    pub(super) fn is_failing(&self) -> bool {
        match self {
            Self::Registering { failing } | Self::Registered { failing, .. } | Self::Lost { failing } => *failing,
            Self::Out(out) => out.failing,
            Self::Replaced | Self::Deregistering | Self::Deregistered => false,
        }
    }

    /// Since when the record has stood without a loss; `None` when it does not stand.
    pub(super) fn stands_since(&self) -> Option<Instant> {
        match self {
            Self::Registered { since, .. } => Some(*since),
            _ => None,
        }
    }

    /// The next one, and what is to be told of it, in that order.
    pub(super) fn step(self, input: Input) -> (Self, Vec<Told>) {
        let over = matches!(self, Self::Replaced | Self::Deregistering | Self::Deregistered);
        match (self, input) {
            (Self::Deregistering, Input::Removed(done)) => {
                let told = if done { Told::Removed } else { Told::LeftToExpire };
                (Self::Deregistered, vec![told])
            }
            (phase, _) if over => (phase, vec![]),
            (_, Input::Gone) => (Self::Deregistering, vec![]),
            (_, Input::Failed(error)) if error.kind() == ErrorKind::Replaced => (Self::Replaced, vec![Told::Replaced]),
            (phase, Input::Failed(_)) => phase.failed(),
            (phase, Input::Published(at)) => phase.published(at),
            (Self::Registered { .. }, Input::Lost(Loss::Replaced)) => (Self::Replaced, vec![Told::Replaced]),
            (Self::Registered { failing, .. }, Input::Lost(Loss::Gone(why))) => {
                (Self::Lost { failing }, vec![Told::Lost(why)])
            }
            (phase, Input::Out { reasons, stall }) => phase.held_out(reasons, stall),
            (Self::Out(out), Input::Withdrawn) if !out.reasons.is_empty() => (
                Self::Out(Out {
                    is_removed: true,
                    ..out
                }),
                vec![],
            ),
            (Self::Out(out), Input::Reappeared) if out.is_removed => (
                Self::Out(Out {
                    is_removed: false,
                    ..out
                }),
                vec![Told::Reappeared],
            ),
            // What does not stand can't be lost, and what is wanted there is not removed.
            (phase, Input::Lost(_) | Input::Withdrawn | Input::Reappeared | Input::Removed(_)) => (phase, vec![]),
        }
    }

    fn published(self, at: Instant) -> (Self, Vec<Told>) {
        let (since, told) = match self {
            Self::Registered { since, .. } => (since, vec![]),
            Self::Registering { .. } => (at, vec![Told::Registered]),
            Self::Out(out) if !out.reasons.is_empty() => {
                // A reason came up while that was on its way: it is still to go.
                let out = Out {
                    is_removed: false,
                    is_new: false,
                    failing: false,
                    ..out
                };
                return (Self::Out(out), vec![]);
            }
            Self::Out(out) if out.is_new => (at, vec![Told::Registered, Told::In]),
            Self::Out(out) if out.is_lost => (at, vec![Told::Restored, Told::In]),
            Self::Out(_) => (at, vec![Told::In]),
            _ => (at, vec![Told::Restored]),
        };
        (Self::Registered { since, failing: false }, told)
    }

    fn held_out(self, reasons: OutFor, stall: Duration) -> (Self, Vec<Told>) {
        let stood = matches!(self, Self::Registered { .. });
        let mut out = match self {
            Self::Out(out) => out,
            phase if reasons.is_empty() => return (phase, vec![]),
            phase => Out {
                reasons: OutFor::NONE,
                is_removed: false,
                is_new: matches!(phase, Self::Registering { .. }),
                is_lost: matches!(phase, Self::Lost { .. }),
                failing: phase.is_failing(),
            },
        };
        out.is_removed &= !reasons.is_empty(); // what is published again may stand from the first byte on
        let before = std::mem::replace(&mut out.reasons, reasons);
        let mut told: Vec<Told> = reasons
            .iter()
            .filter(|reason| !before.has(*reason))
            .map(|reason| Told::Out(reason, reasons))
            .collect();
        if stood && reasons == OutFor::NONE.with(OutReason::Stalled) {
            out.is_lost = true;
            told.push(Told::Stalled(format!(
                "stalled: the JavaScript thread has not ticked for {} ms (stallTimeoutMs)",
                stall.as_millis()
            )));
        }
        (Self::Out(out), told)
    }

    fn failed(self) -> (Self, Vec<Told>) {
        let first = !self.is_failing();
        let phase = match self {
            Self::Registering { .. } => Self::Registering { failing: true },
            Self::Registered { since, .. } => Self::Registered { since, failing: true },
            Self::Lost { .. } => Self::Lost { failing: true },
            Self::Out(out) => Self::Out(Out { failing: true, ..out }),
            end => return (end, vec![]),
        };
        (phase, vec![Told::NotPublished { first }])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::OutReason::{Stalled, Unhealthy, Withdrawn};
    use super::*;

    fn failure(kind: ErrorKind) -> Input {
        Input::Failed(Error::new(kind, "as the script has it"))
    }

    fn gone() -> Input {
        Input::Lost(Loss::Gone("gone".to_owned()))
    }

    fn set(reasons: &[OutReason]) -> OutFor {
        reasons.iter().copied().fold(OutFor::NONE, OutFor::with)
    }

    fn out(reasons: &[OutReason]) -> Input {
        Input::Out {
            reasons: set(reasons),
            stall: Duration::from_secs(30),
        }
    }

    fn stalled() -> Input {
        out(&[Stalled])
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
        let (phase, told) = after([away(), away(), stalled(), out(&[]), away()]);
        assert_eq!((phase.intent(), phase.state()), (Intent::Claim, State::Out));
        let first = |first| Told::NotPublished { first };
        let held_out = Told::Out(Stalled, set(&[Stalled]));
        assert_eq!(told, [first(true), first(false), held_out, first(false)]);
        for inputs in [
            vec![],
            vec![gone()],
            vec![gone(), stalled()],
            vec![out(&[Withdrawn]), Input::Withdrawn, out(&[])],
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
        let now = Instant::now();
        let (phase, told) = after([Input::Published(now), stalled(), out(&[]), Input::Published(now)]);
        assert_eq!(phase.state(), State::Registered);
        assert!(
            matches!(
                &told[1..],
                [Told::Out(Stalled, _), Told::Stalled(why), Told::Restored, Told::In] if why.contains("30000 ms")
            ),
            "{told:?}"
        );
        let (phase, told) = after([Input::Published(now), gone(), stalled()]);
        assert_eq!(phase.state(), State::Stalled);
        assert_eq!(
            told[1..],
            [Told::Lost("gone".to_owned()), Told::Out(Stalled, set(&[Stalled]))],
            "one loss"
        );
        // What the owner has taken out does not stand.
        let (phase, told) = after([
            Input::Published(now),
            out(&[Withdrawn]),
            out(&[Withdrawn, Stalled]),
            out(&[Withdrawn]),
            out(&[]),
            Input::Published(now),
        ]);
        assert_eq!(phase.state(), State::Registered);
        assert!(
            matches!(&told[1..], [Told::Out(Withdrawn, _), Told::Out(Stalled, _), Told::In]),
            "{told:?}"
        );
    }

    #[test]
    fn reasons_add_up_and_the_last_brings_it_back() {
        let now = Instant::now();
        let (phase, told) = after([
            Input::Published(now),
            out(&[Unhealthy]),
            Input::Withdrawn,
            out(&[Unhealthy, Withdrawn]),
            out(&[Withdrawn]),
        ]);
        assert_eq!((phase.state(), phase.out()), (State::Out, set(&[Withdrawn])));
        assert!(phase.is_removed());
        assert_eq!(
            told[1..],
            [
                Told::Out(Unhealthy, set(&[Unhealthy])),
                Told::Out(Withdrawn, set(&[Unhealthy, Withdrawn]))
            ]
        );
        let (phase, told) = phase.step(out(&[]));
        assert_eq!((phase.state(), told), (State::Out, vec![]), "not back yet");
        assert!(!phase.is_removed(), "an attempt may put it there");
        let (phase, told) = phase.step(failure(ErrorKind::Unavailable));
        assert_eq!(
            (phase.is_failing(), told),
            (true, vec![Told::NotPublished { first: true }])
        );
        let (phase, told) = phase.step(Input::Published(now));
        assert_eq!((phase.state(), told), (State::Registered, vec![Told::In]));
    }

    #[test]
    fn a_loss_of_before_ends_with_the_return() {
        let now = Instant::now();
        let (_, told) = after([
            Input::Published(now),
            gone(),
            out(&[Withdrawn]),
            out(&[]),
            Input::Published(now),
        ]);
        assert_eq!(
            told[1..],
            [
                Told::Lost("gone".to_owned()),
                Told::Out(Withdrawn, set(&[Withdrawn])),
                Told::Restored,
                Told::In
            ]
        );
    }

    #[test]
    fn an_owner_who_came_meanwhile_ends_it() {
        let now = Instant::now();
        let (phase, told) = after([
            Input::Published(now),
            out(&[Withdrawn]),
            Input::Withdrawn,
            out(&[]),
            failure(ErrorKind::Replaced),
        ]);
        assert_eq!((phase, told.last()), (Phase::Replaced, Some(&Told::Replaced)));
    }

    #[test]
    fn what_stands_again_while_it_is_out_is_to_be_removed_again() {
        let before = [Input::Published(Instant::now()), out(&[Withdrawn]), Input::Reappeared];
        let (phase, told) = after(before.clone());
        assert!(
            !phase.is_removed() && !told.contains(&Told::Reappeared),
            "not removed yet"
        );
        let again = [Input::Withdrawn, Input::Reappeared];
        let (phase, told) = after(before.clone().into_iter().chain(again.clone()));
        assert_eq!((phase.is_removed(), phase.state()), (false, State::Out));
        assert_eq!(told.last(), Some(&Told::Reappeared));
        let all = before
            .into_iter()
            .chain(again)
            .chain([Input::Withdrawn, Input::Reappeared]);
        let (phase, _) = after(all.chain([out(&[]), Input::Reappeared]));
        assert!(!phase.is_removed());
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
            6 => prop::sample::subsequence(&OutReason::ALL[..], 0..=4).prop_map(|reasons| out(&reasons)),
            3 => Just(Input::Withdrawn),
            1 => Just(Input::Reappeared),
            1 => Just(()).prop_map(|()| Input::Lost(Loss::Replaced)),
            1 => Just(()).prop_map(|()| failure(ErrorKind::Replaced)),
            1 => Just(Input::Gone),
            1 => any::<bool>().prop_map(Input::Removed),
        ]
    }

    proptest! {
        #[test]
        fn losses_and_repairs_alternate_and_an_end_is_one(inputs in prop::collection::vec(input(), 0..60)) {
            let (mut phase, mut published, mut lost, mut is_out) = (Phase::NEW, false, false, false);
            for input in inputs {
                let before = phase.clone();
                let (next, told) = phase.step(input.clone());
                phase = next;
                if before.state().is_final() {
                    prop_assert_eq!((&phase, told.len()), (&before, 0));
                }
                if matches!(before, Phase::Deregistering) {
                    prop_assert!(told.iter().all(|told| told.event().is_none()));
                }
                let mut reasons = before.out();
                for event in told.iter().filter_map(Told::event) {
                    match event {
                        Event::Lost(why) => {
                            prop_assert!(!lost);
                            // Nothing of the owner's own doing is a loss.
                            prop_assert!(phase.out().is_empty() || why.starts_with("stalled") && phase.out() == set(&[Stalled]));
                            lost = true;
                        }
                        Event::Restored => prop_assert!(std::mem::take(&mut lost)),
                        Event::Replaced => prop_assert!(phase.state().is_final()),
                        Event::Out(reason, all) => {
                            prop_assert!(!reasons.has(reason) && all.has(reason) && all == phase.out());
                            reasons = reasons.with(reason);
                            is_out = true;
                        }
                        Event::In => prop_assert!(std::mem::take(&mut is_out)),
                    }
                }
                published |= matches!(phase, Phase::Registered { .. }) || matches!(&phase, Phase::Out(out) if !out.is_new);
                prop_assert_eq!(
                    phase.intent() == Intent::Claim,
                    phase.state() == State::Registering || matches!(&phase, Phase::Out(Out { is_new: true, .. }))
                );
                prop_assert!(published || phase.state() != State::Lost);
                // Nobody is told that it stands who was told of a loss, or of a reason, and not of its end.
                prop_assert!(!(phase.state() == State::Registered && (lost || is_out)));
                // It stands only while nothing holds it out, and what is said to be removed is out.
                prop_assert!(phase.stands_since().is_none() || phase.out().is_empty());
                prop_assert!(!phase.is_removed() || !phase.out().is_empty());
                if let Input::Out { reasons, .. } = input && !before.state().is_final() && !matches!(before, Phase::Deregistering) {
                    prop_assert_eq!(phase.out(), reasons, "the set is what was asked for");
                    prop_assert!(reasons.is_empty() || matches!(phase.state(), State::Out | State::Stalled));
                }
            }
        }
    }
}
