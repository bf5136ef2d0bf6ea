//! The addon: carries calls from the JavaScript thread to the I/O thread and results and events back. No logic that
//! could live in `rollcall-core` (behaviour) or in `lib/` (the public face).
//!
//! Rare calls are promises ([`call`]); everything that happens by itself goes through one mailbox per client that wakes
//! JavaScript once for many events ([`events`]). Every call of the etcd client goes through a boundary that is batched
//! both ways ([`pages`]).

#![allow(missing_docs)] // documented where users see it, in lib/; what is here is named alike
#![allow(clippy::needless_pass_by_value)] // napi hands over strings and objects by value
#![cfg_attr(test, allow(dead_code))] // `#[napi]` exports nothing into a test build

mod alive;
mod backends;
mod call;
mod client;
mod config;
mod convert;
#[cfg(feature = "etcd")]
mod etcd;
mod events;
mod failure;
mod io;
mod locks;
#[cfg(feature = "etcd")]
mod pages;
mod pairs;
mod registration;
mod slots;
mod watcher;

use napi_derive::module_init;

/// Before anything else: napi's own runtime, which only completes promises, gets one worker instead of one per core.
#[module_init]
fn init() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("rollcall-promises")
        .enable_all()
        .build();
    if let Ok(runtime) = runtime {
        napi::bindgen_prelude::create_custom_tokio_runtime(runtime); // else napi makes its default one
    }
}
