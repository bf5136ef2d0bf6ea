//! A pair of a store, and its revision, as JavaScript has them.

use napi_derive::napi;
use rollcall_core::store::{Moment, Pair};

#[napi(object, object_from_js = false)]
pub struct NativePair {
    pub key: String,
    /// Bytes that are no UTF-8 are U+FFFD in it.
    pub text: String,
    /// Whether there are none such.
    pub is_text: bool,
    pub revision: f64,
}

impl From<&Pair> for NativePair {
    fn from(pair: &Pair) -> Self {
        Self {
            key: pair.key.to_string(),
            text: String::from_utf8_lossy(&pair.value).into_owned(),
            is_text: std::str::from_utf8(&pair.value).is_ok(),
            revision: exact(pair.revision),
        }
    }
}

pub fn revision_of(moment: Moment) -> f64 {
    exact(moment.revision)
}

/// Exact up to 2^53 revisions.
#[allow(clippy::cast_precision_loss)]
fn exact(revision: i64) -> f64 {
    revision as f64
}
