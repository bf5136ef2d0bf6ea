//! What the store keeps of a slot, and where.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where the slots of a service lie: the keys of `im-infra`, and beside them ours.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub ids: Arc<str>,
    pub until: Arc<str>,
}

impl Places {
    pub fn of(service: &str) -> Self {
        let root = format!("/im-infra/allocators/{service}");
        Self {
            ids: format!("{root}/ids/").into(),
            until: format!("{root}/until/").into(),
        }
    }

    /// The key that stands while the holder of a slot lives. Its value is the number, as Go's allocator writes it.
    pub fn id(&self, n: u32) -> String {
        format!("{}{n}", self.ids)
    }

    /// The key that says up to when the holder may stamp. It outlives the holder.
    pub fn until(&self, n: u32) -> Arc<str> {
        format!("{}{n}", self.until).into()
    }
}

/// The number of a slot, as the last part of its key.
pub(super) fn number(part: &str) -> Option<u32> {
    let n: u32 = part.parse().ok()?;
    (n.to_string() == part).then_some(n)
}

/// The value of `until/{n}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The last millisecond that may be stamped, of the Unix epoch.
    pub until: i64,
    /// Drawn anew for each write, so that who wrote it knows it again, and a clone of the process does not.
    pub nonce: String,
    /// Who wrote it, for people.
    pub holder: String,
}

impl Record {
    /// The nonce is the operating system's: a cloned machine draws another one.
    pub fn new(until: i64, holder: &str) -> Self {
        Self {
            until,
            nonce: Uuid::new_v4().simple().to_string(),
            holder: holder.to_owned(),
        }
    }

    pub fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    pub fn bytes(&self) -> Box<[u8]> {
        serde_json::to_vec(self).unwrap_or_default().into() // text and a number
    }
}
