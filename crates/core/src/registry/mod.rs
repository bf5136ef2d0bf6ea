//! One client of one registry: the door to everything. It shares what registrations and watches share (pacing, the
//! stall monitor, the list of bad records) and closes them all.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::advertise;
use crate::backend::{Backend, BadRecord, Capabilities, ServiceName, no_answer};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::instance::{ServiceInstance, validate_name};
use crate::log::Log;
use crate::metrics::{Meter, Metrics};
use crate::queue::Queues;
use crate::registration::{OnEvent, Registration, Setup};
use crate::slot::Slots;
use crate::stall::{Pulse, Stall, StallMonitor};
use crate::status::{OnStatus, Reach, Status};
use crate::sync::lock;
use crate::tally;
use crate::watch::{Breaks, Instances, List, Names, OnBad, Reflectors, Source, Watcher, closed, to_list};

/// Publications, and apart from them removals, in flight per client. A thousand instances return from an outage within
/// a second or two, and the registry is not met by a thousand requests at once.
pub const PUBLICATIONS_IN_FLIGHT: usize = 64;
/// How long the tasks of a client, and then its backend, may take to end when it is closed.
const GOODBYE: Duration = Duration::from_millis(500);
/// Names whose bad records are remembered, so that each is reported once. Beyond it the memory starts afresh.
const BAD_NAMES: usize = 4096;
/// What to do where the first contact fails, in the words of the modules (`lib/frameworks/open.ts`).
const START_WITHOUT: &str = "; check its hosts, or give lazy: true to start without it";

/// What all backends have in common. Defaults are those of the public API.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// First contact, retries included. 10 s.
    pub connect_timeout: Duration,
    /// One attempt of one call. 10 s.
    pub timeout: Duration,
    /// How long the owner's thread may be silent before its instances are withdrawn. 30 s, zero is off.
    pub stall_timeout: Duration,
    /// How long a list that lost more than half of it in a break is held back. 15 s, zero is off.
    pub empty_grace: Duration,
    /// What stands in the place of a wildcard host. By default this machine's address.
    pub advertise_host: Option<String>,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            empty_grace: Duration::from_secs(15),
            advertise_host: None,
        }
    }
}

/// What a client is told and asked by its surroundings. The default hears and says nothing.
#[derive(Clone, Default)]
pub struct Hooks {
    /// Told of each bad record once.
    pub on_bad_record: Option<Arc<dyn Fn(BadRecord) + Send + Sync>>,
    /// The thread that the stall guard watches; without one there is no guard.
    pub pulse: Option<Arc<dyn Pulse>>,
    /// Told of each change of the status to connected or disconnected.
    pub on_status: Option<OnStatus>,
    /// Where log lines go.
    pub log: Log,
}

/// How one instance is to be registered.
#[derive(Debug, Clone)]
pub struct RegisterOptions {
    /// Return at once; the instance comes when it can.
    pub background: bool,
    /// How long the first publication may take, retries included.
    pub timeout: Duration,
    /// Overrides the registry's for this instance; zero is off.
    pub stall_timeout: Duration,
}

/// A client of one registry. Cloning shares it. All methods must be called inside the runtime.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<RegistryInner>,
}

struct RegistryInner {
    backend: Arc<dyn Backend>,
    options: RegistryOptions,
    instances: Reflectors<Instances>,
    names: Reflectors<Names>,
    registrations: Mutex<Vec<Registration>>,
    /// What its reads have in common.
    source: Arc<Source>,
    /// Where the registry is a store too.
    config: Option<Config>,
    queues: Option<Queues>,
    slots: Option<Slots>,
    publications: Arc<Semaphore>,
    withdrawals: Arc<Semaphore>,
    stall: Option<StallMonitor>,
    on_bad: OnBad,
    log: Log,
    meter: Arc<Meter>,
    reach: Arc<Reach>,
    closed: CancellationToken,
    /// Cancelled when the time to remove things is over.
    over: CancellationToken,
    /// The machines and reflectors.
    tasks: TaskTracker,
    /// Cancelled when closing is over, so that a second `close()` waits for the first.
    drained: CancellationToken,
}

