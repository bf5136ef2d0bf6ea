//! Why a campaign or a lock ended, for `lib/etcd/recipes/settings.ts`, which makes the error.

use napi_derive::napi;
use rollcall_core::etcd::{CampaignFailure, Revocation};
use rollcall_core::stall::Stall;

use super::EtcdHandle;
use crate::call::ms;
use crate::failure::NativeFailure;

#[napi(object, object_from_js = false, use_nullable = true)]
pub struct NativeCampaignFailure {
    #[napi(ts_type = "'lease' | 'key' | 'stalled' | 'taken' | 'over' | 'call'")]
    pub reason: &'static str,
    pub text: String,
    /// The lease that was lost; decimal.
    pub lease: Option<String>,
    /// Of a call: what went wrong.
    pub call: Option<NativeFailure>,
}

impl NativeCampaignFailure {
    pub fn of<T>(result: Result<T, CampaignFailure>) -> Option<Self> {
        result.err().map(|failure| Self::from(&failure))
    }
}

impl From<&CampaignFailure> for NativeCampaignFailure {
    fn from(failure: &CampaignFailure) -> Self {
        let reason = match failure {
            CampaignFailure::LeaseLost { .. } => "lease",
            CampaignFailure::KeyGone(_) => "key",
            CampaignFailure::Stalled(_) => "stalled",
            CampaignFailure::Taken => "taken",
            CampaignFailure::Over => "over",
            CampaignFailure::Call(_) => "call",
        };
        Self {
            reason,
            text: failure.error().message().to_owned(),
            lease: match failure {
                CampaignFailure::LeaseLost { lease, .. } => Some(lease.to_string()),
                _ => None,
            },
            call: match failure {
                CampaignFailure::Call(fault) => Some(NativeFailure::from(fault)),
                _ => None,
            },
        }
    }
}

/// Waits until a lease is revoked; gives why it is not, so far.
pub async fn waited_for(revoked: Revocation, limit_ms: f64) -> Option<NativeCampaignFailure> {
    let done = if limit_ms > 0.0 {
        tokio::time::timeout(ms(limit_ms), revoked.wait()).await.ok()?
    } else {
        revoked.wait().await
    };
    done.err()
        .map(|fault| NativeCampaignFailure::from(&CampaignFailure::Call(fault)))
}

/// The silence of the JavaScript thread to give up at; 0: none.
pub fn stall_of(client: &EtcdHandle, timeout_ms: f64) -> Option<Stall> {
    (timeout_ms > 0.0).then(|| client.stall.limit(ms(timeout_ms)))
}
