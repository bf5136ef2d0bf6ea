//! The traits a backend implements. A backend says what **one attempt** is; trying again, backing off, pacing,
//! de-duplicating, marking stale and protecting against empty lists are written once, above it
//! (`registration`, `watch`, `registry`).
//!
//! What core guarantees, and asks for in return:
//!
//! - **Runtime.** Everything here is called inside a tokio runtime with time enabled, on one thread: spawning is
//!   allowed, blocking is not (`tokio::task::spawn_blocking` is the way out; what it was given goes on after a drop).
//! - **Deadlines.** Core bounds every attempt (`contact`, `publish`, `withdraw`, `fetch`, the first item of a stream) by
//!   `timeoutMs`. A backend may use shorter limits inside, to fail over. After its first item a silent stream is taken
//!   for a healthy one: noticing a dead connection is the backend's.
//! - **Dropping.** Any future or stream may be dropped at any await, and nothing may break. What a dropped attempt has
//!   sent may land later: it must not undo a later `publish` or `withdraw`, or must expire within one TTL.
//! - **Errors.** [`Error`](crate::Error) with the kind that tells core what to do. `InvalidArgument`, `Unauthenticated`,
//!   `PermissionDenied` and `Unsupported` end the call that waits for the answer; `Timeout` and `Unavailable` are tried
//!   again where the contract allows. Once an instance has been visible, and for one that is registered in the
//!   background, `publish` is tried for ever, whatever the kind. `Replaced` ends a registration.
//! - **Names and ids** are 1 to 512 bytes without `/` and control characters; `.`, `..`, `%`, blanks and non-ASCII are
//!   legal. `publish` is given the name and id that `presence` was made with. What `check` refuses as a name may be read all
//!   the same: it has no instances.
//! - **Values.** Read and write records by [`Codec`](crate::instance::Codec): `read` tells an instance from a bad record
//!   and from a good one of another name.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};

use crate::error::{Error, ErrorKind, Result};
pub use crate::instance::BadRecord;
use crate::instance::ServiceInstance;
use crate::store::Store;

/// What a registry can do, and what it knows. The README's matrix is made of these facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // independent facts, read by name
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
    /// It tells with a name how many instances it has ([`ServiceName::count`]). Only a stream of the names does; what is
    /// polled, by [`Backend::services`], has names alone.
    pub counts_names: bool,
    /// One client can hold one registration at a time only (a pod is one instance).
    pub one_registration: bool,
    /// For how long a change of one instance may be spread over several records, so that a reader sees parts of it; zero
    /// where an instance is one record.
    pub settles: Duration,
    /// Lists say since when an instance is registered, by the registry's own clock ([`ServiceInstance::since`]). It stays
    /// when a record is written over, by its owner or by others, for a list differs by it; a new owner has a time of its
    /// own. An instance of which nobody knows it has none.
    pub since: bool,
    /// It tells with an instance how much time is left to it without renewal.
    pub expires_in: bool,
    /// It tells why an instance left: deregistered, expired, put out of traffic.
    pub leaving_reason: bool,
    /// Its operators can put an instance out of traffic by a switch of its own, which lists obey and no owner undoes.
    pub own_switch: bool,
}

impl Capabilities {
    /// A registry with owners and expiry, an instance a record, and nothing beside: what most are a variation of.
    pub const USUAL: Self = Self {
        register: true,
        expires: true,
        owners: true,
        keeps_id: true,
        lists_names: true,
        counts_names: false,
        one_registration: false,
        settles: Duration::ZERO,
        since: false,
        expires_in: false,
        leaving_reason: false,
        own_switch: false,
    };
}

