//! One registration: the labels and annotations of the own pod.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use super::client::Cluster;
use super::model::Meta;
use super::pods;
use crate::backend::{Intent, Loss, Presence};
use crate::error::{Error, ErrorKind, Result};
use crate::http::LATE;
use crate::instance::ServiceInstance;
use crate::sync::lock;
use crate::upkeep::Upkeep;

/// How often a write is tried against a pod that changes between the look and the write.
const TRIES: usize = 5;

/// The registration that holds the own pod, of one client.
pub(super) type Held = Arc<Mutex<Option<String>>>;

pub(super) struct KubernetesPresence {
    pod: Arc<Own>,
    held: Held,
    upkeep: Upkeep,
    /// Something was sent, and is not known to be removed; and whether an answer is missing.
    is_sent: bool,
    is_unanswered: bool,
}

/// The own pod, as this registration knows it.
struct Own {
    cluster: Arc<Cluster>,
    id: String,
    /// Of the pod that it was first written to. A pod that takes its name later is another.
    uid: Mutex<Option<String>>,
}

/// What a look at the own pod shows.
enum Look {
    /// There is none, or another has its name.
    Gone,
    /// Whose record it carries: ours, another's, or none.
    There(Meta),
}

impl Drop for KubernetesPresence {
    fn drop(&mut self) {
        *lock(&self.held) = None;
    }
}

impl KubernetesPresence {
    /// Errors are `InvalidArgument`: the name of the pod is not known, or a registration holds it.
    pub(super) fn new(cluster: Arc<Cluster>, held: &Held, name: &str, id: &str) -> Result<Self> {
        cluster.options.own_pod()?;
        let mut holder = lock(held);
        if let Some(holder) = &*holder {
            return Err(Error::invalid(format!(
                "instance: this pod is registered as {holder} already, and a pod is one instance: deregister that first, or \
                 give all endpoints to one instance"
            )));
        }
        *holder = Some(format!("{name}/{id}"));
        drop(holder);
        Ok(Self {
            pod: Arc::new(Own {
                cluster,
                id: id.to_owned(),
                uid: Mutex::default(),
            }),
            held: Arc::clone(held),
            upkeep: Upkeep::default(),
            is_sent: false,
            is_unanswered: false,
        })
    }

    async fn write(&mut self, instance: &ServiceInstance, intent: Intent) -> Result<()> {
        let own = Arc::clone(&self.pod);
        let mut failure = None;
        for _ in 0..TRIES {
            let Look::There(seen) = own.look().await? else {
                return Err(own.gone().await);
            };
            let is_anothers = pods::owner(&seen).is_some_and(|owner| owner != own.id);
            if intent == Intent::Keep && is_anothers {
                return Err(Error::new(ErrorKind::Replaced, Own::replaced(&seen)));
            }
            // Until it is answered: this may be dropped at any time.
            (self.is_sent, self.is_unanswered) = (true, true);
            let patched = own.cluster.patch_own(&pods::publishing(&seen, instance)).await;
            match patched {
                Ok(()) => {
                    self.is_unanswered = false;
                    return Ok(());
                }
                // Somebody was there in between, or it is another pod: the next look tells.
                Err(refused)
                    if refused.status == 409 || refused.status == 404 || (refused.status == 422 && refused.is_bare) =>
                {
                    self.is_unanswered = false;
                    failure = Some(refused.error);
                }
                Err(refused) => {
                    self.is_unanswered = refused.status == 0;
                    return Err(refused.error);
                }
            }
        }
        let why = format!(
            "the pod {} changed {TRIES} times while it was written to",
            own.cluster.own_name().await?
        );
        let error = Error::new(ErrorKind::Unavailable, why);
        Err(match failure {
            Some(cause) => error.caused_by(cause),
            None => error,
        })
    }

