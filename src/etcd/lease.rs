//! One lease, as JavaScript holds it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use napi::bindgen_prelude::{BigInt, PromiseRaw};
use napi::{Env, Result};
use napi_derive::napi;
use rollcall_core::etcd::{Lease, LeaseEvent, LeaseKeepAliveResponse, Session, SessionEvent, SessionOptions};
use rollcall_core::sync::lock;
use tokio::time::Instant;

use super::EtcdHandle;
use super::campaign_failure::stall_of;
use crate::call::{CancelHandle, JsResult, ms, promise};
use crate::events::Mailbox;
use crate::failure::NativeFailure;
use crate::io::Io;

/// Events of one lease that wait for JavaScript. Over it the oldest goes that is told only to those who listen; how a
/// grant ended and that a lease is lost is always kept.
const EVENTS: usize = 64;

#[napi(object, use_nullable = true)]
pub struct NativeLeaseOptions {
    /// Seconds to ask for; 0 to take over the lease `lease`.
    pub ttl: f64,
    /// The lease to take over; else null.
    pub lease: Option<BigInt>,
    pub renews_itself: bool,
    /// For the grant.
    pub timeout_ms: f64,
    /// Whether the grant is tried until it is answered.
    pub insists: bool,
    /// 0 for none.
    pub stall_timeout_ms: f64,
}

/// `text`: of `succeeded` cluster, member, revision, term and time to live, with commas; of `failed` and `lost` why.
/// `failure`: of `refused`.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct NativeLeaseEvent {
    #[napi(ts_type = "'granted' | 'refused' | 'established' | 'fired' | 'succeeded' | 'failed' | 'lost'")]
    pub kind: &'static str,
    pub text: Option<String>,
    pub failure: Option<NativeFailure>,
}

/// The answer to a renewal, as `text` of `succeeded`, or the failure.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct NativeRenewal {
    pub answer: Option<String>,
    pub failure: Option<NativeFailure>,
}

#[napi]
pub struct LeaseHandle {
    io: Arc<Io>,
    session: Arc<Session>,
    events: Arc<Events>,
}

#[derive(Default)]
struct Events(Mutex<VecDeque<NativeLeaseEvent>>);

impl Events {
    fn lock(&self) -> MutexGuard<'_, VecDeque<NativeLeaseEvent>> {
        lock(&self.0)
    }

    fn put(&self, event: NativeLeaseEvent) {
        let mut waiting = self.lock();
        if waiting.len() >= EVENTS {
            let told = |event: &NativeLeaseEvent| !matches!(event.kind, "granted" | "refused" | "lost");
            let oldest = waiting.iter().position(told);
            oldest.and_then(|at| waiting.remove(at));
        }
        waiting.push_back(event);
    }
}

#[napi]
impl LeaseHandle {
    /// Asks for a lease and keeps it. Events are announced as a `watch` event of `id`: take them.
    #[napi(factory, catch_unwind)]
    #[allow(clippy::cast_possible_truncation)] // TypeScript has checked the range
    pub fn open(client: &EtcdHandle, id: u32, options: NativeLeaseOptions) -> Self {
        let _inside = client.io.handle().enter();
        let events = Arc::new(Events::default());
        let stall = stall_of(client, options.stall_timeout_ms);
        let (lease, ttl) = match options.lease {
            Some(lease) => (lease.get_i64().0, None),
            None => (Lease::new_id(), Some(options.ttl as i64)),
        };
        let wanted = SessionOptions {
            id: lease,
            ttl,
            renews_itself: options.renews_itself,
            until: Instant::now() + ms(options.timeout_ms),
            insists: options.insists,
            stall,
        };
        let (inbox, mailbox) = (events.clone(), client.mailbox.clone());
        let session = Session::begin(
            client.client.leases.clone(),
            wanted,
            Arc::new(move |event| tell(&inbox, &mailbox, id, event)),
        );
        Self {
            io: client.io.clone(),
            session,
            events,
        }
    }

    /// What has happened since the last call.
    #[napi(catch_unwind)]
    pub fn take(&self) -> Vec<NativeLeaseEvent> {
        std::mem::take(&mut *self.events.lock()).into()
    }

    /// The lease's own id, granted or not.
    #[napi(catch_unwind)]
    pub fn lease_id(&self) -> BigInt {
        BigInt::from(self.session.id())
    }

