//! Grants leases, takes them over, and revokes them.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use super::book::time_to_live;
use super::door::Door;
use super::keeper::Keeper;
use super::lease::{Lease, gone};
use super::slot::{Keep, KeeperCommand, LeaseOptions, Slot};
use crate::error::ErrorKind;
use crate::etcd::calls::caller::Caller;
use crate::etcd::calls::tries::Tries;
use crate::etcd::error::{Cause, Fault, judge};
use crate::etcd::messages::LeaseKeepAliveResponse;
use crate::etcd::options::{MAX_TTL, whole_seconds};
use crate::stall::Stall;
use crate::sync::lock;

/// How often a grant is begun anew because the lease that an earlier request of it made was gone when it was looked at.
const GRANTS: u32 = 2;

/// The most that a call about a lease waits for one member while there are others. Each may be made twice: a lease has its
/// id from the start.
const TRY_MOST: Duration = Duration::from_secs(3);

/// Grants and revocations under way, per client: each takes some 26 KB while it is.
const CALLS: usize = 512;

/// The leases of a client, all renewed on one stream. Cheap to clone. Its task runs while there is a lease.
#[derive(Clone)]
pub struct Leases {
    calls: Caller,
    inner: Arc<LeasesInner>,
}

struct LeasesInner {
    door: Arc<Mutex<Door>>,
    /// Whoever makes a call about a lease holds one meanwhile.
    turns: Semaphore,
}

impl Leases {
    /// None so far.
    pub fn new(calls: Caller) -> Self {
        Self {
            calls,
            inner: Arc::new(LeasesInner {
                door: Arc::default(),
                turns: Semaphore::new(CALLS),
            }),
        }
    }

    pub(in crate::etcd) fn calls(&self) -> &Caller {
        &self.calls
    }

    /// Gives a lease to the task, which is started when it does not run. In a tokio runtime.
    pub(super) fn keep(&self, keep: Keep) -> mpsc::UnboundedSender<KeeperCommand> {
        let mut door = lock(&self.inner.door);
        let running = door.commands.clone();
        let commands = running.unwrap_or_else(|| {
            // Unbounded, but a lease sends two commands in its life, and one for each renewal that somebody awaits.
            let (commands, receiver) = mpsc::unbounded_channel();
            let task = Keeper::new(self.calls.clone(), receiver, Arc::clone(&self.inner.door));
            tokio::spawn(task.run(self.calls.closed().clone()));
            door.commands = Some(commands.clone());
            commands
        });
        let _ = commands.send(KeeperCommand::Keep(keep));
        commands
    }

    /// Grants the lease `id` for `ttl`, rounded up to whole seconds, and begins to renew it. May be repeated with the same
    /// id when the answer was lost. Within the timeout of the options.
    ///
    /// Errors: those of [`Caller::call`].
    pub async fn grant(&self, id: i64, ttl: Duration) -> Result<Lease, Fault> {
        let until = Instant::now() + self.calls.options().timeout;
        self.grant_for(id, whole_seconds(ttl), until, LeaseOptions::default())
            .await
    }

