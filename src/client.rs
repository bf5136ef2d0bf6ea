//! One client: opens a backend, carries its calls, hands out registrations and watchers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use napi::bindgen_prelude::{Function, PromiseRaw};
use napi::{Env, Result};
use napi_derive::napi;
use rollcall_core::backend::Backend;
use rollcall_core::log::Log;
use rollcall_core::metrics::Calls;
use rollcall_core::registry::{Hooks, RegisterOptions, Registry};
use rollcall_core::status::Status;

use crate::alive::KeepAlive;
use crate::backends::{self, NativeOptions};
use crate::call::{CancelHandle, JsResult, ms, promise};
use crate::convert::{ListOut, NativeInstance};
use crate::events::{Mailbox, NativeEvent};
use crate::failure::NativeFailure;
use crate::io::Io;
use crate::registration::{RegistrationHandle, events_of};
use crate::watcher::{ServicesWatcherHandle, WatcherHandle};

#[napi]
pub struct ClientHandle {
    pub(crate) io: Arc<Io>,
    pub(crate) registry: Registry,
    pub(crate) mailbox: Arc<Mailbox>,
    ids: AtomicU32,
    alive: KeepAlive,
}

#[napi(object, object_from_js = false)]
#[allow(clippy::struct_excessive_bools)] // mirrors the public type
pub struct NativeCapabilities {
    pub register: bool,
    pub expires: bool,
    pub owners: bool,
    pub keeps_id: bool,
    pub lists_names: bool,
    pub counts_names: bool,
    pub one_registration: bool,
    pub settles_ms: f64,
    pub since: bool,
    pub expires_in: bool,
    pub leaving_reason: bool,
    pub own_switch: bool,
}

#[napi(object, object_from_js = false)]
pub struct NativeMetrics {
    pub registered: f64,
    pub out: f64,
    pub attempts: f64,
    pub failed_attempts: f64,
    pub losses: f64,
    pub repairs: f64,
    pub replaced: f64,
    pub followed: f64,
    pub stale: f64,
    pub reads: f64,
    pub breaks: f64,
    pub lists: f64,
    pub get_service: NativeCalls,
    pub services: NativeCalls,
}

#[napi(object, object_from_js = false)]
pub struct NativeCalls {
    pub calls: f64,
    pub failed: f64,
}

#[napi(object)]
pub struct NativeRegisterOptions {
    pub background: bool,
    pub timeout_ms: f64,
    pub stall_timeout_ms: f64,
}

#[napi]
impl ClientHandle {
    /// A client; no I/O. `wake` is called, many events at once, when `drain()` has something to give or a sign of life
    /// is asked for: always answer it with `drain()`.
    #[napi(factory, catch_unwind)]
    pub fn open(env: Env, options: NativeOptions, wake: Function<'_, (), ()>) -> Result<Self> {
        Self::of(env, options, wake, backends::open)
    }

    #[napi(catch_unwind)]
    pub fn capabilities(&self) -> NativeCapabilities {
        let capabilities = self.registry.capabilities();
        NativeCapabilities {
            register: capabilities.register,
            expires: capabilities.expires,
            owners: capabilities.owners,
            keeps_id: capabilities.keeps_id,
            lists_names: capabilities.lists_names,
            counts_names: capabilities.counts_names,
            one_registration: capabilities.one_registration,
            settles_ms: capabilities.settles.as_secs_f64() * 1000.0,
            since: capabilities.since,
            expires_in: capabilities.expires_in,
            leaving_reason: capabilities.leaving_reason,
            own_switch: capabilities.own_switch,
        }
    }

