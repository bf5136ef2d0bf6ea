//! The traits a backend implements. A backend says what **one attempt** is; trying again, backing off, pacing,
//! de-duplicating, marking stale and protecting against empty lists are written once, above it
//! (`registration.rs`, `watch.rs`, `registry.rs`).
//!
//! Rules for every future and stream here:
//!
//! - It may be dropped half way, at any await, and nothing may break: core drops an attempt when it times out, is
//!   aborted, or is overtaken by `deregister()`.
//! - It needs no deadline of its own: core bounds each attempt by `timeoutMs`. (A backend may use shorter ones inside,
//!   to fail over.)
//! - Errors are [`Error`] with the kind that tells core what to do: retryable kinds are tried again, all others end
//!   the call that waits for them.
//! - It runs inside a tokio runtime with time enabled, on one thread: never block.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::error::Result;
use crate::instance::ServiceInstance;

/// What a registry can do. All `true` for a full registry; what is `false` is listed in the README's matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // five independent facts, read by name
pub struct Capabilities {
    /// It takes registrations (a DNS-like backend would not).
    pub register: bool,
    /// The record of a process that dies without a word goes by itself.
    pub expires: bool,
    /// It can tell the owners of one id apart, so that the newest wins and the older is told.
    pub owners: bool,
    /// Other clients read the id under which an instance was registered.
    pub keeps_id: bool,
    /// It can list the names that have instances.
    pub lists_names: bool,
}

impl Capabilities {
    /// Everything.
    pub const ALL: Self = Self {
        register: true,
        expires: true,
        owners: true,
        keeps_id: true,
        lists_names: true,
    };
}

/// One whole, consistent read of a name. Core sorts it by id and removes repeats; the order given does not matter.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The instances. Share the `Arc` of an unchanged one with the snapshot before: it makes comparing cheap.
    pub instances: Vec<Arc<ServiceInstance>>,
    /// Records under the name that are not service instances. They never break the list.
    pub bad: Vec<BadRecord>,
}

/// A record of someone else that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BadRecord {
    /// Where it lies in the registry: key, path or service id.
    pub key: String,
    /// Why it is not a service instance.
    pub reason: String,
}

/// How a publication treats a record of the same id that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// Take the id from whoever holds it. Core says so until the first success: the newest registration wins.
    Claim,
    /// Publish only if the id is free or ours, else fail with [`ErrorKind::Replaced`](crate::ErrorKind::Replaced).
    Keep,
}

/// Why a record that was published does not stand any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// It is gone, or it has not been renewed for its TTL and can't be vouched for. It will be published again.
    Gone(String),
    /// Another owner holds the id now. The registration ends.
    Replaced,
}

/// A registry: memory, etcd, Consul, ZooKeeper, …
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// What the registry can do.
    fn capabilities(&self) -> Capabilities;

    /// First contact: reaches the registry and proves the credentials, or says why not. One attempt.
    async fn contact(&self) -> Result<()>;

    /// One registration, from before its first write to its last. No I/O.
    fn presence(&self, name: &str, id: &str) -> Box<dyn Presence>;

    /// One read of a name.
    async fn fetch(&self, name: &str) -> Result<Snapshot>;

    /// Whole snapshots of a name, the first as soon as it is read, each later one after a change (a repeat does no
    /// harm). It ends, with or without an error, when the connection is lost or the registry's history breaks (index
    /// or revision going back, compaction, another cluster); core then follows anew. Core follows a name once, however
    /// many watchers it has, and polls the stream without pause: it may be buffered, but never without bound.
    fn follow(&self, name: &str) -> BoxStream<'static, Result<Snapshot>>;

    /// The names that have at least one instance, in any order.
    async fn services(&self) -> Result<Vec<String>>;

    /// Ends shared sessions, streams and tasks. Called once, after every presence has been withdrawn or given up.
    async fn close(&self);
}

/// One registration in a registry. It lives as long as the registration, because it must know every lease, session and
/// server it wrote under: a write whose answer was lost is ours, not a rival's.
#[async_trait]
pub trait Presence: Send {
    /// One attempt to make the record visible as given: first time, repair and update alike. Resolves when it is
    /// visible to others. Renewal goes on by itself from here, below this trait, until `withdraw` or drop.
    async fn publish(&mut self, instance: &ServiceInstance, intent: Intent) -> Result<()>;

    /// Resolves when the record is gone, another's, or can't be vouched for (not renewed for its TTL by the monotonic
    /// clock). Only reports: dropping it loses nothing, the next call tells the same. Called only after a successful
    /// `publish`.
    async fn lost(&mut self) -> Loss;

    /// One attempt to remove what this presence wrote, answered or not, and nothing of another owner. Stops renewal at
    /// once, before the first await. Succeeds when there is nothing to remove. May be repeated, and `publish` may
    /// follow it (the stall guard puts an instance back).
    async fn withdraw(&mut self) -> Result<()>;

    /// How long the record stands without renewal: what the registry granted, before that what was asked for.
    fn ttl(&self) -> Duration;
}
