//! Why a campaign or a lock ended, for `lib/etcd/recipe.ts`, which makes the error.

use std::time::Duration;

use napi_derive::napi;
use rollcall_core::etcd::{Failure, Revocation};
use tokio::sync::watch;

use super::EtcdHandle;
use crate::call::ms;

#[napi(object, object_from_js = false, use_nullable = true)]
pub struct NativeFailure {
    #[napi(ts_type = "'lease' | 'key' | 'stalled' | 'taken' | 'over' | 'call'")]
    pub reason: &'static str,
    pub text: String,
    /// The lease that was lost; decimal.
    pub lease: Option<String>,
    /// Of a call: the failure as the pages carry it, in JSON.
    pub call: Option<String>,
}

impl NativeFailure {
    pub fn of<T>(result: Result<T, Failure>) -> Option<Self> {
        result.err().map(|failure| Self::from(&failure))
    }
}

impl From<&Failure> for NativeFailure {
    fn from(failure: &Failure) -> Self {
        let reason = match failure {
            Failure::LeaseLost { .. } => "lease",
            Failure::KeyGone(_) => "key",
            Failure::Stalled(_) => "stalled",
            Failure::Taken => "taken",
            Failure::Over => "over",
            Failure::Call(_) => "call",
        };
        Self {
            reason,
            text: failure.error().message().to_owned(),
            lease: match failure {
                Failure::LeaseLost { lease, .. } => Some(lease.to_string()),
                _ => None,
            },
            call: match failure {
                Failure::Call(fault) => Some(crate::pages::Failure::of(fault).json().to_owned()),
                _ => None,
            },
        }
    }
}

/// Waits until a lease is revoked; gives why it is not, so far.
pub async fn waited_for(revoked: Revocation, limit_ms: f64) -> Option<NativeFailure> {
    let done = if limit_ms > 0.0 {
        tokio::time::timeout(ms(limit_ms), revoked.wait()).await.ok()?
    } else {
        revoked.wait().await
    };
    done.err().map(|fault| NativeFailure::from(&Failure::Call(fault)))
}

/// The silence of the JavaScript thread to give up at; 0: none.
pub fn stall_of(client: &EtcdHandle, timeout_ms: f64) -> Option<(Duration, watch::Receiver<Duration>)> {
    (timeout_ms > 0.0).then(|| {
        let limit = ms(timeout_ms);
        (limit, client.stall.subscribe(limit))
    })
}
