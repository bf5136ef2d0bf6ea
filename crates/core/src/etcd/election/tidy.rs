//! What a campaign leaves behind, and how it is cleared away.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::backoff::Backoff;
use crate::etcd::error::Fault;
use crate::etcd::lease::leases::Leases;

/// How long after a campaign the revocation of its lease is tried, when etcd does not answer.
const TIDYING: Duration = Duration::from_secs(600);

/// A lease that nobody needs any more.
#[derive(Clone, Copy)]
pub(super) struct Leftover {
    pub lease: i64,
    /// Whether a key may lie under it. Without one it may as well expire.
    pub granted: bool,
}

/// Revokes a lease, again and again if need be. Says how the first try went.
pub(super) async fn tidy(leases: &Leases, left: Leftover, mut said: Option<watch::Sender<Option<Result<(), Fault>>>>) {
    let mut backoff = Backoff::new();
    let end = Instant::now() + TIDYING;
    loop {
        let done = leases.revoke(left.lease).await;
        let again = left.granted && matches!(&done, Err(fault) if fault.error.is_retryable());
        if let Some(said) = said.take() {
            said.send_replace(Some(done));
        }
        let pause = backoff.next_pause();
        if !again || Instant::now() + pause > end {
            return;
        }
        tokio::select! {
            () = leases.calls().closed().cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}
