//! The I/O thread: one for each JavaScript environment (main thread or worker), shared by its clients. Everything that
//! lives longer than a call (leases, registrations, watches) runs there, and nothing on it ever blocks.
//!
//! It starts with the first client and is stopped and joined when its environment is torn down, so that it never
//! outlives it.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use napi::{Env, Error, Result, Status};
use napi_derive::napi;
use rollcall_core::registry::Registry;
use rollcall_core::sync::lock;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

thread_local! {
    /// The I/O thread of the environment that runs on this thread.
    static IO: RefCell<Weak<Io>> = const { RefCell::new(Weak::new()) };
}

/// How long the end of an environment may take to deregister what is left: the bound of `process.on('exit')`.
const LAST_WORDS: Duration = Duration::from_millis(500);

pub struct Io {
    handle: Handle,
    stop: CancellationToken,
    clients: Mutex<Vec<Registry>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Io {
    /// The I/O thread of this environment, started if it is the first time.
    pub fn of(env: Env) -> Result<Arc<Self>> {
        if let Some(io) = Self::existing() {
            return Ok(io);
        }
        let io = Arc::new(Self::start()?);
        IO.with(|slot| *slot.borrow_mut() = Arc::downgrade(&io));
        env.add_env_cleanup_hook(io.clone(), |io: Arc<Io>| {
            io.close_all(LAST_WORDS);
            io.join();
        })?;
        Ok(io)
    }

    fn existing() -> Option<Arc<Self>> {
        IO.with(|slot| slot.borrow().upgrade())
    }

    fn start() -> Result<Self> {
        let failed = |e: std::io::Error| {
            Error::new(
                Status::GenericFailure,
                format!("the I/O thread could not be started: {e}"),
            )
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("rollcall-io".to_owned())
            .spawn(move || {
                runtime.block_on(stopped.cancelled());
                // Not dropped: that waits for blocking work, and a name look-up may take as long as it likes.
                runtime.shutdown_background();
            })
            .map_err(failed)?;
        Ok(Self {
            handle,
            stop,
            clients: Mutex::default(),
            thread: Mutex::new(Some(thread)),
        })
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Remembers a client for the end of the environment.
    pub fn adopt(&self, client: Registry) {
        let mut clients = lock(&self.clients);
        clients.retain(|client| !client.is_drained());
        clients.push(client);
    }

    /// Closes every client, waiting at most `limit`. Blocks the calling thread, which must not be the I/O thread.
    /// Says whether everything was removed in time.
    fn close_all(&self, limit: Duration) -> bool {
        let clients = std::mem::take(&mut *lock(&self.clients));
        if clients.iter().all(Registry::is_drained) {
            return true;
        }
        let (done, wait) = mpsc::channel();
        for client in clients {
            let done = done.clone();
            self.handle.spawn(async move {
                let removed = client.close(Duration::ZERO, limit).await.is_ok();
                let _ = done.send(removed); // nobody waits any more: the limit has passed
            });
        }
        drop(done);
        let deadline = std::time::Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            match wait.recv_timeout(left) {
                Ok(true) => {}
                Ok(false) | Err(mpsc::RecvTimeoutError::Timeout) => return false,
                Err(mpsc::RecvTimeoutError::Disconnected) => return true,
            }
        }
    }

    fn join(&self) {
        self.stop.cancel();
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            let _ = thread.join(); // a panic of the thread was reported by the panic hook already
        }
    }
}

/// Deregisters everything that clients of this environment have registered: the one synchronous call, for
/// `process.on('exit')`. Blocks for at most `timeout_ms`; says whether everything was removed.
#[napi(catch_unwind)]
pub fn shutdown(timeout_ms: u32) -> bool {
    Io::existing().is_none_or(|io| io.close_all(Duration::from_millis(timeout_ms.into())))
}
