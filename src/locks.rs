//! Locks, as JavaScript holds them.

use std::sync::{Arc, Mutex};

use napi::bindgen_prelude::{BigInt, PromiseRaw};
use napi::{Env, Result};
use napi_derive::napi;
use rollcall_core::queue::{Ask, Failure, Held, Kind};
use rollcall_core::registry::Registry;
use rollcall_core::sync::lock;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::call::{CancelHandle, JsResult, ms, promise};
use crate::client::ClientHandle;
use crate::events::Mailbox;
use crate::failure::NativeFailure;
use crate::io::Io;

#[napi(object)]
pub struct NativeHoldOptions {
    /// What the keys begin with, without the slash at the end.
    pub path: String,
    #[napi(ts_type = "'mutex' | 'read' | 'write' | 'semaphore'")]
    pub kind: String,
    /// Of a semaphore.
    pub permits: u32,
    /// What others see of the holder.
    pub value: String,
    pub waits: bool,
    pub ttl_ms: f64,
    /// 0: off.
    pub stall_timeout_ms: f64,
}

#[napi(object, object_from_js = false, use_nullable = true)]
pub struct NativeHoldFailure {
    #[napi(ts_type = "'lost' | 'stalled' | 'taken' | 'late' | 'over' | 'call'")]
    pub reason: &'static str,
    pub text: String,
    /// Of a call: what went wrong.
    pub call: Option<NativeFailure>,
}

/// One lock that is held or waited for. Event: `lockLost`, after which `failure()` says why.
#[napi]
pub struct HoldHandle {
    io: Arc<Io>,
    registry: Registry,
    mailbox: Arc<Mailbox>,
    id: u32,
    options: NativeHoldOptions,
    permits: watch::Sender<usize>,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Default)]
struct Inside {
    held: Option<Arc<Held>>,
    failure: Option<NativeHoldFailure>,
}

#[napi]
impl ClientHandle {
    /// A lock that is not held yet.
    #[napi(catch_unwind)]
    pub fn hold(&self, options: NativeHoldOptions) -> HoldHandle {
        HoldHandle {
            io: self.io.clone(),
            registry: self.registry.clone(),
            mailbox: self.mailbox.clone(),
            id: self.next_id(),
            permits: watch::Sender::new(options.permits as usize),
            options,
            inside: Arc::default(),
        }
    }

    /// Who leads below a path: at once where `known` is false or it is another than who is given (`null`: nobody), else as soon
    /// as it is.
    #[napi(catch_unwind, ts_return_type = "Promise<NativeElected | null>")]
    pub fn next_leader<'env>(
        &self,
        env: &'env Env,
        path: String,
        known: bool,
        seen: Option<NativeSeen>,
        cancel: Option<&CancelHandle>,
    ) -> Result<PromiseRaw<'env, JsResult<Option<NativeElected>>>> {
        let queues = self.registry.queues();
        let seen = seen.map(|seen| (seen.token.get_i64().0, seen.value));
        promise(env, &self.io, cancel, "", async move {
            let seen = seen.as_ref().map(|(token, value)| (*token, value.as_bytes()));
            let leader = queues?.leader_after(&path, known.then_some(seen)).await?;
            Ok(leader.map(|leader| NativeElected {
                key: leader.key.to_string(),
                value: String::from_utf8_lossy(&leader.value).into_owned(),
                token: BigInt::from(leader.created),
            }))
        })
    }
}

#[napi(object, object_to_js = false)]
pub struct NativeSeen {
    pub token: BigInt,
    pub value: String,
}

#[napi(object, object_from_js = false)]
pub struct NativeElected {
    pub key: String,
    pub value: String,
    pub token: BigInt,
}

