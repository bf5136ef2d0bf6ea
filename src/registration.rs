//! One registration, as JavaScript holds it.

use std::sync::{Arc, Mutex};

use napi::bindgen_prelude::{Object, PromiseRaw};
use napi::{Env, Result};
use napi_derive::napi;
use rollcall_core::registration::{Event, OnEvent, OutReason, Patch, Registration};
use rollcall_core::sync::lock;

use crate::call::{CancelHandle, JsResult, ms, promise};
use crate::convert::{boxed, to_object};
use crate::events::Mailbox;
use crate::io::Io;

/// Holds the events of a registration back until JavaScript knows its id.
pub struct Gate {
    id: u32,
    mailbox: Arc<Mailbox>,
    /// `None` once it is open.
    early: Mutex<Option<Vec<Event>>>,
}

impl Gate {
    fn pass(&self, event: Event) {
        let mut early = lock(&self.early);
        match &mut *early {
            Some(waiting) => waiting.push(event),
            None => self.put(event),
        }
    }

    fn open(&self) {
        let early = lock(&self.early).take();
        early.into_iter().flatten().for_each(|event| self.put(event));
    }

    fn put(&self, event: Event) {
        match event {
            Event::Lost(reason) => self.mailbox.put("lost", self.id, Some(reason)),
            Event::Restored => self.mailbox.put("restored", self.id, None),
            Event::Replaced => self.mailbox.put("replaced", self.id, None),
            Event::Out(reason, all) => {
                let all: Vec<&str> = all.iter().map(OutReason::as_str).collect();
                self.mailbox
                    .put_about("out", self.id, reason.as_str().to_owned(), all.join(","));
            }
            Event::In => self.mailbox.put("in", self.id, None),
        }
    }
}

/// The gate of a new registration and what core calls with its events.
pub fn events_of(id: u32, mailbox: Arc<Mailbox>) -> (Arc<Gate>, OnEvent) {
    let gate = Arc::new(Gate {
        id,
        mailbox,
        early: Mutex::new(Some(Vec::new())),
    });
    let inner = gate.clone();
    (gate, Box::new(move |event| inner.pass(event)))
}

#[napi]
pub struct RegistrationHandle {
    io: Arc<Io>,
    registration: Registration,
    gate: Arc<Gate>,
}

impl RegistrationHandle {
    pub fn new(io: Arc<Io>, registration: Registration, gate: Arc<Gate>) -> Self {
        Self { io, registration, gate }
    }
}

#[napi]
impl RegistrationHandle {
    /// The id that its events carry. Events come only after the first call.
    #[napi(catch_unwind)]
    pub fn id(&self) -> u32 {
        self.gate.open();
        self.gate.id
    }

    #[napi(catch_unwind, ts_return_type = "NativeInstance")]
    pub fn instance<'env>(&self, env: &'env Env) -> Result<Object<'env>> {
        to_object(env, &self.registration.instance())
    }

    #[napi(
        catch_unwind,
        ts_return_type = "'registering' | 'registered' | 'lost' | 'stalled' | 'out' | 'replaced' | 'deregistering' | 'deregistered'"
    )]
    pub fn state(&self) -> &'static str {
        self.registration.state().as_str()
    }

    /// How often it was tried up to now to publish it and to remove it.
    #[napi(catch_unwind)]
    pub fn attempts(&self) -> u32 {
        self.registration.attempts()
    }

    /// What holds it out of traffic.
    #[napi(
        catch_unwind,
        ts_return_type = "Array<'stalled' | 'withdrawn' | 'unhealthy' | 'draining'>"
    )]
    pub fn out_for(&self) -> Vec<&'static str> {
        self.registration.out_for().iter().map(OutReason::as_str).collect()
    }

    /// Out of traffic for this reason, `'withdrawn'` or `'unhealthy'`.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn withdraw<'env>(
        &self,
        env: &'env Env,
        reason: String,
        timeout_ms: f64,
        cancel: Option<&CancelHandle>,
    ) -> Result<PromiseRaw<'env, JsResult<()>>> {
        let registration = self.registration.clone();
        let begun = begun(&reason, |reason| registration.begin_withdraw(reason));
        promise(env, &self.io, cancel, "withdraw", async move {
            registration.withdrawn(begun?, ms(timeout_ms)).await
        })
    }

    /// Takes the reason back.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn restore<'env>(
        &self,
        env: &'env Env,
        reason: String,
        timeout_ms: f64,
        cancel: Option<&CancelHandle>,
    ) -> Result<PromiseRaw<'env, JsResult<()>>> {
        let registration = self.registration.clone();
        let begun = begun(&reason, |reason| registration.begin_restore(reason));
        promise(env, &self.io, cancel, "restore", async move {
            registration.restored(begun?, ms(timeout_ms)).await
        })
    }

    /// Out of traffic, a wait, and the end.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn drain<'env>(&self, env: &'env Env, wait_ms: f64, timeout_ms: f64) -> Result<PromiseRaw<'env, JsResult<()>>> {
        let registration = self.registration.clone();
        let begun = registration.begin_withdraw(OutReason::Draining);
        promise(env, &self.io, None, "drain", async move {
            begun?;
            registration.drained(ms(wait_ms), ms(timeout_ms)).await
        })
    }

    /// Replaces the fields that are not null.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn update<'env>(
        &self,
        env: &'env Env,
        version: Option<String>,
        metadata: Option<std::collections::HashMap<String, String>>,
        endpoints: Option<Vec<String>>,
        timeout_ms: f64,
        cancel: Option<&CancelHandle>,
    ) -> Result<PromiseRaw<'env, JsResult<()>>> {
        let registration = self.registration.clone();
        promise(env, &self.io, cancel, "update", async move {
            let patch = Patch {
                version: version.map(Into::into),
                metadata: metadata.map(|pairs| pairs.into_iter().collect()),
                endpoints: endpoints.map(boxed),
            };
            registration.update(patch, ms(timeout_ms)).await
        })
    }

    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn deregister<'env>(
        &self,
        env: &'env Env,
        drain_ms: f64,
        timeout_ms: f64,
    ) -> Result<PromiseRaw<'env, JsResult<()>>> {
        let registration = self.registration.clone();
        promise(env, &self.io, None, "deregister", async move {
            let first = !registration.state().is_final();
            registration.deregister(ms(timeout_ms)).await?;
            if first {
                tokio::time::sleep(ms(drain_ms)).await;
            }
            Ok(())
        })
    }
}

/// What a program asks for by a reason is begun at once, so that `outFor` says so.
fn begun(reason: &str, begin: impl FnOnce(OutReason) -> rollcall_core::Result<()>) -> rollcall_core::Result<OutReason> {
    let reason = OutReason::of_program(reason)?;
    begin(reason)?;
    Ok(reason)
}
