//! The etcd client: endpoints with fail-over, authentication that renews itself, leases that renew themselves, and one
//! multiplexed, resuming watch stream. Over `etcd_client`, which is the protocol and one connection.
//!
//! This is the door: whoever uses the client names what stands here. Behind it are three floors and a roof
//! (`docs/architecture.md`), and no file names one above itself (`tests/floors.rs`):
//!
//! | | |
//! |---|---|
//! | [`EtcdClient`] | the roof: calls, leases, watches, elections |
//! | `election` | campaigns, locks, observers: on leases and watches |
//! | `lease`, `watch` | each made of a [`Caller`], as Go's `NewLease(client)` is |
//! | `calls` | one call or stream over the members: tries, tokens, counters |
//! | `transport` | one member: its connection, and bytes over it |
//! | `error`, `messages`, `options` | the ground, which all stand on |

mod calls;
mod client;
mod election;
mod error;
mod lease;
mod messages;
mod options;
mod transport;
mod watch;

pub use self::calls::caller::Caller;
pub use self::calls::exec::Call;
pub use self::calls::methods::{METHODS, RANGE, TXN};
pub use self::calls::metrics::{BUCKETS_US, MethodMetrics, Metrics};
pub use self::calls::stream::Messages;
pub use self::client::EtcdClient;
pub use self::election::campaign::{Campaign, Revocation};
pub use self::election::candidate::{Naming, Place};
pub use self::election::elections::Elections;
pub use self::election::line::{Line, Placed, Standing};
pub use self::election::lock::{Lock, LockOptions, OnLost};
pub use self::election::observer::{Leader, Observer, ObserverEvent, OnObserved};
pub use self::election::state::{CampaignEvent, CampaignFailure, CampaignOptions, CampaignState, OnEvent};
pub use self::error::{Cause, Fault};
pub use self::lease::lease::Lease;
pub use self::lease::leases::Leases;
pub use self::lease::session::{OnSessionEvent, Session, SessionEvent, SessionOptions};
pub use self::lease::slot::{LeaseEvent, LeaseOptions, LeaseState, lost};
pub use self::messages::{Event, HeaderOnly, KeyValue, LeaseKeepAliveResponse, RangeResponse, ResponseHeader};
pub use self::options::{DEFAULT_MAX_MESSAGE_BYTES, EtcdOptions, MAX_TTL, TokenTime, whole_seconds};
pub use self::transport::bytes::ByteStream;
pub use self::watch::events::{Batch, Change, Created, Response};
pub use self::watch::pack;
pub use self::watch::queue::{Limits, WatchFailure, WatchQueue};
pub use self::watch::request::{OnDisconnect, WatchRequest};
pub use self::watch::sink::{Delivery, WatchEnd, WatchSink};
pub use self::watch::subscription::Subscription;
pub use self::watch::watches::{WatchControl, Watches};
pub use crate::tls::TlsOptions;
