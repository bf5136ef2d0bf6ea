//! Which registration of a client made which node.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::sync::lock;

/// Which registration of a client made which node.
#[derive(Default)]
pub(super) struct Owners {
    state: Mutex<Made>,
}

#[derive(Default)]
pub(super) struct Made {
    pub(super) next: u64,
    /// By the transaction that made the node, for nodes whose making was answered.
    pub(super) by_czxid: HashMap<i64, u64>,
    /// Who last asked for a node of this path to be made.
    pub(super) by_path: HashMap<String, u64>,
}

impl Owners {
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Made) -> T) -> T {
        look(&mut lock(&self.state))
    }

    /// Whether a registration that has not ended may have made a node of this path.
    pub(super) fn know_path(&self, path: &str) -> bool {
        self.with(|made| made.by_path.contains_key(path))
    }

    /// Whether one holds the node that this transaction made.
    pub(super) fn know_node(&self, czxid: i64) -> bool {
        self.with(|made| made.by_czxid.contains_key(&czxid))
    }
}