    #[napi(catch_unwind)]
    pub fn metrics(&self) -> NativeMetrics {
        let metrics = self.registry.metrics();
        NativeMetrics {
            registered: count(metrics.registered),
            out: count(metrics.out),
            attempts: count(metrics.attempts),
            failed_attempts: count(metrics.failed_attempts),
            losses: count(metrics.losses),
            repairs: count(metrics.repairs),
            replaced: count(metrics.replaced),
            followed: count(metrics.followed),
            stale: count(metrics.stale),
            reads: count(metrics.reads),
            breaks: count(metrics.breaks),
            lists: count(metrics.lists),
            get_service: metrics.get_service.into(),
            services: metrics.services.into(),
        }
    }

    #[napi(
        catch_unwind,
        ts_return_type = "'connecting' | 'connected' | 'disconnected' | 'closed'"
    )]
    pub fn status(&self) -> &'static str {
        self.registry.status().as_str()
    }

    /// How long the answer took, in milliseconds.
    #[napi(catch_unwind, ts_return_type = "Promise<number>")]
    pub fn ping<'env>(
        &self,
        env: &'env Env,
        timeout_ms: f64,
        cancel: Option<&CancelHandle>,
    ) -> Result<PromiseRaw<'env, JsResult<f64>>> {
        let registry = self.registry.clone();
        promise(env, &self.io, cancel, "ping", async move {
            let took = registry.ping(ms(timeout_ms)).await?;
            Ok(took.as_secs_f64() * 1000.0)
        })
    }

    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn ready<'env>(
        &self,
        env: &'env Env,
        timeout_ms: f64,
        cancel: Option<&CancelHandle>,
    ) -> Result<PromiseRaw<'env, JsResult<()>>> {
        let registry = self.registry.clone();
        promise(env, &self.io, cancel, "ready", async move {
            registry.ready(ms(timeout_ms)).await
        })
    }

    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn contact<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&CancelHandle>,
    ) -> Result<PromiseRaw<'env, JsResult<()>>> {
        let registry = self.registry.clone();
        promise(
            env,
            &self.io,
            cancel,
            "connect",
            async move { registry.contact().await },
        )
    }

    #[napi(catch_unwind, ts_return_type = "Promise<RegistrationHandle>")]
    pub fn register<'env>(
        &self,
        env: &'env Env,
        instance: NativeInstance,
        options: NativeRegisterOptions,
        cancel: Option<&CancelHandle>,
    ) -> Result<PromiseRaw<'env, JsResult<RegistrationHandle>>> {
        let (registry, io) = (self.registry.clone(), self.io.clone());
        let id = self.next_id();
        let (gate, on_event) = events_of(id, self.mailbox.clone());
        promise(env, &self.io, cancel, "register", async move {
            let options = RegisterOptions {
                background: options.background,
                timeout: ms(options.timeout_ms),
                stall_timeout: ms(options.stall_timeout_ms),
            };
            let registration = registry.register(instance.into(), options, on_event).await?;
            Ok(RegistrationHandle::new(io, registration, gate))
        })
    }

    /// The instances of a name, by one read of the server.
    #[napi(catch_unwind, ts_return_type = "Promise<Array<NativeInstance>>")]
    pub fn get_service<'env>(
        &self,
        env: &'env Env,
        name: String,
        consistent: bool,
        timeout_ms: f64,
        cancel: Option<&CancelHandle>,
    ) -> Result<PromiseRaw<'env, JsResult<ListOut>>> {
        let registry = self.registry.clone();
        promise(env, &self.io, cancel, "getService", async move {
            registry
                .get_service(&name, consistent, ms(timeout_ms))
                .await
                .map(ListOut)
        })
    }

    #[napi(catch_unwind, ts_return_type = "Promise<Array<string>>")]
    pub fn services<'env>(
        &self,
        env: &'env Env,
        consistent: bool,
        timeout_ms: f64,
        cancel: Option<&CancelHandle>,
    ) -> Result<PromiseRaw<'env, JsResult<Vec<String>>>> {
        let registry = self.registry.clone();
        promise(env, &self.io, cancel, "services", async move {
            registry.services(consistent, ms(timeout_ms)).await
        })
    }

    #[napi(catch_unwind)]
    pub fn watch(&self, env: Env, name: String) -> Result<WatcherHandle> {
        let _inside = self.io.handle().enter();
        match self.registry.watch(&name) {
            Ok(watcher) => {
                let id = self.next_id();
                Ok(WatcherHandle::start(id, &watcher, self.mailbox.clone(), &self.io))
            }
            Err(error) => Err(NativeFailure::from(&error).thrown(env)),
        }
    }

    #[napi(catch_unwind)]
    pub fn watch_services(&self, env: Env) -> Result<ServicesWatcherHandle> {
        let _inside = self.io.handle().enter();
        match self.registry.watch_services() {
            Ok(watcher) => {
                let id = self.next_id();
                let mailbox = self.mailbox.clone();
                Ok(ServicesWatcherHandle::start(id, &watcher, mailbox, &self.io))
            }
            Err(error) => Err(NativeFailure::from(&error).thrown(env)),
        }
    }

    #[napi(catch_unwind)]
    pub fn drain(&self, most: u32) -> Vec<NativeEvent> {
        self.mailbox.drain(most as usize)
    }

    /// From here the client keeps the process alive.
    #[napi(catch_unwind, js_name = "ref")]
    pub fn keep_alive(&self, env: Env) -> Result<()> {
        self.alive.hold(env)
    }

    /// From here it does not.
    #[napi(catch_unwind, js_name = "unref")]
    pub fn let_go(&self) {
        self.alive.let_go();
    }

    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn close<'env>(
        &self,
        env: &'env Env,
        drain_ms: f64,
        timeout_ms: f64,
    ) -> Result<PromiseRaw<'env, JsResult<()>>> {
        let registry = self.registry.clone();
        promise(env, &self.io, None, "close", async move {
            registry.close(ms(drain_ms), ms(timeout_ms)).await
        })
    }
}