    /// Grants the lease `id` for `ttl` seconds until `until` and begins to renew it. May be repeated with the same id
    /// when the answer was lost: there is one lease afterwards all the same, and finding out about it may take the
    /// timeout of the options once more.
    ///
    /// Errors: those of [`Caller::call`].
    pub async fn grant_for(&self, id: i64, ttl: i64, until: Instant, options: LeaseOptions) -> Result<Lease, Fault> {
        let mut grants = 1;
        loop {
            let answer = self
                .call("grant a lease", until, |client| async move {
                    // Of this try: those before it may have waited for a frozen member longer than the lease lives.
                    let sent = Instant::now();
                    let options = etcd_client::LeaseGrantOptions::new().with_id(id);
                    let answer = client.lease_client().grant(ttl, Some(options)).await?;
                    Ok((answer.ttl(), sent))
                })
                .await;
            match answer {
                Ok((granted, sent)) => {
                    let Some(granted) = time_to_live(granted) else {
                        return Err(gone("etcd granted a lease that had expired when its answer came"));
                    };
                    return Ok(self.kept(id, sent, granted, options));
                }
                // Ours: the id is drawn from 2^63. The answer to an earlier request of this or the last call was lost.
                Err(fault) if fault.cause == Cause::LeaseExists => {
                    // A member answers now: what is left of the time is not to decide.
                    let until = until.max(Instant::now() + self.calls.options().timeout);
                    match self.attach(id, until, options.clone()).await {
                        // It expired in between, with nothing written under it.
                        Err(fault) if fault.cause == Cause::LeaseNotFound && grants < GRANTS => grants += 1,
                        done => return done,
                    }
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Takes over the renewal of a lease that is there already: reads its time to live and renews it once, until `until`.
    /// The same lease may be attached to more than once.
    ///
    /// Errors: `LeaseNotFound`; else those of [`Caller::call`] and [`renew_once`](Lease::renew_once).
    pub async fn attach(&self, id: i64, until: Instant, options: LeaseOptions) -> Result<Lease, Fault> {
        let (lease, _) = self.prove(id, until, &options).await?;
        let granted = lease.granted();
        let confirmed = lease.deadline().checked_sub(granted).unwrap_or_else(Instant::now);
        Ok(self.kept(id, confirmed, granted, options))
    }

    /// Renews a lease that is not kept, once.
    ///
    /// Errors: those of [`attach`](Self::attach).
    pub async fn renew_unkept(&self, id: i64, until: Instant) -> Result<LeaseKeepAliveResponse, Fault> {
        let options = LeaseOptions {
            renews_itself: false,
            ..LeaseOptions::default()
        };
        self.prove(id, until, &options).await.map(|(_, answer)| answer)
    }

    /// Keeps a lease for as long as it takes to renew it once, and a moment longer.
    async fn prove(
        &self,
        id: i64,
        until: Instant,
        options: &LeaseOptions,
    ) -> Result<(Lease, LeaseKeepAliveResponse), Fault> {
        let answer = self
            .call("read a lease", until, |client| async move {
                client.lease_client().time_to_live(id, None).await
            })
            .await?;
        let Some(granted) = time_to_live(answer.granted_ttl()).filter(|_| answer.ttl() >= 0) else {
            return Err(gone("etcd: requested lease not found"));
        };
        // Kept from now, so that it can be renewed; nobody has it before the renewal has shown how long it lives.
        let unproved = LeaseOptions {
            observer: None,
            stall: None,
            ..options.clone()
        };
        let lease = self.kept(id, Instant::now(), granted, unproved);
        let answer = lease.renew_once(until).await?;
        Ok((lease, answer))
    }

    async fn call<T, F, Fut>(&self, op: &'static str, until: Instant, make: F) -> Result<T, Fault>
    where
        F: Fn(etcd_client::Client) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        let tries = Tries {
            deadline: Some(until),
            most: Some(TRY_MOST),
            repeatable: true,
            only: None,
        };
        let Ok(_turn) = timeout_at(until, self.inner.turns.acquire()).await else {
            return Err(Fault::new(
                Cause::NotSent,
                ErrorKind::Timeout,
                format!("too many calls about leases were under way to {op} in time"),
            ));
        };
        // Boxed, so that those who wait for their turn are small.
        let answer = Box::pin(self.calls.attempt(op, tries, |connection| {
            let answer = make(connection.client.clone());
            async move { answer.await.map_err(|error| judge(error, &connection.url)) }
        }));
        answer.await.map(|(answer, _)| answer)
    }

    fn kept(&self, id: i64, confirmed: Instant, ttl: Duration, options: LeaseOptions) -> Lease {
        let ttl = ttl.min(MAX_TTL);
        let slot = Slot::new(id, confirmed, ttl, &options);
        let keep = Keep {
            slot: Arc::clone(&slot),
            confirmed,
            ttl,
        };
        let commands = self.keep(keep);
        let guard = options.stall.map(|stall| {
            let guard = revoke_when_stalled(self.clone(), Arc::clone(&slot), commands.clone(), stall);
            tokio::spawn(guard).abort_handle()
        });
        Lease::new(slot, commands, guard)
    }

    /// Revokes a lease, which deletes every key attached to it. A lease that is not there is a success.
    pub async fn revoke(&self, id: i64) -> Result<(), Fault> {
        self.revoke_until(id, Instant::now() + self.calls.options().timeout)
            .await
    }

    /// [`revoke`](Self::revoke) until `until`.
    pub async fn revoke_until(&self, id: i64, until: Instant) -> Result<(), Fault> {
        let answer = self
            .call("revoke a lease", until, |client| async move {
                client.lease_client().revoke(id).await
            })
            .await;
        match answer {
            Err(fault) if fault.cause != Cause::LeaseNotFound => Err(fault),
            _ => Ok(()),
        }
    }
}

/// Ends a lease whose owner does not tick: it is lost first, so that nobody takes it for alive while it is being revoked.
async fn revoke_when_stalled(
    leases: Leases,
    slot: Arc<Slot>,
    commands: mpsc::UnboundedSender<KeeperCommand>,
    stall: Stall,
) {
    stall.reached().await;
    let why = format!(
        "the JavaScript thread was blocked for {} ms: its lease was revoked",
        stall.limit().as_millis()
    );
    slot.lose(&why);
    let id = slot.id();
    let _ = commands.send(KeeperCommand::Forget(slot));
    // What cannot be revoked now expires: nobody renews it any more.
    if let Err(fault) = leases.revoke(id).await {
        leases
            .calls
            .log()
            .warn(format_args!("etcd lease {id:x} was not revoked: {}", fault.error));
    }
}