impl Registry {
    /// A client; no I/O.
    pub fn new(backend: Arc<dyn Backend>, options: RegistryOptions, hooks: Hooks) -> Self {
        let closed = CancellationToken::new();
        let tasks = TaskTracker::new();
        let on_bad = report_once(hooks.on_bad_record, hooks.log.clone());
        let (meter, reach) = (Arc::new(Meter::default()), Arc::new(Reach::new(hooks.on_status)));
        let reads = Arc::new(Semaphore::new(backend.reads_in_flight()));
        let source = |empty_grace, meter| {
            Arc::new(Source {
                backend: backend.clone(),
                reads: reads.clone(),
                timeout: options.timeout,
                empty_grace,
                on_bad: on_bad.clone(),
                closed: closed.clone(),
                tasks: tasks.clone(),
                log: hooks.log.clone(),
                breaks: Breaks::new(closed.clone(), tasks.clone(), hooks.log.clone()),
                meter,
                reach: reach.clone(),
            })
        };
        // What is kept in the store was deleted by somebody where it is gone, and the numbers are those of instances.
        let kept = |store| Config::new(store, source(Duration::ZERO, Arc::default()));
        let config = backend.store().map(kept);
        let held = |store| Queues::new(store, source(Duration::ZERO, Arc::default()));
        let queues = backend.store().map(held);
        let numbered = |store| Slots::new(store, source(Duration::ZERO, Arc::default()));
        let slots = backend.store().map(numbered);
        let source = source(options.empty_grace, meter.clone());
        Self {
            inner: Arc::new(RegistryInner {
                backend,
                instances: Reflectors::new(source.clone()),
                names: Reflectors::new(source.clone()),
                source,
                config,
                queues,
                slots,
                registrations: Mutex::default(),
                publications: Arc::new(Semaphore::new(PUBLICATIONS_IN_FLIGHT)),
                withdrawals: Arc::new(Semaphore::new(PUBLICATIONS_IN_FLIGHT)),
                stall: hooks.pulse.map(StallMonitor::new),
                on_bad,
                log: hooks.log,
                meter,
                reach,
                closed,
                over: CancellationToken::new(),
                tasks,
                drained: CancellationToken::new(),
                options,
            }),
        }
    }

    /// What the registry can do.
    pub fn capabilities(&self) -> Capabilities {
        self.inner.backend.capabilities()
    }

    /// Reaches the registry and proves the credentials. What may pass by itself is tried again, with back-off, until
    /// `connect_timeout`; a refusal fails at once.
    pub async fn contact(&self) -> Result<()> {
        let limit = self.inner.options.connect_timeout;
        let result = self.contact_within(limit, "connectTimeoutMs", START_WITHOUT).await;
        result.map_err(|e| e.during("connect"))
    }

    /// Waits until the registry is reached: at once while the status says so, else by trying as [`contact`](Self::contact)
    /// does, until `limit`.
    pub async fn ready(&self, limit: Duration) -> Result<()> {
        if self.status() == Status::Connected {
            return Ok(());
        }
        let result = self.contact_within(limit, "timeoutMs", "").await;
        result.map_err(|e| e.during("ready"))
    }

    /// Asks the registry once what needs no right but to be let in, and tells how long its answer took. Not paced, and not
    /// tried again. Fails with what hindered it, with `Timeout` after `limit`.
    pub async fn ping(&self, limit: Duration) -> Result<Duration> {
        let ping = async {
            self.ensure_open()?;
            let began = Instant::now();
            tally::count(1);
            let answer = tokio::select! {
                () = self.inner.closed.cancelled() => return Err(closed()),
                answer = timeout(limit, self.inner.backend.contact()) => answer,
            };
            let answer = answer.unwrap_or_else(|_| Err(no_answer(&*self.inner.backend, limit, None)));
            self.inner.reach.note(&answer);
            answer.map(|()| began.elapsed())
        };
        ping.await.map_err(|e: Error| e.during("ping"))
    }

