//! Reading services on a connection: once, and by subscription.
//!
//! A subscription may get lost in a server without a word, so each service is also read every 30 s. A subscription that
//! nobody wants any more is ended then.

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::connection::Connection;
use super::lists::List;
use super::subscriptions::Subscription;
use crate::error::{Error, Result};
use crate::sync::lock;

/// How often what is subscribed to is read all the same.
const ANYWAY: Duration = Duration::from_secs(30);

impl Connection {
    /// Subscribes to a service, or joins those who do. The list is there when this resolves.
    pub(in super::super) async fn subscribe(self: &Arc<Self>, service: &str) -> Result<Arc<Subscription>> {
        let subscriptions = &self.subscriptions;
        let (subscription, is_new) = {
            let mut by_service = lock(&subscriptions.by_service);
            match by_service.get(service).and_then(Weak::upgrade) {
                // What has failed is tried again.
                Some(there) if !matches!(&*there.list.borrow(), Some(Err(_))) => (there, false),
                _ => {
                    let made = Arc::new(Subscription {
                        list: watch::channel(None).0,
                    });
                    by_service.insert(service.to_owned(), Arc::downgrade(&made));
                    (made, true)
                }
            }
        };
        if is_new {
            // A task of its own: whoever was first may go while others wait.
            let (this, subscription, service) = (Arc::clone(self), Arc::clone(&subscription), service.to_owned());
            tokio::spawn(async move {
                let _turn = this.subscriptions.turn(&service).lock().await;
                let answered = this
                    .request("SubscribeServiceRequest", &this.subscribing(&service, true))
                    .await;
                let read = answered.map(|answer| Arc::new(List::read(answer.get("serviceInfo").unwrap_or(&answer))));
                // What was pushed meanwhile is newer.
                subscription.list.send_if_modified(|list| {
                    let is_first = list.is_none();
                    list.get_or_insert(read);
                    is_first
                });
            });
            self.read_anyway();
        }
        let mut changes = subscription.changes();
        let failed = tokio::select! {
            list = changes.wait_for(Option::is_some) => match list.as_deref() {
                Ok(Some(Err(error))) => Some(error.clone()),
                _ => None,
            },
            error = self.over() => Some(error),
        };
        failed.map_or(Ok(subscription), Err)
    }

    /// Reads a service once.
    pub(in super::super) async fn query(&self, service: &str) -> Result<Arc<List>> {
        let scope = self.scope();
        let body = json!({
            "namespace": scope.namespace, "serviceName": service, "groupName": scope.group,
            "cluster": "", "healthyOnly": false, "udpPort": 0, "module": "naming",
        });
        let answer = self.request("ServiceQueryRequest", &body).await?;
        let mut list = List::read(answer.get("serviceInfo").unwrap_or(&answer));
        service.clone_into(&mut list.service);
        Ok(Arc::new(list))
    }

    fn subscribing(&self, service: &str, subscribe: bool) -> Value {
        let scope = self.scope();
        json!({
            "namespace": scope.namespace, "serviceName": service, "groupName": scope.group,
            "subscribe": subscribe, "clusters": "", "module": "naming",
        })
    }

    fn read_anyway(self: &Arc<Self>) {
        let mut reading = lock(&self.subscriptions.reading);
        if reading.is_none() && !self.is_over() {
            *reading = Some(AbortOnDropHandle::new(tokio::spawn(read_anyway(Arc::downgrade(self)))));
        }
    }
}

async fn read_anyway(connection: Weak<Connection>) {
    loop {
        sleep(ANYWAY.mul_f64(0.8 + fastrand::f64() * 0.4)).await;
        let Some(connection) = connection.upgrade() else { return };
        let all: Vec<_> = {
            let by_service = lock(&connection.subscriptions.by_service);
            by_service.keys().cloned().collect()
        };
        for service in all {
            // A failure is no loss: it is asked again, and a connection that has ended ends this.
            let _: Result<(), Error> = connection.look(&service).await;
        }
    }
}

impl Connection {
    /// Reads one service that is subscribed to, or ends the subscription that nobody holds.
    async fn look(&self, service: &str) -> Result<()> {
        let found = |connection: &Self| {
            lock(&connection.subscriptions.by_service)
                .get(service)
                .and_then(Weak::upgrade)
        };
        if let Some(subscription) = found(self) {
            let mut changes = subscription.changes();
            let Some(Ok(before)) = changes.borrow_and_update().clone() else {
                return Ok(());
            };
            let now = self.query(service).await?;
            // What was pushed meanwhile may be newer than what was read.
            if !changes.has_changed().unwrap_or(true) && !now.is_same(&before) {
                self.subscriptions.tell(&subscription, now);
            }
            return Ok(());
        }
        let _turn = self.subscriptions.turn(service).lock().await;
        if found(self).is_some() {
            return Ok(());
        }
        lock(&self.subscriptions.by_service).remove(service);
        self.request("SubscribeServiceRequest", &self.subscribing(service, false))
            .await?;
        Ok(())
    }
}
