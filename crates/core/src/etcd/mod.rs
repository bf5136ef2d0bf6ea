//! The etcd client: endpoints with fail-over, authentication that renews itself, leases that renew themselves, and one
//! multiplexed, resuming watch stream. Over `etcd_client`, which is the protocol and one connection.
//!
//! [`EtcdClient`](client::EtcdClient) makes calls; [`Lease`](lease::Lease) keeps a lease alive;
//! [`Subscription`](watch::Subscription) is one watch. [`options`] is what people set, [`error`] what etcd's words mean.

mod candidate;
pub mod client;
pub mod election;
pub mod endpoints;
pub mod error;
pub mod exec;
pub mod group;
mod hub;
mod keepalive;
pub mod lease;
mod link;
mod listening;
pub mod lock;
pub mod metrics;
pub mod observer;
pub mod options;
mod queue;
pub mod raw;
pub mod tenure;
mod tries;
pub mod watch;
pub mod wire;

pub use client::EtcdClient;
pub use options::EtcdOptions;

pub use crate::tls::TlsOptions;
