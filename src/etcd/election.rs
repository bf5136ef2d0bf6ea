//! Campaigns and observers of elections, as JavaScript holds them.

use std::sync::Arc;

use napi::bindgen_prelude::{BigInt, Buffer, PromiseRaw};
use napi::{Env, Result};
use napi_derive::napi;
use rollcall_core::etcd::{Campaign, CampaignEvent, CampaignOptions, Leader, Naming, Observer, ObserverEvent, Place};

use super::EtcdHandle;
use super::campaign_failure::{NativeCampaignFailure, stall_of, waited_for};
use crate::call::{JsResult, ms, promise};
use crate::failure::NativeFailure;
use crate::io::Io;

#[napi(object, use_nullable = true)]
pub struct NativeCampaignOptions {
    /// What the keys of all candidates begin with.
    pub prefix: Buffer,
    #[napi(ts_type = "'decimal' | 'hex'")]
    pub naming: String,
    pub value: Buffer,
    pub ttl_ms: f64,
    pub again: bool,
    /// 0: off.
    pub stall_timeout_ms: f64,
}

/// Events: `elected`; `termLost` and `campaignFailed`, after which `failure()` says why.
#[napi]
pub struct CampaignHandle {
    io: Arc<Io>,
    campaign: Arc<Campaign>,
}

#[napi]
impl CampaignHandle {
    /// Starts a campaign whose events carry `id`.
    #[napi(factory, catch_unwind)]
    pub fn open(client: &EtcdHandle, id: u32, options: NativeCampaignOptions) -> Self {
        let _inside = client.io.handle().enter();
        let naming = if options.naming == "hex" {
            Naming::Hex
        } else {
            Naming::Decimal
        };
        let mailbox = client.mailbox.clone();
        let campaign = Campaign::start(
            &client.client.elections,
            CampaignOptions {
                place: Place::Queue {
                    prefix: options.prefix.into(),
                    naming,
                },
                value: options.value.into(),
                ttl: ms(options.ttl_ms),
                waits: true,
                again: options.again,
                attach: None,
                stall: stall_of(client, options.stall_timeout_ms),
            },
            Box::new(move |event| {
                let kind = match event {
                    CampaignEvent::Elected(_) => "elected",
                    CampaignEvent::Lost(_) => "termLost",
                    CampaignEvent::Failed(_) => "campaignFailed",
                };
                mailbox.put(kind, id, None);
            }),
        );
        Self {
            io: client.io.clone(),
            campaign: Arc::new(campaign),
        }
    }

    #[napi(
        catch_unwind,
        ts_return_type = "'granting' | 'waiting' | 'leading' | 'resigned' | 'failed'"
    )]
    pub fn state(&self) -> &'static str {
        self.campaign.state().as_str()
    }

    /// Whether it leads at this moment, by the clock.
    #[napi(catch_unwind)]
    pub fn is_leading(&self) -> bool {
        self.campaign.is_leading()
    }

    #[napi(catch_unwind)]
    pub fn revision(&self) -> Option<BigInt> {
        self.campaign.revision().map(BigInt::from)
    }

    /// The key of the present term, or of the last one.
    #[napi(catch_unwind)]
    pub fn key(&self) -> Option<Buffer> {
        self.campaign.lease_and_key().map(|(_, key)| key.into())
    }

    /// The lease of the present term, or of the last one.
    #[napi(catch_unwind)]
    pub fn lease(&self) -> Option<BigInt> {
        self.campaign.lease_and_key().map(|(lease, _)| BigInt::from(lease))
    }

    /// Why the last term or the campaign ended.
    #[napi(catch_unwind)]
    pub fn failure(&self) -> Option<NativeCampaignFailure> {
        self.campaign
            .failure()
            .map(|failure| NativeCampaignFailure::from(&failure))
    }

    /// Resolves when the key is known, or with why it never will be.
    #[napi(catch_unwind, ts_return_type = "Promise<NativeCampaignFailure | null>")]
    pub fn granted<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, JsResult<Option<NativeCampaignFailure>>>> {
        let campaign = self.campaign.clone();
        promise(env, &self.io, None, "campaign", async move {
            Ok(NativeCampaignFailure::of(campaign.key().await))
        })
    }

    #[napi(catch_unwind, ts_return_type = "Promise<NativeCampaignFailure | null>")]
    pub fn proclaim<'env>(
        &self,
        env: &'env Env,
        value: Buffer,
    ) -> Result<PromiseRaw<'env, JsResult<Option<NativeCampaignFailure>>>> {
        let (campaign, value) = (self.campaign.clone(), value.to_vec());
        promise(env, &self.io, None, "proclaim", async move {
            Ok(NativeCampaignFailure::of(campaign.proclaim(value).await))
        })
    }

    /// Over from here on; the promise waits for the revocation of the lease, for so long at most; 0: no limit.
    #[napi(catch_unwind, ts_return_type = "Promise<NativeCampaignFailure | null>")]
    pub fn resign<'env>(
        &self,
        env: &'env Env,
        limit_ms: f64,
    ) -> Result<PromiseRaw<'env, JsResult<Option<NativeCampaignFailure>>>> {
        let revoked = self.campaign.begin_resign();
        promise(env, &self.io, None, "resign", async move {
            Ok(waited_for(revoked, limit_ms).await)
        })
    }
}

#[napi(object, object_from_js = false)]
pub struct NativeLeader {
    pub key: Buffer,
    pub value: Buffer,
    pub revision: BigInt,
}

impl From<Leader> for NativeLeader {
    fn from(leader: Leader) -> Self {
        Self {
            key: leader.key.into(),
            value: leader.value.into(),
            revision: BigInt::from(leader.revision),
        }
    }
}

/// Events: `leader`, after which `leader()` says who; `leaderUnknown` when the watch dropped, and `observerFailed`, both
/// with a failure.
#[napi]
pub struct ObserverHandle {
    observer: Observer,
}

#[napi]
impl ObserverHandle {
    /// Observes the election whose candidates' keys begin with `prefix`; events carry `id`.
    #[napi(factory, catch_unwind)]
    pub fn open(client: &EtcdHandle, id: u32, prefix: Buffer) -> Self {
        let _inside = client.io.handle().enter();
        let mailbox = client.mailbox.clone();
        let observer = Observer::start(
            &client.client.elections,
            prefix.into(),
            Box::new(move |event| match event {
                ObserverEvent::Changed => mailbox.put("leader", id, None),
                ObserverEvent::Disconnected(fault) => {
                    mailbox.put_failure("leaderUnknown", id, NativeFailure::from(&fault));
                }
                ObserverEvent::Failed(fault) => {
                    mailbox.put_failure("observerFailed", id, NativeFailure::from(&fault));
                }
            }),
        );
        Self { observer }
    }

    #[napi(catch_unwind)]
    pub fn leader(&self) -> Option<NativeLeader> {
        self.observer.leader().map(NativeLeader::from)
    }

    /// Nothing is observed from here on.
    #[napi(catch_unwind)]
    pub fn close(&self) {
        self.observer.close();
    }
}