    /// Granted, kept, and within its local deadline.
    #[napi(catch_unwind)]
    pub fn is_alive(&self) -> bool {
        self.session.is_alive()
    }

    /// Until the local deadline; 0 when it has passed, `null` when the lease is not kept.
    #[napi(catch_unwind)]
    pub fn expires_in_ms(&self) -> Option<f64> {
        let deadline = self.session.deadline()?;
        Some(deadline.saturating_duration_since(Instant::now()).as_secs_f64() * 1000.0)
    }

    /// The seconds granted, or said in the last answer; `null` when the lease is not kept.
    #[napi(catch_unwind)]
    pub fn ttl(&self) -> Option<f64> {
        self.session.granted().map(|ttl| ttl.as_secs_f64())
    }

    /// Why it is lost; `null` when that was not told.
    #[napi(catch_unwind)]
    pub fn loss(&self) -> Option<String> {
        self.session.failure()
    }

    /// Whether renewals are told of, and not the loss alone.
    #[napi(catch_unwind)]
    pub fn tell_all(&self, all: bool) {
        self.session.tell_all(all);
    }

    /// Stops renewing it.
    #[napi(catch_unwind)]
    pub fn orphan(&self) {
        self.session.orphan();
    }

    /// Gives a grant up that is not answered yet.
    #[napi(catch_unwind)]
    pub fn abort_grant(&self) {
        self.session.abort_grant();
    }

    /// Revokes it, begun at once. Resolves with `null`, or with the failure.
    #[napi(catch_unwind, ts_return_type = "Promise<NativeFailure | null>")]
    pub fn revoke<'env>(
        &self,
        env: &'env Env,
        timeout_ms: f64,
        cancel: Option<&CancelHandle>,
    ) -> Result<PromiseRaw<'env, JsResult<Option<NativeFailure>>>> {
        self.session.orphan();
        let (session, until) = (self.session.clone(), Instant::now() + ms(timeout_ms));
        promise(env, &self.io, cancel, "Lease.leaseRevoke", async move {
            let revoked = session.close(until).await;
            Ok(revoked.err().map(|fault| NativeFailure::from(&fault)))
        })
    }

    /// Renews it now. Always resolves.
    #[napi(catch_unwind, ts_return_type = "Promise<NativeRenewal>")]
    pub fn keepalive_once<'env>(
        &self,
        env: &'env Env,
        timeout_ms: f64,
        cancel: Option<&CancelHandle>,
    ) -> Result<PromiseRaw<'env, JsResult<NativeRenewal>>> {
        let (session, until) = (self.session.clone(), Instant::now() + ms(timeout_ms));
        promise(env, &self.io, cancel, "Lease.leaseKeepAlive", async move {
            Ok(match session.renew_once(until).await {
                Ok(answer) => NativeRenewal {
                    answer: Some(line(answer)),
                    failure: None,
                },
                Err(fault) => NativeRenewal {
                    answer: None,
                    failure: Some(NativeFailure::from(&fault)),
                },
            })
        })
    }
}

impl Drop for LeaseHandle {
    fn drop(&mut self) {
        self.session.orphan();
    }
}

fn tell(events: &Events, mailbox: &Mailbox, id: u32, event: &SessionEvent) {
    let failure = match event {
        SessionEvent::Refused(fault) => Some(NativeFailure::from(fault)),
        _ => None,
    };
    let (kind, text) = match event {
        SessionEvent::Granted => ("granted", None),
        SessionEvent::Refused(_) => ("refused", None),
        SessionEvent::Lease(LeaseEvent::Established) => ("established", None),
        SessionEvent::Lease(LeaseEvent::Fired) => ("fired", None),
        SessionEvent::Lease(LeaseEvent::Succeeded(answer)) => ("succeeded", Some(line(*answer))),
        SessionEvent::Lease(LeaseEvent::Failed(why)) => ("failed", Some(why.to_string())),
        SessionEvent::Lease(LeaseEvent::Lost(why)) => ("lost", Some(why.to_string())),
    };
    events.put(NativeLeaseEvent { kind, text, failure });
    mailbox.notice(id);
}

fn line(answer: LeaseKeepAliveResponse) -> String {
    let header = answer.header.unwrap_or_default();
    format!(
        "{},{},{},{},{}",
        header.cluster_id, header.member_id, header.revision, header.raft_term, answer.ttl
    )
}
