//! What is subscribed to on a connection: each service once, however many want it, with the list that the server told last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use serde_json::Value;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::lists::List;
use super::packed::Packed;
use crate::error::Result;
use crate::sync::lock;

/// Subscribing and unsubscribing one service must not overtake each other; different ones share so many turns.
const TURNS: usize = 64;

/// The subscriptions of one connection.
pub(in super::super) struct Subscriptions {
    pub(super) by_service: Mutex<HashMap<String, Weak<Subscription>>>,
    turns: [tokio::sync::Mutex<()>; TURNS],
    /// Counts the lists that came, of whatever service.
    rings: watch::Sender<u64>,
    pub(super) reading: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// One service that is subscribed to, for as long as somebody holds this.
pub(in super::super) struct Subscription {
    /// Its list; `None` until it is known; an error when it could not be subscribed to.
    pub(super) list: watch::Sender<Option<Result<Arc<Packed>>>>,
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self {
            by_service: Mutex::default(),
            turns: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            rings: watch::channel(0).0,
            reading: Mutex::default(),
        }
    }
}

impl Subscription {
    /// Its list now.
    pub(in super::super) fn list(&self) -> Option<Result<Arc<Packed>>> {
        self.list.borrow().clone()
    }

    /// What tells of the next lists.
    pub(in super::super) fn changes(&self) -> watch::Receiver<Option<Result<Arc<Packed>>>> {
        self.list.subscribe()
    }
}

impl Subscriptions {
    pub(super) fn turn(&self, service: &str) -> &tokio::sync::Mutex<()> {
        let hash = service
            .bytes()
            .fold(7_usize, |hash, byte| hash.wrapping_mul(31) ^ usize::from(byte));
        &self.turns[hash % TURNS]
    }

    /// The server has told a list.
    pub(super) fn pushed(&self, group: &str, info: &Value) {
        let list = List::read(info);
        if list.is_of(group) {
            self.tell(&list);
        }
    }

    /// The list of a service has come, by a push or as an answer. It tells those who follow the service, unless a newer one has
    /// come before it.
    pub(super) fn tell(&self, list: &List) {
        let found = lock(&self.by_service).get(&list.service).and_then(Weak::upgrade);
        let Some(subscription) = found else { return };
        let packed = Packed::of(list);
        let is_news = subscription.list.send_if_modified(|held| {
            let is_news = match held {
                Some(Ok(before)) if packed.is_older(before) => return false,
                Some(Ok(before)) => !packed.is_same(before),
                Some(Err(_)) => return false,
                None => true,
            };
            *held = Some(Ok(Arc::new(packed)));
            is_news
        });
        if is_news {
            self.rings.send_modify(|rings| *rings = rings.wrapping_add(1));
        }
    }

    /// What rings when the list of any service has come.
    pub(in super::super) fn rung(&self) -> watch::Receiver<u64> {
        self.rings.subscribe()
    }

    /// Reads nothing any more: the connection has ended.
    pub(super) fn end(&self) {
        lock(&self.reading).take();
    }
}
