//! One registration in Polaris: a record for each endpoint.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use super::record::Place;
use super::renewal;
use super::shared::Shared;
use super::standing::Record;
use crate::backend::{Intent, Loss, Presence};
use crate::error::{ErrorKind, Result};
use crate::instance::ServiceInstance;
use crate::upkeep::Upkeep;

/// After what time a write that was not answered is taken to have arrived, or never to.
const LATE: Duration = Duration::from_millis(300);

pub(super) struct PolarisPresence {
    record: Arc<Record>,
    renewal: Upkeep,
    /// Heartbeats of what can't be written again for now.
    beats: Upkeep,
}

impl PolarisPresence {
    pub(super) fn new(shared: Arc<Shared>, name: &str, id: &str) -> Self {
        Self {
            record: Arc::new(Record::new(shared, name, id)),
            renewal: Upkeep::default(),
            beats: Upkeep::default(),
        }
    }

    async fn publish_once(&mut self, instance: &ServiceInstance, intent: Intent) -> Result<()> {
        let record = &self.record;
        let moving = record.moving.lock().await;
        let connection = record.shared.client.connection().await?;
        let lists = record.shared.read(&connection, &record.name).await?;
        let rivals = record.rivals(&lists, &record.write(instance)?);
        match intent {
            Intent::Claim => record.claim(&rivals),
            Intent::Keep if rivals.iter().any(|rival| record.is_newer(rival)) => return Err(record.replaced()),
            Intent::Keep => {}
        }
        let records = record.write(instance)?;
        record.register(&connection, &lists, &records).await?;
        while !record.seen(&connection, &records).await? {
            record.register(&connection, &lists, &records).await?;
        }
        let now: BTreeSet<Place> = records.keys().cloned().collect();
        record.published(records);
        self.renewal.ensure(renewal::run(Arc::clone(record)));
        self.beats.stop();
        // What others have read of it is whole before its old part goes.
        let is_other = |place: &Place| !now.contains(place);
        let mut left: BTreeSet<Place> = record
            .lock()
            .written
            .iter()
            .filter(|place| is_other(place))
            .cloned()
            .collect();
        if intent == Intent::Claim {
            let of_others = rivals.into_iter().filter(|rival| rival.has_our_id);
            left.extend(of_others.map(|rival| rival.place).filter(is_other));
        }
        if !left.is_empty() {
            record.remove(&connection, &lists, &left).await?;
            record.lock().written = now;
        }
        drop(moving);
        Ok(())
    }

    async fn withdraw_once(&mut self) -> Result<()> {
        self.stop();
        let record = &self.record;
        let _moving = record.moving.lock().await;
        let (written, late) = {
            let state = record.lock();
            (state.written.clone(), state.unanswered)
        };
        if written.is_empty() {
            return Ok(());
        }
        let connection = record.shared.client.connection().await?;
        record.vanish(&connection, &written).await?;
        if late {
            // A write that nobody answered may arrive after its removal.
            sleep(LATE).await;
            record.vanish(&connection, &written).await?;
        }
        let mut state = record.lock();
        state.written.clear();
        state.records.clear();
        state.unanswered = false;
        Ok(())
    }
}

#[async_trait]
impl Presence for PolarisPresence {
    async fn publish(&mut self, instance: &ServiceInstance, intent: Intent) -> Result<()> {
        let published = self.publish_once(instance, intent).await;
        if let Err(error) = &published
            && matches!(error.kind(), ErrorKind::Unauthenticated | ErrorKind::PermissionDenied)
            && !self.renewal.is_running()
            && !self.record.lock().records.is_empty()
        {
            self.beats.ensure(renewal::beat_on(Arc::clone(&self.record)));
        }
        published.map_err(|error| self.record.named(error))
    }

    async fn lost(&mut self) -> Loss {
        self.renewal.lost().await
    }

    fn stop(&mut self) {
        self.renewal.stop();
        self.beats.stop();
    }

    async fn withdraw(&mut self) -> Result<()> {
        let withdrawn = self.withdraw_once().await;
        withdrawn.map_err(|error| self.record.named(error))
    }

    fn ttl(&self) -> Duration {
        self.record.shared.options.ttl
    }
}
