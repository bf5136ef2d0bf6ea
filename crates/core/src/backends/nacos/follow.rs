//! A name followed: a subscription for each of its services, on one connection, and one list of all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, select_all};
use futures::stream::BoxStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::client::{Connection, List, Packed, Subscription};
use super::shared::Shared;
use crate::backend::{Snapshot, Steps, steps};
use crate::error::Result;

/// How long a list waits for what this client has in it.
const RETURN: Duration = Duration::from_secs(1);

struct Following {
    shared: Arc<Shared>,
    name: Arc<str>,
    on: Option<(Arc<Connection>, Subscribed)>,
}

/// The subscriptions of a name.
pub(super) struct Subscribed {
    subscriptions: Vec<Arc<Subscription>>,
    changes: Vec<tokio::sync::watch::Receiver<Option<Result<Arc<Packed>>>>>,
}

pub(super) fn follow(shared: Arc<Shared>, name: &str) -> BoxStream<'static, Result<Snapshot>> {
    let start = Following {
        shared,
        name: name.into(),
        on: None,
    };
    steps(start)
}

impl Subscribed {
    /// Subscribes to all services of a name; see [`Connection::subscribe`].
    pub(super) async fn to(shared: &Shared, connection: &Arc<Connection>, name: &str, fresh: bool) -> Result<Self> {
        let services = shared.form.services(name);
        let all = join_all(services.iter().map(|service| connection.subscribe(service, fresh))).await;
        let subscriptions = all.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(Self {
            changes: subscriptions
                .iter()
                .map(|subscription| subscription.changes())
                .collect(),
            subscriptions,
        })
    }

    /// The lists now.
    pub(super) fn lists(&mut self) -> Result<Vec<List>> {
        for change in &mut self.changes {
            change.borrow_and_update();
        }
        let lists = self.subscriptions.iter().filter_map(|subscription| subscription.list());
        lists.map(|list| Ok(list?.unpack())).collect()
    }

    /// When the lists were true, by their services.
    pub(super) fn times(&self) -> BTreeMap<String, i64> {
        let lists = self.subscriptions.iter().filter_map(|subscription| subscription.list());
        lists
            .flatten()
            .map(|list| (list.service().to_owned(), list.at_ms()))
            .collect()
    }

    /// Resolves when one of the lists has changed.
    pub(super) async fn changed(&mut self) {
        let changes = self.changes.iter_mut().map(|change| Box::pin(change.changed()));
        let _ = select_all(changes).await; // the senders are held beside
    }
}

impl Steps for Following {
    type Read = Snapshot;

    async fn next(&mut self) -> Result<Snapshot> {
        let (connection, subscribed) = if let Some((connection, subscribed)) = &mut self.on {
            tokio::select! {
                () = subscribed.changed() => {}
                error = connection.over() => return Err(error),
            }
            (connection, subscribed)
        } else {
            let connection = self.shared.client.connection().await?;
            // What is ours there comes back by this connection too, and would be missed for a moment.
            let _ = timeout(RETURN, self.stands_by(&connection)).await; // late is no error
            let subscribed = Subscribed::to(&self.shared, &connection, &self.name, true).await?;
            let (connection, subscribed) = self.on.insert((connection, subscribed));
            (connection, subscribed)
        };
        let until = Instant::now() + self.shared.settles();
        loop {
            let merged = self.shared.merge(&self.name, &subscribed.lists()?);
            if merged.is_whole || Instant::now() >= until {
                return Ok(merged.snapshot);
            }
            tokio::select! {
                () = subscribed.changed() => {}
                () = sleep_until(until) => {}
                error = connection.over() => return Err(error),
            }
        }
    }
}

impl Following {
    /// Resolves when everything that this client wants to stand under the name does.
    async fn stands_by(&self, connection: &Arc<Connection>) {
        let services = self.shared.form.services(&self.name);
        for service in services.iter().filter_map(|service| self.shared.book.find(service)) {
            if service.is_wanted() {
                service.stands_by(connection).await;
            }
        }
    }
}
