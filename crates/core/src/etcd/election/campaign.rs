//! A campaign: one candidate that waits to be the oldest, leads, and ends.
//!
//! ```text
//!              granted, key written         the oldest, seen so within the lease
//!   Granting ───────────────────► Waiting ─────────────────────────────────► Leading
//!      │ ▲                           │                                          │
//!      │ └── `again` only: a new ────┴──── lease lost, key gone, thread silent ─┤
//!      │     lease, a new term                                                  │
//!      └─────────────────────────────────► Failed ◄─────────────────────────────┘
//!   from every state: resign(), drop ────► Resigned
//! ```
//!
//! Who leads may act until the deadline of its lease, and [`Campaign::is_leading`] asks the clock each time. So there are
//! never two who may: whoever comes next comes after the key is gone, which is after the lease expired in etcd, which is
//! after that deadline. What the clock of this process can't tell (it was stopped between asking and acting) the fencing
//! token does: the create revision of the key, which grows from leader to leader.

use std::sync::Arc;

use tokio::sync::watch;

use super::elections::Elections;
use super::machine::Machine;
use super::state::{CampaignFailure, CampaignOptions, CampaignState, OnEvent};
use super::tidy::tidy;
use crate::etcd::error::Fault;

/// A running campaign. Dropping it resigns.
pub struct Campaign {
    machine: Arc<Machine>,
    runtime: tokio::runtime::Handle,
}

impl Drop for Campaign {
    fn drop(&mut self) {
        let _ = self.begin_resign();
    }
}

impl Campaign {
    /// Starts it. Its events come from inside the runtime; the first may come before this returns.
    pub fn start(elections: &Elections, options: CampaignOptions, on_event: OnEvent) -> Self {
        let machine = Arc::new(Machine::new(elections.clone(), options, on_event));
        let running = Arc::clone(&machine);
        tokio::spawn(async move { running.over.run_until_cancelled(running.run()).await });
        Self {
            machine,
            runtime: tokio::runtime::Handle::current(),
        }
    }

    /// How it stands.
    pub fn state(&self) -> CampaignState {
        self.machine.now.borrow().state
    }

    /// Whether it leads at this moment, by the clock: true only before the deadline of its lease.
    pub fn is_leading(&self) -> bool {
        let now = self.machine.now.borrow();
        let may_act = now.may_act();
        if now.state == CampaignState::Leading
            && !may_act
            && let Some(term) = &now.term
        {
            term.expired.cancel(); // a renewal that is late changes nothing any more
        }
        may_act
    }

    /// The fencing token: the create revision of its key. `None` before the key is written; that of the last term when
    /// it is over.
    pub fn revision(&self) -> Option<i64> {
        let created = self.machine.now.borrow().created;
        (created > 0).then_some(created)
    }

    /// The lease and the key of the present term, or of the last one. `None` before the first lease is granted.
    pub fn lease_and_key(&self) -> Option<(i64, Vec<u8>)> {
        self.machine.now.borrow().last.clone()
    }

    /// Why it failed, or why its last term ended.
    pub fn failure(&self) -> Option<CampaignFailure> {
        self.machine.now.borrow().failure.clone()
    }

    /// Its key, as soon as its lease is granted. Fails when it ends before.
    pub async fn key(&self) -> Result<Vec<u8>, CampaignFailure> {
        let mut now = self.machine.now.subscribe();
        let now = now.wait_for(|now| now.last.is_some() || now.state.is_final()).await;
        let Ok(now) = now else {
            return Err(CampaignFailure::Over);
        };
        match &now.last {
            Some((_, key)) => Ok(key.clone()),
            None => Err(now.failure.clone().unwrap_or(CampaignFailure::Over)),
        }
    }

    /// Waits until it leads; fails when it ends before.
    pub async fn elected(&self) -> Result<(), CampaignFailure> {
        let mut now = self.machine.now.subscribe();
        match now.wait_for(|now| now.may_act() || now.state.is_final()).await {
            Ok(now) if !now.state.is_final() => Ok(()),
            Ok(now) => Err(now.failure.clone().unwrap_or(CampaignFailure::Over)),
            Err(_) => Err(CampaignFailure::Over),
        }
    }

    /// Waits until it does not lead any more, whatever the reason. Returns at once if it does not.
    pub async fn ended(&self) -> CampaignFailure {
        let mut now = self.machine.now.subscribe();
        match now.wait_for(|now| now.state != CampaignState::Leading).await {
            Ok(now) => now.failure.clone().unwrap_or(CampaignFailure::Over),
            Err(_) => CampaignFailure::Over,
        }
    }

    /// Writes a new value, once the key is there. A value that the key holds already is not sent.
    ///
    /// Fails with [`CampaignFailure::Over`] when the campaign is over or its key is gone, which ends it as well. After any other
    /// failure the value may have been written or not; another proclamation settles that.
    pub async fn proclaim(&self, value: Vec<u8>) -> Result<(), CampaignFailure> {
        let machine = &self.machine;
        let done = machine
            .over
            .run_until_cancelled(Box::pin(machine.proclaim(value)))
            .await;
        done.unwrap_or(Err(CampaignFailure::Over))
    }

    /// Ends it, at once as far as this process is concerned. What is given can be waited for; it need not.
    pub fn begin_resign(&self) -> Revocation {
        let left = self.machine.finish(CampaignState::Resigned, None);
        Revocation(left.map(|left| {
            let (said, first) = watch::channel(None);
            let leases = self.machine.elections.leases.clone();
            self.runtime.spawn(async move { tidy(&leases, left, Some(said)).await });
            first
        }))
    }

    /// Ends it and waits until its lease is revoked and its key with it. A second call resolves at once.
    ///
    /// Fails when etcd could not be asked: then the revocation is tried for ten minutes more, and at the latest the lease
    /// expires. In this process it is over in any case.
    pub async fn resign(&self) -> Result<(), Fault> {
        self.begin_resign().wait().await
    }
}

/// The revocation of a lease that is under way.
pub struct Revocation(Option<watch::Receiver<Option<Result<(), Fault>>>>);

impl Revocation {
    /// Resolves with how the first try went. At once when there was nothing to revoke.
    pub async fn wait(self) -> Result<(), Fault> {
        let Some(mut first) = self.0 else { return Ok(()) };
        match first.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Err(fault))) => Err(fault.clone()),
            _ => Ok(()),
        }
    }
}
