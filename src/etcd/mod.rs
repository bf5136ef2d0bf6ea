//! The etcd client as JavaScript holds it: calls through [`pages`](crate::pages), and what lives longer (leases, watches,
//! campaigns, streams) as handles of their own that are opened on it and report through its mailbox.

mod campaign_failure;
mod election;
mod lease;
mod lock;
mod stream;
mod token;
mod watch;

use std::sync::{Arc, Mutex};

use napi::bindgen_prelude::{Buffer, Function, PromiseRaw};
use napi::{Env, Result};
use napi_derive::napi;
use rollcall_core::etcd::{BUCKETS_US, EtcdClient, EtcdOptions, METHODS, TlsOptions};
use rollcall_core::log::Log;
use rollcall_core::stall::StallMonitor;

use crate::alive::KeepAlive;
use crate::backends::tls::NativeTlsOptions;
use crate::backends::{self, NativeOptions};
use crate::call::{JsResult, ms, promise};
use crate::client::ClientHandle;
use crate::events::{Mailbox, NativeEvent};
use crate::failure::NativeFailure;
use crate::io::Io;
use crate::pages::{self, Pages};

/// What an etcd client is made of; TypeScript has filled in every default.
#[napi(object, use_nullable = true)]
pub struct NativeEtcdClientOptions {
    pub hosts: Vec<String>,
    pub username: Option<String>,
    pub password: Option<String>,
    /// The time for one exchange of the password for a token; `null` for that of the call.
    pub token_timeout_ms: Option<f64>,
    /// Until when such an exchange may be made, in milliseconds since 1970; `null` for no such end.
    pub token_deadline_ms: Option<f64>,
    /// Who is asked for the time of each exchange in place of the two above, by the event `tokenTime` with a number as its
    /// text. Answer with `tokenTime()`.
    pub token_listener: Option<u32>,
    pub tls: Option<NativeTlsOptions>,
    /// For one connection: name look-up, TCP, TLS.
    pub connect_timeout_ms: f64,
    /// For what the client does by itself: opening streams, renewing tokens.
    pub timeout_ms: f64,
    pub keep_alive_ms: f64,
    pub keep_alive_timeout_ms: f64,
    pub keep_alive_while_idle: bool,
    pub max_message_bytes: f64,
    pub group_gets: bool,
    /// What is asked for in place of the host, as HTTP/2's `:authority`.
    pub authority: Option<String>,
    /// What stands before the client's own name in `user-agent`.
    pub user_agent: Option<String>,
    #[napi(ts_type = "'debug' | 'info' | 'warn' | 'error' | 'off'")]
    pub log_level: String,
}

/// One client of one cluster.
#[napi]
pub struct EtcdHandle {
    pub(crate) io: Arc<Io>,
    pub(crate) client: EtcdClient,
    pub(crate) mailbox: Arc<Mailbox>,
    /// For `stallTimeoutMs` of leases, locks and campaigns.
    pub(crate) stall: Arc<StallMonitor>,
    pages: Pages,
    alive: KeepAlive,
    questions: Option<Arc<token::Questions>>,
    /// Tells JavaScript of watches.
    pacer: Mutex<Option<Arc<watch::Pacer>>>,
}

#[napi]
impl EtcdHandle {
    /// A client; no I/O. `wake` is called when `drain()` has answers, `notify` when `events()` has something to give or
    /// a sign of life is asked for: answer each with its call.
    #[napi(factory, catch_unwind)]
    pub fn open(
        env: Env,
        options: NativeEtcdClientOptions,
        wake: Function<'_, (), ()>,
        notify: Function<'_, (), ()>,
    ) -> Result<Self> {
        let io = Io::of(env)?;
        let alive = KeepAlive::new(wake.create_ref()?);
        let mailbox = Arc::new(Mailbox::new(
            notify.build_threadsafe_function::<()>().weak::<true>().build()?,
        ));
        let log = match crate::convert::level(&options.log_level) {
            None => Log::default(),
            Some(level) => {
                let mailbox = mailbox.clone();
                Log::new(level, move |level, line| mailbox.log(level, line))
            }
        };
        let group_gets = options.group_gets;
        let questions = options
            .token_listener
            .map(|listener| Arc::new(token::Questions::new(mailbox.clone(), listener)));
        let fixed = (options.token_timeout_ms, options.token_deadline_ms);
        let mut options = EtcdOptions::from(options);
        options.token_time = match (&questions, fixed) {
            (Some(questions), _) => Some(questions.as_token_time()),
            (None, (None, None)) => None,
            (None, (each, until)) => Some(token::fixed(each, until)),
        };
        let client = match EtcdClient::new(options, log) {
            Ok(client) => client,
            Err(error) => return Err(NativeFailure::from(&error).thrown(env)),
        };
        let wake = wake.build_threadsafe_function::<()>().weak::<true>().build()?;
        let pages = Pages::start(&io, client.clone(), group_gets, wake);
        Ok(Self {
            stall: Arc::new(StallMonitor::new(mailbox.clone())),
            io,
            client,
            mailbox,
            pages,
            alive,
            questions,
            pacer: Mutex::default(),
        })
    }

    /// A registry on the connection of this client; no I/O. Closing it leaves the client open. `wake` as of `ClientHandle`.
    #[napi(catch_unwind)]
    pub fn open_registry(&self, env: Env, options: NativeOptions, wake: Function<'_, (), ()>) -> Result<ClientHandle> {
        ClientHandle::of(env, options, wake, |options, log| {
            backends::open_over(&self.client, options, log)
        })
    }