#[napi]
impl HoldHandle {
    /// What its event carries.
    #[napi(catch_unwind)]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Resolves when it is held, or with why it is not. `timeout_ms` 0: no limit.
    #[napi(catch_unwind, ts_return_type = "Promise<NativeHoldFailure | null>")]
    pub fn acquire<'env>(
        &self,
        env: &'env Env,
        timeout_ms: f64,
        cancel: Option<&CancelHandle>,
    ) -> Result<PromiseRaw<'env, JsResult<Option<NativeHoldFailure>>>> {
        let queues = self.registry.queues();
        let ask = self.ask();
        let (inside, lost) = (self.inside.clone(), self.inside.clone());
        let (mailbox, id) = (self.mailbox.clone(), self.id);
        let deadline = (timeout_ms > 0.0).then(|| Instant::now() + ms(timeout_ms));
        promise(env, &self.io, cancel, "", async move {
            let on_lost = Box::new(move |failure: &Failure| {
                lock(&lost).failure = Some(failure.into());
                mailbox.put("lockLost", id, None);
            });
            match queues?.acquire(ask, deadline, on_lost).await {
                Ok(held) => {
                    lock(&inside).held = Some(Arc::new(held));
                    Ok(None)
                }
                Err(Failure::Call(error)) => Err(error),
                Err(failure) => Ok(Some((&failure).into())),
            }
        })
    }

    /// How many may hold a semaphore from now on, as long as it is waited for.
    #[napi(catch_unwind)]
    pub fn permit(&self, permits: u32) {
        self.permits.send_replace(permits as usize);
    }

    /// Whether it is held at this moment, by the clock.
    #[napi(catch_unwind)]
    pub fn is_held(&self) -> bool {
        self.held().is_some_and(|held| held.is_held())
    }

    /// How long it can be vouched for, in milliseconds.
    #[napi(catch_unwind)]
    pub fn remaining_ms(&self) -> f64 {
        self.held().map_or(0.0, |held| held.remaining().as_secs_f64() * 1000.0)
    }

    #[napi(catch_unwind)]
    pub fn token(&self) -> Option<BigInt> {
        self.held().map(|held| BigInt::from(held.token()))
    }

    #[napi(catch_unwind)]
    pub fn key(&self) -> Option<String> {
        self.held().map(|held| held.key().to_owned())
    }

    /// Why it was lost.
    #[napi(catch_unwind)]
    pub fn failure(&self) -> Option<NativeHoldFailure> {
        lock(&self.inside).failure.take()
    }

    /// Not held from here on; the promise waits for the end of the lease in the store, for so long at most.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn release<'env>(&self, env: &'env Env, limit_ms: f64) -> Result<PromiseRaw<'env, JsResult<()>>> {
        let _inside = self.io.handle().enter();
        let ending = self.held().map(|held| held.begin_release());
        promise(env, &self.io, None, "", async move {
            let Some(ending) = ending else { return Ok(()) };
            tokio::time::timeout(ms(limit_ms), ending.wait())
                .await
                .unwrap_or_else(|_| Err(late(limit_ms)))
        })
    }

    fn held(&self) -> Option<Arc<Held>> {
        lock(&self.inside).held.clone()
    }

    fn ask(&self) -> Ask {
        let options = &self.options;
        let _inside = self.io.handle().enter(); // the stall guard may start a task
        Ask {
            path: options.path.as_str().into(),
            kind: match options.kind.as_str() {
                "read" => Kind::Read,
                "write" => Kind::Write,
                "semaphore" => Kind::Semaphore,
                _ => Kind::Mutex,
            },
            permits: self.permits.subscribe(),
            value: options.value.as_bytes().into(),
            ttl: ms(options.ttl_ms),
            waits: options.waits,
            stall: self.registry.stall(ms(options.stall_timeout_ms)),
        }
    }
}

fn late(limit_ms: f64) -> rollcall_core::Error {
    let text = format!(
        "the store did not answer within {limit_ms} ms; it is tried again, and the lease expires at the latest"
    );
    rollcall_core::Error::new(rollcall_core::ErrorKind::Timeout, text)
}

impl From<&Failure> for NativeHoldFailure {
    fn from(failure: &Failure) -> Self {
        let (reason, text) = match failure {
            Failure::Lost(why) => ("lost", why.clone()),
            Failure::Stalled(silence) => {
                let text = format!(
                    "given up: the JavaScript thread was silent for {} ms",
                    silence.as_millis()
                );
                ("stalled", text)
            }
            Failure::Taken => ("taken", "it is held by someone else".to_owned()),
            Failure::Late => ("late", "it was not free in the time given".to_owned()),
            Failure::Over => ("over", "it was released".to_owned()),
            Failure::Call(error) => ("call", error.message().to_owned()),
        };
        let call = match failure {
            Failure::Call(error) => Some(error.into()),
            _ => None,
        };
        Self { reason, text, call }
    }
}