    async fn contact_within(&self, limit: Duration, option: &str, advice: &str) -> Result<()> {
        self.ensure_open()?;
        let once = self.inner.options.timeout;
        let told = Mutex::new(String::new()); // each obstacle is told once, not at each try
        let attempt = || async {
            let answer = timeout(once, self.inner.backend.contact()).await;
            let answer = answer.unwrap_or_else(|_| Err(no_answer(&*self.inner.backend, once, None)));
            self.inner.reach.note(&answer);
            answer.inspect_err(|error| {
                let text = error.to_string();
                if error.is_retryable() && *lock(&told) != text {
                    self.inner.log.warn(format_args!("no contact: {text}; trying again"));
                    *lock(&told) = text;
                }
            })
        };
        self.inner.source.persist(limit, attempt).await.unwrap_or_else(|last| {
            let (place, ms) = (self.inner.backend.place(), limit.as_millis());
            Err(match last {
                Some(error) => {
                    let kind = error.kind();
                    let message = format!("no contact with {place} within {ms} ms ({option}): {error}{advice}");
                    Error::new(kind, message).caused_by(error)
                }
                None => Error::new(
                    ErrorKind::Timeout,
                    format!("{place} did not answer within {ms} ms ({option}){advice}"),
                )
                .at(&self.inner.backend.endpoint().unwrap_or_default()),
            })
        })
    }