/// One whole read of a name: what stood there at one moment, or, where the registry has no such thing, every record that
/// stood there throughout the read and none that stood there at no time of it.
///
/// Core sorts it, removes repeats (same id and endpoints: the one with the lower version, then metadata, stays), and
/// takes over unchanged instances from the list before; the order given does not matter.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The instances. Sharing the `Arc` of an unchanged one with the snapshot before saves comparing it.
    pub instances: Vec<Arc<ServiceInstance>>,
    /// Records under the name that are not service instances. They never break the list.
    pub bad: Vec<BadRecord>,
}

/// A name that has instances. A list of them has each name once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceName {
    /// The name.
    pub name: Arc<str>,
    /// How many records of it are instances; `None` where the read that told of the name does not say.
    pub count: Option<u32>,
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

/// How core learns of the changes of a name (whole [`Snapshot`]s), or of the names (whole lists of [`ServiceName`]s, in any
/// order; sharing the `Arc` of an unchanged one saves comparing it).
pub enum Follow<T = Snapshot> {
    /// Whole reads, the first as soon as it is read, each later one after a change (a repeat does no harm).
    ///
    /// It ends, with or without an error, when the connection is lost or the registry's history breaks (index or
    /// revision going back, compaction, another cluster): that is how core learns that something may have been missed.
    /// It then marks the list stale and follows anew, with back-off. Core polls the stream without pause: it may be
    /// buffered, but never without bound.
    Stream(BoxStream<'static, Result<T>>),
    /// By asking: core calls [`Backend::fetch`], or [`Backend::services`], about this often, paced and bounded like any
    /// other read. A failed one is a break.
    Poll(Duration),
}

/// What is followed a step at a time, as most backends do it: [`steps`] makes a stream of it.
pub trait Steps: Send + 'static {
    /// What a step reads.
    type Read: Send + 'static;

    /// The next read: the first at once, each later one after a change.
    fn next(&mut self) -> impl Future<Output = Result<Self::Read>> + Send;

    /// The last step failed: what the error is to say, and what else there is to do.
    fn ended(&mut self, error: Error) -> Error {
        error
    }
}

/// A stream for [`Follow::Stream`], which ends with the first step that fails.
pub fn steps<S: Steps>(start: S) -> BoxStream<'static, Result<S::Read>> {
    stream::unfold(Some(start), |state| async move {
        let mut following = state?;
        match following.next().await {
            Ok(read) => Some((Ok(read), Some(following))),
            Err(error) => Some((Err(following.ended(error)), None)),
        }
    })
    .boxed()
}

/// How often the names are asked for where a backend does not say how else to follow them.
pub const NAMES_EVERY: Duration = Duration::from_secs(5);

/// A registry: memory, etcd, Consul, ZooKeeper, …
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// What the registry can do.
    fn capabilities(&self) -> Capabilities;

    /// What messages call it, such as `etcd at 10.0.0.1:2379, 10.0.0.2:2379`. No secrets.
    fn place(&self) -> String;

    /// The server that is asked, or would be asked next, as its errors have it; `None` where nobody can tell. No I/O. Core
    /// names it when its own deadline is over before an answer has come.
    fn endpoint(&self) -> Option<String> {
        None
    }

    /// How its errors call what they are about: the key, node or path of an instance, or of a name where there is no id.
    fn key(&self, name: &str, id: Option<&str>) -> String {
        id.map_or_else(|| name.to_owned(), |id| format!("{name}/{id}"))
    }

    /// How many reads of one client core has in flight at most; a reflector holds one of the places while its stream opens.
    fn reads_in_flight(&self) -> usize {
        32
    }

    /// First contact: reaches the registry and proves the credentials, or says why not. One attempt. Not called for a
    /// lazy client, so nothing may depend on it.
    async fn contact(&self) -> Result<()>;

    /// Refuses, as `InvalidArgument`, what this registry can't hold of an instance: name, id and all the rest. No I/O.
    /// Core asks before it wants an instance published, the first time and by an update; `publish` need not ask again.
    /// The message begins with the field's path, such as `instance.metadata["a"]: `.
    fn check(&self, _instance: &ServiceInstance) -> Result<()> {
        Ok(())
    }

    /// One registration, from before its first write to its last. No I/O.
    fn presence(&self, name: &str, id: &str) -> Result<Box<dyn Presence>>;

    /// One read of a name.
    async fn fetch(&self, name: &str) -> Result<Snapshot>;

    /// How to follow a name. No I/O before the stream is polled. Core follows a name once, however many watchers it has.
    fn follow(&self, name: &str) -> Follow;

    /// The names that have at least one instance, in any order. Not called where [`Capabilities::lists_names`] is false.
    async fn services(&self) -> Result<Vec<String>>;

    /// How to follow the names: those that [`services`](Self::services) would tell. No I/O before the stream is polled. Core
    /// follows them once, however many watch them, and not at all where [`Capabilities::lists_names`] is false. What is here
    /// asks `services` every five seconds.
    fn follow_services(&self) -> Follow<Vec<Arc<ServiceName>>> {
        Follow::Poll(NAMES_EVERY)
    }

    /// The store that it is besides, over the same connections; `None` where it is none. No I/O. It ends with `close`.
    fn store(&self) -> Option<Arc<dyn Store>> {
        None
    }

    /// Ends shared sessions, streams and tasks. Called once, after every presence and stream has been dropped.
    async fn close(&self);
}

