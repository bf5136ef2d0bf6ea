//! One call from JavaScript: a future on the I/O thread, a promise, a way to abort it, and typed errors.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use napi::bindgen_prelude::{PromiseRaw, ToNapiValue};
use napi::{Env, Result, sys};
use napi_derive::napi;
use rollcall_core::tally::Tally;
use rollcall_core::{Error, ErrorKind};
use tokio_util::sync::CancellationToken;

use crate::failure::NativeFailure;
use crate::io::Io;

/// Aborts the calls it was given to, and counts their attempts. One for each call with an `AbortSignal` or an observer.
#[napi]
#[derive(Default, Clone)]
pub struct CancelHandle {
    token: CancellationToken,
    tally: Tally,
}

#[napi]
impl CancelHandle {
    #[napi(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Aborts; harmless afterwards.
    #[napi(catch_unwind)]
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// How many attempts were begun.
    #[napi(catch_unwind)]
    pub fn attempts(&self) -> u32 {
        self.tally.attempts()
    }
}

/// A result whose error rejects as a [`NativeFailure`]. (An `async fn` of napi cannot carry a status of our own.)
pub enum JsResult<T> {
    Ok(T),
    Err(Error),
}

impl<T: ToNapiValue> ToNapiValue for JsResult<T> {
    #[allow(unsafe_code)] // the trait's signature
    unsafe fn to_napi_value(raw: sys::napi_env, result: Self) -> Result<sys::napi_value> {
        match result {
            // SAFETY: `raw` is the environment napi called us with, on its own thread.
            Self::Ok(value) => unsafe { T::to_napi_value(raw, value) },
            Self::Err(error) => Err(NativeFailure::from(&error).thrown(Env::from_raw(raw))),
        }
    }
}

/// Runs `future` on the I/O thread and gives its promise. Aborting drops the future.
pub fn promise<'env, T>(
    env: &'env Env,
    io: &Arc<Io>,
    cancel: Option<&CancelHandle>,
    operation: &'static str,
    future: impl Future<Output = rollcall_core::Result<T>> + Send + 'static,
) -> Result<PromiseRaw<'env, JsResult<T>>>
where
    T: ToNapiValue + Send + 'static,
{
    let CancelHandle { token, tally } = cancel.cloned().unwrap_or_default();
    let task = io.handle().spawn(async move {
        tokio::select! {
            biased;
            () = token.cancelled() => Err(Error::new(ErrorKind::Aborted, "the operation was aborted")),
            result = tally.within(future) => result,
        }
    });
    env.spawn_future(async move {
        let result = match task.await {
            Ok(result) => result,
            Err(join) if join.is_panic() => Err(Error::new(
                ErrorKind::Internal,
                format!("a fault of rollcall itself: {join}"),
            )),
            Err(_) => Err(Error::new(ErrorKind::Closed, "the environment is being torn down")),
        };
        Ok(match result {
            Ok(value) => JsResult::Ok(value),
            Err(error) => JsResult::Err(error.during(operation)),
        })
    })
}

/// Milliseconds of JavaScript. TypeScript has checked that they are whole and not negative.
pub fn ms(value: f64) -> Duration {
    Duration::try_from_secs_f64(value / 1000.0).unwrap_or_default()
}