    /// Registers an instance and keeps it registered until `deregister()` or `close()`.
    ///
    /// Resolves when the instance is visible to others, or fails within the timeout and takes back what may have been
    /// written; dropping the future does the same. With `background` it resolves at once.
    pub async fn register(
        &self,
        mut instance: ServiceInstance,
        options: RegisterOptions,
        on_event: OnEvent,
    ) -> Result<Registration> {
        let start = || -> Result<Registration> {
            self.ensure_open()?;
            if !self.capabilities().register {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "this registry takes no registrations",
                ));
            }
            if instance.id.is_empty() {
                instance.id = uuid::Uuid::new_v4().to_string().into();
            }
            let advertise_host = self.inner.options.advertise_host.clone();
            advertise::all_reachable(&mut instance.endpoints, advertise_host.as_deref())?;
            instance.validate()?;
            self.inner.backend.check(&instance)?;
            let stall = self.stall(options.stall_timeout);
            let registration = Registration::start(Setup {
                presence: self.inner.backend.presence(&instance.name, &instance.id)?,
                backend: self.inner.backend.clone(),
                instance,
                advertise_host,
                over: self.inner.over.clone(),
                tasks: self.inner.tasks.clone(),
                stall,
                timeout: self.inner.options.timeout,
                publications: self.inner.publications.clone(),
                withdrawals: self.inner.withdrawals.clone(),
                on_event,
                log: self.inner.log.clone(),
                meter: self.inner.meter.clone(),
                reach: self.inner.reach.clone(),
            });
            let mut all = self.lock_registrations();
            if all.len() == all.capacity() {
                all.retain(|r| !r.state().is_final()); // amortized: only when the list would grow
            }
            all.push(registration.clone());
            Ok(registration)
        };
        let registration = start().map_err(|e| e.during("register"))?;
        if !options.background {
            let mut guard = GiveUpOnDrop {
                registration: &registration,
                keep: false,
            };
            let visible = registration.visible(options.timeout).await;
            guard.keep = visible.is_ok();
            visible.map_err(|e| e.during("register"))?;
        }
        Ok(registration)
    }

    /// The instances of a name: from a live watch of this client if there is one (stale or not), else, or if
    /// `consistent`, by one read of the server.
    pub async fn get_service(&self, name: &str, consistent: bool, limit: Duration) -> Result<List> {
        let read = async {
            validate_name("name", name)?;
            self.ensure_open()?;
            if !consistent && let Some(list) = self.inner.instances.current(&Instances(name.into())) {
                return Ok(list);
            }
            let (calls, fetch) = (&self.inner.meter.get_service, || self.inner.backend.fetch(name));
            let key = self.inner.backend.key(name, None);
            let snapshot = self.inner.source.bounded(limit, calls, Some(&key), fetch).await?;
            (self.inner.on_bad)(name, &snapshot.bad);
            Ok(to_list(snapshot.instances, &[]))
        };
        read.await.map_err(|e: Error| e.during("getService"))
    }

    /// The names that have at least one instance, sorted: from a live watch of them if there is one (stale or not), else,
    /// or if `consistent`, by one read of the server.
    pub async fn services(&self, consistent: bool, limit: Duration) -> Result<Vec<String>> {
        let read = async {
            self.ensure_open()?;
            self.ensure_names()?;
            if !consistent && let Some(list) = self.inner.names.current(&Names) {
                return Ok(list.iter().map(|service| service.name.to_string()).collect());
            }
            let (calls, list) = (&self.inner.meter.services, || self.inner.backend.services());
            let mut names = self.inner.source.bounded(limit, calls, None, list).await?;
            names.sort_unstable();
            names.dedup();
            Ok(names)
        };
        read.await.map_err(|e: Error| e.during("services"))
    }

    /// Follows a name until the watcher is dropped or the client closed.
    pub fn watch(&self, name: &str) -> Result<Watcher> {
        validate_name("name", name)
            .and_then(|()| self.ensure_open())
            .map_err(|e| e.during("watch"))?;
        Ok(self.inner.instances.watch(Instances(name.into())))
    }

    /// Follows the names that have at least one instance until the watcher is dropped or the client closed. All watchers of
    /// a client share one stream. Fails with `Unsupported` where the registry can't list names.
    pub fn watch_services(&self) -> Result<Watcher<ServiceName>> {
        self.ensure_open()
            .and_then(|()| self.ensure_names())
            .map_err(|e| e.during("watchServices"))?;
        Ok(self.inner.names.watch(Names))
    }

    /// The configuration that is kept there. Fails with `Unsupported` where the registry is no store.
    pub fn config(&self) -> Result<Config> {
        self.inner.config.clone().ok_or_else(|| {
            let text = format!("{} keeps no configuration", self.inner.backend.place());
            Error::new(ErrorKind::Unsupported, text)
        })
    }

    /// The locks that are held there. Fails with `Unsupported` where the registry is no store.
    pub fn queues(&self) -> Result<Queues> {
        self.inner.queues.clone().ok_or_else(|| {
            let text = format!("{} holds no locks", self.inner.backend.place());
            Error::new(ErrorKind::Unsupported, text)
        })
    }

    /// The worker ids that are kept there. Fails with `Unsupported` where the registry is no store.
    pub fn slots(&self) -> Result<Slots> {
        self.inner.slots.clone().ok_or_else(|| {
            let text = format!("{} keeps no worker ids", self.inner.backend.place());
            Error::new(ErrorKind::Unsupported, text)
        })
    }

    /// A limit for the silence of the user's thread; `None` where it is zero, or nobody watches that thread.
    pub fn stall(&self, limit: Duration) -> Option<Stall> {
        let monitor = self.inner.stall.as_ref().filter(|_| !limit.is_zero());
        monitor.map(|monitor| monitor.limit(limit))
    }

    /// What was counted since the client was made.
    pub fn metrics(&self) -> Metrics {
        self.inner.meter.read()
    }

    /// Whether the registry is reached, as what was done last has shown. Asks nobody.
    pub fn status(&self) -> Status {
        self.inner.reach.status()
    }

    /// Whether `close()` was called.
    pub fn is_closed(&self) -> bool {
        self.inner.closed.is_cancelled()
    }

    /// Whether `close()` has come to its end.
    pub fn is_drained(&self) -> bool {
        self.inner.drained.is_cancelled()
    }

    /// Deregisters all that is left, ends all watches, waits `drain`, frees everything. Idempotent: a later call waits
    /// for the first. Fails with `Timeout` when a record could not be removed within `limit`; everything is freed all
    /// the same, and such a record expires.
    pub async fn close(&self, drain: Duration, limit: Duration) -> Result<()> {
        if self.inner.closed.is_cancelled() {
            self.inner.drained.cancelled().await;
            return Ok(());
        }
        self.inner.closed.cancel();
        self.inner.reach.close();
        // Dropped half way, or done: whoever waits is released.
        let _drained = self.inner.drained.clone().drop_guard();
        let registrations = std::mem::take(&mut *self.lock_registrations());
        let any = registrations.iter().any(|r| !r.state().is_final());
        for registration in &registrations {
            registration.begin_deregister();
        }
        let all = futures::future::join_all(registrations.iter().map(Registration::finished));
        let removed = timeout(limit, all).await.is_ok();
        if any && !drain.is_zero() {
            sleep(drain).await;
        }
        self.inner.over.cancel();
        self.inner.tasks.close();
        // Bounded as well: a backend that cannot even say goodbye must not hold up the caller.
        let _ = timeout(GOODBYE, self.inner.tasks.wait()).await;
        let _ = timeout(GOODBYE, self.inner.backend.close()).await;
        if removed {
            return Ok(());
        }
        let left = registrations.iter().filter(|r| !r.state().is_final()).count();
        Err(Error::new(
            ErrorKind::Timeout,
            format!(
                "{left} of {} records could not be removed within {} ms; they are not renewed any more and expire",
                registrations.len(),
                limit.as_millis()
            ),
        )
        .during("close"))
    }

    fn ensure_open(&self) -> Result<()> {
        if self.is_closed() { Err(closed()) } else { Ok(()) }
    }

    fn ensure_names(&self) -> Result<()> {
        if self.capabilities().lists_names {
            return Ok(());
        }
        let text = format!(
            "{} can't list the names of its services (capabilities.listsNames)",
            self.inner.backend.place()
        );
        Err(Error::new(ErrorKind::Unsupported, text))
    }

    fn lock_registrations(&self) -> std::sync::MutexGuard<'_, Vec<Registration>> {
        lock(&self.inner.registrations)
    }
}

