//! A name followed: Polaris pushes nothing, so each service of it is asked for once a second, with what is known of it. The
//! answer to that is short while nothing has changed.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use tokio::time::{Instant, sleep_until};

use super::client::Connection;
use super::shared::{LOOK, Lists, SETTLES, Shared};
use crate::backend::{Snapshot, Steps, steps};
use crate::error::Result;

/// How often a service is asked for: a server looks at its store as often.
const EVERY: Duration = Duration::from_secs(1);

struct Following {
    shared: Arc<Shared>,
    name: Arc<str>,
    on: Option<Arc<Connection>>,
    lists: Lists,
    /// Of each list; `None` before the first.
    revisions: Vec<Option<String>>,
    next: Instant,
}

pub(super) fn follow(shared: Arc<Shared>, name: &str) -> BoxStream<'static, Result<Snapshot>> {
    let services = shared.form.services(name);
    let start = Following {
        shared,
        name: name.into(),
        on: None,
        revisions: vec![None; services.len()],
        lists: services.into_iter().map(|service| (service, Vec::new())).collect(),
        next: Instant::now(),
    };
    steps(start)
}

impl Steps for Following {
    type Read = Snapshot;

    /// The next list. One with an instance in part is held for as long as the rest may take.
    async fn next(&mut self) -> Result<Snapshot> {
        let mut held: Option<(Snapshot, Instant)> = None;
        loop {
            if self.ask(held.is_some()).await? {
                let merged = self.shared.merge(&self.name, &self.lists);
                if let [(_, list)] = &mut *self.lists {
                    *list = Vec::new(); // the next change tells all of it
                }
                if merged.is_whole {
                    return Ok(merged.snapshot);
                }
                let until = held.map_or_else(|| Instant::now() + SETTLES, |(_, until)| until);
                held = Some((merged.snapshot, until));
            }
            if let Some((snapshot, _)) = held.take_if(|(_, until)| Instant::now() >= *until) {
                return Ok(snapshot);
            }
        }
    }
}

impl Following {
    /// Asks once, when it is time to. Whether anything has changed.
    async fn ask(&mut self, soon: bool) -> Result<bool> {
        let Some(connection) = &self.on else {
            self.on = Some(self.shared.client.connection().await?);
            let is_changed = self.read().await?;
            // A thousand names are not asked for at once.
            self.next = Instant::now() + EVERY.mul_f64(fastrand::f64());
            return Ok(is_changed || self.lists.is_empty());
        };
        let next = if soon { Instant::now() + LOOK } else { self.next };
        tokio::select! {
            () = sleep_until(next) => {}
            error = connection.over() => return Err(error),
        }
        let is_changed = self.read().await?;
        self.next = Instant::now() + EVERY;
        Ok(is_changed)
    }

    async fn read(&mut self) -> Result<bool> {
        let Some(connection) = &self.on else {
            return Ok(false);
        };
        let mut is_changed = false;
        for ((service, list), known) in self.lists.iter_mut().zip(&mut self.revisions) {
            let namespace = &self.shared.form.namespace;
            let now = connection
                .list(namespace, service, known.as_deref().unwrap_or_default())
                .await?;
            // What is not there has no revision.
            if let Some(now) = now
                && known.as_ref() != Some(&now.revision)
            {
                *known = Some(now.revision);
                *list = now.instances;
                is_changed = true;
            }
        }
        Ok(is_changed)
    }
}