impl ClientHandle {
    /// Of what events are about.
    pub(crate) fn next_id(&self) -> u32 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// A client of the backend that `open` makes of the options.
    pub(crate) fn of(
        env: Env,
        options: NativeOptions,
        wake: Function<'_, (), ()>,
        open: impl FnOnce(NativeOptions, Log) -> rollcall_core::Result<Arc<dyn Backend>>,
    ) -> Result<Self> {
        let io = Io::of(env)?;
        let alive = KeepAlive::new(wake.create_ref()?);
        let mailbox = Arc::new(Mailbox::new(
            wake.build_threadsafe_function::<()>().weak::<true>().build()?,
        ));
        let log = match options.level() {
            None => Log::default(),
            Some(level) => {
                let mailbox = mailbox.clone();
                Log::new(level, move |level, line| mailbox.log(level, line))
            }
        };
        let common = options.common();
        let backend = {
            // Backends may start tasks of their own when they are made.
            let _inside = io.handle().enter();
            open(options, log.clone())
        };
        let backend = match backend {
            Ok(backend) => backend,
            Err(error) => return Err(NativeFailure::from(&error.during("connect")).thrown(env)),
        };
        let (bad_records, statuses) = (mailbox.clone(), mailbox.clone());
        let hooks = Hooks {
            on_bad_record: Some(Arc::new(move |record| bad_records.bad_record(record))),
            pulse: Some(mailbox.clone()),
            on_status: Some(Arc::new(move |status: Status| statuses.put(status.as_str(), 0, None))),
            log,
        };
        let registry = Registry::new(backend, common, hooks);
        io.adopt(registry.clone());
        Ok(Self {
            io,
            registry,
            mailbox,
            ids: AtomicU32::new(1),
            alive,
        })
    }
}

impl From<Calls> for NativeCalls {
    fn from(Calls { begun, failed }: Calls) -> Self {
        Self {
            calls: count(begun),
            failed: count(failed),
        }
    }
}

/// Exact up to 2^53.
#[allow(clippy::cast_precision_loss)]
fn count(n: u64) -> f64 {
    n as f64
}
