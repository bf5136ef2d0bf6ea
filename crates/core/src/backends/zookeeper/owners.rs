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
}
