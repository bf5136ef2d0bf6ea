//! How many connections watches may hold for themselves at an agent that speaks HTTP/1.1.
//!
//! An agent takes 200 connections from one address, from all processes of a machine together. So the room is what all of
//! them leave: when the agent takes no more, half of the connections that are held are given up, and taken back one by
//! one, as TCP does with a network that it shares.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::sync::lock;

/// What is refused within this time is refused for one reason.
const ONCE: Duration = Duration::from_secs(1);
/// One more connection is held after each of these.
const AGAIN: Duration = Duration::from_secs(15);

pub(super) struct Room {
    most: usize,
    state: Mutex<State>,
    /// Places from this number on are to be given up, when it is told.
    left: watch::Sender<usize>,
}

struct State {
    taken: BTreeSet<usize>,
    /// How many were left when the agent was full, and when that was.
    full: Option<(usize, Instant)>,
}

/// One connection that a watch holds for itself.
pub(super) struct Place {
    room: Arc<Room>,
    number: usize,
    left: watch::Receiver<usize>,
}

impl Room {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            state: Mutex::new(State {
                taken: BTreeSet::new(),
                full: None,
            }),
            left: watch::Sender::new(most),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// How many there may be now.
    fn allowed(&self, state: &State) -> usize {
        state.full.map_or(self.most, |(left, at)| {
            let regained = at.elapsed().as_secs() / AGAIN.as_secs();
            self.most.min(left.saturating_add(regained as usize))
        })
    }

    /// A place, while there is one.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        let mut state = self.lock();
        let number = (0..self.allowed(&state)).find(|number| !state.taken.contains(number))?;
        state.taken.insert(number);
        Some(Place {
            room: Arc::clone(self),
            number,
            left: self.left.subscribe(),
        })
    }

    /// The agent takes no more connections: half of the places are taken back.
    pub(super) fn is_full(&self) {
        let mut state = self.lock();
        if state.full.is_some_and(|(_, at)| at.elapsed() < ONCE) {
            return;
        }
        let left = self.allowed(&state).min(state.taken.len()) / 2;
        state.full = Some((left, Instant::now()));
        self.left.send_replace(left);
    }
}

impl Place {
    /// Resolves when it is to be given up.
    pub(super) fn recalled(&self) -> impl Future<Output = ()> + Send + use<> {
        let (mut left, number) = (self.left.clone(), self.number);
        async move {
            while left.changed().await.is_ok() {
                if number >= *left.borrow_and_update() {
                    return;
                }
            }
            std::future::pending::<()>().await; // the room is gone, and with it everything
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.lock().taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn half_of_the_places_are_taken_back_and_given_again_one_by_one() {
        let room = Room::new(8);
        let mut places: Vec<Place> = std::iter::from_fn(|| room.take()).collect();
        assert_eq!(places.len(), 8);
        room.is_full();
        room.is_full(); // the same moment
        let recalled: Vec<bool> = places
            .iter()
            .map(|place| place.recalled().now_or_never().is_some())
            .collect();
        assert_eq!(recalled, [false, false, false, false, true, true, true, true]);
        places.truncate(4);
        assert!(room.take().is_none());
        advance(AGAIN).await;
        let fifth = room.take().unwrap();
        assert!(room.take().is_none());
        assert!(
            fifth.recalled().now_or_never().is_none(),
            "recalled before it was taken"
        );
        room.is_full();
        assert!(fifth.recalled().now_or_never().is_some());
        drop((places, fifth));
        advance(AGAIN * 100).await;
        assert_eq!(std::iter::from_fn(|| room.take()).collect::<Vec<_>>().len(), 8);
    }
}
