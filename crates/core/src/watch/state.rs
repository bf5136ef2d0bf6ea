//! Where stands what is followed, a name or the names. A step does no I/O and reads no clock.
//!
//! ```text
//!            read                          broke
//!  Loading ─────────────► Live ◄─────────────────────────────► Stale
//!     │                             read                         │ ▲ broke
//!     │ refused (permission, argument)                           ▼ │ read, but more than half is missing
//!     ▼                                                        Guarded ── its grace is over: the truth ──► Live
//!  Refused: every waiting `next()` rejects
//! ```

use std::time::Duration;

use super::list::{Entry, List, lacks_more_than_half};
use crate::error::Error;
use crate::instance::ServiceInstance;

/// Where it stands, with what is known there.
#[derive(Debug, Clone, Default)]
pub(super) enum State<E = ServiceInstance> {
    /// Nothing was read yet.
    #[default]
    Loading,
    /// Nothing was read yet, and the registry says that nothing will be.
    Refused(Error),
    /// The list is that of the registry.
    Live(List<E>),
    /// The registry can't vouch for the list at the moment.
    Stale {
        list: List<E>,
        /// What is left of the time for which lists that lack too much are held back; `None` before the first of them.
        /// It runs only while reading goes on: who comes back from an outage deserves the time to.
        left: Option<Duration>,
    },
    /// It was read again, but more than half of `list` is missing in it, so it is not believed yet.
    Guarded {
        list: List<E>,
        held: List<E>,
        /// For how long from the first reading of this connection on.
        left: Duration,
    },
}

/// What happens to it.
#[derive(Debug, Clone)]
pub(super) enum Input<E = ServiceInstance> {
    /// A whole read.
    Read(List<E>),
    /// What a guarded list was given is over.
    GraceOver,
    /// The connection is lost or could not be made, `read_for` after the first reading of it.
    Broke { error: Error, read_for: Duration },
}

/// What is to be told of a step.
#[derive(Debug)]
pub(super) enum Told {
    /// The list is held back for the first time since it was lost: how many it had, how many it has.
    HeldBack(usize, usize),
    /// It is believed although it is still like that: how many it has.
    Believed(usize),
    /// A list was known, and can't be vouched for from now on.
    Broke(Error),
    /// There is still no connection.
    NotOpened(Error),
    /// The registry refuses, as far as is known for good.
    Refused(Error),
}

impl<E: Entry> State<E> {
    /// What is known, whether it can be vouched for or not.
    pub(super) fn list(&self) -> Option<&List<E>> {
        match self {
            Self::Loading | Self::Refused(_) => None,
            Self::Live(list) | Self::Stale { list, .. } | Self::Guarded { list, .. } => Some(list),
        }
    }

    pub(super) fn is_stale(&self) -> bool {
        matches!(self, Self::Stale { .. } | Self::Guarded { .. })
    }

    pub(super) fn refusal(&self) -> Option<&Error> {
        match self {
            Self::Refused(error) => Some(error),
            _ => None,
        }
    }

    /// For how long a list is held back at most, from the first reading of this connection on; `None`: none is.
    pub(super) fn held_for(&self) -> Option<Duration> {
        match self {
            Self::Guarded { left, .. } => Some(*left),
            _ => None,
        }
    }

