//! Worker ids, as JavaScript holds them.

use std::sync::{Arc, Mutex};

use napi::bindgen_prelude::PromiseRaw;
use napi::{Env, Result};
use napi_derive::napi;
use rollcall_core::registry::Registry;
use rollcall_core::slot::{Ask, Refusal, Slot};
use rollcall_core::sync::lock;
use rollcall_core::{Error, ErrorKind};
use tokio::time::Instant;

use crate::call::{CancelHandle, JsResult, ms, promise};
use crate::client::ClientHandle;
use crate::events::Mailbox;
use crate::failure::NativeFailure;
use crate::io::Io;

#[napi(object)]
pub struct NativeSlotOptions {
    pub service: String,
    /// How many there are.
    pub slots: u32,
    pub window_ms: f64,
    pub ttl_ms: f64,
    /// Who asks, for people.
    pub holder: String,
}

#[napi(object, object_from_js = false)]
pub struct NativeSlotRefusal {
    #[napi(ts_type = "'full' | 'clock'")]
    pub reason: &'static str,
    /// Where all are held: by whom.
    pub holders: Vec<String>,
    /// By how many milliseconds the clock is ahead.
    pub ahead_ms: f64,
}

#[napi(object, object_from_js = false, use_nullable = true)]
pub struct NativeSlotWindow {
    /// Grows when the slot is another one, or was somebody else's meanwhile.
    pub generation: u32,
    pub n: u32,
    /// What is stamped is after this millisecond.
    pub since: f64,
    /// And not after this one.
    pub until: f64,
    /// The clock is not believed.
    pub is_clock_off: bool,
    /// How often the clock was seen to have been set, and by how much the last time.
    pub steps: u32,
    pub step_ms: f64,
    /// Why the last extension failed.
    pub failure: Option<NativeFailure>,
}

/// One slot. Event: `slot`, when its window has changed.
#[napi]
pub struct SlotHandle {
    io: Arc<Io>,
    registry: Registry,
    mailbox: Arc<Mailbox>,
    id: u32,
    options: NativeSlotOptions,
    slot: Arc<Mutex<Option<Slot>>>,
}

#[napi]
impl ClientHandle {
    /// A slot that is not taken yet.
    #[napi(catch_unwind)]
    pub fn slot(&self, options: NativeSlotOptions) -> SlotHandle {
        SlotHandle {
            io: self.io.clone(),
            registry: self.registry.clone(),
            mailbox: self.mailbox.clone(),
            id: self.next_id(),
            options,
            slot: Arc::default(),
        }
    }
}

#[napi]
impl SlotHandle {
    /// What its event carries.
    #[napi(catch_unwind)]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Resolves when it is taken, or with why it is not.
    #[napi(catch_unwind, ts_return_type = "Promise<NativeSlotRefusal | null>")]
    pub fn take<'env>(
        &self,
        env: &'env Env,
        timeout_ms: f64,
        cancel: Option<&CancelHandle>,
    ) -> Result<PromiseRaw<'env, JsResult<Option<NativeSlotRefusal>>>> {
        let slots = self.registry.slots();
        let options = &self.options;
        let ask = Ask {
            service: options.service.as_str().into(),
            slots: options.slots,
            window: ms(options.window_ms),
            ttl: ms(options.ttl_ms),
            holder: options.holder.as_str().into(),
        };
        let deadline = Instant::now() + ms(timeout_ms);
        let (place, mailbox, id) = (self.slot.clone(), self.mailbox.clone(), self.id);
        promise(env, &self.io, cancel, "", async move {
            let on_change = Box::new(move || mailbox.put("slot", id, None));
            match slots?.take(ask, deadline, on_change).await {
                Ok(slot) => {
                    *lock(&place) = Some(slot);
                    Ok(None)
                }
                Err(Refusal::Full(holders)) => Ok(Some(refusal("full", holders, 0))),
                Err(Refusal::Clock(by)) => Ok(Some(refusal("clock", Vec::new(), by))),
                Err(Refusal::Over) => Err(Error::new(ErrorKind::Closed, "it was given back")),
                Err(Refusal::Call(error)) => Err(error),
            }
        })
    }

    #[napi(catch_unwind)]
    pub fn window(&self) -> Option<NativeSlotWindow> {
        let window = lock(&self.slot).as_ref().map(Slot::window)?;
        Some(NativeSlotWindow {
            generation: window.generation,
            n: window.n,
            since: exact(window.since),
            until: exact(window.until),
            is_clock_off: window.is_clock_off,
            steps: window.steps,
            step_ms: exact(window.step),
            failure: window.hindrance.as_ref().map(Into::into),
        })
    }

    /// Nothing is stamped from here on. The promise waits until that is written, for so long at most.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn release<'env>(
        &self,
        env: &'env Env,
        generation: u32,
        last: f64,
        limit_ms: f64,
    ) -> Result<PromiseRaw<'env, JsResult<()>>> {
        #[allow(clippy::cast_possible_truncation)] // a time in milliseconds
        let last = last as i64;
        let done = lock(&self.slot).as_ref().map(|slot| slot.release(generation, last));
        promise(env, &self.io, None, "", async move {
            let Some(done) = done else { return Ok(()) };
            tokio::time::timeout(ms(limit_ms), done)
                .await
                .unwrap_or_else(|_| Err(late(limit_ms)))
        })
    }
}

const fn refusal(reason: &'static str, holders: Vec<String>, ahead: i64) -> NativeSlotRefusal {
    NativeSlotRefusal {
        reason,
        holders,
        ahead_ms: exact(ahead),
    }
}

/// Exact for times in milliseconds.
#[allow(clippy::cast_precision_loss)]
const fn exact(ms: i64) -> f64 {
    ms as f64
}

fn late(limit_ms: f64) -> Error {
    let text = format!(
        "the store did not answer within {limit_ms} ms: the lease expires, and who comes next stamps after the window"
    );
    Error::new(ErrorKind::Timeout, text)
}
