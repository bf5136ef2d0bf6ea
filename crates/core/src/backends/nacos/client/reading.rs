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
    /// Subscribes to a service, or joins those who do. The list is there when this resolves; where it is to be `fresh`, it is not
    /// older than this call: what is pushed may be a second late.
    pub(in super::super) async fn subscribe(self: &Arc<Self>, service: &str, fresh: bool) -> Result<Arc<Subscription>> {
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
        let answer = is_new.then(|| {
            // A task of its own: whoever was first may go while others wait.
            let (this, subscription, service) = (Arc::clone(self), Arc::clone(&subscription), service.to_owned());
            self.read_anyway();
            tokio::spawn(async move {
                let _turn = this.subscriptions.turn(&service).lock().await;
                let answered = this
                    .request("SubscribeServiceRequest", &this.subscribing(&service, true))
                    .await;
                match answered {
                    Ok(answer) => this.subscriptions.tell(&list_of(&answer, &service)),
                    Err(error) => subscription.list.send_modify(|list| _ = list.get_or_insert(Err(error))),
                }
            })
        });
        let mut changes = subscription.changes();
        let known = async {
            // What is pushed before the answer may be of a subscription before this one, and late.
            if let Some(answer) = answer {
                let _ = answer.await;
            }
            match changes.wait_for(Option::is_some).await.as_deref() {
                Ok(Some(Err(error))) => Some(error.clone()),
                _ => None,
            }
        };
        let failed = tokio::select! {
            failed = known => failed,
            error = self.over() => Some(error),
        };
        if let Some(error) = failed {
            return Err(error);
        }
        if fresh && !is_new {
            self.query(service).await?;
        }
        Ok(subscription)
    }

    /// Reads a service once, and tells those who follow it.
    pub(in super::super) async fn query(&self, service: &str) -> Result<List> {
        let scope = self.scope();
        let body = json!({
            "namespace": scope.namespace, "serviceName": service, "groupName": scope.group,
            "cluster": "", "healthyOnly": false, "udpPort": 0, "module": "naming",
        });
        let answer = self.request("ServiceQueryRequest", &body).await?;
        let list = list_of(&answer, service);
        self.subscriptions.tell(&list);
        Ok(list)
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

/// The list of a service in an answer, which may name it otherwise, or not at all.
fn list_of(answer: &Value, service: &str) -> List {
    let mut list = List::read(answer.get("serviceInfo").unwrap_or(answer));
    service.clone_into(&mut list.service);
    list
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
        if found(self).is_some() {
            return self.query(service).await.map(drop);
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