    /// The next state. `grace`: how long a list that lacks too much is held back; zero switches that off.
    pub(super) fn step(self, input: Input<E>, grace: Duration) -> (Self, Option<Told>) {
        match (self, input) {
            (Self::Stale { list, left }, Input::Read(read))
                if !grace.is_zero() && lacks_more_than_half(&list, &read) =>
            {
                let told = left.is_none().then(|| Told::HeldBack(list.len(), read.len()));
                match left.unwrap_or(grace) {
                    Duration::ZERO => (Self::Live(read), told),
                    left => (Self::Guarded { list, held: read, left }, told),
                }
            }
            (Self::Guarded { list, left, .. }, Input::Read(read)) if lacks_more_than_half(&list, &read) => {
                (Self::Guarded { list, held: read, left }, None)
            }
            (_, Input::Read(read)) => (Self::Live(read), None),
            (Self::Guarded { held, .. }, Input::GraceOver) => {
                let told = Told::Believed(held.len());
                (Self::Live(held), Some(told))
            }
            (other, Input::GraceOver) => (other, None),
            (Self::Live(list), Input::Broke { error, .. }) => {
                (Self::Stale { list, left: None }, Some(Told::Broke(error)))
            }
            (Self::Guarded { list, left, .. }, Input::Broke { error, read_for }) => {
                let left = Some(left.saturating_sub(read_for));
                (Self::Stale { list, left }, Some(Told::NotOpened(error)))
            }
            (Self::Loading | Self::Refused(_), Input::Broke { error, .. }) if !error.is_retryable() => {
                (Self::Refused(error.clone()), Some(Told::Refused(error)))
            }
            (other, Input::Broke { error, .. }) => (other, Some(Told::NotOpened(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;
    use crate::testing::instance;
    use crate::watch::list::to_list;

    const GRACE: Duration = Duration::from_secs(15);
    const SECOND: Duration = Duration::from_secs(1);

    fn list(ids: &[&str]) -> List {
        to_list(ids.iter().map(|id| Arc::new(instance(id, "1"))).collect(), &[])
    }

    fn broke(kind: ErrorKind, read_for: Duration) -> Input {
        Input::Broke {
            error: Error::new(kind, "broken on purpose"),
            read_for,
        }
    }

    fn away() -> Input {
        broke(ErrorKind::Unavailable, Duration::ZERO)
    }

    /// Goes through a script.
    fn after(inputs: impl IntoIterator<Item = Input>) -> State {
        inputs
            .into_iter()
            .fold(State::default(), |state, input| state.step(input, GRACE).0)
    }

    #[test]
    fn nothing_is_known_before_the_first_list() {
        let state = after([away(), away()]);
        assert!(matches!(state, State::Loading) && state.list().is_none() && !state.is_stale());
        let refused = after([broke(ErrorKind::PermissionDenied, SECOND), away()]);
        assert_eq!(refused.refusal().map(Error::kind), Some(ErrorKind::PermissionDenied));
        let state = refused.step(Input::Read(list(&["a"])), GRACE).0;
        assert!(matches!(state, State::Live(_)) && state.refusal().is_none());
    }

    #[test]
    fn a_refusal_of_what_is_known_makes_it_stale() {
        let state = after([Input::Read(list(&["a"])), broke(ErrorKind::PermissionDenied, SECOND)]);
        assert!(state.is_stale() && state.refusal().is_none() && state.list().is_some());
    }

    #[test]
    fn a_list_that_lost_more_than_half_in_a_break_is_held_back_until_its_grace_is_over() {
        let all = ["a", "b", "c", "d"];
        let state = after([Input::Read(list(&all)), away(), Input::Read(list(&["a"]))]);
        assert_eq!(state.held_for(), Some(GRACE));
        assert_eq!(state.list(), Some(&list(&all)));
        // Half is no more than half.
        let (back, told) = state.clone().step(Input::Read(list(&["a", "b"])), GRACE);
        assert!(matches!(back, State::Live(_)) && told.is_none());
        let (believed, told) = state.step(Input::GraceOver, GRACE);
        assert!(matches!(told, Some(Told::Believed(1))));
        assert_eq!(believed.list(), Some(&list(&["a"])));
    }

    #[test]
    fn the_same_loss_without_a_break_is_the_truth() {
        let state = after([Input::Read(list(&["a", "b", "c"])), Input::Read(list(&[]))]);
        assert!(matches!(state, State::Live(_)));
        assert_eq!(state.list(), Some(&list(&[])));
    }

    #[test]
    fn breaks_use_the_grace_up_by_what_was_read_between_them() {
        let begun = [Input::Read(list(&["a", "b", "c"])), away()];
        let again = |read_for| [Input::Read(list(&[])), broke(ErrorKind::Unavailable, read_for)];
        let state = after(
            begun
                .clone()
                .into_iter()
                .chain(again(10 * SECOND))
                .chain([Input::Read(list(&[]))]),
        );
        assert_eq!(state.held_for(), Some(5 * SECOND));
        let state = after(
            begun
                .into_iter()
                .chain(again(10 * SECOND))
                .chain(again(5 * SECOND))
                .chain([Input::Read(list(&[]))]),
        );
        assert!(matches!(state, State::Live(_)), "{state:?}");
    }

    #[test]
    fn each_thing_is_told_once() {
        let mut state = State::default();
        let mut told = Vec::new();
        let script = [
            Input::Read(list(&["a", "b", "c"])),
            away(),
            away(),
            Input::Read(list(&[])),
            broke(ErrorKind::Unavailable, SECOND),
            Input::Read(list(&[])),
            Input::Read(list(&["a"])),
            Input::GraceOver,
            Input::GraceOver,
        ];
        for input in script {
            let (next, say) = state.step(input, GRACE);
            state = next;
            told.push(say.map_or("", |say| match say {
                Told::HeldBack(3, 0) => "held back",
                Told::Believed(1) => "believed",
                Told::Broke(_) => "broke",
                Told::NotOpened(_) => "not opened",
                _ => "?",
            }));
        }
        assert_eq!(
            told,
            [
                "",
                "broke",
                "not opened",
                "held back",
                "not opened",
                "",
                "",
                "believed",
                ""
            ]
        );
    }

    #[test]
    fn no_grace_holds_nothing_back() {
        let state = after([Input::Read(list(&["a", "b", "c"])), away()]);
        let (state, told) = state.step(Input::Read(list(&[])), Duration::ZERO);
        assert!(matches!(state, State::Live(_)) && told.is_none());
    }

    fn input() -> impl Strategy<Value = Input> {
        let ids = prop::sample::subsequence(vec!["a", "b", "c", "d"], 0..=4);
        prop_oneof![
            4 => ids.prop_map(|ids| Input::Read(list(&ids))),
            1 => Just(Input::GraceOver),
            2 => (0..20_u64).prop_map(|s| broke(ErrorKind::Unavailable, Duration::from_secs(s))),
            1 => Just(broke(ErrorKind::PermissionDenied, Duration::ZERO)),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens(inputs in prop::collection::vec(input(), 0..40)) {
            let mut state = State::default();
            for input in inputs {
                let before = state.clone();
                state = state.step(input.clone(), GRACE).0;
                // What was once known is known for ever.
                prop_assert!(before.list().is_none() || state.list().is_some());
                match &input {
                    // A read is what is known, or it is held back, and then it lacks more than half of that.
                    Input::Read(read) => match &state {
                        State::Live(list) => prop_assert_eq!(list, read),
                        State::Guarded { list, held, left } => {
                            prop_assert!(before.is_stale() && lacks_more_than_half(list, read));
                            prop_assert_eq!((held, Some(list)), (read, before.list()));
                            prop_assert!(*left > Duration::ZERO && *left <= GRACE);
                        }
                        other => prop_assert!(false, "{:?}", other),
                    },
                    // Nothing else but the end of its grace changes what is known.
                    Input::GraceOver => prop_assert!(state.held_for().is_none()),
                    Input::Broke { .. } => {
                        prop_assert_eq!(state.list(), before.list());
                        prop_assert!(state.list().is_none() || (state.is_stale() && state.held_for().is_none()));
                    }
                }
            }
        }
    }
}