/// The error of a deadline of core's own that ran out without a word from the registry; `key` is what was asked about.
pub(crate) fn no_answer(backend: &dyn Backend, within: Duration, key: Option<&str>) -> Error {
    let (place, ms) = (backend.place(), within.as_millis());
    let error = Error::new(ErrorKind::Timeout, format!("{place} did not answer within {ms} ms"));
    let error = error.at(&backend.endpoint().unwrap_or_default());
    match key {
        Some(key) => error.about(key),
        None => error,
    }
}

/// One registration in a registry. It lives as long as the registration, because it must know every lease, session and
/// server it wrote under: a write whose answer was lost is ours, not a rival's. Dropping it stops its tasks, without I/O.
#[async_trait]
pub trait Presence: Send {
    /// One attempt to make the record visible as given: first time, repair and update alike. Resolves when it is
    /// visible to others. Renewal goes on by itself from here, below this trait. A failed update leaves the record
    /// before it standing: renewed, and watched by `lost`.
    async fn publish(&mut self, instance: &ServiceInstance, intent: Intent) -> Result<()>;

    /// Resolves when the record is gone, another's, or can't be vouched for (not renewed for its TTL by the monotonic
    /// clock). Noticing is the backend's, by what the registry tells or by looking, at least once in each TTL.
    /// Only reports: dropping it loses nothing, the next call tells the same. Called only while a `publish` has
    /// succeeded and no loss has been reported since; after a loss core calls `publish`, or `stop` and `withdraw`.
    async fn lost(&mut self) -> Loss;

    /// Stops renewal at once. No I/O. Core calls it before it waits for its turn to `withdraw`.
    fn stop(&mut self);

    /// One attempt to remove what this presence wrote, answered or not, and nothing of another owner. Called after
    /// `stop`; may be repeated, and `publish` may follow (the stall guard puts an instance back). If nothing was ever
    /// sent there is nothing to remove, also while the registry can't be reached; but a registry that can't be reached
    /// does not mean that there is nothing to remove.
    async fn withdraw(&mut self) -> Result<()>;

    /// Resolves when something that `withdraw` has taken away stands again: a registry that was restored from an older state
    /// has back what stood there then. Only reports: dropping it loses nothing, and core calls `withdraw` again. Called only
    /// after a `withdraw` that succeeded, while the instance is out of traffic. What is here never resolves: right where
    /// nothing can come back.
    async fn reappeared(&mut self) {
        std::future::pending::<()>().await;
    }

    /// How long the record stands without renewal: what the registry granted, before that what was asked for.
    fn ttl(&self) -> Duration;
}