    /// Answers the event `tokenTime`: with the milliseconds for this exchange, `null` for no limit, or why there are none.
    #[napi(catch_unwind)]
    pub fn token_time(&self, number: u32, millis: Option<f64>, error: Option<String>) {
        if let Some(questions) = &self.questions {
            questions.answer(number, millis, error);
        }
    }

    /// Takes the calls of one tick from `page`: `count` records, `len` bytes of bodies. See `pageLayout()`.
    #[napi(catch_unwind)]
    pub fn submit(&self, page: &[u8], count: u32, len: u32) -> Result<()> {
        self.pages.submit(page, count, len)
    }

    /// Takes one call whose body has no room in a page. `what`, `timeout_ms` and `member` are words of a record.
    #[napi(catch_unwind)]
    pub fn submit_large(&self, id: u32, what: u32, timeout_ms: u32, member: i32, body: &[u8]) {
        self.pages.submit_large(id, what, timeout_ms, member, body);
    }

    /// Writes answers into `page`, about `most` (one of many entries counts as several), and says how many. The highest bit
    /// says that some are left: nobody is woken for them, call again in another turn of the event loop.
    #[napi(catch_unwind)]
    pub fn drain(&self, mut page: Buffer, most: u32) -> u32 {
        self.pages.drain(&mut page, most)
    }

    /// The body of the first answer to `id` that had no room in a page.
    #[napi(catch_unwind)]
    pub fn take(&self, id: u32) -> Option<Buffer> {
        self.pages.take(id).map(Buffer::from)
    }

    /// Gives a call up that was sent with the flag for it; its id comes back through `drain()`.
    #[napi(catch_unwind)]
    pub fn cancel(&self, id: u32) {
        self.pages.cancel(id);
    }

    /// What has happened by itself since the last call: `most` events at a time. When it gives as many, call again in another
    /// turn of the event loop: nobody is woken for the rest.
    #[napi(catch_unwind)]
    pub fn events(&self, most: u32) -> Vec<NativeEvent> {
        self.mailbox.drain(most as usize)
    }

    #[napi(catch_unwind)]
    pub fn metrics(&self) -> NativeEtcdMetrics {
        use std::sync::atomic::Ordering::Relaxed;
        let metrics = self.client.calls.metrics();
        NativeEtcdMetrics {
            attempts: number(metrics.attempts.load(Relaxed)),
            groups: number(metrics.groups.load(Relaxed)),
            grouped: number(metrics.grouped.load(Relaxed)),
            buckets_us: BUCKETS_US.iter().copied().map(number).collect(),
            methods: metrics.methods().into_iter().map(NativeMethodMetrics::from).collect(),
        }
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

    /// Ends everything that goes on by itself and gives the connections up. Calls under way end as closed.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn close<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, JsResult<()>>> {
        let (client, stop) = (self.client.clone(), self.pages.stopper());
        promise(env, &self.io, None, "close", async move {
            client.close();
            stop.cancel();
            Ok(())
        })
    }
}

/// The methods in the order of their numbers: `/etcdserverpb.KV/Range` is 0.
#[napi(catch_unwind)]
pub fn etcd_methods() -> Vec<&'static str> {
    METHODS.to_vec()
}

/// The measures of the pages that calls and answers cross in.
#[napi(catch_unwind)]
pub fn page_layout() -> pages::NativePageLayout {
    pages::layout()
}

/// A counter as JavaScript has numbers.
#[allow(clippy::cast_precision_loss)] // from 2^53 on a counter of calls may be off by one
fn number(n: u64) -> f64 {
    n as f64
}

#[napi(object, object_from_js = false)]
pub struct NativeEtcdMetrics {
    pub attempts: f64,
    pub groups: f64,
    pub grouped: f64,
    pub buckets_us: Vec<f64>,
    pub methods: Vec<NativeMethodMetrics>,
}

#[napi(object, object_from_js = false)]
pub struct NativeMethodMetrics {
    pub path: &'static str,
    pub begun: f64,
    pub failed: f64,
    pub unknown: f64,
    pub total_us: f64,
    pub buckets: Vec<f64>,
}

impl From<rollcall_core::etcd::MethodMetrics> for NativeMethodMetrics {
    fn from(metrics: rollcall_core::etcd::MethodMetrics) -> Self {
        Self {
            path: metrics.path,
            begun: number(metrics.begun),
            failed: number(metrics.failed),
            unknown: number(metrics.unknown),
            total_us: number(metrics.total_us),
            buckets: metrics.buckets.iter().copied().map(number).collect(),
        }
    }
}

impl From<NativeEtcdClientOptions> for EtcdOptions {
    #[allow(clippy::cast_sign_loss)] // TypeScript has checked the range
    fn from(options: NativeEtcdClientOptions) -> Self {
        Self {
            hosts: options.hosts,
            username: options.username,
            password: options.password,
            tls: options.tls.map(TlsOptions::from),
            connect_timeout: ms(options.connect_timeout_ms),
            timeout: ms(options.timeout_ms),
            keep_alive: ms(options.keep_alive_ms),
            keep_alive_timeout: ms(options.keep_alive_timeout_ms),
            keep_alive_while_idle: options.keep_alive_while_idle,
            authority: options.authority,
            user_agent: options.user_agent,
            max_message_bytes: options.max_message_bytes as usize,
            ..Self::default()
        }
    }
}