    async fn remove(&self) -> Result<()> {
        let own = &self.pod;
        let mut failure = None;
        for _ in 0..TRIES {
            let Look::There(seen) = own.look().await? else {
                return Ok(());
            };
            if pods::owner(&seen) != Some(&own.id) {
                return Ok(());
            }
            match own.cluster.patch_own(&pods::withdrawing(&seen)).await {
                Ok(()) => return Ok(()),
                Err(refused) if matches!(refused.status, 404 | 409 | 422) => failure = Some(refused.error),
                Err(refused) => return Err(refused.error),
            }
        }
        let error = Error::new(
            ErrorKind::Unavailable,
            format!("the pod changed {TRIES} times while it was written to"),
        );
        Err(match failure {
            Some(cause) => error.caused_by(cause),
            None => error,
        })
    }
}

impl Own {
    async fn look(&self) -> Result<Look> {
        let Some(seen) = self.cluster.own_pod().await? else {
            return Ok(Look::Gone);
        };
        let mut uid = lock(&self.uid);
        let first = uid.get_or_insert_with(|| seen.uid.clone());
        Ok(if *first == seen.uid {
            Look::There(seen)
        } else {
            Look::Gone
        })
    }

    async fn gone(&self) -> Error {
        match self.cluster.own_name().await {
            Ok(pod) => Error::new(
                ErrorKind::Unavailable,
                format!("the pod {pod} is gone, or another has taken its name: see options.pod and options.namespace"),
            ),
            Err(error) => error,
        }
    }

    fn replaced(seen: &Meta) -> String {
        let owner = pods::owner(seen).unwrap_or_default();
        format!(
            "the pod {} is registered as {owner:?} by another program in it",
            seen.name
        )
    }

    /// Until the record is lost, and why it is. An outage is no loss: nothing expires here.
    async fn keep_looking(self: Arc<Self>) -> Loss {
        loop {
            self.pause().await;
            match self.look().await {
                Ok(Look::Gone) => return Loss::Gone(self.gone().await.message().to_owned()),
                Ok(Look::There(seen)) => match pods::owner(&seen) {
                    Some(owner) if owner == self.id => {}
                    Some(_) => return Loss::Replaced,
                    None => return Loss::Gone("somebody removed its labels from the pod".to_owned()),
                },
                Err(error) => {
                    let log = &self.cluster.log;
                    log.debug(format_args!("the own pod can't be looked at: {error}"));
                }
            }
        }
    }

    async fn pause(&self) {
        let interval = self.cluster.options.ttl / 3;
        sleep(interval.mul_f64(0.9 + fastrand::f64() / 10.0)).await;
    }
}

#[async_trait]
impl Presence for KubernetesPresence {
    /// It is visible to those who list pods that are not ready, and to all once the pod is Running and Ready, which may wait for us.
    async fn publish(&mut self, instance: &ServiceInstance, intent: Intent) -> Result<()> {
        self.write(instance, intent).await?;
        self.upkeep.ensure(Arc::clone(&self.pod).keep_looking());
        Ok(())
    }

    async fn lost(&mut self) -> Loss {
        self.upkeep.lost().await
    }

    fn stop(&mut self) {
        self.upkeep.stop();
    }

    async fn withdraw(&mut self) -> Result<()> {
        self.stop();
        if !self.is_sent {
            return Ok(());
        }
        self.remove().await?;
        if self.is_unanswered {
            // A write that nobody answered may arrive after its removal.
            sleep(LATE).await;
            self.remove().await?;
        }
        (self.is_sent, self.is_unanswered) = (false, false);
        Ok(())
    }

    async fn reappeared(&mut self) {
        loop {
            self.pod.pause().await;
            if let Ok(Look::There(seen)) = self.pod.look().await
                && pods::owner(&seen) == Some(&self.pod.id)
            {
                self.is_sent = true;
                return;
            }
        }
    }

    fn ttl(&self) -> Duration {
        self.pod.cluster.options.ttl
    }
}
