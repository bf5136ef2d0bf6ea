//! Locks, as JavaScript holds them.

use std::sync::{Arc, Mutex};

use napi::bindgen_prelude::{BigInt, Buffer, PromiseRaw};
use napi::{Env, Result};
use napi_derive::napi;
use rollcall_core::etcd::{CampaignFailure, EtcdClient, Lock, LockOptions};
use rollcall_core::sync::lock;
use tokio::time::Instant;

use super::EtcdHandle;
use super::campaign_failure::{NativeCampaignFailure, stall_of, waited_for};
use crate::call::{CancelHandle, JsResult, ms, promise};
use crate::events::Mailbox;
use crate::io::Io;

#[napi(object, use_nullable = true)]
pub struct NativeLockOptions {
    pub name: Buffer,
    /// Go's lock, or else etcd3's.
    pub queue: bool,
    pub waits: bool,
    pub ttl_ms: f64,
    /// Goes on with the key of this lease; decimal.
    pub attach: Option<String>,
    /// 0: off.
    pub stall_timeout_ms: f64,
}

/// One acquisition of a lock. Event: `lockLost`, after which `failure()` says why.
#[napi]
pub struct LockHandle {
    io: Arc<Io>,
    client: EtcdClient,
    mailbox: Arc<Mailbox>,
    id: u32,
    options: LockOptions,
    held: Arc<Mutex<Held>>,
}

#[derive(Default)]
struct Held {
    lock: Option<Arc<Lock>>,
    failure: Option<CampaignFailure>,
}

#[napi]
impl LockHandle {
    /// A lock that is not held yet; its event carries `id`.
    #[napi(factory, catch_unwind)]
    pub fn open(client: &EtcdHandle, id: u32, options: NativeLockOptions) -> Self {
        let _inside = client.io.handle().enter();
        Self {
            io: client.io.clone(),
            client: client.client.clone(),
            mailbox: client.mailbox.clone(),
            id,
            options: LockOptions {
                name: options.name.into(),
                queue: options.queue,
                waits: options.waits,
                ttl: ms(options.ttl_ms),
                attach: options.attach.and_then(|id| id.parse().ok()),
                stall: stall_of(client, options.stall_timeout_ms),
            },
            held: Arc::default(),
        }
    }

    /// Resolves when it is held, or with why it is not. `timeout_ms` 0: no limit.
    #[napi(catch_unwind, ts_return_type = "Promise<NativeCampaignFailure | null>")]
    pub fn acquire<'env>(
        &self,
        env: &'env Env,
        timeout_ms: f64,
        cancel: Option<&CancelHandle>,
    ) -> Result<PromiseRaw<'env, JsResult<Option<NativeCampaignFailure>>>> {
        let (client, options) = (self.client.clone(), self.options.clone());
        let (held, lost) = (self.held.clone(), self.held.clone());
        let (mailbox, id) = (self.mailbox.clone(), self.id);
        let deadline = (timeout_ms > 0.0).then(|| Instant::now() + ms(timeout_ms));
        promise(env, &self.io, cancel, "acquire", async move {
            let on_lost = Box::new(move |failure| {
                lock(&lost).failure = Some(failure);
                mailbox.put("lockLost", id, None);
            });
            match Lock::acquire(&client.elections, options, deadline, on_lost).await {
                Ok(acquired) => {
                    lock(&held).lock = Some(Arc::new(acquired));
                    Ok(None)
                }
                Err(failure) => Ok(Some(NativeCampaignFailure::from(&failure))),
            }
        })
    }

    /// Whether it is held at this moment, by the clock.
    #[napi(catch_unwind)]
    pub fn is_held(&self) -> bool {
        self.lock().is_some_and(|lock| lock.is_held())
    }

    #[napi(catch_unwind)]
    pub fn lease(&self) -> Option<BigInt> {
        self.lock().map(|lock| BigInt::from(lock.lease))
    }

    #[napi(catch_unwind)]
    pub fn revision(&self) -> Option<BigInt> {
        self.lock().map(|lock| BigInt::from(lock.revision))
    }

    #[napi(catch_unwind)]
    pub fn key(&self) -> Option<Buffer> {
        self.lock().map(|lock| lock.key.clone().into())
    }

    /// Why it was lost.
    #[napi(catch_unwind)]
    pub fn failure(&self) -> Option<NativeCampaignFailure> {
        lock(&self.held).failure.as_ref().map(NativeCampaignFailure::from)
    }

    /// Not held from here on; the promise waits for the revocation of the lease, for so long at most; 0: no limit.
    #[napi(catch_unwind, ts_return_type = "Promise<NativeCampaignFailure | null>")]
    pub fn release<'env>(
        &self,
        env: &'env Env,
        limit_ms: f64,
    ) -> Result<PromiseRaw<'env, JsResult<Option<NativeCampaignFailure>>>> {
        let revoked = self.lock().map(|lock| lock.begin_release());
        promise(env, &self.io, None, "release", async move {
            let Some(revoked) = revoked else { return Ok(None) };
            Ok(waited_for(revoked, limit_ms).await)
        })
    }

    fn lock(&self) -> Option<Arc<Lock>> {
        lock(&self.held).lock.clone()
    }
}