/// Gives a registration up unless it was kept: a `register()` that failed or was aborted leaves nothing behind. Counts its
/// attempts, however it ends.
struct GiveUpOnDrop<'a> {
    registration: &'a Registration,
    keep: bool,
}

impl Drop for GiveUpOnDrop<'_> {
    fn drop(&mut self) {
        let Self { registration, keep } = self;
        tally::count(registration.attempts());
        if !*keep {
            registration.begin_deregister();
        }
    }
}

/// Reports each bad record once for as long as it stays bad for the same reason.
fn report_once(hook: Option<Arc<dyn Fn(BadRecord) + Send + Sync>>, log: Log) -> OnBad {
    let known: Mutex<HashMap<String, HashSet<BadRecord>>> = Mutex::default();
    Arc::new(move |name, bad| {
        let news: Vec<BadRecord> = {
            let mut known = lock(&known);
            if bad.is_empty() {
                known.remove(name);
                return;
            }
            if known.len() >= BAD_NAMES && !known.contains_key(name) {
                known.clear();
            }
            let before = known
                .insert(name.to_owned(), bad.iter().cloned().collect())
                .unwrap_or_default();
            bad.iter().filter(|record| !before.contains(record)).cloned().collect()
        };
        for record in news {
            log.warn(format_args!("{}: skipped a bad record: {}", record.key, record.reason));
            if let Some(hook) = &hook {
                hook(record);
            }
        }
    })
}

#[cfg(test)]
mod tests;
