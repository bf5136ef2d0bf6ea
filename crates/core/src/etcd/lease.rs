//! A lease that renews itself, and knows by its own clock when it can't be vouched for any more.
//!
//! One lease per registration, with an id that we choose (`docs/decisions/0002-one-lease-per-registration.md`):
//!
//! - Revoking it is an atomic fence. It removes exactly what was written under it, whether the answers arrived or not,
//!   and a put that a slow server applies afterwards fails with "requested lease not found".
//! - A grant whose answer was lost can still be revoked, and asked for again, because its id is known.
//! - One lost lease loses one registration, and a revoked one no other registration of the process.
//!
//! The price is a renewal per registration and third of its time to live: 200 small requests a second for a thousand at 15 s.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::client::EtcdClient;
use super::error::{Cause, Fault};
use super::options::MAX_TTL;
use crate::error::{ErrorKind, Result};

/// How a lease stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseState {
    /// Renewed within its time to live.
    Alive,
    /// Gone, or not renewed for its time to live; why.
    Lost(String),
}

/// A granted lease and the task that renews it. Dropping it ends the renewal and leaves the lease to its time to live.
pub struct Lease {
    id: i64,
    granted: Duration,
    state: watch::Receiver<LeaseState>,
    renewal: AbortHandle,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

impl Lease {
    /// An id that nobody has: 63 random bits, as the server would draw.
    pub fn new_id() -> i64 {
        fastrand::i64(1..=i64::MAX)
    }

    /// Its id.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// The time to live that the server granted.
    pub fn granted(&self) -> Duration {
        self.granted
    }

    /// Whether it is alive as far as is known.
    pub fn is_alive(&self) -> bool {
        *self.state.borrow() == LeaseState::Alive
    }

    /// How it stands, from now on. Give it to [`lost`] to wait for its end.
    pub fn state(&self) -> watch::Receiver<LeaseState> {
        self.state.clone()
    }
}

/// Resolves when a lease is lost, with the reason. Cancel-safe; a lease once lost stays lost.
pub async fn lost(state: &mut watch::Receiver<LeaseState>) -> String {
    match state.wait_for(|state| *state != LeaseState::Alive).await.as_deref() {
        Ok(LeaseState::Lost(why)) => why.clone(),
        Ok(LeaseState::Alive) | Err(_) => "its renewal ended".to_owned(),
    }
}

impl EtcdClient {
    /// Grants the lease `id` and begins to renew it. May be repeated with the same id when the answer was lost.
    ///
    /// Errors: those of [`call`](Self::call).
    pub async fn grant(&self, id: i64) -> Result<Lease, Fault> {
        let seconds = self.options().ttl_seconds();
        let answer = self
            .call("grant a lease", |client| async move {
                // Of this try: those before it may have waited for a frozen member longer than the lease lives.
                let sent = Instant::now();
                let options = etcd_client::LeaseGrantOptions::new().with_id(id);
                let answer = client.lease_client().grant(seconds, Some(options)).await?;
                Ok((answer.ttl(), sent))
            })
            .await;
        let (granted, sent) = match answer {
            Ok(done) => done,
            // Ours: the id is drawn from 2^63. The answer to an earlier request of this or the last call was lost.
            Err(fault) if fault.cause == Cause::LeaseExists => {
                let sent = self.renew(id, Instant::now() + self.options().timeout).await?;
                let answer = self
                    .call("read a lease", |client| async move {
                        client.lease_client().time_to_live(id, None).await
                    })
                    .await?;
                (answer.granted_ttl(), sent)
            }
            Err(fault) => return Err(fault),
        };
        // At most what etcd itself allows: nothing below has to ask whether a moment can be named.
        let granted = Duration::from_secs(u64::try_from(granted).unwrap_or(0)).min(MAX_TTL);
        if granted.is_zero() {
            return Err(Fault::new(
                Cause::LeaseNotFound,
                ErrorKind::Unavailable,
                "etcd granted a lease that had expired when its answer came",
            ));
        }
        let (told, state) = watch::channel(LeaseState::Alive);
        let (client, closed) = (self.clone(), self.closed().clone());
        let renewal = tokio::spawn(async move {
            let why = closed
                .run_until_cancelled(renew_until_lost(&client, id, granted, sent))
                .await
                .unwrap_or_else(|| "the client was closed".to_owned());
            let _ = told.send(LeaseState::Lost(why)); // nobody may be listening any more
        });
        Ok(Lease {
            id,
            granted,
            state,
            renewal: renewal.abort_handle(),
        })
    }

    /// Revokes a lease, which deletes every key attached to it. A lease that is not there is a success.
    pub async fn revoke(&self, id: i64) -> Result<(), Fault> {
        let answer = self
            .call("revoke a lease", |client| async move {
                client.lease_client().revoke(id).await
            })
            .await;
        match answer {
            Err(fault) if fault.cause != Cause::LeaseNotFound => Err(fault),
            _ => Ok(()),
        }
    }

    /// One renewal: a stream with one request and one answer, as Go's `KeepAliveOnce`, so that it fails over like any
    /// other call instead of dying with its connection. Returns when the request that was answered was sent.
    async fn renew(&self, id: i64, until: Instant) -> Result<Instant, Fault> {
        self.call_until("renew a lease", until, |client| async move {
            let sent = Instant::now();
            client.lease_client().keep_alive(id).await.map(|_| sent)
        })
        .await
        .map(|(sent, _)| sent)
    }
}

/// Renews every third of the time granted; after a failure again and again until the time is over. Returns why it is lost.
async fn renew_until_lost(client: &EtcdClient, id: i64, granted: Duration, sent: Instant) -> String {
    // Counted from before the request was sent: the server's own count cannot have begun earlier.
    let mut deadline = sent + granted;
    let third = granted / 3;
    let mut next = sent + third.mul_f64(0.9 + fastrand::f64() / 10.0);
    let mut failures: u32 = 0;
    let turns = Arc::clone(client.renewals());
    loop {
        sleep_until(next.min(deadline)).await;
        let renewed = async {
            let _turn = turns.acquire().await;
            let until = (Instant::now() + third.max(Duration::from_millis(500))).min(deadline);
            client.renew(id, until).await
        };
        match timeout_at(deadline, renewed).await {
            Ok(Ok(sent)) => {
                failures = 0;
                deadline = sent + granted;
                next = sent + third.mul_f64(0.9 + fastrand::f64() / 10.0);
            }
            Ok(Err(fault)) if fault.cause == Cause::LeaseNotFound => {
                return "its lease expired or was revoked".to_owned();
            }
            Ok(Err(fault)) => {
                client
                    .log()
                    .debug(format_args!("etcd lease {id:x} was not renewed: {}", fault.error));
                let most = Duration::from_millis(100)
                    .saturating_mul(1 << failures.min(10))
                    .min(third / 2);
                failures = failures.saturating_add(1);
                next = Instant::now() + most.mul_f64(0.5 + fastrand::f64() / 2.0);
            }
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            return format!(
                "its lease was not renewed for its time to live, {} s",
                granted.as_secs()
            );
        }
    }
}
