//! What the backend, its presences and its streams have in common.

use std::sync::Arc;

use super::nodes::{Call, Nodes};
use super::options::BilibiliOptions;
use super::record::{Entry, Info, form, snapshot};
use crate::backend::Snapshot;
use crate::error::Result;
use crate::log::Log;

pub(super) struct Shared {
    pub(super) nodes: Arc<Nodes>,
    pub(super) options: BilibiliOptions,
    pub(super) log: Log,
}

impl Shared {
    /// One read of a name, and whether the node knows it.
    pub(super) async fn fetch(&self, name: &Arc<str>) -> Result<(Snapshot, bool)> {
        let query = form(&[("appid", name), ("env", &self.options.env), ("status", "1")]);
        let answer = self
            .nodes
            .read::<Info<Entry>>(&Call::get("/discovery/fetch", query))
            .await
            .map_err(|error| error.about(name))?;
        let is_known = answer.code == 0;
        let list = answer.data.map(|info| snapshot(&self.options, name, info));
        Ok((list.unwrap_or_default(), is_known)) // not known is empty
    }
}
