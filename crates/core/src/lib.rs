//! The behaviour of rollcall: a service registry client whose registrations and watches survive what breaks others.
//!
//! Enter at [`Registry`](registry::Registry). The layers, top down: [`registry`] (one client: pacing, sharing, closing)
//! → [`registration`], [`watch`], [`config`], [`queue`] and [`slot`] (the machines, one each for all backends) → [`backend`], [`store`]
//! and [`tenure`] (the traits) →
//! [`backends`] (memory, etcd, …) → [`etcd`] (the etcd client).
//!
//! Nothing here knows of JavaScript; the addon crate at the root of the workspace puts it on a thread.

pub mod advertise;
pub mod backend;
pub mod backends;
pub mod backoff;
pub mod config;
#[cfg(any(feature = "http", feature = "tls"))]
mod crypto;
pub mod error;
#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(feature = "grpc")]
mod grpc;
#[cfg(any(feature = "etcd", feature = "http"))]
mod heard;
#[cfg(feature = "http")]
mod http;
pub mod instance;
pub mod log;
pub mod metrics;
#[cfg(any(feature = "nacos", feature = "polaris"))]
mod parts;
pub mod queue;
pub mod registration;
pub mod registry;
pub mod slot;
pub mod stall;
pub mod status;
pub mod store;
pub mod sync;
pub mod tally;
pub mod tenure;
#[cfg(test)]
mod testing;
#[cfg(feature = "tls")]
pub mod tls;
pub mod transaction;
#[cfg(any(
    feature = "bilibili",
    feature = "consul",
    feature = "kubernetes",
    feature = "polaris"
))]
mod upkeep;
pub mod watch;

pub use error::{Error, ErrorKind, Result};
pub use instance::ServiceInstance;
