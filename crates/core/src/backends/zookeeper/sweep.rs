//! Nodes of our session that come back when their registration has ended: a server that was restored from an older state has
//! what stood there then, and keeps it for as long as the session lives. No server is restored under a connection, so after
//! each break the session's nodes are listed, and those that no registration knows are deleted.

use std::sync::{Arc, Weak};

use tokio::sync::watch;

use super::client::{State as Health, ZkError};
use super::session::Session;
use super::shared::Shared;

/// Sweeps the session whenever it has a connection again, until it has ended. Once for each session is enough.
pub(super) fn sweep_after_breaks(shared: &Arc<Shared>, session: &Arc<Session>) {
    if session.begins_sweeping() {
        let task = run(Arc::downgrade(shared), Arc::downgrade(session), session.health());
        tokio::spawn(task); // ends with the session
    }
}

async fn run(shared: Weak<Shared>, session: Weak<Session>, mut health: watch::Receiver<Health>) {
    while health.changed().await.is_ok() {
        match *health.borrow_and_update() {
            Health::Up => {}
            Health::Down(_) => continue,
            Health::Over(_) => return,
        }
        let (Some(shared), Some(session)) = (shared.upgrade(), session.upgrade()) else {
            return;
        };
        // What fails with its connection is done after the next break.
        if let Err(ZkError::Unimplemented) = sweep(&shared, &session).await {
            return;
        }
    }
}

async fn sweep(shared: &Shared, session: &Session) -> Result<(), ZkError> {
    let owners = &shared.owners;
    for path in session.client.ephemerals(shared.paths.prefix()).await? {
        if owners.know_path(&path) {
            continue; // who may have made it looks after it
        }
        let Some(stat) = session.client.stat(&path).await? else {
            continue;
        };
        if stat.ephemeral_owner != session.id || owners.know_node(stat.czxid) || owners.know_path(&path) {
            continue;
        }
        // A registration that has begun meanwhile takes the node over by writing it, which changes its version.
        match session.client.delete(&path, stat.version).await {
            Ok(()) | Err(ZkError::NoNode | ZkError::BadVersion) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
