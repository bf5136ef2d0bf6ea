//! Locks: an election without words. Who holds the lock leads.
//!
//! Two kinds, which do not know of each other: the queueing lock of etcd's Go client and `etcdctl lock` (a key per
//! candidate below `<name>/`, first come, first served), and the try-lock of the npm package etcd3 (the key itself).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::campaign::{Campaign, Revocation};
use super::candidate::{Naming, Place};
use super::elections::Elections;
use super::state::{CampaignEvent, CampaignFailure, CampaignOptions};
use crate::error::ErrorKind;
use crate::etcd::error::{Cause, Fault};
use crate::stall::Stall;

/// Which lock, and how it is held.
#[derive(Clone)]
pub struct LockOptions {
    /// Its name: the key of a try-lock, and what stands before the slash in a queueing lock's keys.
    pub name: Vec<u8>,
    /// Whether its holders stand in a queue, as those of `etcdctl lock`. Without, it is etcd3's.
    pub queue: bool,
    /// Whether to wait in that queue. Without it, or without a queue, a lock that is held is a failure at once.
    pub waits: bool,
    /// The time to live of the lease, rounded up to whole seconds; what the server grants counts.
    pub ttl: Duration,
    /// Goes on with the key of this lease, which another process may have taken the lock with.
    pub attach: Option<i64>,
    /// Gives up when the user's thread has been silent for so long; see [`CampaignOptions::stall`].
    pub stall: Option<Stall>,
}

/// Called with the reason when a lock that was held is lost; not after its release. Must not block or call the lock.
pub type OnLost = Box<dyn Fn(CampaignFailure) + Send + Sync>;

/// A lock that was acquired. Dropping it releases it.
pub struct Lock {
    campaign: Campaign,
    /// Its lease.
    pub lease: i64,
    /// The key that stands for it, the same as `etcdctl lock` prints.
    pub key: Vec<u8>,
    /// The fencing token: the create revision of the key, higher than that of any holder before.
    pub revision: i64,
}

impl Lock {
    /// Acquires it, waiting for its turn until `deadline` at most. Dropping the future gives the place in the queue back.
    ///
    /// After a failure nothing stays in etcd: the lease is revoked, with tries for ten minutes while etcd is not there.
    /// Errors: [`CampaignFailure::Taken`] when it is not to wait; `Timeout`; what etcd refuses.
    pub async fn acquire(
        elections: &Elections,
        options: LockOptions,
        deadline: Option<Instant>,
        on_lost: OnLost,
    ) -> Result<Self, CampaignFailure> {
        let place = if options.queue {
            let mut prefix = options.name;
            prefix.push(b'/');
            let naming = Naming::Hex;
            Place::Queue { prefix, naming }
        } else {
            Place::Key(options.name)
        };
        let held = Arc::new(std::sync::OnceLock::new());
        let was_held = Arc::clone(&held);
        let campaign = Campaign::start(
            elections,
            CampaignOptions {
                place,
                value: Vec::new(),
                ttl: options.ttl,
                waits: options.waits,
                again: false,
                attach: options.attach,
                stall: options.stall,
            },
            Box::new(move |event| match event {
                CampaignEvent::Elected(_) => drop(was_held.set(())),
                CampaignEvent::Failed(failure) | CampaignEvent::Lost(failure) => {
                    if was_held.get().is_some() {
                        on_lost(failure);
                    }
                }
            }),
        );
        match deadline {
            Some(deadline) => timeout_at(deadline, campaign.elected())
                .await
                .unwrap_or_else(|_| Err(out_of_time()))?,
            None => campaign.elected().await?,
        }
        let (Some((lease, key)), Some(revision)) = (campaign.lease_and_key(), campaign.revision()) else {
            return Err(CampaignFailure::Over);
        };
        Ok(Self {
            campaign,
            lease,
            key,
            revision,
        })
    }

    /// Whether it is held at this moment, by the clock.
    pub fn is_held(&self) -> bool {
        self.campaign.is_leading()
    }

    /// Releases it; see [`Campaign::resign`].
    pub async fn release(&self) -> Result<(), Fault> {
        self.campaign.resign().await
    }

    /// Releases it without waiting; see [`Campaign::begin_resign`].
    pub fn begin_release(&self) -> Revocation {
        self.campaign.begin_resign()
    }
}

fn out_of_time() -> CampaignFailure {
    CampaignFailure::Call(Fault::new(
        Cause::Refused,
        ErrorKind::Timeout,
        "the lock was not free in the time given",
    ))
}
